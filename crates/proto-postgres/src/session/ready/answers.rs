//! The upstream's answers, matched against what was asked.

use super::queue::{Gate, Segment, Step};
use super::rows::{self, Ruled};
use super::upstream::{Fate, violation};
use super::{Ready, Shape};
use crate::error::Error;
use crate::frame::Reader;
use crate::limits::REFUSED_BEFORE_CANCEL;
use crate::message::{ErrorFields, ParameterStatus, RowDescription, TransactionStatus, only_cstr};
use crate::reply::{self, Reply};
use crate::session::Core;
use crate::types::{SqlState, UpstreamTag};
use bytes::{Bytes, BytesMut};
use proxy_core::record::OutcomeStatus;
use proxy_core::{ColumnRule, Origin};

/// What a client must know whose statement ran and whose result is refused.
const EXECUTED: &str = "The target has been sent this statement, and only its result is withheld: what it changed stays, unless its transaction is rolled back.";

impl Ready {
    pub(super) fn unless_refusing(&self, fate: Fate) -> Fate {
        if self.refusing { Fate::Swallow } else { fate }
    }

    /// The answer to the step at the front.
    pub(super) fn replace_front(&mut self, expected: Step, next: Step, tag: UpstreamTag) -> Result<(), Error> {
        match self.expect.front_mut() {
            Some(front) if *front == expected => {
                *front = next;
                Ok(())
            }
            Some(_) | None => Err(violation(tag)),
        }
    }

    pub(super) fn understand(&mut self, core: &mut Core, tag: UpstreamTag, body: &[u8]) -> Result<Fate, Error> {
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
        match self.expect.front() {
            Some(Step::DescribeStatementColumns | Step::DescribePortal) => {
                RowDescription::count(body).map_err(Error::UpstreamMalformed)?;
                self.expect.pop_front();
                Ok(self.unless_refusing(Fate::Pass))
            }
            Some(Step::PortalShape) => {
                self.expect.pop_front();
                let refusal = self.describe_result(core, body)?;
                Ok(self.unless_sent(refusal, Fate::Swallow))
            }
            Some(Step::Query) => {
                let refusal = self.describe_result(core, body)?;
                Ok(self.unless_sent(refusal, Fate::Pass))
            }
            Some(Step::ShapeColumns) => {
                self.expect.pop_front();
                self.shape_known(core, &RowDescription::parse(body).map_err(Error::UpstreamMalformed)?)?;
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
    fn describe_result(&mut self, core: &mut Core, body: &[u8]) -> Result<Option<Bytes>, Error> {
        let columns = RowDescription::count(body).map_err(Error::UpstreamMalformed)?;
        let Some(running) = self.running.front_mut() else { return Ok(None) };
        running.described = true;
        running.columns = None;
        let Some(rules) = running.disclosure.rules.clone() else {
            running.passed = running.passed.saturating_add(u32::try_from(columns).unwrap_or(u32::MAX));
            return Ok(None);
        };
        let described = RowDescription::parse(body).and_then(|description| rows::rule(rules.as_ref(), &description));
        let Ruled { columns, passed, masked, refused, classes } = described.map_err(Error::UpstreamMalformed)?;
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

    pub(super) fn function_result(&mut self, tag: UpstreamTag) -> Result<(), Error> {
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
        self.in_transaction = status != TransactionStatus::Idle;
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
                self.names.ready(self.in_transaction);
                return Ok(Fate::Pass);
            }
            Some(_) | None => return Err(violation(tag)),
        }
        self.expect.pop_front();
        self.refusing = false;
        self.names.ready(self.in_transaction);
        Ok(fate)
    }

    // Refusing a result.

    /// The error in place of a result; from here on nothing passes until the upstream is ready.
    pub(super) fn refuse(&mut self, core: &mut Core, why: &str, hint: &str) -> Bytes {
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
        let request = self.running.front().map_or(0, |running| running.request.0);
        let detail = format!("Session {}, request {request}. {EXECUTED}", core.config.id);
        Reply::error(SqlState::INSUFFICIENT_PRIVILEGE, why, &detail, hint).frame()
    }

    pub(super) fn refused(&mut self, core: &mut Core, why: &str) -> Fate {
        if self.refusing {
            return Fate::Swallow;
        }
        Fate::Replace(self.refuse(core, why, "Leave the columns out, or ask for the right to see them."))
    }

    /// Counts what is swallowed of a refused result, and asks the upstream to stop when it is much.
    pub(super) fn swallow(&mut self, core: &mut Core, n: usize) {
        let Some(swallowed) = &mut self.swallowed else { return };
        *swallowed = swallowed.saturating_add(n as u64);
        if *swallowed > REFUSED_BEFORE_CANCEL {
            self.swallowed = None;
            self.cancel_upstream(core);
        }
    }
}

/// The error for a result that is refused before its statement is sent.
pub(super) fn refusal(core: &Core, why: &str, hint: &str) -> Bytes {
    let detail = reply::detail(core.config.id);
    Reply::error(SqlState::INSUFFICIENT_PRIVILEGE, why, &detail, hint).frame()
}
