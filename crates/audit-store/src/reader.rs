//! The read side, the same for the gateway itself and for a command that looks on while it runs.

use crate::db::{Db, Opened, Stored};
use crate::decode::Commitment;
use crate::entry::StoredEntry;
use crate::find::passes::Paper;
use crate::find::read::{LeafReader, Way};
use crate::index::{self, Change, Gather};
use crate::log::{self, Go};
use crate::options::{Family, Options};
use crate::published::{self, Bundle};
use crate::query::{EntryFilter, Page, SessionFilter, SessionView};
use crate::seal::{KeyId, PayloadKeys, SEALED, key_of};
use crate::session::SessionSummary;
use crate::standing::{self, Standing};
use crate::store::Shared;
use crate::tree::Hashes;
use crate::verify::{self, Expected, Verification};
use parking_lot::Mutex;
use proxy_core::{SessionId, StoreError};
use rocksdb::ReadOptions;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tlog::merkle;
use tlog::{Hash, Tile};

/// Opens the store in `dir` for reading, whether or not a gateway is writing to it. It sees what was accepted
/// up to each call, and changes nothing in `dir`.
///
/// # Errors
/// [`StoreError::Io`]: there is no store, or it cannot be read. [`StoreError::Corrupt`]: it is damaged.
pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Reader, StoreError> {
    open_read_only_with(dir, None)
}

/// The same with the keys that open sealed payloads. What cannot be opened is withheld.
///
/// # Errors
/// As [`open_read_only`].
pub fn open_read_only_with(dir: impl AsRef<Path>, payload_keys: Option<PayloadKeys>) -> Result<Reader, StoreError> {
    let scratch = Scratch::new()?;
    let options = Options { payload_keys, ..Options::default() };
    let db = Db::open_secondary(dir.as_ref(), &scratch.path, &options)?;
    Ok(Reader { source: Source::Secondary(Arc::new(Secondary { db: Mutex::new(db), _scratch: scratch })) })
}

/// Reads the log. Cheap to clone.
///
/// Every call sees the log as it is when it begins. All of them may wait for the disk.
#[derive(Clone)]
pub struct Reader {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Primary(Arc<Shared>),
    Secondary(Arc<Secondary>),
}

struct Secondary {
    /// Its picture of the log moves between calls, never within one.
    db: Mutex<Db>,
    /// Dropped after it.
    _scratch: Scratch,
}

/// What one call sees.
pub(crate) struct View<'a> {
    pub(crate) db: &'a Db,
    /// Entries in the log.
    pub(crate) end: u64,
    /// Sessions with entries that the stored index has not seen.
    pub(crate) recent: BTreeMap<SessionId, Change>,
}

impl Reader {
    pub(crate) fn primary(shared: Arc<Shared>) -> Self {
        Self { source: Source::Primary(shared) }
    }

    /// Calls `read` with a picture of the log; `index`: together with what the stored index has not seen yet.
    fn with<R>(&self, index: bool, read: impl FnOnce(&View<'_>) -> Result<R, StoreError>) -> Result<R, StoreError> {
        match &self.source {
            Source::Primary(shared) => {
                let end = shared.settle().unwrap_or_else(|_| shared.stored());
                let db = shared.db()?;
                if !index {
                    return read(&View { db: &db, end, recent: BTreeMap::new() });
                }
                // A store that is short of space does not index; its sessions can be seen all the same.
                if shared.index_through(end).is_ok() {
                    return read(&View { db: &db, end, recent: BTreeMap::new() });
                }
                let recent = shared.without_indexing(|| recent(&db, end))?;
                read(&View { db: &db, end, recent })
            }
            Source::Secondary(secondary) => {
                let mut db = secondary.db.lock();
                db.catch_up()?;
                let end = log::end(&db)?;
                let recent = if index { recent(&db, end)? } else { BTreeMap::new() };
                read(&View { db: &db, end, recent })
            }
        }
    }

    /// Entries in the log: the index that the next one gets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn len(&self) -> Result<u64, StoreError> {
        match &self.source {
            Source::Primary(shared) => Ok(shared.end()),
            Source::Secondary(_) => self.with(false, |view| Ok(view.end)),
        }
    }

