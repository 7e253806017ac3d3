//! Where notices go in.

use crate::channel::Channel;
use crate::config::{ChannelConfig, Delivery, Filter};
use crate::connect::Resolve;
use crate::dead::{DeadLetter, DeadLetterError, DeadLetters, FileDeadLetters};
use crate::error::{ConfigError, StartError};
use crate::limits::{CHANNEL_NAME_MAX, CHANNELS_MAX};
use crate::notice::Notice;
use crate::spool::Spool;
use crate::worker::{Event, Events, Intake, What, Worker};
use parking_lot::Mutex;
use proxy_core::Timestamp;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a notifier needs.
pub struct Setup {
    /// The channels.
    pub channels: Vec<ChannelConfig>,
    /// How they go about it.
    pub delivery: Delivery,
    /// Folder for what is not delivered yet; `None`: it does not survive a restart. A channel's part is a folder of its name: of
    /// a channel that is not configured any more it stays.
    pub spool: Option<PathBuf>,
    /// Keeps what is given up.
    pub dead: Arc<dyn DeadLetters>,
    /// Is told what becomes of notices.
    pub events: Arc<dyn Events>,
    /// Finds addresses: [`SystemResolver`](crate::SystemResolver).
    pub resolver: Arc<dyn Resolve>,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
    /// Where the channels' tasks run.
    pub runtime: Handle,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("channels", &self.channels).field("spool", &self.spool).finish_non_exhaustive()
    }
}

struct Lane {
    name: Arc<str>,
    filter: Filter,
    statement: bool,
    queue: mpsc::Sender<Intake>,
}

/// Delivers notices to all channels that want them. Dropped, it stops: what is not delivered is in the spool.
pub struct Notifier {
    lanes: Vec<Lane>,
    events: Arc<dyn Events>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stop: CancellationToken,
    _stop_when_dropped: DropGuard,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notifier({} channels)", self.lanes.len())
    }
}

/// What became of dead letters that were to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redelivered {
    /// They wait to be sent, and are no dead letters any more.
    pub queued: usize,
    /// They stay: there is no channel of that name.
    pub no_channel: usize,
    /// They stay: too many are waiting.
    pub full: usize,
}

/// Dead letters cannot be sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedeliverError {
    /// They cannot be read, or those that are queued cannot be removed: they may be sent twice.
    #[error(transparent)]
    File(#[from] DeadLetterError),
    /// The thread that reads them ended.
    #[error("the dead letters were not read to their end")]
    Broken,
}

impl Notifier {
    /// Checks the channels, reads the spool, and begins. It reads files: call it where that may take a moment.
    ///
    /// # Errors
    /// [`StartError`]: nothing has begun.
    pub fn start(setup: Setup) -> Result<Self, StartError> {
        let refuse = |channel: &str, why: ConfigError| StartError::Channel { channel: channel.to_owned(), why };
        let mut names = BTreeSet::new();
        let mut ready = Vec::new();
        for config in &setup.channels {
            let name = config.name.as_str();
            check_name(name).map_err(|why| refuse("?", why))?;
            if !names.insert(name) {
                return Err(refuse(name, ConfigError::Twice(name.to_owned())));
            }
            if names.len() > CHANNELS_MAX {
                return Err(refuse(name, ConfigError::TooMany));
            }
            let channel = Channel::new(config, Arc::clone(&setup.resolver)).map_err(|why| refuse(name, why))?;
            let folder = setup.spool.as_ref().map(|spool| spool.join(name));
            let (spool, found) = match &folder {
                None => (None, Vec::new()),
                Some(folder) => {
                    let opened = Spool::open(folder).map_err(|why| StartError::Spool { path: folder.clone(), why });
                    opened.map(|(spool, found)| (Some(Arc::new(spool)), found))?
                }
            };
            ready.push((config, channel, spool, found));
        }
        let stop = CancellationToken::new();
        let (mut lanes, mut tasks) = (Vec::new(), Vec::new());
        for (config, channel, spool, found) in ready {
            let (queue, intake) = mpsc::channel(setup.delivery.pending_max.max(1));
            let name: Arc<str> = Arc::from(config.name.as_str());
            let worker = Worker {
                name: Arc::clone(&name),
                channel: Arc::new(channel),
                delivery: setup.delivery,
                spool,
                dead: Arc::clone(&setup.dead),
                events: Arc::clone(&setup.events),
                clock: setup.clock,
                stop: stop.clone(),
            };
            tasks.push(setup.runtime.spawn(worker.run(intake, found)));
            lanes.push(Lane { name, filter: config.filter.clone(), statement: config.statement, queue });
        }
        Ok(Self {
            lanes,
            events: setup.events,
            tasks: Mutex::new(tasks),
            stop: stop.clone(),
            _stop_when_dropped: stop.drop_guard(),
        })
    }

    /// Tells every channel that wants to know. It never waits: not for a receiver, and not for the disk. Between this and the
    /// spool are milliseconds in which a loss of power loses the notice.
    pub fn notify(&self, notice: &Notice) {
        for lane in self.lanes.iter().filter(|lane| lane.filter.admits(notice)) {
            let given = Intake { notice: notice.bounded(lane.statement), taken: None };
            if let Err(error) = lane.queue.try_send(given) {
                let notice = error.into_inner().notice;
                self.events.event(&Event {
                    channel: Arc::clone(&lane.name),
                    notice: notice.id(),
                    kind: notice.kind,
                    request: notice.request,
                    what: What::Dropped,
                });
            }
        }
    }

    /// Sends dead letters again, those that `which` chooses. Each is in the spool before it is no dead letter any more.
    ///
    /// # Errors
    /// [`RedeliverError`].
    pub async fn redeliver(
        &self,
        dead: Arc<FileDeadLetters>,
        which: impl Fn(&DeadLetter) -> bool,
    ) -> Result<Redelivered, RedeliverError> {
        let reader = Arc::clone(&dead);
        let letters = tokio::task::spawn_blocking(move || reader.list()).await.map_err(|_| RedeliverError::Broken)??;
        let (mut outcome, mut queued) = (Redelivered::default(), Vec::new());
        for letter in letters.into_iter().filter(which) {
            let Some(lane) = self.lanes.iter().find(|lane| *lane.name == *letter.channel) else {
                outcome.no_channel += 1;
                continue;
            };
            // The channel may have been told since then to have no statements.
            let notice = letter.notice.bounded(lane.statement);
            let (taken, was_taken) = oneshot::channel();
            let sent = lane.queue.send(Intake { notice, taken: Some(taken) }).await;
            if sent.is_err() || was_taken.await.is_err() {
                outcome.full += 1;
                continue;
            }
            outcome.queued += 1;
            queued.push(letter);
        }
        tokio::task::spawn_blocking(move || dead.remove(&queued)).await.map_err(|_| RedeliverError::Broken)??;
        Ok(outcome)
    }

    /// Stops, and waits until what was taken in is in the spool. What is being sent has a few seconds to arrive.
    /// What it is told afterwards is dropped.
    pub async fn close(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // One that did not end well has said so.
            let _ = task.await;
        }
    }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > CHANNEL_NAME_MAX || !name.bytes().all(good) {
        return Err(ConfigError::Name(name.chars().take(CHANNEL_NAME_MAX).collect()));
    }
    Ok(())
}
