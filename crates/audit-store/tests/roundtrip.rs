//! Every entry has one encoding, and only encodings are accepted.

use audit_store::DecodeError;
use audit_store::decode::{Counts, Decoded, decode, header};
use audit_store::encode::{Beside, encode};
use audit_store::{EventKind, limits};
use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proxy_core::facts::Unknown;
use proxy_core::record::{
    ApprovalStep, Destroyed, LogKey, Outcome, OutcomeStatus, RecordedVerdict, RequestRecord, SessionStarted,
};
use proxy_core::{
    Entry, Event, Facts, Object, ObjectKind, Operation, Parameter, Principal, PrincipalKind, RequestId, RequestKind, SessionId,
    Target, Timestamp, ValueFormat,
};
use std::sync::Arc;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "\\PC{0,12}", "[a-z]{200}"]
}

fn blob() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 900..5_000)].prop_map(Bytes::from)
}

fn object_kind() -> impl Strategy<Value = ObjectKind> {
    prop::sample::select(vec![
        ObjectKind::Connection,
        ObjectKind::Database,
        ObjectKind::Schema,
        ObjectKind::Table,
        ObjectKind::Function,
        ObjectKind::Namespace,
        ObjectKind::KubeResource,
        ObjectKind::Host,
    ])
}

fn facts() -> impl Strategy<Value = Facts> {
    let operation = (text(), object_kind(), vec(text(), 0..4), any::<Option<bool>>())
        .prop_map(|(action, kind, path, has_where)| Operation { action, object: Object { kind, path }, has_where });
    (vec(operation, 0..4), vec(text(), 0..3), vec(text(), 0..3), btree_map(text(), text(), 0..3)).prop_map(
        |(operations, unknown, kinds, attributes)| Facts {
            operations,
            unknown: unknown.into_iter().map(|what| Unknown { what }).collect(),
            kinds,
            attributes,
        },
    )
}

fn principal() -> impl Strategy<Value = Principal> {
    let kind = prop::sample::select(vec![PrincipalKind::Service, PrincipalKind::Agent, PrincipalKind::Human]);
    let lists = (vec(text(), 0..3), vec(text(), 0..3), btree_map(text(), text(), 0..3), option::of(any::<i64>()));
    (kind, text(), text(), option::of(text()), option::of(text()), option::of(text()), lists).prop_map(
        |(kind, issuer, subject, tenant, application, credential_id, (aliases, roles, claims, expires))| Principal {
            kind,
            issuer,
            subject,
            tenant,
            application,
            credential_id,
            aliases,
            roles,
            claims,
            expires: expires.map(Timestamp),
        },
    )
}

fn target() -> impl Strategy<Value = Target> {
    (text(), text(), text(), text(), option::of(text()), btree_map(text(), text(), 0..3)).prop_map(
        |(connection, address, database, upstream_user, owner, tags)| Target {
            connection,
            address,
            database,
            upstream_user,
            owner,
            tags,
        },
    )
}

fn session_started() -> impl Strategy<Value = Event> {
    (principal(), target(), text(), text(), text(), text(), option::of(text()), text(), vec(text(), 0..3)).prop_map(
        |(principal, target, source, protocol, label, application, tls, policy_version, policies)| {
            Event::SessionStarted(Box::new(SessionStarted {
                principal,
                target,
                source,
                protocol,
                label,
                application,
                tls,
                policy_version,
                policies,
            }))
        },
    )
}

fn request() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(vec![
        RequestKind::Connect,
        RequestKind::Query,
        RequestKind::Prepare,
        RequestKind::Execute,
        RequestKind::Command,
    ]);
    let verdict = prop::sample::select(vec![RecordedVerdict::Allow, RecordedVerdict::Deny, RecordedVerdict::Hold]);
    let parameter = (option::of(blob()), any::<bool>(), any::<u32>()).prop_map(|(value, binary, type_id)| Parameter {
        value,
        format: if binary { ValueFormat::Binary } else { ValueFormat::Text },
        type_id,
    });
    let rest = (vec(text(), 0..3), text(), option::of(text()));
    (any::<u64>(), kind, blob(), vec(parameter, 0..4), facts(), verdict, rest).prop_map(
        |(request, kind, statement, parameters, facts, verdict, (policies, policy_version, reason))| {
            Event::Request(Box::new(RequestRecord {
                request: RequestId(request),
                kind,
                statement,
                parameters,
                facts: Arc::new(facts),
                verdict,
                policies: policies.into_iter().map(Arc::from).collect(),
                policy_version: policy_version.into(),
                reason,
            }))
        },
    )
}

