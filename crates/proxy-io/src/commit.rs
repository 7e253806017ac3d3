//! What sessions want recorded, on its way to the log.
//!
//! Sessions submit entries and wait for a [`Ticket`]. The committer's task runs when every session that was woken with it
//! has had its turn: what they submitted is one write. Then it resumes each of them itself, which costs less than waking
//! their tasks. Where the store waits for the disk, the write is made on a blocking thread, and whatever is submitted
//! meanwhile shares the next one.
//!
//! Outcomes do not wait: they ride along with the next write, or go after [`OUTCOME_FLUSH`]. While the store
//! does not accept they are kept and tried again, in order.

use crate::clock;
use crate::limits::{GATHERED_MAX, OUTCOME_FLUSH, OUTCOMES_WAITING_MAX, UNWRITTEN_MAX};
use crate::services::Metrics;
use bytes::Bytes;
use parking_lot::Mutex;
use proxy_core::{Accepted, Entry, Event, Ledger, SessionId, StoreError, Timestamp};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
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

/// Bytes of an entry that are as long as the caller pleases.
fn weight(event: &Event) -> usize {
    match event {
        Event::Request(request) => {
            let parameters = request.parameters.iter().map(|parameter| parameter.value.as_ref().map_or(0, Bytes::len));
            request.statement.len() + parameters.sum::<usize>()
        }
        _ => 0,
    }
}

/// Who waits for a [`Ticket`].
pub trait Resume: Send + Sync {
    /// The ticket is settled, and it is `now`: goes on with it. Called by the committer's task, which is one of the session's
    /// worker.
    fn resume(&self, now: Timestamp);
}

