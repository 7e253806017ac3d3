//! What the upstream sends, in the ready state: each frame is matched against what was asked, and passes,
//! is rewritten, replaced or swallowed.
//!
//! While frames pass they are only walked: the bytes at the front of the read buffer that pass are counted,
//! and leave as one slice.

use super::queue::{Gate, Segment, Step};
use super::rows::{self, Ruled};
use super::running::{Copying, Running};
use super::{Ready, Shape};
use crate::copy::{self, Rewriter};
use crate::error::{Error, Malformed};
use crate::frame::{HEADER, Header, Reader, make_room, peek};
use crate::limits::{CONTROL_MESSAGE_MAX, COPY_ALONG_MAX, REFUSED_BEFORE_CANCEL};
use crate::message::{CopyResponse, ErrorFields, ParameterStatus, RowDescription, TransactionStatus, only_cstr};
use crate::reply::{self, Reply};
use crate::session::Core;
use crate::types::{SqlState, UpstreamTag};
use bytes::{Buf, Bytes, BytesMut};
use proxy_core::record::OutcomeStatus;
use proxy_core::{Action, ColumnRule, CopyShape, Origin};

/// What becomes of a frame.
#[derive(Debug)]
enum Fate {
    /// It leaves as it came.
    Pass,
    /// It was ours to hear.
    Swallow,
    /// This leaves in its place.
    Replace(Bytes),
}

/// Whether there is more to do in the buffer.
enum Walk {
    On,
    /// The next frame is not there yet.
    Short,
}

/// The bytes at the front of the buffer that pass and are not sent yet.
struct Passing {
    bytes: usize,
}

fn violation(tag: UpstreamTag) -> Error {
    Error::UpstreamViolation { state: "ready", got: tag.0 }
}

impl Ready {
    /// Takes what can be taken from the upstream's buffer.
    pub(super) fn upstream_bytes(&mut self, core: &mut Core, buffer: &mut BytesMut) -> Result<(), Error> {
        let mut passing = Passing { bytes: 0 };
        let result = self.walk(core, buffer, &mut passing);
        self.flush_passing(core, buffer, &mut passing);
        self.flush_out(core);
        result
    }

    fn walk(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing) -> Result<(), Error> {
        while !self.done {
            let walk =
                if self.upstream_left > 0 { self.stream(core, buffer, passing) } else { self.next_frame(core, buffer, passing)? };
            if matches!(walk, Walk::Short) {
                break;
            }
        }
        Ok(())
    }

    /// Goes on with a frame that streams.
    fn stream(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing) -> Walk {
        let n = self.upstream_left.min(buffer.len().saturating_sub(passing.bytes));
        if n == 0 {
            return Walk::Short;
        }
        if self.upstream_passes {
            self.flush_out(core);
            passing.bytes = passing.bytes.saturating_add(n);
            if let Some(running) = self.running.front_mut() {
                running.passed_bytes(n);
            }
        } else {
            self.swallow(core, n);
            self.drop_bytes(core, buffer, passing, n);
        }
        self.upstream_left = self.upstream_left.saturating_sub(n);
        if self.upstream_left == 0 && !self.interjections.is_empty() {
            self.flush_passing(core, buffer, passing);
            self.flush_out(core);
            for bytes in std::mem::take(&mut self.interjections) {
                core.send_client(bytes);
            }
        }
        Walk::On
    }

    fn next_frame(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing) -> Result<Walk, Error> {
        let rest = buffer.get(passing.bytes..).unwrap_or_default();
        let Some(header) = peek(rest).map_err(Error::UpstreamMalformed)? else { return Ok(Walk::Short) };
        let tag = UpstreamTag(header.tag);
        while self.expect.front() == Some(&Step::CopyEnd) {
            self.expect.pop_front();
        }
        match tag {
            UpstreamTag::DATA_ROW => self.rows(core, buffer, passing, header),
            UpstreamTag::COPY_DATA => self.copy_data(core, buffer, passing, header),
            UpstreamTag::NOTICE_RESPONSE
            | UpstreamTag::NOTIFICATION_RESPONSE
            | UpstreamTag::PARAMETER_DESCRIPTION
            | UpstreamTag::FUNCTION_CALL_RESPONSE
                if self.streams(tag) =>
            {
                if tag == UpstreamTag::PARAMETER_DESCRIPTION {
                    self.replace_front(Step::DescribeStatement, Step::DescribeStatementColumns, tag)?;
                } else if tag == UpstreamTag::FUNCTION_CALL_RESPONSE {
                    self.function_result(tag)?;
                }
                self.begin_stream(header, !self.refusing || tag == UpstreamTag::NOTIFICATION_RESPONSE);
                Ok(Walk::On)
            }
            _ => self.whole_frame(core, buffer, passing, header),
        }
    }

