//! The ready state: requests and answers.
//!
//! ```text
//!  client bytes ─▶ batch ─▶ segments ─┬─verdict─▶ SendUpstream        expect: Step, Step, …
//!                 (client.rs)         │            (queue.rs)          running: Running, …
//!                                     └─denial──▶ a harmless failure
//!  upstream bytes ─▶ matched against expect ─▶ pass | rewrite | swallow ─▶ SendClient, Record
//!                 (upstream.rs, answers.rs)     (rows.rs, copying.rs, crate::copy)
//! ```

mod answers;
mod client;
mod copying;
mod names;
mod queue;
mod refused;
mod rows;
mod running;
mod shape;
mod upstream;

use self::client::Parsed;
use self::names::Names;
use self::queue::{Gate, Granted, Segment, Step};
use self::running::Running;
use super::Core;
use crate::dialect::Dialect;
use crate::error::Error;
use crate::frame::write;
use crate::message::StartupPacket;
use crate::reply::{self, Reply};
use crate::types::{ClientTag, SqlState};
use bytes::{Bytes, BytesMut};
use proxy_core::pipeline::Permit;
use proxy_core::record::OutcomeStatus;
use proxy_core::session::{EndReason, TlsUpgrade};
use proxy_core::{Action, CloseReason, Input, Peer};
use std::collections::VecDeque;

/// The description of a COPY's query, before the COPY is sent.
#[derive(Debug)]
enum Shape {
    /// Asked, not answered.
    Asked,
    /// What to do once the upstream is ready: go on.
    Known(Box<proxy_core::CopyShape>),
    /// The upstream refused the query: its error is the COPY's.
    Failed,
    /// A column must not be seen.
    Refused(Bytes),
}

/// What [`Input::Deadline`] would mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deadline {
    Statement,
    Idle,
}

/// A session whose login is complete.
#[derive(Debug)]
pub(super) struct Ready {
    /// The permit of the session's opening.
    housekeeping: Permit,
    /// The upstream's cancel key.
    key: Option<(u32, Bytes)>,
    names: Names,
    last_request: u64,

    // From the client.
    /// Whole frames that are being taken, and where the next begins.
    batch: Bytes,
    batch_at: usize,
    /// Bytes left of a CopyData that streams.
    client_left: usize,
    /// Bytes left of a refused message.
    discard_left: usize,
    /// A message over the limit, of which more must come.
    oversized: Option<Box<refused::Oversized>>,
    /// A failure was answered, or will be: the client's messages up to its Sync are dropped.
    skip: bool,
    parsed: Option<Parsed>,

    // On the way.
    queue: VecDeque<Segment>,
    queued_steps: VecDeque<Step>,
    queued_bytes: usize,
    /// The right that the segment at hand goes under.
    granted: Option<Box<Granted>>,
    /// Whether the upstream will flush its answers by itself.
    flushed: bool,
    shape: Option<Shape>,

    // At the upstream.
    expect: VecDeque<Step>,
    running: VecDeque<Running>,
    denials: VecDeque<Bytes>,
    /// Syncs that a COPY may have read over.
    swallowed_syncs: usize,

    // To the client.
    /// Bytes left of a frame that streams, and whether they pass.
    upstream_left: usize,
    upstream_passes: bool,
    /// Rewritten frames that are not sent yet.
    out: BytesMut,
    /// What must wait for the end of a frame that streams.
    interjections: Vec<Bytes>,
    /// A result was refused: nothing passes until the upstream is ready.
    refusing: bool,
    /// Bytes swallowed since; `None`: the cancel was sent.
    swallowed: Option<u64>,
    /// How the upstream reads text.
    dialect: Dialect,
    fatal_seen: bool,
    deadline: Option<Deadline>,
    timed_out: bool,
    in_transaction: bool,
    /// The gateway stops: the session ends when nothing of it runs.
    draining: bool,
    /// The session has ended.
    done: bool,
}

impl Ready {
    pub(super) fn new(core: &mut Core, housekeeping: Permit, key: Option<(u32, Bytes)>, dialect: Dialect) -> Self {
        let mut ready = Self {
            housekeeping,
            key,
            names: Names::new(),
            last_request: 0,
            batch: Bytes::new(),
            batch_at: 0,
            client_left: 0,
            discard_left: 0,
            oversized: None,
            skip: false,
            parsed: None,
            queue: VecDeque::new(),
            queued_steps: VecDeque::new(),
            queued_bytes: 0,
            granted: None,
            flushed: true,
            shape: None,
            expect: VecDeque::new(),
            running: VecDeque::new(),
            denials: VecDeque::new(),
            swallowed_syncs: 0,
            upstream_left: 0,
            upstream_passes: true,
            out: BytesMut::new(),
            interjections: Vec::new(),
            refusing: false,
            swallowed: None,
            dialect,
            fatal_seen: false,
            deadline: None,
            timed_out: false,
            in_transaction: false,
            draining: false,
            done: false,
        };
        ready.set_deadline(core, false);
        ready
    }

