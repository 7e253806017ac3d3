//! A session as a state machine without I/O.
//!
//! The driver calls [`Session::handle`] with one [`Input`], then [`Session::next_action`] until it is
//! `None`, carrying out each [`Action`] in order. Order is the contract: what was recorded before is
//! forwarded after.
//!
//! ```text
//! handle(now, Input::Bytes{client})     → Decide(request 7)
//! handle(now, Input::Verdict(permit))   → SendUpstream(bytes, permit)
//! handle(now, Input::Bytes{upstream})   → SendClient(bytes), Record(outcome 7)
//! ```

use crate::pipeline::Permit;
use crate::record::Outcome;
use crate::{Disclosure, Request, RequestId, SecretBytes, Timestamp};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// One side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Who connected to the gateway.
    Client,
    /// What the gateway connects to.
    Upstream,
}

/// One session of one protocol.
pub trait Session: Send {
    /// Takes one input. Time is an argument.
    fn handle(&mut self, now: Timestamp, input: Input<'_>);

    /// The next thing to do; `None`: nothing until the next input.
    fn next_action(&mut self) -> Option<Action>;
}

/// What TLS found out about a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// The name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// The protocol agreed on (ALPN).
    pub alpn: Option<Vec<u8>>,
    /// `tls-server-end-point` channel binding of the certificate in use (RFC 5929 §4.1).
    pub server_end_point: Option<Vec<u8>>,
    /// Version and cipher suite, for the record.
    pub description: String,
}

/// What a session is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes from a peer, at the front of the driver's read buffer. The session takes the whole frames (of
    /// a frame that streams: what is there) and leaves the rest; it is offered again when more came, and
    /// after a verdict. While it leaves bytes, the driver reads no more than its buffer holds.
    Bytes {
        /// From whom.
        from: Peer,
        /// The unread bytes.
        buffer: &'a mut BytesMut,
    },
    /// A peer sends no more.
    Eof {
        /// Which.
        from: Peer,
    },
    /// TLS with a peer stands: answers [`Action::StartTls`].
    Tls {
        /// With whom.
        peer: Peer,
        /// What it found out.
        info: TlsInfo,
    },
    /// Answers [`Action::Authenticate`].
    Login(LoginReply),
    /// Answers [`Action::Connect`]: connected, or why not.
    Connected(Result<(), UpstreamFailure>),
    /// Answers [`Action::AnswerUpstream`].
    UpstreamAnswer(Result<SecretBytes, UpstreamFailure>),
    /// Answers [`Action::Decide`], in the order in which they were asked.
    Verdict {
        /// Which request.
        request: RequestId,
        /// The answer.
        verdict: Answer,
    },
    /// The time set by [`Action::SetDeadline`] has come.
    Deadline,
    /// Somebody presented this session's cancel key.
    Cancel,
    /// The gateway stops: the session ends itself ([`EndReason::Shutdown`]) as soon as nothing of it runs and no
    /// transaction is open, which may be now.
    Drain,
    /// The gateway ends the session.
    End(EndReason),
}

/// The pipeline's answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// Forward it, and apply the disclosure to what comes back.
    Permitted {
        /// The right to send.
        permit: Permit,
        /// What may come back.
        disclosure: Disclosure,
    },
    /// It waits for approval: tell the client. Another answer follows.
    Held(Notice),
    /// Refuse it.
    Denied(Denial),
}

/// A text for the client while its request is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The sentence.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What the client may see of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Which sort: it chooses the protocol's error code.
    pub kind: DenialKind,
    /// The sentence: what, and which policy.
    pub message: String,
    /// Where to look: the session's id.
    pub detail: String,
    /// What to do.
    pub hint: String,
}

/// Sorts of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenialKind {
    /// Policy says no (SQLSTATE 42501).
    Policy,
    /// A reviewer said no, or nobody decided in time (42501).
    Approval,
    /// The client cancelled while it was held (57014).
    Cancelled,
    /// The audit store cannot accept (58030).
    StoreUnavailable,
    /// A limit was reached (54000).
    Limit,
    /// The gateway cannot read it as the target would (0A000).
    Unreadable,
}

/// The login's next step.
#[derive(Debug)]
pub enum LoginReply {
    /// Send this to the client (a SASL challenge) and pass on what it answers.
    Challenge(Vec<u8>),
    /// The caller is known. `last` is the mechanism's closing message, if it has one.
    Accepted {
        /// A SASL outcome to send before the login is confirmed.
        last: Option<Vec<u8>>,
        /// The opening of the session, to be decided: the driver has set up the session's target.
        upstream: UpstreamLogin,
    },
    /// The caller is refused. The text is what the client may see.
    Refused {
        /// Which sort.
        kind: LoginRefusal,
        /// The sentence.
        message: String,
        /// What to do.
        hint: String,
    },
}

/// Sorts of refused logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginRefusal {
    /// The credential is not valid, or not for this label (PostgreSQL 28P01).
    Credential,
    /// The connection is not known, or the caller may not open it (28000).
    NotAllowed,
    /// Too many connections (53300).
    TooMany,
    /// The gateway cannot tell now: the issuer's keys or the store are out of reach (58000).
    Unavailable,
}

