//! What the tests of decisions share: callers, targets, catalogues, and requests.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use policy::{CatalogSource, PolicyEngine, PolicySet};
use proxy_core::catalog::{Catalog, Column, Relation, RelationKind};
use proxy_core::pipeline::{Approval, SessionFacts};
use proxy_core::{
    Authorizer, Decision, Object, ObjectKind, Operation, Principal, PrincipalKind, Request, RequestId, RequestKind,
    SessionAuthorizer, SessionId, Statement, Target, Timestamp, Verdict,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// A Tuesday, 11:34 UTC.
pub const NOW: Timestamp = Timestamp(1_795_520_097_000_000);

pub fn set(text: &str) -> PolicySet {
    PolicySet::parse([(PathBuf::from("test.cedar"), text.to_owned())]).unwrap_or_else(|error| panic!("{error}"))
}

pub fn service(subject: &str, roles: &[&str]) -> Principal {
    Principal {
        kind: PrincipalKind::Service,
        issuer: "dev".into(),
        subject: subject.into(),
        tenant: None,
        application: None,
        credential_id: Some("token-1".into()),
        aliases: Vec::new(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        claims: BTreeMap::new(),
        expires: None,
    }
}

pub fn target(tags: &[(&str, &str)]) -> Target {
    Target {
        connection: "orders-prod".into(),
        address: "127.0.0.1:5432".into(),
        database: "orders".into(),
        upstream_user: "gateway".into(),
        owner: Some("payments".into()),
        tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

pub fn session(principal: Principal, target: Target) -> SessionFacts {
    SessionFacts {
        id: SessionId([7; 16]),
        principal: Arc::new(principal),
        target: Arc::new(target),
        source: "10.1.2.3".into(),
        application: "test".into(),
        settings: Vec::new(),
    }
}

pub fn table(oid: u32, schema: &str, name: &str, columns: &[&str]) -> Relation {
    let columns = columns.iter().zip(1i16..).map(|(name, number)| Column {
        number,
        name: (*name).to_owned(),
        type_id: 25,
        generated: false,
    });
    Relation {
        oid,
        schema: schema.into(),
        name: name.into(),
        kind: RelationKind::Table,
        columns: columns.collect(),
        definition: None,
        parents: Vec::new(),
    }
}

/// Catalogues that a test sets; it counts how often one was asked for anew.
#[derive(Default)]
pub struct Catalogs {
    pub generation: AtomicU64,
    pub refreshes: AtomicU64,
    catalog: Mutex<Option<Arc<Catalog>>>,
    /// What the next refresh finds.
    next: Mutex<Option<Arc<Catalog>>>,
}

impl Catalogs {
    pub fn with(relations: Vec<Relation>) -> Arc<Self> {
        let catalogs = Arc::new(Self::default());
        catalogs.put(relations);
        catalogs
    }

    pub fn make(version: u64, relations: Vec<Relation>) -> Arc<Catalog> {
        Arc::new(Catalog::new(version, 150_018, vec!["public".into()], relations, Vec::new()))
    }

    pub fn put(&self, relations: Vec<Relation>) {
        let version = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        *self.catalog.lock().expect("not poisoned") = Some(Self::make(version, relations));
    }

    pub fn find_at_next_refresh(&self, relations: Vec<Relation>) {
        *self.next.lock().expect("not poisoned") = Some(Self::make(99, relations));
    }

    pub fn refreshes(&self) -> u64 {
        self.refreshes.load(Ordering::SeqCst)
    }
}

impl CatalogSource for Catalogs {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    fn current(&self, _: &Target) -> Option<Arc<Catalog>> {
        self.catalog.lock().expect("not poisoned").clone()
    }

    fn refresh(&self, _: &Target) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.refreshes.fetch_add(1, Ordering::SeqCst);
        if let Some(next) = self.next.lock().expect("not poisoned").take() {
            *self.catalog.lock().expect("not poisoned") = Some(next);
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(std::future::ready(()))
    }
}

/// One session of an engine, numbering its requests.
pub struct Caller {
    pub session: Box<dyn SessionAuthorizer>,
    next: u64,
    pub now: Timestamp,
}

impl Caller {
    pub fn new(engine: &PolicyEngine, facts: &SessionFacts) -> Self {
        Self { session: engine.open(facts), next: 1, now: NOW }
    }

    pub fn request(&mut self, kind: RequestKind, statement: Statement) -> Request {
        let id = RequestId(self.next);
        self.next += 1;
        Request { id, kind, statement, prepared_as: None, portal: None, parameters: Vec::new() }
    }

    /// Decides; waits for the catalogue as the driver would.
    pub fn decide(&mut self, request: &Request, approval: Option<&Approval>) -> Decision {
        for _ in 0..4 {
            match self.session.decide(self.now, request, approval) {
                Ok(decision) => return decision,
                Err(not_ready) => {
                    let mut future = not_ready.0;
                    let done = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    assert_eq!(done, Poll::Ready(()), "the tests' catalogues are there at once");
                }
            }
        }
        panic!("it waits for ever");
    }

    /// Decides one SQL text, and tells that it completed.
    pub fn sql(&mut self, text: &str) -> Decision {
        let request = self.request(RequestKind::Query, Statement::Sql(text.to_owned().into()));
        let decision = self.decide(&request, None);
        if decision.verdict == Verdict::Allow {
            self.session.completed(request.id, true);
        }
        decision
    }

    pub fn facts(&mut self, operations: Vec<Operation>) -> Decision {
        let mut facts = proxy_core::Facts { kinds: vec!["TEST".into()], ..Default::default() };
        operations.into_iter().for_each(|operation| facts.add(operation));
        let request = self.request(RequestKind::Command, Statement::Facts { facts, text: "test".into() });
        self.decide(&request, None)
    }
}

pub fn on_table(action: &str, name: &str, has_where: Option<bool>) -> Operation {
    Operation { action: action.into(), object: Object::new(ObjectKind::Table, ["public", name]), has_where }
}

/// The verdict in one word.
pub fn word(decision: &Decision) -> &'static str {
    decision.recorded().as_str()
}

/// The policy and the words of a denial.
pub fn denial(decision: &Decision) -> (Option<&str>, &str, &str) {
    let Verdict::Deny(reason) = &decision.verdict else { panic!("not denied: {:?}", decision.verdict) };
    (reason.policy.as_deref(), &reason.what, &reason.remedy)
}
