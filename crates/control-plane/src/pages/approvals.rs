//! What waits, and the one request: who asks for what, why it waits, and what came before.

use super::failure::{Failure, rendered};
use super::shown::{Line, Moment, WaitingLine, does};
use super::viewer::{Change, Shell, Viewer};
use crate::api::decisions::{self, Decision};
use crate::api::{ApiError, ApiState, Role};
use crate::approvals::{ApprovalId, InvalidApprovalId, Pending, Refused, Standing, Width};
use crate::units::show_duration;
use crate::view;
use askama::Template;
use audit_store::{EntryFilter, EventKind, SessionFilter};
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use proxy_core::record::{ApprovalStep, Event};
use proxy_io::clock::now;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Most requests on the page: whoever has more before them needs another policy, not a longer page.
const QUEUE_MAX: usize = 100;
/// Decisions on the page.
const DECIDED_MAX: usize = 25;
/// Entries of the session so far.
const STORY_MAX: usize = 20;
/// Earlier sessions.
const EARLIER_MAX: usize = 8;

const MAY_LOOK: [Role; 3] = [Role::Admin, Role::Reviewer, Role::Auditor];

#[derive(Template)]
#[template(path = "approvals.html")]
struct Queue {
    shell: Shell,
    waiting: Vec<WaitingLine>,
    more: usize,
    standing: Vec<StandingLine>,
    decided: Vec<DecidedLine>,
    may_revoke: bool,
}

struct StandingLine {
    id: String,
    principal: String,
    connection: String,
    width: String,
    until: Option<Moment>,
    by: String,
    statement: String,
}

impl StandingLine {
    fn of(standing: &Standing) -> Self {
        let held = &standing.held;
        Self {
            id: standing.id.to_string(),
            principal: held.principal.id(),
            connection: held.target.connection.clone(),
            width: standing.width.to_string(),
            until: standing.until.map(Moment),
            by: standing.by.iter().map(|opinion| opinion.by.as_str()).collect::<Vec<_>>().join(", "),
            statement: view::one_line(&String::from_utf8_lossy(&held.statement)),
        }
    }
}

/// How a request ended that waited.
struct DecidedLine {
    at: Moment,
    step: &'static str,
    session: String,
    request: u64,
    by: String,
    reason: String,
}

/// `GET /approvals`.
pub(super) async fn list(State(state): State<Arc<ApiState>>, viewer: Viewer) -> Result<Response, Failure> {
    let shell = viewer.may_look(&state, "approvals", &MAY_LOOK)?;
    let all = state.approvals.list();
    let filter = EntryFilter { kinds: vec![EventKind::Approval], ..EntryFilter::default() };
    // Each has the step with which it began to wait as well.
    let steps =
        state.read(move |log| Ok(crate::log::last(log, &filter, 2 * DECIDED_MAX)?.0)).await.map_err(Failure::of(&shell))?;
    let decided = steps.into_iter().rev().filter_map(|stored| {
        let Event::Approval { request, step, by, reason, .. } = stored.entry.event else { return None };
        let (session, _) = stored.entry.session?;
        (step != ApprovalStep::Requested).then(|| DecidedLine {
            at: Moment(stored.entry.time),
            step: step.as_str(),
            session: session.to_string(),
            request: request.0,
            by: by.unwrap_or_default(),
            reason: reason.unwrap_or_default(),
        })
    });
    Ok(rendered(&Queue {
        waiting: all.iter().take(QUEUE_MAX).map(WaitingLine::of).collect(),
        more: all.len().saturating_sub(QUEUE_MAX),
        standing: state.approvals.standing().iter().map(StandingLine::of).collect(),
        decided: decided.take(DECIDED_MAX).collect(),
        may_revoke: viewer.is(&[Role::Admin, Role::Reviewer]),
        shell,
    }))
}

#[derive(Template)]
#[template(path = "approval.html")]
struct OneRequest {
    shell: Shell,
    id: String,
    does: String,
    principal: String,
    kind: &'static str,
    /// What else is known of who asks: name and value.
    asker: Vec<(String, String)>,
    target: Vec<(String, String)>,
    statement: String,
    hidden: bool,
    parameters: Vec<String>,
    operations: Vec<String>,
    unknown: Vec<String>,
    asks: String,
    policies: String,
    policy_version: String,
    digest: String,
    groups: Vec<GroupLine>,
    opinions: Vec<OpinionLine>,
    submitted: Moment,
    expires: Moment,
    widths: Vec<(String, String)>,
    /// Why the viewer does not decide; empty: they may.
    barred: String,
    session: String,
    story: Vec<Line>,
    earlier: Vec<EarlierLine>,
}