    /// `false`: the session has ended.
    pub(super) fn handle(&mut self, core: &mut Core, input: Input<'_>) -> bool {
        let result = match input {
            Input::Bytes { from: Peer::Client, buffer } => self.client_bytes(core, buffer),
            Input::Bytes { from: Peer::Upstream, buffer } => self.upstream_bytes(core, buffer),
            Input::Verdict { request, verdict } => {
                self.verdict(core, request, verdict);
                Ok(())
            }
            Input::Eof { from: Peer::Client } => {
                self.client_gone(core);
                Ok(())
            }
            Input::Eof { from: Peer::Upstream } => {
                self.upstream_gone(core);
                Ok(())
            }
            Input::Deadline => {
                self.deadline_reached(core);
                Ok(())
            }
            Input::Cancel => {
                self.cancel(core);
                Ok(())
            }
            Input::Drain => {
                self.draining = true;
                Ok(())
            }
            Input::End(reason) => {
                self.end(core, reason);
                Ok(())
            }
            Input::Tls { .. } | Input::Login(_) | Input::Connected(_) | Input::UpstreamAnswer(_) => Ok(()),
        };
        let result = result.and_then(|()| self.advance(core));
        if let Err(error) = result {
            self.violated(core, &error);
        }
        !self.done
    }

    /// Takes and sends what the input made possible.
    fn advance(&mut self, core: &mut Core) -> Result<(), Error> {
        if self.done {
            return Ok(());
        }
        if self.names.is_touched() {
            self.names.answered_before(self.oldest_request());
        }
        self.take_batch(core)?;
        self.pump(core);
        if !self.batch.is_empty() && !self.done {
            // What was sent may have made room.
            self.take_batch(core)?;
            self.pump(core);
            self.ask_for_answers(core);
        }
        if self.draining && self.is_idle() {
            self.end(core, EndReason::Shutdown);
        }
        Ok(())
    }

    /// Whether nothing is under way, in either direction, and no transaction is open.
    fn is_idle(&self) -> bool {
        let left = self.client_left > 0 || self.discard_left > 0 || self.oversized.is_some();
        let asked = !left && self.batch.is_empty() && self.queue.is_empty() && self.shape.is_none();
        asked && self.expect.is_empty() && self.running.is_empty() && !self.in_transaction && !self.done
    }

    /// The session waits for answers that the upstream may hold back: a Flush brings them.
    fn ask_for_answers(&mut self, core: &mut Core) {
        if self.batch.is_empty() || self.done || self.flushed || self.expect.is_empty() || !self.queue.is_empty() {
            return;
        }
        self.flushed = true;
        let mut out = BytesMut::new();
        write(&mut out, ClientTag::FLUSH.0, |_| {});
        core.push(Action::SendUpstream { bytes: out.freeze(), permit: self.housekeeping });
    }

    /// Sends a message of our own to the client, between frames.
    fn interject(&mut self, core: &mut Core, bytes: Bytes) {
        if self.upstream_left > 0 && self.upstream_passes {
            self.interjections.push(bytes);
        } else {
            core.send_client(bytes);
        }
    }

    /// Records what came of a request that was sent.
    fn finished(&mut self, core: &mut Core, running: Running, status: OutcomeStatus) {
        if status != OutcomeStatus::Skipped {
            self.names.ran(running.request, running.effects, status == OutcomeStatus::Failed);
        }
        core.record(running.outcome(status, core.now));
        if self.running.is_empty() {
            self.timed_out = false;
            self.set_deadline(core, false);
        }
    }

    fn set_deadline(&mut self, core: &mut Core, busy: bool) {
        let limits = &core.config.limits;
        let (deadline, after) =
            if busy { (Deadline::Statement, limits.statement_timeout) } else { (Deadline::Idle, limits.idle_timeout) };
        if after.is_some() || self.deadline.is_some() {
            core.actions.push_back(Action::SetDeadline(after));
            self.deadline = after.map(|_| deadline);
        }
    }

    fn deadline_reached(&mut self, core: &mut Core) {
        match self.deadline.take() {
            Some(Deadline::Statement) if !self.running.is_empty() => {
                self.timed_out = true;
                self.cancel_upstream(core);
            }
            Some(Deadline::Idle) if self.running.is_empty() && self.queue.is_empty() => {
                self.end(core, EndReason::IdleTimeout);
            }
            Some(Deadline::Idle) => self.set_deadline(core, false),
            Some(Deadline::Statement) | None => {}
        }
    }

