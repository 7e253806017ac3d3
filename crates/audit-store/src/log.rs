//! Reading the log: chunks in the database, leaves in the chunks.

use crate::db::{Db, Opened, failure};
use crate::decode::{self, Decoded};
use crate::journal::Tail;
use crate::options::Family;
use crate::wire::DecodeError;
use proxy_core::StoreError;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};

/// The leaves of one chunk, in order: each stands after its length, two bytes, big-endian
/// (C2SP tlog-tiles' form of an entry bundle).
pub(crate) struct Leaves<'a> {
    rest: &'a [u8],
}

impl<'a> Leaves<'a> {
    pub(crate) fn new(chunk: &'a [u8]) -> Self {
        Self { rest: chunk }
    }
}

impl<'a> Iterator for Leaves<'a> {
    type Item = Result<&'a [u8], DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let taken = self
            .rest
            .split_first_chunk::<2>()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(u16::from_be_bytes(*length))));
        let Some((leaf, rest)) = taken else {
            self.rest = &[];
            return Some(Err(DecodeError::Truncated));
        };
        self.rest = rest;
        Some(Ok(leaf))
    }
}

/// Appends the leaf at `index`, after its length, as [`Leaves`] reads it.
pub(crate) fn put_leaf(out: &mut Vec<u8>, index: u64, leaf: &[u8]) -> Result<(), StoreError> {
    let length = u16::try_from(leaf.len()).map_err(|_| damaged(index, &DecodeError::Truncated))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(leaf);
    Ok(())
}

/// What is wrong with the entry at `index`.
pub(crate) fn damaged(index: u64, what: &DecodeError) -> StoreError {
    StoreError::Corrupt(format!("entry {index}: {what}"))
}

fn chunk_key(key: Option<&[u8]>) -> Result<u64, StoreError> {
    let bytes = key.and_then(|key| <[u8; 8]>::try_from(key).ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| StoreError::Corrupt("a key of the log is not 8 bytes long".to_owned()))
}

/// Walks over chunks: those of the database, then those of the journal that it lacks.
pub(crate) struct Chunks<'d> {
    cursor: DBRawIteratorWithThreadMode<'d, DB>,
    tail: &'d Tail,
    /// Where in the tail; `None`: in the database.
    place: Option<usize>,
}

impl<'d> Chunks<'d> {
    pub(crate) fn new(db: &'d Db, read_ahead: bool) -> Result<Self, StoreError> {
        let mut options = ReadOptions::default();
        if read_ahead {
            options.set_readahead_size(2 << 20);
            options.fill_cache(false);
        }
        Ok(Self { cursor: db.cursor(Family::Entries, options)?, tail: db.tail(), place: None })
    }

    /// Moves to the chunk that has `index`, or else to the first after it.
    pub(crate) fn seek(&mut self, index: u64) -> Result<(), StoreError> {
        self.place = self.tail.chunks.partition_point(|(first, ..)| *first <= index).checked_sub(1);
        if self.place.is_some() {
            return Ok(());
        }
        self.cursor.seek_for_prev(index.to_be_bytes());
        if !self.cursor.valid() {
            self.check()?;
            self.cursor.seek_to_first();
        }
        self.check()?;
        self.enter_tail()
    }

    pub(crate) fn seek_last(&mut self) -> Result<(), StoreError> {
        self.place = self.tail.chunks.len().checked_sub(1);
        self.cursor.seek_to_last();
        self.check()
    }

    pub(crate) fn next(&mut self) -> Result<(), StoreError> {
        if let Some(place) = &mut self.place {
            *place += 1;
            return Ok(());
        }
        self.cursor.next();
        self.check()?;
        self.enter_tail()
    }

    /// Goes on in the tail where the database has no more, or what the tail has instead.
    fn enter_tail(&mut self) -> Result<(), StoreError> {
        if let Some(from) = self.tail.first()
            && (!self.cursor.valid() || chunk_key(self.cursor.key())? >= from)
        {
            self.place = Some(0);
        }
        Ok(())
    }

    pub(crate) fn back(&mut self) -> Result<(), StoreError> {
        match self.place {
            None => self.cursor.prev(),
            Some(place) if place > 0 => self.place = Some(place - 1),
            Some(_) => {
                self.place = None;
                self.cursor.seek_for_prev(self.tail.first().unwrap_or(0).to_be_bytes());
                if self.cursor.valid() && Some(chunk_key(self.cursor.key())?) == self.tail.first() {
                    self.cursor.prev();
                }
            }
        }
        self.check()
    }

    /// Index of the first leaf, and the leaves; `None` past either end.
    pub(crate) fn current(&self) -> Result<Option<(u64, &[u8])>, StoreError> {
        if let Some(place) = self.place {
            return Ok(self.tail.chunks.get(place).map(|(first, _, leaves)| (*first, &leaves[..])));
        }
        match self.cursor.value() {
            Some(value) if self.cursor.valid() => Ok(Some((chunk_key(self.cursor.key())?, value))),
            _ => Ok(None),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        self.cursor.status().map_err(|e| failure(&e))
    }
}

/// Whether a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Go {
    On,
    Stop,
}

