//! Requests that wait for a reviewer.

use super::super::decisions::{self, Decision};
use super::super::{ApiError, ApiState, Caller, Role};
use crate::approvals::{ApprovalId, Word};
use crate::view;
use axum::Json;
use axum::extract::{Extension, Path, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /api/v1/approvals`.
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Reviewer, Role::Auditor])?;
    let list = state.approvals.list().iter().map(view::pending).collect::<Vec<_>>();
    Ok(Json(json!({ "approvals": list })))
}

/// `GET /api/v1/approvals/{id}`.
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Reviewer, Role::Auditor])?;
    Ok(Json(view::pending(&state.approvals.get(parse(&id)?)?)))
}

/// `POST /api/v1/approvals/{id}/approve`.
pub(super) async fn approve(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Option<Json<Decision>>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Reviewer])?;
    let (id, word) = (parse(&id)?, word(body)?);
    let progress = decisions::approve(&state, &caller, id, word).await?;
    Ok(Json(json!({ "id": id, "approved": progress.approved, "missing": progress.missing })))
}

/// `POST /api/v1/approvals/{id}/deny`.
pub(super) async fn deny(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Option<Json<Decision>>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Reviewer])?;
    let (id, word) = (parse(&id)?, word(body)?);
    decisions::deny(&state, &caller, id, word).await?;
    Ok(Json(json!({ "id": id, "denied": true })))
}

/// `GET /api/v1/approvals/standing`: approvals in force that cover more than one request.
pub(super) async fn standing(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Reviewer, Role::Auditor])?;
    let list = state.approvals.standing().iter().map(view::standing).collect::<Vec<_>>();
    Ok(Json(json!({ "standing": list })))
}

/// `POST /api/v1/approvals/{id}/revoke`: takes such an approval back.
pub(super) async fn revoke(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Reviewer])?;
    let id = parse(&id)?;
    decisions::revoke(&state, &caller, id).await?;
    Ok(Json(json!({ "id": id, "revoked": true })))
}

fn parse(id: &str) -> Result<ApprovalId, ApiError> {
    id.parse().map_err(|error: crate::approvals::InvalidApprovalId| ApiError::Invalid(error.to_string()))
}

fn word(body: Option<Json<Decision>>) -> Result<Word, ApiError> {
    body.map(|Json(decision)| decision).unwrap_or_default().word()
}
