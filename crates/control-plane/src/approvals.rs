//! Requests that wait for a reviewer.
//!
//! A session submits its held request and waits on the [`Ticket`]; reviewers decide through the admin API.
//! Whoever takes a request off the board (an approval that completes it, a denial, the timeout, or the
//! ticket's drop) settles it: removal happens under one lock, so every request has exactly one outcome.
//!
//! The board keeps nothing on disk. The session that waits records each outcome before anything is forwarded
//! (`Event::Approval`), and a request cannot outlive its session.

mod standing;

use crate::units;
use aws_lc_rs::rand;
use parking_lot::Mutex;
use proxy_core::pipeline::{Approval, ReviewGroup};
use proxy_core::record::ApprovalStep;
use proxy_core::{Principal, SessionId, Timestamp};
use proxy_io::HeldRequest;
pub use standing::{InvalidWidth, Standing, Width};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Settled requests that are remembered, so that a reviewer who comes late learns what happened (1,000).
const SETTLED_MAX: usize = 1_000;
/// Approvals for more than one request that are in force at once (1,000). The oldest give way.
const STANDING_MAX: usize = 1_000;
/// Letters of an id: no `i`, `l`, `o`, `u`, which are misread or make words (Crockford's base 32).
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Names a held request: six characters that can be typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId([u8; 6]);

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

/// Not six characters of the id alphabet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an approval's id is six characters, such as 7k2m9x; `sallyport approvals list` shows them")]
pub struct InvalidApprovalId;

impl FromStr for ApprovalId {
    type Err = InvalidApprovalId;

    /// Forgives case, and `o`, `i`, `l` for the digits that they look like.
    fn from_str(text: &str) -> Result<Self, InvalidApprovalId> {
        let letters = text.bytes().map(|byte| match byte.to_ascii_lowercase() {
            b'o' => b'0',
            b'i' | b'l' => b'1',
            other => other,
        });
        let letters: [u8; 6] = letters.collect::<Vec<_>>().try_into().map_err(|_| InvalidApprovalId)?;
        if letters.iter().all(|letter| LETTERS.contains(letter)) { Ok(Self(letters)) } else { Err(InvalidApprovalId) }
    }
}

impl serde::Serialize for ApprovalId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What became of a held request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every group agreed.
    Approved {
        /// For the policy engine.
        approval: Approval,
        /// Who, each with their reason.
        by: Vec<Opinion>,
        /// The earlier approval that covers this request; `None`: it was given for this one.
        under: Option<(ApprovalId, Width)>,
    },
    /// Somebody refused.
    Denied(Opinion),
    /// Nobody decided in time.
    Expired,
}

impl Outcome {
    /// Its step in the record.
    #[must_use]
    pub fn step(&self) -> ApprovalStep {
        match self {
            Self::Approved { .. } => ApprovalStep::Approved,
            Self::Denied(_) => ApprovalStep::Denied,
            Self::Expired => ApprovalStep::Expired,
        }
    }

    /// Who decided, for the record.
    #[must_use]
    pub fn by(&self) -> Option<String> {
        match self {
            Self::Approved { by, .. } => Some(join(by, |opinion| Some(opinion.by.as_str()))),
            Self::Denied(opinion) => Some(opinion.by.clone()),
            Self::Expired => None,
        }
    }

    /// Their reasons, for the record.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Approved { by, under, .. } => {
                let why = Some(join(by, |opinion| opinion.reason.as_deref())).filter(|text| !text.is_empty());
                let Some((id, width)) = under else { return why };
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                Some(format!("under approval {id} ({width}){why}"))
            }
            Self::Denied(opinion) => opinion.reason.clone(),
            Self::Expired => None,
        }
    }
}

fn join<'o>(by: &'o [Opinion], part: impl Fn(&'o Opinion) -> Option<&'o str>) -> String {
    by.iter().filter_map(part).collect::<Vec<_>>().join(", ")
}