/// Shows the leaves from `from` to before `to`, in order, without those that were destroyed.
pub(crate) fn scan(
    db: &Db,
    from: u64,
    to: u64,
    mut visit: impl FnMut(u64, &[u8]) -> Result<Go, StoreError>,
) -> Result<(), StoreError> {
    scan_all(db, from, to, |index, leaf| if leaf.is_empty() { Ok(Go::On) } else { visit(index, leaf) })
}

/// The same with those that were destroyed: they are empty.
pub(crate) fn scan_all(
    db: &Db,
    from: u64,
    to: u64,
    mut visit: impl FnMut(u64, &[u8]) -> Result<Go, StoreError>,
) -> Result<(), StoreError> {
    if from >= to {
        return Ok(());
    }
    let mut chunks = Chunks::new(db, to - from > 4_096)?;
    chunks.seek(from)?;
    let mut expected = from;
    while expected < to {
        let Some((first, chunk)) = chunks.current()? else {
            return Err(StoreError::Corrupt(format!("entries {expected} to {} are missing", to - 1)));
        };
        if first > expected {
            return Err(StoreError::Corrupt(format!("entries {expected} to {} are missing", first - 1)));
        }
        for (index, leaf) in (first..to).zip(Leaves::new(chunk)) {
            let leaf = leaf.map_err(|e| damaged(index, &e))?;
            if index < expected {
                continue;
            }
            expected = index + 1;
            if visit(index, leaf)? == Go::Stop {
                return Ok(());
            }
        }
        chunks.next()?;
    }
    Ok(())
}

/// Shows the leaves from before `before` down to `to`, the newest first, without those that were destroyed.
pub(crate) fn scan_back(
    db: &Db,
    before: u64,
    to: u64,
    mut visit: impl FnMut(u64, &[u8]) -> Result<Go, StoreError>,
) -> Result<(), StoreError> {
    let mut chunks = Chunks::new(db, false)?;
    let mut expected = before;
    if expected > to {
        chunks.seek(expected - 1)?;
    }
    while expected > to {
        let missing = || StoreError::Corrupt(format!("entry {} is missing", expected - 1));
        let Some((first, chunk)) = chunks.current()? else { return Err(missing()) };
        let leaves = (first..expected).zip(Leaves::new(chunk)).collect::<Vec<_>>();
        if leaves.last().is_none_or(|(index, _)| index + 1 != expected) {
            return Err(missing());
        }
        for (index, leaf) in leaves.into_iter().rev().take_while(|(index, _)| *index >= to) {
            expected = index;
            let leaf = leaf.map_err(|e| damaged(index, &e))?;
            if !leaf.is_empty() && visit(index, leaf)? == Go::Stop {
                return Ok(());
            }
        }
        chunks.back()?;
    }
    Ok(())
}

/// The index that the next entry would get.
pub(crate) fn end(db: &Db) -> Result<u64, StoreError> {
    let mut chunks = Chunks::new(db, false)?;
    chunks.seek_last()?;
    let Some((first, chunk)) = chunks.current()? else { return Ok(0) };
    let mut end = first;
    for leaf in Leaves::new(chunk) {
        leaf.map_err(|e| damaged(end, &e))?;
        end += 1;
    }
    Ok(end)
}

/// Entries that were on the disk and are missing: the first of them, and the first after them.
pub(crate) fn gap(db: &Db) -> Result<Option<(u64, u64)>, StoreError> {
    let (end, synced) = (end(db)?, db.synced()?);
    Ok((synced > end).then_some((end, synced)))
}

/// The same in words.
pub(crate) fn gap_words((first, next): (u64, u64)) -> String {
    format!("entries {first} to {} were on the disk and are missing", next - 1)
}

/// The leaf at `index`; `None`: past the end, or destroyed.
pub(crate) fn leaf(db: &Db, index: u64, end: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found = None;
    if index < end {
        scan(db, index, index + 1, |_, leaf| {
            found = Some(leaf.to_vec());
            Ok(Go::Stop)
        })?;
    }
    Ok(found)
}

/// The key of a payload.
pub(crate) fn payload_key(index: u64, field: u32) -> [u8; 9] {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&index.to_be_bytes());
    // Fields kept beside have numbers up to 14; where they are sealed, a bit is set besides.
    key[8] = u8::try_from(field).unwrap_or(u8::MAX);
    key
}

/// Reads a leaf together with what is kept beside it.
pub(crate) fn decode(db: &Db, index: u64, leaf: &[u8]) -> Result<Decoded, StoreError> {
    let mut sealed = Vec::new();
    let decoded = decode::decode(leaf, |commitment| match db.payload(index, commitment).map_err(Failed::Store)? {
        Opened::Gone => Ok(None),
        Opened::Open(payload) => Ok(Some(payload)),
        Opened::Sealed => {
            sealed.push(commitment.field);
            Ok(None)
        }
    });
    decoded.map(|decoded| Decoded { sealed, ..decoded }).map_err(|error: Failed| error.at(index))
}

/// Why a leaf could not be read with what is kept beside it.
pub(crate) enum Failed {
    Store(StoreError),
    Decode(DecodeError),
}

impl Failed {
    /// As it is told of the entry at `index`.
    pub(crate) fn at(self, index: u64) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Decode(error) => damaged(index, &error),
        }
    }
}

impl From<DecodeError> for Failed {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}
