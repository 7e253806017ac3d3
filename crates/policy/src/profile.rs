//! What is remembered for one principal on one target, for all its sessions on one thread.

use crate::cache::Cache;
use crate::evaluate::{Outcome, Subject, read_claims};
use crate::limits::{CACHED_BYTES_MAX, CACHED_DECISIONS_MAX, PROFILES_MAX};
use crate::masks::MaskView;
use crate::session::Remembered;
use crate::set::PolicySet;
use parking_lot::Mutex;
use proxy_core::pipeline::SessionFacts;
use proxy_core::{Catalog, PrincipalKind, Target, Timestamp};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Everything by which two sessions' decisions could differ, save for what the sessions do. Sessions with
/// equal keys share decisions; so whatever a decision reads must be in here, or not be remembered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ProfileKey {
    engine: u64,
    policies: String,
    kind: PrincipalKind,
    issuer: String,
    subject: String,
    tenant: Option<String>,
    application_id: Option<String>,
    roles: Vec<String>,
    /// Those that policies read.
    claims: Vec<(String, String)>,
    connection: String,
    address: String,
    database: String,
    upstream_user: String,
    owner: Option<String>,
    tags: BTreeMap<String, String>,
    settings: Vec<(String, String)>,
    /// The schemas that the session searched when it began: a server's default may change meanwhile.
    search_path: Option<Vec<String>>,
    /// If a policy reads it.
    source: Option<IpAddr>,
    /// If a policy reads it.
    application: Option<String>,
}

impl ProfileKey {
    pub(crate) fn new(
        engine: u64,
        set: &PolicySet,
        session: &SessionFacts,
        source: IpAddr,
        search_path: Option<Vec<String>>,
    ) -> Self {
        let (principal, target) = (&session.principal, &session.target);
        let Target { connection, address, database, upstream_user, owner, tags } = &**target;
        Self {
            engine,
            policies: set.digest().to_owned(),
            kind: principal.kind,
            issuer: principal.issuer.clone(),
            subject: principal.subject.clone(),
            tenant: principal.tenant.clone(),
            application_id: principal.application.clone(),
            roles: principal.roles.clone(),
            claims: read_claims(set, principal).map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            connection: connection.clone(),
            address: address.clone(),
            database: database.clone(),
            upstream_user: upstream_user.clone(),
            owner: owner.clone(),
            tags: tags.clone(),
            settings: session.settings.clone(),
            search_path,
            source: set.reads().context("source").then_some(source),
            application: set.reads().context("application").then(|| session.application.clone()),
        }
    }
}

/// What remembered decisions depend on besides the profile and the statement. When one of these changes,
/// everything is forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stamp {
    /// The catalogue itself, not its version alone: the same `Arc` is the same snapshot.
    pub(crate) catalog: Option<Arc<Catalog>>,
    /// Which mask rules.
    pub(crate) masks: u64,
    /// The hour since 1970, if a policy reads the time; else 0.
    pub(crate) hour: i64,
}

impl Stamp {
    pub(crate) fn same(&self, other: &Self) -> bool {
        let catalog = match (&self.catalog, &other.catalog) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, Some(_)) | (Some(_), None) => false,
        };
        catalog && self.masks == other.masks && self.hour == other.hour
    }
}

/// The hour that decisions at `now` depend on.
pub(crate) fn hour(set: &PolicySet, now: Timestamp) -> i64 {
    if set.reads_time() { now.seconds().div_euclid(3_600) } else { 0 }
}

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) stamp: Stamp,
    pub(crate) decisions: Cache<Remembered>,
    /// Cedar's answers to single operations: a new statement on known tables costs no evaluation.
    pub(crate) outcomes: Cache<Outcome>,
    /// Which classes are masked, and how; `None`: not yet worked out under this stamp.
    pub(crate) masks: Option<Arc<MaskView>>,
}

impl Memory {
    /// Forgets everything unless it holds under `stamp`.
    pub(crate) fn renew(&mut self, stamp: &Stamp) {
        if !self.stamp.same(stamp) {
            self.stamp = stamp.clone();
            self.decisions.clear();
            self.outcomes.clear();
            self.masks = None;
        }
    }
}

/// A principal on a target under one policy set.
#[derive(Debug)]
pub(crate) struct Profile {
    /// In words, why nothing can be decided: then everything is refused.
    pub(crate) subject: Result<Subject, String>,
    /// Locked by one thread's sessions in turn: never contended.
    pub(crate) memory: Mutex<Memory>,
}

thread_local! {
    /// Sessions stay on the thread that opened them, so what they share is kept for each thread: no lock
    /// and no reference count is fought over between cores.
    static PROFILES: RefCell<HashMap<ProfileKey, Arc<Profile>>> = RefCell::new(HashMap::new());
}

/// The profile of `session` under `set`.
pub(crate) fn profile(key: ProfileKey, set: &Arc<PolicySet>, session: &SessionFacts) -> Arc<Profile> {
    PROFILES.with_borrow_mut(|profiles| {
        if let Some(known) = profiles.get(&key) {
            return known.clone();
        }
        make_room(profiles, key.engine, set.digest());
        let made = Arc::new(Profile {
            subject: Subject::new(set.clone(), &session.principal, &session.target),
            memory: Mutex::new(Memory {
                stamp: Stamp::default(),
                decisions: Cache::new(CACHED_DECISIONS_MAX, CACHED_BYTES_MAX),
                outcomes: Cache::new(CACHED_DECISIONS_MAX, CACHED_BYTES_MAX),
                masks: None,
            }),
        });
        profiles.insert(key, made.clone());
        made
    })
}

/// Forgets the profiles of sets that are not active any more (no session will ask for them), and, if there
/// are many, one that has no session. Where all have sessions, their number has a limit of its own.
fn make_room(profiles: &mut HashMap<ProfileKey, Arc<Profile>>, engine: u64, digest: &str) {
    profiles.retain(|key, profile| key.engine != engine || key.policies == digest || Arc::strong_count(profile) > 1);
    if profiles.len() >= PROFILES_MAX {
        let idle = profiles.iter().find(|(_, profile)| Arc::strong_count(profile) == 1);
        if let Some(key) = idle.map(|(key, _)| key.clone()) {
            profiles.remove(&key);
        }
    }
}