    /// Whether nothing was ever recorded.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        self.len().map(|len| len == 0)
    }

    /// The log's id: 16 random bytes from when the store was made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn log_id(&self) -> Result<[u8; 16], StoreError> {
        self.with(false, |view| view.db.log_id())
    }

    /// The entry at `index`; `None`: there is none yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn entry(&self, index: u64) -> Result<Option<StoredEntry>, StoreError> {
        self.with(false, |view| view.entry(index))
    }

    /// The leaf at `index`, byte for byte; `None`: there is none yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn leaf(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(false, |view| log::leaf(view.db, index, view.end))
    }

    /// Shows the leaves of `range`, byte for byte and in order, as far as there are any.
    ///
    /// # Errors
    /// [`StoreError`], or what `visit` returns.
    pub fn leaves(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.with(false, |view| {
            log::scan(view.db, range.start, range.end.min(view.end), |index, leaf| visit(index, leaf).map(|()| Go::On))
        })
    }

    /// All entries of `range` that there are now, in order, read as the iterator moves.
    #[must_use]
    pub fn entries(&self, range: Range<u64>) -> Entries {
        Entries { reader: self.clone(), next: range.start, end: range.end, page: Vec::new().into_iter(), failed: false }
    }

    /// At most `limit` entries from `from` on that pass `filter`, in order. To follow the log, ask again with
    /// the page's `next`, which is always there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tail(&self, from: u64, filter: &EntryFilter, limit: usize) -> Result<Page<StoredEntry, u64>, StoreError> {
        self.with(filter.asks_for_session() || filter.session.is_some(), |view| view.tail(from, filter, limit))
    }

    /// At most `limit` entries before `before` (`None`: the end) that pass `filter`, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn latest(&self, before: Option<u64>, filter: &EntryFilter, limit: usize) -> Result<Page<StoredEntry, u64>, StoreError> {
        self.with(filter.asks_for_session() || filter.session.is_some(), |view| view.latest(before, filter, limit))
    }

    /// At most `limit` sessions that pass `filter`, the newest first (by their ids, which are ordered in time).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sessions(&self, filter: &SessionFilter, limit: usize) -> Result<Page<SessionSummary, SessionId>, StoreError> {
        self.with(true, |view| view.sessions(filter, limit))
    }

    /// Sessions whose id begins with `prefix` (hexadecimal, hyphens or not), at most `limit`: for a shortened id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sessions_named(&self, prefix: &str, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.with(true, |view| view.sessions_named(prefix, limit))
    }

    /// One line about a session; `None`: the log does not know it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn summary(&self, id: SessionId) -> Result<Option<SessionSummary>, StoreError> {
        self.with(true, |view| view.summary(id))
    }

    /// The story of a session: at most `limit` of its entries from index `from` on (0: its beginning).
    /// `None`: the log does not know it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn session(&self, id: SessionId, from: u64, limit: usize) -> Result<Option<SessionView>, StoreError> {
        self.with(true, |view| view.session(id, from, limit))
    }

    /// The root of the tree of the first `size` entries; `None`: there are not so many yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn root(&self, size: u64) -> Result<Option<Hash>, StoreError> {
        self.hashes(size, |hashes| merkle::root(size, |node| hashes.node(node)))
    }

    /// The audit path of the entry at `index` in the tree of the first `size` entries; `None`: there are not so many yet, or
    /// the entry is not one of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Option<Vec<Hash>>, StoreError> {
        if index >= size {
            return Ok(None);
        }
        self.hashes(size, |hashes| merkle::inclusion_proof(index, size, |node| hashes.node(node)))
    }

    /// The proof that the log of the first `old` entries is the beginning of that of the first `new`; `None`: there are not
    /// so many yet, or `old` is more than `new`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Option<Vec<Hash>>, StoreError> {
        if old > new {
            return Ok(None);
        }
        self.hashes(new, |hashes| merkle::consistency_proof(old, new, |node| hashes.node(node)))
    }

    /// The content of a tile; `None`: the log is too short for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(false, |view| Hashes::new(view.db, view.end).tile(tile))
    }

    /// Indices of a session's entries, in order; none: the log does not know it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn session_indices(&self, id: SessionId) -> Result<Vec<u64>, StoreError> {
        self.with(true, |view| view.indices(id, 0, usize::MAX))
    }

    /// What is kept beside the entry at `index` for a field: salt and content; `None`: nothing.
    ///
    /// # Errors
    /// [`StoreError`]; also where it is sealed with a key that this reader has not.
    pub fn payload(&self, index: u64, commitment: &Commitment) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(false, |view| match view.db.payload(index, commitment)? {
            Opened::Gone => Ok(None),
            Opened::Open(payload) => Ok(Some(payload)),
            Opened::Sealed => {
                let stored = view.db.stored_payload(index, commitment.field)?;
                let id = match &stored {
                    Some(Stored::Sealed(sealed)) => key_of(sealed).map(|id| id.to_string()),
                    Some(Stored::Plain(_)) | None => None,
                };
                let id = id.unwrap_or_else(|| "of another form".to_owned());
                Err(StoreError::Io(format!("what is kept beside entry {index} is sealed, and its key {id} is not at hand")))
            }
        })
    }

    /// What the last payload was sealed with; `None`: it is not sealed, or there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_payload_key(&self) -> Result<Option<KeyId>, StoreError> {
        self.with(false, |view| {
            let mut cursor = view.db.cursor(Family::Payload, ReadOptions::default())?;
            cursor.seek_to_last();
            cursor.status().map_err(|e| crate::db::failure(&e))?;
            let sealed = cursor.item().filter(|(key, _)| key.last().is_some_and(|field| u32::from(*field) & SEALED != 0));
            Ok(sealed.and_then(|(_, sealed)| key_of(sealed)))
        })
    }

    /// The payloads of a bundle's entries, as they are published; `None`: there are none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn payloads(&self, entries: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(false, |view| if entries.entries() > view.end { Ok(None) } else { published::payloads(view.db, entries) })
    }

    /// What is published of a bundle of entries, read once; `None`: the log is too short for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bundle(&self, entries: &Tile) -> Result<Option<Bundle>, StoreError> {
        let mut bundle = Bundle::default();
        Ok(self.read_bundle(entries, &mut bundle)?.then_some(bundle))
    }

    /// The same, in place of what `bundle` had; `false`: the log is too short for it.
    pub(crate) fn read_bundle(&self, entries: &Tile, bundle: &mut Bundle) -> Result<bool, StoreError> {
        self.with(false, |view| {
            if entries.entries() > view.end {
                return Ok(false);
            }
            published::read(view.db, entries, bundle).map(|()| true)
        })
    }

    fn hashes<R>(&self, size: u64, read: impl FnOnce(&mut Hashes<'_>) -> Result<R, StoreError>) -> Result<Option<R>, StoreError> {
        self.with(false, |view| {
            if size > view.end {
                return Ok(None);
            }
            read(&mut Hashes::new(view.db, view.end)).map(Some)
        })
    }

    /// What the store has, at a glance.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn standing(&self) -> Result<Standing, StoreError> {
        self.with(false, |view| standing::standing(view.db, view.end))
    }

    /// Checks the entries of `range` that there are now: indices and sessions without gaps, leaves canonical,
    /// payloads as committed to. `progress` is told how many were checked, now and then.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be read at all. What is wrong with the log is a finding, not an error.
    pub fn verify_sequence(&self, range: Range<u64>, progress: impl FnMut(u64)) -> Result<Verification, StoreError> {
        self.with(false, |view| verify::sequence(view.db, range.start, range.end.min(view.end), progress))
    }

    /// Checks the whole log, as [`Expected`] asks: all that [`Self::verify_sequence`] does, and that its tree is the one that
    /// the checkpoints commit to. `progress` is told how many entries were checked, now and then.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be read at all. What is wrong with the log is a finding, not an error.
    pub fn verify(&self, expected: &Expected, progress: impl FnMut(u64)) -> Result<Verification, StoreError> {
        self.with(false, |view| verify::stored(view.db, view.end, expected, progress))
    }
}

