//! The Merkle tree over the log: which of its hashes are kept, and how the others are computed.
//!
//! Kept are the hashes of complete subtrees of 256, 65,536, 16,777,216 … leaves: what the tiles above the lowest hold, 32
//! bytes for 256 entries. They are written together with the entries that complete them. The hashes of leaves are computed
//! from the leaves: 256 of them take less time than their 8 KiB would take to be read.
//!
//! Of a leaf that was destroyed, the hash is all that is left: it is kept (level 0), and derived from nothing.
//!
//! Derived: where other hashes are missing, they are computed from the log when it is opened.

use crate::db::{Db, failure};
use crate::log::{self, Go, Leaves};
use crate::options::Family;
use proxy_core::StoreError;
use rocksdb::{ReadOptions, WriteBatch};
use std::collections::VecDeque;
use std::ops::Range;
use tlog::merkle::{self, Frontier, Hash, Node, leaf_hash};
use tlog::tile::{Content, HEIGHT, Tile, WIDTH, hash_over, hashes_of};

/// Entries that opening hashes between two writes (bounds its memory).
const CATCH_UP: u64 = 1 << 20;

/// Levels of tiles that hashes are kept of: 1 to 7; a higher one would have more than 2^64 entries below it.
const LEVELS: std::ops::RangeInclusive<u8> = 1..=7;

