//! The store as the gateway holds it: appends, durability, trouble and recovery.
//!
//! ```text
//!            append ─▶ encode ─▶ writer lock: index, one write of the journal ─▶ (Sync: shared fsync) ─▶ accepted
//!  sync thread  ──────────────────────────────── fsync every 100 ms
//!  move thread  ──── what the journal has goes into the database, in large writes
//!  watch thread ──── free space every second; a failed store is opened again
//!  index thread ──── session index follows the log
//! ```
//!
//! Indices are given under the writer's lock, and entries get into the database in their order: one who moves them holds
//! the mover's lock. It is taken before the writer's, never the other way round.
//!
//! How entries get in is in `append`, what stops them and lets them in again in `recovery`, and what follows the log in
//! `derived`.

mod append;
mod derived;
mod recovery;

use crate::db::Db;
use crate::group::GroupSync;
use crate::index::Indexer;
use crate::journal::{Journal, Tail};
use crate::limits::{INDEX_INTERVAL, WATCH_INTERVAL};
use crate::options::{Durability, Options};
use crate::reader::Reader;
use crate::tree::Tree;
use parking_lot::{Condvar, Mutex, RwLock};
use proxy_core::{Entry, Store, StoreError};
use recovery::{check_tail, free_bytes, whole_end};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tlog::Hash;

/// The audit log, open for writing. One process at a time can have it.
///
/// Dropping it syncs and closes it, as [`AuditStore::close`] does.
pub struct AuditStore {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Whether the store takes entries, and how it stands. For `/readyz` and metrics.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Whether entries are accepted.
    pub accepting: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Entries in the log: the index that the next one gets.
    pub entries: u64,
    /// Entries that are known to be on the disk.
    pub synced: u64,
    /// Fsyncs of the log so far.
    pub syncs: u64,
    /// How long what is not synced has been waiting; zero when all is.
    pub unsynced_for: Duration,
    /// Entries that the session index has seen.
    pub indexed: u64,
    /// Batches that were refused since the start.
    pub refused: u64,
    /// Bytes free on the disk, as of the last look.
    pub free_bytes: u64,
    /// Bytes in files.
    pub disk_bytes: u64,
    /// Bytes of unwritten entries and of open files' tables.
    pub memory_bytes: u64,
}

/// A state of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// How many entries it has.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

/// What a thread of the store's own waits for; `false`: the store is closing.
type Pause = Box<dyn Fn(&Shared) -> bool + Send>;

/// What it does at every turn.
type Job = fn(&Shared);

/// Why entries are refused, and what ends it.
struct Trouble {
    error: StoreError,
    /// Whether the database must be opened again, or space is enough.
    reopen: bool,
}

pub(crate) struct Shared {
    dir: PathBuf,
    options: Options,
    /// For readers; `None` while it is opened again, and after closing.
    handle: RwLock<Option<Arc<Db>>>,
    /// For the writer: under this lock indices are given and written.
    writer: Mutex<Writer>,
    /// Entries that were accepted: readers see these alone.
    next: AtomicU64,
    /// Entries that are in the database.
    stored: AtomicU64,
    /// The tree of what is in the database. Held by whoever moves entries there.
    moving: Mutex<Tree>,
    /// Whether enough waits to be moved at once.
    due: Mutex<bool>,
    enough: Condvar,
    accepting: AtomicBool,
    /// It never accepts again.
    forked: AtomicBool,
    /// The database must be opened again before anything is written to it.
    broken: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    group: GroupSync,
    indexer: Mutex<Indexer>,
    indexed: AtomicU64,
    free: AtomicU64,
    unwatched: AtomicU64,
    refused: AtomicU64,
    closing: Mutex<bool>,
    closed: Condvar,
    log_id: [u8; 16],
}

struct Writer {
    db: Option<Arc<Db>>,
    /// `None`: it could not be made.
    journal: Option<Journal>,
    next: u64,
    /// Accepted, and not in the database yet.
    pending: Tail,
}

