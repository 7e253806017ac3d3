//! What goes upstream, in order: segments of the client's own bytes, each behind the verdict that it needs.
//!
//! A segment leaves as it came. Where a verdict is a denial, something takes its place that fails
//! harmlessly at the server, so that the server itself puts the transaction and the pipeline into the state
//! that its own permission error would have left.

use super::Ready;
use super::names::Sequence;
use super::running::Running;
use crate::message::{ClientMessage, Describe, Parse, Query, Target};
use crate::reply::{self, Reply};
use crate::session::Core;
use crate::types::SqlState;
use bytes::{Bytes, BytesMut};
use proxy_core::pipeline::Permit;
use proxy_core::record::OutcomeStatus;
use proxy_core::session::Answer;
use proxy_core::{Action, CopyShape, Disclosure, RequestId};

/// Name and text of the statement that stands in for a denied one. As SQL it is a syntax error.
const DENIED: &[u8] = b"sallyport_denied";

/// A message that the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Parse that goes with an Execute.
    Parse(Sequence),
    /// Parse that is a request of its own.
    Prepare(Sequence),
    Bind(Sequence),
    Close(Sequence),
    /// Describe of a statement: parameters come first.
    DescribeStatement,
    /// Its second answer.
    DescribeStatementColumns,
    DescribePortal,
    /// Our Describe before an Execute whose columns have rules: its answer is swallowed.
    PortalShape,
    Execute,
    Query,
    FunctionCall,
    Sync,
    /// CopyDone or CopyFail: not answered, but Syncs before it are read by the COPY.
    CopyEnd,
    /// Our Query in place of a denied one.
    DeniedQuery,
    /// Our Parse in place of a denied message.
    DeniedParse,
    /// ReadyForQuery after a query or function call that is settled.
    ReadyAfterQuery,
    /// The description of a COPY's query: swallowed.
    ShapeParse,
    ShapeParameters,
    ShapeColumns,
    ShapeClose,
    ShapeSync,
}

impl Step {
    /// The change of names that its answer settles.
    fn change(self) -> Option<Sequence> {
        match self {
            Self::Parse(sequence) | Self::Prepare(sequence) | Self::Bind(sequence) | Self::Close(sequence) => Some(sequence),
            Self::DescribeStatement
            | Self::DescribeStatementColumns
            | Self::DescribePortal
            | Self::PortalShape
            | Self::Execute
            | Self::Query
            | Self::FunctionCall
            | Self::Sync
            | Self::CopyEnd
            | Self::DeniedQuery
            | Self::DeniedParse
            | Self::ReadyAfterQuery
            | Self::ShapeParse
            | Self::ShapeParameters
            | Self::ShapeColumns
            | Self::ShapeClose
            | Self::ShapeSync => None,
        }
    }

    /// Whether a [`Running`] belongs to it.
    fn runs(self) -> bool {
        matches!(self, Self::Prepare(_) | Self::Execute | Self::Query | Self::FunctionCall)
    }
}

/// The right to send a segment.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) request: RequestId,
    pub(super) permit: Permit,
    pub(super) disclosure: Disclosure,
}

/// What a segment waits for.
#[derive(Debug)]
pub(super) enum Gate {
    /// Nothing: no request is in it.
    Open,
    /// Its request, which is not known yet: a Parse whose Execute may follow.
    Unassigned,
    /// The verdict of the segment before it.
    Follow,
    /// A verdict.
    Awaiting(RequestId),
    /// An approval.
    Held(RequestId),
    /// It may go.
    Permitted(Box<Granted>),
    /// It may not: the error for the client.
    Denied(Bytes),
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// With a message that waits for what follows.
    Middle,
    /// With a Sync.
    Sync,
    /// With a Flush.
    Flush,
    /// It begins with a Parse that is a request of its own.
    Prepare,
    /// With the Execute of this portal, at this place of the batch.
    Execute { portal: Bytes, at: usize },
    /// It is a Query.
    Query,
    /// It is a FunctionCall.
    FunctionCall,
    /// It is a Terminate.
    Terminate,
}

/// A run of the client's bytes within one batch.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) batch: Bytes,
    pub(super) start: usize,
    pub(super) end: usize,
    /// How many of the queued steps are its own.
    pub(super) steps: usize,
    pub(super) gate: Gate,
    pub(super) ends: End,
}