fn outcome() -> impl Strategy<Value = Event> {
    let status = prop::sample::select(vec![
        OutcomeStatus::Completed,
        OutcomeStatus::Failed,
        OutcomeStatus::Skipped,
        OutcomeStatus::Refused,
        OutcomeStatus::Unknown,
    ]);
    let columns = (any::<u32>(), any::<u32>(), any::<u32>(), vec(text(), 0..3));
    (any::<u64>(), status, option::of(blob()), option::of(blob()), any::<u64>(), any::<u64>(), any::<u64>(), columns).prop_map(
        |(request, status, code, tag, rows, bytes, duration_micros, columns)| {
            let (columns_passed, columns_masked, columns_refused, masked_classes) = columns;
            Event::Outcome(Box::new(Outcome {
                request: RequestId(request),
                status,
                code,
                tag,
                rows,
                bytes,
                duration_micros,
                columns_passed,
                columns_masked,
                columns_refused,
                masked_classes,
            }))
        },
    )
}

fn approval() -> impl Strategy<Value = Event> {
    let step = prop::sample::select(vec![
        ApprovalStep::Requested,
        ApprovalStep::Approved,
        ApprovalStep::Denied,
        ApprovalStep::Expired,
        ApprovalStep::Withdrawn,
    ]);
    (any::<u64>(), step, option::of(text()), option::of(text()), text())
        .prop_map(|(request, step, by, reason, digest)| Event::Approval { request: RequestId(request), step, by, reason, digest })
}

