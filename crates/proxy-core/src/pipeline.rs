//! Decide, record, then permit: the one way to a [`Permit`].
//!
//! Invariant 1, *no permit, no bytes*: an upstream send needs a [`Permit`], whose only constructor is
//! [`Decision::permit`], which needs an [`Accepted`], whose only constructor is [`Ledger::commit`], which
//! returns it after the store has taken the entry. So a request cannot be forwarded that was not decided
//! and recorded, and the compiler checks it.

use crate::facts::Unknown;
use crate::record::{Entry, Event, RecordedVerdict};
use crate::{Disclosure, Facts, Principal, Request, RequestId, RequestKind, SessionId, Statement, Target, Timestamp};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Where entries are kept. Implemented by `audit-store`.
pub trait Store: Send + Sync {
    /// Appends `entries` in order, all or none, and returns the index of the first.
    ///
    /// When it returns `Ok`, the entries survive a killed process.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was appended.
    fn append(&self, entries: &[Entry]) -> Result<u64, StoreError>;

    /// Whether [`Store::append`] waits for the disk, so that it must not be called on an event loop.
    fn blocks(&self) -> bool;
}

/// Why the store did not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or nearly.
    #[error("the audit store's disk is full: {free} bytes free, {needed} needed")]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        needed: u64,
    },
    /// Reading or writing failed.
    #[error("the audit store failed: {0}")]
    Io(String),
    /// What is stored is not what was written.
    #[error("the audit store is damaged: {0}")]
    Corrupt(String),
    /// It has been closed.
    #[error("the audit store is closed")]
    Closed,
}

/// Proof that the store has taken an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    index: u64,
    grants: Option<(SessionId, RequestId)>,
}

impl Accepted {
    /// The entry's index in the log.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }
}

/// The audit log as the pipeline sees it.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
}

impl Ledger {
    /// A ledger on `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Whether [`Ledger::commit`] waits for the disk.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.store.blocks()
    }

    /// Appends `entries`, all or none; pushes one [`Accepted`] for each onto `accepted`.
    ///
    /// # Errors
    /// The store's; then `accepted` is unchanged.
    pub fn commit(&self, entries: &[Entry], accepted: &mut Vec<Accepted>) -> Result<(), StoreError> {
        let first = self.store.append(entries)?;
        for (index, entry) in (first..).zip(entries) {
            accepted.push(Accepted { index, grants: grants(entry) });
        }
        Ok(())
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger")
    }
}

/// The request that an entry clears for forwarding, if it is one that does.
fn grants(entry: &Entry) -> Option<(SessionId, RequestId)> {
    let (session, _) = entry.session?;
    match &entry.event {
        Event::SessionStarted(_) => Some((session, RequestId(0))),
        Event::Request(record) => match record.verdict {
            RecordedVerdict::Allow => Some((session, record.request)),
            // A statement that would be held may be prepared: nothing runs.
            RecordedVerdict::Hold if record.kind == RequestKind::Prepare => Some((session, record.request)),
            RecordedVerdict::Hold | RecordedVerdict::Deny => None,
        },
        Event::Approval { request, step: crate::record::ApprovalStep::Approved, .. } => Some((session, *request)),
        Event::Approval { .. }
        | Event::GatewayStarted { .. }
        | Event::GatewayStopped { .. }
        | Event::Activated { .. }
        | Event::ReloadRefused { .. }
        | Event::LoginFailed { .. }
        | Event::SessionEnded { .. }
        | Event::Outcome(_)
        | Event::Administration { .. }
        | Event::LogRead { .. }
        | Event::ClockJump { .. }
        | Event::Heartbeat
        | Event::LogKey(_)
        | Event::Destroyed(_) => None,
    }
}

/// The right to send one request's bytes upstream. Cheap to copy; worth nothing in another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    session: SessionId,
    request: RequestId,
    index: u64,
}

impl Permit {
    /// The session that it was given to. The driver checks it before it sends.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The request that it clears; 0 is the opening of the session and its housekeeping.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The log entry that cleared it.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }
}

/// Why a request is refused, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyReason {
    /// The policy that forbids it; `None`: nothing permits it.
    pub policy: Option<Arc<str>>,
    /// Which part: `delete on table public.orders without WHERE`.
    pub what: String,
    /// What the caller can do about it.
    pub remedy: String,
}

/// Who must approve, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRule {
    /// The policies that ask.
    pub policies: Vec<Arc<str>>,
    /// The groups of reviewers, each of which must approve, sorted by name.
    pub groups: Vec<ReviewGroup>,
    /// Longest wait that the policies allow; `None`: as long as the gateway lets any request wait.
    pub expires: Option<Duration>,
    /// How much more than the one request an approval may cover.
    pub widths: Widths,
    /// Which part asks for it, in words.
    pub what: String,
}

/// How much more than one request an approval may cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Widths {
    /// Statements of the same shape for the rest of the session.
    pub session: bool,
    /// What the same policies hold of the same principal on the same target, for at most so long.
    pub window: Option<Duration>,
}

