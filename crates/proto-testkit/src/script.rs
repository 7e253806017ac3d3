//! The scripted driver.

use crate::permit_for;
use bytes::{Bytes, BytesMut};
use proxy_core::pipeline::Permit;
use proxy_core::record::Outcome;
use proxy_core::session::{Answer, CancelKey, Denial, LoginAttempt, LoginReply, Notice, UpstreamChallenge, UpstreamLogin};
use proxy_core::{Action, CloseReason, Disclosure, Input, Peer, Request, RequestId, Session, SessionId, Statement, Timestamp};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// What a session did, in order, besides sending, deciding and recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It asked for TLS.
    StartTls(Peer),
    /// It asked who is calling.
    Authenticate(LoginAttempt),
    /// It asked for the upstream connection.
    Connect,
    /// It asked for an answer to the upstream's challenge.
    AnswerUpstream(UpstreamChallenge),
    /// Its login is complete.
    Established,
    /// Requests are not wanted any more.
    Withdraw(RequestId, RequestId),
    /// It set a deadline.
    SetDeadline(Option<Duration>),
    /// It presented a cancel key.
    Cancel(CancelKey),
    /// It cancels at the upstream.
    CancelUpstream(Bytes),
}

/// Drives a session by hand, with a simulated clock.
pub struct Script<S> {
    session: S,
    id: SessionId,
    now: Timestamp,
    client: BytesMut,
    upstream: BytesMut,
    tls: Option<Peer>,
    given: BTreeSet<u64>,
    disclosure: Option<Disclosure>,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
    sends: Vec<(Bytes, RequestId)>,
    client_sends: usize,
    requests: VecDeque<Request>,
    asked: Vec<Request>,
    outcomes: Vec<Outcome>,
    seen: VecDeque<Seen>,
    closed: Option<CloseReason>,
}

/// The answer that the pipeline gives whatever policy says, if the session refuses the request by itself.
fn refused(request: &Request) -> Option<Answer> {
    let Statement::Refused(refusal) = &request.statement else { return None };
    let (message, hint) = (refusal.message.clone(), refusal.hint.clone());
    Some(Answer::Denied(Denial { kind: refusal.kind, message, detail: String::new(), hint }))
}

impl<S: Session> Script<S> {
    /// A script for `session`, whose id is `id`.
    pub fn new(session: S, id: SessionId) -> Self {
        Self {
            session,
            id,
            now: Timestamp::from_seconds(1_700_000_000),
            client: BytesMut::new(),
            upstream: BytesMut::new(),
            tls: None,
            given: BTreeSet::new(),
            disclosure: None,
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            sends: Vec::new(),
            client_sends: 0,
            requests: VecDeque::new(),
            asked: Vec::new(),
            outcomes: Vec::new(),
            seen: VecDeque::new(),
            closed: None,
        }
    }

    /// From here on every request is permitted at once, with this disclosure.
    pub fn allow_all(&mut self, disclosure: Disclosure) {
        self.disclosure = Some(disclosure);
        self.settle();
    }

    /// From here on requests wait for the test again.
    pub fn decide_by_hand(&mut self) {
        self.disclosure = None;
    }

