//! Destroying contents: whole entries that have been kept long enough, or single fields. The log goes on to commit to them.
//!
//! Of an entry its hash stays in the tree (`tree.rs`), of a field its commitment in the leaf. What is destroyed is said by an
//! entry of the log before it is: a kill in between leaves an entry that says too much, and the next run says it again.
//!
//! [`AuditStore::destroy`] records and destroys; [`AuditStore::sweep`], once after all that was to go, sees to it that nothing
//! of it is left elsewhere, and that it is gone from the disk.

use crate::db::Db;
use crate::decode::{self, Commitment, Header};
use crate::find::SEGMENT;
use crate::index;
use crate::kind::EventKind;
use crate::log::{self, Go};
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
    /// Destroys what `selection` names, as far as one call goes; records it first. It is gone from the disk after
    /// [`AuditStore::sweep`].
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
            let found = match Wanted::read(index, leaf)? {
                None => 0,
                // What follows was made later as well, as far as the clock went forward.
                Some(wanted) if selection.before.is_some_and(|before| wanted.header.time >= before) => return Ok(Go::Stop),
                Some(wanted) => matches.contents(&wanted)?.len() as u64,
            };
            next = index + 1;
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
        Ok(Progress { next, done, contents })
    }

    /// Sees to it that what was destroyed among the entries of `range` is nowhere any more: not in the journal, not in the
    /// index by texts, not in the database's files, whose space is given back. It takes long where they are many.
    ///
    /// # Errors
    /// [`StoreError`]: some may be left. Do it again.
    pub fn sweep(&self, range: Range<u64>) -> Result<(), StoreError> {
        self.erase_journal()?;
        let end = range.end.min(self.stored());
        // One of each segment.
        let segments: Vec<u64> = (range.start / SEGMENT..end.div_ceil(SEGMENT)).map(|segment| segment * SEGMENT).collect();
        self.forget_texts(&segments)?;
        self.database()?.compact(range)
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
            let wanted = if (from..to).contains(&index) { Wanted::read(index, leaf)? } else { None };
            let contents = wanted.map_or(Ok(Vec::new()), |wanted| matches.contents(&wanted))?;
            for content in &contents {
                match content {
                    Content::Field(field) => db.delete_payload(&mut batch, index, *field)?,
                    Content::Entry => {
                        keep_leaf_hash(db, &mut batch, index, leaf)?;
                        for commitment in commitments(index, leaf)? {
                            db.delete_payload(&mut batch, index, commitment.field)?;
                        }
                    }
                }
            }
            let gone = contents.contains(&Content::Entry);
            changed |= gone;
            log::put_leaf(&mut rewritten, index, if gone { &[] } else { leaf })?;
        }
        if changed {
            db.put(&mut batch, Family::Entries, &first.to_be_bytes(), &rewritten)?;
        }
        chunks.next()?;
    }
    db.write(batch)
}

fn commitments(index: u64, leaf: &[u8]) -> Result<Vec<Commitment>, StoreError> {
    decode::commitments(leaf).map_err(|error| log::damaged(index, &error))
}

/// An entry that is there.
struct Wanted<'l> {
    index: u64,
    leaf: &'l [u8],
    header: Header,
}

impl<'l> Wanted<'l> {
    /// `None`: it was destroyed before.
    fn read(index: u64, leaf: &'l [u8]) -> Result<Option<Self>, StoreError> {
        if leaf.is_empty() {
            return Ok(None);
        }
        let header = decode::header(leaf).map_err(|error| log::damaged(index, &error))?;
        Ok(Some(Self { index, leaf, header }))
    }
}

/// What of an entry is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// All of it.
    Entry,
    /// A field that is kept beside.
    Field(u32),
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

    /// What of an entry is selected, and is there.
    fn contents(&mut self, wanted: &Wanted<'_>) -> Result<Vec<Content>, StoreError> {
        let selection = self.selection;
        if !self.selects(&wanted.header)? {
            return Ok(Vec::new());
        }
        if selection.fields.is_empty() {
            return Ok(vec![Content::Entry]);
        }
        let mut contents = Vec::new();
        for commitment in commitments(wanted.index, wanted.leaf)? {
            let name = wanted.header.kind.field_name(commitment.field);
            if selection.fields.iter().any(|field| field == name)
                && self.db.stored_payload(wanted.index, commitment.field)?.is_some()
            {
                contents.push(Content::Field(commitment.field));
            }
        }
        Ok(contents)
    }

    /// Whether an entry is selected, whatever it holds.
    fn selects(&mut self, header: &Header) -> Result<bool, StoreError> {
        let selection = self.selection;
        if KEPT.contains(&header.kind) || !(selection.kinds.is_empty() || selection.kinds.contains(&header.kind)) {
            return Ok(false);
        }
        let session = header.session.map(|(session, _)| session);
        if selection.session.is_some() && session != selection.session {
            return Ok(false);
        }
        let Some(session) = session else { return Ok(selection.connection.is_none()) };
        if selection.held_sessions.contains(&session) {
            return Ok(false);
        }
        if selection.connection.is_none() && selection.held_connections.is_empty() {
            return Ok(true);
        }
        let connection = self.connection(session)?;
        let other = selection.connection.as_ref().is_some_and(|wanted| *wanted != connection);
        Ok(!other && !selection.held_connections.contains(&connection))
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