/// A group of which some must approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewGroup {
    /// Its name: a role of its members.
    pub name: String,
    /// How many different people of it, at least 1.
    pub quorum: u32,
    /// Who may speak for it when it stays silent.
    pub escalation: Option<Escalation>,
}

/// A second group, which may speak for a first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    /// Its name.
    pub group: String,
    /// From when on, counted from the request.
    pub after: Duration,
}

impl ApprovalRule {
    /// The groups' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|group| &*group.name)
    }

    /// Whom it waits for, in words: `dba (2 people) and security`.
    #[must_use]
    pub fn whom(&self) -> String {
        let group = |group: &ReviewGroup| match group.quorum {
            0 | 1 => group.name.clone(),
            more => format!("{} ({more} people)", group.name),
        };
        self.groups.iter().map(group).collect::<Vec<_>>().join(" and ")
    }
}

/// What is to happen with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it.
    Allow,
    /// Refuse it.
    Deny(DenyReason),
    /// Wait for approval.
    Hold(ApprovalRule),
}

/// An approval that was given, as far as policy may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The policy set under which it was asked for: it is void under another.
    pub policy_version: Arc<str>,
    /// The groups that approved.
    pub reviewers: Vec<String>,
}

/// A decision, with everything that the record and the session need.
#[derive(Debug, Clone)]
pub struct Decision {
    /// What is to happen.
    pub verdict: Verdict,
    /// The policies that determined it.
    pub policies: Arc<[Arc<str>]>,
    /// The policy set: its SHA-256, shortened.
    pub policy_version: Arc<str>,
    /// What the request would do.
    pub facts: Arc<Facts>,
    /// What may come back.
    pub disclosure: Disclosure,
}

impl Decision {
    /// A denial that no policy made: the gateway cannot decide.
    #[must_use]
    pub fn denied(reason: DenyReason) -> Self {
        let facts = Arc::new(Facts { unknown: vec![Unknown { what: reason.what.clone() }], ..Facts::default() });
        let (policies, policy_version) = (Arc::default(), Arc::default());
        Self { verdict: Verdict::Deny(reason), policies, policy_version, facts, disclosure: Disclosure::default() }
    }

    /// The permit for `request` of `session`, if this decision allows it and `accepted` is the proof that
    /// exactly this request was recorded as allowed (or as approved).
    #[must_use]
    pub fn permit(&self, session: SessionId, request: &Request, accepted: &Accepted) -> Option<Permit> {
        let cleared = match self.verdict {
            _ if matches!(request.statement, Statement::Refused(_)) => false,
            Verdict::Allow => true,
            Verdict::Hold(_) => request.kind == RequestKind::Prepare,
            Verdict::Deny(_) => false,
        };
        let recorded = accepted.grants == Some((session, request.id));
        (cleared && recorded).then_some(Permit { session, request: request.id, index: accepted.index })
    }

    /// The verdict's form in the record.
    #[must_use]
    pub fn recorded(&self) -> RecordedVerdict {
        match self.verdict {
            Verdict::Allow => RecordedVerdict::Allow,
            Verdict::Deny(_) => RecordedVerdict::Deny,
            Verdict::Hold(_) => RecordedVerdict::Hold,
        }
    }
}

/// A decision cannot be made yet (the target's catalogue is being loaded): ask again when this resolves.
pub struct NotReady(pub Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotReady")
    }
}

/// Decides for all sessions. Implemented over the `policy` and `masking` crates.
pub trait Authorizer: Send + Sync {
    /// The state that decides for one session of `principal` on `target`.
    fn open(&self, session: &SessionFacts) -> Box<dyn SessionAuthorizer>;
}

/// What a session's decisions depend on besides the request.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// The session.
    pub id: SessionId,
    /// Who.
    pub principal: Arc<Principal>,
    /// On what.
    pub target: Arc<Target>,
    /// The peer's IP address.
    pub source: String,
    /// Application name, as the client says.
    pub application: String,
    /// Settings that the client sent with its start, by name: they change how statements resolve.
    pub settings: Vec<(String, String)>,
}

/// Decides for one session, in the order of its requests: it remembers what they made
/// (prepared statements, cursors, temporary tables, the search path).
pub trait SessionAuthorizer: Send {
    /// Decides. The same request, principal, policy set and approval give the same answer.
    ///
    /// # Errors
    /// [`NotReady`]: ask again when its future resolves.
    fn decide(&mut self, now: Timestamp, request: &Request, approval: Option<&Approval>) -> Result<Decision, NotReady>;

    /// Tells what came of a request: a statement that changed the catalogue makes it stale.
    fn completed(&mut self, request: RequestId, succeeded: bool);

    /// Whether the session may still be open under the policy set that is active now.
    ///
    /// # Errors
    /// Why not.
    fn still_connected(&mut self, now: Timestamp) -> Result<(), DenyReason>;
}
