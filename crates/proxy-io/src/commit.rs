//! One log write for everything that one turn of the event loop wants recorded.
//!
//! Sessions submit entries and wait for a [`Ticket`]. The committer's task is woken by the first submission
//! and, since the runtime runs tasks in the order in which they were woken, runs after every session that
//! the same turn had ready: all of them share one write. Where the store waits for the disk, the write is
//! done on a blocking thread and the next batch gathers meanwhile.
//!
//! Outcomes do not wait: they ride along with the next write, or go after [`OUTCOME_FLUSH`]. While the store
//! does not accept they are kept and tried again, in order.

use crate::limits::{OUTCOME_FLUSH, OUTCOMES_WAITING_MAX, UNWRITTEN_MAX};
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

impl Future for Ticket {
    type Output = Result<Vec<Accepted>, StoreError>;

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
            Some(Ok(accepted)) => Poll::Ready(Ok(accepted.iter().skip(this.from).take(this.count).copied().collect())),
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

    /// Runs until the process ends, or `until` resolves; then writes what is left.
    pub async fn run(&self, ledger: &Ledger, metrics: &dyn Metrics, until: impl Future<Output = ()>) {
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
