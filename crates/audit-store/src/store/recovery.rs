//! What stops entries, and what lets them in again.
//!
//! A failed write or fsync closes the store for writing: RocksDB does not take further writes after one, and
//! the kernel forgets what it could not write. The watch opens it again from what is on the disk, checks that
//! nothing accepted is missing, and only then lets entries in.

use super::{Shared, Trouble};
use crate::db::Db;
use crate::index::Indexer;
use crate::journal::{Journal, Tail};
use crate::limits::{REOPEN_WAIT, TAIL_CHECKED};
use crate::log;
use crate::options::Recovery;
use crate::tree::Tree;
use proxy_core::StoreError;
use rocksdb::WriteBatch;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Shared {
    /// A write or a sync has failed: no more entries until the store was opened again. Returns the error as it is told.
    pub(super) fn broke(&self, error: StoreError) -> StoreError {
        let error = self.complete(error);
        self.fail(error.clone(), true);
        error
    }

    /// Why entries are refused.
    pub(super) fn trouble(&self) -> StoreError {
        self.trouble.lock().as_ref().map_or(StoreError::Closed, |trouble| trouble.error.clone())
    }

    /// Refuses entries from now on. What needs a new opening is not overwritten by what does not.
    pub(super) fn fail(&self, error: StoreError, reopen: bool) {
        let mut trouble = self.trouble.lock();
        self.accepting.store(false, Ordering::Release);
        if reopen {
            self.broken.store(true, Ordering::Release);
        }
        if error == StoreError::Closed {
            *trouble = Some(Trouble { error, reopen: false });
        } else if trouble.as_ref().is_none_or(|known| reopen && !known.reopen && known.error != StoreError::Closed) {
            tracing::error!(%error, "the audit store does not accept entries");
            *trouble = Some(Trouble { error, reopen });
        }
    }

    /// Accepts entries again, if that was all that was wrong.
    pub(super) fn recover(&self, reopened: bool) {
        if self.forked.load(Ordering::Acquire) {
            return;
        }
        let mut trouble = self.trouble.lock();
        match &*trouble {
            Some(known) if known.reopen != reopened || known.error == StoreError::Closed => return,
            Some(_) => tracing::info!(entries = self.end(), "the audit store accepts entries again"),
            None => {}
        }
        *trouble = None;
        self.broken.store(false, Ordering::Release);
        self.accepting.store(true, Ordering::Release);
    }

    /// Fills in what only the store knows about a full disk.
    pub(super) fn complete(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::DiskFull { .. } => {
                let free = free_bytes(&self.dir).unwrap_or(0);
                StoreError::DiskFull { free, needed: self.options.min_free_bytes }
            }
            other => other,
        }
    }

    /// Looks at the free space, and closes or opens the gate accordingly.
    pub(super) fn look_at_space(&self) {
        self.unwatched.store(0, Ordering::Relaxed);
        let needed = self.options.min_free_bytes;
        let free = match free_bytes(&self.dir) {
            Ok(free) => free,
            Err(error) => return self.fail(error, false),
        };
        self.free.store(free, Ordering::Relaxed);
        if free < needed {
            self.fail(StoreError::DiskFull { free, needed }, false);
            return;
        }
        // A margin, so that the store does not flutter.
        if !self.accepting.load(Ordering::Acquire) && free >= needed.saturating_add(needed / 32) {
            self.recover(false);
        }
    }

    pub(super) fn watch(&self) {
        self.look_at_space();
        let failed = matches!(&*self.trouble.lock(), Some(Trouble { reopen: true, .. }));
        if failed && self.free.load(Ordering::Relaxed) >= self.options.min_free_bytes {
            match self.reopen() {
                Ok(()) => self.recover(true),
                Err(error) => tracing::warn!(%error, "the audit store cannot be opened again yet"),
            }
        }
    }

    /// Closes the database and opens it from what is on the disk.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut tree = self.moving.lock();
        let mut writer = self.writer.lock();
        writer.db = None;
        // The journal has it.
        writer.pending = Tail::default();
        let old = self.handle.write().take();
        if let Some(old) = old {
            // Readers hold it for the length of one call.
            let mut old = Some(old);
            let deadline = Instant::now() + REOPEN_WAIT;
            while let Some(shared) = old.take() {
                match Arc::try_unwrap(shared) {
                    Ok(db) => drop(db),
                    Err(shared) if Instant::now() < deadline => {
                        old = Some(shared);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(shared) => {
                        *self.handle.write() = Some(shared);
                        return Err(StoreError::Io("a reader still holds the failed handle".to_owned()));
                    }
                }
            }
        }
        let db = Db::open(&self.dir, &self.options).map_err(|e| self.complete(e))?;
        let end = whole_end(&db, self.options.recovery)?;
        if end < writer.next {
            return Err(StoreError::Corrupt(format!("entries {end} to {} were accepted and are missing", writer.next - 1)));
        }
        check_tail(&db, end)?;
        // An entry whose write was reported as failed may have reached the disk: it is in the log then, as a
        // request that was never forwarded.
        *tree = Tree::open(&db, end)?;
        *self.indexer.lock() = Indexer::open(&db, end)?;
        writer.journal = Some(Journal::begin(&self.dir, self.log_id, self.options.journal()).map_err(|e| self.complete(e))?);
        let db = Arc::new(db);
        *self.handle.write() = Some(Arc::clone(&db));
        writer.db = Some(db);
        writer.next = end;
        self.next.store(end, Ordering::Release);
        self.stored.store(end, Ordering::Release);
        self.group.reset(end);
        Ok(())
    }
}

/// The index that the next entry gets. Where entries are missing, that is an error, or they are given up.
pub(super) fn whole_end(db: &Db, recovery: Recovery) -> Result<u64, StoreError> {
    let Some(gap) = log::gap(db)? else { return log::end(db) };
    if recovery == Recovery::Refuse {
        return Err(StoreError::Corrupt(log::gap_words(gap)));
    }
    tracing::warn!("{}: the log goes on from entry {}", log::gap_words(gap), gap.0);
    let mut batch = WriteBatch::default();
    db.put_synced(&mut batch, gap.0)?;
    db.write_through(batch)?;
    Ok(gap.0)
}

/// Reads the last entries: what is damaged at the end must not be built upon.
pub(super) fn check_tail(db: &Db, end: u64) -> Result<(), StoreError> {
    log::scan(db, end.saturating_sub(TAIL_CHECKED), end, |index, leaf| log::decode(db, index, leaf).map(|_| log::Go::On))
}

/// Bytes free on the disk of `dir`, for a process without privileges.
pub(super) fn free_bytes(dir: &Path) -> Result<u64, StoreError> {
    let stat =
        rustix::fs::statvfs(dir).map_err(|e| StoreError::Io(format!("cannot see the free space of {}: {e}", dir.display())))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
