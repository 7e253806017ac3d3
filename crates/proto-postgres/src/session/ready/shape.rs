//! `COPY (query) TO STDOUT` with rules: the query is described before the COPY is sent, because the stream
//! itself does not say where its columns come from.

use super::answers::refusal;
use super::queue::{Gate, Segment, Step};
use super::running::Running;
use super::upstream::Fate;
use super::{Ready, Shape};
use crate::error::Error;
use crate::frame::write;
use crate::message::{Close, Describe, Parse, RowDescription, Target};
use crate::session::Core;
use crate::types::ClientTag;
use bytes::{Bytes, BytesMut};
use proxy_core::record::OutcomeStatus;
use proxy_core::{Action, ColumnRule, CopyShape, Origin};

/// Name of the statement by which a COPY's query is described.
const DESCRIBE: &[u8] = b"sallyport_describe";

impl Ready {
    /// Sends our description of a COPY's query, when nothing else is under way. `false`: not yet.
    pub(super) fn begin_shape(&mut self, core: &mut Core) -> bool {
        let Some(Segment { gate: Gate::Permitted(granted), .. }) = self.queue.front() else { return false };
        let CopyShape::Describe { query, .. } = &granted.disclosure.copy else { return false };
        if !self.expect.is_empty() {
            return false;
        }
        let mut out = BytesMut::new();
        Parse { name: DESCRIBE, query, types: Vec::new() }.encode(&mut out);
        Describe { target: Target::Statement, name: DESCRIBE }.encode(&mut out);
        Close { target: Target::Statement, name: DESCRIBE }.encode(&mut out);
        write(&mut out, ClientTag::SYNC.0, |_| {});
        core.push(Action::SendUpstream { bytes: out.freeze(), permit: granted.permit });
        self.expect.extend([Step::ShapeParse, Step::ShapeParameters, Step::ShapeColumns, Step::ShapeClose, Step::ShapeSync]);
        self.shape = Some(Shape::Asked);
        true
    }

    /// The described query has a column that must not be seen: the COPY is refused before it runs.
    fn refuse_shaped(&mut self, core: &mut Core, error: Bytes) {
        let Some(front) = self.queue.front_mut() else { return };
        if let Gate::Permitted(granted) = std::mem::replace(&mut front.gate, Gate::Denied(error)) {
            let mut running = Running::new(granted.request, granted.permit, granted.disclosure, core.now);
            running.refused = true;
            running.refused_columns = 1;
            core.record(running.outcome(OutcomeStatus::Refused, core.now));
        }
    }

    /// Drops the segment at the front, which has been answered.
    fn discard_front(&mut self) {
        self.drop_front();
    }

    pub(super) fn shape_known(&mut self, core: &mut Core, description: &RowDescription<'_>) -> Result<(), Error> {
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
    pub(super) fn shape_failed(&mut self, core: &mut Core, code: &[u8]) {
        while self.expect.front().is_some_and(|step| *step != Step::ShapeSync) {
            self.expect.pop_front();
        }
        let Some(Segment { gate: Gate::Permitted(granted), .. }) = self.queue.front() else { return };
        let mut running = Running::new(granted.request, granted.permit, granted.disclosure.clone(), core.now);
        running.fail(code);
        core.record(running.outcome(OutcomeStatus::Failed, core.now));
    }

    /// The description is over: the COPY goes, is refused, or has failed.
    pub(super) fn shape_ready(&mut self, core: &mut Core) -> Fate {
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