    /// Whether a frame of this type may pass without being read.
    fn streams(&self, tag: UpstreamTag) -> bool {
        match tag {
            UpstreamTag::NOTICE_RESPONSE => !self.running.front().is_some_and(|running| running.disclosure.withhold_messages),
            UpstreamTag::FUNCTION_CALL_RESPONSE => !self.has_rules(),
            UpstreamTag::PARAMETER_DESCRIPTION => self.expect.front() == Some(&Step::DescribeStatement),
            _ => true,
        }
    }

    fn has_rules(&self) -> bool {
        self.running.front().is_some_and(|running| running.disclosure.rules.is_some())
    }

    fn begin_stream(&mut self, header: Header, passes: bool) {
        self.upstream_left = header.total;
        self.upstream_passes = passes;
    }

    /// A frame that must be understood, or is small: held whole.
    fn whole_frame(
        &mut self,
        core: &mut Core,
        buffer: &mut BytesMut,
        passing: &mut Passing,
        header: Header,
    ) -> Result<Walk, Error> {
        if header.total > CONTROL_MESSAGE_MAX {
            return Err(Error::UpstreamLimit { got: header.tag, length: header.total, limit: CONTROL_MESSAGE_MAX });
        }
        let end = passing.bytes.saturating_add(header.total);
        let Some(frame) = buffer.get(passing.bytes..end) else {
            self.flush_passing(core, buffer, passing);
            make_room(buffer, header.total);
            return Ok(Walk::Short);
        };
        let body = frame.get(HEADER..).unwrap_or_default();
        // The bytes of the frame belong to the request that it ends.
        let counted = self.running.front_mut().map(|running| {
            running.passed_bytes(header.total);
            running.request
        });
        let fate = self.understand(core, UpstreamTag(header.tag), body)?;
        if !matches!(fate, Fate::Pass)
            && let Some(running) = self.running.front_mut()
            && Some(running.request) == counted
        {
            running.bytes = running.bytes.saturating_sub(header.total as u64);
        }
        match fate {
            Fate::Pass => self.pass(core, buffer, passing, header.total),
            Fate::Swallow => self.drop_bytes(core, buffer, passing, header.total),
            Fate::Replace(bytes) => {
                self.drop_bytes(core, buffer, passing, header.total);
                self.out.extend_from_slice(&bytes);
            }
        }
        Ok(Walk::On)
    }

    /// Lets `n` bytes at the reader's place pass, in order with rewritten ones.
    fn pass(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing, n: usize) {
        if self.out.is_empty() {
            passing.bytes = passing.bytes.saturating_add(n);
        } else if n <= COPY_ALONG_MAX {
            self.out.extend_from_slice(buffer.get(..n).unwrap_or_default());
            buffer.advance(n.min(buffer.len()));
        } else {
            self.flush_out(core);
            passing.bytes = passing.bytes.saturating_add(n);
        }
    }

    /// Drops `n` bytes at the reader's place; what passes before them is kept in order.
    fn drop_bytes(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing, n: usize) {
        self.settle_passing(core, buffer, passing);
        buffer.advance(n.min(buffer.len()));
    }

    /// Makes rewritten bytes follow those that pass: short ones are copied, long ones leave by themselves.
    fn settle_passing(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing) {
        if passing.bytes == 0 {
            return;
        }
        if passing.bytes <= COPY_ALONG_MAX {
            self.out.extend_from_slice(buffer.get(..passing.bytes).unwrap_or_default());
            buffer.advance(passing.bytes);
            passing.bytes = 0;
        } else {
            self.flush_passing(core, buffer, passing);
        }
    }

    fn flush_passing(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing) {
        if passing.bytes > 0 {
            core.send_client(buffer.split_to(passing.bytes).freeze());
            passing.bytes = 0;
        }
    }

    pub(super) fn flush_out(&mut self, core: &mut Core) {
        if !self.out.is_empty() {
            core.send_client(self.out.split().freeze());
        }
    }

    // Rows.

    fn rows(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing, header: Header) -> Result<Walk, Error> {
        let tag = UpstreamTag::DATA_ROW;
        if !matches!(self.expect.front(), Some(Step::Query | Step::Execute)) {
            return Err(violation(tag));
        }
        let Some(running) = self.running.front_mut() else { return Err(violation(tag)) };
        // Rules and no description: the rows cannot be told apart. Fail closed.
        if running.disclosure.rules.is_some() && !running.described {
            return Err(violation(tag));
        }
        if self.refusing {
            running.row(1);
            self.begin_stream(header, false);
            return Ok(Walk::On);
        }
        if running.columns.is_some() {
            return self.masked_rows(core, buffer, passing, header);
        }
        if !self.out.is_empty() {
            self.flush_out(core);
        }
        let Some(running) = self.running.front_mut() else { return Err(violation(tag)) };
        let rest = buffer.get(passing.bytes..).unwrap_or_default();
        if let Some(&[_, _, _, _, _, high, low, ..]) = rest.first_chunk::<7>() {
            running.first_row(u16::from_be_bytes([high, low]));
        }
        let (bytes, count, left) = pass_rows(rest).map_err(Error::UpstreamMalformed)?;
        running.row(count);
        running.passed_bytes(bytes);
        passing.bytes = passing.bytes.saturating_add(bytes);
        self.upstream_left = left;
        self.upstream_passes = true;
        Ok(if left > 0 { Walk::Short } else { Walk::On })
    }