struct GroupLine {
    name: String,
    approvals: usize,
    quorum: u32,
    /// Who else speaks for it, and from when on.
    escalation: Option<(String, Moment)>,
}

struct OpinionLine {
    by: String,
    at: Moment,
    width: String,
    reason: String,
}

struct EarlierLine {
    id: String,
    started: Moment,
    requests: u64,
    denied: u64,
    held: u64,
    rows: u64,
}

#[derive(Template)]
#[template(path = "settled.html")]
struct SettledRequest {
    shell: Shell,
    id: String,
    step: &'static str,
    by: String,
    at: Moment,
}

/// `GET /approvals/{id}`.
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let shell = viewer.may_look(&state, "approvals", &MAY_LOOK)?;
    let id = parse(&id).map_err(Failure::of(&shell))?;
    let pending = match state.approvals.get(id) {
        Ok(pending) => pending,
        Err(Refused::Settled { step, by, at, .. }) => {
            let (id, by) = (id.to_string(), by.unwrap_or_default());
            return Ok(rendered(&SettledRequest { shell, id, step: step.as_str(), by, at: Moment(at) }));
        }
        Err(refused) => return Err(Failure::of(&shell)(refused.into())),
    };
    one(&state, &viewer, &pending, shell.clone()).await.map(|page| rendered(&page)).map_err(Failure::of(&shell))
}

async fn one(state: &ApiState, viewer: &Viewer, pending: &Pending, shell: Shell) -> Result<OneRequest, ApiError> {
    let held = &pending.held;
    state.record_look(&viewer.caller, format!("session {} for approval {}", held.session, pending.id)).await?;
    let (session, principal, connection) = (held.session, held.principal.id(), held.target.connection.clone());
    let (story, earlier) = state
        .read(move |log| {
            let filter = EntryFilter { session: Some(session), ..EntryFilter::default() };
            let (story, _) = crate::log::last(log, &filter, STORY_MAX)?;
            let filter = SessionFilter { principal: Some(principal), connection: Some(connection), ..SessionFilter::default() };
            Ok((story, log.sessions(&filter, EARLIER_MAX.saturating_add(1))?.items))
        })
        .await?;
    let live = state.live.list().into_iter().find(|live| live.id == held.session);
    let (statement, hidden) = view::exact(&view::statement(&view::pending(pending)));
    let principal = &held.principal;
    let mut asker = vec![("issuer".to_owned(), principal.issuer.clone())];
    asker.extend(principal.application.clone().map(|id| ("application".to_owned(), id)));
    if let Some(live) = live {
        asker.push(("calls itself".to_owned(), format!("{} ({})", live.label, live.application)));
        asker.push(("from".to_owned(), live.source));
    }
    asker.push(("roles".to_owned(), principal.roles.join(", ")));
    asker.extend(principal.claims.iter().filter(|(name, _)| crate::approvals::names_sponsors(name)).map(owned));
    let target = &held.target;
    let mut shown = vec![
        ("connection".to_owned(), target.connection.clone()),
        ("database".to_owned(), target.database.clone()),
        ("as".to_owned(), target.upstream_user.clone()),
    ];
    shown.extend(target.owner.clone().map(|owner| ("owner".to_owned(), owner)));
    shown.extend(target.tags.iter().map(owned));
    let barred = state.approvals.may_decide(pending.id, &viewer.caller.reviewer(), Width::Once, now()).err();
    let barred = match (viewer.is(&[Role::Reviewer]), barred) {
        (false, _) => "You look on: deciding needs the role reviewer.".to_owned(),
        (true, Some(refused)) => format!("You do not decide this: {refused}."),
        (true, None) => String::new(),
    };
    Ok(OneRequest {
        shell,
        id: pending.id.to_string(),
        does: does(&held.facts),
        principal: principal.id(),
        kind: principal.kind.as_str(),
        asker,
        target: shown,
        statement,
        hidden,
        parameters: held.parameters.iter().map(|one| view::parameter_text(one).unwrap_or_else(|| "NULL".to_owned())).collect(),
        operations: view::operations(&held.facts),
        unknown: held.facts.unknown.iter().map(|unknown| unknown.what.clone()).collect(),
        asks: held.rule.what.to_string(),
        policies: held.rule.policies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        policy_version: held.policy_version.to_string(),
        digest: held.digest.clone(),
        groups: groups(pending),
        opinions: opinions(pending),
        submitted: Moment(held.submitted),
        expires: Moment(pending.expires),
        widths: widths(pending),
        barred,
        session: held.session.to_string(),
        story: story.iter().map(|stored| Line::of(&view::entry(stored), stored.entry.time)).collect(),
        earlier: earlier
            .into_iter()
            .filter(|summary| summary.id != held.session)
            .take(EARLIER_MAX)
            .map(|summary| EarlierLine {
                id: summary.id.to_string(),
                started: Moment(summary.started),
                requests: summary.requests,
                denied: summary.denied,
                held: summary.held,
                rows: summary.rows,
            })
            .collect(),
    })
}

