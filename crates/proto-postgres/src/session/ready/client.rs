//! What the client sends, in the ready state: messages → requests and segments.

use super::Ready;
use super::names::{Found, Portal, Prepared, Source};
use super::queue::{End, Gate, Segment, Step};
use super::refused::Why;
use crate::error::{Error, Malformed};
use crate::facts::{self, NameEffects};
use crate::frame::{HEADER, make_room, peek, slice_of};
use crate::limits::{PREPARED_BYTES_MAX, QUEUED_BYTES_MAX, STEPS_PER_REQUEST};
use crate::message::{BindLayout, Close, Describe, Execute, FunctionCall, Parse, Query, Target, only_cstr};
use crate::session::Core;
use crate::types::ClientTag;
use bytes::{Buf, Bytes, BytesMut};
use proxy_core::{Action, Request, RequestId, RequestKind, Statement};
use std::sync::Arc;

/// A Parse whose Execute may follow and share its request.
#[derive(Debug)]
pub(super) struct Parsed {
    name: Bytes,
    prepared: Arc<Prepared>,
}

/// One frame within a batch.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Whether a message was taken.
#[derive(PartialEq, Eq)]
enum Taken {
    Yes,
    /// It must wait for answers.
    NotYet,
}

impl Ready {
    /// Takes what can be taken from the client's buffer.
    pub(super) fn client_bytes(&mut self, core: &mut Core, buffer: &mut BytesMut) -> Result<(), Error> {
        loop {
            self.take_batch(core)?;
            if !self.batch.is_empty() || self.done {
                return Ok(());
            }
            if self.client_left > 0 {
                if !self.stream_copy(core, buffer) {
                    return Ok(());
                }
                continue;
            }
            if !self.take_oversized(core, buffer) {
                return Ok(());
            }
            if self.discard_left > 0 {
                let n = self.discard_left.min(buffer.len());
                buffer.advance(n);
                self.discard_left = self.discard_left.saturating_sub(n);
                if self.discard_left > 0 {
                    return Ok(());
                }
            }
            if !self.next_batch(core, buffer)? {
                return Ok(());
            }
        }
    }

    /// Looks at the front of the buffer: splits off whole frames, or begins to stream a long one. `false`:
    /// nothing can be taken now.
    fn next_batch(&mut self, core: &mut Core, buffer: &mut BytesMut) -> Result<bool, Error> {
        let limit = core.config.limits.message_max.saturating_add(HEADER);
        let mut extent = 0usize;
        while let Some(rest) = buffer.get(extent..) {
            let Some(header) = peek(rest).map_err(Error::ClientMalformed)? else { break };
            let tag = ClientTag(header.tag);
            if tag.name().is_none() || tag == ClientTag::PASSWORD {
                return Err(Error::ClientViolation { state: "ready", got: header.tag });
            }
            let copy = matches!(tag, ClientTag::COPY_DATA | ClientTag::COPY_DONE | ClientTag::COPY_FAIL);
            if (copy || header.total > limit) && extent > 0 {
                break;
            }
            if tag == ClientTag::COPY_DATA {
                return Ok(self.begin_copy_data(buffer, header.total));
            }
            if header.total > limit {
                return self.oversized(buffer, tag, header.total).map(|()| true);
            }
            let end = extent.saturating_add(header.total);
            if buffer.len() < end {
                if extent == 0 {
                    make_room(buffer, header.total);
                }
                break;
            }
            if copy {
                return self.copy_end(core, buffer, header.total);
            }
            extent = end;
        }
        if extent == 0 {
            return Ok(false);
        }
        self.batch = buffer.split_to(extent).freeze();
        self.batch_at = 0;
        Ok(true)
    }

    /// Takes the batch's messages until it is used up or one must wait.
    pub(super) fn take_batch(&mut self, core: &mut Core) -> Result<(), Error> {
        let batch = self.batch.clone();
        while !self.batch.is_empty() && !self.done {
            let rest = batch.get(self.batch_at..).unwrap_or_default();
            let Some(header) = peek(rest).map_err(Error::ClientMalformed)? else {
                self.batch = Bytes::new();
                return Ok(());
            };
            let span = Span { start: self.batch_at, end: self.batch_at.saturating_add(header.total) };
            if self.message(core, &batch, ClientTag(header.tag), span)? == Taken::NotYet {
                return Ok(());
            }
            self.batch_at = span.end;
        }
        Ok(())
    }