    fn masked_rows(
        &mut self,
        core: &mut Core,
        buffer: &mut BytesMut,
        passing: &mut Passing,
        header: Header,
    ) -> Result<Walk, Error> {
        if header.total > core.config.limits.masked_row_max {
            let why = format!("a row to be masked is longer than the limit of {} bytes", core.config.limits.masked_row_max);
            let error = self.refuse(core, &why, "Select fewer or shorter columns.");
            self.settle_passing(core, buffer, passing);
            self.out.extend_from_slice(&error);
            self.begin_stream(header, false);
            return Ok(Walk::On);
        }
        self.settle_passing(core, buffer, passing);
        let Some(Running { columns: Some(columns), .. }) = self.running.front() else {
            return Err(violation(UpstreamTag::DATA_ROW));
        };
        let before = self.out.len();
        let (mut at, mut count, mut short) = (0usize, 0u64, None);
        loop {
            let rest = buffer.get(at..).unwrap_or_default();
            let Some(next) = peek(rest).map_err(Error::UpstreamMalformed)? else { break };
            if next.tag != UpstreamTag::DATA_ROW.0 || next.total > core.config.limits.masked_row_max {
                break;
            }
            let Some(frame) = rest.get(..next.total) else {
                short = Some(next.total);
                break;
            };
            columns.rewrite(frame, &mut self.out).map_err(Error::UpstreamMalformed)?;
            at = at.saturating_add(next.total);
            count = count.saturating_add(1);
        }
        buffer.advance(at.min(buffer.len()));
        let written = self.out.len().saturating_sub(before);
        if let Some(running) = self.running.front_mut() {
            running.row(count);
            running.passed_bytes(written);
        }
        if let Some(total) = short {
            make_room(buffer, total);
            return Ok(Walk::Short);
        }
        Ok(if at == 0 { Walk::Short } else { Walk::On })
    }

    // COPY.

    fn copy_data(
        &mut self,
        core: &mut Core,
        buffer: &mut BytesMut,
        passing: &mut Passing,
        header: Header,
    ) -> Result<Walk, Error> {
        let tag = UpstreamTag::COPY_DATA;
        let refusing = self.refusing;
        let Some(running) = self.running.front_mut() else { return Err(violation(tag)) };
        match &mut running.copying {
            Copying::No | Copying::In => Err(violation(tag)),
            Copying::Out(_) | Copying::Both if refusing => {
                self.begin_stream(header, false);
                Ok(Walk::On)
            }
            Copying::Both | Copying::Out(None) => {
                if !self.out.is_empty() {
                    self.flush_out(core);
                }
                self.begin_stream(header, true);
                Ok(Walk::On)
            }
            Copying::Out(Some(rewriter)) => {
                let end = passing.bytes.saturating_add(header.total);
                let Some(frame) = buffer.get(passing.bytes..end) else {
                    if header.total > core.config.limits.masked_row_max {
                        return self.refuse_copy(core, buffer, passing, "a row to be masked is longer than the limit", header);
                    }
                    self.flush_passing(core, buffer, passing);
                    make_room(buffer, header.total);
                    return Ok(Walk::Short);
                };
                let before = self.out.len();
                let mut rewritten = std::mem::take(&mut self.out);
                if passing.bytes > 0 {
                    rewritten.extend_from_slice(buffer.get(..passing.bytes).unwrap_or_default());
                }
                let result = rewriter.feed(frame.get(HEADER..).unwrap_or_default(), &mut rewritten);
                let fed = rewritten.len().saturating_sub(before).saturating_sub(passing.bytes);
                self.out = rewritten;
                buffer.advance(end.min(buffer.len()));
                passing.bytes = 0;
                if let Some(running) = self.running.front_mut() {
                    running.passed_bytes(fed);
                }
                match result {
                    Ok(()) => Ok(Walk::On),
                    Err(copy::CopyError::Malformed) => Err(Error::UpstreamMalformed(Malformed::Value)),
                    Err(copy::CopyError::RowTooLong) => {
                        let error = self.refuse(core, "a row to be masked is longer than the limit", "Copy fewer columns.");
                        self.out.extend_from_slice(&error);
                        Ok(Walk::On)
                    }
                }
            }
        }
    }

