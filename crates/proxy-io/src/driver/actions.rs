//! Carries out what a session wants done, and brings back the answers.

use super::wakes::Source;
use super::{Deadline, Driver, source};
use crate::cancel;
use crate::clock;
use crate::commit::{Submission, Ticket};
use crate::limits::CONNECT_TIMEOUT;
use crate::registry::LiveSession;
use crate::services::{LoginConversation, LoginStep, Opened, UpstreamEndpoint};
use crate::socket::{Socket, Stream};
use crate::tls;
use bytes::{Bytes, BytesMut};
use proxy_core::pipeline::SessionFacts;
use proxy_core::record::{OutcomeStatus, SessionStarted};
use proxy_core::session::{
    Action, CloseReason, EndReason, Input, LoginReply, Peer, TlsInfo, TlsUpgrade, UpstreamFailure, UpstreamLogin,
};
use proxy_core::{Decision, Event, Timestamp};
use std::future::Future;
use std::io;
use std::sync::atomic::Ordering;
use std::task::Context;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What an awaited operation brought.
pub(super) enum Done {
    ClientTls(io::Result<(Stream, TlsInfo)>),
    UpstreamTls(io::Result<(Stream, TlsInfo)>),
    Login(Box<dyn LoginConversation>, LoginStep),
    Connected(io::Result<Socket>),
}

impl Driver {
    /// Carries out every action that the session has.
    pub(super) fn carry_out(&mut self, now: Timestamp) {
        while let Some(action) = self.session.next_action() {
            match action {
                Action::SendClient(bytes) => self.client.output.push(bytes),
                Action::SendUpstream { bytes, permit } => {
                    if permit.session() == self.peer.session {
                        self.upstream.output.push(bytes);
                    } else {
                        tracing::error!(session = %self.peer.session, "a permit of another session was presented");
                        self.close(CloseReason::Ended(EndReason::PeerFailed(Peer::Upstream)));
                    }
                }
                Action::StartTls(Peer::Client) => self.start_client_tls(),
                Action::StartTls(Peer::Upstream) => self.start_upstream_tls(),
                Action::Authenticate(attempt) => self.authenticate(now, *attempt),
                Action::Connect(_) => self.connect_upstream(),
                Action::AnswerUpstream(challenge) => {
                    let answer = self.answer_upstream(challenge);
                    self.upstream.offered = false;
                    self.session.handle(now, Input::UpstreamAnswer(answer));
                }
                Action::Established => {
                    self.deadlines.set(Deadline::Login, None);
                    self.admission = None;
                    self.login = None;
                    self.answers = None;
                    self.services.metrics.login(self.peer.protocol, true);
                }
                Action::Decide(request) => self.undecided.push_back(request),
                Action::Withdraw { from, through } => self.withdraw(now, from, through),
                Action::Record(outcome) => {
                    let succeeded = outcome.status == OutcomeStatus::Completed;
                    self.tell_completed(outcome.request, succeeded);
                    self.submit_later(now, Event::Outcome(outcome));
                }
                Action::SetDeadline(after) => {
                    self.deadlines.set(Deadline::Session, after.map(|after| Instant::now() + after));
                }
                Action::Cancel(key) => self.services.registry.cancel(&key),
                Action::CancelUpstream { bytes, upgrade, permit } => {
                    if permit.session() == self.peer.session {
                        self.cancel_upstream(bytes, upgrade);
                    }
                }
                Action::Close(reason) => self.close(reason),
            }
        }
    }

    /// An entry of this session.
    pub(super) fn submission(&self, time: Timestamp, event: Event) -> Submission {
        Submission { time, session: Some((self.peer.session, self.sequence.clone())), event }
    }

    /// For entries that the session waits for: it is resumed when they are in the log, or refused.
    pub(super) fn submit(&self, submissions: impl IntoIterator<Item = Submission>) -> Ticket {
        self.committer.submit(submissions, self.turns.clone())
    }

    pub(super) fn submit_later(&self, now: Timestamp, event: Event) {
        self.committer.submit_later(self.submission(now, event));
    }

