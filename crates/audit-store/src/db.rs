//! The handle on RocksDB: opening, column families, errors in the store's own words.

use crate::decode::Commitment;
use crate::journal::{self, Tail};
use crate::limits::{CATCH_UP_TRIES, CHUNK_ENTRIES_MAX, HOLES_SEEN};
use crate::log;
use crate::options::{self, Family, Options};
use crate::seal::{PayloadKeys, SEALED};
use crate::tree::{LeafHashes, Tree};
use parking_lot::RwLock;
use proxy_core::StoreError;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, CompactOptions, DB, DBRawIteratorWithThreadMode, Error, ErrorKind, FlushOptions,
    ReadOptions, WriteBatch,
};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// The on-disk format of the whole store.
const FORMAT: &[u8] = b"3";
const FORMAT_KEY: &[u8] = b"format";
const LOG_ID_KEY: &[u8] = b"log-id";
const SYNCED_KEY: &[u8] = b"synced";

/// What is kept beside an entry for a field, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Salt and content.
    Plain(Vec<u8>),
    /// See `seal.rs`.
    Sealed(Vec<u8>),
}

/// What can be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    /// It is not kept any more.
    Gone,
    /// Salt and content.
    Open(Vec<u8>),
    /// It is there, and this reader has not its key.
    Sealed,
}

/// One opening of the database, and of the journal before it.
pub(crate) struct Db {
    db: DB,
    /// What the journal has and the database lacks: from its first entry on it stands in for the database. Of the
    /// writer's own opening: nothing.
    tail: Tail,
    /// Entries before this were on the disk, as the journal says.
    journal_synced: u64,
    /// Entries of the journal that stand after others which are missing.
    behind: u64,
    /// What sealed payloads are opened with.
    keys: Option<PayloadKeys>,
    /// Of the entries that were moved in last.
    leaf_hashes: RwLock<LeafHashes>,
}

impl Db {
    /// Opens for writing; makes the store where there is none. What the journal has and the database lacks is moved, and
    /// on the disk.
    pub(crate) fn open(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        create_private(dir)?;
        check_logs(dir)?;
        let db = DB::open_cf_descriptors(&options::database(options), dir, options::families(options))
            .map_err(|e| opening(dir, &e))?;
        let mut db = Self::new(db, options);
        match db.get(Family::Meta, FORMAT_KEY)? {
            None => db.initialise()?,
            Some(format) => check_format(&format)?,
        }
        db.take_over()?;
        Ok(db)
    }

    fn new(db: DB, options: &Options) -> Self {
        let leaf_hashes = RwLock::new(LeafHashes::new(options.hashes()));
        Self { db, tail: Tail::default(), journal_synced: 0, behind: 0, keys: options.payload_keys.clone(), leaf_hashes }
    }

    /// Opens for reading, while another process may be writing. `scratch` is a folder of this reader's own.
    pub(crate) fn open_secondary(dir: &Path, scratch: &Path, options: &Options) -> Result<Self, StoreError> {
        if !dir.join("CURRENT").is_file() {
            return Err(StoreError::Io(format!("no audit store at {}", dir.display())));
        }
        check_logs(dir)?;
        let mut rocks = options::database(options);
        rocks.create_if_missing(false);
        rocks.create_missing_column_families(false);
        // A secondary must hold its files open: the writer may delete them meanwhile.
        rocks.set_max_open_files(-1);
        let db = DB::open_cf_descriptors_as_secondary(&rocks, dir, scratch, options::families(options))
            .map_err(|e| opening(dir, &e))?;
        let db = Self::new(db, options);
        match db.get(Family::Meta, FORMAT_KEY)? {
            None => Err(StoreError::Io(format!("the audit store at {} is being made: try again", dir.display()))),
            Some(format) => check_format(&format).map(|()| db),
        }
    }

    /// Opens for reading what no process writes to, and changes nothing.
    pub(crate) fn open_read_only(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        if !dir.join("CURRENT").is_file() {
            return Err(StoreError::Io(format!("no audit store at {}", dir.display())));
        }
        check_logs(dir)?;
        let mut rocks = options::database(options);
        rocks.create_if_missing(false);
        rocks.create_missing_column_families(false);
        let db =
            DB::open_cf_descriptors_read_only(&rocks, dir, options::families(options), false).map_err(|e| opening(dir, &e))?;
        let mut db = Self::new(db, options);
        db.read_journal()?;
        Ok(db)
    }

