//! The first page: what needs somebody, and how the gateway is.

use super::failure::{Failure, rendered};
use super::shown::{Line, Moment, WaitingLine};
use super::viewer::{Shell, Viewer};
use crate::api::{ApiError, ApiState, Role};
use crate::view;
use askama::Template;
use audit_store::{EntryFilter, EventKind};
use axum::extract::State;
use axum::response::Response;
use proxy_core::Timestamp;
use proxy_core::record::RecordedVerdict;
use proxy_io::clock::now;
use std::sync::Arc;
use std::time::Duration;

/// Requests that wait, on this page.
const WAITING_MAX: usize = 10;
/// Open sessions, on this page.
const LIVE_MAX: usize = 20;
/// Denials, on this page.
const DENIED_MAX: usize = 10;
/// How far back denials go.
const DENIED_FOR: Duration = Duration::from_secs(3_600);

#[derive(Template)]
#[template(path = "now.html")]
struct Now {
    shell: Shell,
    /// Why the gateway cannot serve; empty: it can.
    troubles: Vec<String>,
    restart: String,
    waiting: Vec<WaitingLine>,
    more_waiting: usize,
    live: Vec<LiveLine>,
    more_live: usize,
    denied: Vec<DeniedLine>,
    policy: String,
    uptime: String,
    entries: u64,
    /// How many entries the published checkpoint covers.
    published: Option<u64>,
}

struct LiveLine {
    id: String,
    principal: String,
    target: String,
    source: String,
    started: Moment,
    requests: u64,
}

struct DeniedLine {
    session: String,
    line: Line,
}

/// `GET /`.
pub(super) async fn show(State(state): State<Arc<ApiState>>, viewer: Viewer) -> Result<Response, Failure> {
    let shell = viewer.may_look(&state, "now", &[Role::Admin, Role::Reviewer, Role::Auditor])?;
    page(&state, &viewer, shell.clone()).await.map(|page| rendered(&page)).map_err(Failure::of(&shell))
}

async fn page(state: &ApiState, viewer: &Viewer, shell: Shell) -> Result<Now, ApiError> {
    let health = (state.health)();
    let reads = viewer.is(&[Role::Admin, Role::Auditor]);
    let waiting = state.approvals.list();
    let mut live = if reads { state.live.list() } else { Vec::new() };
    live.sort_by_key(|session| (std::cmp::Reverse(session.started), session.id));
    let (denied, entries) = if reads { denied(state, viewer).await? } else { (Vec::new(), 0) };
    let published = state.publisher.published().filter(|_| reads);
    Ok(Now {
        shell,
        troubles: health.not_ready,
        restart: health.waiting_for_restart.join(", "),
        more_waiting: waiting.len().saturating_sub(WAITING_MAX),
        waiting: waiting.iter().take(WAITING_MAX).map(WaitingLine::of).collect(),
        more_live: live.len().saturating_sub(LIVE_MAX),
        live: live
            .into_iter()
            .take(LIVE_MAX)
            .map(|session| LiveLine {
                id: session.id.to_string(),
                principal: session.principal.id(),
                target: format!("{}/{}", session.target.connection, session.target.database),
                source: session.source,
                started: Moment(session.started),
                requests: session.requests,
            })
            .collect(),
        denied,
        policy: health.policy,
        uptime: crate::units::show_duration(Duration::from_secs(health.uptime_seconds)),
        entries,
        published: published.map(|signed| signed.size),
    })
}

/// What was refused lately, newest first; and how long the log is.
async fn denied(state: &ApiState, viewer: &Viewer) -> Result<(Vec<DeniedLine>, u64), ApiError> {
    state.record_look(&viewer.caller, "denials of the last hour".to_owned()).await?;
    let window = i64::try_from(DENIED_FOR.as_micros()).unwrap_or(i64::MAX);
    let filter = EntryFilter {
        kinds: vec![EventKind::Request],
        verdict: Some(RecordedVerdict::Deny),
        since: Some(Timestamp(now().0.saturating_sub(window))),
        ..EntryFilter::default()
    };
    let (found, entries) = state.read(move |log| Ok(crate::log::last(log, &filter, DENIED_MAX)?)).await?;
    let line = |stored: &audit_store::StoredEntry| DeniedLine {
        session: stored.entry.session.map(|(id, _)| id.to_string()).unwrap_or_default(),
        line: Line::of(&view::entry(stored), stored.entry.time),
    };
    Ok((found.iter().rev().map(line).collect(), entries))
}
