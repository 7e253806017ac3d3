//! Prepared statements and portals by name, as the *server* sees them.
//!
//! A name means what the server last confirmed. What the client asked for since then is kept beside it, in
//! order, and holds only within the same stretch up to a Sync: there, a failure skips everything that would
//! use it. An older, unanswered change leaves two possible meanings: [`Found::Unsettled`], and the session
//! waits. So a Parse that fails on the server (the name exists already) can never make the record say
//! another text than the one that runs.

use crate::facts::NameEffects;
use bytes::Bytes;
use hashbrown::HashMap;
use proxy_core::RequestId;
use std::collections::VecDeque;
use std::sync::Arc;

/// A prepared statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    /// Its text, in memory of its own: a slice would keep a whole read buffer alive.
    pub(super) text: Bytes,
    /// Type numbers of its first parameters.
    pub(super) types: Vec<u32>,
    /// What running it may do to names.
    pub(super) effects: NameEffects,
}

/// What a portal runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A statement whose text is known.
    Known(Arc<Prepared>),
    /// A statement that was made in SQL.
    Named(Bytes),
}

/// A portal: its statement, and its Bind's frame for the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portal {
    /// What it runs.
    pub(super) source: Source,
    /// The whole Bind, as it came.
    pub(super) bind: Bytes,
}

/// What a name means now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// This.
    Known(T),
    /// Nothing that this protocol made.
    Unknown,
    /// It depends on an answer that has not come.
    Unsettled,
}

/// Numbers the changes, so that an answer finds its own.
pub(super) type Sequence = u64;

#[derive(Debug)]
struct Change<T> {
    sequence: Sequence,
    epoch: u64,
    name: Bytes,
    /// `None`: closed.
    value: Option<T>,
}

/// Names of one sort, confirmed and asked for.
#[derive(Debug)]
struct Table<T> {
    settled: HashMap<Bytes, T>,
    changes: VecDeque<Change<T>>,
}

impl<T: Clone> Table<T> {
    fn new() -> Self {
        Self { settled: HashMap::new(), changes: VecDeque::new() }
    }

    fn find(&self, name: &[u8], epoch: u64) -> Found<T> {
        match self.changes.iter().rev().find(|change| change.name == name) {
            Some(change) if change.epoch != epoch => Found::Unsettled,
            Some(Change { value: Some(value), .. }) => Found::Known(value.clone()),
            Some(Change { value: None, .. }) => Found::Unknown,
            None => self.settled.get(name).map_or(Found::Unknown, |value| Found::Known(value.clone())),
        }
    }

    fn take(&mut self, sequence: Sequence) -> Option<Change<T>> {
        let at = self.changes.binary_search_by_key(&sequence, |change| change.sequence).ok()?;
        self.changes.remove(at)
    }

    fn len(&self) -> usize {
        self.settled.len().saturating_add(self.changes.len())
    }
}

