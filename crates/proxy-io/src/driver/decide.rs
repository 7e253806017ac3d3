//! Decide, record, answer: what happens between a request and its permit.

use super::Driver;
use crate::clock;
use crate::commit::{Ticket, Written};
use crate::limits::DECIDE_INLINE_MAX;
use crate::services::{BoxFuture, HeldRequest, HoldOutcome};
use aws_lc_rs::digest;
use bytes::Bytes;
use proxy_core::pipeline::{Approval, ApprovalRule, NotReady};
use proxy_core::record::{ApprovalStep, RequestRecord};
use proxy_core::session::{Answer, Denial, DenialKind, Input, Notice};
use proxy_core::{
    Decision, DenyReason, Event, Parameter, Request, RequestId, RequestKind, SessionAuthorizer, Statement, StoreError, Timestamp,
    Verdict,
};
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// How often a decision may ask to be asked again before it counts as a denial.
const NOT_READY_MAX: u32 = 3;

/// Decided requests, and their entries, for which a session keeps memory: most turns have one.
const DECIDED_KEPT: usize = 4;

/// A decided request, and the place of its entry among the ticket's.
pub(super) type Decided = (Box<Request>, Decision, usize);

type Thought = (Box<dyn SessionAuthorizer>, Result<Decision, NotReady>);

/// Where the request at the front is.
pub(super) enum Deciding {
    /// None is.
    Idle,
    /// On a thread of its own: a long statement.
    Thinking { thought: JoinHandle<Thought>, request: Box<Request>, completed: Vec<(RequestId, bool)> },
    /// The authorizer waits for something.
    NotReady { until: BoxFuture<'static, ()>, tries: u32 },
    /// The decided ones are on the way to the log.
    Committing(Ticket),
    /// Before the reviewers.
    Holding(Box<Holding>),
    /// Approved, on the way to the log.
    Approving { ticket: Ticket, cleared: Box<(Box<Request>, Decision)> },
}

/// A request before the reviewers.
pub(super) struct Holding {
    request: Box<Request>,
    decision: Decision,
    digest: String,
    outcome: BoxFuture<'static, HoldOutcome>,
}

impl Driver {
    /// Whether the session waits for a verdict or an operation.
    pub(super) fn is_waiting(&self) -> bool {
        self.operation.is_some() || !self.undecided.is_empty() || !matches!(self.deciding, Deciding::Idle)
    }

    /// Tells the authorizer what came of a request.
    pub(super) fn tell_completed(&mut self, request: RequestId, succeeded: bool) {
        if let Some(authorizer) = &mut self.authorizer {
            authorizer.completed(request, succeeded);
        } else if let Deciding::Thinking { completed, .. } = &mut self.deciding {
            completed.push((request, succeeded));
        }
    }

    /// Makes progress with decisions.
    pub(super) fn poll_decision(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.closing.is_none() {
            match std::mem::replace(&mut self.deciding, Deciding::Idle) {
                Deciding::Idle => {
                    if self.undecided.is_empty() || self.authorizer.is_none() {
                        return progress;
                    }
                    self.decide_batch(0);
                }
                Deciding::Thinking { mut thought, request, completed } => {
                    let Poll::Ready(thought) = Pin::new(&mut thought).poll(cx) else {
                        self.deciding = Deciding::Thinking { thought, request, completed };
                        return progress;
                    };
                    self.thought(thought, request, completed);
                }
                Deciding::NotReady { mut until, tries } => {
                    if until.as_mut().poll(cx).is_pending() {
                        self.deciding = Deciding::NotReady { until, tries };
                        return progress;
                    }
                    self.decide_batch(tries);
                }
                Deciding::Committing(ticket) => {
                    let Some(result) = ticket.result() else {
                        self.deciding = Deciding::Committing(ticket);
                        return progress;
                    };
                    self.committed(result);
                }
                Deciding::Holding(mut holding) => {
                    let Poll::Ready(outcome) = holding.outcome.as_mut().poll(cx) else {
                        self.deciding = Deciding::Holding(holding);
                        return progress;
                    };
                    self.hold_ended(*holding, outcome);
                }
                Deciding::Approving { ticket, cleared } => {
                    let Some(result) = ticket.result() else {
                        self.deciding = Deciding::Approving { ticket, cleared };
                        return progress;
                    };
                    let (request, decision) = *cleared;
                    self.approved(result, request, decision);
                }
            }
            progress = true;
            self.offer_again();
        }
        progress
    }

