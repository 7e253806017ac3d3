//! Group commit: callers that wait for the disk at the same time share one fsync.

use parking_lot::{Condvar, Mutex};
use proxy_core::StoreError;
use std::time::Instant;

struct State {
    /// Entries that are known to be on the disk.
    synced: u64,
    /// Whether somebody is syncing on behalf of all.
    busy: bool,
    /// Counts openings of the database: whoever waited for an earlier one does not know.
    epoch: u64,
    /// The failure of the current epoch. A failed fsync is never tried again: the kernel may have dropped the
    /// pages and report success the second time.
    failed: Option<StoreError>,
    /// When the last sync succeeded, or there was nothing to sync.
    last_success: Instant,
    count: u64,
}

pub(crate) struct GroupSync {
    state: Mutex<State>,
    done: Condvar,
}

impl GroupSync {
    /// `synced`: entries that were read back from the disk at opening.
    pub(crate) fn new(synced: u64) -> Self {
        let state = State { synced, busy: false, epoch: 0, failed: None, last_success: Instant::now(), count: 0 };
        Self { state: Mutex::new(state), done: Condvar::new() }
    }

    /// Waits until the entries before `end` are on the disk. `sync` syncs and returns how far it reached.
    pub(crate) fn wait(&self, end: u64, mut sync: impl FnMut() -> Result<u64, StoreError>) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let epoch = state.epoch;
        loop {
            if state.synced >= end {
                return Ok(());
            }
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.epoch != epoch {
                return Err(StoreError::Io("the store was opened anew while this entry was being synced".to_owned()));
            }
            if state.busy {
                self.done.wait(&mut state);
                continue;
            }
            state.busy = true;
            drop(state);
            let result = sync();
            state = self.state.lock();
            state.busy = false;
            state.count += 1;
            if state.epoch == epoch {
                match result {
                    Ok(reached) => {
                        state.synced = state.synced.max(reached);
                        state.last_success = Instant::now();
                    }
                    Err(error) => state.failed = Some(error),
                }
            }
            self.done.notify_all();
        }
    }

    /// Entries that are known to be on the disk.
    pub(crate) fn synced(&self) -> u64 {
        self.state.lock().synced
    }

    /// Syncs so far.
    pub(crate) fn count(&self) -> u64 {
        self.state.lock().count
    }

    /// Notes that there was nothing to sync.
    pub(crate) fn touch(&self) {
        self.state.lock().last_success = Instant::now();
    }

    /// When the last sync succeeded, or there was nothing to sync.
    pub(crate) fn last_success(&self) -> Instant {
        self.state.lock().last_success
    }

    /// The database was opened again, and has `synced` entries on the disk.
    pub(crate) fn reset(&self, synced: u64) {
        let mut state = self.state.lock();
        state.synced = synced;
        state.epoch += 1;
        state.failed = None;
        state.last_success = Instant::now();
        self.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::GroupSync;
    use proxy_core::StoreError;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[test]
    fn waiters_share_a_sync() {
        let group = Arc::new(GroupSync::new(0));
        let (written, syncs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let threads: Vec<_> = (0..32)
            .map(|_| {
                let (group, written, syncs) = (Arc::clone(&group), Arc::clone(&written), Arc::clone(&syncs));
                std::thread::spawn(move || {
                    for _ in 0..20 {
                        let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                        group
                            .wait(mine, || {
                                let reached = written.load(Ordering::SeqCst);
                                std::thread::sleep(Duration::from_millis(2));
                                syncs.fetch_add(1, Ordering::SeqCst);
                                Ok(reached)
                            })
                            .unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(group.synced(), 640);
        assert!(syncs.load(Ordering::SeqCst) < 128, "{} syncs for 640 entries", syncs.load(Ordering::SeqCst));
    }

    #[test]
    fn a_failed_sync_is_not_tried_again() {
        let group = GroupSync::new(0);
        let failure = StoreError::Io("no".to_owned());
        assert_eq!(group.wait(1, || Err(failure.clone())), Err(failure.clone()));
        assert_eq!(group.wait(1, || Ok(1)), Err(failure));
        group.reset(1);
        assert_eq!(group.wait(2, || Ok(2)), Ok(()));
    }
}
