//! Approvals that cover more than the one request that they were given for.

use super::{ApprovalId, Opinion};
use crate::units::{parse_duration, show_duration};
use proxy_core::pipeline::Widths;
use proxy_core::{SessionId, Timestamp};
use proxy_io::HeldRequest;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much an approval covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Width {
    /// The one request.
    #[default]
    Once,
    /// Statements of its shape, that would do the same to the same objects, for the rest of the session.
    Session,
    /// What the same policies hold of the same principal on the same target, for so long.
    Window(Duration),
}

impl Width {
    /// Whether the policies that ask allow it.
    #[must_use]
    pub fn is_within(self, widths: Widths) -> bool {
        match self {
            Self::Once => true,
            Self::Session => widths.session,
            Self::Window(window) => widths.window.is_some_and(|longest| window <= longest),
        }
    }

    /// What two reviewers agree on.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Session, Self::Session) => Self::Session,
            (Self::Window(a), Self::Window(b)) => Self::Window(a.min(b)),
            _ => Self::Once,
        }
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("once"),
            Self::Session => f.write_str("session"),
            Self::Window(window) => f.write_str(&show_duration(*window)),
        }
    }
}

/// Neither a word nor a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an approval is for `once`, for the `session`, or for a time such as 30m")]
pub struct InvalidWidth;

impl FromStr for Width {
    type Err = InvalidWidth;

    fn from_str(text: &str) -> Result<Self, InvalidWidth> {
        match text {
            "once" => Ok(Self::Once),
            "session" => Ok(Self::Session),
            time => parse_duration(time).filter(|window| !window.is_zero()).map(Self::Window).ok_or(InvalidWidth),
        }
    }
}

impl serde::Serialize for Width {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One that is in force. It does not outlive the gateway.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The request that it was given for.
    pub id: ApprovalId,
    /// That request.
    pub held: Arc<HeldRequest>,
    /// How much it covers: more than once.
    pub width: Width,
    /// Who gave it.
    pub by: Vec<Opinion>,
    /// When it ends, unless it ends with the session.
    pub until: Option<Timestamp>,
    /// The same, by a clock that nobody sets.
    ends: Option<Instant>,
    /// The statement without its literals; `None`: it cannot be told, and covers no other.
    shape: Option<Vec<u8>>,
}

impl Standing {
    /// `None`: it covers nothing more.
    pub(super) fn new(id: ApprovalId, held: &Arc<HeldRequest>, width: Width, by: &[Opinion], now: Timestamp) -> Option<Self> {
        let window = match width {
            Width::Once => return None,
            Width::Session => None,
            Width::Window(window) => Some(window),
        };
        Some(Self {
            id,
            held: Arc::clone(held),
            width,
            by: by.to_vec(),
            until: window.map(|window| now.after(window)),
            ends: window.map(|window| Instant::now() + window),
            shape: shape(held),
        })
    }

    /// Whether it is still in force.
    pub(super) fn lasts(&self) -> bool {
        self.ends.is_none_or(|ends| Instant::now() < ends)
    }

    /// Whether it is for the rest of this session.
    pub(super) fn ends_with(&self, session: SessionId) -> bool {
        self.width == Width::Session && self.held.session == session
    }

    /// Whether it covers another request: of the same principal, on the same target, under the same policy set, held by no
    /// other policies.
    pub(super) fn covers(&self, other: &HeldRequest) -> bool {
        let held = &self.held;
        let (a, b) = (&held.target, &other.target);
        let same = held.principal.id() == other.principal.id()
            && (&a.connection, &a.database, &a.upstream_user) == (&b.connection, &b.database, &b.upstream_user)
            && held.policy_version == other.policy_version
            && other.rule.policies.iter().all(|policy| held.rule.policies.contains(policy));
        same && self.lasts()
            && match self.width {
                Width::Once => false,
                Width::Window(_) => true,
                Width::Session => {
                    held.session == other.session
                        && held.facts.operations == other.facts.operations
                        && self.shape.is_some()
                        && self.shape == shape(other)
                }
            }
    }
}

/// A statement without its literals.
fn shape(held: &HeldRequest) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    policy::sql::fingerprint(&held.statement, &mut key).ok().map(|_| key)
}
