//! What sessions want recorded, on its way to the log.
//!
//! Sessions submit entries and wait for a [`Ticket`]. Where the store does not wait for the disk, they are written at
//! once, and the ticket is there when it is asked for. Where it does, the committer's task writes them on a blocking
//! thread, and whatever is submitted meanwhile shares the next write.
//!
//! Outcomes do not wait: they ride along with the next write, or go after [`OUTCOME_FLUSH`]. While the store
//! does not accept they are kept and tried again, in order.

use crate::limits::{OUTCOME_FLUSH, OUTCOMES_WAITING_MAX, UNWRITTEN_MAX};
use crate::services::Metrics;
use parking_lot::Mutex;
use proxy_core::{Accepted, Entry, Event, Ledger, SessionId, StoreError, Timestamp};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// Numbers the entries of one session: the next number. Only the committer changes it, when it writes.
pub type Sequence = Arc<AtomicU64>;

/// An entry on its way to the log.
#[derive(Debug)]
pub struct Submission {
    /// When.
    pub time: Timestamp,
    /// Its session and that session's numbering.
    pub session: Option<(SessionId, Sequence)>,
    /// What.
    pub event: Event,
}

#[derive(Debug, Default)]
struct Batch {
    result: OnceLock<Result<Vec<Accepted>, StoreError>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Batch {
    fn finish(&self, result: Result<Vec<Accepted>, StoreError>) {
        let _ = self.result.set(result);
        for waker in self.wakers.lock().drain(..) {
            waker.wake();
        }
    }
}

#[derive(Debug, Default)]
struct Gathering {
    /// Outcomes first tried in an earlier batch, then this batch's entries, in order of submission.
    submissions: Vec<(Submission, bool)>,
    /// How many of them somebody waits for.
    awaited: usize,
    batch: Arc<Batch>,
}

/// Writes the entries of one worker's sessions.
pub struct Committer {
    ledger: Ledger,
    metrics: Arc<dyn Metrics>,
    gathering: Mutex<Gathering>,
    wake: Notify,
    lost: AtomicU64,
}

/// What a session waits on: resolves when its entries are in the log, or are refused.
#[derive(Debug)]
pub struct Ticket {
    batch: Arc<Batch>,
    from: usize,
    count: usize,
}

/// A ticket's entries, in the log.
#[derive(Debug)]
pub struct Written {
    batch: Arc<Batch>,
    from: usize,
    count: usize,
}

impl Written {
    /// The entry that was submitted at this place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Accepted> {
        let Some(Ok(accepted)) = self.batch.result.get() else { return None };
        (at < self.count).then(|| accepted.get(self.from + at).copied()).flatten()
    }
}

impl Future for Ticket {
    type Output = Result<Written, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.batch.result.get().is_none() {
            this.batch.wakers.lock().push(cx.waker().clone());
            // The batch may have finished between the look and the push.
            if this.batch.result.get().is_none() {
                return Poll::Pending;
            }
        }
        match this.batch.result.get() {
            Some(Ok(_)) => Poll::Ready(Ok(Written { batch: this.batch.clone(), from: this.from, count: this.count })),
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Committer")
    }
}

impl Committer {
    /// An empty committer that writes to `ledger`; [`Committer::run`] must run on the same worker.
    #[must_use]
    pub fn new(ledger: Ledger, metrics: Arc<dyn Metrics>) -> Self {
        Self { ledger, metrics, gathering: Mutex::default(), wake: Notify::new(), lost: AtomicU64::new(0) }
    }

    /// Entries that could not be kept for another try while the store was down: each is a gap that the log
    /// will show as a session without its end. Zero unless [`UNWRITTEN_MAX`] was reached.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Submits entries that something waits for. All of them are accepted, or none.
    pub fn submit(&self, submissions: impl IntoIterator<Item = Submission>) -> Ticket {
        let mut gathering = self.gathering.lock();
        let from = gathering.submissions.len();
        gathering.submissions.extend(submissions.into_iter().map(|submission| (submission, true)));
        let count = gathering.submissions.len() - from;
        gathering.awaited += count;
        let batch = gathering.batch.clone();
        drop(gathering);
        if self.ledger.blocks() {
            self.wake.notify_one();
        } else {
            self.commit_now();
        }
        Ticket { batch, from, count }
    }

