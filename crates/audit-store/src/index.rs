//! The session index: derived from the log, behind it by at most half a second, and made anew from it.
//!
//! One turn reads the entries since the last one and writes, in one batch: the summary of each session that
//! had any; one list of indices for it; its place under principal, connection, verdict, object, policy and hour when
//! that is new; and how far the index has come. So the cost is one write for each active session and turn, not one
//! for each entry, and none on the way of a request. The same reading of an entry makes the segments (`find`).

use crate::db::Db;
use crate::decode::{self, Header};
use crate::find::SEGMENT;
use crate::find::segment::{self, Builder, Owners, Request};
use crate::find::terms::Term;
use crate::limits::{DECISIONS_SEEN_MAX, INDEX_PASS_MAX};
use crate::log::{self, Go};
use crate::options::Family;
use crate::session::SessionSummary;
use crate::wire::{DecodeError, put_varint, take_varint};
use hashbrown::hash_map::Entry as Slot;
use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use proxy_core::record::RecordedVerdict;
use proxy_core::{Event, SessionId, StoreError};
use rocksdb::WriteBatch;
use std::collections::BTreeSet;
use std::ops::Range;

/// The form of everything derived. Another one is made anew from the log.
const INDEX_FORMAT: &[u8] = b"3";
const INDEX_FORMAT_KEY: &[u8] = b"index-format";
const INDEXED_KEY: &[u8] = b"indexed";

/// Summaries of sessions that are kept in memory between turns.
const OPEN_KEPT_MAX: usize = 8_192;

/// One session's share of a turn.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) summary: SessionSummary,
    /// Indices of its entries in this turn.
    pub(crate) indices: Vec<u64>,
    /// As it was before; `None`: it is new.
    before: Option<Known>,
    /// Prefixes of the objects, policies and hours of its entries in this turn that were not seen before.
    terms: BTreeSet<Vec<u8>>,
    seen: Seen,
}

/// Hashes of what decisions said (facts and policies) of a session that was taken into account: a statement that runs again
/// has the very ones of before.
type Seen = HashSet<u64>;

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

/// Reads leaves into changes.
#[derive(Default)]
pub(crate) struct Gather {
    pub(crate) changes: HashMap<SessionId, Change>,
    hasher: DefaultHashBuilder,
}

impl Gather {
    /// Reads the leaves of `range`. `known` gives a session's summary before them, and what of it was seen; `also` is shown
    /// every leaf.
    pub(crate) fn read(
        &mut self,
        db: &Db,
        range: Range<u64>,
        mut known: impl FnMut(SessionId) -> Result<Option<(SessionSummary, Seen)>, StoreError>,
        mut also: impl FnMut(u64, &[u8], &Header, Option<&Request<'_>>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        log::scan(db, range.start, range.end, |index, leaf| {
            let header = decode::header(leaf).map_err(|e| log::damaged(index, &e))?;
            let request = Request::read(db, index, &header, leaf, &self.hasher)?;
            also(index, leaf, &header, request.as_ref())?;
            let Some((id, _)) = header.session else { return Ok(Go::On) };
            let change = match self.changes.entry(id) {
                Slot::Occupied(slot) => slot.into_mut(),
                Slot::Vacant(slot) => {
                    let (summary, seen) = known(id)?.unzip();
                    let before = summary.as_ref().map(Known::of);
                    let summary = summary.unwrap_or_else(|| SessionSummary::new(id, index, header.time));
                    let (indices, terms) = (Vec::new(), BTreeSet::new());
                    slot.insert(Change { summary, indices, before, terms, seen: seen.unwrap_or_default() })
                }
            };
            change.indices.push(index);
            let hour = Term::hour(header.time);
            if change.summary.entries == 0 || Term::hour(change.summary.last) != hour {
                change.terms.insert(hour.prefix());
            }
            if let Some(request) = &request {
                change.add_decision(request).map_err(|e| log::damaged(index, &e))?;
            }
            change.add(db, index, &header, leaf)?;
            Ok(Go::On)
        })
    }
}

impl Change {
    fn add(&mut self, db: &Db, index: u64, header: &Header, leaf: &[u8]) -> Result<(), StoreError> {
        let mut policies = Vec::new();
        self.summary.add(index, header, || {
            let event = log::decode(db, index, leaf)?.entry.event;
            if let Event::SessionStarted(started) = &event {
                policies.clone_from(&started.policies);
            }
            Ok(event)
        })?;
        self.terms.extend(policies.iter().map(|id| Term::Policy(id).prefix()));
        Ok(())
    }

    fn add_decision(&mut self, request: &Request<'_>) -> Result<(), DecodeError> {
        if self.seen.contains(&request.decision) {
            return Ok(());
        }
        if self.seen.len() >= DECISIONS_SEEN_MAX {
            self.seen.clear();
        }
        self.seen.insert(request.decision);
        request.fields.terms(|term| {
            self.terms.insert(term.prefix());
        })
    }

    /// Prefixes of that under which the session can be found that it could not be found under before.
    pub(crate) fn places(&self) -> impl Iterator<Item = Vec<u8>> {
        self.terms.iter().cloned().chain(new_places(self).into_iter().map(Term::prefix))
    }
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

/// Whether what is stored is of this version's form: also when nothing is stored.
pub(crate) fn is_ours(db: &Db) -> Result<bool, StoreError> {
    match db.get(Family::Meta, INDEX_FORMAT_KEY)? {
        Some(format) => Ok(format == INDEX_FORMAT),
        // A reader beside a gateway that has written no file yet.
        None => Ok(indexed(db)? == 0),
    }
}

/// The key of a list of a session's indices that begins with `first`.
pub(crate) fn list_key(id: SessionId, first: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&id.0);
    key[16..].copy_from_slice(&first.to_be_bytes());
    key
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
    open: HashMap<SessionId, (SessionSummary, Seen)>,
    gather: Gather,
    /// Entries that segments cover.
    covered: u64,
    /// The next segment; `None`: it is to be begun, with what it has already.
    building: Option<Builder>,
    owners: Owners,
}