    /// Asks the upstream to cancel what runs there.
    fn cancel_upstream(&mut self, core: &mut Core) {
        let (Some((process, secret)), Some(running)) = (&self.key, self.running.front()) else { return };
        let mut out = BytesMut::new();
        StartupPacket::CancelRequest { process: *process, secret }.encode(&mut out);
        let mut request = BytesMut::new();
        StartupPacket::SslRequest.encode(&mut request);
        let upgrade = TlsUpgrade { request: request.freeze(), accepted: b"S" };
        core.push(Action::CancelUpstream { bytes: out.freeze(), upgrade, permit: running.permit });
    }

    /// The client cancels.
    fn cancel(&mut self, core: &mut Core) {
        if !self.running.is_empty() {
            self.cancel_upstream(core);
            return;
        }
        let Some(held) = self.held_at_front() else { return };
        let detail = reply::detail(core.config.id);
        let error = Reply::error(SqlState::QUERY_CANCELED, "canceling statement due to user request", &detail, "").frame();
        core.push(Action::Withdraw { from: held, through: held });
        if let Some(segment) = self.queue.iter_mut().find(|segment| matches!(segment.gate, Gate::Held(id) if id == held)) {
            segment.gate = Gate::Denied(error);
        }
    }

    /// The gateway ends the session.
    fn end(&mut self, core: &mut Core, reason: EndReason) {
        self.cancel_upstream(core);
        if reason != EndReason::PeerFailed(Peer::Client) {
            self.last_words(core, reply::ended(&reason, core.config.id));
        }
        if reason != EndReason::PeerFailed(Peer::Upstream) {
            self.terminate_upstream(core);
        }
        self.finish(core, CloseReason::Ended(reason));
    }

    /// A FATAL error, unless the client is in the middle of a frame: then it could not be told from data.
    fn last_words(&mut self, core: &mut Core, bytes: Bytes) {
        self.flush_out(core);
        if self.upstream_left == 0 || !self.upstream_passes {
            core.send_client(bytes);
        }
    }

    fn terminate_upstream(&mut self, core: &mut Core) {
        if self.client_left > 0 {
            // In the middle of a CopyData: the end of the connection says it.
            return;
        }
        let mut out = BytesMut::new();
        write(&mut out, ClientTag::TERMINATE.0, |_| {});
        core.push(Action::SendUpstream { bytes: out.freeze(), permit: self.housekeeping });
    }

    /// The client's Terminate was sent.
    fn terminated(&mut self, core: &mut Core) {
        self.finish(core, CloseReason::ClientTerminated);
    }

    fn client_gone(&mut self, core: &mut Core) {
        self.terminate_upstream(core);
        self.finish(core, CloseReason::ClientVanished);
    }

    fn upstream_gone(&mut self, core: &mut Core) {
        if !self.fatal_seen {
            let detail = reply::detail(core.config.id);
            let error = Reply::fatal(
                SqlState::CONNECTION_FAILURE,
                "the target closed the connection",
                &detail,
                "Whether the running statement took effect is not known.",
            );
            self.last_words(core, error.frame());
        }
        self.finish(core, CloseReason::UpstreamClosed);
    }

    fn violated(&mut self, core: &mut Core, error: &Error) {
        if self.done {
            return;
        }
        let (message, reason, by_client) = match error {
            Error::ClientMalformed(malformed) => {
                (malformed.to_string(), CloseReason::ClientViolation(error.to_string().into()), true)
            }
            Error::ClientViolation { got, .. } => {
                (format!("invalid frontend message type {got}"), CloseReason::ClientViolation(error.to_string().into()), true)
            }
            Error::UpstreamMalformed(_) | Error::UpstreamViolation { .. } | Error::UpstreamLimit { .. } => {
                ("the target broke the protocol".to_owned(), CloseReason::UpstreamViolation(error.to_string().into()), false)
            }
        };
        let detail = reply::detail(core.config.id);
        self.last_words(core, Reply::fatal(SqlState::PROTOCOL_VIOLATION, &message, &detail, "").frame());
        if by_client {
            self.terminate_upstream(core);
        }
        self.finish(core, reason);
    }

    /// The end: what was not answered is withdrawn, what runs ends unknown.
    fn finish(&mut self, core: &mut Core, reason: CloseReason) {
        if self.done {
            return;
        }
        self.done = true;
        self.withdraw_all(core);
        while let Some(running) = self.running.pop_front() {
            core.record(running.outcome(OutcomeStatus::Unknown, core.now));
        }
        core.push(Action::Close(reason));
    }
}
