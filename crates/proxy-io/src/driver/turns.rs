//! Who gives a session its turns: its task, when a source woke it, and the committer, when the log has what it submitted.
//!
//! Both run on the session's worker, so that one never waits for the other. A session that panics is closed, and ends
//! alone: not the worker's other sessions, nor the committer that gave it its turn.

use super::wakes::{Ready, Source, Wakes};
use super::{Driver, Setup};
use crate::clock;
use crate::commit::Resume;
use crate::registry::Control;
use parking_lot::Mutex;
use proxy_core::{CloseReason, Timestamp};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A session, and whose turn it is.
pub(super) struct Turns(Mutex<State>);

struct State {
    /// `None`: it is over.
    driver: Option<Driver>,
    wakes: Wakes,
    /// A turn that the committer gave it ended the session: its task is told.
    end: Option<CloseReason>,
}

impl State {
    /// One turn: why the session is over, if it is.
    fn turn(&mut self, now: Timestamp, woken: Ready) -> Poll<CloseReason> {
        let Self { driver: Some(driver), wakes, .. } = self else { return Poll::Pending };
        catch_unwind(AssertUnwindSafe(|| driver.poll(now, wakes, woken))).unwrap_or_else(|_| {
            // Where, and what it says, the panic hook has logged. The protocol's state is not to be asked any more.
            tracing::error!(session = %driver.peer.session, "a session failed: it is closed");
            driver.abandon_requests();
            Poll::Ready(CloseReason::Failed)
        })
    }
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
        let mut state = self.0.lock();
        let woken = state.wakes.begin(cx);
        let reason = match state.end.take() {
            Some(reason) => reason,
            None if state.driver.is_none() => return Poll::Ready(None),
            None => std::task::ready!(state.turn(clock::now(), woken)),
        };
        Poll::Ready(state.driver.take().map(|driver| (driver, reason)))
    }
}

impl Resume for Turns {
    fn resume(&self, now: Timestamp) {
        let mut state = self.0.lock();
        if state.end.is_some() {
            return;
        }
        if let Poll::Ready(reason) = state.turn(now, Ready::only(Source::Answer)) {
            state.end = Some(reason);
            state.wakes.wake_task();
        }
    }
}