/// What the stored index has not seen.
fn recent(db: &Db, end: u64) -> Result<BTreeMap<SessionId, Change>, StoreError> {
    let from = if index::is_ours(db)? { index::indexed(db)?.min(end) } else { 0 };
    let mut gather = Gather::default();
    let known = |id| {
        let known = if from == 0 { None } else { index::stored(db, id)? };
        Ok(known.map(|summary| (summary, Default::default())))
    };
    gather.read(db, from..end, known, |_, _, _, _| Ok(()))?;
    Ok(gather.changes.into_iter().collect())
}

impl View<'_> {
    fn entry(&self, index: u64) -> Result<Option<StoredEntry>, StoreError> {
        match log::leaf(self.db, index, self.end)? {
            Some(leaf) => Ok(Some(StoredEntry::new(index, log::decode(self.db, index, &leaf)?))),
            None => Ok(None),
        }
    }

    pub(crate) fn summary(&self, id: SessionId) -> Result<Option<SessionSummary>, StoreError> {
        match self.recent.get(&id) {
            Some(change) => Ok(Some(change.summary.clone())),
            None => index::stored(self.db, id),
        }
    }

    /// Indices of the session's entries from `from` on, in order, at most `limit`.
    pub(crate) fn indices(&self, id: SessionId, from: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        self.read_indices(id, from..self.end, limit)
    }

    /// Indices of the session's entries in `range`, in order.
    pub(crate) fn indices_within(&self, id: SessionId, range: Range<u64>) -> Result<Vec<u64>, StoreError> {
        self.read_indices(id, range.start..range.end.min(self.end), usize::MAX)
    }

    fn read_indices(&self, id: SessionId, range: Range<u64>, limit: usize) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        let mut cursor = self.index_lists(id, range.start)?;
        if !cursor.key().is_some_and(|key| key.starts_with(&id.0)) {
            cursor.seek(index::list_key(id, range.start));
        }
        while let Some(first) = list_first(id, cursor.key())?.filter(|first| *first < range.end && found.len() < limit) {
            let before = found.len();
            index::take_indices(first, cursor.value().unwrap_or_default(), &mut found)?;
            if before == 0 {
                found.retain(|index| *index >= range.start);
            }
            cursor.next();
        }
        cursor.status().map_err(|e| crate::db::failure(&e))?;
        if let Some(change) = self.recent.get(&id) {
            found.extend(change.indices.iter().filter(|index| **index >= range.start));
        }
        found.retain(|index| *index < range.end);
        found.truncate(limit);
        Ok(found)
    }

    /// The session's last entry before `before`.
    pub(crate) fn index_before(&self, id: SessionId, before: u64) -> Result<Option<u64>, StoreError> {
        if let Some(change) = self.recent.get(&id)
            && let Some(index) = change.indices.iter().rev().find(|index| **index < before)
        {
            return Ok(Some(*index));
        }
        let Some(last) = before.checked_sub(1) else { return Ok(None) };
        let cursor = self.index_lists(id, last)?;
        let Some(first) = list_first(id, cursor.key())? else { return Ok(None) };
        let mut indices = Vec::new();
        index::take_indices(first, cursor.value().unwrap_or_default(), &mut indices)?;
        Ok(indices.into_iter().rev().find(|index| *index < before))
    }

    /// A cursor over the lists of a session's indices, on the one that `from` is in or that stands before it.
    fn index_lists(&self, id: SessionId, from: u64) -> Result<rocksdb::DBRawIterator<'_>, StoreError> {
        let mut cursor = self.db.cursor(Family::BySession, ReadOptions::default())?;
        cursor.seek_for_prev(index::list_key(id, from));
        Ok(cursor)
    }

    fn session(&self, id: SessionId, from: u64, limit: usize) -> Result<Option<SessionView>, StoreError> {
        let Some(summary) = self.summary(id)? else { return Ok(None) };
        let mut paper = Paper::new(limit);
        let mut next = None;
        let mut leaves = LeafReader::new(self.db, Way::Up)?;
        for index in self.indices(id, from, paper.limit().saturating_add(1))? {
            if paper.full() {
                next = Some(index);
                break;
            }
            let leaf = leaves.leaf(index)?;
            // It was destroyed.
            if leaf.is_empty() {
                continue;
            }
            paper.add(leaf.len(), StoredEntry::new(index, log::decode(self.db, index, leaf)?));
        }
        let mut view = SessionView::new(summary, next);
        for stored in paper.items {
            view.add(stored);
        }
        Ok(Some(view))
    }

    fn sessions_named(&self, prefix: &str, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        let digits: String = prefix.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
        if digits.len() > 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let bound = |fill: &str| format!("{digits}{}", fill.repeat(32 - digits.len())).parse::<SessionId>();
        let (Ok(low), Ok(high)) = (bound("0"), bound("f")) else { return Ok(Vec::new()) };
        let mut found: Vec<_> = self.recent.range(low..=high).map(|(id, _)| *id).take(limit).collect();
        let mut cursor = self.db.cursor(Family::Sessions, ReadOptions::default())?;
        cursor.seek(low.0);
        while let Some(id) = cursor.key().and_then(|key| key.try_into().ok()).map(SessionId) {
            if id > high || found.len() >= limit.saturating_mul(2) {
                break;
            }
            found.push(id);
            cursor.next();
        }
        cursor.status().map_err(|e| crate::db::failure(&e))?;
        found.sort_unstable();
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }
}

