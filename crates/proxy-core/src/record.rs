//! What the audit log says. The `audit-store` crate encodes and keeps these; nothing else writes the log.

use crate::{Facts, Parameter, Principal, RequestId, RequestKind, SessionId, Target, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One entry. Its index in the log is given by the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// Which session, where the entry belongs to one, and the entry's number in it, from 0 without gaps.
    pub session: Option<(SessionId, u64)>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The gateway started.
    GatewayStarted {
        /// Its version.
        version: String,
        /// Host name.
        host: String,
    },
    /// The gateway stopped in good order.
    GatewayStopped {
        /// Why.
        reason: String,
    },
    /// A configuration or policy set became active.
    Activated {
        /// `policy` or `configuration`.
        what: String,
        /// SHA-256 of the set, hexadecimal.
        digest: String,
        /// The one before; `None` at the start.
        previous: Option<String>,
        /// What changed, in lines: `+ policy name`, `- policy name`, `~ policy name`.
        difference: Vec<String>,
        /// Who, as far as known (the file's owner).
        author: Option<String>,
    },
    /// A new set was refused; the last good one stays.
    ReloadRefused {
        /// `policy` or `configuration`.
        what: String,
        /// Why.
        error: String,
    },
    /// A login was refused.
    LoginFailed {
        /// The peer's address.
        source: String,
        /// The listener's protocol.
        protocol: String,
        /// What the caller called itself.
        label: String,
        /// The connection that it asked for.
        connection: String,
        /// The reason, in full: the client learns less.
        reason: String,
    },
    /// A session was permitted to open.
    SessionStarted(Box<SessionStarted>),
    /// A session ended.
    SessionEnded {
        /// Why.
        reason: String,
        /// Requests in it.
        requests: u64,
        /// Bytes from the client.
        bytes_in: u64,
        /// Bytes to the client.
        bytes_out: u64,
    },
    /// A request and its verdict. Accepted before the request is forwarded.
    Request(Box<RequestRecord>),
    /// What came of a request.
    Outcome(Box<Outcome>),
    /// A step of an approval.
    Approval {
        /// Which request.
        request: RequestId,
        /// Which step.
        step: ApprovalStep,
        /// Who, where somebody did it.
        by: Option<String>,
        /// Their reason.
        reason: Option<String>,
        /// SHA-256 over statement and parameters, hexadecimal: what was approved is what runs.
        digest: String,
    },
    /// A machine key was created or revoked, a session killed …: an administrative action.
    Administration {
        /// Who.
        by: String,
        /// What: `key created`, `key revoked`, `session killed` …
        action: String,
        /// On what.
        object: String,
        /// Further details.
        details: BTreeMap<String, String>,
    },
    /// Somebody read the log.
    LogRead {
        /// Who.
        by: String,
        /// With which query.
        query: String,
    },
    /// The wall clock moved against the monotonic one.
    ClockJump {
        /// By how many microseconds, positive: forward.
        micros: i64,
    },
    /// Nothing else happened for a while: silence can be told from absence.
    Heartbeat,
    /// A key signs the log's checkpoints from here on.
    LogKey(Box<LogKey>),
    /// Contents were destroyed, and the log still commits to them.
    Destroyed(Box<Destroyed>),
}

/// A key of the log's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogKey {
    /// The log's name, as its checkpoints bear it.
    pub origin: String,
    /// The public key, as a verifier's text of C2SP signed-note.
    pub key: String,
    /// The key before, likewise; `None`: this is the log's first.
    pub previous: Option<String>,
    /// A note by which the key before names this one; `None`: this is the log's first.
    pub endorsement: Option<String>,
    /// Who has made it.
    pub by: String,
}

/// What was destroyed, when (the entry's time), and by which rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroyed {
    /// The rule: `retention of 13 months`, `redaction`.
    pub rule: String,
    /// Who, or `gateway`.
    pub by: String,
    /// Their reason.
    pub reason: Option<String>,
    /// Index of the first entry that the rule was applied to.
    pub first: u64,
    /// The index after the last.
    pub next: u64,
    /// Of sessions on this connection; `None`: of any.
    pub connection: Option<String>,
    /// Of these kinds of entries; empty: of any.
    pub kinds: Vec<String>,
    /// Fields whose contents were destroyed; empty: whole entries.
    pub fields: Vec<String>,
    /// How many contents there were.
    pub contents: u64,
}

/// The start of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStarted {
    /// Who.
    pub principal: Principal,
    /// On what.
    pub target: Target,
    /// The peer's address and port.
    pub source: String,
    /// The listener's protocol.
    pub protocol: String,
    /// What the caller called itself.
    pub label: String,
    /// Application name, as the client says.
    pub application: String,
    /// TLS version and cipher towards the client; `None`: plain, on a loopback listener that allows it.
    pub tls: Option<String>,
    /// The policy set that allowed it.
    pub policy_version: String,
    /// The policies that allowed it.
    pub policies: Vec<String>,
}

/// A request as recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestRecord {
    /// Its number in the session.
    pub request: RequestId,
    /// What was asked.
    pub kind: RequestKind,
    /// The exact statement.
    pub statement: Bytes,
    /// The bound parameters.
    pub parameters: Vec<Parameter>,
    /// The actions and objects.
    pub facts: Arc<Facts>,
    /// `allow`, `deny`, `hold`.
    pub verdict: RecordedVerdict,
    /// The policies that determined it.
    pub policies: Arc<[Arc<str>]>,
    /// The policy set.
    pub policy_version: Arc<str>,
    /// For a denial: why. For a hold: the reviewers.
    pub reason: Option<String>,
}

/// A verdict as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedVerdict {
    /// Forwarded.
    Allow,
    /// Refused.
    Deny,
    /// Held for approval.
    Hold,
}

impl RecordedVerdict {
    /// Its name in listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Hold => "hold",
        }
    }
}

/// Steps of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStep {
    /// The request waits.
    Requested,
    /// Somebody authorised agreed.
    Approved,
    /// Somebody authorised refused.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// The client gave up, cancelled, or the session ended.
    Withdrawn,
}

impl ApprovalStep {
    /// Its name in listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which request.
    pub request: RequestId,
    /// How it ended.
    pub status: OutcomeStatus,
    /// The target's error code (SQLSTATE …), where it failed.
    pub code: Option<Bytes>,
    /// The target's completion tag, where it has one: `SELECT 3`.
    pub tag: Option<Bytes>,
    /// Rows returned or touched.
    pub rows: u64,
    /// Bytes returned to the client.
    pub bytes: u64,
    /// From forwarding to completion.
    pub duration_micros: u64,
    /// Result columns that passed.
    pub columns_passed: u32,
    /// Result columns that were masked.
    pub columns_masked: u32,
    /// Result columns for which the result was refused.
    pub columns_refused: u32,
    /// Classes that were masked, sorted.
    pub masked_classes: Vec<String>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    /// The target completed it.
    Completed,
    /// The target failed it.
    Failed,
    /// The target never ran it, because an earlier request of its pipeline failed.
    Skipped,
    /// The gateway refused its result.
    Refused,
    /// The session ended first: whether the target completed it is not known.
    Unknown,
}

impl OutcomeStatus {
    /// Its name in listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}
