//! The session index: derived from the log, behind it by at most half a second, and made anew from it.
//!
//! One turn reads the entries since the last one and writes, in one batch: the summary of each session that
//! had any; one list of indices for it; its place under principal, connection and verdict when that is new;
//! and how far the index has come. So the cost is one write for each active session and turn, not one for
//! each entry, and none on the way of a request.

use crate::db::Db;
use crate::decode::{self, Header};
use crate::limits::INDEX_PASS_MAX;
use crate::log::{self, Go};
use crate::options::Family;
use crate::session::SessionSummary;
use crate::wire::{put_varint, take_varint};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;
use proxy_core::record::RecordedVerdict;
use proxy_core::{SessionId, StoreError};
use rocksdb::WriteBatch;

const INDEXED_KEY: &[u8] = b"indexed";

/// Summaries of sessions that are kept in memory between turns.
const OPEN_KEPT_MAX: usize = 8_192;

/// What a session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Find<'a> {
    Principal(&'a str),
    Connection(&'a str),
    Verdict(RecordedVerdict),
}

impl Find<'_> {
    /// What all keys of it begin with: sort, length of the value (4 bytes, big-endian), value.
    pub(crate) fn prefix(self) -> Vec<u8> {
        let (sort, value) = match self {
            Find::Principal(id) => (b'p', id),
            Find::Connection(name) => (b'c', name),
            Find::Verdict(verdict) => (b'v', verdict.as_str()),
        };
        let mut key = Vec::with_capacity(5 + value.len() + 16);
        key.push(sort);
        key.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        key.extend_from_slice(value.as_bytes());
        key
    }
}

/// One session's share of a turn.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) summary: SessionSummary,
    /// Indices of its entries in this turn.
    pub(crate) indices: Vec<u64>,
    /// As it was before; `None`: it is new.
    before: Option<Known>,
}

/// Under what a session can already be found.
#[derive(Debug, Clone, Copy)]
struct Known {
    started: bool,
    allowed: bool,
    denied: bool,
    held: bool,
}

impl Known {
    fn of(summary: &SessionSummary) -> Self {
        Self {
            started: !summary.connection.is_empty(),
            allowed: summary.count(RecordedVerdict::Allow) > 0,
            denied: summary.denied > 0,
            held: summary.held > 0,
        }
    }
}

/// Reads the leaves from `from` to before `to` into `changes`. `known` gives a session's summary before them.
pub(crate) fn gather(
    db: &Db,
    from: u64,
    to: u64,
    changes: &mut HashMap<SessionId, Change>,
    mut known: impl FnMut(SessionId) -> Result<Option<SessionSummary>, StoreError>,
) -> Result<(), StoreError> {
    log::scan(db, from, to, |index, leaf| {
        let header = decode::header(leaf).map_err(|e| log::damaged(index, &e))?;
        let Some((id, _)) = header.session else { return Ok(Go::On) };
        let change = match changes.entry(id) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                let summary = known(id)?;
                let before = summary.as_ref().map(Known::of);
                let summary = summary.unwrap_or_else(|| SessionSummary::new(id, index, header.time));
                slot.insert(Change { summary, indices: Vec::new(), before })
            }
        };
        change.indices.push(index);
        add(db, &mut change.summary, index, &header, leaf)?;
        Ok(Go::On)
    })
}

fn add(db: &Db, summary: &mut SessionSummary, index: u64, header: &Header, leaf: &[u8]) -> Result<(), StoreError> {
    summary.add(index, header, || log::decode(db, index, leaf).map(|decoded| decoded.entry.event))
}

/// The summary of `id` as stored.
pub(crate) fn stored(db: &Db, id: SessionId) -> Result<Option<SessionSummary>, StoreError> {
    let Some(bytes) = db.get(Family::Sessions, &id.0)? else { return Ok(None) };
    SessionSummary::decode(id, &bytes).map(Some).map_err(|e| StoreError::Corrupt(format!("the summary of session {id}: {e}")))
}

/// How far the stored index has come.
pub(crate) fn indexed(db: &Db) -> Result<u64, StoreError> {
    db.place(INDEXED_KEY, "the index's place")
}

/// Indices as a list: the first in the key, then the steps.
pub(crate) fn put_indices(indices: &[u64], out: &mut Vec<u8>) {
    for pair in indices.windows(2) {
        put_varint(out, pair[1] - pair[0]);
    }
}

