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

/// What comes of a write, for those who wait for it while another thread writes.
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

/// Entries in order of submission. Each session's get their numbers when they are written.
#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    /// Of each: its session's numbering, and whether somebody waits for it.
    owners: Vec<(Option<Sequence>, bool)>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn push(&mut self, Submission { time, session, event }: Submission, awaited: bool) {
        let (session, sequence) = session.map(|(id, sequence)| ((id, 0), sequence)).unzip();
        self.entries.push(Entry { time, session, event });
        self.owners.push((sequence, awaited));
    }

    fn write(&mut self, ledger: &Ledger, accepted: &mut Vec<Accepted>) -> Result<(), StoreError> {
        for (entry, (sequence, _)) in self.entries.iter_mut().zip(&self.owners) {
            if let (Some((_, number)), Some(sequence)) = (&mut entry.session, sequence) {
                *number = sequence.fetch_add(1, Ordering::Relaxed);
            }
        }
        let result = ledger.commit(&self.entries, accepted);
        if result.is_err() {
            // Nothing was written: the numbers are free again.
            for sequence in self.owners.iter().filter_map(|(sequence, _)| sequence.as_ref()) {
                sequence.fetch_sub(1, Ordering::Relaxed);
            }
        }
        result
    }

    /// Forgets all; memory that a long refusal has taken is given back.
    fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(OUTCOMES_WAITING_MAX);
        self.owners.clear();
        self.owners.shrink_to(OUTCOMES_WAITING_MAX);
    }

    /// Forgets what somebody waited for: they are told that it was refused.
    fn keep_outcomes(&mut self) {
        let mut owners = self.owners.iter();
        self.entries.retain(|_| owners.next().is_some_and(|(_, awaited)| !awaited));
        self.owners.retain(|(_, awaited)| !awaited);
    }

    fn append(&mut self, mut later: Self) {
        self.entries.append(&mut later.entries);
        self.owners.append(&mut later.owners);
    }
}

#[derive(Debug, Default)]
struct Gathering {
    /// Outcomes first tried in an earlier write, then what came since.
    waiting: Waiting,
    /// How many of them somebody waits for.
    awaited: usize,
    /// What these wait on.
    batch: Arc<Batch>,
    /// Of the last write that was made at once: its memory is used again.
    accepted: Vec<Accepted>,
}

/// Writes the entries of one worker's sessions.
pub struct Committer {
    ledger: Ledger,
    metrics: Arc<dyn Metrics>,
    gathering: Mutex<Gathering>,
    wake: Notify,
    lost: AtomicU64,
    /// Writes that were refused since the last that was not.
    refused: AtomicU64,
}

/// What a session waits on: resolves when its entries are in the log, or are refused.
#[derive(Debug)]
pub struct Ticket(Awaited);

#[derive(Debug)]
enum Awaited {
    /// It was written at once, or refused; `None`: taken.
    There(Option<Result<Written, StoreError>>),
    /// Its place among the entries of a batch.
    Batch { batch: Arc<Batch>, from: usize, count: usize },
}

/// A ticket's entries, in the log.
#[derive(Debug)]
pub struct Written(Vec<Accepted>);

impl Written {
    fn part(accepted: &[Accepted], from: usize, count: usize) -> Self {
        Self(accepted.get(from..from + count).unwrap_or_default().to_vec())
    }

    /// The entry that was submitted at this place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Accepted> {
        self.0.get(at).copied()
    }
}