    /// Decides the requests at the front, up to the first that is not simply allowed, and submits them.
    fn decide_batch(&mut self, tries: u32) {
        let now = self.now;
        while let Some(request) = self.undecided.pop_front() {
            if statement_length(&request) > DECIDE_INLINE_MAX {
                if self.decided.is_empty() {
                    self.think(now, request);
                    return;
                }
                self.undecided.push_front(request);
                break;
            }
            let Some(authorizer) = &mut self.authorizer else { return };
            match authorizer.decide(now, &request, None) {
                Ok(decision) => {
                    let allowed = decision.verdict == Verdict::Allow;
                    self.push_decided(now, request, decision);
                    // A held request has two entries; it ends the batch.
                    if !allowed {
                        break;
                    }
                }
                Err(not_ready) if self.decided.is_empty() => {
                    self.not_ready(request, not_ready, tries);
                    return;
                }
                Err(_) => {
                    self.undecided.push_front(request);
                    break;
                }
            }
        }
        self.submit_decided();
    }

    fn not_ready(&mut self, request: Box<Request>, not_ready: NotReady, tries: u32) {
        if tries >= NOT_READY_MAX {
            self.submit_one(
                request,
                Decision::denied(DenyReason {
                    policy: None,
                    what: "the gateway cannot tell now what this statement touches".to_owned(),
                    remedy: "The target's catalogue could not be loaded; try again, and see the gateway's log.".to_owned(),
                }),
            );
            return;
        }
        self.undecided.push_front(request);
        self.deciding = Deciding::NotReady { until: not_ready.0, tries: tries + 1 };
    }

    /// Decides a long statement on a thread of its own.
    fn think(&mut self, now: Timestamp, request: Box<Request>) {
        let Some(mut authorizer) = self.authorizer.take() else { return };
        let copy = request.clone();
        let thought = tokio::task::spawn_blocking(move || {
            let decision = authorizer.decide(now, &copy, None);
            (authorizer, decision)
        });
        self.deciding = Deciding::Thinking { thought, request, completed: Vec::new() };
    }

    fn thought(
        &mut self,
        thought: Result<Thought, tokio::task::JoinError>,
        request: Box<Request>,
        completed: Vec<(RequestId, bool)>,
    ) {
        let Ok((mut authorizer, decision)) = thought else {
            tracing::error!(session = %self.peer.session, "deciding a statement failed");
            self.end(proxy_core::session::EndReason::PolicyChanged);
            return;
        };
        for (request, succeeded) in completed {
            authorizer.completed(request, succeeded);
        }
        self.authorizer = Some(authorizer);
        match decision {
            Ok(decision) => self.submit_one(request, decision),
            Err(not_ready) => self.not_ready(request, not_ready, 0),
        }
    }

    fn submit_one(&mut self, request: Box<Request>, decision: Decision) {
        self.push_decided(self.now, request, decision);
        self.submit_decided();
    }

    /// Submits what was decided, if anything was.
    fn submit_decided(&mut self) {
        if !self.decided.is_empty() {
            let ticket = self.committer.submit(self.submissions.drain(..), self.turns.clone());
            self.deciding = Deciding::Committing(ticket);
        }
    }

