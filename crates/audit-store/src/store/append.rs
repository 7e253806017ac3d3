//! Entries get in: into the journal, onto the disk, and from there into the database.

use super::{Shared, Writer};
use crate::batch::Batch;
use crate::journal::{Files, Journal, NoRoom};
use crate::limits::{MOVE_ENOUGH, MOVE_INTERVAL, UNWATCHED_MAX};
use crate::options::Durability;
use parking_lot::MutexGuard;
use proxy_core::{Entry, StoreError};
use rocksdb::WriteBatch;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

thread_local! {
    /// Encoding needs no lock, and its memory is used again.
    static BATCH: RefCell<Batch> = RefCell::default();
}

impl Shared {
    /// Accepts entries, all or none, as durably as is configured. Returns the index of the first.
    pub(super) fn append(&self, entries: &[Entry]) -> Result<u64, StoreError> {
        if !self.accepting.load(Ordering::Acquire) {
            return Err(self.trouble());
        }
        let first = BATCH.with_borrow_mut(|batch| {
            batch.fill(entries, &self.options)?;
            let first = self.write(batch, entries.len() as u64);
            // What was said is not kept longer than needed.
            batch.clear();
            first
        })?;
        if self.options.durability == Durability::Sync {
            self.sync_through(first + entries.len() as u64)?;
        }
        Ok(first)
    }

    /// The writer, while entries are accepted. Asked under its lock: whoever refuses them may be waiting for it to open the
    /// store anew.
    fn accepting_writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        let writer = self.writer.lock();
        if self.accepting.load(Ordering::Acquire) {
            return Ok(writer);
        }
        drop(writer);
        Err(self.trouble())
    }

    /// Gives indices and writes: all or nothing.
    fn write(&self, batch: &mut Batch, count: u64) -> Result<u64, StoreError> {
        let size = batch.size();
        if self.unwatched.fetch_add(size, Ordering::Relaxed) + size > UNWATCHED_MAX {
            self.look_at_space();
        }
        loop {
            let mut writer = self.accepting_writer()?;
            let Writer { journal: Some(journal), next, pending, .. } = &mut *writer else {
                drop(writer);
                return Err(self.trouble());
            };
            let first = *next;
            let end = after(first, count)?;
            match journal.append(batch, first, count, self.group.synced()) {
                Ok(None) => {
                    pending.add(first, batch);
                    *next = end;
                    let due = pending.size() >= MOVE_ENOUGH;
                    self.next.store(end, Ordering::Release);
                    drop(writer);
                    if due {
                        self.move_soon();
                    }
                    return Ok(first);
                }
                Ok(Some(NoRoom::TooLong)) => {
                    drop(writer);
                    return self.write_long(batch, count);
                }
                Ok(Some(NoRoom::Full)) => {
                    drop(writer);
                    self.settle()?;
                }
                Err(error) => return Err(self.broke(error)),
            }
        }
    }

    /// The same for a batch that the journal has no room for: into the database's files, behind all that came before it.
    fn write_long(&self, batch: &mut Batch, count: u64) -> Result<u64, StoreError> {
        let mut tree = self.moving.lock();
        let mut writer = self.accepting_writer()?;
        let Writer { db: Some(db), next, pending, .. } = &mut *writer else {
            drop(writer);
            return Err(self.trouble());
        };
        let first = *next;
        let end = after(first, count)?;
        let mut all = std::mem::take(pending);
        all.add(first, batch);
        // What comes next is accepted when the journal has it, and must not be without this after a kill.
        db.move_in(&all, &mut tree).and_then(|()| db.flush()).map_err(|error| self.broke(error))?;
        *next = end;
        self.stored.store(end, Ordering::Release);
        self.next.store(end, Ordering::Release);
        Ok(first)
    }

    /// Moves what was accepted before the call into the database. Returns how many entries are there.
    pub(crate) fn settle(&self) -> Result<u64, StoreError> {
        let mut tree = self.moving.lock();
        if self.broken.load(Ordering::Acquire) {
            return Err(self.trouble());
        }
        let (pending, db, waits_for) = {
            let mut writer = self.writer.lock();
            let Some(db) = writer.db.clone() else {
                drop(writer);
                return Err(self.trouble());
            };
            (std::mem::take(&mut writer.pending), db, writer.journal.as_ref().and_then(Journal::waits_for))
        };
        let moved = (|| {
            if let Some(end) = pending.end() {
                db.move_in(&pending, &mut tree)?;
                self.stored.store(end, Ordering::Release);
            }
            let stored = self.stored();
            if waits_for.is_some_and(|end| end <= stored) {
                db.flush()?;
                if let Some(journal) = &mut self.writer.lock().journal {
                    journal.release(stored);
                }
            }
            Ok(stored)
        })();
        // They are in the journal: opening the database again finds them there.
        moved.map_err(|error| self.broke(error))
    }

    /// Entries that are in the database.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Acquire)
    }

    /// Wakes the thread that moves entries into the database.
    pub(super) fn move_soon(&self) {
        *self.due.lock() = true;
        self.enough.notify_one();
    }

    /// Sleeps until enough waits to be moved, or it has waited for long; `false`: the store is closing.
    pub(super) fn pause_until_due(&self) -> bool {
        let mut due = self.due.lock();
        if !*due {
            self.enough.wait_for(&mut due, MOVE_INTERVAL);
        }
        *due = false;
        drop(due);
        !*self.closing.lock()
    }

    /// Moves all that was accepted into the database's files, and overwrites the journal. Nothing is accepted meanwhile.
    pub(super) fn erase_journal(&self) -> Result<(), StoreError> {
        let mut tree = self.moving.lock();
        let mut writer = self.accepting_writer()?;
        let Writer { db: Some(db), journal: Some(journal), next, pending } = &mut *writer else {
            drop(writer);
            return Err(self.trouble());
        };
        let all = std::mem::take(pending);
        let erased = db.move_in(&all, &mut tree).and_then(|()| db.flush()).and_then(|()| journal.erase());
        erased.map_err(|error| self.broke(error))?;
        self.stored.store(*next, Ordering::Release);
        Ok(())
    }

    /// Waits until everything before `end` is on the disk.
    pub(super) fn sync_through(&self, end: u64) -> Result<(), StoreError> {
        self.group
            .wait(end, || {
                let target = self.end();
                self.journal()?.sync()?;
                Ok(target)
            })
            .map_err(|error| self.broke(error))
    }

    /// The journal's files.
    fn journal(&self) -> Result<Arc<Files>, StoreError> {
        let files = self.writer.lock().journal.as_ref().map(Journal::files);
        files.ok_or_else(|| self.trouble())
    }

    /// Notes that all that was accepted is on the disk, in the database.
    pub(super) fn note_synced(&self) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut batch = WriteBatch::default();
        db.put_synced(&mut batch, self.end())?;
        db.write_through(batch)
    }

    /// The sync thread's turn.
    pub(super) fn sync_written(&self) {
        let end = self.end();
        if self.group.synced() >= end {
            self.group.touch();
        } else if self.accepting.load(Ordering::Acquire) {
            // A failure has been noted, logged and is being dealt with by the watch.
            drop(self.sync_through(end));
        }
    }
}

/// The index after `count` entries from `first` on.
fn after(first: u64, count: u64) -> Result<u64, StoreError> {
    first.checked_add(count).ok_or_else(|| StoreError::Io("the log is full".to_owned()))
}
