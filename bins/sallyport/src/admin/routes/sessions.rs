//! Sessions: open ones, and ending one.

use super::super::auth::{Peer, require};
use super::super::{AdminState, ApiError, LiveSession, Role};
use crate::config::units::show_time;
use crate::view;
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use proxy_core::SessionId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn live_value(session: &LiveSession) -> Value {
    json!({
        "id": session.id,
        "principal": view::principal(&session.principal),
        "target": view::target(&session.target),
        "source": session.source,
        "label": session.label,
        "application": session.application,
        "tls": session.tls,
        "started": show_time(session.started),
        "counters": session.counters,
    })
}

/// `GET /api/v1/sessions/live`: the sessions that are open now, oldest first.
pub(super) async fn live(
    State(state): State<Arc<AdminState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    require(&state, &peer, &headers, &[Role::Admin, Role::Auditor]).await?;
    let mut list = state.live.list();
    list.sort_by_key(|session| (session.started, session.id));
    Ok(Json(json!({ "sessions": list.iter().map(live_value).collect::<Vec<_>>() })))
}

/// `POST /api/v1/sessions/{id}/kill`. The id may be shortened to any start that only one open session has.
pub(super) async fn kill(
    State(state): State<Arc<AdminState>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let caller = require(&state, &peer, &headers, &[Role::Admin]).await?;
    let session = find(&state, &id)?;
    let details = BTreeMap::from([
        ("principal".to_owned(), session.principal.id()),
        ("connection".to_owned(), session.target.connection.clone()),
    ]);
    state.record_action(caller.id(), "session killed", format!("session {}", session.id), details).await?;
    if !state.live.kill(session.id) {
        return Err(ApiError::Conflict(format!("session {} has just ended", session.id)));
    }
    Ok(Json(json!({ "id": session.id, "killed": true })))
}

fn find(state: &AdminState, id: &str) -> Result<LiveSession, ApiError> {
    let list = state.live.list();
    if let Ok(full) = id.parse::<SessionId>() {
        let found = list.into_iter().find(|session| session.id == full);
        return found.ok_or_else(|| {
            ApiError::NotFound(format!("no session {full} is open; `sallyport sessions list` shows those that are"))
        });
    }
    let start = id.to_ascii_lowercase();
    let mut found = list.into_iter().filter(|session| start.len() >= 4 && session.id.to_string().starts_with(&start));
    match (found.next(), found.next()) {
        (Some(session), None) => Ok(session),
        (Some(_), Some(_)) => Err(ApiError::Invalid(format!("several open sessions start with {id:?}: give more of the id"))),
        (None, _) => Err(ApiError::NotFound(format!(
            "no open session's id starts with {id:?}; `sallyport sessions list` shows those that are"
        ))),
    }
}