    fn push_decided(&mut self, now: Timestamp, mut request: Box<Request>, decision: Decision) {
        let at = self.submissions.len();
        if request.kind == RequestKind::Connect {
            let event = match (&decision.verdict, &self.opened) {
                (Verdict::Allow, Some(opened)) => self.session_started(opened, &decision),
                (Verdict::Deny(reason), _) => return self.refuse_connect(request, &reason.what.clone(), &reason.remedy.clone()),
                (Verdict::Hold(_), _) | (Verdict::Allow, None) => {
                    return self.refuse_connect(
                        request,
                        "opening a connection cannot be held for approval",
                        "Change the policy.",
                    );
                }
            };
            self.submissions.push(self.submission(now, event));
            self.decided.push((request, decision, at));
            return;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.services.metrics.decided(decision.recorded().as_str());
        let held = matches!(decision.verdict, Verdict::Hold(_)) && request.kind != RequestKind::Prepare;
        let parameters = if held { request.parameters.clone() } else { std::mem::take(&mut request.parameters) };
        self.submissions.push(self.submission(
            now,
            Event::Request(Box::new(RequestRecord {
                request: request.id,
                kind: request.kind,
                statement: recorded_statement(&request),
                parameters,
                facts: decision.facts.clone(),
                verdict: decision.recorded(),
                policies: decision.policies.clone(),
                policy_version: decision.policy_version.clone(),
                reason: reason(&decision.verdict),
            })),
        ));
        if held {
            let digest = statement_digest(&request);
            self.submissions.push(self.submission(
                now,
                Event::Approval { request: request.id, step: ApprovalStep::Requested, by: None, reason: None, digest },
            ));
        }
        self.decided.push((request, decision, at));
    }

    fn refuse_connect(&mut self, request: Box<Request>, what: &str, remedy: &str) {
        self.login_failed(format!("policy: {what}"));
        let denial = self.denial(DenialKind::Policy, request.id, format!("permission denied: {what}"), remedy.to_owned());
        self.answer(request.id, Answer::Denied(denial));
    }

    fn committed(&mut self, result: Result<Written<'_>, StoreError>) {
        let mut decided = std::mem::take(&mut self.decided);
        self.answer_decided(result, &mut decided);
        decided.clear();
        decided.shrink_to(DECIDED_KEPT);
        self.decided = decided;
        self.submissions.shrink_to(DECIDED_KEPT);
    }

    fn answer_decided(&mut self, result: Result<Written<'_>, StoreError>, decided: &mut Vec<Decided>) {
        let accepted = match result {
            Ok(accepted) => accepted,
            Err(error) => {
                for (request, _, _) in decided.drain(..) {
                    let denial = self.store_denial(request.id, &error);
                    self.answer(request.id, Answer::Denied(denial));
                }
                return;
            }
        };
        for (request, decision, at) in decided.drain(..) {
            if self.closing.is_some() {
                return;
            }
            let permit = accepted.get(at).and_then(|accepted| decision.permit(self.peer.session, &request, &accepted));
            match (permit, &decision.verdict) {
                (Some(permit), _) => {
                    if request.kind == RequestKind::Connect {
                        self.session_opened(self.now);
                    }
                    self.answer(request.id, Answer::Permitted { permit, disclosure: decision.disclosure });
                }
                (None, Verdict::Hold(rule)) => {
                    let rule = rule.clone();
                    self.hold(request, decision, rule);
                }
                (None, Verdict::Deny(reason)) => {
                    let denial = self.recorded_denial(&request, reason);
                    self.answer(request.id, Answer::Denied(denial));
                }
                (None, Verdict::Allow) => {
                    let denial = self.store_denial(request.id, &StoreError::Closed);
                    self.answer(request.id, Answer::Denied(denial));
                }
            }
        }
    }

    fn hold(&mut self, request: Box<Request>, decision: Decision, rule: ApprovalRule) {
        let now = self.now;
        let Some(opened) = &self.opened else { return };
        let digest = statement_digest(&request);
        let timeout = self.spec.hold_timeout;
        let held = self.services.approvals.hold(HeldRequest {
            session: self.peer.session,
            request: request.id,
            principal: opened.principal.clone(),
            target: opened.target.clone(),
            statement: recorded_statement(&request),
            parameters: request.parameters.clone(),
            digest: digest.clone(),
            facts: decision.facts.clone(),
            rule: rule.clone(),
            policy_version: decision.policy_version.clone(),
            submitted: now,
        });
        let held = match held {
            Ok(held) => held,
            Err(text) => {
                self.approval_step(now, request.id, ApprovalStep::Withdrawn, None, Some(text.clone()), digest);
                let hint = "Wait until some are decided, then try again.".to_owned();
                let denial = self.denial(DenialKind::Limit, request.id, text, hint);
                self.answer(request.id, Answer::Denied(denial));
                return;
            }
        };
        let notice = held.id.map(|id| Notice {
            message: format!("held for approval by {}: {}", rule.whom(), rule.what),
            hint: format!("A reviewer decides with: sallyport approvals approve {id}"),
        });
        let outcome = held.outcome;
        let outcome: BoxFuture<'static, HoldOutcome> = Box::pin(async move {
            match tokio::time::timeout(timeout, outcome).await {
                Ok(outcome) => outcome,
                Err(_) => HoldOutcome { step: ApprovalStep::Expired, by: None, reason: None },
            }
        });
        let id = request.id;
        self.deciding = Deciding::Holding(Box::new(Holding { request, decision, digest, outcome }));
        if let Some(notice) = notice {
            // The session may withdraw it at once.
            self.answer(id, Answer::Held(notice));
        }
    }