    fn wait_for(&mut self, operation: impl Future<Output = Done> + Send + 'static) {
        self.operation = Some(Box::pin(operation));
        self.ready.set(Source::Answer);
    }

    fn start_client_tls(&mut self) {
        let Some(Stream::Plain(mut socket)) = self.client.stream.take() else {
            self.close(CloseReason::Ended(EndReason::PeerFailed(Peer::Client)));
            return;
        };
        let pending = self.client.output.take();
        let head = std::mem::take(&mut self.client.buffer);
        let tls = (self.spec.tls)();
        self.wait_for(async move {
            Done::ClientTls(
                async {
                    write_all(&mut socket, pending).await?;
                    let tls = tls.ok_or_else(|| io::Error::other("the listener has no certificate"))?;
                    let (stream, info) = tls::accept(tls, head, socket).await?;
                    Ok((Stream::Server(stream), info))
                }
                .await,
            )
        });
    }

    fn start_upstream_tls(&mut self) {
        let tls = self.opened.as_ref().and_then(|opened| opened.upstream.tls.clone());
        let (Some(Stream::Plain(mut socket)), Some(tls)) = (self.upstream.stream.take(), tls) else {
            self.close(CloseReason::UpstreamFailed(UpstreamFailure::Tls));
            return;
        };
        let pending = self.upstream.output.take();
        self.wait_for(async move {
            Done::UpstreamTls(
                async {
                    write_all(&mut socket, pending).await?;
                    let (stream, info) = tls::connect(tls, socket).await?;
                    Ok((Stream::Client(stream), info))
                }
                .await,
            )
        });
    }

    fn authenticate(&mut self, now: Timestamp, attempt: proxy_core::session::LoginAttempt) {
        let Some(mut login) = self.login.take() else {
            self.close(CloseReason::LoginRefused);
            return;
        };
        let mut kept = attempt.clone();
        kept.evidence = proxy_core::session::Evidence::SaslResponse(Vec::new());
        self.attempt = Some(kept);
        let tls = self.tls.clone();
        self.wait_for(async move {
            let step = login.step(now, attempt, tls.as_ref()).await;
            Done::Login(login, step)
        });
    }

    fn connect_upstream(&mut self) {
        let Some(opened) = &self.opened else {
            self.close(CloseReason::UpstreamFailed(UpstreamFailure::Unreachable));
            return;
        };
        let (host, port) = (opened.upstream.host.clone(), opened.upstream.port);
        self.wait_for(async move { Done::Connected(connect(&host, port).await) });
    }

    fn answer_upstream(
        &mut self,
        challenge: proxy_core::session::UpstreamChallenge,
    ) -> Result<proxy_core::SecretBytes, UpstreamFailure> {
        if self.answers.is_none() {
            let opened = self.opened.as_ref().ok_or(UpstreamFailure::Credential)?;
            let binding = self.upstream_tls.as_ref().and_then(|info| info.server_end_point.clone());
            self.answers = Some(opened.upstream.credential.begin(binding)?);
        }
        self.answers.as_mut().ok_or(UpstreamFailure::Credential)?.answer(challenge)
    }

    fn cancel_upstream(&self, bytes: Bytes, upgrade: TlsUpgrade) {
        let Some(opened) = &self.opened else { return };
        let UpstreamEndpoint { host, port, tls, .. } = &opened.upstream;
        let (host, port, session) = (host.clone(), *port, self.peer.session);
        let tls = tls.clone().map(|tls| (tls, upgrade));
        tokio::spawn(async move {
            let sent = async { cancel::send(connect(&host, port).await?, tls, &bytes).await };
            if let Err(error) = sent.await {
                tracing::warn!(%session, %error, "the upstream could not be told to cancel");
            }
        });
    }

    /// Brings the answer of the awaited operation, if it is there.
    pub(super) fn poll_operation(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(operation) = &mut self.operation else { return false };
        let std::task::Poll::Ready(done) = operation.as_mut().poll(cx) else { return false };
        self.operation = None;
        if self.closing.is_none() {
            self.operation_done(done);
            // A stream may be new.
            for peer in [Peer::Client, Peer::Upstream] {
                self.ready.set(source(peer));
                self.side(peer).blocked = false;
            }
            self.offer_again();
        }
        true
    }

