//! What is made from the log, and follows it.

use super::Shared;
use proxy_core::StoreError;
use std::sync::atomic::Ordering;

impl Shared {
    /// Brings the session index up to date.
    pub(super) fn follow(&self) {
        let followed = self.settle().and_then(|stored| self.index_through(stored));
        // While the store does not accept, that has been said.
        if let Err(error) = followed
            && self.accepting.load(Ordering::Acquire)
        {
            tracing::warn!(%error, "the session index does not follow the log");
        }
    }

    /// Indexes everything before `end`.
    pub(crate) fn index_through(&self, end: u64) -> Result<(), StoreError> {
        if self.indexed.load(Ordering::Acquire) >= end {
            return Ok(());
        }
        let db = self.db()?;
        let mut indexer = self.indexer.lock();
        while indexer.next() < end {
            if !self.accepting.load(Ordering::Acquire) {
                return Err(self.trouble());
            }
            indexer.pass(&db, end, self.group.synced())?;
            self.indexed.store(indexer.next(), Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn reindex(&self, mut progress: impl FnMut(u64, u64)) -> Result<(), StoreError> {
        let end = self.settle()?;
        let db = self.db()?;
        let mut indexer = self.indexer.lock();
        indexer.begin_anew(&db, end)?;
        while indexer.next() < end {
            indexer.pass(&db, end, self.group.synced())?;
            self.indexed.store(indexer.next(), Ordering::Release);
            progress(indexer.next(), end);
        }
        db.flush()
    }

    pub(super) fn forget_texts(&self, entries: &[u64]) -> Result<(), StoreError> {
        let mut indexer = self.indexer.lock();
        indexer.forget_texts(&*self.db()?, entries)
    }

    /// Calls `read` while the index stands still.
    pub(crate) fn without_indexing<R>(&self, read: impl FnOnce() -> R) -> R {
        let _still = self.indexer.lock();
        read()
    }
}
