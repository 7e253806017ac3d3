//! What a store has, at a glance: for `sallyport inspect`.

use crate::db::Db;
use crate::decode;
use crate::find::SEGMENT;
use crate::find::bits::Bits;
use crate::find::terms::Term;
use crate::find::{key, segment};
use crate::index;
use crate::kind::EventKind;
use crate::log::{self, Go};
use crate::options::Family;
use proxy_core::{StoreError, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// A store, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The on-disk format.
    pub format: String,
    /// The log's id, hexadecimal.
    pub log_id: String,
    /// Entries in the log.
    pub entries: u64,
    /// Entries before this are known to be on the disk.
    pub synced: u64,
    /// Time of the first entry; `None`: there is none.
    pub first: Option<Timestamp>,
    /// Time of the last entry.
    pub last: Option<Timestamp>,
    /// Entries of each kind that there are any of.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Bytes in files and keys of each column family; keys as RocksDB estimates them.
    pub families: Vec<FamilySize>,
    /// Where the derived families stand.
    pub index: IndexStanding,
    /// What the journal has that the database's files lack.
    pub journal: JournalStanding,
}

/// The size of a column family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FamilySize {
    /// Its name.
    pub name: &'static str,
    /// Bytes in files.
    pub bytes: u64,
    /// Keys, about.
    pub keys: u64,
}

/// Where the derived families stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IndexStanding {
    /// Whether its form is this version's. If not, the gateway makes it anew when it starts.
    pub current: bool,
    /// Entries that the session index covers, in files.
    pub indexed: u64,
    /// Entries that the index by segments covers, in files.
    pub segments: u64,
}

/// The journal as a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct JournalStanding {
    /// Entries that only it has.
    pub entries: u64,
    /// The first of them.
    pub from: Option<u64>,
    /// Entries of it that stand after missing ones: lost in a power loss.
    pub behind: u64,
}

/// Looks.
pub(crate) fn standing(db: &Db, end: u64) -> Result<Standing, StoreError> {
    let time = |index: u64| -> Result<Option<Timestamp>, StoreError> {
        let Some(leaf) = log::leaf(db, index, end)? else { return Ok(None) };
        decode::header(&leaf).map(|header| Some(header.time)).map_err(|e| log::damaged(index, &e))
    };
    let families = Family::ALL.into_iter().map(|family| {
        let (bytes, keys) = db.family_size(family)?;
        Ok(FamilySize { name: family.name(), bytes, keys })
    });
    let current = index::is_ours(db)?;
    let segments = if current { segment::covered(db)?.min(end) } else { 0 };
    let tail = db.tail();
    Ok(Standing {
        format: db.format()?,
        log_id: db.log_id()?.iter().map(|byte| format!("{byte:02x}")).collect(),
        entries: end,
        synced: db.synced()?.min(end),
        first: time(0)?,
        last: end.checked_sub(1).map_or(Ok(None), time)?,
        kinds: kinds(db, segments, end)?,
        families: families.collect::<Result<_, StoreError>>()?,
        index: IndexStanding { current, indexed: index::indexed(db)?.min(end), segments },
        journal: JournalStanding {
            entries: tail.first().map_or(0, |first| end.saturating_sub(first)),
            from: tail.first(),
            behind: db.behind(),
        },
    })
}

/// Counts from the index what it has, and the rest entry by entry.
fn kinds(db: &Db, segments: u64, end: u64) -> Result<BTreeMap<&'static str, u64>, StoreError> {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for kind in EventKind::ALL {
        let hash = Term::Kind(kind).hash().to_be_bytes();
        let mut count = 0;
        for segment in 0..segments / SEGMENT {
            let set = db.get(Family::Segments, &key(segment, b'B', &hash))?;
            count += set.and_then(|set| Bits::decode(&set).ok()).map_or(0, |bits| bits.count());
        }
        counts.insert(kind.as_str(), count);
    }
    log::scan(db, segments, end, |index, leaf| {
        let header = decode::header(leaf).map_err(|e| log::damaged(index, &e))?;
        *counts.entry(header.kind.as_str()).or_default() += 1;
        Ok(Go::On)
    })?;
    counts.retain(|_, count| *count > 0);
    Ok(counts)
}