    fn operation_done(&mut self, done: Done) {
        match done {
            Done::ClientTls(Ok((stream, info))) => {
                self.client.stream = Some(stream);
                self.tls = Some(info.clone());
                self.feed(Input::Tls { peer: Peer::Client, info });
            }
            Done::UpstreamTls(Ok((stream, info))) => {
                self.upstream.stream = Some(stream);
                self.upstream_tls = Some(info.clone());
                self.feed(Input::Tls { peer: Peer::Upstream, info });
            }
            Done::ClientTls(Err(error)) => {
                tracing::info!(session = %self.peer.session, source = %self.peer.source, %error, "the client's TLS handshake failed");
                self.close(CloseReason::Ended(EndReason::PeerFailed(Peer::Client)));
            }
            Done::UpstreamTls(Err(error)) => {
                tracing::warn!(session = %self.peer.session, %error, "the upstream's TLS handshake failed");
                self.feed(Input::Connected(Err(UpstreamFailure::Tls)));
            }
            Done::Connected(Ok(socket)) => {
                self.upstream.stream = Some(Stream::Plain(socket));
                self.feed(Input::Connected(Ok(())));
            }
            Done::Connected(Err(error)) => {
                tracing::warn!(session = %self.peer.session, %error, "the upstream cannot be reached");
                self.feed(Input::Connected(Err(UpstreamFailure::Unreachable)));
            }
            Done::Login(login, step) => {
                self.login = Some(login);
                self.login_step(step);
            }
        }
    }

    fn login_step(&mut self, step: LoginStep) {
        match step {
            LoginStep::Challenge(challenge) => self.feed(Input::Login(LoginReply::Challenge(challenge))),
            LoginStep::Refused { kind, message, hint, reason } => {
                self.login_failed(reason);
                self.feed(Input::Login(LoginReply::Refused { kind, message, hint }));
            }
            LoginStep::Accepted(mut opened) => {
                let (application, settings) = match &self.attempt {
                    Some(attempt) => (attempt.application.clone(), attempt.settings.clone()),
                    None => (String::new(), Vec::new()),
                };
                let source = self.peer.address.map_or_else(String::new, |address| address.to_string());
                self.authorizer = Some(self.services.authorizer.open(&SessionFacts {
                    id: self.peer.session,
                    principal: opened.principal.clone(),
                    target: opened.target.clone(),
                    source,
                    application,
                    settings,
                }));
                let upstream = UpstreamLogin {
                    user: opened.target.upstream_user.clone(),
                    database: opened.target.database.clone(),
                    tls: opened.upstream.tls.is_some(),
                };
                let last = opened.last.take();
                if let Some(expires) = opened.expires {
                    self.expire_at(expires, self.now);
                }
                self.opened = Some(opened);
                self.feed(Input::Login(LoginReply::Accepted { last, upstream }));
            }
        }
    }

    /// Records a refused login, once.
    pub(super) fn login_failed(&mut self, reason: String) {
        if std::mem::replace(&mut self.login_recorded, true) {
            return;
        }
        self.services.metrics.login(self.peer.protocol, false);
        let (label, connection) = match &self.attempt {
            Some(attempt) => (attempt.label.clone(), attempt.database.clone()),
            None => (String::new(), String::new()),
        };
        let event = Event::LoginFailed {
            source: self.peer.source.clone(),
            protocol: self.peer.protocol.to_owned(),
            label,
            connection,
            reason,
        };
        self.committer.submit_later(Submission { time: self.now, session: None, event });
    }

    /// The entry that opens the session.
    pub(super) fn session_started(&self, opened: &Opened, decision: &Decision) -> Event {
        let (label, application) = match &self.attempt {
            Some(attempt) => (attempt.label.clone(), attempt.application.clone()),
            None => (String::new(), String::new()),
        };
        Event::SessionStarted(Box::new(SessionStarted {
            principal: (*opened.principal).clone(),
            target: (*opened.target).clone(),
            source: self.peer.source.clone(),
            protocol: self.peer.protocol.to_owned(),
            label,
            application,
            tls: self.tls.as_ref().map(|info| info.description.clone()),
            policy_version: decision.policy_version.to_string(),
            policies: decision.policies.iter().map(ToString::to_string).collect(),
        }))
    }

