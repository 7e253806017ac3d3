//! One channel at work: takes notices in, sends them one at a time, waits, gives up.
//!
//! Notices about one request are sent in their order: one that waits for another attempt holds back those after it, and those
//! about other requests overtake it. A receiver that asks for patience (`Retry-After`) holds back the whole channel.

use crate::channel::Channel;
use crate::config::Delivery;
use crate::dead::{DeadLetter, DeadLetters};
use crate::error::SendError;
use crate::limits::CLOSE_TIMEOUT;
use crate::notice::{Kind, Notice};
use crate::spool::{Spool, Stored};
use proxy_core::Timestamp;
use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Something has become of a notice.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The channel.
    pub channel: Arc<str>,
    /// The notice's id.
    pub notice: String,
    /// Its kind.
    pub kind: Kind,
    /// What it is about.
    pub request: String,
    /// What has become of it.
    pub what: What,
}

/// What has become of a notice.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The receiver has it.
    Sent {
        /// Attempts since the start of the process, this one included.
        attempts: u32,
    },
    /// An attempt failed; there will be another.
    Retried {
        /// Attempts so far.
        attempts: u32,
        /// Time to the next.
        wait: Duration,
        /// Why.
        error: SendError,
    },
    /// It was given up.
    Dead {
        /// Attempts.
        attempts: u32,
        /// Why.
        error: SendError,
        /// Whether it is among the dead letters.
        kept: bool,
        /// Older dead letters that gave way.
        displaced: u64,
    },
    /// It was thrown away: the channel does not even take in what it is given.
    Dropped,
    /// It cannot be written to the spool: it would not survive a restart.
    Unspooled(io::ErrorKind),
}

/// Is told what becomes of notices, for metrics and logs. It must not block.
pub trait Events: Send + Sync {
    /// Something has become of a notice.
    fn event(&self, event: &Event);
}

/// A notice on its way in.
pub(crate) struct Intake {
    pub(crate) notice: Notice,
    /// Told when the notice is in the spool; `None`: nobody waits for that, and if it does not fit it is a dead letter.
    pub(crate) taken: Option<oneshot::Sender<()>>,
}

/// A notice that waits.
struct Item {
    place: u64,
    accepted: Timestamp,
    notice: Arc<Notice>,
    conversation: String,
    attempts: u32,
    due: Instant,
    wait: Duration,
}

type Attempt = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send>>;

pub(crate) struct Worker {
    pub(crate) name: Arc<str>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) delivery: Delivery,
    pub(crate) spool: Option<Arc<Spool>>,
    pub(crate) dead: Arc<dyn DeadLetters>,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) stop: CancellationToken,
}

/// What waits, oldest first.
struct Pending {
    items: Vec<Item>,
    next_place: u64,
    paused_until: Instant,
}

/// What to do next.
enum Next {
    Send(usize),
    Wait(Instant),
    Idle,
}

impl Pending {
    /// The oldest notice that is due and has none before it about the same request.
    fn next(&self, now: Instant) -> Next {
        let (mut seen, mut earliest) = (HashSet::new(), None);
        for (at, item) in self.items.iter().enumerate() {
            if !seen.insert(item.conversation.as_str()) {
                continue;
            }
            let due = item.due.max(self.paused_until);
            if due <= now {
                return Next::Send(at);
            }
            earliest = Some(earliest.map_or(due, |earliest: Instant| earliest.min(due)));
        }
        earliest.map_or(Next::Idle, Next::Wait)
    }
}

impl Worker {
    /// Works until it is stopped, or nobody can give it anything any more. `found`: what an earlier process left.
    pub(crate) async fn run(self, mut intake: mpsc::Receiver<Intake>, found: Vec<(u64, Stored)>) {
        let next_place = found.last().map_or(0, |(place, _)| place.saturating_add(1));
        let mut pending = Pending { items: Vec::new(), next_place, paused_until: Instant::now() };
        pending.items.extend(found.into_iter().map(|(place, stored)| self.item(place, stored.accepted, stored.notice)));
        let mut attempt: Option<(u64, Attempt)> = None;
        loop {
            let mut wake = None;
            if attempt.is_none() {
                match pending.next(Instant::now()) {
                    Next::Send(at) => attempt = self.attempt(&mut pending, at).await,
                    Next::Wait(until) => wake = Some(until),
                    Next::Idle => {}
                }
                if attempt.is_none() && wake.is_none() && !pending.items.is_empty() {
                    // It was too old: look again.
                    continue;
                }
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(given) = intake.recv() => self.take(&mut pending, given).await,
                (place, done) = finished(&mut attempt) => {
                    attempt = None;
                    self.settle(&mut pending, place, done).await;
                }
                () = sleep_until(wake) => {}
            }
        }
        intake.close();
        while let Ok(given) = intake.try_recv() {
            self.take(&mut pending, given).await;
        }
        if attempt.is_none() {
            return;
        }
        // What is being sent may still arrive; what does not is in the spool.
        if let Ok((place, Ok(()))) = tokio::time::timeout(CLOSE_TIMEOUT, finished(&mut attempt)).await {
            self.settle(&mut pending, place, Ok(())).await;
        }
    }

