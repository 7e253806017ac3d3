//! Destroying contents: whole entries that have been kept long enough, or single fields. The log goes on to commit to them.
//!
//! Of an entry its hash stays in the tree (`tree.rs`), of a field its commitment in the leaf. What is destroyed is said by an
//! entry of the log before it is: a kill in between leaves an entry that says too much, and the next run says it again.

use crate::db::Db;
use crate::decode;
use crate::find::SEGMENT;
use crate::index;
use crate::kind::EventKind;
use crate::log::{self, Go, payload_key};
use crate::options::Family;
use crate::store::AuditStore;
use crate::tree::keep_leaf_hash;
use hashbrown::HashMap;
use proxy_core::record::Destroyed;
use proxy_core::{Entry, Event, SessionId, Store, StoreError, Timestamp};
use rocksdb::WriteBatch;
use std::ops::Range;

/// Entries that one record covers at most, and one call looks at.
const PASS_MAX: u64 = 1 << 20;

/// Entries that are rewritten at once.
const WRITE_MAX: u64 = 4_096;

/// Sessions whose connections are remembered.
const SESSIONS_MAX: usize = 65_536;

/// Kinds that are never destroyed: without them nobody could tell what the rest is.
const KEPT: [EventKind; 2] = [EventKind::LogKey, EventKind::Destroyed];

/// What is to be destroyed, by whom, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The rule, in words.
    pub rule: String,
    /// Who, or `gateway`.
    pub by: String,
    /// Their reason.
    pub reason: Option<String>,
    /// Of these entries; what there are of them.
    pub range: Range<u64>,
    /// Made before this time; `None`: at any.
    pub before: Option<Timestamp>,
    /// Of this session; `None`: of all, and of none.
    pub session: Option<SessionId>,
    /// Of sessions on this connection; `None`: all entries.
    pub connection: Option<String>,
    /// Of these kinds; empty: of any.
    pub kinds: Vec<EventKind>,
    /// Fields that are kept beside, by their names; empty: whole entries.
    pub fields: Vec<String>,
    /// Of these sessions nothing is destroyed.
    pub held_sessions: Vec<SessionId>,
    /// On these connections nothing is destroyed.
    pub held_connections: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where to go on: everything before has been looked at.
    pub next: u64,
    /// Whether that is the end of what there is to be destroyed now.
    pub done: bool,
    /// Contents that were destroyed.
    pub contents: u64,
}

impl AuditStore {
    /// Destroys what `selection` names, as far as one call goes; records it first. Entries that are not in the database yet
    /// stay. Files still have it, and its space is taken, until
    /// [`AuditStore::compact`].
    ///
    /// # Errors
    /// [`StoreError`]: some of it may have been destroyed; the record says all of it.
    pub fn destroy(&self, selection: &Selection, now: Timestamp) -> Result<Progress, StoreError> {
        let db = self.database()?;
        let stored = self.stored();
        let to = selection.range.end.min(stored).min(selection.range.start.saturating_add(PASS_MAX));
        let mut matches = Matches::new(&db, selection);
        let (mut next, mut contents, mut first) = (selection.range.start, 0, None);
        let mut last = selection.range.start;
        log::scan_all(&db, selection.range.start, to, |index, leaf| {
            if !leaf.is_empty() && matches.is_younger(index, leaf)? {
                return Ok(Go::Stop);
            }
            next = index + 1;
            let found = matches.count(index, leaf)?;
            if found > 0 {
                contents += found;
                first.get_or_insert(index);
                last = index + 1;
            }
            Ok(Go::On)
        })?;
        let done = next < to || to == selection.range.end.min(stored);
        let Some(first) = first else { return Ok(Progress { next, done, contents: 0 }) };
        let record = Destroyed {
            rule: selection.rule.clone(),
            by: selection.by.clone(),
            reason: selection.reason.clone(),
            first,
            next: last,
            connection: selection.connection.clone(),
            kinds: selection.kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
            fields: selection.fields.clone(),
            contents,
        };
        self.append(&[Entry { time: now, session: None, event: Event::Destroyed(Box::new(record)) }])?;
        self.sync()?;
        let mut from = first;
        while from < last {
            let to = last.min(from.saturating_add(WRITE_MAX));
            // No entries are moved meanwhile, and the database is not opened anew.
            self.undisturbed(|| rewrite(&db, &mut matches, from, to))?;
            from = to;
        }
        self.erase_journal()?;
        // One of each segment: nothing of what is gone can be found by its text.
        let segments: Vec<u64> = (first / SEGMENT..=(last - 1) / SEGMENT).map(|segment| segment * SEGMENT).collect();
        self.forget_texts(&segments)?;
        Ok(Progress { next, done, contents })
    }
}