/// What one reviewer said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Opinion {
    /// Who.
    pub by: String,
    /// For which groups, at that time.
    pub groups: Vec<String>,
    /// For how much.
    pub width: Width,
    /// Why.
    pub reason: Option<String>,
    /// When.
    #[serde(skip)]
    pub at: Timestamp,
    /// Their identity, as it was then.
    #[serde(skip)]
    pub principal: Option<Arc<Principal>>,
}

impl Opinion {
    fn of(reviewer: &Reviewer, groups: Vec<String>, word: Word, at: Timestamp) -> Self {
        let Word { width, reason } = word;
        Self { by: reviewer.id.clone(), groups, width, reason, at, principal: reviewer.principal.clone() }
    }
}

/// What a reviewer says besides yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// For how much; of a refusal it means nothing.
    pub width: Width,
    /// Why.
    pub reason: Option<String>,
}

/// Somebody who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviewer {
    /// A principal's id, or `local:USER` for an administrator at the gateway's own socket.
    pub id: String,
    /// Their verified identity; `None`: an administrator at the gateway's own socket.
    pub principal: Option<Arc<Principal>>,
    /// For whom they may speak.
    pub groups: Groups,
}

/// Groups of a reviewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// Every one: a local administrator.
    All,
    /// These: roles of their token.
    These(BTreeSet<String>),
}

impl Reviewer {
    fn is_in(&self, group: &str) -> bool {
        match &self.groups {
            Groups::All => true,
            Groups::These(list) => list.contains(group),
        }
    }

    /// Whether they may approve for `group` after the request has waited for `waited`.
    fn speaks_for(&self, group: &ReviewGroup, waited: Duration) -> bool {
        let escalated = group.escalation.as_ref().filter(|escalation| escalation.after <= waited);
        self.is_in(&group.name) || escalated.is_some_and(|escalation| self.is_in(&escalation.group))
    }

    fn is_called(&self, name: &str) -> bool {
        self.id == name || self.principal.as_ref().is_some_and(|principal| principal.answers_to(name))
    }

    /// What connects them with the request so closely that they must not decide on it.
    fn interest(&self, held: &HeldRequest) -> Option<Interest> {
        let principal = &held.principal;
        if self.is_called(&principal.id()) || self.is_called(&principal.subject) {
            return Some(Interest::Asked);
        }
        if principal.aliases.iter().any(|alias| self.is_called(alias)) {
            return Some(Interest::Asked);
        }
        let named = |claim: &str| principal.claims.get(claim).is_some_and(|names| listed(names).any(|name| self.is_called(name)));
        SPONSOR_CLAIMS.into_iter().find(|claim| named(claim)).map(Interest::Sponsors)
    }
}

/// Claims of a machine's token that name the people who answer for it; a machine key has who made it. Separated by commas
/// or spaces.
const SPONSOR_CLAIMS: [&str; 5] = ["sponsor", "sponsors", "owner", "owners", "created_by"];

/// Whether a claim of that name says who answers for a machine.
#[must_use]
pub fn names_sponsors(claim: &str) -> bool {
    SPONSOR_CLAIMS.contains(&claim)
}

fn listed(names: &str) -> impl Iterator<Item = &str> {
    names.split([',', ' ']).filter(|name| !name.is_empty())
}

/// Why somebody must not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// They asked for it.
    Asked,
    /// The asking machine's token names them, in this claim.
    Sponsors(&'static str),
}