impl AuditStore {
    /// Opens the store in `dir`, or makes it, and starts its threads.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the folder cannot be used, or another process has it. [`StoreError::Corrupt`]: the
    /// log is damaged; [`crate::Recovery`] says what can be done. A full disk is no error here: the store
    /// opens and refuses entries until there is space.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let dir = dir.as_ref().to_owned();
        let db = Db::open(&dir, &options)?;
        let next = whole_end(&db, options.recovery)?;
        check_tail(&db, next)?;
        let tree = Tree::open(&db, next)?;
        let indexer = Indexer::open(&db, next)?;
        let log_id = db.log_id()?;
        let (journal, full) = match Journal::begin(&dir, log_id, options.journal()) {
            Ok(journal) => (Some(journal), None),
            Err(error @ StoreError::DiskFull { .. }) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared {
            log_id,
            indexed: AtomicU64::new(indexer.next()),
            indexer: Mutex::new(indexer),
            free: AtomicU64::new(free_bytes(&dir)?),
            dir,
            options,
            writer: Mutex::new(Writer { db: None, journal, next, pending: Tail::default() }),
            handle: RwLock::new(None),
            next: AtomicU64::new(next),
            stored: AtomicU64::new(next),
            moving: Mutex::new(tree),
            due: Mutex::new(false),
            enough: Condvar::new(),
            accepting: AtomicBool::new(true),
            forked: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            trouble: Mutex::new(None),
            group: GroupSync::new(next),
            unwatched: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            closing: Mutex::new(false),
            closed: Condvar::new(),
        });
        shared.install(Arc::new(db));
        if let Some(error) = full {
            shared.fail(shared.complete(error), true);
        }
        shared.look_at_space();
        let store = Self { shared, threads: Mutex::new(Vec::new()) };
        store.start_threads()?;
        Ok(store)
    }

    fn start_threads(&self) -> Result<(), StoreError> {
        let interval = self.shared.options.sync_interval;
        let jobs: [(&str, Pause, Job); 4] = [
            ("audit-move", Box::new(Shared::pause_until_due), |shared| drop(shared.settle())),
            ("audit-sync", Box::new(move |shared| shared.pause(interval)), Shared::sync_written),
            ("audit-watch", Box::new(|shared| shared.pause(WATCH_INTERVAL)), Shared::watch),
            ("audit-index", Box::new(|shared| shared.pause(INDEX_INTERVAL)), Shared::follow),
        ];
        for (name, pause, job) in jobs {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    while pause(&shared) {
                        job(&shared);
                    }
                })
                .map_err(|e| StoreError::Io(format!("cannot start a thread: {e}")))?;
            self.threads.lock().push(thread);
        }
        Ok(())
    }

    /// The read side. Cheap to clone; it may outlive the store, and then says that it is closed.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::primary(Arc::clone(&self.shared))
    }

    /// Entries that are known to be on the disk: no power loss takes them away, or gives their numbers to others.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.shared.group.synced().min(self.shared.end())
    }

    /// How the store stands.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Refuses entries from now on, and for good: going on would contradict what others have seen.
    pub fn refuse(&self, why: &str) {
        self.shared.fail(StoreError::Io(why.to_owned()), false);
        self.shared.forked.store(true, Ordering::Release);
    }

    /// Waits until all that was accepted is on the disk.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be known to be.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.shared.sync_through(self.shared.next.load(Ordering::Acquire))
    }

    /// The tree of all that was accepted before the call, or a little more. All of it is on the disk when this returns, so
    /// that whoever is shown this root will never see another log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tree_head(&self) -> Result<TreeHead, StoreError> {
        self.shared.settle()?;
        let head = {
            let tree = self.shared.moving.lock();
            TreeHead { size: tree.size(), root: tree.root() }
        };
        self.shared.sync_through(head.size)?;
        Ok(head)
    }

    pub(crate) fn database(&self) -> Result<Arc<Db>, StoreError> {
        // What is selected by its session is found by the index.
        let stored = self.shared.settle()?;
        self.shared.index_through(stored)?;
        self.shared.db()
    }

    /// Entries that are in the database.
    pub(crate) fn stored(&self) -> u64 {
        self.shared.stored()
    }

    /// Moves all that was accepted into the database's files, and overwrites what the journal has. Nothing is accepted
    /// meanwhile.
    pub(crate) fn erase_journal(&self) -> Result<(), StoreError> {
        self.shared.erase_journal()
    }

    /// Calls `work` while nothing is moved into the database and it is not opened anew.
    pub(crate) fn undisturbed<R>(&self, work: impl FnOnce() -> R) -> R {
        let _still = self.shared.moving.lock();
        work()
    }

    /// Writes everything from memory into files, for instance before a copy is taken.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.shared.settle()?;
        self.shared.db()?.flush()
    }

    /// The folder that it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Makes everything that is derived from the log anew. Whoever lists or searches meanwhile finds less. `progress` is
    /// told how many entries are done, and of how many.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be read or written; the index then goes on where it was left.
    pub fn reindex(&self, progress: impl FnMut(u64, u64)) -> Result<(), StoreError> {
        self.shared.reindex(progress)
    }

    /// Forgets the texts of entries whose payloads were removed: they are found by them no more, once this returns, nor
    /// by the objects and policies that were removed. Ask for it after each redaction, and after each run of retention.
    /// It takes about 30 ms for each 32,768 entries among which there are some; the same entries' neighbours stay
    /// findable all the time.
    ///
    /// # Errors
    /// [`StoreError`]: some may still be found. Ask again.
    pub fn forget_texts(&self, entries: &[u64]) -> Result<(), StoreError> {
        self.shared.forget_texts(entries)
    }

    /// The log's id: 16 random bytes from when the store was made.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.shared.log_id
    }

    /// Refuses further entries, syncs, and closes the database. Idempotent.
    ///
    /// # Errors
    /// [`StoreError`]: the last sync failed. It is closed all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        {
            let mut closing = self.shared.closing.lock();
            if std::mem::replace(&mut *closing, true) {
                return Ok(());
            }
            self.shared.closed.notify_all();
            self.shared.move_soon();
        }
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has nothing more to do either.
            drop(thread.join());
        }
        self.shared.follow();
        self.shared.fail(StoreError::Closed, false);
        // Whoever is writing is waited for, and is then part of what is moved and synced.
        let closed = self.shared.settle().and_then(|_| self.sync()).and_then(|()| self.shared.note_synced());
        let mut writer = self.shared.writer.lock();
        writer.db = None;
        let emptied = match &mut writer.journal {
            Some(journal) if closed.is_ok() => journal.clear(),
            _ => Ok(()),
        };
        drop(writer);
        *self.shared.handle.write() = None;
        closed.and(emptied)
    }
}

