//! Requests that wait for a reviewer.

use super::super::auth::{Caller, Peer, require};
use super::super::{AdminState, ApiError, Role};
use crate::approvals::{ApprovalId, Pending};
use crate::view;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use proxy_io::clock::now;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest reason, in characters.
const REASON_MAX: usize = 2_000;

/// The body of a decision.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    /// Why.
    reason: Option<String>,
}

/// `GET /api/v1/approvals`.
pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    require(&state, &peer, &headers, &[Role::Admin, Role::Reviewer, Role::Auditor]).await?;
    let list = state.approvals.list().iter().map(view::pending).collect::<Vec<_>>();
    Ok(Json(json!({ "approvals": list })))
}

/// `GET /api/v1/approvals/{id}`.
pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    require(&state, &peer, &headers, &[Role::Admin, Role::Reviewer, Role::Auditor]).await?;
    Ok(Json(view::pending(&state.approvals.get(parse(&id)?)?)))
}

/// `POST /api/v1/approvals/{id}/approve`.
pub(super) async fn approve(
    State(state): State<Arc<AdminState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Option<Json<Decision>>,
) -> Result<Json<Value>, ApiError> {
    let caller = require(&state, &peer, &headers, &[Role::Reviewer]).await?;
    let (id, reason) = (parse(&id)?, reason(body)?);
    let pending = state.approvals.may_decide(id, &caller.reviewer(), now())?;
    record(&state, &caller, &pending, "request approved", reason.as_deref()).await?;
    let progress = state.approvals.approve(id, &caller.reviewer(), reason, now())?;
    Ok(Json(json!({ "id": id, "approved": progress.approved, "missing": progress.missing })))
}

/// `POST /api/v1/approvals/{id}/deny`.
pub(super) async fn deny(
    State(state): State<Arc<AdminState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Option<Json<Decision>>,
) -> Result<Json<Value>, ApiError> {
    let caller = require(&state, &peer, &headers, &[Role::Reviewer]).await?;
    let (id, reason) = (parse(&id)?, reason(body)?);
    let pending = state.approvals.may_decide(id, &caller.reviewer(), now())?;
    record(&state, &caller, &pending, "request denied", reason.as_deref()).await?;
    state.approvals.deny(id, &caller.reviewer(), reason, now())?;
    Ok(Json(json!({ "id": id, "denied": true })))
}

fn parse(id: &str) -> Result<ApprovalId, ApiError> {
    id.parse().map_err(|error: crate::approvals::InvalidApprovalId| ApiError::Invalid(error.to_string()))
}

fn reason(body: Option<Json<Decision>>) -> Result<Option<String>, ApiError> {
    let reason =
        body.and_then(|Json(decision)| decision.reason).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if reason.as_ref().is_some_and(|text| text.chars().count() > REASON_MAX) {
        return Err(ApiError::Invalid(format!("a reason has at most {REASON_MAX} characters")));
    }
    Ok(reason)
}

/// One reviewer's word, which may be one of several that are needed. The request's own record follows when it
/// is settled.
async fn record(
    state: &AdminState,
    caller: &Caller,
    pending: &Pending,
    action: &str,
    reason: Option<&str>,
) -> Result<(), ApiError> {
    let held = &pending.held;
    let mut details = BTreeMap::from([
        ("approval".to_owned(), pending.id.to_string()),
        ("principal".to_owned(), held.principal.id()),
        ("connection".to_owned(), held.target.connection.clone()),
        ("digest".to_owned(), held.digest.clone()),
    ]);
    if let Some(reason) = reason {
        details.insert("reason".to_owned(), reason.to_owned());
    }
    let object = format!("request {} of session {}", held.request.0, held.session);
    state.record_action(caller.id(), action, object, details).await
}
