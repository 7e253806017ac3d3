//! The binary's parts as the driver and the admin API see them.

use crate::metrics::{Counter, Gauge, Metrics, family};
use control_plane::approvals::{ApprovalBoard, Outcome};
use proxy_core::SessionId;
use proxy_core::session::{CloseReason, EndReason, UpstreamFailure};
use proxy_io::{HeldRequest, HoldOutcome, services::Held};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The approval board, for sessions.
pub(super) struct Board {
    pub(super) board: Arc<ApprovalBoard>,
    pub(super) timeout: Duration,
}

impl proxy_io::Approvals for Board {
    fn hold(&self, request: HeldRequest) -> Result<Held, String> {
        if let Some(outcome) = self.board.covered(&request) {
            return Ok(Held { id: None, outcome: Box::pin(std::future::ready(told(&outcome))) });
        }
        let ticket = self.board.submit(request, self.timeout).map_err(|full| full.to_string())?;
        Ok(Held { id: Some(ticket.id().to_string()), outcome: Box::pin(async move { told(&ticket.outcome().await) }) })
    }

    fn session_ended(&self, session: SessionId) {
        self.board.session_ended(session);
    }
}

fn told(outcome: &Outcome) -> HoldOutcome {
    HoldOutcome { step: outcome.step(), by: outcome.by(), reason: outcome.reason() }
}

/// The driver's counters.
pub(super) struct Counters {
    metrics: Arc<Metrics>,
    connections: Counter,
    open: Gauge,
    accepted: Counter,
    refused: Counter,
    allow: Counter,
    deny: Counter,
    hold: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    entries: Counter,
    failures: Counter,
    healthy: Gauge,
    /// Told when a target refuses the gateway's credential: it may have been rotated.
    refused_upstream: Arc<Notify>,
}

impl Counters {
    pub(super) fn new(metrics: &Arc<Metrics>, refused_upstream: Arc<Notify>) -> Self {
        let healthy = metrics.gauge(&family::AUDIT_HEALTHY, &[]);
        healthy.set(1);
        metrics.gauge(&family::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.gauge(&family::START_TIME, &[]).set(proxy_io::clock::now().seconds());
        Self {
            connections: metrics.counter(&family::CONNECTIONS, &["postgres"]),
            open: metrics.gauge(&family::CONNECTIONS_OPEN, &["postgres"]),
            accepted: metrics.counter(&family::LOGINS, &["postgres", "accepted"]),
            refused: metrics.counter(&family::LOGINS, &["postgres", "refused"]),
            allow: metrics.counter(&family::REQUESTS, &["allow"]),
            deny: metrics.counter(&family::REQUESTS, &["deny"]),
            hold: metrics.counter(&family::REQUESTS, &["hold"]),
            bytes_in: metrics.counter(&family::BYTES, &["in"]),
            bytes_out: metrics.counter(&family::BYTES, &["out"]),
            entries: metrics.counter(&family::AUDIT_ENTRIES, &[]),
            failures: metrics.counter(&family::AUDIT_FAILURES, &[]),
            healthy,
            refused_upstream,
            metrics: metrics.clone(),
        }
    }
}

/// A close reason's label.
fn label(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::ClientTerminated => "client_terminated",
        CloseReason::ClientVanished => "client_vanished",
        CloseReason::ClientViolation(_) => "client_violation",
        CloseReason::LoginRefused => "login_refused",
        CloseReason::UpstreamClosed => "upstream_closed",
        CloseReason::UpstreamViolation(_) => "upstream_violation",
        CloseReason::UpstreamFailed(_) => "upstream_failed",
        CloseReason::CancelRequest => "cancel_request",
        CloseReason::Failed => "failed",
        CloseReason::Ended(reason) => match reason {
            EndReason::Killed => "killed",
            EndReason::Expired => "expired",
            EndReason::Revoked => "revoked",
            EndReason::PolicyChanged => "policy_changed",
            EndReason::Shutdown => "shutdown",
            EndReason::LoginTimeout => "login_timeout",
            EndReason::IdleTimeout => "idle_timeout",
            EndReason::PeerFailed(_) => "peer_failed",
            EndReason::StoreUnavailable => "store_unavailable",
        },
    }
}

impl proxy_io::Metrics for Counters {
    fn connected(&self, _protocol: &'static str) {
        self.connections.inc();
        self.open.add(1);
    }

    fn login(&self, _protocol: &'static str, accepted: bool) {
        if accepted { self.accepted.inc() } else { self.refused.inc() }
    }

    fn closed(&self, _protocol: &'static str, reason: &CloseReason) {
        self.open.add(-1);
        if *reason == CloseReason::UpstreamFailed(UpstreamFailure::Credential) {
            self.refused_upstream.notify_one();
        }
        self.metrics.counter(&family::CONNECTIONS_CLOSED, &["postgres", label(reason)]).inc();
    }

    fn decided(&self, verdict: &'static str) {
        match verdict {
            "allow" => self.allow.inc(),
            "deny" => self.deny.inc(),
            _ => self.hold.inc(),
        }
    }

    fn moved(&self, from_client: u64, from_upstream: u64) {
        self.bytes_in.add(from_client);
        self.bytes_out.add(from_upstream);
    }

    fn committed(&self, entries: usize, accepted: bool) {
        if accepted {
            self.entries.add(entries as u64)
        } else {
            self.failures.inc()
        }
        self.healthy.set(i64::from(accepted));
    }
}