/// All names of a session.
#[derive(Debug)]
pub(super) struct Names {
    statements: Table<Arc<Prepared>>,
    portals: Table<Arc<Portal>>,
    epoch: u64,
    next: Sequence,
    /// Bytes of the texts that are settled or asked for.
    bytes: usize,
    /// SQL may have dropped a statement of ours: one that SQL makes now may have its name.
    dropped_in_sql: bool,
    /// Requests whose text may change names in SQL, while they are not answered.
    touching: VecDeque<(RequestId, NameEffects)>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            statements: Table::new(),
            portals: Table::new(),
            epoch: 0,
            next: 0,
            bytes: 0,
            dropped_in_sql: false,
            touching: VecDeque::new(),
        }
    }

    /// A Sync: what comes after it runs even if something before it failed.
    pub(super) fn sync(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Statements or portals, whichever are more.
    pub(super) fn len(&self) -> usize {
        self.statements.len().max(self.portals.len())
    }

    /// Bytes of all texts.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn statement(&self, name: &[u8]) -> Found<Arc<Prepared>> {
        // The unnamed statement is out of reach of SQL.
        let touched = !name.is_empty() && self.touching.iter().any(|(_, effects)| effects.drops || effects.prepares);
        if touched { Found::Unsettled } else { self.statements.find(name, self.epoch) }
    }

    pub(super) fn portal(&self, name: &[u8]) -> Found<Arc<Portal>> {
        let touched = !name.is_empty() && self.touching.iter().any(|(_, effects)| effects.cursors);
        if touched { Found::Unsettled } else { self.portals.find(name, self.epoch) }
    }

    fn sequence(&mut self) -> Sequence {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// A Parse was asked for.
    pub(super) fn parse(&mut self, name: Bytes, prepared: Arc<Prepared>) -> Sequence {
        let (sequence, epoch) = (self.sequence(), self.epoch);
        self.bytes = self.bytes.saturating_add(prepared.text.len());
        self.statements.changes.push_back(Change { sequence, epoch, name, value: Some(prepared) });
        sequence
    }

    /// A Bind was asked for.
    pub(super) fn bind(&mut self, name: Bytes, portal: Arc<Portal>) -> Sequence {
        let (sequence, epoch) = (self.sequence(), self.epoch);
        self.portals.changes.push_back(Change { sequence, epoch, name, value: Some(portal) });
        sequence
    }

    /// A Close was asked for.
    pub(super) fn close_statement(&mut self, name: Bytes) -> Sequence {
        let (sequence, epoch) = (self.sequence(), self.epoch);
        self.statements.changes.push_back(Change { sequence, epoch, name, value: None });
        sequence
    }

    /// A Close was asked for.
    pub(super) fn close_portal(&mut self, name: Bytes) -> Sequence {
        let (sequence, epoch) = (self.sequence(), self.epoch);
        self.portals.changes.push_back(Change { sequence, epoch, name, value: None });
        sequence
    }

    /// The server did it.
    pub(super) fn commit(&mut self, sequence: Sequence) {
        if let Some(change) = self.statements.take(sequence) {
            let old = match change.value {
                Some(prepared) => self.statements.settled.insert(change.name, prepared),
                None => self.statements.settled.remove(&change.name),
            };
            self.forget(old);
        } else if let Some(change) = self.portals.take(sequence) {
            match change.value {
                Some(portal) => self.portals.settled.insert(change.name, portal),
                None => self.portals.settled.remove(&change.name),
            };
        }
    }

    /// The server did not do it, or was never asked.
    pub(super) fn abandon(&mut self, sequence: Sequence) {
        match self.statements.take(sequence) {
            Some(change) => self.forget(change.value),
            None => drop(self.portals.take(sequence)),
        }
    }

    fn forget(&mut self, prepared: Option<Arc<Prepared>>) {
        let bytes = prepared.map_or(0, |prepared| prepared.text.len());
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// ReadyForQuery: portals end with their transaction; those that stay give up the read buffer.
    pub(super) fn ready(&mut self, in_transaction: bool) {
        if self.portals.settled.is_empty() {
            return;
        }
        if !in_transaction {
            self.portals.settled.clear();
        }
        for portal in self.portals.settled.values_mut() {
            if Arc::strong_count(portal) == 1 {
                let bind = Bytes::copy_from_slice(&portal.bind);
                *portal = Arc::new(Portal { source: portal.source.clone(), bind });
            }
        }
    }

    /// A request that runs may change names in SQL: until it is answered, no name is settled.
    pub(super) fn will_run(&mut self, request: RequestId, effects: NameEffects) {
        if effects.any() {
            self.touching.push_back((request, effects));
        }
    }

    /// Whether a request is under way that may change names in SQL.
    pub(super) fn is_touched(&self) -> bool {
        !self.touching.is_empty()
    }

    /// Requests before `oldest` (`None`: all) are not under way any more.
    pub(super) fn answered_before(&mut self, oldest: Option<RequestId>) {
        self.touching.retain(|(request, _)| oldest.is_some_and(|oldest| oldest <= *request));
    }

    /// A request ran. `done`: what its tags say that it did; `failed`: they do not say all.
    pub(super) fn ran(&mut self, request: RequestId, done: NameEffects, failed: bool) {
        let text = self.touching.iter().find(|(id, _)| *id == request).map_or_else(NameEffects::default, |(_, text)| *text);
        let effects = if failed || done.hidden { done.or(text) } else { done };
        self.dropped_in_sql |= effects.drops;
        if effects.prepares && self.dropped_in_sql {
            // One of our names may be SQL's now. Policy knows all that was ever prepared under a name.
            self.statements.settled.retain(|name, _| name.is_empty());
            self.bytes = self.statements.settled.values().map(|prepared| prepared.text.len()).fold(0, usize::saturating_add);
        }
        if effects.cursors {
            self.portals.settled.retain(|name, _| name.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(text: &'static str) -> Arc<Prepared> {
        Arc::new(Prepared {
            text: Bytes::from_static(text.as_bytes()),
            types: Vec::new(),
            effects: NameEffects::of_text(text.as_bytes()),
        })
    }

    #[test]
    fn a_name_is_settled_by_the_server_alone() {
        let mut names = Names::new();
        let (old, new) = (prepared("select 1"), prepared("delete from t"));
        let first = names.parse(Bytes::from_static(b"s"), old.clone());
        assert_eq!(names.statement(b"s"), Found::Known(old.clone()), "within its own stretch it holds");
        names.commit(first);
        names.sync();
        let second = names.parse(Bytes::from_static(b"s"), new.clone());
        assert_eq!(names.statement(b"s"), Found::Known(new), "a failure would skip what uses it");
        names.sync();
        assert_eq!(names.statement(b"s"), Found::Unsettled, "a failure would leave the old text");
        names.abandon(second);
        assert_eq!(names.statement(b"s"), Found::Known(old));
        assert_eq!(names.bytes(), 8);
    }

    #[test]
    fn sql_that_remakes_a_name_unsettles_it() {
        let mut names = Names::new();
        let first = names.parse(Bytes::from_static(b"s"), prepared("select 1"));
        names.commit(first);
        names.will_run(RequestId(1), NameEffects::of_text(b"deallocate s; prepare s as delete from t"));
        assert_eq!(names.statement(b"s"), Found::Unsettled);
        names.answered_before(Some(RequestId(1)));
        assert_eq!(names.statement(b"s"), Found::Unsettled);
        names.ran(RequestId(1), NameEffects::of_tag(b"DEALLOCATE").or(NameEffects::of_tag(b"PREPARE")), false);
        names.answered_before(None);
        assert_eq!(names.statement(b"s"), Found::Unknown);
    }

    #[test]
    fn words_alone_change_nothing() {
        let mut names = Names::new();
        let first = names.parse(Bytes::from_static(b"s"), prepared("select 1"));
        names.commit(first);
        names.will_run(RequestId(1), NameEffects::of_text(b"select 'deallocate s; prepare s'"));
        names.ran(RequestId(1), NameEffects::of_tag(b"SELECT 1"), false);
        names.answered_before(None);
        assert_eq!(names.statement(b"s"), Found::Known(prepared("select 1")));
        names.will_run(RequestId(2), NameEffects::of_text(b"do 'deallocate s; prepare s'"));
        names.ran(RequestId(2), NameEffects::of_tag(b"DO"), false);
        names.answered_before(None);
        assert_eq!(names.statement(b"s"), Found::Unknown);
    }

    #[test]
    fn portals_end_with_the_transaction() {
        let mut names = Names::new();
        let portal = Arc::new(Portal { source: Source::Named(Bytes::from_static(b"q")), bind: Bytes::new() });
        let sequence = names.bind(Bytes::from_static(b"p"), portal.clone());
        names.commit(sequence);
        names.ready(true);
        assert_eq!(names.portal(b"p"), Found::Known(portal));
        names.ready(false);
        assert_eq!(names.portal(b"p"), Found::Unknown);
    }
}