    fn refuse_copy(
        &mut self,
        core: &mut Core,
        buffer: &mut BytesMut,
        passing: &mut Passing,
        why: &str,
        header: Header,
    ) -> Result<Walk, Error> {
        let error = self.refuse(core, why, "Copy fewer columns.");
        self.settle_passing(core, buffer, passing);
        self.out.extend_from_slice(&error);
        self.begin_stream(header, false);
        Ok(Walk::On)
    }

    /// CopyOutResponse: whether and how the stream is rewritten.
    fn copy_out(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        let response = CopyResponse::parse(body).map_err(Error::UpstreamMalformed)?;
        let unsafe_encoding = self.dialect.embeds_ascii();
        let limit = core.config.limits.masked_row_max;
        let Some(running) = self.copying_front(tag)? else { return Err(violation(tag)) };
        running.copying = Copying::Out(None);
        if running.disclosure.rules.is_none() {
            running.passed = running.passed.saturating_add(u32::try_from(response.formats.len()).unwrap_or(u32::MAX));
            return Ok(Fate::Pass);
        }
        // One shape for one COPY: a second one in the same request has none.
        let CopyShape::Columns { rules, format, types } = std::mem::take(&mut running.disclosure.copy) else {
            return Ok(self.refused(core, "the columns of this COPY are not known to the gateway"));
        };
        if rules.len() != response.formats.len() || types.len() != rules.len() || response.binary != copy::is_binary(&format) {
            return Ok(self.refused(core, "this COPY does not have the columns that were expected"));
        }
        let mut masked = 0u32;
        for rule in &rules {
            match rule {
                ColumnRule::Pass => running.passed = running.passed.saturating_add(1),
                ColumnRule::Mask(mask) => {
                    masked = masked.saturating_add(1);
                    running.masks_class(mask.class());
                }
                ColumnRule::Refuse(why) => {
                    let why = why.clone();
                    running.refused_columns = running.refused_columns.saturating_add(1);
                    return Ok(self.refused(core, &why));
                }
            }
        }
        running.masked = running.masked.saturating_add(masked);
        if masked == 0 {
            return Ok(Fate::Pass);
        }
        if unsafe_encoding && !response.binary {
            return Ok(self.refused(core, "COPY cannot be masked in this client encoding: use client_encoding UTF8"));
        }
        running.copying = Copying::Out(Some(Box::new(Rewriter::new(rules, &types, format, limit))));
        Ok(Fate::Pass)
    }

    fn copying_front(&mut self, tag: UpstreamTag) -> Result<Option<&mut Running>, Error> {
        if !matches!(self.expect.front(), Some(Step::Query | Step::Execute)) {
            return Err(violation(tag));
        }
        Ok(self.running.front_mut())
    }

    /// CopyInResponse: the upstream reads over Syncs that it gets before the end of the data.
    fn copy_in(&mut self, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        CopyResponse::parse(body).map_err(Error::UpstreamMalformed)?;
        let Some(running) = self.copying_front(tag)? else { return Err(violation(tag)) };
        running.copying = Copying::In;
        let end = self.expect.iter().position(|step| *step == Step::CopyEnd).unwrap_or(self.expect.len());
        let mut at = 0usize;
        let mut swallowed = 0usize;
        self.expect.retain(|step| {
            let drop = *step == Step::Sync && at < end;
            at = at.saturating_add(1);
            swallowed = swallowed.saturating_add(usize::from(drop));
            !drop
        });
        self.swallowed_syncs = self.swallowed_syncs.saturating_add(swallowed);
        Ok(Fate::Pass)
    }

    fn copy_both(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        CopyResponse::parse(body).map_err(Error::UpstreamMalformed)?;
        let Some(running) = self.copying_front(tag)? else { return Err(violation(tag)) };
        running.copying = Copying::Both;
        if running.disclosure.rules.is_some() {
            // Nothing in a replication stream can be masked, and nothing but the end stops it.
            running.refused = true;
            let detail = reply::detail(core.config.id);
            let text = "the gateway cannot mask a replication stream";
            let error = Reply::fatal(SqlState::INSUFFICIENT_PRIVILEGE, text, &detail, "");
            self.last_words(core, error.frame());
            self.terminate_upstream(core);
            self.finish(core, proxy_core::CloseReason::UpstreamClosed);
            return Ok(Fate::Swallow);
        }
        Ok(Fate::Pass)
    }

    fn copy_done(&mut self, tag: UpstreamTag) -> Result<Fate, Error> {
        let Some(running) = self.running.front_mut() else { return Err(violation(tag)) };
        let fate = match &mut running.copying {
            Copying::No | Copying::In => return Err(violation(tag)),
            Copying::Both | Copying::Out(None) => Fate::Pass,
            Copying::Out(Some(rewriter)) => {
                rewriter.finish().map_err(|_| Error::UpstreamMalformed(Malformed::Truncated))?;
                Fate::Pass
            }
        };
        Ok(self.unless_refusing(fate))
    }

