//! The kinds of entries, and the numbers and names of their fields. `FORMAT.md` shows the same for outsiders.

use proxy_core::record::Event;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The encoding's version: the first byte of every leaf.
pub const VERSION: u8 = 1;

/// What an entry is: the second byte of its leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EventKind {
    /// The gateway started.
    GatewayStarted = 1,
    /// The gateway stopped in good order.
    GatewayStopped = 2,
    /// A configuration or policy set became active.
    Activated = 3,
    /// A new set was refused.
    ReloadRefused = 4,
    /// A login was refused.
    LoginFailed = 5,
    /// A session was permitted to open.
    SessionStarted = 6,
    /// A session ended.
    SessionEnded = 7,
    /// A request and its verdict.
    Request = 8,
    /// What came of a request.
    Outcome = 9,
    /// A step of an approval.
    Approval = 10,
    /// An administrative action.
    Administration = 11,
    /// Somebody read the log.
    LogRead = 12,
    /// The wall clock moved against the monotonic one.
    ClockJump = 13,
    /// Nothing else happened for a while.
    Heartbeat = 14,
    /// A key signs the log's checkpoints from here on.
    LogKey = 15,
    /// Contents were destroyed.
    Destroyed = 16,
}

impl EventKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::GatewayStarted,
        Self::GatewayStopped,
        Self::Activated,
        Self::ReloadRefused,
        Self::LoginFailed,
        Self::SessionStarted,
        Self::SessionEnded,
        Self::Request,
        Self::Outcome,
        Self::Approval,
        Self::Administration,
        Self::LogRead,
        Self::ClockJump,
        Self::Heartbeat,
        Self::LogKey,
        Self::Destroyed,
    ];

    /// The kind of `event`.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match event {
            Event::GatewayStarted { .. } => Self::GatewayStarted,
            Event::GatewayStopped { .. } => Self::GatewayStopped,
            Event::Activated { .. } => Self::Activated,
            Event::ReloadRefused { .. } => Self::ReloadRefused,
            Event::LoginFailed { .. } => Self::LoginFailed,
            Event::SessionStarted(_) => Self::SessionStarted,
            Event::SessionEnded { .. } => Self::SessionEnded,
            Event::Request(_) => Self::Request,
            Event::Outcome(_) => Self::Outcome,
            Event::Approval { .. } => Self::Approval,
            Event::Administration { .. } => Self::Administration,
            Event::LogRead { .. } => Self::LogRead,
            Event::ClockJump { .. } => Self::ClockJump,
            Event::Heartbeat => Self::Heartbeat,
            Event::LogKey(_) => Self::LogKey,
            Event::Destroyed(_) => Self::Destroyed,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Its name in listings and filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GatewayStarted => "gateway_started",
            Self::GatewayStopped => "gateway_stopped",
            Self::Activated => "activated",
            Self::ReloadRefused => "reload_refused",
            Self::LoginFailed => "login_failed",
            Self::SessionStarted => "session_started",
            Self::SessionEnded => "session_ended",
            Self::Request => "request",
            Self::Outcome => "outcome",
            Self::Approval => "approval",
            Self::Administration => "administration",
            Self::LogRead => "log_read",
            Self::ClockJump => "clock_jump",
            Self::Heartbeat => "heartbeat",
            Self::LogKey => "log_key",
            Self::Destroyed => "destroyed",
        }
    }

    /// The names of its own fields, from number 4.
    #[must_use]
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::GatewayStarted => &["version", "host"],
            Self::GatewayStopped => &["reason"],
            Self::Activated => &["what", "digest", "previous", "difference", "author"],
            Self::ReloadRefused => &["what", "error"],
            Self::LoginFailed => &["source", "protocol", "label", "connection", "reason"],
            Self::SessionStarted => {
                &["principal", "target", "source", "protocol", "label", "application", "tls", "policy_version", "policies"]
            }
            Self::SessionEnded => &["reason", "requests", "bytes_in", "bytes_out"],
            Self::Request => {
                &["request", "kind", "verdict", "statement", "parameters", "facts", "policies", "policy_version", "reason"]
            }
            Self::Outcome => &[
                "request",
                "status",
                "code",
                "tag",
                "rows",
                "bytes",
                "duration_micros",
                "columns_passed",
                "columns_masked",
                "columns_refused",
                "masked_classes",
            ],
            Self::Approval => &["request", "step", "by", "reason", "digest"],
            Self::Administration => &["by", "action", "object", "details"],
            Self::LogRead => &["by", "query"],
            Self::ClockJump => &["micros"],
            Self::Heartbeat => &[],
            Self::LogKey => &["origin", "key", "previous", "endorsement", "by"],
            Self::Destroyed => &["rule", "by", "reason", "first", "next", "connection", "kinds", "fields", "contents"],
        }
    }

    /// The name of field `field`.
    #[must_use]
    pub fn field_name(self, field: u32) -> &'static str {
        let at = usize::try_from(field.saturating_sub(FIRST_FIELD)).unwrap_or(usize::MAX);
        self.fields().get(at).copied().unwrap_or("unknown")
    }
}

/// Not the name of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of entry; kinds are gateway_started, session_started, request, outcome, approval …")]
pub struct UnknownKind;

impl FromStr for EventKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(UnknownKind)
    }
}

/// Common field: when, microseconds since 1970 in UTC.
pub(crate) const TIME: u32 = 1;
/// Common field: which session, 16 bytes.
pub(crate) const SESSION: u32 = 2;
/// Common field: the entry's number in its session.
pub(crate) const NUMBER: u32 = 3;
/// The first of a kind's own fields.
pub(crate) const FIRST_FIELD: u32 = 4;
/// Fields whose content is kept beside.
pub(crate) const BESIDE: u32 = 15;
/// [`EventKind::Request`]: the verdict.
pub(crate) const REQUEST_VERDICT: u32 = 6;
/// [`EventKind::Request`]: the statement.
pub(crate) const REQUEST_STATEMENT: u32 = 7;
/// [`EventKind::Request`]: the bound parameters.
pub(crate) const REQUEST_PARAMETERS: u32 = 8;
/// [`EventKind::Request`]: the actions and objects.
pub(crate) const REQUEST_FACTS: u32 = 9;
/// [`EventKind::Request`]: the policies that determined the verdict.
pub(crate) const REQUEST_POLICIES: u32 = 10;
/// [`EventKind::Outcome`]: what came of it.
pub(crate) const OUTCOME_STATUS: u32 = 5;
/// [`EventKind::Outcome`]: rows; bytes follow.
pub(crate) const OUTCOME_ROWS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::EventKind;

    #[test]
    fn numbers_and_names_are_reversible() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_byte(kind as u8), Some(kind));
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert!(kind.fields().len() <= crate::limits::FIELDS_MAX);
        }
        assert_eq!(EventKind::from_byte(0), None);
        assert_eq!(EventKind::from_byte(17), None);
    }
}
