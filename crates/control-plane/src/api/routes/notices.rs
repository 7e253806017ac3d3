//! Messages that could not be delivered, and what comes of Slack's buttons.

use super::super::{ApiError, ApiState, Caller, Role};
use crate::approvals::ApprovalId;
use crate::notices::Notices;
use crate::units::show_time;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use notify::slack::{Pressed, parse_interaction};
use notify::{DeadLetter, RedeliverError};
use proxy_io::clock::now;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn notices(state: &ApiState) -> Result<Arc<Notices>, ApiError> {
    state.notices.clone().ok_or_else(|| ApiError::NotFound("nobody is told anything: there is no [[notify]]".to_owned()))
}

/// `GET /api/v1/notices/dead`: messages that were given up, oldest first. Their statements are not shown here.
pub(super) async fn dead(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let dead = Arc::clone(&notices(&state)?.dead);
    let letters = tokio::task::spawn_blocking(move || dead.list()).await;
    let letters = letters.map_err(|error| ApiError::Failed(error.to_string()))?;
    let letters = letters.map_err(|error| ApiError::Failed(error.to_string()))?;
    Ok(Json(json!({ "letters": letters.iter().map(value).collect::<Vec<_>>() })))
}

fn value(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id(),
        "channel": letter.channel,
        "kind": letter.notice.kind,
        "request": letter.notice.request,
        "time": show_time(letter.notice.time),
        "given_up": show_time(letter.died),
        "attempts": letter.attempts,
        "error": letter.error,
    })
}

/// Which are sent again.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resend {
    /// One, by its id; left out: all.
    id: Option<String>,
}

/// `POST /api/v1/notices/resend`.
pub(super) async fn resend(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    body: Option<Json<Resend>>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let (notices, wanted) = (notices(&state)?, body.and_then(|Json(resend)| resend.id));
    let object = wanted.clone().unwrap_or_else(|| "all of them".to_owned());
    state.record_action(caller.id(), "messages sent again", object, BTreeMap::new()).await?;
    let which = |letter: &DeadLetter| wanted.as_ref().is_none_or(|id| *id == letter.id());
    let done = notices.notifier.redeliver(Arc::clone(&notices.dead), which).await;
    let done = done.map_err(|error: RedeliverError| ApiError::Failed(error.to_string()))?;
    Ok(Json(json!({ "queued": done.queued, "no_channel": done.no_channel, "full": done.full })))
}

/// `POST /integrations/slack`: somebody has pressed a button of a message. It is Slack's word alone, and decides nothing: they are
/// told where to log in.
pub(super) async fn slack(State(state): State<Arc<ApiState>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(notices) = state.notices.clone() else { return StatusCode::NOT_FOUND };
    let Some(slack) = &notices.slack else { return StatusCode::NOT_FOUND };
    if let Err(why) = slack.verifier.verify(&headers, &body, now()) {
        tracing::warn!(%why, "a request to the address for Slack was refused");
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(pressed) = parse_interaction(&body) else { return StatusCode::BAD_REQUEST };
    let (Some(to), Pressed::Approve | Pressed::Deny) = (&pressed.response_url, pressed.pressed) else { return StatusCode::OK };
    // The id is Slack's to repeat, so it is looked at before it is part of an address.
    let Ok(id) = pressed.request.parse::<ApprovalId>() else { return StatusCode::BAD_REQUEST };
    let (link, to) = (notices.link(&id.to_string()), to.clone());
    let answerer = slack.answerer.clone();
    // Slack waits for three seconds.
    tokio::spawn(async move {
        if let Err(error) = answerer.send(&to, &link, now()).await {
            tracing::warn!(%error, "somebody in Slack could not be told to log in");
        }
    });
    StatusCode::OK
}
