//! Questions to the log: filters, pages, and a session's story.

use crate::decode::Header;
use crate::entry::StoredEntry;
use crate::kind::EventKind;
use crate::session::SessionSummary;
use proxy_core::record::RecordedVerdict;
use proxy_core::{Event, RequestId, SessionId, Timestamp};
use serde::Serialize;

/// Which sessions. Everything that is set must hold, each for itself; the default holds for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFilter {
    /// The principal: `ISSUER/SUBJECT`.
    pub principal: Option<String>,
    /// The connection's name.
    pub connection: Option<String>,
    /// It has a request with that verdict.
    pub verdict: Option<RecordedVerdict>,
    /// It has a request on this object: its name, or parts of it that follow each other (`public.orders`, `orders`,
    /// `public`).
    pub object: Option<String>,
    /// This policy determined a request of it, or that it might open.
    pub policy: Option<String>,
    /// It has an entry with this text; see [`EntryFilter::text`].
    pub text: Option<String>,
    /// Its last entry was made at this time or later.
    pub since: Option<Timestamp>,
    /// It started before this time.
    pub until: Option<Timestamp>,
    /// Whether it has not ended.
    pub open: Option<bool>,
    /// Goes on after this session: the `next` of an earlier page.
    pub before: Option<SessionId>,
}

impl SessionFilter {
    pub(crate) fn holds(&self, session: &SessionSummary) -> bool {
        self.principal.as_ref().is_none_or(|id| *id == session.principal)
            && self.connection.as_ref().is_none_or(|name| *name == session.connection)
            && self.verdict.is_none_or(|verdict| session.count(verdict) > 0)
            && self.since.is_none_or(|since| session.last >= since)
            && self.until.is_none_or(|until| session.started < until)
            && self.open.is_none_or(|open| open == session.ended.is_none())
    }
}

/// Which entries. Everything that is set must hold; the default holds for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryFilter {
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of a session of this principal: `ISSUER/SUBJECT`.
    pub principal: Option<String>,
    /// Of a session on this connection, or a login that asked for it.
    pub connection: Option<String>,
    /// Requests with this verdict.
    pub verdict: Option<RecordedVerdict>,
    /// Requests on this object: its name, or parts of it that follow each other (`public.orders`, `orders`, `public`).
    pub object: Option<String>,
    /// Requests that this policy determined, and starts of sessions that it permitted.
    pub policy: Option<String>,
    /// With this text, whatever its case, in a request's statement or a parameter that is text; at the start of a
    /// session in its principal, label, application or source; in a failed login's label, source or reason; in an
    /// administrative action's words. Shorter ones than [`crate::limits::TEXT_MIN`] are found slowly.
    pub text: Option<String>,
    /// Of one of these kinds; empty: of any.
    pub kinds: Vec<EventKind>,
    /// Made at this time or later.
    pub since: Option<Timestamp>,
    /// Made before this time.
    pub until: Option<Timestamp>,
}

impl EntryFilter {
    /// Whether the front of the leaf lets it through.
    pub(crate) fn header_holds(&self, header: &Header) -> bool {
        self.session.is_none_or(|id| header.session.is_some_and(|(session, _)| session == id))
            && self.verdict.is_none_or(|verdict| header.verdict == Some(verdict))
            && (self.kinds.is_empty() || self.kinds.contains(&header.kind))
            && self.since.is_none_or(|since| header.time >= since)
            && self.until.is_none_or(|until| header.time < until)
    }

    /// Whether the entry's session must be known to decide.
    pub(crate) fn asks_for_session(&self) -> bool {
        self.principal.is_some() || self.connection.is_some()
    }

    /// Whether an entry of this session passes.
    pub(crate) fn session_holds(&self, session: &SessionSummary) -> bool {
        self.principal.as_ref().is_none_or(|id| *id == session.principal)
            && self.connection.as_ref().is_none_or(|name| *name == session.connection)
    }

    /// Whether an entry that belongs to no session passes.
    pub(crate) fn sessionless_holds(&self, event: &Event) -> bool {
        match event {
            Event::LoginFailed { connection, .. } => {
                self.principal.is_none() && self.connection.as_ref().is_none_or(|name| name == connection)
            }
            _ => !self.asks_for_session(),
        }
    }
}

/// Part of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T, N> {
    /// What was found.
    pub items: Vec<T>,
    /// Where to go on; `None`: that was all. It may be there although `items` is empty: one call looks
    /// through a limited part of the log.
    pub next: Option<N>,
}

/// One request of a session, from what was asked to what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestView {
    /// The request and its verdict.
    pub request: StoredEntry,
    /// The steps of its approval, in order.
    pub approvals: Vec<StoredEntry>,
    /// What came of it; `None`: not yet, or it was never forwarded.
    pub outcome: Option<StoredEntry>,
}

/// The story of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionView {
    /// In one line.
    pub summary: SessionSummary,
    /// Its start.
    pub started: Option<StoredEntry>,
    /// Its requests, in order.
    pub requests: Vec<RequestView>,
    /// Entries that belong to none of these: administrative ones, and outcomes of requests on another page.
    pub others: Vec<StoredEntry>,
    /// Its end.
    pub ended: Option<StoredEntry>,
    /// Where to go on; `None`: that was all.
    pub next: Option<u64>,
}

impl SessionView {
    pub(crate) fn new(summary: SessionSummary, next: Option<u64>) -> Self {
        Self { summary, started: None, requests: Vec::new(), others: Vec::new(), ended: None, next }
    }

    /// Puts an entry in its place. Entries come in the order of the log.
    pub(crate) fn add(&mut self, stored: StoredEntry) {
        match &stored.entry.event {
            Event::SessionStarted(_) if self.started.is_none() => self.started = Some(stored),
            Event::SessionEnded { .. } if self.ended.is_none() => self.ended = Some(stored),
            Event::Request(_) => {
                self.requests.push(RequestView { request: stored, approvals: Vec::new(), outcome: None });
            }
            Event::Outcome(outcome) => match self.request(outcome.request) {
                Some(view) if view.outcome.is_none() => view.outcome = Some(stored),
                _ => self.others.push(stored),
            },
            Event::Approval { request, .. } => match self.request(*request) {
                Some(view) => view.approvals.push(stored),
                None => self.others.push(stored),
            },
            _ => self.others.push(stored),
        }
    }

    /// The request with this number: the last one, should a number come twice.
    fn request(&mut self, id: RequestId) -> Option<&mut RequestView> {
        let number = |view: &RequestView| match &view.request.entry.event {
            Event::Request(record) => record.request,
            _ => RequestId(0),
        };
        // Numbers grow, so that this is a binary search; should they not, the slow way finds it.
        match self.requests.binary_search_by_key(&id, number) {
            Ok(at) => self.requests.get_mut(at),
            Err(_) => self.requests.iter_mut().rev().find(|view| number(view) == id),
        }
    }
}