    /// Submits an entry that nobody waits for.
    pub fn submit_later(&self, submission: Submission) {
        let mut gathering = self.gathering.lock();
        if gathering.submissions.len() >= UNWRITTEN_MAX {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            if lost.is_power_of_two() {
                tracing::error!(lost, "outcomes cannot be kept while the audit store does not accept: they will be missing");
            }
            return;
        }
        gathering.submissions.push((submission, false));
        let full = gathering.submissions.len() >= OUTCOMES_WAITING_MAX;
        drop(gathering);
        if full {
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Option<Gathering> {
        let mut gathering = self.gathering.lock();
        (!gathering.submissions.is_empty()).then(|| std::mem::take(&mut *gathering))
    }

    /// Puts back what nobody waits for, before what came meanwhile.
    fn put_back(&self, submissions: Vec<(Submission, bool)>) {
        let kept = submissions.into_iter().filter(|(_, awaited)| !awaited);
        let mut gathering = self.gathering.lock();
        let meanwhile = std::mem::take(&mut gathering.submissions);
        if gathering.awaited == 0 {
            gathering.submissions = kept.chain(meanwhile).collect();
        } else {
            // Tickets of the batch being gathered count from its front: older entries go behind it.
            gathering.submissions = meanwhile.into_iter().chain(kept).collect();
        }
    }

    /// Writes whatever was submitted, once.
    async fn commit(&self) {
        if !self.ledger.blocks() {
            return self.commit_now();
        }
        let Some(Gathering { submissions, batch, .. }) = self.take() else { return };
        let ledger = self.ledger.clone();
        let written = match tokio::task::spawn_blocking(move || write(&ledger, submissions)).await {
            Ok(written) => written,
            Err(error) => (Err(StoreError::Io(error.to_string())), Vec::new(), Vec::new()),
        };
        self.written(&batch, written);
    }

    /// The same, for a store that does not wait for the disk.
    fn commit_now(&self) {
        if let Some(Gathering { submissions, batch, .. }) = self.take() {
            self.written(&batch, write(&self.ledger, submissions));
        }
    }

    fn written(&self, batch: &Batch, (result, entries, flags): WriteResult) {
        let count = entries.len();
        self.metrics.committed(count, result.is_ok());
        if let Err(error) = &result {
            tracing::error!(%error, entries = count, "the audit store does not accept: requests are refused");
            self.put_back(unnumber(entries, flags));
        }
        batch.finish(result);
    }

    /// Runs until the process ends, or `until` resolves; then writes what is left.
    pub async fn run(&self, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        let mut tick = tokio::time::interval(OUTCOME_FLUSH);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                _ = tick.tick() => {}
                () = &mut until => break,
            }
            self.commit().await;
        }
        self.commit().await;
    }
}

type Flags = Vec<(Option<Sequence>, bool)>;

/// What came of a write, and what was to be written.
type WriteResult = (Result<Vec<Accepted>, StoreError>, Vec<Entry>, Flags);

fn write(ledger: &Ledger, submissions: Vec<(Submission, bool)>) -> WriteResult {
    let (entries, flags) = number(submissions);
    let mut accepted = Vec::with_capacity(entries.len());
    let result = ledger.commit(&entries, &mut accepted);
    (result.map(|()| accepted), entries, flags)
}

/// Gives each session's entries their numbers.
fn number(submissions: Vec<(Submission, bool)>) -> (Vec<Entry>, Flags) {
    let mut flags = Vec::with_capacity(submissions.len());
    let entries = submissions
        .into_iter()
        .map(|(Submission { time, session, event }, awaited)| {
            let session = session.map(|(id, sequence)| {
                let at = sequence.fetch_add(1, Ordering::Relaxed);
                flags.push((Some(sequence), awaited));
                (id, at)
            });
            if session.is_none() {
                flags.push((None, awaited));
            }
            Entry { time, session, event }
        })
        .collect();
    (entries, flags)
}

