//! How long contents of the log are kept: legal holds, redaction, and the rules at work.

use super::super::{ApiError, ApiState, Caller, Role};
use crate::keeping::{Hold, KeepError, Redaction};
use crate::log::find_session;
use axum::Json;
use axum::extract::{Extension, Path, State};
use proxy_io::clock::now;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// A hold that is to be placed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// A session's id, or the start of it.
    pub session: Option<String>,
    /// A connection's name.
    pub connection: Option<String>,
    /// Why.
    pub reason: String,
}

/// What is to be redacted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionRequest {
    /// An entry's number, or …
    pub entry: Option<u64>,
    /// … a session's id, or the start of it.
    pub session: Option<String>,
    /// Fields; empty: whole entries.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Why.
    pub reason: String,
}

/// Why a hold is released.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseRequest {
    reason: String,
}

impl From<KeepError> for ApiError {
    fn from(error: KeepError) -> Self {
        let text = error.to_string();
        match error {
            KeepError::Store(error) => Self::Store(error),
            KeepError::File(..) => Self::Failed(text),
            KeepError::Held(_) | KeepError::TooMany | KeepError::Nothing => Self::Conflict(text),
            KeepError::NoHold(_) => Self::NotFound(text),
            KeepError::Invalid(_) => Self::Invalid(text),
        }
    }
}

/// A reason is recorded, so there must be one.
fn reason(text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    if text.is_empty() { Err(ApiError::Invalid("a reason is needed: it is recorded".to_owned())) } else { Ok(text.to_owned()) }
}

/// Away from the event loop: it reads and writes the log.
async fn work<T: Send + 'static>(
    state: &Arc<ApiState>,
    work: impl FnOnce(&ApiState) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let state = Arc::clone(state);
    tokio::task::spawn_blocking(move || work(&state)).await.map_err(|error| ApiError::Failed(error.to_string()))?
}

/// `GET /api/v1/audit/holds`.
pub(super) async fn holds(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    Ok(Json(json!({ "holds": state.keeper.holds() })))
}

/// `POST /api/v1/audit/holds`.
pub(super) async fn hold(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<HoldRequest>,
) -> Result<Json<Hold>, ApiError> {
    caller.require(&[Role::Admin])?;
    let by = caller.id();
    let reason = reason(&request.reason)?;
    let hold = work(&state, move |state| {
        let session = request.session.map(|id| find_session(&state.log, &id)).transpose()?;
        Ok(state.keeper.hold(&by, reason, session, request.connection, now())?)
    });
    Ok(Json(hold.await?))
}

/// `POST /api/v1/audit/holds/{id}/release`.
pub(super) async fn release(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(request): Json<ReleaseRequest>,
) -> Result<Json<Hold>, ApiError> {
    caller.require(&[Role::Admin])?;
    let by = caller.id();
    let reason = reason(&request.reason)?;
    let hold = work(&state, move |state| Ok(state.keeper.release(&by, &id, reason, now())?));
    Ok(Json(hold.await?))
}

/// `POST /api/v1/audit/redact`.
pub(super) async fn redact(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<RedactionRequest>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let by = caller.id();
    let reason = reason(&request.reason)?;
    let contents = work(&state, move |state| {
        let session = request.session.map(|id| find_session(&state.log, &id)).transpose()?;
        let redaction = Redaction { entry: request.entry, session, fields: request.fields, reason };
        Ok(state.keeper.redact(&by, &redaction, now())?)
    });
    Ok(Json(json!({ "contents": contents.await? })))
}

/// `POST /api/v1/audit/retain`: applies the rules now. They are applied every hour anyway.
pub(super) async fn retain(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let by = caller.id();
    state.record_action(by, "retention run", "the audit log".to_owned(), std::collections::BTreeMap::new()).await?;
    let done = work(&state, |state| Ok(state.keeper.retain(&(state.retention)(), now())?)).await?;
    let rules = done.iter().map(|(rule, contents)| json!({ "rule": rule, "contents": contents })).collect::<Vec<_>>();
    Ok(Json(json!({ "rules": rules })))
}
