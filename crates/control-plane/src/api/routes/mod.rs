//! The API's resources, one file each.

mod approvals;
pub(crate) mod audit;
mod export;
mod gateway;
pub(crate) mod keeping;
pub(crate) mod keys;
pub(crate) mod log;
mod notices;
pub(crate) mod revocations;
pub(crate) mod sessions;

use super::ApiState;
use super::auth::known;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use std::sync::Arc;

/// Longest body of a request, in bytes: a reason, or the roles of a key.
const BODY_MAX: usize = 64 << 10;

/// Every resource.
pub(super) fn router(state: Arc<ApiState>) -> Router {
    limited(resources(&state), state)
}

/// Every resource, and the pages.
pub(super) fn router_with_pages(state: Arc<ApiState>) -> Router {
    limited(resources(&state).merge(crate::pages::router()), state)
}

fn limited(router: Router<Arc<ApiState>>, state: Arc<ApiState>) -> Router {
    router.layer(DefaultBodyLimit::max(BODY_MAX)).with_state(state)
}

fn resources(state: &Arc<ApiState>) -> Router<Arc<ApiState>> {
    Router::new()
        .route("/healthz", get(gateway::alive))
        .route("/readyz", get(gateway::ready))
        .route("/metrics", get(gateway::metrics))
        .route("/api/v1/status", get(gateway::status))
        .route("/api/v1/sessions", get(sessions::list))
        .route("/api/v1/sessions/live", get(sessions::live))
        .route("/api/v1/sessions/kill", post(sessions::kill_all))
        .route("/api/v1/sessions/{id}", get(sessions::show))
        .route("/api/v1/sessions/{id}/kill", post(sessions::kill))
        .route("/api/v1/approvals", get(approvals::list))
        .route("/api/v1/approvals/standing", get(approvals::standing))
        .route("/api/v1/approvals/{id}", get(approvals::show))
        .route("/api/v1/approvals/{id}/revoke", post(approvals::revoke))
        .route("/api/v1/approvals/{id}/approve", post(approvals::approve))
        .route("/api/v1/approvals/{id}/deny", post(approvals::deny))
        .route("/api/v1/notices/dead", get(notices::dead))
        .route("/api/v1/notices/resend", post(notices::resend))
        .route("/integrations/slack", post(notices::slack))
        .route("/api/v1/keys", get(keys::list).post(keys::create))
        .route("/api/v1/keys/{id}/revoke", post(keys::revoke))
        .route("/api/v1/revocations", get(revocations::list).post(revocations::create))
        .route("/api/v1/revocations/lift", post(revocations::lift))
        .route("/api/v1/audit/entries", get(audit::entries))
        .route("/api/v1/audit/verify", get(audit::verify).post(audit::verify_expected))
        .route("/api/v1/audit/export", get(export::export))
        .route("/api/v1/audit/holds", get(keeping::holds).post(keeping::hold))
        .route("/api/v1/audit/holds/{id}/release", post(keeping::release))
        .route("/api/v1/audit/redact", post(keeping::redact))
        .route("/api/v1/audit/retain", post(keeping::retain))
        .route("/api/v1/audit/key", get(log::key))
        .route("/api/v1/audit/key/rotate", post(log::rotate))
        .route("/api/v1/audit/key/rotate-payload", post(log::rotate_payload))
        .route("/api/v1/audit/key/rewrap", post(log::rewrap))
        .route("/api/v1/audit/prove", get(log::prove))
        .route("/log/checkpoint", get(log::checkpoint))
        .route("/log/{*path}", get(log::file))
        .route_layer(from_fn_with_state(Arc::clone(state), known))
}