/// Bytes that are put together for one send.
#[derive(Default)]
struct Sending {
    run: Option<(Bytes, usize, usize)>,
    permit: Option<Permit>,
}

impl Sending {
    fn flush(&mut self, core: &mut Core, housekeeping: Permit) {
        if let Some((batch, start, end)) = self.run.take() {
            let permit = self.permit.take().unwrap_or(housekeeping);
            core.push(Action::SendUpstream { bytes: batch.slice(start..end), permit });
        }
        self.permit = None;
    }

    /// Adds a run; what is contiguous and may go under one permit goes as one.
    fn add(&mut self, core: &mut Core, housekeeping: Permit, batch: &Bytes, range: (usize, usize), permit: Option<Permit>) {
        let (start, end) = range;
        if start >= end {
            return;
        }
        let same_right = permit.is_none() || self.permit.is_none() || permit == self.permit;
        match &mut self.run {
            Some((run, _, until)) if same_right && run.as_ptr() == batch.as_ptr() && *until == start => *until = end,
            _ => {
                self.flush(core, housekeeping);
                self.run = Some((batch.clone(), start, end));
            }
        }
        if permit.is_some() {
            self.permit = permit;
        }
    }
}

impl Ready {
    /// Sends what may go.
    pub(super) fn pump(&mut self, core: &mut Core) {
        let mut sending = Sending::default();
        while self.shape.is_none() && !self.done {
            let Some(front) = self.queue.front() else { break };
            match &front.gate {
                Gate::Unassigned | Gate::Awaiting(_) | Gate::Held(_) => break,
                // What belongs to a request goes with it: one write, not two.
                Gate::Open if front.ends == End::Middle && self.next_waits() => break,
                Gate::Denied(_) => {
                    sending.flush(core, self.housekeeping);
                    self.deny_front(core);
                }
                Gate::Permitted(granted) if needs_shape(granted) => {
                    sending.flush(core, self.housekeeping);
                    if !self.begin_shape(core) {
                        break;
                    }
                }
                Gate::Open | Gate::Follow | Gate::Permitted(_) => self.send_front(core, &mut sending),
            }
        }
        sending.flush(core, self.housekeeping);
    }

    fn next_waits(&self) -> bool {
        self.queue
            .iter()
            .skip(1)
            .find(|next| !matches!(next.gate, Gate::Open) || next.ends != End::Middle)
            .is_some_and(|next| matches!(next.gate, Gate::Unassigned | Gate::Awaiting(_) | Gate::Held(_)))
    }

    fn send_front(&mut self, core: &mut Core, sending: &mut Sending) {
        let Some(segment) = self.queue.pop_front() else { return };
        self.queued_bytes = self.queued_bytes.saturating_sub(segment.end.saturating_sub(segment.start));
        let permit = match segment.gate {
            Gate::Permitted(granted) => {
                let permit = granted.permit;
                self.granted = Some(granted);
                Some(permit)
            }
            Gate::Follow => self.granted.as_ref().map(|granted| granted.permit),
            Gate::Open | Gate::Unassigned | Gate::Awaiting(_) | Gate::Held(_) | Gate::Denied(_) => None,
        };
        let mut from = segment.start;
        let mut shape = false;
        if let End::Execute { portal, at } = &segment.ends
            && self.granted.as_ref().is_some_and(|granted| granted.disclosure.rules.is_some())
        {
            // Never trust an older description: plans are made anew.
            sending.add(core, self.housekeeping, &segment.batch, (segment.start, *at), permit);
            sending.flush(core, self.housekeeping);
            let mut out = BytesMut::new();
            Describe { target: Target::Portal, name: portal }.encode(&mut out);
            core.push(Action::SendUpstream { bytes: out.freeze(), permit: permit.unwrap_or(self.housekeeping) });
            from = *at;
            shape = true;
        }
        sending.add(core, self.housekeeping, &segment.batch, (from, segment.end), permit);
        self.flushed = matches!(segment.ends, End::Sync | End::Query | End::FunctionCall | End::Flush);
        self.expect_steps(core, segment.steps, &segment.ends, shape);
        if segment.ends == End::Terminate {
            sending.flush(core, self.housekeeping);
            self.terminated(core);
        }
    }

