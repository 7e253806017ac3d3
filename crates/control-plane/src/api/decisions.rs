//! Deciding on what waits: recorded before it takes effect, whoever asks and from where.

use super::{ApiError, ApiState, Caller};
use crate::approvals::{ApprovalId, InvalidWidth, Progress, Refused, Width, Word};
use proxy_io::HeldRequest;
use proxy_io::clock::now;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest reason, in characters.
const REASON_MAX: usize = 2_000;

/// What a reviewer sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    /// Why.
    pub(crate) reason: Option<String>,
    /// For how much: `once` (the default), `session`, or a time such as `30m`. Of an approval alone.
    pub(crate) width: Option<String>,
}

impl Decision {
    /// What it says.
    pub(crate) fn word(self) -> Result<Word, ApiError> {
        let reason = self.reason.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if reason.as_ref().is_some_and(|text| text.chars().count() > REASON_MAX) {
            return Err(ApiError::Invalid(format!("a reason has at most {REASON_MAX} characters")));
        }
        let width = self.width.map_or(Ok(Width::Once), |width| width.parse());
        let width = width.map_err(|error: InvalidWidth| ApiError::Invalid(error.to_string()))?;
        Ok(Word { width, reason })
    }
}

/// One reviewer's yes, which may be one of several that are needed. The request's own record follows when it is settled.
pub(crate) async fn approve(state: &ApiState, caller: &Caller, id: ApprovalId, word: Word) -> Result<Progress, ApiError> {
    let pending = state.approvals.may_decide(id, &caller.reviewer(), word.width, now())?;
    record(state, caller, id, &pending.held, "request approved", &word).await?;
    Ok(state.approvals.approve(id, &caller.reviewer(), word, now())?)
}

/// One reviewer's no.
pub(crate) async fn deny(state: &ApiState, caller: &Caller, id: ApprovalId, word: Word) -> Result<(), ApiError> {
    if word.width != Width::Once {
        return Err(ApiError::Invalid("a denial has no width: it is for this request".to_owned()));
    }
    let pending = state.approvals.may_decide(id, &caller.reviewer(), Width::Once, now())?;
    record(state, caller, id, &pending.held, "request denied", &word).await?;
    Ok(state.approvals.deny(id, &caller.reviewer(), word, now())?)
}

/// Takes back an approval that covers more than one request.
pub(crate) async fn revoke(state: &ApiState, caller: &Caller, id: ApprovalId) -> Result<(), ApiError> {
    let standing = state.approvals.standing().into_iter().find(|standing| standing.id == id);
    let standing = standing.ok_or(Refused::NotStanding(id))?;
    let word = Word { width: standing.width, reason: None };
    record(state, caller, id, &standing.held, "approval revoked", &word).await?;
    Ok(state.approvals.revoke(id)?)
}

async fn record(
    state: &ApiState,
    caller: &Caller,
    id: ApprovalId,
    held: &HeldRequest,
    action: &str,
    word: &Word,
) -> Result<(), ApiError> {
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
    let object = format!("request {} of session {}", held.request.0, held.session);
    state.record_action(caller.id(), action, object, details).await
}