impl Indexer {
    /// Goes on where the stored index ends. One that is ahead of the log (which lost its unsynced end in a
    /// power loss), or of another version's form, is of no use: it is made anew.
    pub(crate) fn open(db: &Db, end: u64) -> Result<Self, StoreError> {
        let next = indexed(db)?;
        if next > end {
            tracing::warn!("the index does not belong to this log: it is made anew");
            clear(db)?;
        } else if db.get(Family::Meta, INDEX_FORMAT_KEY)?.is_none_or(|format| format != INDEX_FORMAT) {
            if next > 0 {
                tracing::warn!(entries = end, "the index is missing, or of another version: it is made anew");
            }
            clear(db)?;
        }
        let (next, covered) = (indexed(db)?, segment::covered(db)?);
        let (open, gather, owners) = (HashMap::new(), Gather::default(), Owners::default());
        Ok(Self { next, open, gather, covered, building: None, owners })
    }

    /// Removes the whole index and begins anew.
    pub(crate) fn begin_anew(&mut self, db: &Db, end: u64) -> Result<(), StoreError> {
        clear(db)?;
        *self = Self::open(db, end)?;
        Ok(())
    }

    /// Makes the segments of these entries anew, as far as they are made.
    pub(crate) fn forget_texts(&mut self, db: &Db, entries: &[u64]) -> Result<(), StoreError> {
        // It may have some of them: what is left is read again.
        self.building = None;
        let segments: BTreeSet<u64> =
            entries.iter().filter(|index| **index < self.covered).map(|index| index / SEGMENT).collect();
        segments.into_iter().try_for_each(|segment| segment::rebuild(db, segment))
    }

    /// The first entry that is not in the index.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Indexes the entries up to before `end`, or the first of them. Entries before `synced` are on the disk.
    pub(crate) fn pass(&mut self, db: &Db, end: u64, synced: u64) -> Result<(), StoreError> {
        let mut building = match self.building.take() {
            Some(building) => building,
            None => self.begin_segment(db)?,
        };
        let to = end.min(self.next.saturating_add(INDEX_PASS_MAX)).min(self.covered + SEGMENT);
        self.gather.changes.clear();
        let open = &self.open;
        let known = |id| match open.get(&id) {
            Some(known) => Ok(Some(known.clone())),
            None => Ok(stored(db, id)?.map(|summary| (summary, Seen::default()))),
        };
        let also =
            |index, leaf: &[u8], header: &Header, request: Option<&Request<'_>>| building.add(db, index, leaf, header, request);
        self.gather.read(db, self.next..to, known, also)?;
        let changes = std::mem::take(&mut self.gather.changes);
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
        if self.next == self.covered + SEGMENT {
            building.seal(db, &mut self.owners)?;
            self.covered += SEGMENT;
        } else {
            self.building = Some(building);
        }
        Ok(())
    }

    /// Begins the segment that comes next with those of its entries that the session index has.
    fn begin_segment(&mut self, db: &Db) -> Result<Builder, StoreError> {
        // A kill, or a failed write, may have come between the two.
        while self.covered + SEGMENT <= self.next {
            let whole = self.covered..self.covered + SEGMENT;
            Builder::of(db, whole, &self.gather.hasher)?.seal(db, &mut self.owners)?;
            self.covered += SEGMENT;
        }
        Builder::of(db, self.covered..self.next, &self.gather.hasher)
    }

    fn remember(&mut self, changes: HashMap<SessionId, Change>) {
        if self.open.len() + changes.len() > OPEN_KEPT_MAX {
            self.open.clear();
        }
        for (id, change) in changes {
            if change.summary.ended.is_some() {
                self.open.remove(&id);
            } else if self.open.len() < OPEN_KEPT_MAX {
                self.open.insert(id, (change.summary, change.seen));
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
    db.put(batch, Family::BySession, &list_key(id, change.indices.first().copied().unwrap_or(0)), value)?;
    for mut key in change.places() {
        key.extend_from_slice(&id.0);
        db.put(batch, Family::Find, &key, &[])?;
    }
    Ok(())
}

/// Under what a session can be found that it could not be found before.
fn new_places(change: &Change) -> Vec<Term<'_>> {
    let summary = &change.summary;
    let now = Known::of(summary);
    let before = change.before.unwrap_or(Known { started: false, allowed: false, denied: false, held: false });
    let mut places = Vec::new();
    if now.started && !before.started {
        places.push(Term::Principal(&summary.principal));
        places.push(Term::Connection(&summary.connection));
    }
    let verdicts = [
        (now.allowed && !before.allowed, RecordedVerdict::Allow),
        (now.denied && !before.denied, RecordedVerdict::Deny),
        (now.held && !before.held, RecordedVerdict::Hold),
    ];
    places.extend(verdicts.into_iter().filter(|(new, _)| *new).map(|(_, verdict)| Term::Verdict(verdict)));
    places
}

/// Removes the whole index, segments too.
fn clear(db: &Db) -> Result<(), StoreError> {
    let mut batch = WriteBatch::default();
    for family in [Family::Sessions, Family::BySession, Family::Find, Family::Segments] {
        db.delete_all(&mut batch, family)?;
    }
    for place in [INDEXED_KEY, segment::SEGMENTS_KEY] {
        db.put(&mut batch, Family::Meta, place, &0u64.to_be_bytes())?;
    }
    db.put(&mut batch, Family::Meta, INDEX_FORMAT_KEY, INDEX_FORMAT)?;
    db.write(batch)
}