fn owned((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

fn groups(pending: &Pending) -> Vec<GroupLine> {
    let line = |group: &proxy_core::pipeline::ReviewGroup| GroupLine {
        name: group.name.clone(),
        approvals: pending.approvals_of(&group.name),
        quorum: group.quorum.max(1),
        escalation: group
            .escalation
            .as_ref()
            .map(|escalation| (escalation.group.clone(), Moment(pending.held.submitted.after(escalation.after)))),
    };
    pending.held.rule.groups.iter().map(line).collect()
}

fn opinions(pending: &Pending) -> Vec<OpinionLine> {
    let line = |opinion: &crate::approvals::Opinion| OpinionLine {
        by: opinion.by.clone(),
        at: Moment(opinion.at),
        width: opinion.width.to_string(),
        reason: opinion.reason.clone().unwrap_or_default(),
    };
    pending.opinions.iter().map(line).collect()
}

/// What a reviewer may choose from: what is sent, and what it says. With one choice there is none.
fn widths(pending: &Pending) -> Vec<(String, String)> {
    let allowed = pending.held.rule.widths;
    let mut list = vec![("once".to_owned(), "this statement, once".to_owned())];
    if allowed.session {
        list.push(("session".to_owned(), "statements of this shape, until the session ends".to_owned()));
    }
    if let Some(longest) = allowed.window {
        let shorter = [Duration::from_secs(15 * 60), Duration::from_secs(3_600), Duration::from_secs(8 * 3_600)];
        for window in shorter.into_iter().filter(|window| *window < longest).chain([longest]) {
            let window = show_duration(window);
            let words = format!("what these policies hold of it on this target, for {window}");
            list.push((window, words));
        }
    }
    if list.len() == 1 { Vec::new() } else { list }
}

fn parse(id: &str) -> Result<ApprovalId, ApiError> {
    id.parse().map_err(|error: InvalidApprovalId| ApiError::Invalid(error.to_string()))
}

/// A reviewer's form.
#[derive(Debug, Deserialize)]
pub(super) struct DecisionForm {
    csrf: String,
    #[serde(default)]
    reason: String,
    width: Option<String>,
}

impl DecisionForm {
    fn decision(self) -> Decision {
        Decision { reason: Some(self.reason), width: self.width }
    }
}

/// `POST /approvals/{id}/approve`.
pub(super) async fn approve(
    State(state): State<Arc<ApiState>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Form(form): Form<DecisionForm>,
) -> Result<Response, Failure> {
    let page = format!("/approvals/{id}");
    let change = Change { here: "approvals", page: &page, csrf: &form.csrf, roles: &[Role::Reviewer] };
    let shell = viewer.may_change(&state, &change)?;
    let done = async { decisions::approve(&state, &viewer.caller, parse(&id)?, form.decision().word()?).await };
    done.await.map_err(Failure::of(&shell))?;
    Ok(Redirect::to(&page).into_response())
}

/// `POST /approvals/{id}/deny`.
pub(super) async fn deny(
    State(state): State<Arc<ApiState>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Form(form): Form<DecisionForm>,
) -> Result<Response, Failure> {
    let page = format!("/approvals/{id}");
    let change = Change { here: "approvals", page: &page, csrf: &form.csrf, roles: &[Role::Reviewer] };
    let shell = viewer.may_change(&state, &change)?;
    let done = async {
        // The form has the approval's width as well, which is not this button's.
        let decision = Decision { width: None, ..form.decision() };
        decisions::deny(&state, &viewer.caller, parse(&id)?, decision.word()?).await
    };
    done.await.map_err(Failure::of(&shell))?;
    Ok(Redirect::to(&page).into_response())
}

/// A form of a button.
#[derive(Debug, Deserialize)]
pub(super) struct Button {
    pub(super) csrf: String,
}

/// `POST /approvals/{id}/revoke`.
pub(super) async fn revoke(
    State(state): State<Arc<ApiState>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Form(form): Form<Button>,
) -> Result<Response, Failure> {
    let change = Change { here: "approvals", page: "/approvals", csrf: &form.csrf, roles: &[Role::Admin, Role::Reviewer] };
    let shell = viewer.may_change(&state, &change)?;
    let done = async { decisions::revoke(&state, &viewer.caller, parse(&id)?).await };
    done.await.map_err(Failure::of(&shell))?;
    Ok(Redirect::to("/approvals").into_response())
}