    fn item(&self, place: u64, accepted: Timestamp, notice: Notice) -> Item {
        let (conversation, notice) = (notice.conversation(), Arc::new(notice));
        Item { place, accepted, notice, conversation, attempts: 0, due: Instant::now(), wait: self.delivery.retry_first }
    }

    fn tell(&self, notice: &Notice, what: What) {
        self.events.event(&Event {
            channel: Arc::clone(&self.name),
            notice: notice.id(),
            kind: notice.kind,
            request: notice.request.clone(),
            what,
        });
    }

    /// Takes a notice in: to the disk first.
    async fn take(&self, pending: &mut Pending, given: Intake) {
        let Intake { notice, taken } = given;
        let accepted = (self.clock)();
        if pending.items.len() >= self.delivery.pending_max {
            if taken.is_none() {
                self.bury(&notice, 0, SendError::QueueFull).await;
            }
            return;
        }
        let place = pending.next_place;
        pending.next_place = place.saturating_add(1);
        if let Some(spool) = self.spool.clone() {
            let stored = Stored::new(accepted, notice.clone());
            if let Err(error) = blocking(move || spool.put(place, &stored)).await {
                self.tell(&notice, What::Unspooled(error.kind()));
            }
        }
        pending.items.push(self.item(place, accepted, notice));
        if let Some(taken) = taken {
            // Nobody waits any more: it is delivered nonetheless.
            let _ = taken.send(());
        }
    }

    /// Begins an attempt, unless the notice is too old for one.
    async fn attempt(&self, pending: &mut Pending, at: usize) -> Option<(u64, Attempt)> {
        let now = (self.clock)();
        let item = pending.items.get_mut(at)?;
        if Duration::from_micros(now.micros_since(item.accepted)) > self.delivery.age_max {
            let item = pending.items.remove(at);
            self.give_up(item, SendError::TooOld).await;
            return None;
        }
        item.attempts = item.attempts.saturating_add(1);
        let (channel, notice, timeout) = (Arc::clone(&self.channel), Arc::clone(&item.notice), self.delivery.send_timeout);
        let attempt = async move { channel.send(&notice, now, timeout).await };
        Some((item.place, Box::pin(attempt)))
    }

    /// An attempt has ended.
    async fn settle(&self, pending: &mut Pending, place: u64, done: Result<(), SendError>) {
        let Some(at) = pending.items.iter().position(|item| item.place == place) else { return };
        let Err(error) = done else {
            let item = pending.items.remove(at);
            self.forget(item.place).await;
            self.tell(&item.notice, What::Sent { attempts: item.attempts });
            return;
        };
        let Some(item) = pending.items.get_mut(at) else { return };
        if !error.is_transient() || item.attempts >= self.delivery.attempts_max {
            let item = pending.items.remove(at);
            self.give_up(item, error).await;
            return;
        }
        let now = Instant::now();
        let mut wait = shortened(item.wait);
        item.wait = item.wait.saturating_mul(2).min(self.delivery.retry_max);
        if let Some(asked) = error.retry_after() {
            wait = wait.max(asked);
            pending.paused_until = pending.paused_until.max(now + asked);
        }
        item.due = now + wait;
        self.tell(&item.notice, What::Retried { attempts: item.attempts, wait, error });
    }

    async fn give_up(&self, item: Item, error: SendError) {
        if self.bury(&item.notice, item.attempts, error).await {
            self.forget(item.place).await;
        }
    }

    /// Puts a notice among the dead letters; whether it is there.
    async fn bury(&self, notice: &Notice, attempts: u32, error: SendError) -> bool {
        let (channel, died) = (self.name.to_string(), (self.clock)());
        let letter = DeadLetter { channel, died, attempts, error: error.to_string(), notice: notice.clone() };
        let dead = Arc::clone(&self.dead);
        let buried = tokio::task::spawn_blocking(move || dead.bury(&letter)).await.ok().and_then(Result::ok);
        let (kept, displaced) = (buried.is_some(), buried.unwrap_or(0));
        self.tell(notice, What::Dead { attempts, error, kept, displaced });
        kept
    }

    async fn forget(&self, place: u64) {
        if let Some(spool) = self.spool.clone() {
            // A file that is not there was never written; one that stays is delivered again after the next start.
            let _ = blocking(move || spool.remove(place)).await;
        }
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}

/// The attempt's end; never, if there is none.
async fn finished(attempt: &mut Option<(u64, Attempt)>) -> (u64, Result<(), SendError>) {
    match attempt {
        Some((place, attempt)) => (*place, attempt.await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Shortened at random by up to a half, so that gateways do not come back all at once.
fn shortened(full: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness, the whole wait.
    let part = aws_lc_rs::rand::fill(&mut random).map_or(0, |()| u32::from(u16::from_be_bytes(random)));
    full.saturating_sub(full / 2 * part / u32::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_shortened_by_a_half_at_most() {
        for _ in 0..1_000 {
            let wait = shortened(Duration::from_secs(600));
            assert!((Duration::from_secs(300)..=Duration::from_secs(600)).contains(&wait), "{wait:?}");
        }
    }
}
