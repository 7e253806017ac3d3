//! Requests that wait for a reviewer.

use super::super::auth::{Caller, Peer, require};
use super::super::{ApiError, ApiState, Role};
use crate::approvals::{ApprovalId, InvalidWidth, Pending, Refused, Width, Word};
use crate::view;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use proxy_io::HeldRequest;
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
    /// For how much: `once` (the default), `session`, or a time such as `30m`. Of an approval alone.
    width: Option<String>,
}

/// `GET /api/v1/approvals`.
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    require(&state, &peer, &headers, &[Role::Admin, Role::Reviewer, Role::Auditor]).await?;
    let list = state.approvals.list().iter().map(view::pending).collect::<Vec<_>>();
    Ok(Json(json!({ "approvals": list })))
}

/// `GET /api/v1/approvals/{id}`.
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    require(&state, &peer, &headers, &[Role::Admin, Role::Reviewer, Role::Auditor]).await?;
    Ok(Json(view::pending(&state.approvals.get(parse(&id)?)?)))
}

/// `POST /api/v1/approvals/{id}/approve`.
pub(super) async fn approve(
    State(state): State<Arc<ApiState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Option<Json<Decision>>,
) -> Result<Json<Value>, ApiError> {
    let caller = require(&state, &peer, &headers, &[Role::Reviewer]).await?;
    let (id, word) = (parse(&id)?, word(body)?);
    let pending = state.approvals.may_decide(id, &caller.reviewer(), word.width, now())?;
    record(&state, &caller, &pending, "request approved", &word).await?;
    let progress = state.approvals.approve(id, &caller.reviewer(), word, now())?;
    Ok(Json(json!({ "id": id, "approved": progress.approved, "missing": progress.missing })))
}

/// `POST /api/v1/approvals/{id}/deny`.
pub(super) async fn deny(
    State(state): State<Arc<ApiState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Option<Json<Decision>>,
) -> Result<Json<Value>, ApiError> {
    let caller = require(&state, &peer, &headers, &[Role::Reviewer]).await?;
    let (id, word) = (parse(&id)?, word(body)?);
    if word.width != Width::Once {
        return Err(ApiError::Invalid("a denial has no width: it is for this request".to_owned()));
    }
    let pending = state.approvals.may_decide(id, &caller.reviewer(), Width::Once, now())?;
    record(&state, &caller, &pending, "request denied", &word).await?;
    state.approvals.deny(id, &caller.reviewer(), word, now())?;
    Ok(Json(json!({ "id": id, "denied": true })))
}

/// `GET /api/v1/approvals/standing`: approvals in force that cover more than one request.
pub(super) async fn standing(
    State(state): State<Arc<ApiState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    require(&state, &peer, &headers, &[Role::Admin, Role::Reviewer, Role::Auditor]).await?;
    let list = state.approvals.standing().iter().map(view::standing).collect::<Vec<_>>();
    Ok(Json(json!({ "standing": list })))
}

/// `POST /api/v1/approvals/{id}/revoke`: takes such an approval back.
pub(super) async fn revoke(
    State(state): State<Arc<ApiState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let caller = require(&state, &peer, &headers, &[Role::Admin, Role::Reviewer]).await?;
    let id = parse(&id)?;
    let standing = state.approvals.standing().into_iter().find(|standing| standing.id == id);
    let standing = standing.ok_or(Refused::NotStanding(id))?;
    let details = details(id, &standing.held, &Word { width: standing.width, reason: None });
    state.record_action(caller.id(), "approval revoked", object(&standing.held), details).await?;
    state.approvals.revoke(id)?;
    Ok(Json(json!({ "id": id, "revoked": true })))
}

fn parse(id: &str) -> Result<ApprovalId, ApiError> {
    id.parse().map_err(|error: crate::approvals::InvalidApprovalId| ApiError::Invalid(error.to_string()))
}

fn word(body: Option<Json<Decision>>) -> Result<Word, ApiError> {
    let Decision { reason, width } = body.map(|Json(decision)| decision).unwrap_or_default();
    let reason = reason.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if reason.as_ref().is_some_and(|text| text.chars().count() > REASON_MAX) {
        return Err(ApiError::Invalid(format!("a reason has at most {REASON_MAX} characters")));
    }
    let width = width.map_or(Ok(Width::Once), |width| width.parse());
    let width = width.map_err(|error: InvalidWidth| ApiError::Invalid(error.to_string()))?;
    Ok(Word { width, reason })
}

/// One reviewer's word, which may be one of several that are needed. The request's own record follows when it
/// is settled.
async fn record(state: &ApiState, caller: &Caller, pending: &Pending, action: &str, word: &Word) -> Result<(), ApiError> {
    let held = &pending.held;
    state.record_action(caller.id(), action, object(held), details(pending.id, held, word)).await
}

fn object(held: &HeldRequest) -> String {
    format!("request {} of session {}", held.request.0, held.session)
}

fn details(id: ApprovalId, held: &HeldRequest, word: &Word) -> BTreeMap<String, String> {
    let mut details = BTreeMap::from([
        ("approval".to_owned(), id.to_string()),
        ("principal".to_owned(), held.principal.id()),
        ("connection".to_owned(), held.target.connection.clone()),
        ("digest".to_owned(), held.digest.clone()),
    ]);
    if word.width != Width::Once {
        details.insert("width".to_owned(), word.width.to_string());
    }
    if let Some(reason) = &word.reason {
        details.insert("reason".to_owned(), reason.clone());
    }
    details
}
