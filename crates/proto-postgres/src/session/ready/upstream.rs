//! What the upstream sends, in the ready state: each frame is matched against what was asked, and passes,
//! is rewritten, replaced or swallowed.
//!
//! While frames pass they are only walked: the bytes at the front of the read buffer that pass are counted,
//! and leave as one slice.

use super::Ready;
use super::queue::Step;
use super::running::Running;
use crate::error::{Error, Malformed};
use crate::frame::{HEADER, Header, make_room, peek};
use crate::limits::{CONTROL_MESSAGE_MAX, COPY_ALONG_MAX};
use crate::session::Core;
use crate::types::UpstreamTag;
use bytes::{Buf, Bytes, BytesMut};

/// What becomes of a frame.
#[derive(Debug)]
pub(super) enum Fate {
    /// It leaves as it came.
    Pass,
    /// It was ours to hear.
    Swallow,
    /// This leaves in its place.
    Replace(Bytes),
}

/// Whether there is more to do in the buffer.
pub(super) enum Walk {
    On,
    /// The next frame is not there yet.
    Short,
}

/// The bytes at the front of the buffer that pass and are not sent yet.
pub(super) struct Passing {
    pub(super) bytes: usize,
}

pub(super) fn violation(tag: UpstreamTag) -> Error {
    Error::UpstreamViolation { state: "ready", got: tag.0 }
}

impl Ready {
    /// Takes what can be taken from the upstream's buffer.
    pub(super) fn upstream_bytes(&mut self, core: &mut Core, buffer: &mut BytesMut) -> Result<(), Error> {
        let mut passing = Passing { bytes: 0 };
        let result = self.walk(core, buffer, &mut passing);
        self.flush_passing(core, buffer, &mut passing);
        self.flush_out(core);
        if self.running.is_empty() {
            // An idle session holds no buffer.
            self.out = BytesMut::new();
        }
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

    pub(super) fn has_rules(&self) -> bool {
        self.running.front().is_some_and(|running| running.disclosure.rules.is_some())
    }

    pub(super) fn begin_stream(&mut self, header: Header, passes: bool) {
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
    pub(super) fn settle_passing(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing) {
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

    pub(super) fn flush_passing(&mut self, core: &mut Core, buffer: &mut BytesMut, passing: &mut Passing) {
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
