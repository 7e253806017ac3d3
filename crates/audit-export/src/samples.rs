//! One entry of each kind, and hostile ones, for the tests.

use crate::context::{LogInfo, SessionContext};
use audit_store::StoredEntry;
use bytes::Bytes;
use proxy_core::record::{ApprovalStep, Outcome, OutcomeStatus, RecordedVerdict, RequestRecord, SessionStarted};
use proxy_core::{
    Entry, Event, Facts, Object, ObjectKind, Operation, Parameter, Principal, PrincipalKind, RequestId, RequestKind, SessionId,
    Target, Timestamp, ValueFormat,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a caller could send to break a line, a quote, a cell or a terminal.
pub(crate) const HOSTILE: &str =
    "=SELECT 'a\"b', \"c,d\" | 'e\\f' \r\nFROM t -- \u{1b}[2J\u{7f}\u{2028} é ＝ x=y\ttab <133>1 CEF:0|x|y|";

pub(crate) fn log() -> LogInfo {
    LogInfo { id: "00112233445566778899aabbccddeeff".into(), version: "0.1.0".into(), host: "gw1".into() }
}

pub(crate) fn session_id() -> SessionId {
    SessionId([1, 0x93, 0x7f, 0x5e, 0x7a, 0x10, 0x7c, 0x3e, 0x8d, 0x2b, 10, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f])
}

pub(crate) fn started() -> SessionStarted {
    SessionStarted {
        principal: Principal {
            kind: PrincipalKind::Service,
            issuer: "entra".into(),
            subject: "9f2b/ci-bot".into(),
            tenant: Some("9f2b".into()),
            application: Some("app-1".into()),
            credential_id: Some("uti-1".into()),
            aliases: vec!["ci".into()],
            roles: vec!["app".into(), "batch".into()],
            claims: BTreeMap::from([("idtyp".into(), "app".into())]),
            expires: Some(Timestamp(1_800_000_000_000_000)),
        },
        target: Target {
            connection: "orders-prod".into(),
            address: "db.example.com:5432".into(),
            database: "orders".into(),
            upstream_user: "gateway".into(),
            owner: Some("payments".into()),
            tags: BTreeMap::from([("env".into(), "prod".into())]),
        },
        source: "10.1.2.3:40000".into(),
        protocol: "postgres".into(),
        label: "ci".into(),
        application: "psql".into(),
        tls: Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".into()),
        policy_version: "v1".into(),
        policies: vec!["connect-app".into()],
    }
}

pub(crate) fn context() -> SessionContext {
    SessionContext::from(&started())
}

pub(crate) fn request(statement: &[u8]) -> RequestRecord {
    let mut facts = Facts::default();
    let customers = Object::new(ObjectKind::Table, ["public", "customers"]);
    facts.add(Operation { action: "select".into(), object: customers.clone(), has_where: Some(true) });
    facts.add(Operation { action: "delete".into(), object: customers, has_where: Some(false) });
    RequestRecord {
        request: RequestId(7),
        kind: RequestKind::Execute,
        statement: Bytes::copy_from_slice(statement),
        parameters: vec![
            Parameter { value: Some(Bytes::from_static(b"Ada")), format: ValueFormat::Text, type_id: 25 },
            Parameter { value: Some(Bytes::from_static(&[0, 0, 0, 42, 255])), format: ValueFormat::Binary, type_id: 23 },
            Parameter { value: None, format: ValueFormat::Text, type_id: 0 },
        ],
        facts: Arc::new(facts),
        verdict: RecordedVerdict::Deny,
        policies: Arc::from([Arc::from("no-delete-all"), Arc::from("second")]),
        policy_version: "v1".into(),
        reason: Some("a DELETE without WHERE".into()),
    }
}

pub(crate) fn outcome() -> Outcome {
    Outcome {
        request: RequestId(7),
        status: OutcomeStatus::Completed,
        code: None,
        tag: Some(Bytes::from_static(b"SELECT 3")),
        rows: 3,
        bytes: 120,
        duration_micros: 1_234,
        columns_passed: 2,
        columns_masked: 1,
        columns_refused: 0,
        masked_classes: vec!["email".into()],
    }
}

pub(crate) fn stored(index: u64, in_session: bool, event: Event) -> StoredEntry {
    let time = Timestamp(1_700_000_000_123_456 + i64::try_from(index).unwrap() * 1_000_000);
    let session = in_session.then(|| (session_id(), index));
    StoredEntry { index, entry: Entry { time, session, event }, withheld: vec![] }
}

/// One of each kind, in the order of their numbers.
pub(crate) fn all() -> Vec<StoredEntry> {
    let details = BTreeMap::from([("rows".to_owned(), "12".to_owned()), ("principal".to_owned(), "dev/x".to_owned())]);
    let events = [
        (false, Event::GatewayStarted { version: "0.1.0".into(), host: "gw1".into() }),
        (false, Event::GatewayStopped { reason: "told to stop".into() }),
        (
            false,
            Event::Activated {
                what: "policy".into(),
                digest: "ab12".into(),
                previous: Some("cd34".into()),
                difference: vec!["+ policy a".into()],
                author: Some("ann".into()),
            },
        ),
        (false, Event::ReloadRefused { what: "configuration".into(), error: "line 3: unknown key".into() }),
        (
            false,
            Event::LoginFailed {
                source: "[2001:db8::1]:5000".into(),
                protocol: "postgres".into(),
                label: "mallory".into(),
                connection: "orders-prod".into(),
                reason: "the token has expired".into(),
            },
        ),
        (true, Event::SessionStarted(Box::new(started()))),
        (true, Event::SessionEnded { reason: "client".into(), requests: 9, bytes_in: 100, bytes_out: 200 }),
        (true, Event::Request(Box::new(request(b"DELETE FROM customers")))),
        (true, Event::Outcome(Box::new(outcome()))),
        (
            true,
            Event::Approval {
                request: RequestId(7),
                step: ApprovalStep::Approved,
                by: Some("dev/ann".into()),
                reason: Some("ticket 4711".into()),
                digest: "ef56".into(),
            },
        ),
        (
            false,
            Event::Administration { by: "local:root".into(), action: "key created".into(), object: "key k1".into(), details },
        ),
        (false, Event::LogRead { by: "dev/aud".into(), query: "sessions: all".into() }),
        (false, Event::ClockJump { micros: -5_000_000 }),
        (false, Event::Heartbeat),
    ];
    let mut index = 0;
    let number = |(in_session, event)| {
        index += 1;
        stored(index - 1, in_session, event)
    };
    events.into_iter().map(number).collect()
}

/// Statements that are none of their business: control characters, quotes, no UTF-8, NUL, a megabyte, nothing.
pub(crate) fn hostile() -> Vec<StoredEntry> {
    let long = "x'\n".repeat(350_000);
    let statements: [&[u8]; 5] = [HOSTILE.as_bytes(), b"SELECT '\xff\xfe'", b"SELECT '\0'", long.as_bytes(), b""];
    let entry = |(index, statement)| stored(index, true, Event::Request(Box::new(request(statement))));
    let mut list: Vec<StoredEntry> = (100..).zip(statements).map(entry).collect();
    let label = HOSTILE.to_owned();
    let (source, connection, reason) = (label.clone(), label.clone(), label.clone());
    list.push(stored(105, false, Event::LoginFailed { source, protocol: "postgres".into(), label, connection, reason }));
    list
}