    fn message(&mut self, core: &mut Core, batch: &[u8], tag: ClientTag, span: Span) -> Result<Taken, Error> {
        let body = batch.get(span.start.saturating_add(HEADER)..span.end).unwrap_or_default();
        if self.skip && !matches!(tag, ClientTag::SYNC | ClientTag::TERMINATE) {
            return Ok(Taken::Yes);
        }
        if self.is_full(core) {
            // A lone Parse at the end of a long pipeline must not wait for an Execute that cannot come in.
            self.settle_parsed(core);
            return Ok(Taken::NotYet);
        }
        let taken = match tag {
            ClientTag::QUERY => self.query(core, body, span),
            ClientTag::PARSE => self.parse(core, body, span),
            ClientTag::BIND => self.bind(core, body, span),
            ClientTag::EXECUTE => self.execute(core, body, span),
            ClientTag::DESCRIBE => Describe::parse(body).map(|describe| {
                let step = match describe.target {
                    Target::Statement => Step::DescribeStatement,
                    Target::Portal => Step::DescribePortal,
                };
                self.append(span, Some(step), End::Middle)
            }),
            ClientTag::CLOSE => Close::parse(body).map(|close| self.close(close, span)),
            ClientTag::FUNCTION_CALL => self.function_call(core, body, span),
            ClientTag::SYNC | ClientTag::FLUSH | ClientTag::TERMINATE => {
                crate::frame::Reader::new(body).end().map(|()| self.barrier(core, tag, span))
            }
            _ => return Err(Error::ClientViolation { state: "ready", got: tag.0 }),
        };
        taken.map_err(Error::ClientMalformed)
    }

    /// Whether as much is under way as may be.
    fn is_full(&self, core: &Core) -> bool {
        let requests = core.config.limits.pipeline_max;
        let steps = self.expect.len().saturating_add(self.queued_steps.len());
        self.running.len().saturating_add(self.waiting()) >= requests
            || steps >= requests.saturating_mul(STEPS_PER_REQUEST)
            || self.queued_bytes >= QUEUED_BYTES_MAX
    }

    fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn query(&mut self, core: &mut Core, body: &[u8], span: Span) -> Result<Taken, Malformed> {
        let query = Query::parse(body)?;
        self.settle_parsed(core);
        let text = slice_of(&self.batch, query.text);
        let id = self.next_request();
        self.push(span, Some(Step::Query), Gate::Awaiting(id), End::Query);
        let statement = match Why::unread(&self.dialect, &core.config.limits, text.len()) {
            Some(why) => why.of(&text),
            None => {
                self.names.will_run(id, NameEffects::of_text(query.text));
                Statement::Sql(text)
            }
        };
        core.decide(facts::request(id, RequestKind::Query, statement));
        Ok(Taken::Yes)
    }

    fn function_call(&mut self, core: &mut Core, body: &[u8], span: Span) -> Result<Taken, Malformed> {
        let call = FunctionCall::parse(body)?;
        self.settle_parsed(core);
        let id = self.next_request();
        let request = facts::function_call(id, &call, &self.batch);
        self.push(span, Some(Step::FunctionCall), Gate::Awaiting(id), End::FunctionCall);
        core.decide(request);
        Ok(Taken::Yes)
    }

    fn parse(&mut self, core: &mut Core, body: &[u8], span: Span) -> Result<Taken, Malformed> {
        let parse = Parse::parse(body)?;
        self.settle_parsed(core);
        let too_many = self.names.len() >= core.config.limits.prepared_max
            || self.names.bytes().saturating_add(parse.query.len()) > PREPARED_BYTES_MAX;
        let refused = Why::unread(&self.dialect, &core.config.limits, parse.query.len())
            .or_else(|| too_many.then(|| Why::memory("prepared statements")));
        if let Some(why) = refused {
            let refused = why.of(&slice_of(&self.batch, parse.query));
            self.refuse_message(core, span, RequestKind::Prepare, refused);
            return Ok(Taken::Yes);
        }
        let prepared = Arc::new(Prepared {
            text: Bytes::copy_from_slice(parse.query),
            types: parse.types,
            effects: NameEffects::of_text(parse.query),
        });
        let name = Bytes::copy_from_slice(parse.name);
        let sequence = self.names.parse(name.clone(), prepared.clone());
        self.push(span, Some(Step::Parse(sequence)), Gate::Unassigned, End::Middle);
        self.parsed = Some(Parsed { name, prepared });
        Ok(Taken::Yes)
    }