    /// Reads from the journal what the database lacks. `false`: the two do not meet.
    fn read_journal(&mut self) -> Result<bool, StoreError> {
        self.tail = Tail::default();
        // Damage may have left nothing of the log, not even its id.
        if self.get(Family::Meta, LOG_ID_KEY)?.is_none() {
            return Ok(true);
        }
        let end = log::end(self)?;
        let Some(found) = journal::read(self.db.path(), &self.log_id()?, end)? else { return Ok(false) };
        self.journal_synced = found.synced;
        let entries = found.entries_from(end);
        self.tail = found.run(end)?;
        self.behind = entries - (self.tail.end().unwrap_or(end) - end);
        Ok(self.behind == 0)
    }

    /// Moves what the journal has and the database lacks.
    pub(crate) fn take_over(&mut self) -> Result<(), StoreError> {
        if !self.read_journal()? {
            tracing::warn!(
                entries = self.behind,
                "the journal has entries after others that are missing and were not on the disk: they are dropped"
            );
        }
        let tail = std::mem::take(&mut self.tail);
        if tail.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        self.put_tail(&mut batch, &tail)?;
        self.write_through(batch)
    }

    fn put_tail(&self, batch: &mut WriteBatch, tail: &Tail) -> Result<(), StoreError> {
        for (first, _, leaves) in &tail.chunks {
            self.put(batch, Family::Entries, &first.to_be_bytes(), leaves)?;
        }
        for ((index, field), content) in &tail.beside {
            self.put(batch, Family::Payload, &log::payload_key(*index, *field), content)?;
        }
        Ok(())
    }

    /// Writes consecutive entries after those that are there, together with the hashes that they complete in `tree`. When it
    /// fails, `tree` has more than the database, and must be opened again.
    pub(crate) fn move_in(&self, tail: &Tail, tree: &mut Tree) -> Result<(), StoreError> {
        let mut batch = WriteBatch::with_capacity_bytes(tail.size() + tail.size() / 8 + 64);
        self.put_tail(&mut batch, tail)?;
        let (first, mut hashes) = (tree.size(), Vec::new());
        for (_, _, leaves) in &tail.chunks {
            tree.add(self, &mut batch, leaves, &mut hashes)?;
        }
        self.write(batch)?;
        self.leaf_hashes.write().add(first, &hashes);
        Ok(())
    }

    /// Appends the hashes of the leaves of `range` to `out`; `false`: they are to be computed.
    pub(crate) fn known_leaf_hashes(&self, range: &Range<u64>, out: &mut Vec<u8>) -> bool {
        self.leaf_hashes.read().put(range, out)
    }

    /// Whether anything is kept beside the entries of `range`.
    pub(crate) fn has_payloads(&self, range: &Range<u64>) -> Result<bool, StoreError> {
        if self.tail.beside.keys().any(|(index, _)| range.contains(index)) {
            return Ok(true);
        }
        let mut cursor = self.cursor(Family::Payload, ReadOptions::default())?;
        cursor.seek(range.start.to_be_bytes());
        cursor.status().map_err(|e| failure(&e))?;
        let end = range.end.to_be_bytes();
        Ok(cursor.key().is_some_and(|key| *key < end[..]))
    }

    /// Entries of the journal that stand after others which are missing.
    pub(crate) fn behind(&self) -> u64 {
        self.behind
    }

    /// What stands in for the database from its first entry on.
    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What is kept beside the entry at `index` for a field; `None`: nothing.
    pub(crate) fn stored_payload(&self, index: u64, field: u32) -> Result<Option<Stored>, StoreError> {
        let get = |field| match self.tail.beside.get(&(index, field)) {
            Some(content) => Ok(Some(content.clone())),
            None => self.get(Family::Payload, &log::payload_key(index, field)),
        };
        // The likely one first.
        if self.keys.is_some()
            && let Some(sealed) = get(field | SEALED)?
        {
            return Ok(Some(Stored::Sealed(sealed)));
        }
        if let Some(plain) = get(field)? {
            return Ok(Some(Stored::Plain(plain)));
        }
        if self.keys.is_some() { Ok(None) } else { Ok(get(field | SEALED)?.map(Stored::Sealed)) }
    }

    /// The same, opened. Only of what was sealed is it known that it is what the leaf commits to.
    pub(crate) fn payload(&self, index: u64, commitment: &Commitment) -> Result<Opened, StoreError> {
        match self.stored_payload(index, commitment.field)? {
            None => Ok(Opened::Gone),
            Some(Stored::Plain(payload)) => Ok(Opened::Open(payload)),
            Some(Stored::Sealed(sealed)) => {
                let Some(keys) = &self.keys else { return Ok(Opened::Sealed) };
                let opened = keys.open(commitment, &sealed).map_err(|error| log::damaged(index, &error))?;
                Ok(opened.map_or(Opened::Sealed, Opened::Open))
            }
        }
    }