/// What the session needs to log in upstream. The secret is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamLogin {
    /// Login name.
    pub user: String,
    /// Database.
    pub database: String,
    /// Whether TLS is asked for before anything else is sent.
    pub tls: bool,
}

/// Why the upstream cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// No connection: refused, timed out, not resolved.
    Unreachable,
    /// TLS failed: not offered, or the certificate does not hold.
    Tls,
    /// The target's credential cannot be had or is refused, or the server asked for an unsupported method.
    Credential,
    /// It spoke out of turn.
    Protocol,
}

/// Why the gateway ends a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// An administrator ended it.
    Killed,
    /// The caller's token or key has expired.
    Expired,
    /// The caller's key was revoked.
    Revoked,
    /// Policy no longer lets the caller connect.
    PolicyChanged,
    /// The gateway stops.
    Shutdown,
    /// The login took too long.
    LoginTimeout,
    /// Nothing was asked for too long.
    IdleTimeout,
    /// A peer broke the connection or TLS failed.
    PeerFailed(Peer),
    /// The audit store cannot accept.
    StoreUnavailable,
}

/// A login attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAttempt {
    /// What the caller calls itself.
    pub label: String,
    /// `CONNECTION` or `CONNECTION/DATABASE`, as the client named it; the driver resolves it together with
    /// the listener and the TLS server name.
    pub database: String,
    /// Application name, as the client says.
    pub application: String,
    /// Further settings of the start, in order.
    pub settings: Vec<(String, String)>,
    /// What it shows.
    pub evidence: Evidence,
}

/// What a caller shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A token or a machine key.
    Password(SecretBytes),
    /// The first message of a SASL exchange.
    SaslInitial {
        /// Mechanism.
        mechanism: String,
        /// Its first message.
        data: Vec<u8>,
    },
    /// A further message.
    SaslResponse(Vec<u8>),
}

/// What the upstream asks of the gateway. The driver answers with the target's credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamChallenge {
    /// The password itself.
    Cleartext,
    /// PostgreSQL's MD5 with this salt.
    Md5([u8; 4]),
    /// Begin SASL with one of these mechanisms. The answer is `MECHANISM\0MESSAGE`.
    SaslStart(Vec<String>),
    /// Go on.
    SaslContinue(Vec<u8>),
    /// Check the server's closing message; the answer is empty.
    SaslFinal(Vec<u8>),
}

/// What a session wants done.
#[derive(Debug)]
pub enum Action {
    /// Send to the client.
    SendClient(Bytes),
    /// Send to the upstream.
    SendUpstream {
        /// The bytes.
        bytes: Bytes,
        /// What clears them.
        permit: Permit,
    },
    /// Do the TLS handshake with a peer: with the client as the server, with the upstream as the client.
    /// What was sent before goes out first.
    StartTls(Peer),
    /// Check who is calling: answered by [`Input::Login`].
    Authenticate(Box<LoginAttempt>),
    /// Open the upstream connection: answered by [`Input::Connected`].
    Connect(Permit),
    /// Answer the upstream's challenge: answered by [`Input::UpstreamAnswer`].
    AnswerUpstream(UpstreamChallenge),
    /// The login is complete: its time-out ends.
    Established,
    /// Decide, record, and answer by [`Input::Verdict`].
    Decide(Box<Request>),
    /// Requests `from..=through` that were not yet answered are not wanted any more: their pipeline failed.
    Withdraw {
        /// First.
        from: RequestId,
        /// Last.
        through: RequestId,
    },
    /// Record what came of a request.
    Record(Box<Outcome>),
    /// Call back with [`Input::Deadline`] after this time; `None`: do not.
    SetDeadline(Option<Duration>),
    /// The client asks to cancel the session that has this key.
    Cancel(CancelKey),
    /// Send these bytes to the target on a connection of their own: the upstream's cancel request.
    CancelUpstream {
        /// The bytes.
        bytes: Bytes,
        /// What comes before them, where the session's own connection has TLS.
        upgrade: TlsUpgrade,
        /// What cleared the request that is being cancelled.
        permit: Permit,
    },
    /// Close: what was sent goes out first.
    Close(CloseReason),
}

/// How a protocol asks its peer for TLS on a connection that began without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsUpgrade {
    /// What is sent.
    pub request: Bytes,
    /// The whole answer of a peer that agrees: TLS begins after it.
    pub accepted: &'static [u8],
}

/// The key by which a client may cancel its session from another connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The session's number on the wire.
    pub process: u32,
    /// Its secret.
    pub secret: Vec<u8>,
}

/// Why a session closed: a label of the metric and a word of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said goodbye.
    ClientTerminated,
    /// The client vanished.
    ClientVanished,
    /// The client broke the protocol.
    ClientViolation(Arc<str>),
    /// The login was refused.
    LoginRefused,
    /// The upstream closed or died.
    UpstreamClosed,
    /// The upstream broke the protocol.
    UpstreamViolation(Arc<str>),
    /// The upstream cannot be used.
    UpstreamFailed(UpstreamFailure),
    /// The gateway ended it.
    Ended(EndReason),
    /// It was a cancel request: there is no session.
    CancelRequest,
    /// The gateway itself failed: its own log says how.
    Failed,
}
