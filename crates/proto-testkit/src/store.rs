//! An audit store in memory, and permits that went the one way there is: decided, recorded, then given.

use proxy_core::pipeline::{Decision, Permit};
use proxy_core::record::{RequestRecord, SessionStarted};
use proxy_core::{
    Accepted, Disclosure, Entry, Event, Facts, Ledger, Principal, PrincipalKind, Request, RequestKind, SessionId, Store,
    StoreError, Target, Timestamp, Verdict,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps entries in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<Vec<Entry>>,
}

impl MemoryStore {
    /// What was appended, in order.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Store for MemoryStore {
    fn append(&self, entries: &[Entry]) -> Result<u64, StoreError> {
        let mut all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let first = all.len() as u64;
        all.extend_from_slice(entries);
        Ok(first)
    }

    fn blocks(&self) -> bool {
        false
    }
}

/// A permit for `request`, through a real [`Ledger`] on a [`MemoryStore`].
///
/// # Panics
/// If the pipeline does not give one: a bug of the pipeline.
#[must_use]
pub fn permit_for(session: SessionId, request: &Request) -> Permit {
    let policies: Arc<[Arc<str>]> = Arc::from(vec![Arc::<str>::from("test")]);
    let decision = Decision {
        verdict: Verdict::Allow,
        policies: policies.clone(),
        policy_version: Arc::from("test"),
        facts: Arc::new(Facts::default()),
        disclosure: Disclosure::default(),
    };
    let event = if request.kind == RequestKind::Connect {
        Event::SessionStarted(Box::new(started()))
    } else {
        Event::Request(Box::new(RequestRecord {
            request: request.id,
            kind: request.kind,
            statement: bytes::Bytes::new(),
            parameters: request.parameters.clone(),
            facts: decision.facts.clone(),
            verdict: decision.recorded(),
            policies,
            policy_version: decision.policy_version.clone(),
            reason: None,
        }))
    };
    let entry = Entry { time: Timestamp::default(), session: Some((session, request.id.0)), event };
    let mut accepted: Vec<Accepted> = Vec::new();
    Ledger::new(Arc::new(MemoryStore::default())).commit(&[entry], &mut accepted).expect("a store in memory accepts");
    let accepted = accepted.first().expect("one entry, one proof");
    decision.permit(session, request, accepted).expect("allowed and recorded")
}

/// A service that may be anybody's.
#[must_use]
pub fn principal() -> Principal {
    Principal {
        kind: PrincipalKind::Service,
        issuer: "test".into(),
        subject: "ci".into(),
        tenant: None,
        application: None,
        credential_id: None,
        aliases: Vec::new(),
        roles: Vec::new(),
        claims: BTreeMap::new(),
        expires: None,
    }
}

/// A target that may be anything.
#[must_use]
pub fn target() -> Target {
    Target {
        connection: "test".into(),
        address: "127.0.0.1:5432".into(),
        database: "test".into(),
        upstream_user: "gateway".into(),
        owner: None,
        tags: BTreeMap::new(),
    }
}

fn started() -> SessionStarted {
    SessionStarted {
        principal: principal(),
        target: target(),
        source: "127.0.0.1:1".into(),
        protocol: "test".into(),
        label: "ci".into(),
        application: String::new(),
        tls: None,
        policy_version: "test".into(),
        policies: vec!["test".into()],
    }
}