/// Why a decision is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It never was, or long ago.
    #[error("no request {0} is waiting; `sallyport approvals list` shows those that are")]
    Unknown(ApprovalId),
    /// It is settled.
    #[error("request {id} was {step} at {at}{by}", step = .step.as_str(), at = units::show_time(*.at), by = .by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default())]
    Settled {
        /// Which.
        id: ApprovalId,
        /// How it ended.
        step: ApprovalStep,
        /// By whom.
        by: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// It is the reviewer's own.
    #[error("nobody decides on their own request: {0} asked for it")]
    Own(String),
    /// The reviewer answers for the machine that asks.
    #[error("nobody decides on the requests of a machine that they answer for: the claim {claim} of {principal} names {by}")]
    Sponsor {
        /// Who.
        by: String,
        /// The machine.
        principal: String,
        /// The claim.
        claim: &'static str,
    },
    /// The policies do not allow it.
    #[error("the policies allow no approval for {asked}: {allowed}")]
    Width {
        /// What was asked for.
        asked: Width,
        /// What may be.
        allowed: String,
    },
    /// There is no such approval in force.
    #[error("no approval {0} is in force; `sallyport approvals standing` shows those that are")]
    NotStanding(ApprovalId),
    /// They have said so already.
    #[error("{0} has approved it already; another person must")]
    Again(String),
    /// They are in none of the groups that are asked.
    #[error("{by} is not in a group that must approve this: {}", .groups.join(", "))]
    NotReviewer {
        /// Who.
        by: String,
        /// The groups that have not approved yet.
        groups: Vec<String>,
    },
}

/// The board takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} requests are waiting for approval already")]
pub struct BoardFull(pub usize);

/// How far a request is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Whether it runs now.
    pub approved: bool,
    /// Groups that have not approved yet.
    pub missing: Vec<String>,
}

/// A request that waits, as reviewers see it.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Its id.
    pub id: ApprovalId,
    /// The request.
    pub held: Arc<HeldRequest>,
    /// When it expires.
    pub expires: Timestamp,
    /// Who has approved.
    pub opinions: Vec<Opinion>,
}

impl Pending {
    /// Groups of which not enough people have approved yet.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.open_groups().map(|group| group.name.clone()).collect()
    }

    /// How many people have approved for a group.
    #[must_use]
    pub fn approvals_of(&self, group: &str) -> usize {
        self.opinions.iter().filter(|opinion| opinion.groups.iter().any(|name| name == group)).count()
    }

    fn open_groups(&self) -> impl Iterator<Item = &ReviewGroup> {
        self.held.rule.groups.iter().filter(|group| self.approvals_of(&group.name) < group.quorum.max(1) as usize)
    }
}

struct Waiting {
    pending: Pending,
    answer: oneshot::Sender<Outcome>,
}

struct Settled {
    id: ApprovalId,
    step: ApprovalStep,
    by: Option<String>,
    at: Timestamp,
}

#[derive(Default)]
struct Inner {
    waiting: BTreeMap<ApprovalId, Waiting>,
    settled: VecDeque<Settled>,
    standing: VecDeque<Standing>,
}

impl Inner {
    fn refuse(&self, id: ApprovalId) -> Refused {
        match self.settled.iter().rev().find(|settled| settled.id == id) {
            Some(settled) => Refused::Settled { id, step: settled.step, by: settled.by.clone(), at: settled.at },
            None => Refused::Unknown(id),
        }
    }

    /// Takes a request off the board. The one place where requests are settled.
    fn settle(&mut self, id: ApprovalId, step: ApprovalStep, by: Option<String>, at: Timestamp) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        if self.settled.len() >= SETTLED_MAX {
            self.settled.pop_front();
        }
        self.settled.push_back(Settled { id, step, by, at });
        Some(waiting)
    }

    /// Takes up an approval that covers more than its request.
    fn stand(&mut self, id: ApprovalId, held: &Arc<HeldRequest>, by: &[Opinion], now: Timestamp) {
        let widths = by.iter().map(|opinion| opinion.width);
        let width = widths.reduce(Width::and).unwrap_or_default();
        self.standing.retain(Standing::lasts);
        let Some(standing) = Standing::new(id, held, width, by, now) else { return };
        if self.standing.len() >= STANDING_MAX {
            self.standing.pop_front();
        }
        self.standing.push_back(standing);
    }

    fn free_id(&self) -> ApprovalId {
        loop {
            let mut bytes = [0; 6];
            // Without randomness there are no keys and no TLS either: the process could not have started.
            rand::fill(&mut bytes).expect("the system's random generator works");
            let id = ApprovalId(bytes.map(|byte| LETTERS[usize::from(byte % 32)]));
            let taken = self.waiting.contains_key(&id)
                || self.settled.iter().any(|settled| settled.id == id)
                || self.standing.iter().any(|standing| standing.id == id);
            if !taken {
                return id;
            }
        }
    }
}