fn destroyed() -> impl Strategy<Value = Event> {
    let texts = (text(), text(), option::of(text()), option::of(text()), vec(text(), 0..4), vec(text(), 0..4));
    (texts, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |((rule, by, reason, connection, kinds, fields), first, next, contents)| {
            Event::Destroyed(Box::new(Destroyed { rule, by, reason, first, next, connection, kinds, fields, contents }))
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (text(), text()).prop_map(|(version, host)| Event::GatewayStarted { version, host }),
        text().prop_map(|reason| Event::GatewayStopped { reason }),
        (text(), text(), option::of(text()), vec(text(), 0..40), option::of(text())).prop_map(
            |(what, digest, previous, difference, author)| Event::Activated { what, digest, previous, difference, author }
        ),
        (text(), text()).prop_map(|(what, error)| Event::ReloadRefused { what, error }),
        (text(), text(), text(), text(), text()).prop_map(|(source, protocol, label, connection, reason)| {
            Event::LoginFailed { source, protocol, label, connection, reason }
        }),
        session_started(),
        (text(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(reason, requests, bytes_in, bytes_out)| {
            Event::SessionEnded { reason, requests, bytes_in, bytes_out }
        }),
        request(),
        outcome(),
        approval(),
        (text(), text(), text(), btree_map(text(), text(), 0..4))
            .prop_map(|(by, action, object, details)| Event::Administration { by, action, object, details }),
        (text(), text()).prop_map(|(by, query)| Event::LogRead { by, query }),
        any::<i64>().prop_map(|micros| Event::ClockJump { micros }),
        Just(Event::Heartbeat),
        (text(), text(), option::of(text()), option::of(text()), text()).prop_map(|(origin, key, previous, endorsement, by)| {
            Event::LogKey(Box::new(LogKey { origin, key, previous, endorsement, by }))
        }),
        destroyed(),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<i64>(), option::of((any::<[u8; 16]>(), any::<u64>())), event()).prop_map(|(time, session, event)| Entry {
        time: Timestamp(time),
        session: session.map(|(id, number)| (SessionId(id), number)),
        event,
    })
}

fn encoded(entry: &Entry, inline_max: usize) -> (Vec<u8>, Vec<Beside>) {
    let (mut leaf, mut beside) = (Vec::new(), Vec::new());
    encode(entry, inline_max, &mut leaf, &mut beside).unwrap();
    (leaf, beside)
}

fn decoded(leaf: &[u8], beside: &[Beside]) -> Result<Decoded, DecodeError> {
    decode(leaf, |of| Ok(beside.iter().find(|kept| kept.field == of.field).map(|kept| kept.payload.clone())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decoding_inverts_encoding(entry in entry(), inline_max in prop::sample::select(vec![0, 7, 256, 1_024, 4_096])) {
        let (leaf, beside) = encoded(&entry, inline_max);
        prop_assert!(leaf.len() <= limits::LEAF_MAX);
        let read = decoded(&leaf, &beside).unwrap();
        prop_assert_eq!(&read.entry, &entry);
        prop_assert!(read.withheld.is_empty());
        let front = header(&leaf).unwrap();
        prop_assert_eq!((front.kind, front.time, front.session), (EventKind::of(&entry.event), entry.time, entry.session));
        let (verdict, outcome) = match &entry.event {
            Event::Request(record) => (Some(record.verdict), None),
            Event::Outcome(outcome) => {
                (None, Some(Counts { status: outcome.status, rows: outcome.rows, bytes: outcome.bytes }))
            }
            _ => (None, None),
        };
        prop_assert_eq!((front.verdict, front.outcome), (verdict, outcome));
        if beside.is_empty() {
            prop_assert_eq!(encoded(&entry, inline_max).0, leaf);
        }
    }

    #[test]
    fn removed_payloads_leave_the_rest(entry in entry(), inline_max in 0usize..64) {
        let (leaf, beside) = encoded(&entry, inline_max);
        let read = decoded(&leaf, &[]).unwrap();
        prop_assert_eq!(read.withheld.len(), beside.len());
        prop_assert_eq!((read.entry.time, read.entry.session), (entry.time, entry.session));
    }

    #[test]
    fn a_leaf_has_no_second_form(entry in entry(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let (mut leaf, _) = encoded(&entry, usize::MAX);
        let (_, beside) = encoded(&entry, usize::MAX);
        if beside.is_empty() {
            let at = at.index(leaf.len());
            leaf[at] ^= flip;
            if let Ok(read) = decoded(&leaf, &[]) {
                prop_assert!(read.withheld.is_empty());
                prop_assert_eq!(encoded(&read.entry, usize::MAX).0, leaf);
            }
        }
    }

    #[test]
    fn cut_or_extended_leaves_are_refused(entry in entry(), cut in any::<prop::sample::Index>(), more in vec(any::<u8>(), 1..20)) {
        let (leaf, beside) = encoded(&entry, 1_024);
        let cut = cut.index(leaf.len());
        if let Ok(read) = decoded(&leaf[..cut], &beside) {
            // Cut between two fields, the rest may be an entry of its own, but never the same.
            prop_assert_ne!(&read.entry, &entry);
        }
        let mut longer = leaf.clone();
        longer.extend_from_slice(&more);
        if let Ok(read) = decoded(&longer, &beside) {
            prop_assert_ne!(&read.entry, &entry);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let mut leaf = vec![1, bytes.first().copied().unwrap_or(0) % 16];
        leaf.extend_from_slice(&bytes);
        drop(decoded(&leaf, &[]));
        let _ = header(&leaf);
        drop(decoded(&bytes, &[]));
    }

    #[test]
    fn a_changed_payload_is_noticed(entry in entry(), at in any::<prop::sample::Index>()) {
        let (leaf, mut beside) = encoded(&entry, 64);
        if let Some(kept) = beside.first_mut() {
            let field = kept.field;
            let at = at.index(kept.payload.len());
            kept.payload[at] ^= 1;
            prop_assert_eq!(decoded(&leaf, &beside).err(), Some(DecodeError::Commitment(field)));
        }
    }
}

/// `FORMAT.md` shows this leaf, byte for byte.
#[test]
fn the_example_of_the_format_description() {
    let session = SessionId([0x01, 0x93, 0x7f, 0x5e, 0x7a, 0x10, 0x7c, 0x3e, 0x8d, 0x2b, 0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f]);
    let outcome = Outcome {
        request: RequestId(300),
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
    let entry =
        Entry { time: Timestamp(1_700_000_000_000_000), session: Some((session, 5)), event: Event::Outcome(Box::new(outcome)) };
    let (leaf, _) = encoded(&entry, 1_024);
    let hex: String = leaf.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "01090900401e18240a0600121001937f5e7a107c3e8d2b0a1b2c3d4e5f180520ac0228013a0853454c45435420314001485850d2015801"
    );
}

#[test]
fn unknown_versions_and_kinds_are_refused() {
    assert_eq!(decoded(&[2, 14], &[]).err(), Some(DecodeError::UnknownVersion(2)));
    assert_eq!(decoded(&[1, 99], &[]).err(), Some(DecodeError::UnknownKind(99)));
    assert_eq!(decoded(&[], &[]).err(), Some(DecodeError::Truncated));
}