    // Everything else.

    fn unless_refusing(&self, fate: Fate) -> Fate {
        if self.refusing { Fate::Swallow } else { fate }
    }

    /// The answer to the step at the front.
    fn replace_front(&mut self, expected: Step, next: Step, tag: UpstreamTag) -> Result<(), Error> {
        match self.expect.front_mut() {
            Some(front) if *front == expected => {
                *front = next;
                Ok(())
            }
            Some(_) | None => Err(violation(tag)),
        }
    }

    fn understand(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        match tag {
            UpstreamTag::PARSE_COMPLETE | UpstreamTag::BIND_COMPLETE | UpstreamTag::CLOSE_COMPLETE => {
                Reader::new(body).end().map_err(Error::UpstreamMalformed)?;
                self.completed_step(core, tag)
            }
            UpstreamTag::PARAMETER_DESCRIPTION => {
                self.replace_front(Step::ShapeParameters, Step::ShapeParameters, tag)?;
                self.expect.pop_front();
                Ok(Fate::Swallow)
            }
            UpstreamTag::ROW_DESCRIPTION => self.row_description(core, tag, body),
            UpstreamTag::NO_DATA => self.no_data(core, tag, body),
            UpstreamTag::COMMAND_COMPLETE => {
                let text = only_cstr(body).map_err(Error::UpstreamMalformed)?;
                self.completed(core, tag, text)
            }
            UpstreamTag::EMPTY_QUERY_RESPONSE | UpstreamTag::PORTAL_SUSPENDED => {
                Reader::new(body).end().map_err(Error::UpstreamMalformed)?;
                self.completed(core, tag, b"")
            }
            UpstreamTag::ERROR_RESPONSE => self.error_response(core, tag, body),
            UpstreamTag::NOTICE_RESPONSE => self.notice(tag, body),
            UpstreamTag::PARAMETER_STATUS => {
                let status = ParameterStatus::parse(body).map_err(Error::UpstreamMalformed)?;
                self.dialect.hear(&status);
                Ok(Fate::Pass)
            }
            UpstreamTag::COPY_IN_RESPONSE => self.copy_in(tag, body),
            UpstreamTag::COPY_OUT_RESPONSE => self.copy_out(core, tag, body),
            UpstreamTag::COPY_BOTH_RESPONSE => self.copy_both(core, tag, body),
            UpstreamTag::COPY_DONE => {
                Reader::new(body).end().map_err(Error::UpstreamMalformed)?;
                self.copy_done(tag)
            }
            UpstreamTag::FUNCTION_CALL_RESPONSE => self.ruled_function_result(core, tag),
            UpstreamTag::READY_FOR_QUERY => {
                let status = TransactionStatus::parse(body).map_err(Error::UpstreamMalformed)?;
                self.ready_for_query(core, tag, status)
            }
            _ => Err(violation(tag)),
        }
    }

    fn completed_step(&mut self, core: &mut Core, tag: UpstreamTag) -> Result<Fate, Error> {
        let Some(step) = self.expect.front().copied() else { return Err(violation(tag)) };
        let fate = match (tag, step) {
            (UpstreamTag::PARSE_COMPLETE, Step::Parse(sequence))
            | (UpstreamTag::BIND_COMPLETE, Step::Bind(sequence))
            | (UpstreamTag::CLOSE_COMPLETE, Step::Close(sequence)) => {
                self.names.commit(sequence);
                Fate::Pass
            }
            (UpstreamTag::PARSE_COMPLETE, Step::Prepare(sequence)) => {
                self.names.commit(sequence);
                if let Some(running) = self.running.pop_front() {
                    self.finished(core, running, OutcomeStatus::Completed);
                }
                Fate::Pass
            }
            (UpstreamTag::PARSE_COMPLETE, Step::ShapeParse) | (UpstreamTag::CLOSE_COMPLETE, Step::ShapeClose) => Fate::Swallow,
            _ => return Err(violation(tag)),
        };
        self.expect.pop_front();
        Ok(self.unless_refusing(fate))
    }

    fn row_description(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        let description = RowDescription::parse(body).map_err(Error::UpstreamMalformed)?;
        match self.expect.front() {
            Some(Step::DescribeStatementColumns | Step::DescribePortal) => {
                self.expect.pop_front();
                Ok(self.unless_refusing(Fate::Pass))
            }
            Some(Step::PortalShape) => {
                self.expect.pop_front();
                let refusal = self.describe_result(core, &description)?;
                Ok(self.unless_sent(refusal, Fate::Swallow))
            }
            Some(Step::Query) => {
                let refusal = self.describe_result(core, &description)?;
                Ok(self.unless_sent(refusal, Fate::Pass))
            }
            Some(Step::ShapeColumns) => {
                self.expect.pop_front();
                self.shape_known(core, &description)?;
                Ok(Fate::Swallow)
            }
            Some(_) | None => Err(violation(tag)),
        }
    }

