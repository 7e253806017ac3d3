//! Sessions: those that are open, those that were, and the one as a timeline.

use super::approvals::Button;
use super::failure::{Failure, rendered};
use super::shown::{Line, Moment};
use super::viewer::{Change, Shell, Viewer};
use crate::api::{ApiError, ApiState, Role, end_session};
use crate::log::{Filter, find_session};
use crate::view;
use askama::Template;
use audit_store::{EntryFilter, SessionSummary};
use axum::extract::{Form, Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use proxy_core::SessionId;
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::Arc;

/// Sessions of one page.
const LIST_MAX: usize = 50;
/// Entries of one page of a timeline.
const STORY_MAX: usize = 200;

const MAY_LOOK: [Role; 2] = [Role::Admin, Role::Auditor];

#[derive(Template)]
#[template(path = "sessions.html")]
struct Sessions {
    shell: Shell,
    filter: FilterForm,
    /// What is wrong with the filter; empty: nothing.
    wrong: String,
    sessions: Vec<SessionLine>,
    /// Where the next page is; empty: there is none.
    next: String,
}

/// One session in a list.
pub(super) struct SessionLine {
    pub(super) id: String,
    pub(super) short: String,
    pub(super) open: bool,
    pub(super) principal: String,
    pub(super) target: String,
    pub(super) source: String,
    pub(super) started: Moment,
    pub(super) ended: Option<Moment>,
    pub(super) requests: u64,
    pub(super) denied: u64,
    pub(super) held: u64,
    pub(super) rows: u64,
}

impl SessionLine {
    fn of(summary: &SessionSummary, open: bool) -> Self {
        let id = summary.id.to_string();
        Self {
            short: id.get(..8).unwrap_or(&id).to_owned(),
            id,
            open,
            principal: summary.principal.clone(),
            target: format!("{}/{}", summary.connection, summary.database),
            source: summary.source.clone(),
            started: Moment(summary.started),
            ended: summary.ended.map(Moment),
            requests: summary.requests,
            denied: summary.denied,
            held: summary.held,
            rows: summary.rows,
        }
    }
}

/// The filter as its form has it: what is not given is empty.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct FilterForm {
    principal: String,
    connection: String,
    since: String,
    until: String,
    verdict: String,
    object: String,
    text: String,
    before: String,
}

impl FilterForm {
    fn filter(&self) -> Filter {
        let given = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Filter {
            principal: given(&self.principal),
            connection: given(&self.connection),
            since: given(&self.since),
            until: given(&self.until),
            verdict: given(&self.verdict),
            object: given(&self.object),
            policy: None,
            text: given(&self.text),
        }
    }

    /// The same filter, from a session on.
    fn after(&self, before: SessionId) -> String {
        let mut query = String::from("/sessions?");
        for (name, value) in self.filter().conditions() {
            query.push_str(&format!("{name}={}&", identity::form_encoded(value)));
        }
        query.push_str(&format!("before={before}"));
        query
    }
}

/// `GET /sessions`.
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    viewer: Viewer,
    Query(form): Query<FilterForm>,
) -> Result<Response, Failure> {
    let shell = viewer.may_look(&state, "sessions", &MAY_LOOK)?;
    let mut page = Sessions { shell, filter: form, wrong: String::new(), sessions: Vec::new(), next: String::new() };
    let given = page.filter.filter();
    let before = Some(page.filter.before.as_str()).filter(|text| !text.is_empty()).map(str::parse::<SessionId>).transpose();
    match (given.sessions(), before) {
        (Ok(mut filter), Ok(before)) => {
            filter.before = before;
            state.record_look(&viewer.caller, format!("sessions: {given}")).await.map_err(Failure::of(&page.shell))?;
            let found = state.read(move |log| Ok(log.sessions(&filter, LIST_MAX)?)).await.map_err(Failure::of(&page.shell))?;
            let open: HashSet<SessionId> = state.live.list().into_iter().map(|session| session.id).collect();
            page.sessions = found.items.iter().map(|one| SessionLine::of(one, open.contains(&one.id))).collect();
            page.next = found.next.map(|next| page.filter.after(next)).unwrap_or_default();
        }
        (Err(error), _) => page.wrong = error.to_string(),
        (_, Err(error)) => page.wrong = error.to_string(),
    }
    Ok(rendered(&page))
}

#[derive(Template)]
#[template(path = "session.html")]
struct OneSession {
    shell: Shell,
    session: SessionLine,
    about: Vec<(&'static str, String)>,
    end_reason: String,
    lines: Vec<Line>,
    /// Where the next part is; empty: that is all.
    next: String,
    may_kill: bool,
}

/// Part of a timeline.
#[derive(Debug, Deserialize)]
pub(super) struct Part {
    from: Option<u64>,
}

/// `GET /sessions/{id}`.
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Query(part): Query<Part>,
) -> Result<Response, Failure> {
    let shell = viewer.may_look(&state, "sessions", &MAY_LOOK)?;
    let page = one(&state, &viewer, id, part.from.unwrap_or(0), shell.clone()).await;
    page.map(|page| rendered(&page)).map_err(Failure::of(&shell))
}

async fn one(state: &ApiState, viewer: &Viewer, id: String, from: u64, shell: Shell) -> Result<OneSession, ApiError> {
    let name = id.clone();
    let found = state.read(move |log| find_session(log, &name)).await?;
    state.record_look(&viewer.caller, format!("session {found}")).await?;
    let (summary, entries) = state
        .read(move |log| {
            let Some(summary) = log.summary(found)? else { return Ok((None, Vec::new())) };
            let filter = EntryFilter { session: Some(found), ..EntryFilter::default() };
            let entries = log.tail(from.max(summary.first_index), &filter, STORY_MAX)?.items;
            Ok((Some(summary), entries))
        })
        .await?;
    let summary = &summary.ok_or_else(|| ApiError::NotFound(format!("the log knows no session {id}")))?;
    let next = entries.last().filter(|last| entries.len() == STORY_MAX && last.index < summary.last_index);
    let next = next.map(|last| format!("/sessions/{found}?from={}", last.index.saturating_add(1)));
    let open = state.live.list().iter().any(|session| session.id == found);
    let about = vec![
        ("kind", summary.principal_kind.clone()),
        ("from", summary.source.clone()),
        ("calls itself", format!("{} ({})", summary.label, summary.application)),
        ("as", summary.upstream_user.clone()),
        ("protocol", summary.protocol.clone()),
        ("bytes returned", summary.bytes.to_string()),
    ];
    Ok(OneSession {
        session: SessionLine::of(summary, open),
        about,
        end_reason: summary.end_reason.clone().unwrap_or_default(),
        lines: entries.iter().map(|stored| Line::of(&view::entry(stored), stored.entry.time)).collect(),
        next: next.unwrap_or_default(),
        may_kill: open && viewer.is(&[Role::Admin]),
        shell,
    })
}

/// `POST /sessions/{id}/kill`.
pub(super) async fn kill(
    State(state): State<Arc<ApiState>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Form(form): Form<Button>,
) -> Result<Response, Failure> {
    let page = format!("/sessions/{id}");
    let change = Change { here: "sessions", page: &page, csrf: &form.csrf, roles: &[Role::Admin] };
    let shell = viewer.may_change(&state, &change)?;
    let ended = end_session(&state, &viewer.caller, &id).await.map_err(Failure::of(&shell))?;
    Ok(Redirect::to(&format!("/sessions/{ended}")).into_response())
}
