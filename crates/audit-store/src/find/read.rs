//! Reading what a search needs, in the order in which it asks.

use super::bits::Bits;
use super::segment::Head;
use super::{head_key, key};
use crate::db::{Db, failure};
use crate::log::{self, Chunks, Leaves};
use crate::options::Family;
use proxy_core::StoreError;
use rocksdb::{DBRawIterator, ReadOptions};
use std::ops::Range;

/// Where a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// The entries of a segment that have one of these values; `None`: there are none.
pub(crate) fn union(db: &Db, segment: u64, any: &[u64]) -> Result<Option<Bits>, StoreError> {
    let mut union: Option<Bits> = None;
    for hash in any {
        let Some(stored) = db.get(Family::Segments, &key(segment, b'B', &hash.to_be_bytes()))? else { continue };
        let damaged = |_| StoreError::Corrupt("the index of a value: run `sallyport audit reindex`".to_owned());
        let set = Bits::decode(&stored).map_err(damaged)?;
        match &mut union {
            Some(union) => union.or(&set),
            None => union = Some(set),
        }
    }
    Ok(union)
}

/// Times and rows of segments that are asked for one after the other.
pub(crate) struct Heads<'d> {
    cursor: DBRawIterator<'d>,
    way: Way,
}

impl<'d> Heads<'d> {
    pub(crate) fn new(db: &'d Db, way: Way) -> Result<Self, StoreError> {
        Ok(Self { cursor: db.cursor(Family::Find, ReadOptions::default())?, way })
    }

    /// `None`: it is not made.
    pub(crate) fn get(&mut self, segment: u64) -> Result<Option<Head>, StoreError> {
        let wanted = head_key(segment);
        if self.cursor.valid() && self.cursor.key() != Some(&wanted[..]) {
            match self.way {
                Way::Up => self.cursor.next(),
                Way::Down => self.cursor.prev(),
            }
        }
        if self.cursor.key() != Some(&wanted[..]) {
            self.cursor.seek(wanted);
        }
        self.cursor.status().map_err(|e| failure(&e))?;
        match self.cursor.item() {
            Some((found, value)) if found == wanted => Head::read(value).map(Some),
            _ => Ok(None),
        }
    }
}

/// Reads leaves that are asked for one after the other: mostly of the chunk of the one before, or of the next.
pub(crate) struct LeafReader<'d> {
    chunks: Chunks<'d>,
    way: Way,
    /// First index of the chunk, and where its leaves are.
    first: u64,
    places: Vec<Range<usize>>,
}

impl<'d> LeafReader<'d> {
    pub(crate) fn new(db: &'d Db, way: Way) -> Result<Self, StoreError> {
        Ok(Self { chunks: Chunks::new(db, false)?, way, first: 0, places: Vec::new() })
    }

    /// The leaf at `index`, which the log has; empty where it was destroyed.
    pub(crate) fn leaf(&mut self, index: u64) -> Result<&[u8], StoreError> {
        if !self.has(index) && !self.places.is_empty() {
            match self.way {
                Way::Up => self.chunks.next()?,
                Way::Down => self.chunks.back()?,
            }
            self.look()?;
        }
        if !self.has(index) {
            self.chunks.seek(index)?;
            self.look()?;
        }
        let place = usize::try_from(index.wrapping_sub(self.first)).ok().and_then(|nth| self.places.get(nth));
        let chunk = self.chunks.current()?.map(|(_, chunk)| chunk);
        let leaf = place.and_then(|place| chunk?.get(place.clone()));
        leaf.ok_or_else(|| StoreError::Corrupt(format!("entry {index} is missing")))
    }

    fn has(&self, index: u64) -> bool {
        index >= self.first && index - self.first < self.places.len() as u64
    }

    fn look(&mut self) -> Result<(), StoreError> {
        self.places.clear();
        let Some((first, chunk)) = self.chunks.current()? else { return Ok(()) };
        self.first = first;
        let mut at = 0;
        for (index, leaf) in (first..).zip(Leaves::new(chunk)) {
            let leaf = leaf.map_err(|e| log::damaged(index, &e))?;
            // Each stands after its length, two bytes.
            self.places.push(at + 2..at + 2 + leaf.len());
            at += 2 + leaf.len();
        }
        Ok(())
    }
}
