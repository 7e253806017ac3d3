//! Decisions of one session, in the order of its requests.
//!
//! - `statement.rs`: a request that is SQL becomes facts, or waits for a catalogue.
//! - `judge.rs`: facts become a decision.
//! - `memory.rs`: decisions are remembered, and found again.

mod judge;
mod memory;
mod statement;

pub(crate) use memory::Remembered;

use crate::cache::Cache;
use crate::changes::CatalogChanges;
use crate::engine::{Active, Shared};
use crate::evaluate::{CONNECT, on_connection};
use crate::limits::CACHED_KEY_MAX;
use crate::profile::{Profile, ProfileKey, Stamp, hour, profile};
use crate::refresh::Refresh;
use crate::set::LoadedPolicy;
use crate::sql::SqlState;
use proxy_core::pipeline::{Approval, NotReady, SessionFacts};
use proxy_core::{Decision, DenyReason, Disclosure, Facts, Request, RequestId, SessionAuthorizer, Statement, Timestamp, Verdict};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What a session's decisions depend on, and what it remembers.
pub(crate) struct Decider {
    shared: Arc<Shared>,
    session: SessionFacts,
    source: IpAddr,
    active: Arc<Active>,
    /// The schemas that the session searched when it began, if that is known.
    search_path: Option<Vec<String>>,
    /// [`Shared::generation`] when `active` was taken.
    seen_policies: u64,
    /// The catalogue source's generation when the stamp's catalogue was taken.
    seen_catalogs: u64,
    stamp: Stamp,
    profile: Arc<Profile>,
    state: SqlState,
    /// The state's generation while nothing was done that changes how statements resolve.
    pristine: u64,
    /// Decisions that depend on what this session did. Most sessions have none.
    own: Option<Box<Cache<Remembered>>>,
    own_stamp: Stamp,
    changes: CatalogChanges,
    refresh: Refresh,
    key: Vec<u8>,
}

impl Decider {
    pub(crate) fn new(shared: Arc<Shared>, session: &SessionFacts) -> Self {
        let (active, seen_policies) = shared.active();
        let source = source_address(&session.source);
        let seen_catalogs = shared.catalogs.generation();
        let catalog = shared.catalogs.current(&session.target);
        let state = SqlState::new(&session.settings, catalog.as_deref());
        let stamp = Stamp { catalog, masks: active.masks_generation, hour: 0 };
        let search_path = stamp.catalog.as_ref().map(|catalog| catalog.search_path.clone());
        let profile =
            profile(ProfileKey::new(shared.id, &active.set, session, source, search_path.clone()), &active.set, session);
        Self {
            search_path,
            pristine: state.generation(),
            session: session.clone(),
            own: None,
            own_stamp: Stamp::default(),
            changes: CatalogChanges::on(shared.changes(&session.target)),
            refresh: Refresh::default(),
            key: Vec::new(),
            shared,
            source,
            active,
            seen_policies,
            seen_catalogs,
            stamp,
            profile,
            state,
        }
    }

    /// Takes up a new policy set, new mask rules, a new catalogue, a new hour.
    fn renew(&mut self, now: Timestamp) {
        if self.shared.generation() != self.seen_policies {
            (self.active, self.seen_policies) = self.shared.active();
            let path = self.search_path.clone();
            let key = ProfileKey::new(self.shared.id, &self.active.set, &self.session, self.source, path);
            self.profile = profile(key, &self.active.set, &self.session);
            self.stamp.masks = self.active.masks_generation;
            self.own = None;
        }
        let catalogs = self.shared.catalogs.generation();
        if catalogs != self.seen_catalogs {
            self.seen_catalogs = catalogs;
            self.stamp.catalog = self.shared.catalogs.current(&self.session.target);
        }
        self.stamp.hour = hour(&self.active.set, now);
    }
}

// ---- For explanations -----------------------------------------------------------------------------------

impl Decider {
    /// The policy with this id in the set that the last decision was made by.
    pub(crate) fn policy(&self, id: &str) -> Option<&LoadedPolicy> {
        self.active.set.policy(id)
    }

    /// The classes that are masked for this principal.
    pub(crate) fn hidden_classes(&self, now: Timestamp, facts: &Facts, statement: &str) -> Vec<String> {
        self.mask_view(now, facts, Some(statement)).hidden()
    }

    /// The decision on opening the session.
    pub(crate) fn opening(&self, now: Timestamp) -> Decision {
        let mut facts = Facts::default();
        facts.add(on_connection(CONNECT));
        self.decide_facts(now, &facts, None, Ok(Disclosure::default())).plain
    }
}

impl SessionAuthorizer for Decider {
    fn decide(&mut self, now: Timestamp, request: &Request, approval: Option<&Approval>) -> Result<Decision, NotReady> {
        self.changes.hear();
        self.renew(now);
        let decided = match &request.statement {
            Statement::Sql(text) => {
                let decision = self.sql(now, request, text, approval);
                // An idle session does not keep room for the longest statement that it ever sent.
                if self.key.capacity() > CACHED_KEY_MAX {
                    self.key = Vec::new();
                }
                return decision;
            }
            Statement::Named { cursor, name } => self.named(now, request.id, *cursor, name)?,
            Statement::Function(oid) => self.function(now, request.id, *oid)?,
            Statement::Facts { facts, text } => self.facts(now, request, facts, text),
            Statement::Refused(refusal) => self.gateway_refused(refusal),
        };
        Ok(self.settle(request, &decided, approval))
    }

    fn completed(&mut self, request: RequestId, succeeded: bool) {
        self.changes.completed(request, succeeded);
    }

    fn still_connected(&mut self, now: Timestamp) -> Result<(), DenyReason> {
        self.renew(now);
        match self.opening(now).verdict {
            // An approval of the opening was for the session, not for a moment of it.
            Verdict::Allow | Verdict::Hold(_) => Ok(()),
            Verdict::Deny(reason) => Err(reason),
        }
    }
}

impl std::fmt::Debug for Decider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decider").field("session", &self.session.id).finish_non_exhaustive()
    }
}

/// The peer's address for policies. What is not an address is none: 0.0.0.0, which no network contains but
/// that of all addresses. An IPv4 address in IPv6's clothes is the IPv4 address that policies name.
fn source_address(source: &str) -> IpAddr {
    let bare = source.split('%').next().unwrap_or(source);
    bare.parse::<IpAddr>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.to_canonical())
}