/// Whether a reviewer may still decide, as far as it can be told without a token of theirs.
pub type Counts = Box<dyn Fn(&Principal) -> bool + Send + Sync>;

/// Is told what becomes of requests. It must not wait.
pub trait Told: Send + Sync {
    /// A request waits now, or has ended so, by whom and why.
    fn told(&self, pending: &Pending, step: ApprovalStep, by: Option<&str>, reason: Option<&str>);
}

/// All requests that wait.
pub struct ApprovalBoard {
    held_max: usize,
    counts: Counts,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    told: Option<Arc<dyn Told>>,
}

impl ApprovalBoard {
    /// An empty board for at most `held_max` requests.
    #[must_use]
    pub fn new(held_max: usize, counts: Counts) -> Arc<Self> {
        Self::telling(held_max, counts, None)
    }

    /// The same, which tells somebody.
    #[must_use]
    pub fn telling(held_max: usize, counts: Counts, told: Option<Arc<dyn Told>>) -> Arc<Self> {
        Arc::new(Self { held_max, counts, inner: Mutex::default(), changes: watch::Sender::new(0), told })
    }

    fn tell(&self, pending: &Pending, outcome: &Outcome) {
        if let Some(told) = &self.told {
            told.told(pending, outcome.step(), outcome.by().as_deref(), outcome.reason().as_deref());
        }
    }

    fn tell_step(&self, pending: &Pending, step: ApprovalStep) {
        if let Some(told) = &self.told {
            told.told(pending, step, None, None);
        }
    }

    /// Tells whenever something on the board has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A number that is another one whenever something on the board has changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        *self.changes.borrow()
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Puts a request on the board for at most `timeout`.
    ///
    /// # Errors
    /// [`BoardFull`].
    pub fn submit(self: &Arc<Self>, held: HeldRequest, timeout: Duration) -> Result<Ticket, BoardFull> {
        let mut inner = self.inner.lock();
        if inner.waiting.len() >= self.held_max {
            return Err(BoardFull(self.held_max));
        }
        let id = inner.free_id();
        let timeout = held.rule.expires.map_or(timeout, |expires| expires.min(timeout));
        let expires = held.submitted.after(timeout);
        let pending = Pending { id, held: Arc::new(held), expires, opinions: Vec::new() };
        let (answer, outcome) = oneshot::channel();
        self.tell_step(&pending, ApprovalStep::Requested);
        inner.waiting.insert(id, Waiting { pending, answer });
        self.changed();
        Ok(Ticket { id, expires, timeout, outcome: Some(outcome), board: Arc::clone(self) })
    }

    /// The approval that was given before and covers this request, if there is one and all who gave it may still decide.
    #[must_use]
    pub fn covered(&self, held: &HeldRequest) -> Option<Outcome> {
        let mut inner = self.inner.lock();
        if inner.standing.is_empty() {
            return None;
        }
        inner.standing.retain(|standing| standing.lasts() && standing.by.iter().all(|opinion| self.still_counts(opinion)));
        let standing = inner.standing.iter().find(|standing| standing.covers(held))?;
        Some(Outcome::Approved { approval: approval(held), by: standing.by.clone(), under: Some((standing.id, standing.width)) })
    }

    /// Approvals in force that cover more than the request that they were given for, oldest first.
    #[must_use]
    pub fn standing(&self) -> Vec<Standing> {
        let mut inner = self.inner.lock();
        inner.standing.retain(Standing::lasts);
        inner.standing.iter().cloned().collect()
    }