/// The key of the hash at `index` of a level of tiles.
fn key(level: u8, index: u64) -> [u8; 9] {
    let mut key = [level; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The hash of the leaf at `index`; of one that was destroyed, the one that was kept.
pub(crate) fn leaf_hash_at(db: &Db, index: u64, leaf: &[u8]) -> Result<Hash, StoreError> {
    if !leaf.is_empty() {
        return Ok(leaf_hash(leaf));
    }
    let kept = kept_hash(db, Node { level: 0, index })?;
    kept.ok_or_else(|| StoreError::Corrupt(format!("entry {index} was destroyed, and its hash is missing")))
}

/// Keeps the hash of a leaf that is about to be destroyed.
pub(crate) fn keep_leaf_hash(db: &Db, batch: &mut WriteBatch, index: u64, leaf: &[u8]) -> Result<(), StoreError> {
    db.put(batch, Family::Tree, &key(0, index), &leaf_hash(leaf))
}

/// The tree of what is in the database, for whoever adds to it.
#[derive(Debug)]
pub(crate) struct Tree {
    frontier: Frontier,
}

impl Tree {
    /// The tree of the first `end` entries. Hashes that are missing are computed, and written; those of entries that the log
    /// has lost are removed.
    pub(crate) fn open(db: &Db, end: u64) -> Result<Self, StoreError> {
        let kept = kept(db)?;
        if kept > end {
            let mut batch = WriteBatch::default();
            for level in LEVELS {
                let first = end >> (u32::from(HEIGHT) * u32::from(level));
                db.delete_range(&mut batch, Family::Tree, &key(level, first), &key(level + 1, 0))?;
            }
            db.write(batch)?;
        }
        let kept = kept.min(end / WIDTH * WIDTH);
        let mut hashes = Hashes::new(db, end);
        let edge = merkle::edge(kept).map(|node| hashes.node(node)).collect::<Result<Vec<_>, _>>()?;
        let frontier = Frontier::restore(kept, edge);
        let mut tree = Self { frontier: frontier.ok_or_else(|| StoreError::Corrupt("the tree's edge".to_owned()))? };
        if end - kept > CATCH_UP {
            tracing::info!(entries = end - kept, "the log's tree is computed anew");
        }
        while tree.size() < end {
            let mut batch = WriteBatch::default();
            let to = end.min(tree.size().saturating_add(CATCH_UP));
            let mut completed = Vec::new();
            log::scan_all(db, tree.size(), to, |index, leaf| {
                tree.push(leaf_hash_at(db, index, leaf)?, &mut completed);
                Ok(Go::On)
            })?;
            put(db, &mut batch, &completed)?;
            db.write(batch)?;
        }
        Ok(tree)
    }

    /// Entries that it has.
    pub(crate) fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Its root.
    pub(crate) fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Adds the leaves of a chunk; what they complete is put into `batch`, and their hashes are appended to `hashes`.
    pub(crate) fn add(
        &mut self,
        db: &Db,
        batch: &mut WriteBatch,
        chunk: &[u8],
        hashes: &mut Vec<Hash>,
    ) -> Result<(), StoreError> {
        let mut completed = Vec::new();
        for leaf in Leaves::new(chunk) {
            let leaf = leaf.map_err(|error| log::damaged(self.size(), &error))?;
            let hash = leaf_hash(leaf);
            hashes.push(hash);
            self.push(hash, &mut completed);
        }
        put(db, batch, &completed)
    }

    fn push(&mut self, leaf: Hash, completed: &mut Vec<([u8; 9], Hash)>) {
        self.frontier.push(leaf, |node, hash| {
            if node.level > 0 && node.level.is_multiple_of(HEIGHT) {
                completed.push((key(node.level / HEIGHT, node.index), *hash));
            }
        });
    }
}

/// Hashes of the last leaves, in memory: who publishes them a moment later need not compute them again.
#[derive(Debug)]
pub(crate) struct LeafHashes {
    /// The entry of the first.
    first: u64,
    hashes: VecDeque<Hash>,
    max: usize,
}

impl LeafHashes {
    /// Keeps `max` at most.
    pub(crate) fn new(max: usize) -> Self {
        Self { first: 0, hashes: VecDeque::new(), max }
    }

    /// Adds those from the entry `first` on, which are the next.
    pub(crate) fn add(&mut self, first: u64, hashes: &[Hash]) {
        if first != self.first + self.hashes.len() as u64 {
            self.hashes.clear();
            self.first = first;
        }
        self.hashes.extend(hashes);
        let surplus = self.hashes.len().saturating_sub(self.max);
        self.hashes.drain(..surplus);
        self.first += surplus as u64;
    }

    /// Appends those of `range` to `out`, if all are here.
    pub(crate) fn put(&self, range: &Range<u64>, out: &mut Vec<u8>) -> bool {
        if range.start < self.first || range.end > self.first + self.hashes.len() as u64 {
            return false;
        }
        let (from, to) = ((range.start - self.first) as usize, (range.end - self.first) as usize);
        self.hashes.range(from..to).for_each(|hash| out.extend_from_slice(hash));
        true
    }
}

fn put(db: &Db, batch: &mut WriteBatch, completed: &[([u8; 9], Hash)]) -> Result<(), StoreError> {
    completed.iter().try_for_each(|(key, hash)| db.put(batch, Family::Tree, key, hash))
}

/// Entries that the hashes which are kept cover: a multiple of 256.
fn kept(db: &Db) -> Result<u64, StoreError> {
    let mut cursor = db.cursor(Family::Tree, ReadOptions::default())?;
    cursor.seek_for_prev(key(1, u64::MAX));
    cursor.status().map_err(|error| failure(&error))?;
    let last = cursor.key().and_then(|key| key.strip_prefix(&[1])).and_then(|index| index.try_into().ok());
    let full = last.map_or(0, |last| u64::from_be_bytes(last).saturating_add(1));
    Ok(full.saturating_mul(WIDTH))
}

/// Reads hashes of the first `end` entries' tree: kept ones, and others from what is kept.
pub(crate) struct Hashes<'d> {
    db: &'d Db,
    end: u64,
    /// The tile of leaves that was computed last: paths need many hashes of one.
    leaves: Option<(u64, Vec<Hash>)>,
}

impl<'d> Hashes<'d> {
    pub(crate) fn new(db: &'d Db, end: u64) -> Self {
        Self { db, end, leaves: None }
    }

    /// The hash of a complete subtree.
    pub(crate) fn node(&mut self, node: Node) -> Result<Hash, StoreError> {
        let (level, tile, range) = hashes_of(node);
        let mut hashes = Vec::with_capacity(range.len());
        for at in range {
            hashes.push(self.hash(level, tile * WIDTH + at as u64)?);
        }
        hash_over(&hashes).ok_or_else(|| StoreError::Corrupt("a subtree without hashes".to_owned()))
    }

    /// The hash at `index` of a level of tiles.
    fn hash(&mut self, level: u8, index: u64) -> Result<Hash, StoreError> {
        if level == 0 {
            let hash = self.leaves_of(index / WIDTH)?.get(usize::try_from(index % WIDTH).unwrap_or(usize::MAX)).copied();
            return hash.ok_or_else(|| StoreError::Corrupt(format!("entry {index} is missing")));
        }
        if let Some(kept) = self.db.get(Family::Tree, &key(level, index))? {
            return kept.try_into().map_err(|_| StoreError::Corrupt("a hash of the tree is not 32 bytes long".to_owned()));
        }
        let below =
            (index * WIDTH..(index + 1) * WIDTH).map(|index| self.hash(level - 1, index)).collect::<Result<Vec<_>, _>>()?;
        hash_over(&below).ok_or_else(|| StoreError::Corrupt("a subtree without hashes".to_owned()))
    }

    /// Hashes of the entries that one bundle has, as far as there are any.
    fn leaves_of(&mut self, tile: u64) -> Result<&[Hash], StoreError> {
        if self.leaves.as_ref().is_none_or(|(known, _)| *known != tile) {
            let from = tile.saturating_mul(WIDTH);
            let mut hashes = Vec::new();
            log::scan_all(self.db, from, self.end.min(from.saturating_add(WIDTH)), |index, leaf| {
                hashes.push(leaf_hash_at(self.db, index, leaf)?);
                Ok(Go::On)
            })?;
            self.leaves = Some((tile, hashes));
        }
        Ok(self.leaves.as_ref().map_or(&[], |(_, hashes)| hashes))
    }

    /// The content of a tile; `None`: the log is too short for it.
    pub(crate) fn tile(&mut self, tile: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
        if tile.entries() > self.end {
            return Ok(None);
        }
        let (first, width) = (tile.index * WIDTH, u64::from(tile.width));
        let mut content = Vec::new();
        match tile.content {
            Content::Entries => log::scan_all(self.db, first, first + width, |index, leaf| {
                log::put_leaf(&mut content, index, leaf).map(|()| Go::On)
            })?,
            Content::Hashes(level) => {
                for index in first..first + width {
                    content.extend_from_slice(&self.hash(level, index)?);
                }
            }
        }
        Ok(Some(content))
    }
}

/// The hash of a node as it is kept; `None`: it is none that is kept.
pub(crate) fn kept_hash(db: &Db, node: Node) -> Result<Option<Hash>, StoreError> {
    if !node.level.is_multiple_of(HEIGHT) {
        return Ok(None);
    }
    Ok(db.get(Family::Tree, &key(node.level / HEIGHT, node.index))?.and_then(|hash| hash.try_into().ok()))
}