/// What comes of a write: not known yet, the log's answer, or why there is none.
type Settled = OnceLock<Result<Vec<Accepted>, StoreError>>;

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

    /// All of them, or none.
    fn write(&mut self, ledger: &Ledger) -> Result<Vec<Accepted>, StoreError> {
        for (entry, (sequence, _)) in self.entries.iter_mut().zip(&self.owners) {
            if let (Some((_, number)), Some(sequence)) = (&mut entry.session, sequence) {
                *number = sequence.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut accepted = Vec::with_capacity(self.len());
        let result = ledger.commit(&self.entries, &mut accepted);
        if result.is_err() {
            // Nothing was written: the numbers are free again.
            for sequence in self.owners.iter().filter_map(|(sequence, _)| sequence.as_ref()) {
                sequence.fetch_sub(1, Ordering::Relaxed);
            }
        }
        result.map(|()| accepted)
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

#[derive(Default)]
struct Gathering {
    /// Outcomes first tried in an earlier write, then what came since.
    waiting: Waiting,
    /// Bytes of statements and parameters that somebody waits for.
    weight: usize,
    /// What these wait on.
    settled: Arc<Settled>,
    /// Who is to be resumed.
    waiters: Vec<Weak<dyn Resume>>,
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

/// What a session waits on: settled when its entries are in the log, or are refused.
#[derive(Debug)]
pub struct Ticket {
    settled: Arc<Settled>,
    from: usize,
    count: usize,
}

impl Ticket {
    /// What came of it; `None`: not known yet.
    #[must_use]
    pub fn result(&self) -> Option<Result<Written<'_>, StoreError>> {
        Some(match self.settled.get()? {
            Ok(accepted) => Ok(Written(accepted.get(self.from..self.from + self.count).unwrap_or_default())),
            Err(error) => Err(error.clone()),
        })
    }
}

/// A ticket's entries, in the log.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a>(&'a [Accepted]);

impl Written<'_> {
    /// The entry that was submitted at this place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Accepted> {
        self.0.get(at).copied()
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

    /// Submits entries that `waiter` waits for. All of them are accepted, or none.
    pub fn submit(&self, submissions: impl IntoIterator<Item = Submission>, waiter: Weak<dyn Resume>) -> Ticket {
        let mut gathering = self.gathering.lock();
        let from = gathering.waiting.len();
        for submission in submissions {
            gathering.weight += weight(&submission.event);
            gathering.waiting.push(submission, true);
        }
        let count = gathering.waiting.len() - from;
        gathering.waiters.push(waiter);
        let settled = gathering.settled.clone();
        if gathering.weight > GATHERED_MAX && !self.ledger.blocks() {
            self.write_gathered(&mut gathering);
        }
        let first = gathering.waiters.len() == 1;
        drop(gathering);
        if first {
            self.wake.notify_one();
        }
        Ticket { settled, from, count }
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

    /// The same, but it is written with what this turn submits rather than at the next tick.
    pub fn submit_soon(&self, submission: Submission) {
        self.submit_later(submission);
        self.wake.notify_one();
    }

    /// Writes whatever was submitted, once, and resumes who waits for it. `waiters` is empty: its memory is used again.
    async fn commit(&self, waiters: &mut Vec<Weak<dyn Resume>>) {
        if self.ledger.blocks() {
            *waiters = self.write_blocking().await;
        } else {
            let mut gathering = self.gathering.lock();
            self.write_gathered(&mut gathering);
            std::mem::swap(&mut gathering.waiters, waiters);
        }
        if waiters.is_empty() {
            return;
        }
        let now = clock::now();
        for waiter in waiters.drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.resume(now);
            }
        }
        waiters.shrink_to(OUTCOMES_WAITING_MAX);
    }

    /// Writes all that waits, into a store that does not wait for the disk. What nobody waits for is kept if it is refused.
    fn write_gathered(&self, gathering: &mut Gathering) {
        let Gathering { waiting, weight, settled, .. } = gathering;
        *weight = 0;
        let count = waiting.len();
        if count == 0 {
            return;
        }
        let result = waiting.write(&self.ledger);
        self.report(count, result.as_ref().err());
        match &result {
            Ok(_) => waiting.clear(),
            Err(_) => waiting.keep_outcomes(),
        }
        let _ = std::mem::take(settled).set(result);
    }

    /// The same into one that does, on a thread that may wait. Returns who is to be resumed.
    async fn write_blocking(&self) -> Vec<Weak<dyn Resume>> {
        let Gathering { mut waiting, settled, waiters, .. } = std::mem::take(&mut *self.gathering.lock());
        let count = waiting.len();
        if count == 0 {
            return waiters;
        }
        let ledger = self.ledger.clone();
        let written = tokio::task::spawn_blocking(move || (waiting.write(&ledger), waiting));
        let (result, waiting) = match written.await {
            Ok(written) => written,
            Err(error) => (Err(StoreError::Io(error.to_string())), Waiting::default()),
        };
        self.report(count, result.as_ref().err());
        if result.is_err() {
            self.put_back(waiting);
        }
        let _ = settled.set(result);
        waiters
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
        let (mut first, second) = if gathering.waiters.is_empty() { (kept, meanwhile) } else { (meanwhile, kept) };
        first.append(second);
        gathering.waiting = first;
    }

    /// Runs until the process ends, or `until` resolves; then writes what is left.
    pub async fn run(&self, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        let mut tick = tokio::time::interval(OUTCOME_FLUSH);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiters = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = &mut until => break,
                () = self.wake.notified() => {}
                _ = tick.tick() => {}
            }
            self.commit(&mut waiters).await;
        }
        self.commit(&mut waiters).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{Committer, Resume, Sequence, Submission};
    use crate::limits::GATHERED_MAX;
    use parking_lot::Mutex;
    use proxy_core::record::{RecordedVerdict, RequestRecord};
    use proxy_core::{Entry, Event, Ledger, RequestId, RequestKind, SessionId, Store, StoreError, Timestamp};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Weak};
    use tokio::sync::{Notify, oneshot};

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

    /// A session that waits.
    #[derive(Default)]
    struct Waiter(Notify);

    impl Resume for Waiter {
        fn resume(&self, _: Timestamp) {
            self.0.notify_one();
        }
    }

    /// Submits, and waits as a session does: the indices of the entries.
    async fn submit<const N: usize>(committer: &Committer, submissions: [Submission; N]) -> Result<Vec<u64>, StoreError> {
        let waiter = Arc::<Waiter>::default();
        let weak: Weak<Waiter> = Arc::downgrade(&waiter);
        let ticket = committer.submit(submissions, weak);
        while ticket.result().is_none() {
            waiter.0.notified().await;
        }
        let written = ticket.result().expect("it is settled")?;
        assert!(written.get(N).is_none(), "there are no more than were submitted");
        Ok((0..N).map(|at| written.get(at).expect("each is accepted").index()).collect())
    }

    /// Runs `test` beside a committer, on one event loop, as a worker does.
    fn with_committer<F: Future<Output = ()>>(blocks: bool, test: impl FnOnce(Arc<Committer>, Arc<Memory>, Sequence) -> F) {
        let store = Arc::new(Memory { blocks, ..Memory::default() });
        let committer = Arc::new(Committer::new(Ledger::new(store.clone()), Arc::new(())));
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

    /// An entry with a statement of that length.
    fn statement(sequence: &Sequence, length: usize) -> Submission {
        let record = RequestRecord {
            request: RequestId(1),
            kind: RequestKind::Query,
            statement: vec![b'x'; length].into(),
            parameters: Vec::new(),
            facts: Arc::default(),
            verdict: RecordedVerdict::Allow,
            policies: Arc::default(),
            policy_version: Arc::from(""),
            reason: None,
        };
        Submission { event: Event::Request(Box::new(record)), ..entry(sequence) }
    }

    #[test]
    fn what_comes_while_the_disk_is_waited_for_shares_a_write() {
        with_committer(true, |committer, store, sequence| async move {
            store.held.store(true, Ordering::SeqCst);
            let first = submit(&committer, [entry(&sequence)]);
            let others = async {
                // The task takes the first, and waits for the store.
                while committer.gathering.lock().waiters.is_empty() {
                    tokio::task::yield_now().await;
                }
                while !committer.gathering.lock().waiters.is_empty() {
                    tokio::task::yield_now().await;
                }
                let second = submit(&committer, [entry(&sequence)]);
                let third = submit(&committer, [entry(&sequence), entry(&sequence)]);
                let release = async {
                    while committer.gathering.lock().waiters.len() < 2 {
                        tokio::task::yield_now().await;
                    }
                    store.held.store(false, Ordering::SeqCst);
                };
                let (second, third, ()) = tokio::join!(second, third, release);
                (second, third)
            };
            let (first, (second, third)) = tokio::join!(first, others);
            assert_eq!((first, second, third), (Ok(vec![0]), Ok(vec![1]), Ok(vec![2, 3])));
            assert_eq!(store.numbers(), [vec![0], vec![1, 2, 3]]);
        });
    }

    #[test]
    fn what_is_submitted_in_one_turn_is_one_write_and_takes_along_what_waited() {
        with_committer(false, |committer, store, sequence| async move {
            committer.submit_later(entry(&sequence));
            let (first, second) = tokio::join!(submit(&committer, [entry(&sequence)]), submit(&committer, [entry(&sequence)]));
            assert_eq!((first, second), (Ok(vec![1]), Ok(vec![2])));
            assert_eq!(store.numbers(), [[0, 1, 2]]);
            assert_eq!(submit(&committer, [entry(&sequence)]).await, Ok(vec![3]));
            assert_eq!(store.numbers(), [vec![0, 1, 2], vec![3]]);
        });
    }

    #[test]
    fn long_statements_are_not_gathered_without_bound() {
        with_committer(false, |committer, store, sequence| async move {
            let long = || submit(&committer, [statement(&sequence, GATHERED_MAX / 2 + 1)]);
            let (first, second, third) = tokio::join!(long(), long(), long());
            assert_eq!((first, second, third), (Ok(vec![0]), Ok(vec![1]), Ok(vec![2])));
            assert_eq!(store.numbers(), [vec![0, 1], vec![2]]);
        });
    }

    #[test]
    fn while_the_store_refuses_outcomes_are_kept_and_the_numbers_have_no_gap() {
        with_committer(false, |committer, store, sequence| async move {
            store.full.store(true, Ordering::SeqCst);
            committer.submit_later(entry(&sequence));
            committer.submit_soon(entry(&sequence));
            let refused = submit(&committer, [entry(&sequence)]).await;
            assert_eq!(refused, Err(StoreError::DiskFull { free: 0, needed: 1 }));
            store.full.store(false, Ordering::SeqCst);
            assert_eq!(submit(&committer, [entry(&sequence)]).await, Ok(vec![2]));
            assert_eq!(store.numbers(), [[0, 1, 2]], "both that nobody waits for, and the refused entry left no number");
        });
    }
}