    fn approval_step(
        &self,
        now: Timestamp,
        request: RequestId,
        step: ApprovalStep,
        by: Option<String>,
        reason: Option<String>,
        digest: String,
    ) {
        self.submit_later(now, Event::Approval { request, step, by, reason, digest });
    }

    fn hold_ended(&mut self, holding: Holding, outcome: HoldOutcome) {
        let now = self.now;
        let Holding { request, decision, digest, .. } = holding;
        let HoldOutcome { step, by, reason } = outcome;
        if step == ApprovalStep::Approved {
            let Verdict::Hold(rule) = &decision.verdict else { return };
            let approval = Approval {
                policy_version: decision.policy_version.clone(),
                reviewers: rule.names().map(str::to_owned).collect(),
            };
            let again = self.authorizer.as_mut().map(|authorizer| authorizer.decide(now, &request, Some(&approval)));
            if let Some(Ok(again)) = again
                && again.verdict == Verdict::Allow
            {
                let event = Event::Approval { request: request.id, step, by, reason, digest };
                let ticket = self.submit([self.submission(now, event)]);
                self.deciding = Deciding::Approving { ticket, cleared: Box::new((request, again)) };
                return;
            }
            let why = "what it was approved under has changed meanwhile".to_owned();
            self.approval_step(now, request.id, ApprovalStep::Withdrawn, by, Some(why.clone()), digest);
            let denial =
                self.denial(DenialKind::Approval, request.id, format!("approval void: {why}"), "Send it again.".to_owned());
            self.answer(request.id, Answer::Denied(denial));
            return;
        }
        let message = match step {
            ApprovalStep::Denied => {
                let by = by.as_deref().unwrap_or("a reviewer");
                match &reason {
                    Some(reason) => format!("denied by {by}: {reason}"),
                    None => format!("denied by {by}"),
                }
            }
            _ => "nobody approved it in time".to_owned(),
        };
        self.approval_step(now, request.id, step, by, reason, digest);
        let hint = "Ask the reviewers, then send it again.".to_owned();
        let denial = self.denial(DenialKind::Approval, request.id, message, hint);
        self.answer(request.id, Answer::Denied(denial));
    }

    fn approved(&mut self, result: Result<Written<'_>, StoreError>, request: Box<Request>, decision: Decision) {
        let answer = match result {
            Err(error) => Answer::Denied(self.store_denial(request.id, &error)),
            Ok(accepted) => match accepted.get(0).and_then(|accepted| decision.permit(self.peer.session, &request, &accepted)) {
                Some(permit) => Answer::Permitted { permit, disclosure: decision.disclosure },
                None => Answer::Denied(self.store_denial(request.id, &StoreError::Closed)),
            },
        };
        self.answer(request.id, answer);
    }

