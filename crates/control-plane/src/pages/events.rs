//! Tells pages that something in them has changed, so that they look again: server-sent events.
//!
//! Nothing of what has changed is in an event. A browser fetches its page anew, as whoever it is.

use super::viewer::Viewer;
use crate::api::ApiState;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Pages that listen at once (1,000): each is a connection.
const WATCHERS_MAX: usize = 1_000;
/// Changes within this time are one (250 ms): a flood of requests does not make a flood of pages.
const TOGETHER: Duration = Duration::from_millis(250);
/// How often sessions, and the login behind the page, are looked at (2 s).
const SESSIONS: Duration = Duration::from_secs(2);
/// How often a silent line is used (15 s): middleboxes give up on one that is not.
const BEAT: Duration = Duration::from_secs(15);

/// The pages that listen.
#[derive(Debug, Default)]
pub struct Watchers(AtomicUsize);

/// One of them, until it goes away.
struct Watcher(Arc<ApiState>);

impl Watcher {
    fn new(state: &Arc<ApiState>) -> Option<Self> {
        let counted = state.watchers.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < WATCHERS_MAX).then_some(count.saturating_add(1))
        });
        counted.is_ok().then(|| Self(Arc::clone(state)))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the page shows already: `APPROVALS-SESSIONS`, as [`Shell`](super::viewer::Shell) has it.
#[derive(Debug, Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    seen: String,
}

/// `GET /events`: `approvals` or `sessions`, whenever one of them has changed, also since the page was made.
pub(super) async fn stream(State(state): State<Arc<ApiState>>, viewer: Viewer, Query(since): Query<Since>) -> Response {
    let Some(watcher) = Watcher::new(&state) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open; this one does not follow by itself\n")
            .into_response();
    };
    let numbers = since.seen.split_once('-').and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
    let mut seen = Seen { approvals: state.approvals.changes(), sessions: state.live.version() };
    if let Some((approvals, sessions)) = numbers {
        if approvals != *seen.approvals.borrow_and_update() {
            seen.approvals.mark_changed();
        }
        seen.sessions = sessions;
    }
    let events = futures_util::stream::unfold((watcher, viewer, seen), |(watcher, viewer, mut seen)| async {
        let event = seen.next(&watcher.0, &viewer).await?;
        Some((Ok::<_, Infallible>(event), (watcher, viewer, seen)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(BEAT)).into_response()
}

/// What a page knows.
struct Seen {
    approvals: tokio::sync::watch::Receiver<u64>,
    sessions: u64,
}

impl Seen {
    /// The next change; `None`: the login behind the page has ended.
    async fn next(&mut self, state: &ApiState, viewer: &Viewer) -> Option<Event> {
        loop {
            let stands = state.login.as_ref().is_some_and(|login| login.find(viewer.headers()).is_some());
            if !stands {
                return None;
            }
            let version = state.live.version();
            if version != self.sessions {
                self.sessions = version;
                return Some(Event::default().event("sessions").data("changed"));
            }
            tokio::select! {
                changed = self.approvals.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(TOGETHER).await;
                    self.approvals.mark_unchanged();
                    return Some(Event::default().event("approvals").data("changed"));
                }
                () = tokio::time::sleep(SESSIONS) => {}
            }
        }
    }
}
