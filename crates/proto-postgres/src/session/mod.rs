//! The session: one state for each phase, dispatch here, one file for each phase.
//!
//! ```text
//!  Startup ──SSLRequest──▶ AwaitingClientTls ──▶ Startup
//!     │ StartupMessage
//!     ▼
//!  Login ──Authenticate/Login──▶ Opening ──Decide(connect)──▶ UpstreamLogin ──ReadyForQuery──▶ Ready
//!                                                                                               │
//!  any ──error, end──▶ Closed ◀───────────────Terminate, EOF, End───────────────────────────────┘
//! ```

mod login;
mod opening;
mod ready;
mod startup;
mod upstream_login;

use crate::error::Error;
use crate::reply::{self, Reply};
use crate::types::SqlState;
use bytes::{Bytes, BytesMut};
use proxy_core::limits::SessionLimits;
use proxy_core::record::Outcome;
use proxy_core::session::{CancelKey, EndReason, UpstreamFailure};
use proxy_core::{Action, CloseReason, Input, Peer, Request, Session, SessionId, Timestamp};
use std::collections::VecDeque;

/// Whether clients must use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTls {
    /// A plain connection is refused before a password is asked for.
    Required,
    /// Offered, and not insisted on: loopback listeners only.
    Optional,
    /// No certificate: SSLRequest is answered with `N`.
    Off,
}

/// What a session is made with.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Its id, which errors name.
    pub id: SessionId,
    /// Its limits.
    pub limits: SessionLimits,
    /// Whether clients must use TLS.
    pub client_tls: ClientTls,
    /// The key that its client may cancel with: a secret of 4 to 32 bytes. Protocol 3.0 uses the first four.
    pub cancel_key: CancelKey,
}

/// One session of the protocol, from the first byte to the last. See the crate's documentation.
#[derive(Debug)]
pub struct PostgresSession {
    core: Core,
    state: State,
}

#[derive(Debug)]
enum State {
    Startup(startup::Startup),
    AwaitingClientTls(startup::AwaitingClientTls),
    Login(Box<login::Login>),
    Opening(Box<opening::Opening>),
    UpstreamLogin(Box<upstream_login::UpstreamLogin>),
    Ready(Box<ready::Ready>),
    Closed,
}

/// What every state has: configuration, the time of the input, and the ordered queue of actions.
#[derive(Debug)]
struct Core {
    config: SessionConfig,
    actions: VecDeque<Action>,
    now: Timestamp,
}

impl PostgresSession {
    /// A session that waits for the client's first byte.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        Self {
            core: Core { config, actions: VecDeque::new(), now: Timestamp::default() },
            state: State::Startup(startup::Startup::default()),
        }
    }
}

impl Session for PostgresSession {
    fn handle(&mut self, now: Timestamp, input: Input<'_>) {
        self.core.now = now;
        let core = &mut self.core;
        // The state of every statement: it stays where it is.
        if let State::Ready(state) = &mut self.state {
            if !state.handle(core, input) {
                self.state = State::Closed;
            }
            return;
        }
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Startup(state) => state.handle(core, input),
            State::AwaitingClientTls(state) => state.handle(core, input),
            State::Login(state) => state.handle(core, input),
            State::Opening(state) => state.handle(core, input),
            State::UpstreamLogin(state) => state.handle(core, input),
            closed @ (State::Ready(_) | State::Closed) => {
                // What still comes from a peer is of no interest, and must not fill a buffer.
                if let Input::Bytes { buffer, .. } = input {
                    buffer.clear();
                }
                closed
            }
        };
    }

    fn next_action(&mut self) -> Option<Action> {
        self.core.actions.pop_front()
    }
}

impl Core {
    fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn decide(&mut self, request: Request) {
        self.push(Action::Decide(Box::new(request)));
    }

    fn record(&mut self, outcome: Outcome) {
        self.push(Action::Record(Box::new(outcome)));
    }

    fn send_client(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.actions.push_back(Action::SendClient(bytes));
        }
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        self.send_client(out.freeze());
    }

    fn close(&mut self, reason: CloseReason) -> State {
        self.actions.push_back(Action::Close(reason));
        State::Closed
    }

    /// A FATAL error of ours, then the end.
    fn fatal(&mut self, code: SqlState, message: &str, hint: &str, reason: CloseReason) -> State {
        let detail = reply::detail(self.config.id);
        self.send_client(Reply::fatal(code, message, &detail, hint).frame());
        self.close(reason)
    }

    /// The client broke the protocol: it is told, and the session ends.
    fn client_error(&mut self, error: &Error) -> State {
        let message = match error {
            Error::ClientMalformed(malformed) => malformed.to_string(),
            Error::ClientViolation { got, .. } => format!("unexpected message type {got:#04x}"),
            Error::UpstreamMalformed(_) | Error::UpstreamViolation { .. } | Error::UpstreamLimit { .. } => {
                return self.upstream_error(error);
            }
        };
        let reason = CloseReason::ClientViolation(error.to_string().into());
        self.fatal(SqlState::PROTOCOL_VIOLATION, &message, "", reason)
    }

    /// The upstream broke the protocol: the client is told no more than that.
    fn upstream_error(&mut self, error: &Error) -> State {
        let reason = CloseReason::UpstreamViolation(error.to_string().into());
        self.fatal(SqlState::PROTOCOL_VIOLATION, "the target broke the protocol", "", reason)
    }

    /// The gateway ends a session that is not ready yet.
    fn ended(&mut self, reason: EndReason) -> State {
        let bytes = reply::ended(&reason, self.config.id);
        self.send_client(bytes);
        self.close(CloseReason::Ended(reason))
    }

    /// The upstream cannot be used.
    fn upstream_failed(&mut self, failure: UpstreamFailure) -> State {
        let message = match failure {
            UpstreamFailure::Unreachable => "the gateway cannot reach the target",
            UpstreamFailure::Tls => "the gateway cannot secure its connection to the target",
            UpstreamFailure::Credential => "the gateway could not log in to the target",
            UpstreamFailure::Protocol => "the target broke the protocol",
        };
        self.fatal(SqlState::CANNOT_CONNECT, message, "", CloseReason::UpstreamFailed(failure))
    }

    /// What every state before `Ready` does with inputs that it does not wait for.
    fn otherwise(&mut self, input: Input<'_>, state: State) -> State {
        match input {
            Input::Eof { from: Peer::Client } => self.close(CloseReason::ClientVanished),
            Input::Eof { from: Peer::Upstream } => {
                self.fatal(SqlState::CANNOT_CONNECT, "the target closed the connection", "", CloseReason::UpstreamClosed)
            }
            Input::End(reason) => self.ended(reason),
            Input::Drain => self.ended(EndReason::Shutdown),
            Input::Deadline => self.ended(EndReason::LoginTimeout),
            // Bytes wait in the driver's buffer until their state comes; a late answer has nobody to hear it.
            Input::Bytes { .. }
            | Input::Tls { .. }
            | Input::Login(_)
            | Input::Connected(_)
            | Input::UpstreamAnswer(_)
            | Input::Verdict { .. }
            | Input::Cancel => state,
        }
    }
}
