//! Who gives a session its turns: its task, when a source woke it, and the committer, when the log has what it submitted.
//!
//! Both run on the session's worker, so that one never waits for the other.

use super::wakes::{Ready, Source, Wakes};
use super::{Driver, Setup};
use crate::clock;
use crate::commit::Resume;
use crate::registry::Control;
use parking_lot::Mutex;
use proxy_core::{CloseReason, Timestamp};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A session, and whose turn it is.
pub(super) struct Turns(Mutex<State>);

struct State {
    /// `None`: it is over.
    driver: Option<Driver>,
    wakes: Wakes,
    /// How a turn that the committer gave it ended the session: its task is told.
    end: Option<End>,
}

enum End {
    Over(CloseReason),
    Panicked(Box<dyn Any + Send>),
}

impl Turns {
    pub(super) fn new(setup: Setup, mailbox: mpsc::Receiver<Control>) -> Arc<Self> {
        Arc::new_cyclic(|turns: &Weak<Self>| {
            let driver = Some(Driver::new(setup, mailbox, turns.clone()));
            Self(Mutex::new(State { driver, wakes: Wakes::new(), end: None }))
        })
    }

    /// A turn of the task's: what remains to be done when the session is over.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<(Driver, CloseReason)>> {
        let State { driver, wakes, end } = &mut *self.0.lock();
        let woken = wakes.begin(cx);
        let reason = match end.take() {
            Some(End::Panicked(panic)) => resume_unwind(panic),
            Some(End::Over(reason)) => reason,
            None => match driver {
                Some(driver) => std::task::ready!(driver.poll(clock::now(), wakes, woken)),
                None => return Poll::Ready(None),
            },
        };
        Poll::Ready(driver.take().map(|driver| (driver, reason)))
    }
}

impl Resume for Turns {
    fn resume(&self, now: Timestamp) {
        let State { driver, wakes, end } = &mut *self.0.lock();
        let Some(driver) = driver.as_mut().filter(|_| end.is_none()) else { return };
        // A session that panics ends alone, not the committer and with it all others.
        let turn = catch_unwind(AssertUnwindSafe(|| driver.poll(now, wakes, Ready::only(Source::Answer))));
        *end = match turn {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(reason)) => Some(End::Over(reason)),
            Err(panic) => Some(End::Panicked(panic)),
        };
        wakes.wake_task();
    }
}
