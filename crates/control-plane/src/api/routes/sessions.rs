//! Sessions: open ones, recorded ones, and ending one.

use super::super::{ApiError, ApiState, Caller, LiveSession, Role};
use crate::log::{Filter, find_session};
use crate::units::show_time;
use crate::view;
use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use proxy_core::SessionId;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Sessions of one page when the caller does not say.
const LIST_DEFAULT: usize = 100;
/// Most sessions of one page.
const LIST_MAX: usize = 10_000;
/// Most entries of one page of a session's story.
const STORY_MAX: usize = 2_000;
/// How often a session whose mailbox is full is told to end, with a pause between: half a second in all.
const KILL_ATTEMPTS: u32 = 50;
/// The pause.
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// Part of a listing.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    #[serde(flatten)]
    filter: Filter,
    limit: Option<String>,
    before: Option<String>,
}

/// Part of a session's story.
#[derive(Debug, Deserialize)]
pub(super) struct ShowQuery {
    from: Option<u64>,
}

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
        "requests": session.requests,
    })
}

/// `GET /api/v1/sessions/live`: the sessions that are open now, oldest first.
pub(super) async fn live(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let mut list = state.live.list();
    list.sort_by_key(|session| (session.started, session.id));
    Ok(Json(json!({ "sessions": list.iter().map(live_value).collect::<Vec<_>>() })))
}

/// `GET /api/v1/sessions`: recorded sessions, newest first; `open` says which are open now.
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let invalid = |what: String| ApiError::Invalid(what);
    let limit =
        query.limit.as_deref().map_or(Ok(LIST_DEFAULT), str::parse).map_err(|_| invalid("limit is not a number".into()))?;
    let mut filter = query.filter.sessions().map_err(|error| invalid(error.to_string()))?;
    let before = query.before.as_deref().map(str::parse::<SessionId>).transpose();
    filter.before = before.map_err(|error| invalid(error.to_string()))?;
    state.record_reading(caller.id(), format!("sessions: {}", query.filter)).await?;
    let open: HashSet<SessionId> = state.live.list().into_iter().map(|session| session.id).collect();
    let page = state.read(move |log| Ok(log.sessions(&filter, limit.min(LIST_MAX))?)).await?;
    let show = |summary: &audit_store::SessionSummary| {
        let mut value = view::session(summary);
        value["open"] = json!(open.contains(&summary.id));
        value
    };
    Ok(Json(json!({ "sessions": page.items.iter().map(show).collect::<Vec<_>>(), "next": page.next })))
}

/// `GET /api/v1/sessions/{id}`: the story of a session, a part at a time.
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let name = id.clone();
    let found = state.read(move |log| find_session(log, &name)).await?;
    state.record_reading(caller.id(), format!("session {found}")).await?;
    let from = query.from.unwrap_or(0);
    let story = state.read(move |log| Ok(log.session(found, from, STORY_MAX)?)).await?;
    let story = story.ok_or_else(|| ApiError::NotFound(format!("the log knows no session {id}")))?;
    let mut value = json!(story);
    value["summary"] = view::session(&story.summary);
    value["summary"]["open"] = json!(state.live.list().iter().any(|session| session.id == found));
    Ok(Json(value))
}

/// `POST /api/v1/sessions/{id}/kill`. The id may be shortened to any start that only one open session has.
pub(super) async fn kill(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let session = end_one(&state, &caller, &id).await?;
    Ok(Json(json!({ "id": session, "killed": true })))
}

/// Whose sessions are to end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KillQuery {
    principal: String,
}

/// `POST /api/v1/sessions/kill`: every session that a principal has open. It may open others afterwards: what keeps it
/// out is a revocation.
pub(super) async fn kill_all(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Json(query): Json<KillQuery>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let mut killed = Vec::new();
    for session in state.live.list().iter().filter(|session| session.principal.id() == query.principal) {
        if end(&state, &caller, session).await? {
            killed.push(session.id);
        }
    }
    Ok(Json(json!({ "killed": killed })))
}

/// Ends the open session of this id, which may be shortened.
pub(crate) async fn end_one(state: &ApiState, caller: &Caller, id: &str) -> Result<SessionId, ApiError> {
    let session = find(state, id)?;
    if !end(state, caller, &session).await? {
        return Err(ApiError::Conflict(format!("session {} has just ended", session.id)));
    }
    Ok(session.id)
}

/// Records that a session is to end, and tells it. Whether it was still there.
async fn end(state: &ApiState, caller: &Caller, session: &LiveSession) -> Result<bool, ApiError> {
    let details = BTreeMap::from([
        ("principal".to_owned(), session.principal.id()),
        ("connection".to_owned(), session.target.connection.clone()),
    ]);
    state.record_action(caller.id(), "session killed", format!("session {}", session.id), details).await?;
    for _ in 0..KILL_ATTEMPTS {
        if state.live.kill(session.id) {
            return Ok(true);
        }
        // It has gone, or its mailbox is full for a moment.
        if !state.live.list().iter().any(|live| live.id == session.id) {
            return Ok(false);
        }
        tokio::time::sleep(KILL_PAUSE).await;
    }
    Err(ApiError::Failed(format!("session {} does not take messages now; try again", session.id)))
}

fn find(state: &ApiState, id: &str) -> Result<LiveSession, ApiError> {
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
