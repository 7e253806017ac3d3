//! What the API needs of the running gateway.

use super::routes::log::Readings;
use super::{ApiError, Caller};
use crate::approvals::ApprovalBoard;
use crate::keeping::{Keeper, Retention};
use crate::log::LogError;
use crate::login::Login;
use crate::notices::Notices;
use crate::pages::Watchers;
use crate::published::PublishedLog;
use audit_store::Reader;
use identity::{MachineKeys, Revocations};
use proxy_core::record::{Entry, Event};
use proxy_core::session::EndReason;
use proxy_core::{Ledger, Principal, SecretBytes, SessionId, Target, Timestamp};
use proxy_io::clock::now;
use proxy_io::registry::Control;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Verifies a token or a machine key. The error is for the gateway's log, not for the caller.
pub type Verify = Arc<dyn Fn(SecretBytes) -> Pin<Box<dyn Future<Output = Result<Principal, String>> + Send>> + Send + Sync>;

/// Makes a new key for payloads, asked for by this caller, or (`true`) wraps all of them anew. The answer, or why not.
pub type PayloadKeyChange =
    Box<dyn Fn(String, bool) -> Pin<Box<dyn Future<Output = Result<serde_json::Value, String>> + Send>> + Send + Sync>;

/// A session that is open now.
#[derive(Debug, Clone)]
pub struct LiveSession {
    /// Its id.
    pub id: SessionId,
    /// Who.
    pub principal: Arc<Principal>,
    /// On what.
    pub target: Arc<Target>,
    /// The peer's address and port.
    pub source: String,
    /// What the caller called itself.
    pub label: String,
    /// Application name, as the client says.
    pub application: String,
    /// TLS version and cipher towards the client.
    pub tls: Option<String>,
    /// When it was permitted to open.
    pub started: Timestamp,
    /// Requests so far.
    pub requests: u64,
}

/// The open sessions.
pub trait LiveSessions: Send + Sync {
    /// All of them, in no order.
    fn list(&self) -> Vec<LiveSession>;

    /// Ends one: its client is told, and what runs upstream is cancelled. Whether it was there.
    fn kill(&self, id: SessionId) -> bool;

    /// A principal's standing changed: every session checks whether it may still be open.
    fn recheck(&self);

    /// A number that is another one whenever a session has opened or ended.
    fn version(&self) -> u64;
}

impl LiveSessions for proxy_io::Registry {
    fn list(&self) -> Vec<LiveSession> {
        let convert = |session: proxy_io::LiveSession| LiveSession {
            id: session.id,
            principal: session.principal,
            target: session.target,
            source: session.source,
            label: session.label,
            application: session.application,
            tls: session.tls,
            started: session.started,
            requests: session.requests.load(Ordering::Relaxed),
        };
        self.live().into_iter().map(convert).collect()
    }

    fn kill(&self, id: SessionId) -> bool {
        self.send(id, Control::End(EndReason::Killed))
    }

    fn recheck(&self) {
        self.broadcast(&Control::Recheck);
    }

    fn version(&self) -> u64 {
        self.changes()
    }
}

/// How the gateway is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Why it cannot serve now, in sentences; empty: it can. (`/readyz`)
    pub not_ready: Vec<String>,
    /// The active configuration's digest.
    pub configuration: String,
    /// Sections of it in which the gateway still runs with what it was started with.
    pub waiting_for_restart: Vec<&'static str>,
    /// The active policy set's version.
    pub policy: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
}

/// Everything that the API works on. The gateway makes one and shares it with its sockets.
pub struct ApiState {
    /// The open sessions.
    pub live: Arc<dyn LiveSessions>,
    /// Requests that wait.
    pub approvals: Arc<ApprovalBoard>,
    /// Machine keys.
    pub keys: Arc<MachineKeys>,
    /// The kill list.
    pub revocations: Arc<Revocations>,
    /// The log, for reading.
    pub log: Reader,
    /// The log, for those who verify it.
    pub publisher: Arc<dyn PublishedLog>,
    /// How long its contents are kept.
    pub keeper: Arc<Keeper>,
    /// The rules for that which are active.
    pub retention: Box<dyn Fn() -> Vec<Retention> + Send + Sync>,
    /// Changes the keys of the log's payloads.
    pub payload_keys: PayloadKeyChange,
    /// Who reads its files.
    pub readings: Readings,
    /// Where actions are recorded.
    pub ledger: Ledger,
    /// Who calls.
    pub verify: Verify,
    /// Who has logged in with a browser; `None`: nobody can, and there are no pages.
    pub login: Option<Arc<Login>>,
    /// Who is told of what waits; `None`: nobody.
    pub notices: Option<Arc<Notices>>,
    /// The pages that follow what happens.
    pub watchers: Watchers,
    /// For `/metrics`: all of them, in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// For `/readyz` and the status.
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
}

impl ApiState {
    /// Records an action. When it returns, the entry is kept; only then may the action take effect.
    ///
    /// # Errors
    /// [`ApiError::Store`]: the action must not take effect.
    pub async fn record_action(
        &self,
        by: String,
        action: &str,
        object: String,
        details: BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        self.record(Event::Administration { by, action: action.to_owned(), object, details }).await
    }

    /// Records that somebody reads the log.
    ///
    /// # Errors
    /// [`ApiError::Store`]: it must not be shown.
    pub async fn record_reading(&self, by: String, query: String) -> Result<(), ApiError> {
        self.record(Event::LogRead { by, query }).await
    }

    /// Records that somebody looks at a page that shows the log. The same look again within a while is the same one: a page is
    /// fetched again whenever something has changed.
    ///
    /// # Errors
    /// [`ApiError::Store`]: it must not be shown.
    pub(crate) async fn record_look(&self, caller: &Caller, query: String) -> Result<(), ApiError> {
        let look = format!("{} {query}", caller.id());
        if self.readings.is_new(&look) {
            self.record_reading(caller.id(), query).await?;
            self.readings.note(look);
        }
        Ok(())
    }

    /// Reads the log, away from the event loop.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let log = self.log.clone();
        let answer = tokio::task::spawn_blocking(move || question(&log)).await;
        Ok(answer.map_err(|error| ApiError::Failed(error.to_string()))??)
    }

    /// Records an event. When it returns, the entry is kept.
    ///
    /// # Errors
    /// [`ApiError::Store`]: what it is about must not happen.
    pub(crate) async fn record_event(&self, event: Event) -> Result<(), ApiError> {
        self.record(event).await
    }

    async fn record(&self, event: Event) -> Result<(), ApiError> {
        let entry = Entry { time: now(), session: None, event };
        let ledger = self.ledger.clone();
        // The store may wait for the disk.
        let committed = tokio::task::spawn_blocking(move || ledger.commit(&[entry], &mut Vec::new())).await;
        committed.map_err(|error| ApiError::Failed(error.to_string()))??;
        Ok(())
    }
}
