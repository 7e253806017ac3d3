//! Waiting for a newer catalogue: a driver may drop a wait unfinished, and ask again.

use crate::catalog_source::CatalogSource;
use crate::limits::UNRESOLVED_REFRESH_MIN;
use proxy_core::pipeline::NotReady;
use proxy_core::{RequestId, Target, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One session's wait for a catalogue.
#[derive(Debug, Default)]
pub(crate) struct Refresh {
    last: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    request: RequestId,
    /// [`crate::changes::CatalogChanges::epoch`] when it was asked for.
    epoch: u64,
    at: Timestamp,
    /// The source's count of loads that succeeded, before.
    successes: Option<u64>,
    ended: Arc<AtomicBool>,
}

/// What came of the last refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was asked, or what was asked was dropped before it ended.
    None,
    /// It ended; what was loaded is there.
    Loaded,
    /// It ended without success, a short while ago.
    Failed,
}

impl Refresh {
    /// Asks for a refresh on behalf of `request`.
    pub(crate) fn start(
        &mut self,
        source: &dyn CatalogSource,
        target: &Target,
        (request, epoch): (RequestId, u64),
        now: Timestamp,
    ) -> NotReady {
        let ended = Arc::new(AtomicBool::new(false));
        self.last = Some(Asked { request, epoch, at: now, successes: source.successes(target), ended: ended.clone() });
        let refresh = source.refresh(target);
        NotReady(Box::pin(async move {
            refresh.await;
            ended.store(true, Ordering::Release);
        }))
    }

    /// Whether `request` is to wait on: its wait was dropped before it ended.
    pub(crate) fn is_unfinished(&self, request: RequestId) -> bool {
        self.last.as_ref().is_some_and(|asked| asked.request == request && !asked.ended.load(Ordering::Acquire))
    }

    /// Whether the last refresh was on behalf of `request` (and has ended, if it is not unfinished).
    pub(crate) fn was_for(&self, request: RequestId) -> bool {
        self.last.as_ref().is_some_and(|asked| asked.request == request)
    }

    /// What came of the last refresh since `epoch`; `found`: there is a catalogue. A failure counts for a few
    /// seconds only: then it is tried again.
    pub(crate) fn outcome(
        &self,
        source: &dyn CatalogSource,
        target: &Target,
        (epoch, found): (u64, bool),
        now: Timestamp,
    ) -> Outcome {
        let done = |asked: &&Asked| asked.epoch == epoch && asked.ended.load(Ordering::Acquire);
        let Some(asked) = self.last.as_ref().filter(done) else { return Outcome::None };
        let counted = match (asked.successes, source.successes(target)) {
            (Some(before), Some(after)) => after != before,
            (Some(_) | None, None) | (None, Some(_)) => true,
        };
        let recent = u128::from(now.micros_since(asked.at)) < UNRESOLVED_REFRESH_MIN.as_micros();
        match (found && counted, recent) {
            (true, _) => Outcome::Loaded,
            (false, true) => Outcome::Failed,
            (false, false) => Outcome::None,
        }
    }
}