/// Takes the numbers back, since nothing was written.
fn unnumber(entries: Vec<Entry>, flags: Flags) -> Vec<(Submission, bool)> {
    entries
        .into_iter()
        .zip(flags)
        .map(|(entry, (sequence, awaited))| {
            let session = match (entry.session, sequence) {
                (Some((id, _)), Some(sequence)) => {
                    sequence.fetch_sub(1, Ordering::Relaxed);
                    Some((id, sequence))
                }
                _ => None,
            };
            (Submission { time: entry.time, session, event: entry.event }, awaited)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Committer, Sequence, Submission};
    use crate::services::Metrics;
    use parking_lot::Mutex;
    use proxy_core::session::CloseReason;
    use proxy_core::{Entry, Event, Ledger, SessionId, Store, StoreError, Timestamp};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::oneshot;

    /// Keeps what was written, one vector for each write.
    #[derive(Default)]
    struct Memory {
        writes: Mutex<Vec<Vec<Entry>>>,
        full: AtomicBool,
        /// A write waits as long as this is set.
        held: AtomicBool,
        /// As one that waits for the disk.
        blocks: bool,
    }

    impl Store for Memory {
        fn append(&self, entries: &[Entry]) -> Result<u64, StoreError> {
            while self.held.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            if self.full.load(Ordering::SeqCst) {
                return Err(StoreError::DiskFull { free: 0, needed: 1 });
            }
            let mut writes = self.writes.lock();
            let first = writes.iter().map(Vec::len).sum::<usize>() as u64;
            writes.push(entries.to_vec());
            Ok(first)
        }

        fn blocks(&self) -> bool {
            self.blocks
        }
    }

    impl Memory {
        /// Each write as the numbers of its entries in their session.
        fn numbers(&self) -> Vec<Vec<u64>> {
            let number = |entry: &Entry| entry.session.map(|(_, number)| number).expect("an entry of a session");
            self.writes.lock().iter().map(|write| write.iter().map(number).collect()).collect()
        }
    }

    struct Silent;

    impl Metrics for Silent {
        fn connected(&self, _: &'static str) {}
        fn login(&self, _: &'static str, _: bool) {}
        fn closed(&self, _: &'static str, _: &CloseReason) {}
        fn decided(&self, _: &'static str) {}
        fn moved(&self, _: u64, _: u64) {}
        fn committed(&self, _: usize, _: bool) {}
    }

    /// Runs `test` beside a committer, on one event loop, as a worker does.
    fn with_committer<F: Future<Output = ()>>(blocks: bool, test: impl FnOnce(Arc<Committer>, Arc<Memory>, Sequence) -> F) {
        let store = Arc::new(Memory { blocks, ..Memory::default() });
        let committer = Arc::new(Committer::new(Ledger::new(store.clone()), Arc::new(Silent)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (stop, stopped) = oneshot::channel::<()>();
            let writer = {
                let committer = committer.clone();
                tokio::spawn(async move { committer.run(async { drop(stopped.await) }).await })
            };
            test(committer, store, Sequence::default()).await;
            drop(stop);
            writer.await.expect("the committer ends");
        });
    }

    fn entry(sequence: &Sequence) -> Submission {
        let session = Some((SessionId([7; 16]), sequence.clone()));
        Submission { time: Timestamp::from_seconds(1), session, event: Event::Heartbeat }
    }

    #[test]
    fn what_comes_while_the_disk_is_waited_for_shares_a_write() {
        with_committer(true, |committer, store, sequence| async move {
            store.held.store(true, Ordering::SeqCst);
            let first = committer.submit([entry(&sequence)]);
            // The task takes it, and waits for the store.
            while committer.gathering.lock().awaited > 0 {
                tokio::task::yield_now().await;
            }
            let second = committer.submit([entry(&sequence)]);
            let third = committer.submit([entry(&sequence), entry(&sequence)]);
            store.held.store(false, Ordering::SeqCst);
            let (_, second, third) =
                (first.await.expect("accepted"), second.await.expect("accepted"), third.await.expect("accepted"));
            assert_eq!(store.numbers(), [vec![0], vec![1, 2, 3]]);
            assert!(second.get(0).is_some() && second.get(1).is_none());
            assert!(third.get(1).is_some() && third.get(2).is_none());
            assert_ne!(second.get(0).map(|a| a.index()), third.get(0).map(|a| a.index()));
        });
    }

    #[test]
    fn what_waits_for_no_disk_is_written_at_once_and_takes_along_what_waited() {
        with_committer(false, |committer, store, sequence| async move {
            committer.submit_later(entry(&sequence));
            assert_eq!(store.numbers(), [[0; 0]; 0]);
            let ticket = committer.submit([entry(&sequence)]);
            assert_eq!(store.numbers(), [[0, 1]]);
            assert!(ticket.await.expect("accepted").get(0).is_some());
        });
    }

    #[test]
    fn while_the_store_refuses_outcomes_are_kept_and_the_numbers_have_no_gap() {
        with_committer(false, |committer, store, sequence| async move {
            store.full.store(true, Ordering::SeqCst);
            committer.submit_later(entry(&sequence));
            let refused = committer.submit([entry(&sequence)]).await;
            assert_eq!(refused.expect_err("the disk is full"), StoreError::DiskFull { free: 0, needed: 1 });
            store.full.store(false, Ordering::SeqCst);
            committer.submit([entry(&sequence)]).await.expect("accepted");
            assert_eq!(store.numbers(), [[0, 1]], "the outcome first, and the refused entry left no number");
        });
    }
}