    fn unless_sent(&self, refusal: Option<Bytes>, otherwise: Fate) -> Fate {
        match refusal {
            Some(error) => Fate::Replace(error),
            None => self.unless_refusing(otherwise),
        }
    }

    /// Applies the request's rules to a described result; gives the error if it must be refused.
    fn describe_result(&mut self, core: &mut Core, description: &RowDescription<'_>) -> Result<Option<Bytes>, Error> {
        let Some(running) = self.running.front_mut() else { return Ok(None) };
        running.described = true;
        running.columns = None;
        let Some(rules) = running.disclosure.rules.clone() else {
            running.passed = running.passed.saturating_add(u32::try_from(description.fields.len()).unwrap_or(u32::MAX));
            return Ok(None);
        };
        let Ruled { columns, passed, masked, refused, classes } =
            rows::rule(rules.as_ref(), description).map_err(Error::UpstreamMalformed)?;
        running.passed = running.passed.saturating_add(passed);
        running.masked = running.masked.saturating_add(masked);
        for class in &classes {
            running.masks_class(class);
        }
        running.columns = columns;
        let Some((count, why)) = refused else { return Ok(None) };
        running.refused_columns = running.refused_columns.saturating_add(count);
        if self.refusing {
            return Ok(None);
        }
        Ok(Some(self.refuse(core, &why, "Select the column itself, without an expression, or leave it out.")))
    }

    fn no_data(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        Reader::new(body).end().map_err(Error::UpstreamMalformed)?;
        let fate = match self.expect.front() {
            Some(Step::DescribeStatementColumns | Step::DescribePortal) => Fate::Pass,
            // It returns no rows: any row that comes all the same is a violation.
            Some(Step::PortalShape) => Fate::Swallow,
            Some(Step::ShapeColumns) => {
                self.shape = Some(Shape::Refused(refusal(core, "the query of this COPY returns no columns", "")));
                Fate::Swallow
            }
            Some(_) | None => return Err(violation(tag)),
        };
        self.expect.pop_front();
        Ok(self.unless_refusing(fate))
    }

    /// CommandComplete, EmptyQueryResponse, PortalSuspended.
    fn completed(&mut self, core: &mut Core, tag: UpstreamTag, text: &[u8]) -> Result<Fate, Error> {
        let suspended = tag == UpstreamTag::PORTAL_SUSPENDED;
        self.swallowed_syncs = 0;
        match self.expect.front() {
            Some(Step::Execute) => {
                self.expect.pop_front();
                if let Some(mut running) = self.running.pop_front() {
                    running.complete(text);
                    self.finished(core, running, OutcomeStatus::Completed);
                }
            }
            Some(Step::Query) if !suspended => {
                if let Some(running) = self.running.front_mut() {
                    running.complete(text);
                }
            }
            Some(_) | None => return Err(violation(tag)),
        }
        Ok(self.unless_refusing(Fate::Pass))
    }

    fn notice(&mut self, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        let mut out = BytesMut::new();
        reply::withhold(tag, body, &mut out).map_err(Error::UpstreamMalformed)?;
        Ok(self.unless_refusing(Fate::Replace(out.freeze())))
    }

    fn error_response(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        let fields = ErrorFields::parse(body).map_err(Error::UpstreamMalformed)?;
        let fatal = fields.is_fatal();
        self.fatal_seen |= fatal;
        let fate = self.error_text(core, tag, body, &fields)?;
        let code = fields.code();
        match self.expect.front().copied() {
            // Unasked, the server says only that it ends.
            None if fatal => return Ok(fate),
            None => return Err(violation(tag)),
            Some(_) if fatal => {
                if let Some(running) = self.running.front_mut() {
                    running.fail(code);
                }
                return Ok(fate);
            }
            Some(Step::Query | Step::FunctionCall) => {
                if let Some(running) = self.running.front_mut() {
                    running.fail(code);
                }
            }
            Some(Step::DeniedQuery) => {
                self.replace_front(Step::DeniedQuery, Step::ReadyAfterQuery, tag)?;
                let denial = self.denials.pop_front();
                return Ok(self.unless_refusing(denial.map_or(Fate::Pass, Fate::Replace)));
            }
            Some(Step::DeniedParse) => {
                self.expect.pop_front();
                let denial = self.denials.pop_front();
                self.fail_pipeline(core, code);
                return Ok(self.unless_refusing(denial.map_or(Fate::Pass, Fate::Replace)));
            }
            Some(Step::Sync) => {}
            Some(Step::ReadyAfterQuery | Step::ShapeSync | Step::CopyEnd) => return Err(violation(tag)),
            Some(Step::ShapeParse | Step::ShapeParameters | Step::ShapeColumns | Step::ShapeClose) => {
                self.shape = Some(Shape::Failed);
                self.shape_failed(core, code);
                return Ok(fate);
            }
            Some(
                Step::Parse(_)
                | Step::Prepare(_)
                | Step::Bind(_)
                | Step::Close(_)
                | Step::DescribeStatement
                | Step::DescribeStatementColumns
                | Step::DescribePortal
                | Step::PortalShape
                | Step::Execute,
            ) => self.fail_pipeline(core, code),
        }
        Ok(self.unless_refusing(fate))
    }

