//! COPY, as the upstream speaks of it: data that passes or is rewritten.

use super::Ready;
use super::queue::Step;
use super::running::{Copying, Running};
use super::upstream::{Fate, Passing, Walk, violation};
use crate::copy::{self, CopyError, Rewriter};
use crate::error::{Error, Malformed};
use crate::frame::{HEADER, Header, make_room, peek};
use crate::message::CopyResponse;
use crate::reply::{self, Reply};
use crate::session::Core;
use crate::types::{SqlState, UpstreamTag};
use bytes::{Buf, BytesMut};
use proxy_core::{ColumnRule, CopyShape};

impl Ready {
    pub(super) fn copy_data(
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
            Copying::Out(Some(_)) => self.masked_copy(core, buffer, passing, header),
        }
    }

    /// Rewrites the CopyData frames that are there.
    fn masked_copy(
        &mut self,
        core: &mut Core,
        buffer: &mut BytesMut,
        passing: &mut Passing,
        header: Header,
    ) -> Result<Walk, Error> {
        let limit = core.config.limits.masked_row_max;
        if header.total > limit {
            return self.refuse_copy(core, buffer, passing, "a row to be masked is longer than the limit", header);
        }
        self.settle_passing(core, buffer, passing);
        let Some(Running { copying: Copying::Out(Some(rewriter)), .. }) = self.running.front_mut() else {
            return Err(violation(UpstreamTag::COPY_DATA));
        };
        let before = self.out.len();
        let (mut at, mut short, mut fed) = (0usize, None, Ok(()));
        while fed.is_ok() {
            let rest = buffer.get(at..).unwrap_or_default();
            let Some(next) = peek(rest).map_err(Error::UpstreamMalformed)? else { break };
            if next.tag != UpstreamTag::COPY_DATA.0 || next.total > limit {
                break;
            }
            let Some(frame) = rest.get(..next.total) else {
                short = Some(next.total);
                break;
            };
            fed = rewriter.feed(frame.get(HEADER..).unwrap_or_default(), &mut self.out);
            at = at.saturating_add(next.total);
        }
        buffer.advance(at.min(buffer.len()));
        let written = self.out.len().saturating_sub(before);
        if let Some(running) = self.running.front_mut() {
            running.passed_bytes(written);
        }
        match fed {
            Ok(()) => {}
            Err(CopyError::Malformed) => return Err(Error::UpstreamMalformed(Malformed::Value)),
            Err(CopyError::RowTooLong) => {
                let error = self.refuse(core, "a row to be masked is longer than the limit", "Copy fewer columns.");
                self.out.extend_from_slice(&error);
                return Ok(Walk::On);
            }
        }
        if let Some(total) = short {
            make_room(buffer, total);
            return Ok(Walk::Short);
        }
        Ok(if at == 0 { Walk::Short } else { Walk::On })
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
    pub(super) fn copy_out(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
        let response = CopyResponse::parse(body).map_err(Error::UpstreamMalformed)?;
        let unsafe_encoding = self.dialect.embeds_ascii();
        let limit = core.config.limits.masked_row_max;
        let Some(running) = self.copying_front(tag)? else { return Err(violation(tag)) };
        running.copying = Copying::Out(None);
        if running.disclosure.rules.is_none() {
            running.passed = running.passed.saturating_add(u32::try_from(response.formats.len()).unwrap_or(u32::MAX));
            return Ok(Fate::Pass);
        }
        if running.changed {
            return Ok(self.refused(core, "a COPY with masked columns must stand before what its batch changes"));
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
    pub(super) fn copy_in(&mut self, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
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

    pub(super) fn copy_both(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
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

    pub(super) fn copy_done(&mut self, tag: UpstreamTag) -> Result<Fate, Error> {
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
}
