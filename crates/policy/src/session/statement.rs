//! Requests that are SQL, in whatever way they come.

use super::Decider;
use super::memory::Decided;
use crate::changes::Boundary;
use crate::large_objects;
use crate::refresh::Outcome;
use crate::sql::{self, Analysis};
use bytes::Bytes;
use pg_query::NodeRef;
use proxy_core::pipeline::{Approval, NotReady};
use proxy_core::{Decision, Disclosure, Facts, Request, RequestId, Timestamp};
use std::sync::Arc;

/// Longest list of names by which asking for a catalogue is limited, in bytes.
const NAMES_MAX: usize = 512;

impl Decider {
    /// A statement that came as text.
    pub(super) fn sql(
        &mut self,
        now: Timestamp,
        request: &Request,
        text: &Bytes,
        approval: Option<&Approval>,
    ) -> Result<Decision, NotReady> {
        let settled = !self.changes.is_unsettled();
        let lexed = self.make_key(text);
        if settled && let Some(found) = self.recall(text) {
            return Ok(self.settle(request, &found, approval));
        }
        let analysis = Arc::new(sql::analyze_bytes(text, self.stamp.catalog.as_deref(), &self.state));
        self.wait_for_catalog(now, request.id, &analysis)?;
        let decided = Arc::new(self.decide_analyses(now, std::str::from_utf8(text).ok(), vec![analysis]));
        if settled && lexed && !self.is_blind() {
            self.remember(text, &decided);
        }
        Ok(self.settle(request, &decided, approval))
    }

    /// A statement or cursor that was made in SQL, by its name.
    pub(super) fn named(&mut self, now: Timestamp, request: RequestId, cursor: bool, name: &[u8]) -> Result<Decided, NotReady> {
        let (kind, known) = match std::str::from_utf8(name) {
            Ok(text) if cursor => ("cursor", self.state.cursor(text)),
            Ok(text) => ("prepared statement", self.state.prepared(text)),
            Err(_) => ("name", None),
        };
        let Some(analyses) = known else {
            let mut facts = Facts::default();
            facts.add_unknown(format!("{kind} \"{}\" was not made in this session", String::from_utf8_lossy(name)));
            return Ok(self.decide_facts(now, &facts, None, Ok(Disclosure::default())));
        };
        // The server looks their names up again.
        let renewed = analyses.iter().map(|analysis| sql::renewed(analysis, self.stamp.catalog.as_deref(), &self.state));
        let analyses: Vec<Arc<Analysis>> = renewed.map(Arc::new).collect();
        for analysis in &analyses {
            self.wait_for_catalog(now, request, analysis)?;
        }
        Ok(self.decide_analyses(now, None, analyses))
    }

    /// Whether it cannot be told which columns are masked.
    pub(super) fn is_blind(&self) -> bool {
        self.stamp.catalog.is_none() && self.active.masks.covers(&self.session.target.connection)
    }

    /// Waits for a newer catalogue if the analysis needs one.
    pub(super) fn wait_for_catalog(&mut self, now: Timestamp, request: RequestId, analysis: &Analysis) -> Result<(), NotReady> {
        if self.refresh.is_unfinished(request) {
            return Err(self.refresh(now, request));
        }
        let blind = self.is_blind();
        let names = !analysis.relations.is_empty() || !analysis.functions.is_empty() || analysis.unresolved;
        // What is not understood could show anything: that, too, is only told of a catalogue.
        let names = names || (blind && !analysis.facts.unknown.is_empty());
        // A function that is built in is named as well: another may have been made under its name.
        let stale = self.changes.stale && (names || calls(analysis));
        if stale || (names && blind) {
            match self.refresh.outcome(&*self.shared.catalogs, &self.session.target, (self.changes.epoch, !blind), now) {
                // Others go on changing it: this request has waited once.
                Outcome::None if self.refresh.was_for(request) => {}
                Outcome::None => return Err(self.refresh(now, request)),
                Outcome::Loaded => self.changes.loaded(),
                // It stays as it was: what is masked is not read now.
                Outcome::Failed => {}
            }
        }
        if !analysis.unresolved || blind || self.refresh.was_for(request) {
            return Ok(());
        }
        // Without a catalogue no name is found: that is one reason to load it, not one for each name.
        let names = if self.stamp.catalog.is_some() { unresolved_names(analysis) } else { String::new() };
        if self.shared.may_refresh(now, &self.session.target, &names) {
            return Err(self.refresh(now, request));
        }
        Ok(())
    }

