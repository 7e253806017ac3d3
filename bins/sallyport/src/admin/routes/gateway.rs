//! Health, metrics, status.

use super::super::auth::{Peer, require};
use super::super::{AdminState, ApiError, Role};
use crate::metrics::family;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// `/healthz`: the process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `/readyz`: sessions can be opened.
pub(super) async fn ready(State(state): State<Arc<AdminState>>) -> Response {
    let health = (state.health)();
    if health.not_ready.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", health.not_ready.join("\n"))).into_response()
}

/// `/metrics`.
pub(super) async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    state.metrics.gauge(&family::SESSIONS_OPEN, &[]).set(count(state.live.list().len()));
    state.metrics.gauge(&family::HELD, &[]).set(count(state.approvals.len()));
    state.metrics.gauge(&family::WAITING, &[]).set(count((state.health)().waiting_for_restart.len()));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

/// `GET /api/v1/status`.
pub(super) async fn status(
    State(state): State<Arc<AdminState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    require(&state, &peer, &headers, &[Role::Admin, Role::Auditor, Role::Reviewer]).await?;
    let health = (state.health)();
    let mut value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": health.not_ready.is_empty(),
        "sessions": state.live.list().len(),
        "held": state.approvals.len(),
    });
    if let (Some(map), Ok(Value::Object(fields))) = (value.as_object_mut(), serde_json::to_value(health)) {
        map.extend(fields);
    }
    Ok(Json(value))
}
