//! Health, metrics, status.

use super::super::{ApiError, ApiState, Caller, Role};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// `/healthz`: the process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `/readyz`: sessions can be opened.
pub(super) async fn ready(State(state): State<Arc<ApiState>>) -> Response {
    let health = (state.health)();
    if health.not_ready.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", health.not_ready.join("\n"))).into_response()
}

/// `/metrics`.
pub(super) async fn metrics(State(state): State<Arc<ApiState>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (state.metrics)()).into_response()
}

/// `GET /api/v1/status`.
pub(super) async fn status(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor, Role::Reviewer])?;
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