    /// What sealed payloads are opened with.
    pub(crate) fn keys(&self) -> Option<&PayloadKeys> {
        self.keys.as_ref()
    }

    /// Removes what is kept beside the entry at `index` for a field.
    pub(crate) fn delete_payload(&self, batch: &mut WriteBatch, index: u64, field: u32) -> Result<(), StoreError> {
        self.delete(batch, Family::Payload, &log::payload_key(index, field))?;
        self.delete(batch, Family::Payload, &log::payload_key(index, field | SEALED))
    }

    fn initialise(&self) -> Result<(), StoreError> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| StoreError::Io("no randomness for the log's id".to_owned()))?;
        let mut batch = WriteBatch::default();
        self.put(&mut batch, Family::Meta, FORMAT_KEY, FORMAT)?;
        self.put(&mut batch, Family::Meta, LOG_ID_KEY, &id)?;
        self.write_through(batch)
    }

    /// The log's id: made at random when the store was made.
    pub(crate) fn log_id(&self) -> Result<[u8; 16], StoreError> {
        let id = self.get(Family::Meta, LOG_ID_KEY)?.unwrap_or_default();
        id.try_into().map_err(|_| StoreError::Corrupt("the log's id is missing".to_owned()))
    }

    /// Entries before this were on the disk when it was written, so none of them can be missing after a power loss.
    pub(crate) fn synced(&self) -> Result<u64, StoreError> {
        Ok(self.place(SYNCED_KEY, "the place up to which the log is synced")?.max(self.journal_synced))
    }

    /// A place in the log that is kept under `key`, and called `what` where it is damaged; 0 where none is kept.
    pub(crate) fn place(&self, key: &[u8], what: &str) -> Result<u64, StoreError> {
        let Some(bytes) = self.get(Family::Meta, key)? else { return Ok(0) };
        let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt(format!("{what} is not 8 bytes long")))?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Notes, with what else is written, that the entries before `end` are on the disk.
    pub(crate) fn put_synced(&self, batch: &mut WriteBatch, end: u64) -> Result<(), StoreError> {
        self.put(batch, Family::Meta, SYNCED_KEY, &end.to_be_bytes())
    }

    pub(crate) fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        // All are named at opening, so this cannot fail.
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| StoreError::Corrupt(format!("the column family {} is missing", family.name())))
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.family(family)?, key).map_err(|e| failure(&e))
    }

    pub(crate) fn put(&self, batch: &mut WriteBatch, family: Family, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        batch.put_cf(self.family(family)?, key, value);
        Ok(())
    }

    pub(crate) fn delete(&self, batch: &mut WriteBatch, family: Family, key: &[u8]) -> Result<(), StoreError> {
        batch.delete_cf(self.family(family)?, key);
        Ok(())
    }

    /// Rewrites the files of what may have been destroyed, so that its space is given back.
    pub(crate) fn compact(&self, range: Range<u64>) -> Result<(), StoreError> {
        self.flush()?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for family in [Family::Entries, Family::Payload] {
            self.db.compact_range_cf_opt(
                self.family(family)?,
                Some(range.start.saturating_sub(CHUNK_ENTRIES_MAX as u64).to_be_bytes()),
                Some(range.end.to_be_bytes()),
                &options,
            );
        }
        Ok(())
    }

    /// Removes the keys of `family` from `from` on and before `to`.
    pub(crate) fn delete_range(&self, batch: &mut WriteBatch, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        batch.delete_range_cf(self.family(family)?, from, to);
        Ok(())
    }

    /// Removes every key of `family`.
    pub(crate) fn delete_all(&self, batch: &mut WriteBatch, family: Family) -> Result<(), StoreError> {
        // No key begins with that: session ids and indices that are all ones are never made, other keys begin with a
        // letter.
        self.delete_range(batch, family, &[], &[0xff; 40])
    }

    /// Writes into memory: a killed process loses it.
    pub(crate) fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.db.write_without_wal(batch).map_err(|e| failure(&e))
    }

    /// The same; the disk has it when this returns, and all that was written before.
    pub(crate) fn write_through(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.write(batch)?;
        self.flush()
    }

    /// A cursor over `family`.
    pub(crate) fn cursor(&self, family: Family, options: ReadOptions) -> Result<DBRawIteratorWithThreadMode<'_, DB>, StoreError> {
        Ok(self.db.raw_iterator_cf_opt(self.family(family)?, options))
    }

    /// Writes everything from memory into files, and waits until the disk has them.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        let families = Family::ALL.into_iter().map(|family| self.family(family)).collect::<Result<Vec<_>, _>>()?;
        self.db.flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &FlushOptions::default()).map_err(|e| failure(&e))
    }

    /// For a secondary: reads what the writer has written meanwhile.
    ///
    /// What the journal has beyond the database is read after it; so the two meet, unless a half of it was begun anew
    /// meanwhile, when what it had is in files that this picture lacks, or a power loss has left a hole.
    pub(crate) fn catch_up(&mut self) -> Result<(), StoreError> {
        let mut result = Ok(());
        let mut holes = 0;
        for _ in 0..CATCH_UP_TRIES {
            let before = journal::heads(self.db.path())?;
            result = self.db.try_catch_up_with_primary().map_err(|e| failure(&e));
            if result.is_ok() {
                let whole = self.read_journal()?;
                let stood = before == journal::heads(self.db.path())?;
                holes += u32::from(stood && !whole);
                if stood && (whole || holes > HOLES_SEEN) {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        result.and_then(|()| Err(StoreError::Io("the gateway writes faster than this reader can follow: try again".to_owned())))
    }

    /// Bytes in files, and keys as RocksDB estimates them.
    pub(crate) fn family_size(&self, family: Family) -> Result<(u64, u64), StoreError> {
        let family = self.family(family)?;
        let value = |name: &str| self.db.property_int_value_cf(family, name).ok().flatten().unwrap_or(0);
        let bytes = value("rocksdb.total-sst-files-size") + value("rocksdb.total-blob-file-size");
        Ok((bytes, value("rocksdb.estimate-num-keys")))
    }

    /// The on-disk format, as it is written.
    pub(crate) fn format(&self) -> Result<String, StoreError> {
        Ok(String::from_utf8_lossy(&self.get(Family::Meta, FORMAT_KEY)?.unwrap_or_default()).into_owned())
    }

    /// Bytes in files, and in memory.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let sum = |name: &str| {
            Family::ALL
                .into_iter()
                .filter_map(|family| self.db.property_int_value_cf(self.family(family).ok()?, name).ok()?)
                .sum::<u64>()
        };
        (
            sum("rocksdb.total-sst-files-size") + sum("rocksdb.total-blob-file-size"),
            sum("rocksdb.cur-size-all-mem-tables") + sum("rocksdb.estimate-table-readers-mem"),
        )
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.db.cancel_all_background_work(true);
    }
}