/// Destroys in the database what of `from..to` is selected.
fn rewrite(db: &Db, matches: &mut Matches<'_>, from: u64, to: u64) -> Result<(), StoreError> {
    let mut batch = WriteBatch::default();
    let mut chunks = log::Chunks::new(db, false)?;
    chunks.seek(from)?;
    while let Some((first, chunk)) = chunks.current()? {
        if first >= to {
            break;
        }
        let (mut changed, mut rewritten) = (false, Vec::with_capacity(chunk.len()));
        for (index, leaf) in (first..).zip(log::Leaves::new(chunk)) {
            let leaf = leaf.map_err(|error| log::damaged(index, &error))?;
            let selected = (from..to).contains(&index) && matches.count(index, leaf)? > 0;
            if selected {
                for commitment in decode::commitments(leaf).map_err(|error| log::damaged(index, &error))? {
                    if matches.takes(leaf, commitment.field) {
                        db.delete(&mut batch, Family::Payload, &payload_key(index, commitment.field))?;
                    }
                }
            }
            if selected && matches.selection.fields.is_empty() {
                keep_leaf_hash(db, &mut batch, index, leaf)?;
                rewritten.extend_from_slice(&[0, 0]);
                changed = true;
            } else {
                rewritten.extend_from_slice(&u16::try_from(leaf.len()).unwrap_or(u16::MAX).to_be_bytes());
                rewritten.extend_from_slice(leaf);
            }
        }
        if changed {
            db.put(&mut batch, Family::Entries, &first.to_be_bytes(), &rewritten)?;
        }
        chunks.next()?;
    }
    db.write(batch)
}

/// A selection at work.
struct Matches<'d> {
    db: &'d Db,
    selection: &'d Selection,
    /// Connections of sessions.
    known: HashMap<SessionId, String>,
}

impl<'d> Matches<'d> {
    fn new(db: &'d Db, selection: &'d Selection) -> Self {
        Self { db, selection, known: HashMap::new() }
    }

    /// Whether an entry was made too late to be destroyed: what follows it was as well, as far as the clock went forward.
    fn is_younger(&self, index: u64, leaf: &[u8]) -> Result<bool, StoreError> {
        let header = decode::header(leaf).map_err(|error| log::damaged(index, &error))?;
        Ok(self.selection.before.is_some_and(|before| header.time >= before))
    }

    /// How many contents of the entry are selected: 1 for a whole entry.
    fn count(&mut self, index: u64, leaf: &[u8]) -> Result<u64, StoreError> {
        if leaf.is_empty() {
            return Ok(0);
        }
        let header = decode::header(leaf).map_err(|error| log::damaged(index, &error))?;
        let selection = self.selection;
        if KEPT.contains(&header.kind) || !(selection.kinds.is_empty() || selection.kinds.contains(&header.kind)) {
            return Ok(0);
        }
        if selection.session.is_some() && header.session.map(|(session, _)| session) != selection.session {
            return Ok(0);
        }
        match header.session {
            None if selection.connection.is_some() => return Ok(0),
            None => {}
            Some((session, _)) => {
                if selection.held_sessions.contains(&session) {
                    return Ok(0);
                }
                if selection.connection.is_some() || !selection.held_connections.is_empty() {
                    let connection = self.connection(session)?;
                    if selection.held_connections.contains(&connection)
                        || selection.connection.as_ref().is_some_and(|wanted| *wanted != connection)
                    {
                        return Ok(0);
                    }
                }
            }
        }
        if selection.fields.is_empty() {
            return Ok(1);
        }
        let mut count = 0;
        for commitment in decode::commitments(leaf).map_err(|error| log::damaged(index, &error))? {
            if self.takes(leaf, commitment.field) && self.db.payload(index, commitment.field)?.is_some() {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether a field is selected.
    fn takes(&self, leaf: &[u8], field: u32) -> bool {
        let name = decode::header(leaf).map(|header| header.kind.field_name(field)).unwrap_or_default();
        self.selection.fields.is_empty() || self.selection.fields.iter().any(|wanted| wanted == name)
    }

    fn connection(&mut self, session: SessionId) -> Result<String, StoreError> {
        if let Some(known) = self.known.get(&session) {
            return Ok(known.clone());
        }
        let connection = index::stored(self.db, session)?.map(|summary| summary.connection).unwrap_or_default();
        if self.known.len() >= SESSIONS_MAX {
            self.known.clear();
        }
        self.known.insert(session, connection.clone());
        Ok(connection)
    }
}
