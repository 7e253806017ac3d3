//! Entries for tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

pub mod child;

use bytes::Bytes;
use proxy_core::record::{Outcome, OutcomeStatus, RecordedVerdict, RequestRecord, SessionStarted};
use proxy_core::{
    Entry, Event, Facts, Object, ObjectKind, Operation, Parameter, Principal, PrincipalKind, RequestId, RequestKind, SessionId,
    Target, Timestamp, ValueFormat,
};
use std::sync::Arc;

/// A session id whose order is that of `number`.
pub fn session(number: u64) -> SessionId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    SessionId(id)
}

pub fn principal(subject: &str) -> Principal {
    Principal {
        kind: PrincipalKind::Service,
        issuer: "dev".to_owned(),
        subject: subject.to_owned(),
        tenant: None,
        application: Some("app".to_owned()),
        credential_id: Some("jti-1".to_owned()),
        aliases: vec![format!("{subject}@example")],
        roles: vec!["reader".to_owned()],
        claims: [("env".to_owned(), "prod".to_owned())].into(),
        expires: Some(Timestamp(9)),
    }
}

pub fn started(number: u64, subject: &str, connection: &str) -> Entry {
    let target = Target {
        connection: connection.to_owned(),
        address: "db:5432".to_owned(),
        database: "shop".to_owned(),
        upstream_user: "gateway".to_owned(),
        owner: None,
        tags: [("env".to_owned(), "prod".to_owned())].into(),
    };
    let started = SessionStarted {
        principal: principal(subject),
        target,
        source: "127.0.0.1:4711".to_owned(),
        protocol: "postgres".to_owned(),
        label: subject.to_owned(),
        application: "psql".to_owned(),
        tls: Some("TLSv1.3".to_owned()),
        policy_version: "0a1b".to_owned(),
        policies: vec!["readers".to_owned()],
    };
    entry(number, 0, Event::SessionStarted(Box::new(started)))
}

pub fn entry(session_number: u64, number: u64, event: Event) -> Entry {
    Entry { time: Timestamp(1_000_000 + i64::try_from(number).unwrap()), session: Some((session(session_number), number)), event }
}

pub fn facts() -> Arc<Facts> {
    let object = Object::new(ObjectKind::Table, ["public", "pgbench_accounts"]);
    let operation = Operation { action: "select".to_owned(), object, has_where: Some(true) };
    Arc::new(Facts { operations: vec![operation], kinds: vec!["SELECT".to_owned()], ..Facts::default() })
}

pub fn request(session_number: u64, number: u64, request: u64, verdict: RecordedVerdict, statement: &str) -> Entry {
    let record = RequestRecord {
        request: RequestId(request),
        kind: RequestKind::Query,
        statement: Bytes::copy_from_slice(statement.as_bytes()),
        parameters: Vec::new(),
        facts: facts(),
        verdict,
        policies: vec![Arc::from("readers")].into(),
        policy_version: Arc::from("0a1b2c3d4e5f"),
        reason: None,
    };
    entry(session_number, number, Event::Request(Box::new(record)))
}

pub fn with_parameter(mut entry: Entry, value: &[u8]) -> Entry {
    if let Event::Request(record) = &mut entry.event {
        record.parameters.push(Parameter {
            value: Some(Bytes::copy_from_slice(value)),
            format: ValueFormat::Binary,
            type_id: 17,
        });
    }
    entry
}

pub fn outcome(session_number: u64, number: u64, request: u64) -> Entry {
    let outcome = Outcome {
        request: RequestId(request),
        status: OutcomeStatus::Completed,
        code: None,
        tag: Some(Bytes::from_static(b"SELECT 1")),
        rows: 1,
        bytes: 88,
        duration_micros: 210,
        columns_passed: 1,
        columns_masked: 0,
        columns_refused: 0,
        masked_classes: Vec::new(),
    };
    entry(session_number, number, Event::Outcome(Box::new(outcome)))
}

pub fn ended(session_number: u64, number: u64) -> Entry {
    let event = Event::SessionEnded { reason: "client_terminated".to_owned(), requests: 1, bytes_in: 10, bytes_out: 20 };
    entry(session_number, number, event)
}

pub fn options() -> audit_store::Options {
    audit_store::Options { min_free_bytes: 1 << 20, memory: 16 << 20, ..audit_store::Options::default() }
}