    /// Moves a sent segment's steps to what is expected, and starts its request.
    fn expect_steps(&mut self, core: &mut Core, steps: usize, ends: &End, shape: bool) {
        for index in 0..steps {
            let Some(step) = self.queued_steps.pop_front() else { return };
            let mut step = step;
            if index == 0
                && *ends == End::Prepare
                && let Step::Parse(sequence) = step
            {
                step = Step::Prepare(sequence);
            }
            if step.runs()
                && let Some(granted) = self.granted.take()
            {
                if self.running.is_empty() {
                    self.set_deadline(core, true);
                }
                self.running.push_back(Running::new(granted.request, granted.permit, granted.disclosure, core.now));
            }
            if step == Step::Execute && shape {
                self.expect.push_back(Step::PortalShape);
            }
            if step == Step::Sync && self.copy_reads_syncs() {
                self.swallowed_syncs = self.swallowed_syncs.saturating_add(1);
                continue;
            }
            self.expect.push_back(step);
        }
    }

    /// Whether the upstream is in a COPY from the client, whose end was not sent: it reads over Syncs.
    fn copy_reads_syncs(&self) -> bool {
        let copying = self.running.front().is_some_and(|running| matches!(running.copying, super::running::Copying::In));
        copying && !self.expect.contains(&Step::CopyEnd)
    }

    /// A verdict has come.
    pub(super) fn verdict(&mut self, core: &mut Core, request: RequestId, verdict: Answer) {
        let waits = |segment: &&mut Segment| matches!(segment.gate, Gate::Awaiting(id) | Gate::Held(id) if id == request);
        let Some(segment) = self.queue.iter_mut().find(waits) else {
            // It was withdrawn meanwhile. If it is recorded as permitted, it is recorded that it never ran.
            if let Answer::Permitted { permit, disclosure } = verdict {
                let running = Running::new(request, permit, disclosure, core.now);
                core.record(running.outcome(OutcomeStatus::Skipped, core.now));
            }
            return;
        };
        match verdict {
            Answer::Permitted { permit, disclosure } => {
                segment.gate = Gate::Permitted(Box::new(Granted { request, permit, disclosure }));
                self.refuse_unshaped_copy(core, request);
            }
            Answer::Held(notice) => {
                segment.gate = Gate::Held(request);
                self.interject(core, reply::held(&notice));
            }
            Answer::Denied(denial) => segment.gate = Gate::Denied(reply::denial(reply::Severity::Error, &denial)),
        }
    }

    /// In the extended protocol a COPY's query cannot be described before it runs: refused.
    fn refuse_unshaped_copy(&mut self, core: &mut Core, request: RequestId) {
        let this = |segment: &&mut Segment| matches!(&segment.gate, Gate::Permitted(granted) if granted.request == request);
        let Some(segment) = self.queue.iter_mut().find(this) else { return };
        let Gate::Permitted(granted) = &segment.gate else { return };
        if segment.ends == End::Query || !needs_shape(granted) {
            return;
        }
        let detail = reply::detail(core.config.id);
        let error = Reply::error(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "the gateway cannot mask this COPY in the extended query protocol",
            &detail,
            "Send COPY as a simple query, or name the columns of one table: COPY table (column, ...) TO STDOUT.",
        );
        let gate = std::mem::replace(&mut segment.gate, Gate::Denied(error.frame()));
        if let Gate::Permitted(granted) = gate {
            let mut running = Running::new(granted.request, granted.permit, granted.disclosure, core.now);
            running.refused = true;
            core.record(running.outcome(OutcomeStatus::Refused, core.now));
        }
    }

    /// Puts a harmless failure in the place of the segment at the front, whose request is denied.
    fn deny_front(&mut self, core: &mut Core) {
        let Some(Segment { gate: Gate::Denied(error), ends, .. }) = self.queue.front() else { return };
        let (error, simple) = (error.clone(), matches!(ends, End::Query | End::FunctionCall));
        self.denials.push_back(error);
        let mut out = BytesMut::new();
        if simple {
            Query { text: DENIED }.encode(&mut out);
            self.drop_front();
            self.expect.push_back(Step::DeniedQuery);
            self.flushed = true;
        } else {
            Parse { name: DENIED, query: DENIED, types: Vec::new() }.encode(&mut out);
            self.drop_until_sync(core);
            self.expect.push_back(Step::DeniedParse);
            if self.skip {
                // The client may wait for the error before it sends its Sync.
                ClientMessage::Flush.encode(&mut out);
            }
            self.flushed = self.skip;
        }
        core.push(Action::SendUpstream { bytes: out.freeze(), permit: self.housekeeping });
    }