    /// Takes one back: what it covers is asked about again from now on.
    ///
    /// # Errors
    /// [`Refused::NotStanding`].
    pub fn revoke(&self, id: ApprovalId) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        let before = inner.standing.len();
        inner.standing.retain(|standing| standing.id != id);
        if inner.standing.len() == before {
            return Err(Refused::NotStanding(id));
        }
        self.changed();
        Ok(())
    }

    /// A session has ended.
    pub fn session_ended(&self, session: SessionId) {
        let mut inner = self.inner.lock();
        let before = inner.standing.len();
        inner.standing.retain(|standing| !standing.ends_with(session));
        if inner.standing.len() < before {
            self.changed();
        }
    }

    fn still_counts(&self, opinion: &Opinion) -> bool {
        opinion.principal.as_ref().is_none_or(|principal| (self.counts)(principal))
    }

    /// Every request that waits, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Pending> {
        let mut list: Vec<_> = self.inner.lock().waiting.values().map(|waiting| waiting.pending.clone()).collect();
        list.sort_by_key(|pending| (pending.held.submitted, pending.id));
        list
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One that waits.
    ///
    /// # Errors
    /// [`Refused::Unknown`] or [`Refused::Settled`].
    pub fn get(&self, id: ApprovalId) -> Result<Pending, Refused> {
        let inner = self.inner.lock();
        inner.waiting.get(&id).map(|waiting| waiting.pending.clone()).ok_or_else(|| inner.refuse(id))
    }

    /// Whether `reviewer` may decide on a request now: for recording the decision before it takes effect.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn may_decide(&self, id: ApprovalId, reviewer: &Reviewer, width: Width, now: Timestamp) -> Result<Pending, Refused> {
        let pending = self.get(id)?;
        allowed(&pending, reviewer, now)?;
        wide_enough(&pending, width)?;
        Ok(pending)
    }

    /// Approves for every group that the reviewer speaks for. The request runs when no group is missing. Those who have lost
    /// the right since they approved do not count.
    ///
    /// # Errors
    /// [`Refused`]: nothing changed.
    pub fn approve(&self, id: ApprovalId, reviewer: &Reviewer, word: Word, now: Timestamp) -> Result<Progress, Refused> {
        let mut inner = self.inner.lock();
        let Some(waiting) = inner.waiting.get_mut(&id) else { return Err(inner.refuse(id)) };
        waiting.pending.opinions.retain(|opinion| self.still_counts(opinion));
        if waiting.pending.opinions.iter().any(|opinion| opinion.by == reviewer.id) {
            return Err(Refused::Again(reviewer.id.clone()));
        }
        let groups = allowed(&waiting.pending, reviewer, now)?;
        wide_enough(&waiting.pending, word.width)?;
        waiting.pending.opinions.push(Opinion::of(reviewer, groups, word, now));
        self.changed();
        let missing = waiting.pending.missing();
        if !missing.is_empty() {
            return Ok(Progress { approved: false, missing });
        }
        let Pending { held, opinions, .. } = &waiting.pending;
        let outcome = Outcome::Approved { approval: approval(held), by: opinions.clone(), under: None };
        let settled = inner.settle(id, ApprovalStep::Approved, outcome.by(), now);
        let Some(Waiting { pending, answer }) = settled else { return Err(inner.refuse(id)) };
        self.tell(&pending, &outcome);
        let Pending { held, opinions, .. } = pending;
        // Nobody listens: the session ended in this moment, and the request with it.
        if answer.send(outcome).is_ok() {
            inner.stand(id, &held, &opinions, now);
        }
        Ok(Progress { approved: true, missing })
    }

    /// Refuses a request. One reviewer of any group that is asked suffices.
    ///
    /// # Errors
    /// [`Refused`]: nothing changed.
    pub fn deny(&self, id: ApprovalId, reviewer: &Reviewer, word: Word, now: Timestamp) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        let Some(waiting) = inner.waiting.get(&id) else { return Err(inner.refuse(id)) };
        let groups = allowed(&waiting.pending, reviewer, now)?;
        let Some(waiting) = inner.settle(id, ApprovalStep::Denied, Some(reviewer.id.clone()), now) else {
            return Err(inner.refuse(id));
        };
        let outcome = Outcome::Denied(Opinion::of(reviewer, groups, word, now));
        self.tell(&waiting.pending, &outcome);
        let _ = waiting.answer.send(outcome);
        self.changed();
        Ok(())
    }

    /// Takes a request off the board without a decision; whether it was still there.
    fn remove(&self, id: ApprovalId, step: ApprovalStep) -> bool {
        let settled = self.inner.lock().settle(id, step, None, proxy_io::clock::now());
        if let Some(waiting) = &settled {
            self.tell_step(&waiting.pending, step);
            self.changed();
        }
        settled.is_some()
    }
}