/// The inverse of [`put_indices`].
pub(crate) fn take_indices(first: u64, mut steps: &[u8], out: &mut Vec<u64>) -> Result<(), StoreError> {
    let damaged = || StoreError::Corrupt(format!("the session index at entry {first}"));
    let mut at = first;
    out.push(at);
    while !steps.is_empty() {
        let step = take_varint(&mut steps).map_err(|_| damaged())?;
        at = at.checked_add(step).ok_or_else(damaged)?;
        out.push(at);
    }
    Ok(())
}

/// Keeps the index. One at a time.
pub(crate) struct Indexer {
    next: u64,
    open: HashMap<SessionId, SessionSummary>,
}

impl Indexer {
    /// Goes on where the stored index ends. One that is ahead of the log (which lost its unsynced end in a
    /// power loss) is of no use: it is made anew.
    pub(crate) fn open(db: &Db, end: u64) -> Result<Self, StoreError> {
        let mut next = indexed(db)?;
        if next > end {
            clear(db)?;
            next = 0;
        }
        Ok(Self { next, open: HashMap::new() })
    }

    /// The first entry that is not in the index.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Indexes the entries up to before `end`, or the first of them. Entries before `synced` are on the disk.
    pub(crate) fn pass(&mut self, db: &Db, end: u64, synced: u64) -> Result<(), StoreError> {
        let to = end.min(self.next.saturating_add(INDEX_PASS_MAX));
        let mut changes = HashMap::new();
        let open = &self.open;
        gather(db, self.next, to, &mut changes, |id| match open.get(&id) {
            Some(summary) => Ok(Some(summary.clone())),
            None => stored(db, id),
        })?;
        let mut batch = WriteBatch::default();
        let mut value = Vec::new();
        for (id, change) in &changes {
            put_change(db, &mut batch, *id, change, &mut value)?;
        }
        db.put(&mut batch, Family::Meta, INDEXED_KEY, &to.to_be_bytes())?;
        db.put_synced(&mut batch, synced)?;
        db.write(batch)?;
        self.next = to;
        self.remember(changes);
        Ok(())
    }

    fn remember(&mut self, changes: HashMap<SessionId, Change>) {
        if self.open.len() + changes.len() > OPEN_KEPT_MAX {
            self.open.clear();
        }
        for (id, change) in changes {
            if change.summary.ended.is_some() {
                self.open.remove(&id);
            } else if self.open.len() < OPEN_KEPT_MAX {
                self.open.insert(id, change.summary);
            }
        }
    }
}

fn put_change(db: &Db, batch: &mut WriteBatch, id: SessionId, change: &Change, value: &mut Vec<u8>) -> Result<(), StoreError> {
    value.clear();
    change.summary.encode(value);
    db.put(batch, Family::Sessions, &id.0, value)?;
    value.clear();
    put_indices(&change.indices, value);
    let mut key = [0; 24];
    key[..16].copy_from_slice(&id.0);
    key[16..].copy_from_slice(&change.indices.first().copied().unwrap_or(0).to_be_bytes());
    db.put(batch, Family::BySession, &key, value)?;
    for find in new_places(change) {
        let mut key = find.prefix();
        key.extend_from_slice(&id.0);
        db.put(batch, Family::Find, &key, &[])?;
    }
    Ok(())
}

/// Under what a session can be found that it could not be found before.
fn new_places(change: &Change) -> Vec<Find<'_>> {
    let summary = &change.summary;
    let now = Known::of(summary);
    let before = change.before.unwrap_or(Known { started: false, allowed: false, denied: false, held: false });
    let mut places = Vec::new();
    if now.started && !before.started {
        places.push(Find::Principal(&summary.principal));
        places.push(Find::Connection(&summary.connection));
    }
    let verdicts = [
        (now.allowed && !before.allowed, RecordedVerdict::Allow),
        (now.denied && !before.denied, RecordedVerdict::Deny),
        (now.held && !before.held, RecordedVerdict::Hold),
    ];
    places.extend(verdicts.into_iter().filter(|(new, _)| *new).map(|(_, verdict)| Find::Verdict(verdict)));
    places
}

/// Removes the whole index.
fn clear(db: &Db) -> Result<(), StoreError> {
    tracing::warn!("the session index does not belong to this log: it is made anew");
    let mut batch = WriteBatch::default();
    for family in [Family::Sessions, Family::BySession, Family::Find] {
        db.delete_all(&mut batch, family)?;
    }
    db.put(&mut batch, Family::Meta, INDEXED_KEY, &0u64.to_be_bytes())?;
    db.write(batch)
}
