//! One log write for everything that one turn of the event loop wants recorded.
//!
//! Sessions submit entries and wait for a [`Ticket`]. The committer's task is woken by the first submission
//! and, since the runtime runs tasks in the order in which they were woken, runs after every session that
//! the same turn had ready: all of them share one write. It waits for as many further turns as add to it, up to
//! [`BATCH_ENOUGH`]: a write costs more than a look at what is ready. Where the store waits for the disk, the write is
//! done on a blocking thread and the next batch gathers meanwhile.
//!
//! Outcomes do not wait: they ride along with the next write, or go after [`OUTCOME_FLUSH`]. While the store
//! does not accept they are kept and tried again, in order.

use crate::limits::{BATCH_ENOUGH, OUTCOME_FLUSH, OUTCOMES_WAITING_MAX, UNWRITTEN_MAX};
use crate::services::Metrics;
use parking_lot::Mutex;
use proxy_core::{Accepted, Entry, Event, Ledger, SessionId, StoreError, Timestamp};
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

/// Gathers the entries of one worker's sessions.
#[derive(Debug)]
pub struct Committer {
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

impl Default for Committer {
    fn default() -> Self {
        Self::new()
    }
}

impl Committer {
    /// An empty committer; [`Committer::run`] must run on the same worker.
    #[must_use]
    pub fn new() -> Self {
        Self { gathering: Mutex::new(Gathering::default()), wake: Notify::new(), lost: AtomicU64::new(0) }
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
        self.wake.notify_one();
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
    async fn commit(&self, ledger: &Ledger, metrics: &dyn Metrics) {
        let Some(gathered) = self.take() else { return };
        let Gathering { submissions, batch, .. } = gathered;
        let count = submissions.len();
        let write = move |ledger: &Ledger| {
            let (entries, submissions) = number(submissions);
            let mut accepted = Vec::with_capacity(entries.len());
            let result = ledger.commit(&entries, &mut accepted);
            (result.map(|()| accepted), entries, submissions)
        };
        let (result, entries, flags) = if ledger.blocks() {
            let ledger = ledger.clone();
            match tokio::task::spawn_blocking(move || write(&ledger)).await {
                Ok(written) => written,
                Err(error) => (Err(StoreError::Io(error.to_string())), Vec::new(), Vec::new()),
            }
        } else {
            write(ledger)
        };
        metrics.committed(count, result.is_ok());
        if let Err(error) = &result {
            tracing::error!(%error, entries = count, "the audit store does not accept: requests are refused");
            self.put_back(unnumber(entries, flags));
        }
        batch.finish(result);
    }

    /// Lets the loop's next turns add to the batch, as long as they do.
    async fn gather(&self) {
        let mut awaited = self.awaited();
        while awaited < BATCH_ENOUGH {
            tokio::task::yield_now().await;
            let now = self.awaited();
            if now == awaited {
                return;
            }
            awaited = now;
        }
    }

    fn awaited(&self) -> usize {
        self.gathering.lock().awaited
    }

    /// Runs until the process ends, or `until` resolves; then writes what is left.
    pub async fn run(&self, ledger: &Ledger, metrics: &dyn Metrics, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        let mut tick = tokio::time::interval(OUTCOME_FLUSH);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.wake.notified() => self.gather().await,
                _ = tick.tick() => {}
                () = &mut until => break,
            }
            self.commit(ledger, metrics).await;
        }
        self.commit(ledger, metrics).await;
    }
}

type Flags = Vec<(Option<Sequence>, bool)>;

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
    }

    impl Store for Memory {
        fn append(&self, entries: &[Entry]) -> Result<u64, StoreError> {
            if self.full.load(Ordering::SeqCst) {
                return Err(StoreError::DiskFull { free: 0, needed: 1 });
            }
            let mut writes = self.writes.lock();
            let first = writes.iter().map(Vec::len).sum::<usize>() as u64;
            writes.push(entries.to_vec());
            Ok(first)
        }

        fn blocks(&self) -> bool {
            false
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
    fn with_committer<F: Future<Output = ()>>(test: impl FnOnce(Arc<Committer>, Arc<Memory>, Sequence) -> F) {
        let store = Arc::<Memory>::default();
        let committer = Arc::new(Committer::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let ledger = Ledger::new(store.clone());
            let (stop, stopped) = oneshot::channel::<()>();
            let writer = {
                let committer = committer.clone();
                tokio::spawn(async move { committer.run(&ledger, &Silent, async { drop(stopped.await) }).await })
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
    fn what_the_next_turn_adds_shares_the_write() {
        with_committer(|committer, store, sequence| async move {
            let first = committer.submit([entry(&sequence)]);
            tokio::task::yield_now().await;
            let second = committer.submit([entry(&sequence), entry(&sequence)]);
            let (first, second) = (first.await.expect("accepted"), second.await.expect("accepted"));
            assert_eq!(store.numbers(), [[0, 1, 2]]);
            assert!(first.get(0).is_some() && first.get(1).is_none());
            assert!(second.get(1).is_some() && second.get(2).is_none());
            assert_ne!(first.get(0).map(|a| a.index()), second.get(0).map(|a| a.index()));
        });
    }

    #[test]
    fn a_lone_entry_does_not_wait_for_others() {
        with_committer(|committer, store, sequence| async move {
            for number in 0..3 {
                committer.submit([entry(&sequence)]).await.expect("accepted");
                assert_eq!(store.numbers().len(), number + 1);
            }
        });
    }

    #[test]
    fn while_the_store_refuses_outcomes_are_kept_and_the_numbers_have_no_gap() {
        with_committer(|committer, store, sequence| async move {
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