/// The folder, readable by its owner alone: statements are in it.
fn create_private(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| StoreError::Io(format!("cannot make the folder {}: {e}", dir.display())))
}

/// Refuses RocksDB's write-ahead logs with something in them: this store writes none, and RocksDB 11.8 reads some for ever
/// (a record with the type of a recycled log's, where the log is none).
fn check_logs(dir: &Path) -> Result<(), StoreError> {
    let failed = |e: std::io::Error| StoreError::Io(format!("cannot list {}: {e}", dir.display()));
    for file in std::fs::read_dir(dir).map_err(failed)? {
        let file = file.map_err(failed)?;
        let path = file.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        // One that the writer has deleted meanwhile has nothing in it either.
        if is_log && file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            return Err(StoreError::Corrupt(format!("{} is not empty, and not this store's: remove it", path.display())));
        }
    }
    Ok(())
}

fn check_format(format: &[u8]) -> Result<(), StoreError> {
    if format == FORMAT {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!(
        "its format is {:?}; this version of sallyport reads {:?}",
        String::from_utf8_lossy(format),
        String::from_utf8_lossy(FORMAT)
    )))
}

/// An error while opening, with its remedy.
fn opening(dir: &Path, error: &Error) -> StoreError {
    let text = error.as_ref();
    if error.kind() == ErrorKind::IOError && (text.contains("lock") || text.contains("LOCK")) {
        return StoreError::Io(format!("{} is in use by another gateway ({text})", dir.display()));
    }
    match failure(error) {
        StoreError::Corrupt(text) => StoreError::Corrupt(format!("cannot open {}: {text}", dir.display())),
        StoreError::Io(text) => StoreError::Io(format!("cannot open {}: {text}", dir.display())),
        other => other,
    }
}

/// RocksDB's error in the store's words. A full disk is completed by the caller, who knows the numbers.
pub(crate) fn failure(error: &Error) -> StoreError {
    let text = error.as_ref().to_owned();
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        return StoreError::DiskFull { free: 0, needed: 0 };
    }
    match error.kind() {
        ErrorKind::Corruption => StoreError::Corrupt(text),
        _ => StoreError::Io(text),
    }
}
