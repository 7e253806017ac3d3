//! The pages: what each person needs first is what they see first.
//!
//! Rendered here, whole; the browser fetches a page again when the gateway says that something in it has changed, and takes
//! over the difference. Everything is in the binary, and nothing is fetched from elsewhere. A form works without scripts.
//!
//! A page shows what the API would show to the same person, and does what the API does, by the same functions.

mod approvals;
mod assets;
mod events;
pub(crate) mod failure;
mod now;
mod sessions;
mod shown;
pub(crate) mod viewer;

use crate::api::ApiState;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
pub use events::Watchers;
use std::sync::Arc;

/// Nothing is loaded but from here, nothing is run but our files, and nobody frames us.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Headers of every page.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
];

/// Every page. Each names the roles that it needs, where it is written.
pub(crate) fn router() -> Router<Arc<ApiState>> {
    Router::new()
        .merge(crate::login::router())
        .route("/", get(now::show))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}", get(approvals::show))
        .route("/approvals/{id}/approve", post(approvals::approve))
        .route("/approvals/{id}/deny", post(approvals::deny))
        .route("/approvals/{id}/revoke", post(approvals::revoke))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}", get(sessions::show))
        .route("/sessions/{id}/kill", post(sessions::kill))
        .route("/events", get(events::stream))
        .route("/assets/{file}", get(assets::file))
        .layer(from_fn(guarded))
}

async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