    /// What the client sees of the upstream's error.
    fn error_text(&self, core: &Core, tag: UpstreamTag, body: &[u8], fields: &ErrorFields<'_>) -> Result<Fate, Error> {
        if self.timed_out && fields.code() == SqlState::QUERY_CANCELED.0.as_bytes() {
            let detail = reply::detail(core.config.id);
            let text = "canceling statement due to the gateway's statement timeout";
            return Ok(Fate::Replace(Reply::error(SqlState::QUERY_CANCELED, text, &detail, "").frame()));
        }
        let withheld = match &self.shape {
            // The COPY that is being described has not been sent: its right is in the queue.
            Some(_) => match self.queue.front() {
                Some(Segment { gate: Gate::Permitted(granted), .. }) => granted.disclosure.withhold_messages,
                Some(_) | None => true,
            },
            None => self.running.front().is_some_and(|running| running.disclosure.withhold_messages),
        };
        if !withheld {
            return Ok(Fate::Pass);
        }
        let mut out = BytesMut::new();
        reply::withhold(tag, body, &mut out).map_err(Error::UpstreamMalformed)?;
        Ok(Fate::Replace(out.freeze()))
    }

    fn function_result(&mut self, tag: UpstreamTag) -> Result<(), Error> {
        if self.expect.front() != Some(&Step::FunctionCall) {
            return Err(violation(tag));
        }
        if let Some(running) = self.running.front_mut() {
            running.answered = true;
            running.passed = running.passed.saturating_add(1);
        }
        Ok(())
    }

    /// A function's value has no origin: it passes if the rules let expressions pass.
    fn ruled_function_result(&mut self, core: &mut Core, tag: UpstreamTag) -> Result<Fate, Error> {
        self.function_result(tag)?;
        let Some(running) = self.running.front_mut() else { return Err(violation(tag)) };
        let rule = running.disclosure.rules.as_ref().map(|rules| rules.column(Origin { table: 0, column: 0, type_id: 0 }));
        match rule {
            None | Some(ColumnRule::Pass) => Ok(self.unless_refusing(Fate::Pass)),
            Some(ColumnRule::Mask(_) | ColumnRule::Refuse(_)) => {
                running.passed = running.passed.saturating_sub(1);
                running.refused_columns = running.refused_columns.saturating_add(1);
                Ok(self.refused(core, "the result of this function call cannot be masked"))
            }
        }
    }

    fn ready_for_query(&mut self, core: &mut Core, tag: UpstreamTag, status: TransactionStatus) -> Result<Fate, Error> {
        let mut fate = Fate::Pass;
        match self.expect.front().copied() {
            Some(Step::Sync | Step::ReadyAfterQuery) => {}
            Some(Step::Query | Step::FunctionCall) => {
                let Some(running) = self.running.pop_front_if(|running| running.answered) else { return Err(violation(tag)) };
                let status = if running.failed() { OutcomeStatus::Failed } else { OutcomeStatus::Completed };
                self.finished(core, running, status);
            }
            Some(Step::ShapeSync) => fate = self.shape_ready(core),
            // A Sync that a COPY was thought to have read.
            Some(_) | None if self.swallowed_syncs > 0 => {
                self.swallowed_syncs = self.swallowed_syncs.saturating_sub(1);
                self.skip = false;
                self.refusing = false;
                self.names.ready(status != TransactionStatus::Idle);
                return Ok(Fate::Pass);
            }
            Some(_) | None => return Err(violation(tag)),
        }
        self.expect.pop_front();
        self.refusing = false;
        self.names.ready(status != TransactionStatus::Idle);
        Ok(fate)
    }

    // Refusing a result.

    /// The error in place of a result; from here on nothing passes until the upstream is ready.
    fn refuse(&mut self, core: &mut Core, why: &str, hint: &str) -> Bytes {
        if let Some(running) = self.running.front_mut() {
            running.refused = true;
            running.columns = None;
        }
        self.refusing = true;
        self.swallowed = Some(0);
        let extended = !matches!(self.expect.front(), Some(Step::Query | Step::FunctionCall));
        if extended && !self.expect.contains(&Step::Sync) {
            // The client sees a failed pipeline: what it still sends up to its Sync must not run.
            self.drop_until_sync(core);
        }
        refusal(core, why, hint)
    }