    /// The session is in the log: it can be listed and killed.
    pub(super) fn session_opened(&mut self, now: Timestamp) {
        self.started = true;
        let Some(opened) = &self.opened else { return };
        self.services.registry.opened(LiveSession {
            id: self.peer.session,
            principal: opened.principal.clone(),
            target: opened.target.clone(),
            source: self.peer.source.clone(),
            label: self.attempt.as_ref().map_or_else(String::new, |attempt| attempt.label.clone()),
            tls: self.tls.as_ref().map(|info| info.description.clone()),
            application: self.attempt.as_ref().map_or_else(String::new, |attempt| attempt.application.clone()),
            started: now,
            requests: self.requests.clone(),
        });
    }

    /// Records how it ended.
    pub(super) fn record_end(&mut self, reason: &CloseReason) {
        let now = clock::now();
        if self.started {
            let event = Event::SessionEnded {
                reason: describe(reason),
                requests: self.requests.load(Ordering::Relaxed),
                bytes_in: self.upstream.moved,
                bytes_out: self.client.moved,
            };
            self.committer.submit_soon(self.submission(now, event));
        } else if matches!(reason, CloseReason::LoginRefused | CloseReason::Ended(EndReason::LoginTimeout))
            || self.attempt.is_some()
        {
            let early = self.attempt.is_none() && *reason == CloseReason::LoginRefused;
            self.login_failed(if early { "refused before a credential was shown".to_owned() } else { describe(reason) });
        }
    }
}

/// A close reason in words, for the record.
fn describe(reason: &CloseReason) -> String {
    match reason {
        CloseReason::ClientTerminated => "the client ended it".to_owned(),
        CloseReason::ClientVanished => "the client vanished".to_owned(),
        CloseReason::ClientViolation(what) => format!("the client broke the protocol: {what}"),
        CloseReason::LoginRefused => "the login was refused".to_owned(),
        CloseReason::UpstreamClosed => "the target closed the connection".to_owned(),
        CloseReason::UpstreamViolation(what) => format!("the target broke the protocol: {what}"),
        CloseReason::UpstreamFailed(UpstreamFailure::Unreachable) => "the target cannot be reached".to_owned(),
        CloseReason::UpstreamFailed(UpstreamFailure::Tls) => "TLS with the target failed".to_owned(),
        CloseReason::UpstreamFailed(UpstreamFailure::Credential) => "the target refused the gateway's credential".to_owned(),
        CloseReason::UpstreamFailed(UpstreamFailure::Protocol) => "the target broke the protocol".to_owned(),
        CloseReason::CancelRequest => "a cancel request".to_owned(),
        CloseReason::Failed => "the gateway failed: its own log says how".to_owned(),
        CloseReason::Ended(reason) => match reason {
            EndReason::Killed => "ended by an administrator",
            EndReason::Expired => "the caller's credential expired",
            EndReason::Revoked => "the caller's key was revoked",
            EndReason::PolicyChanged => "policy no longer permits the connection",
            EndReason::Shutdown => "the gateway stopped",
            EndReason::LoginTimeout => "the login took too long",
            EndReason::IdleTimeout => "idle for too long",
            EndReason::PeerFailed(Peer::Client) => "the client's connection broke",
            EndReason::PeerFailed(Peer::Upstream) => "the target's connection broke",
            EndReason::StoreUnavailable => "the audit store does not accept",
        }
        .to_owned(),
    }
}

async fn connect(host: &str, port: u16) -> io::Result<Socket> {
    if host.starts_with('/') {
        let path = format!("{host}/.s.PGSQL.{port}");
        return Ok(Socket::Unix(tokio::net::UnixStream::connect(path).await?));
    }
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream))
}

async fn write_all(socket: &mut Socket, pending: BytesMut) -> io::Result<()> {
    socket.write_all(&pending).await?;
    socket.flush().await
}
