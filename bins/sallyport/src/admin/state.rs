//! What the API needs of the running gateway.

use super::ApiError;
use crate::approvals::ApprovalBoard;
use crate::config::units::now;
use crate::metrics::Metrics;
use proxy_core::record::{Entry, Event};
use proxy_core::{Ledger, Principal, SecretBytes, SessionId, Target, Timestamp};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Verifies a token or a machine key. The error is for the gateway's log, not for the caller.
pub type Verify = Arc<dyn Fn(SecretBytes) -> Pin<Box<dyn Future<Output = Result<Principal, String>> + Send>> + Send + Sync>;

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
    /// What it did so far.
    pub counters: SessionCounters,
}

/// What a session did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct SessionCounters {
    /// Requests.
    pub requests: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Requests that run or wait now.
    pub in_flight: u64,
}

/// The open sessions.
pub trait LiveSessions: Send + Sync {
    /// All of them, in no order.
    fn list(&self) -> Vec<LiveSession>;

    /// Ends one: its client is told, and what runs upstream is cancelled. Whether it was there.
    fn kill(&self, id: SessionId) -> bool;
}

/// How the gateway is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Why it cannot serve now, in sentences; empty: it can. (`/readyz`)
    pub not_ready: Vec<String>,
    /// The active configuration's digest.
    pub configuration: String,
    /// The active policy set's version.
    pub policy: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
}

/// Everything that the API works on. The gateway makes one and shares it with its sockets.
pub struct AdminState {
    /// The open sessions.
    pub live: Arc<dyn LiveSessions>,
    /// Requests that wait.
    pub approvals: Arc<ApprovalBoard>,
    /// Where actions are recorded.
    pub ledger: Ledger,
    /// Who calls.
    pub verify: Verify,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz` and the status.
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
}

impl AdminState {
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

    async fn record(&self, event: Event) -> Result<(), ApiError> {
        let entry = Entry { time: now(), session: None, event };
        let ledger = self.ledger.clone();
        // The store may wait for the disk.
        let committed = tokio::task::spawn_blocking(move || ledger.commit(&[entry], &mut Vec::new())).await;
        committed.map_err(|error| ApiError::Failed(error.to_string()))??;
        Ok(())
    }
}