    fn refused(&mut self, core: &mut Core, why: &str) -> Fate {
        if self.refusing {
            return Fate::Swallow;
        }
        Fate::Replace(self.refuse(core, why, "Leave the columns out, or ask for the right to see them."))
    }

    /// Counts what is swallowed of a refused result, and asks the upstream to stop when it is much.
    fn swallow(&mut self, core: &mut Core, n: usize) {
        let Some(swallowed) = &mut self.swallowed else { return };
        *swallowed = swallowed.saturating_add(n as u64);
        if *swallowed > REFUSED_BEFORE_CANCEL {
            self.swallowed = None;
            self.cancel_upstream(core);
        }
    }

    // The description of a COPY's query.

    fn shape_known(&mut self, core: &mut Core, description: &RowDescription<'_>) -> Result<(), Error> {
        let Some(Segment { gate: Gate::Permitted(granted), .. }) = self.queue.front() else { return Ok(()) };
        let (Some(rules), CopyShape::Describe { format, .. }) = (&granted.disclosure.rules, &granted.disclosure.copy) else {
            return Ok(());
        };
        let rule = |field: &crate::message::Field<'_>| {
            rules.column(Origin { table: field.table, column: field.column, type_id: field.type_id })
        };
        let columns = CopyShape::Columns {
            rules: description.fields.iter().map(rule).collect(),
            format: format.clone(),
            types: description.fields.iter().map(|field| field.type_id).collect(),
        };
        let refused = match &columns {
            CopyShape::Columns { rules, .. } => rules.iter().find_map(|rule| match rule {
                ColumnRule::Refuse(why) => Some(why.clone()),
                ColumnRule::Pass | ColumnRule::Mask(_) => None,
            }),
            CopyShape::Pass | CopyShape::Describe { .. } => None,
        };
        self.shape = Some(match refused {
            Some(why) => Shape::Refused(refusal(core, &why, "Leave the column out of the query.")),
            None => Shape::Known(Box::new(columns)),
        });
        Ok(())
    }

    /// The upstream refuses the query: what follows is its ReadyForQuery.
    fn shape_failed(&mut self, core: &mut Core, code: &[u8]) {
        while self.expect.front().is_some_and(|step| *step != Step::ShapeSync) {
            self.expect.pop_front();
        }
        let Some(Segment { gate: Gate::Permitted(granted), .. }) = self.queue.front() else { return };
        let mut running = Running::new(granted.request, granted.permit, granted.disclosure.clone(), core.now);
        running.fail(code);
        core.push(Action::Record(running.outcome(OutcomeStatus::Failed, core.now)));
    }

    /// The description is over: the COPY goes, is refused, or has failed.
    fn shape_ready(&mut self, core: &mut Core) -> Fate {
        match self.shape.take() {
            Some(Shape::Known(columns)) => {
                if let Some(Segment { gate: Gate::Permitted(granted), .. }) = self.queue.front_mut() {
                    granted.disclosure.copy = *columns;
                }
                Fate::Swallow
            }
            Some(Shape::Refused(error)) => {
                self.refuse_shaped(core, error);
                Fate::Swallow
            }
            Some(Shape::Failed) => {
                self.discard_front();
                Fate::Pass
            }
            Some(Shape::Asked) | None => {
                // Described without a word about columns: nothing is known, so nothing passes.
                if let Some(Segment { gate: Gate::Permitted(granted), .. }) = self.queue.front_mut() {
                    granted.disclosure.copy = CopyShape::Pass;
                }
                Fate::Swallow
            }
        }
    }
}

/// The error for a refused result.
fn refusal(core: &Core, why: &str, hint: &str) -> Bytes {
    let detail = reply::detail(core.config.id);
    Reply::error(SqlState::INSUFFICIENT_PRIVILEGE, why, &detail, hint).frame()
}

/// Walks DataRows that pass: bytes that are there, rows begun, and bytes of the last one that are not.
#[inline]
fn pass_rows(bytes: &[u8]) -> Result<(usize, u64, usize), Malformed> {
    let (mut at, mut count) = (0usize, 0u64);
    while let Some(&[tag, a, b, c, d]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) {
        if tag != UpstreamTag::DATA_ROW.0 {
            break;
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..crate::frame::FRAME_MAX).contains(&length) {
            return Err(Malformed::Length);
        }
        let end = at.saturating_add(length).saturating_add(1);
        count = count.saturating_add(1);
        if end > bytes.len() {
            return Ok((bytes.len(), count, end.saturating_sub(bytes.len())));
        }
        at = end;
    }
    Ok((at, count, 0))
}