/// The first index of the list with this key; `None`: it is another session's.
fn list_first(id: SessionId, key: Option<&[u8]>) -> Result<Option<u64>, StoreError> {
    let Some(first) = key.and_then(|key| key.strip_prefix(&id.0[..])) else { return Ok(None) };
    let first = first.try_into().map(u64::from_be_bytes);
    first.map(Some).map_err(|_| StoreError::Corrupt(format!("the index of session {id}")))
}

/// Walks over entries, a page at a time. Ends after the first error.
pub struct Entries {
    reader: Reader,
    next: u64,
    end: u64,
    page: std::vec::IntoIter<StoredEntry>,
    failed: bool,
}

impl Iterator for Entries {
    type Item = Result<StoredEntry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(stored) = self.page.next() {
            return Some(Ok(stored));
        }
        if self.failed || self.next >= self.end {
            return None;
        }
        let limit = usize::try_from(self.end - self.next).unwrap_or(usize::MAX).min(1_024);
        match self.reader.tail(self.next, &EntryFilter::default(), limit) {
            Ok(page) => {
                self.next = page.next.unwrap_or(self.end);
                self.page = page.items.into_iter();
                self.page.next().map(Ok)
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// A folder of a reader's own, for RocksDB's notes; removed with it.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| StoreError::Io("no randomness for a folder's name".to_owned()))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sallyport-audit-{}-{number}-{:016x}", std::process::id(), u64::from_be_bytes(random));
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| StoreError::Io(format!("cannot make the folder {}: {e}", path.display())))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind, it is a few kilobytes in the system's folder for such things.
        drop(std::fs::remove_dir_all(&self.path));
    }
}