    /// A function that is called by its number.
    pub(super) fn function(&mut self, now: Timestamp, request: RequestId, oid: u32) -> Result<Decided, NotReady> {
        let found = self.stamp.catalog.as_ref().and_then(|catalog| catalog.function(oid));
        let found = found.map(|function| (function.schema.clone(), function.name.clone()));
        let large_object = || large_objects::name(oid).map(|name| ("pg_catalog".to_owned(), name.to_owned()));
        let Some((schema, name)) = found.or_else(large_object) else {
            let mut facts = Facts { kinds: vec!["CALL".to_owned()], ..Facts::default() };
            facts.add_unknown(format!("function number {oid} is not in the catalogue"));
            return Ok(self.decide_facts(now, &facts, None, Ok(Disclosure::default())));
        };
        // The same function, called in the words of SQL, has the same facts and the same masking.
        let statement = format!("SELECT {}.{}()", quoted(&schema), quoted(&name));
        let analysis = Arc::new(sql::analyze(&statement, self.stamp.catalog.as_deref(), &self.state));
        self.wait_for_catalog(now, request, &analysis)?;
        Ok(self.decide_analyses(now, None, vec![analysis]))
    }

    /// Decides a request that is all of `analyses`: one, or those that a name may stand for.
    pub(super) fn decide_analyses(&mut self, now: Timestamp, statement: Option<&str>, analyses: Vec<Arc<Analysis>>) -> Decided {
        let facts = merged(&analyses);
        let disclosed = self.mask_view(now, &facts, statement).disclose(&analyses, &self.state, self.changes.is_unsettled());
        let (disclosure, redefines) = match disclosed {
            Ok((disclosure, redefines)) => (Ok(disclosure), redefines),
            Err(refusal) => (Err(refusal), false),
        };
        let stateful = analyses.iter().any(|analysis| analysis.depends_on_state);
        let mut decided = self.decide_facts(now, &facts, statement, disclosure);
        decided.state = (stateful || analyses.len() != 1).then(|| self.state.generation());
        decided.transaction = analyses.iter().map(|analysis| Boundary::of(analysis)).fold(Boundary::None, Boundary::and_then);
        decided.changes_catalog = redefines || analyses.iter().any(|analysis| analysis.changes_catalog);
        decided.analyses = analyses;
        decided
    }

    /// Has the request wait for a newer catalogue.
    pub(super) fn refresh(&mut self, now: Timestamp, request: RequestId) -> NotReady {
        self.changes.loading();
        self.refresh.start(&*self.shared.catalogs, &self.session.target, (request, self.changes.epoch), now)
    }
}

/// Whether it calls any function.
fn calls(analysis: &Analysis) -> bool {
    let tree = analysis.tree.as_ref();
    tree.is_some_and(|tree| tree.nodes().iter().any(|(node, ..)| matches!(node, NodeRef::FuncCall(_))))
}

/// All that `analyses` do, together.
fn merged(analyses: &[Arc<Analysis>]) -> Facts {
    let mut facts = Facts::default();
    for analysis in analyses {
        analysis.facts.operations.iter().cloned().for_each(|operation| facts.add(operation));
        analysis.facts.unknown.iter().for_each(|unknown| facts.add_unknown(unknown.what.clone()));
        facts.kinds.extend(analysis.facts.kinds.iter().cloned());
        facts.attributes.extend(analysis.facts.attributes.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    facts
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The names that an analysis did not find.
fn unresolved_names(analysis: &Analysis) -> String {
    let unknown = analysis.relations.iter().filter(|relation| relation.oid.is_none() && !relation.temporary);
    let relations = unknown.map(|relation| (&relation.schema, &relation.name));
    let functions = analysis.functions.iter().map(|function| (&function.schema, &function.name));
    let mut names = String::new();
    for (schema, name) in relations.chain(functions) {
        if names.len() > NAMES_MAX {
            break;
        }
        names.push_str(schema);
        names.push('.');
        names.push_str(name);
        names.push(',');
    }
    names
}