impl Future for Ticket {
    type Output = Result<Written, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (batch, from, count) = match &mut self.get_mut().0 {
            Awaited::There(result) => return result.take().map_or(Poll::Pending, Poll::Ready),
            Awaited::Batch { batch, from, count } => (batch, *from, *count),
        };
        if batch.result.get().is_none() {
            batch.wakers.lock().push(cx.waker().clone());
        }
        // The batch may have finished between the look and the push.
        match batch.result.get() {
            Some(Ok(accepted)) => Poll::Ready(Ok(Written::part(accepted, from, count))),
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
        Self {
            ledger,
            metrics,
            gathering: Mutex::default(),
            wake: Notify::new(),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
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
        let from = gathering.waiting.len();
        for submission in submissions {
            gathering.waiting.push(submission, true);
        }
        let count = gathering.waiting.len() - from;
        if self.ledger.blocks() {
            gathering.awaited += count;
            let batch = gathering.batch.clone();
            drop(gathering);
            self.wake.notify_one();
            return Ticket(Awaited::Batch { batch, from, count });
        }
        let result = self.write_at_once(&mut gathering);
        Ticket(Awaited::There(Some(result.map(|()| Written::part(&gathering.accepted, from, count)))))
    }

    /// Submits an entry that nobody waits for.
    pub fn submit_later(&self, submission: Submission) {
        let mut gathering = self.gathering.lock();
        if gathering.waiting.len() >= UNWRITTEN_MAX {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            if lost.is_power_of_two() {
                tracing::error!(lost, "outcomes cannot be kept while the audit store does not accept: they will be missing");
            }
            return;
        }
        gathering.waiting.push(submission, false);
        let full = gathering.waiting.len() >= OUTCOMES_WAITING_MAX;
        drop(gathering);
        if full {
            self.wake.notify_one();
        }
    }

    /// Writes whatever was submitted, once.
    async fn commit(&self) {
        let (mut waiting, batch) = {
            let mut gathering = self.gathering.lock();
            if gathering.waiting.len() == 0 {
                return;
            }
            if !self.ledger.blocks() {
                // Nobody waits for what is left; what is refused is kept.
                drop(self.write_at_once(&mut gathering));
                return;
            }
            let Gathering { waiting, batch, .. } = std::mem::take(&mut *gathering);
            (waiting, batch)
        };
        let ledger = self.ledger.clone();
        let count = waiting.len();
        let written = tokio::task::spawn_blocking(move || {
            let mut accepted = Vec::with_capacity(count);
            let result = waiting.write(&ledger, &mut accepted);
            (result.map(|()| accepted), waiting)
        });
        let (result, waiting) = match written.await {
            Ok(written) => written,
            Err(error) => (Err(StoreError::Io(error.to_string())), Waiting::default()),
        };
        self.report(count, result.as_ref().err());
        if result.is_err() {
            self.put_back(waiting);
        }
        batch.finish(result);
    }

    /// Writes all that waits, into a store that does not wait for the disk. What nobody waits for is kept if it is refused.
    fn write_at_once(&self, gathering: &mut Gathering) -> Result<(), StoreError> {
        let Gathering { waiting, accepted, .. } = gathering;
        accepted.clear();
        let count = waiting.len();
        let result = waiting.write(&self.ledger, accepted);
        self.report(count, result.as_ref().err());
        match result {
            Ok(()) => waiting.clear(),
            Err(_) => waiting.keep_outcomes(),
        }
        result
    }

    fn report(&self, count: usize, error: Option<&StoreError>) {
        self.metrics.committed(count, error.is_none());
        let refused_before = self.refused.load(Ordering::Relaxed);
        match error {
            // The first alone: the others are counted, and a full disk must not be filled with them.
            Some(error) => {
                if refused_before == 0 {
                    tracing::error!(%error, entries = count, "the audit store does not accept: requests are refused");
                }
                self.refused.store(refused_before + 1, Ordering::Relaxed);
            }
            None if refused_before > 0 => {
                self.refused.store(0, Ordering::Relaxed);
                tracing::info!(writes = refused_before, "the audit store accepts again: so many writes were refused");
            }
            None => {}
        }
    }

    /// Puts back what nobody waits for, before what came meanwhile.
    fn put_back(&self, mut kept: Waiting) {
        kept.keep_outcomes();
        let mut gathering = self.gathering.lock();
        let meanwhile = std::mem::take(&mut gathering.waiting);
        // Tickets of the batch being gathered count from its front: then older entries go behind it.
        let (mut first, second) = if gathering.awaited == 0 { (kept, meanwhile) } else { (meanwhile, kept) };
        first.append(second);
        gathering.waiting = first;
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