    /// Time passes.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.after(by);
    }

    /// Any input.
    pub fn input(&mut self, input: Input<'_>) {
        self.session.handle(self.now, input);
        self.settle();
    }

    /// The client sends.
    pub fn client_sends(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.extend_from_slice(bytes.as_ref());
        self.settle();
    }

    /// The upstream sends.
    pub fn upstream_sends(&mut self, bytes: impl AsRef<[u8]>) {
        self.upstream.extend_from_slice(bytes.as_ref());
        self.settle();
    }

    /// Permits the oldest request that waits; gives it.
    ///
    /// # Panics
    /// If none waits.
    pub fn permit(&mut self, disclosure: Disclosure) -> Request {
        let request = self.next_request();
        self.permit_request(&request, disclosure);
        request
    }

    /// Permits a request that was taken by [`Script::next_request`].
    pub fn permit_request(&mut self, request: &Request, disclosure: Disclosure) {
        if let Some(verdict) = refused(request) {
            return self.input(Input::Verdict { request: request.id, verdict });
        }
        let permit = self.give(request);
        self.input(Input::Verdict { request: request.id, verdict: Answer::Permitted { permit, disclosure } });
    }

    /// Denies the oldest request that waits; gives it.
    ///
    /// # Panics
    /// If none waits.
    pub fn deny(&mut self, denial: Denial) -> Request {
        let request = self.next_request();
        self.input(Input::Verdict { request: request.id, verdict: Answer::Denied(denial) });
        request
    }

    /// Holds the oldest request that waits; gives it. Answer it later by [`Script::permit_request`].
    ///
    /// # Panics
    /// If none waits.
    pub fn hold(&mut self, message: &str) -> Request {
        let request = self.next_request();
        let notice = Notice { message: message.into(), hint: String::new() };
        self.input(Input::Verdict { request: request.id, verdict: Answer::Held(notice) });
        request
    }

    /// The oldest request that waits for a verdict.
    ///
    /// # Panics
    /// If none waits.
    pub fn next_request(&mut self) -> Request {
        self.requests.pop_front().expect("a request waits for its verdict")
    }

    /// How many requests wait for a verdict.
    pub fn waiting(&self) -> usize {
        self.requests.len()
    }

    /// All requests so far.
    pub fn asked(&self) -> &[Request] {
        &self.asked
    }

    /// The requests that were permitted, in order, without the session's opening.
    pub fn permitted(&self) -> Vec<RequestId> {
        self.given.iter().filter(|id| **id > 0).map(|id| RequestId(*id)).collect()
    }

    /// Accepts the login.
    pub fn accept(&mut self, last: Option<Vec<u8>>, upstream: UpstreamLogin) {
        self.input(Input::Login(LoginReply::Accepted { last, upstream }));
    }

    /// What went to the client since the last call.
    pub fn take_client(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.to_client)
    }

    /// What went upstream since the last call.
    pub fn take_upstream(&mut self) -> Vec<u8> {
        self.sends.clear();
        std::mem::take(&mut self.to_upstream)
    }

    /// Sends to the upstream since the last [`Script::take_upstream`], with the request whose permit each had.
    pub fn sends(&self) -> &[(Bytes, RequestId)] {
        &self.sends
    }

    /// How many times something was sent to the client.
    pub fn client_send_count(&self) -> usize {
        self.client_sends
    }

    /// Outcomes since the last call.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// The next other thing that was done.
    pub fn take_seen(&mut self) -> Option<Seen> {
        self.seen.pop_front()
    }

    /// Bytes of a peer that the session left.
    pub fn left(&self, peer: Peer) -> usize {
        match peer {
            Peer::Client => self.client.len(),
            Peer::Upstream => self.upstream.len(),
        }
    }

    /// Why it closed, if it did.
    pub fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    fn give(&mut self, request: &Request) -> Permit {
        self.given.insert(request.id.0);
        permit_for(self.id, request)
    }

    /// Carries out actions and offers the buffers until nothing changes.
    fn settle(&mut self) {
        loop {
            let mut changed = self.carry_out();
            for peer in [Peer::Client, Peer::Upstream] {
                if self.tls == Some(peer) || self.closed.is_some() {
                    continue;
                }
                let buffer = match peer {
                    Peer::Client => &mut self.client,
                    Peer::Upstream => &mut self.upstream,
                };
                if buffer.is_empty() {
                    continue;
                }
                let before = buffer.len();
                self.session.handle(self.now, Input::Bytes { from: peer, buffer });
                changed |= buffer.len() != before;
                changed |= self.carry_out();
            }
            if !changed {
                return;
            }
        }
    }

    fn carry_out(&mut self) -> bool {
        let mut any = false;
        loop {
            while let Some(action) = self.session.next_action() {
                any = true;
                assert!(self.closed.is_none(), "an action after Close: {action:?}");
                self.act(action);
            }
            let Some(disclosure) = self.disclosure.clone() else { return any };
            let Some(request) = self.requests.pop_front() else { return any };
            let verdict = refused(&request).unwrap_or_else(|| Answer::Permitted { permit: self.give(&request), disclosure });
            self.session.handle(self.now, Input::Verdict { request: request.id, verdict });
        }
    }

    fn check(&self, permit: Permit) {
        assert_eq!(permit.session(), self.id, "a permit of another session");
        assert!(self.given.contains(&permit.request().0), "a permit that was not given");
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SendClient(bytes) => {
                assert!(!bytes.is_empty(), "an empty send");
                self.client_sends += 1;
                self.to_client.extend_from_slice(&bytes);
            }
            Action::SendUpstream { bytes, permit } => {
                assert!(!bytes.is_empty(), "an empty send");
                self.check(permit);
                self.to_upstream.extend_from_slice(&bytes);
                self.sends.push((bytes, permit.request()));
            }
            Action::StartTls(peer) => {
                self.tls = Some(peer);
                self.seen.push_back(Seen::StartTls(peer));
            }
            Action::Authenticate(attempt) => self.seen.push_back(Seen::Authenticate(*attempt)),
            Action::Connect(permit) => {
                self.check(permit);
                self.seen.push_back(Seen::Connect);
            }
            Action::AnswerUpstream(challenge) => self.seen.push_back(Seen::AnswerUpstream(challenge)),
            Action::Established => self.seen.push_back(Seen::Established),
            Action::Decide(request) => {
                self.asked.push((*request).clone());
                self.requests.push_back(*request);
            }
            Action::Withdraw { from, through } => {
                self.requests.retain(|request| request.id < from || request.id > through);
                self.seen.push_back(Seen::Withdraw(from, through));
            }
            Action::Record(outcome) => self.outcomes.push(*outcome),
            Action::SetDeadline(after) => self.seen.push_back(Seen::SetDeadline(after)),
            Action::Cancel(key) => self.seen.push_back(Seen::Cancel(key)),
            Action::CancelUpstream { bytes, permit, .. } => {
                self.check(permit);
                self.seen.push_back(Seen::CancelUpstream(bytes));
            }
            Action::Close(reason) => self.closed = Some(reason),
        }
    }

    /// TLS with a peer stands.
    pub fn tls_done(&mut self, peer: Peer, info: proxy_core::session::TlsInfo) {
        self.tls = None;
        match peer {
            Peer::Client => self.client.clear(),
            Peer::Upstream => self.upstream.clear(),
        }
        self.input(Input::Tls { peer, info });
    }
}