impl Drop for AuditStore {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the audit store was closed without its last sync");
        }
    }
}

impl Store for AuditStore {
    fn append(&self, entries: &[Entry]) -> Result<u64, StoreError> {
        let result = self.shared.append(entries);
        if result.is_err() {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn blocks(&self) -> bool {
        self.shared.options.durability == Durability::Sync
    }
}

impl Shared {
    /// Makes `db` the one that is used.
    fn install(&self, db: Arc<Db>) {
        *self.handle.write() = Some(Arc::clone(&db));
        self.writer.lock().db = Some(db);
    }

    pub(crate) fn db(&self) -> Result<Arc<Db>, StoreError> {
        self.handle.read().clone().ok_or_else(|| self.trouble())
    }

    /// Entries that were accepted.
    pub(crate) fn end(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Sleeps; `false`: the store is closing.
    fn pause(&self, interval: Duration) -> bool {
        let mut closing = self.closing.lock();
        if !*closing {
            self.closed.wait_for(&mut closing, interval);
        }
        !*closing
    }

    fn health(&self) -> Health {
        let entries = self.end();
        let synced = self.group.synced().min(entries);
        let reason = self.trouble.lock().as_ref().map(|trouble| trouble.error.to_string());
        let (disk_bytes, memory_bytes) = self.handle.read().as_ref().map_or((0, 0), |db| db.sizes());
        Health {
            accepting: self.accepting.load(Ordering::Acquire),
            reason,
            entries,
            synced,
            syncs: self.group.count(),
            unsynced_for: if synced == entries { Duration::ZERO } else { self.group.last_success().elapsed() },
            indexed: self.indexed.load(Ordering::Acquire),
            refused: self.refused.load(Ordering::Relaxed),
            free_bytes: self.free.load(Ordering::Relaxed),
            disk_bytes,
            memory_bytes,
        }
    }
}