    /// The session wants no answer for these any more.
    pub(super) fn withdraw(&mut self, now: Timestamp, from: RequestId, through: RequestId) {
        let wanted = |id: RequestId| !(from..=through).contains(&id);
        self.undecided.retain(|request| wanted(request.id));
        if let Deciding::Holding(holding) = &self.deciding
            && !wanted(holding.request.id)
        {
            let (id, digest) = (holding.request.id, holding.digest.clone());
            self.deciding = Deciding::Idle;
            self.approval_step(now, id, ApprovalStep::Withdrawn, None, None, digest);
        }
    }

    /// The session ends: no request of it is decided any more. The log says so of one that was held.
    pub(super) fn abandon_requests(&mut self) {
        self.undecided.clear();
        self.decided.clear();
        if let Deciding::Holding(holding) = std::mem::replace(&mut self.deciding, Deciding::Idle) {
            let why = Some("the session ended".to_owned());
            self.approval_step(clock::now(), holding.request.id, ApprovalStep::Withdrawn, None, why, holding.digest);
        }
        self.services.approvals.session_ended(self.peer.session);
    }

    fn answer(&mut self, request: RequestId, verdict: Answer) {
        self.feed(Input::Verdict { request, verdict });
    }

    fn denial(&self, kind: DenialKind, request: RequestId, message: String, hint: String) -> Denial {
        Denial { kind, message, detail: format!("Session {}, request {}.", self.peer.session, request.0), hint }
    }

    fn recorded_denial(&self, request: &Request, reason: &DenyReason) -> Denial {
        if let Statement::Refused(refusal) = &request.statement {
            return self.denial(refusal.kind, request.id, refusal.message.clone(), refusal.hint.clone());
        }
        let message = match &reason.policy {
            Some(policy) => format!("permission denied by policy \"{policy}\": {}", reason.what),
            None => format!("permission denied: {}", reason.what),
        };
        self.denial(DenialKind::Policy, request.id, message, reason.remedy.clone())
    }

    fn store_denial(&self, request: RequestId, error: &StoreError) -> Denial {
        tracing::debug!(session = %self.peer.session, %error, "a request is refused: it could not be recorded");
        self.denial(
            DenialKind::StoreUnavailable,
            request,
            "the gateway cannot record this statement, so it was not run".to_owned(),
            "Nothing was sent to the target. An operator must see to the gateway's audit store.".to_owned(),
        )
    }
}

fn statement_length(request: &Request) -> usize {
    match &request.statement {
        Statement::Sql(text) => text.len(),
        Statement::Named { .. } | Statement::Function(_) | Statement::Facts { .. } | Statement::Refused(_) => 0,
    }
}

/// The statement as the record shows it.
fn recorded_statement(request: &Request) -> Bytes {
    match &request.statement {
        Statement::Sql(text) | Statement::Facts { text, .. } => text.clone(),
        Statement::Named { cursor, name } => {
            let what = if *cursor { "run portal " } else { "run prepared statement " };
            [what.as_bytes(), name].concat().into()
        }
        Statement::Function(oid) => format!("call function with object id {oid}").into(),
        Statement::Refused(refusal) => refusal.excerpt.head().clone(),
    }
}

fn reason(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Allow => None,
        Verdict::Deny(reason) => Some(reason.what.clone()),
        Verdict::Hold(rule) => Some(format!("{}: {}", rule.names().collect::<Vec<_>>().join(", "), rule.what)),
    }
}

/// SHA-256, hexadecimal, over the statement's length and bytes and each parameter's format, length and bytes:
/// what is approved is what runs.
fn statement_digest(request: &Request) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let statement = recorded_statement(request);
    context.update(&(statement.len() as u64).to_be_bytes());
    context.update(&statement);
    for Parameter { value, format, type_id } in &request.parameters {
        context.update(&type_id.to_be_bytes());
        context.update(&[u8::from(*format == proxy_core::ValueFormat::Binary)]);
        match value {
            None => context.update(&u64::MAX.to_be_bytes()),
            Some(value) => {
                context.update(&(value.len() as u64).to_be_bytes());
                context.update(value);
            }
        }
    }
    context.finish().as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