    fn bind(&mut self, core: &mut Core, body: &[u8], span: Span) -> Result<Taken, Malformed> {
        let BindLayout { portal, statement, .. } = BindLayout::check(body)?;
        let source = match self.names.statement(statement) {
            Found::Known(prepared) => Source::Known(prepared),
            Found::Unknown => Source::Named(Bytes::copy_from_slice(statement)),
            Found::Unsettled => return Ok(Taken::NotYet),
        };
        if self.names.len() >= core.config.limits.prepared_max {
            let text = match source {
                Source::Known(prepared) => prepared.text.clone(),
                Source::Named(name) => name,
            };
            self.settle_parsed(core);
            self.refuse_message(core, span, RequestKind::Execute, Why::memory("portals").of(&text));
            return Ok(Taken::Yes);
        }
        let bind = self.batch.slice(span.start..span.end);
        let name = if portal.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(portal) };
        let sequence = self.names.bind(name, Arc::new(Portal { source, bind }));
        Ok(self.append(span, Some(Step::Bind(sequence)), End::Middle))
    }

    fn close(&mut self, close: Close<'_>, span: Span) -> Taken {
        let name = Bytes::copy_from_slice(close.name);
        let sequence = match close.target {
            Target::Statement => self.names.close_statement(name),
            Target::Portal => self.names.close_portal(name),
        };
        self.append(span, Some(Step::Close(sequence)), End::Middle)
    }

    fn execute(&mut self, core: &mut Core, body: &[u8], span: Span) -> Result<Taken, Malformed> {
        let execute = Execute::parse(body)?;
        let portal = match self.names.portal(execute.portal) {
            Found::Known(portal) => Some(portal),
            Found::Unknown => None,
            Found::Unsettled => return Ok(Taken::NotYet),
        };
        let shared = self.parsed.take_if(|parsed| match portal.as_deref() {
            Some(Portal { source: Source::Known(prepared), .. }) => Arc::ptr_eq(prepared, &parsed.prepared),
            Some(Portal { source: Source::Named(_), .. }) | None => false,
        });
        if shared.is_none() {
            self.settle_parsed(core);
        }
        let id = self.next_request();
        let name = Bytes::copy_from_slice(execute.portal);
        let mut request = self.execute_request(id, portal.as_deref(), &name)?;
        let ends = End::Execute { portal: name, at: span.start };
        match shared {
            Some(parsed) => {
                request.prepared_as = Some(parsed.name);
                self.assign(Gate::Awaiting(id));
                self.append(span, Some(Step::Execute), ends);
            }
            None => self.push(span, Some(Step::Execute), Gate::Awaiting(id), ends),
        }
        core.decide(request);
        Ok(Taken::Yes)
    }

    fn execute_request(&mut self, id: RequestId, portal: Option<&Portal>, name: &Bytes) -> Result<Request, Malformed> {
        let (statement, parameters) = match portal {
            Some(Portal { source: Source::Known(prepared), bind }) => {
                self.names.will_run(id, prepared.effects);
                let body = bind.get(HEADER..).unwrap_or_default();
                let parameters = facts::parameters(&BindLayout::check(body)?, &prepared.types, bind)?;
                (Statement::Sql(prepared.text.clone()), parameters)
            }
            Some(Portal { source: Source::Named(statement), bind }) => {
                let body = bind.get(HEADER..).unwrap_or_default();
                let parameters = facts::parameters(&BindLayout::check(body)?, &[], bind)?;
                (Statement::Named { cursor: false, name: statement.clone() }, parameters)
            }
            None => (Statement::Named { cursor: true, name: name.clone() }, Vec::new()),
        };
        let mut request = facts::request(id, RequestKind::Execute, statement);
        request.portal = Some(name.clone());
        request.parameters = parameters;
        Ok(request)
    }

    /// Sync, Flush and Terminate.
    fn barrier(&mut self, core: &mut Core, tag: ClientTag, span: Span) -> Taken {
        self.settle_parsed(core);
        match tag {
            ClientTag::SYNC => {
                self.skip = false;
                self.names.sync();
                self.push(span, Some(Step::Sync), Gate::Open, End::Sync);
            }
            ClientTag::FLUSH => self.push(span, None, Gate::Open, End::Flush),
            _ => self.push(span, None, Gate::Open, End::Terminate),
        }
        Taken::Yes
    }

    pub(super) fn next_request(&mut self) -> RequestId {
        self.last_request = self.last_request.saturating_add(1);
        RequestId(self.last_request)
    }

    /// The Parse that waited for its Execute gets a request of its own.
    pub(super) fn settle_parsed(&mut self, core: &mut Core) {
        let Some(parsed) = self.parsed.take() else { return };
        let id = self.next_request();
        if let Some(leader) = self.queue.iter_mut().rev().find(|segment| matches!(segment.gate, Gate::Unassigned)) {
            leader.ends = End::Prepare;
        }
        self.assign(Gate::Awaiting(id));
        let mut request = facts::request(id, RequestKind::Prepare, Statement::Sql(parsed.prepared.text.clone()));
        request.prepared_as = Some(parsed.name);
        core.decide(request);
    }

    fn assign(&mut self, gate: Gate) {
        if let Some(leader) = self.queue.iter_mut().rev().find(|segment| matches!(segment.gate, Gate::Unassigned)) {
            leader.gate = gate;
        }
    }

    /// Adds a message that needs no verdict of its own to the last segment, or begins one.
    fn append(&mut self, span: Span, step: Option<Step>, ends: End) -> Taken {
        let (batch, steps) = (&self.batch, usize::from(step.is_some()));
        let open = match self.queue.back_mut() {
            Some(last) if last.ends == End::Middle => {
                let joins = last.end == span.start && last.batch.as_ptr() == batch.as_ptr();
                let takes = match last.gate {
                    Gate::Open => ends == End::Middle,
                    Gate::Unassigned | Gate::Follow | Gate::Awaiting(_) => true,
                    Gate::Held(_) | Gate::Permitted(_) | Gate::Denied(_) => false,
                };
                if joins && takes {
                    last.end = span.end;
                    last.steps = last.steps.saturating_add(steps);
                    last.ends = ends;
                    self.queued_bytes = self.queued_bytes.saturating_add(span.end.saturating_sub(span.start));
                    self.queued_steps.extend(step);
                    return Taken::Yes;
                }
                takes && !matches!(last.gate, Gate::Open)
            }
            Some(_) | None => false,
        };
        let gate = if open { Gate::Follow } else { Gate::Open };
        self.push(span, step, gate, ends);
        Taken::Yes
    }

    pub(super) fn push(&mut self, span: Span, step: Option<Step>, gate: Gate, ends: End) {
        self.queued_bytes = self.queued_bytes.saturating_add(span.end.saturating_sub(span.start));
        let steps = usize::from(step.is_some());
        self.queued_steps.extend(step);
        let Span { start, end } = span;
        self.queue.push_back(Segment { batch: self.batch.clone(), start, end, steps, gate, ends });
    }

    /// CopyData goes through in order, behind everything that was asked before it.
    fn begin_copy_data(&mut self, buffer: &mut BytesMut, total: usize) -> bool {
        if !self.queue.is_empty() || self.shape.is_some() {
            return false;
        }
        if self.skip {
            self.discard_left = total;
            return !buffer.is_empty();
        }
        self.client_left = total;
        true
    }

    /// Passes what is there of CopyData frames. `false`: no more is there.
    fn stream_copy(&mut self, core: &mut Core, buffer: &mut BytesMut) -> bool {
        let mut pass = 0usize;
        loop {
            let n = self.client_left.min(buffer.len().saturating_sub(pass));
            pass = pass.saturating_add(n);
            self.client_left = self.client_left.saturating_sub(n);
            if self.client_left > 0 {
                break;
            }
            match peek(buffer.get(pass..).unwrap_or_default()) {
                Ok(Some(header)) if ClientTag(header.tag) == ClientTag::COPY_DATA => self.client_left = header.total,
                Ok(_) | Err(_) => break,
            }
        }
        if pass > 0 {
            let permit = self.copy_permit();
            core.push(Action::SendUpstream { bytes: buffer.split_to(pass).freeze(), permit });
        }
        self.client_left == 0
    }

    /// CopyData goes under the permit of the request that was sent last: the COPY, if there is one. Outside
    /// a COPY the server ignores it.
    fn copy_permit(&self) -> proxy_core::pipeline::Permit {
        self.running.back().map_or(self.housekeeping, |running| running.permit)
    }

    /// CopyDone and CopyFail.
    fn copy_end(&mut self, core: &mut Core, buffer: &mut BytesMut, total: usize) -> Result<bool, Error> {
        if !self.queue.is_empty() || self.shape.is_some() {
            return Ok(false);
        }
        let frame = buffer.split_to(total).freeze();
        let body = frame.get(HEADER..).unwrap_or_default();
        let checked = if frame.first() == Some(&ClientTag::COPY_DONE.0) {
            crate::frame::Reader::new(body).end()
        } else {
            only_cstr(body).map(|_| ())
        };
        checked.map_err(Error::ClientMalformed)?;
        if self.skip {
            return Ok(true);
        }
        if !self.running.is_empty() {
            self.expect.push_back(Step::CopyEnd);
        }
        core.push(Action::SendUpstream { bytes: frame, permit: self.copy_permit() });
        Ok(true)
    }
}