impl fmt::Debug for ApprovalBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApprovalBoard({} waiting)", self.len())
    }
}

/// The groups for which this reviewer may speak and which have not approved yet.
fn allowed(pending: &Pending, reviewer: &Reviewer, now: Timestamp) -> Result<Vec<String>, Refused> {
    let held = &pending.held;
    match reviewer.interest(held) {
        Some(Interest::Asked) => return Err(Refused::Own(held.principal.id())),
        Some(Interest::Sponsors(claim)) => {
            return Err(Refused::Sponsor { by: reviewer.id.clone(), principal: held.principal.id(), claim });
        }
        None => {}
    }
    let waited = Duration::from_micros(now.micros_since(held.submitted));
    let groups: Vec<_> =
        pending.open_groups().filter(|group| reviewer.speaks_for(group, waited)).map(|group| group.name.clone()).collect();
    if groups.is_empty() {
        return Err(Refused::NotReviewer { by: reviewer.id.clone(), groups: pending.missing() });
    }
    Ok(groups)
}

/// What the policy engine is told of an approval by all the groups that `held` asks for.
fn approval(held: &HeldRequest) -> Approval {
    Approval { policy_version: Arc::clone(&held.policy_version), reviewers: held.rule.names().map(str::to_owned).collect() }
}

fn wide_enough(pending: &Pending, width: Width) -> Result<(), Refused> {
    let widths = pending.held.rule.widths;
    if width.is_within(widths) {
        return Ok(());
    }
    let mut allowed = vec!["once".to_owned()];
    allowed.extend(widths.session.then(|| "session".to_owned()));
    allowed.extend(widths.window.map(|window| format!("a time up to {}", units::show_duration(window))));
    Err(Refused::Width { asked: width, allowed: allowed.join(", ") })
}

/// A session's place on the board. Dropped before it is settled, it withdraws the request.
#[derive(Debug)]
pub struct Ticket {
    id: ApprovalId,
    expires: Timestamp,
    timeout: Duration,
    outcome: Option<oneshot::Receiver<Outcome>>,
    board: Arc<ApprovalBoard>,
}

impl Ticket {
    /// The request's id, for the notice to the client.
    #[must_use]
    pub fn id(&self) -> ApprovalId {
        self.id
    }

    /// When the request expires.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Waits until the request is settled. The time-out counts from here and does not follow the wall clock.
    pub async fn outcome(mut self) -> Outcome {
        let Some(receiver) = self.outcome.as_mut() else { return Outcome::Expired };
        if let Ok(Ok(outcome)) = tokio::time::timeout(self.timeout, &mut *receiver).await {
            self.outcome = None;
            return outcome;
        }
        let expired = self.board.remove(self.id, ApprovalStep::Expired);
        let Some(receiver) = self.outcome.take() else { return Outcome::Expired };
        // It was settled between the time-out and the removal: that decision stands.
        if expired { Outcome::Expired } else { receiver.await.unwrap_or(Outcome::Expired) }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.outcome.is_some() {
            self.board.remove(self.id, ApprovalStep::Withdrawn);
        }
    }
}

#[cfg(test)]
mod tests;