    /// Drops the segment at the front with its steps; gives its gate.
    pub(super) fn drop_front(&mut self) -> Option<Gate> {
        let segment = self.queue.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(segment.end.saturating_sub(segment.start));
        for _ in 0..segment.steps {
            if let Some(sequence) = self.queued_steps.pop_front().and_then(Step::change) {
                self.names.abandon(sequence);
            }
        }
        Some(segment.gate)
    }

    /// Drops what the server would skip: everything up to the next Sync. What is still to come from the
    /// client is dropped too.
    pub(super) fn drop_until_sync(&mut self, core: &mut Core) {
        let mut withdrawn: Option<(RequestId, RequestId)> = None;
        while let Some(front) = self.queue.front() {
            if matches!(front.ends, End::Sync | End::Terminate) {
                break;
            }
            match self.drop_front() {
                Some(Gate::Awaiting(id) | Gate::Held(id)) => {
                    withdrawn = Some((withdrawn.map_or(id, |(first, _)| first), id));
                }
                Some(Gate::Permitted(granted)) => {
                    let running = Running::new(granted.request, granted.permit, granted.disclosure, core.now);
                    core.record(running.outcome(OutcomeStatus::Skipped, core.now));
                }
                Some(Gate::Open | Gate::Unassigned | Gate::Follow | Gate::Denied(_)) | None => {}
            }
        }
        if let Some((from, through)) = withdrawn {
            core.push(Action::Withdraw { from, through });
        }
        if self.queue.is_empty() {
            self.parsed = None;
            self.skip = true;
        }
    }

    /// Takes back everything that is not sent: the session ends.
    pub(super) fn withdraw_all(&mut self, core: &mut Core) {
        while let Some(front) = self.queue.front_mut() {
            if matches!(front.ends, End::Sync | End::Terminate) {
                front.ends = End::Middle;
            }
            self.drop_until_sync(core);
        }
    }

    /// The upstream answered everything up to a failure in the extended protocol: it skips to the next Sync.
    pub(super) fn fail_pipeline(&mut self, core: &mut Core, code: &[u8]) {
        let mut own = true;
        while let Some(step) = self.expect.front().copied() {
            if matches!(step, Step::Sync | Step::ShapeSync) {
                return;
            }
            self.expect.pop_front();
            if let Some(sequence) = step.change() {
                self.names.abandon(sequence);
            }
            if matches!(step, Step::DeniedParse | Step::DeniedQuery) {
                self.denials.pop_front();
            }
            if step.runs()
                && let Some(mut running) = self.running.pop_front()
            {
                let status = if own { OutcomeStatus::Failed } else { OutcomeStatus::Skipped };
                if own {
                    running.fail(code);
                }
                self.finished(core, running, status);
            }
            // A failed Parse, Bind or Describe is the failure of the Execute that it was for.
            own &= !step.runs();
        }
        self.drop_until_sync(core);
    }

    /// The verdicts that are awaited: `true` for one that is held and at the front.
    pub(super) fn held_at_front(&self) -> Option<RequestId> {
        self.queue.iter().find_map(|segment| match segment.gate {
            Gate::Held(id) => Some(Some(id)),
            Gate::Awaiting(_) | Gate::Permitted(_) | Gate::Denied(_) => Some(None),
            Gate::Open | Gate::Unassigned | Gate::Follow => None,
        })?
    }

    /// The oldest request that is not answered.
    pub(super) fn oldest_request(&self) -> Option<RequestId> {
        self.running.front().map(|running| running.request).or_else(|| {
            self.queue.iter().find_map(|segment| match &segment.gate {
                Gate::Awaiting(id) | Gate::Held(id) => Some(*id),
                Gate::Permitted(granted) => Some(granted.request),
                Gate::Open | Gate::Unassigned | Gate::Follow | Gate::Denied(_) => None,
            })
        })
    }
}

/// Whether a COPY's query must be described before the statement goes.
pub(super) fn needs_shape(granted: &Granted) -> bool {
    granted.disclosure.rules.is_some() && matches!(granted.disclosure.copy, CopyShape::Describe { .. })
}
