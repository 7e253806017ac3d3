//! The store as its users see it.

mod common;

use audit_store::{AuditStore, Durability, EntryFilter, EventKind, Options, SessionFilter, open_read_only};
use common::*;
use proxy_core::record::{ApprovalStep, RecordedVerdict};
use proxy_core::{Entry, Event, RequestId, Store, StoreError, Timestamp};
use std::collections::HashSet;
use std::sync::Arc;

fn open(dir: &tempfile::TempDir) -> AuditStore {
    AuditStore::open(dir.path().join("audit"), options()).unwrap()
}

#[test]
fn what_was_appended_is_read_back_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let entries: Vec<Entry> = std::iter::once(started(1, "ci", "orders"))
        .chain((0..200).map(|n| request(1, n + 1, n + 1, RecordedVerdict::Allow, &format!("SELECT {n}"))))
        .collect();
    let id = {
        let store = open(&dir);
        assert_eq!(store.append(&entries[..1]), Ok(0));
        assert_eq!(store.append(&entries[1..]), Ok(1));
        assert_eq!(store.append(&[]), Ok(201));
        let read: Vec<_> = store.reader().entries(0..u64::MAX).map(|stored| stored.unwrap().entry).collect();
        assert_eq!(read, entries);
        assert_eq!(store.reader().entry(201), Ok(None));
        store.log_id()
    };
    let store = open(&dir);
    assert_eq!(store.log_id(), id);
    let reader = store.reader();
    assert_eq!(reader.len(), Ok(201));
    for (index, entry) in (0..).zip(&entries) {
        let stored = reader.entry(index).unwrap().unwrap();
        assert_eq!((stored.index, &stored.entry), (index, entry));
    }
    assert_eq!(store.append(&[ended(1, 201)]), Ok(201));
    store.close().unwrap();
    assert_eq!(store.append(&[ended(1, 202)]), Err(StoreError::Closed));
    assert_eq!(reader.entry(0), Err(StoreError::Closed));
    assert!(!store.health().accepting);
}

#[test]
fn long_fields_go_beside_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let long = "x".repeat(1 << 20);
    let entry = with_parameter(request(1, 0, 1, RecordedVerdict::Allow, &long), &vec![0xff; 3 << 20]);
    let short = request(1, 1, 2, RecordedVerdict::Allow, "SELECT 1");
    assert_eq!(store.append(&[entry.clone(), short.clone()]), Ok(0));
    let reader = store.reader();
    assert!(reader.leaf(0).unwrap().unwrap().len() < 512);
    store.flush().unwrap();
    for (index, entry) in [(0, &entry), (1, &short)] {
        let stored = reader.entry(index).unwrap().unwrap();
        assert_eq!(&stored.entry, entry);
        assert_eq!(stored.withheld, []);
    }
    let beside = open_read_only(dir.path().join("audit")).unwrap();
    assert_eq!(beside.entry(0).unwrap().unwrap().entry, entry);
    assert_eq!(reader.verify_sequence(0..u64::MAX, |_| ()).unwrap().payloads, 2);
}

#[test]
fn one_process_at_a_time_can_write() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(&dir);
    let error = AuditStore::open(dir.path().join("audit"), options()).err().unwrap();
    assert!(matches!(&error, StoreError::Io(text) if text.contains("in use by another gateway")), "{error}");
}

#[test]
fn four_threads_leave_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    for durability in [Durability::Write, Durability::Sync] {
        let dir = dir.path().join(format!("{durability:?}"));
        let per_thread = if durability == Durability::Write { 2_000 } else { 100 };
        let store = Arc::new(AuditStore::open(&dir, Options { durability, ..options() }).unwrap());
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || {
                    let mut indices = vec![store.append(&[started(thread, "ci", "orders")]).unwrap()];
                    for n in 0..per_thread {
                        let pair = [
                            request(thread, n * 2 + 1, n + 1, RecordedVerdict::Allow, "SELECT 1"),
                            outcome(thread, n * 2 + 2, n + 1),
                        ];
                        let first = store.append(&pair).unwrap();
                        indices.extend([first, first + 1]);
                    }
                    indices
                })
            })
            .collect();
        let given: HashSet<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let total = 4 * (per_thread * 2 + 1);
        assert_eq!(given, (0..total).collect::<HashSet<u64>>());
        let verification = store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap();
        assert!(verification.holds(), "{verification:?}");
        assert_eq!((verification.entries, verification.sessions), (total, 4));
        if durability == Durability::Sync {
            assert_eq!(store.health().synced, total);
        }
        for number in 0..4 {
            let summary = store.reader().summary(session(number)).unwrap().unwrap();
            assert_eq!((summary.entries, summary.requests, summary.rows), (per_thread * 2 + 1, per_thread, per_thread));
        }
    }
}

/// Three sessions: 1 by `ci` on `orders`, 2 by `etl` on `orders` with a denial, 3 by `ci` on `billing`, held and open.
fn three_sessions(store: &AuditStore) {
    let approval = |number, step| {
        let event = Event::Approval { request: RequestId(1), step, by: None, reason: None, digest: "d1".to_owned() };
        entry(3, number, event)
    };
    let failed = Event::LoginFailed {
        source: "10.0.0.1:1".to_owned(),
        protocol: "postgres".to_owned(),
        label: "mallory".to_owned(),
        connection: "billing".to_owned(),
        reason: "expired".to_owned(),
    };
    let batches = [
        vec![started(1, "ci", "orders"), started(2, "etl", "orders")],
        vec![request(1, 1, 1, RecordedVerdict::Allow, "SELECT 1"), request(2, 1, 1, RecordedVerdict::Deny, "DELETE FROM t")],
        vec![Entry { time: Timestamp(1_000_050), session: None, event: failed }],
        vec![outcome(1, 2, 1), ended(1, 3), started(3, "ci", "billing")],
        vec![request(3, 1, 1, RecordedVerdict::Hold, "UPDATE t SET a = 1"), approval(2, ApprovalStep::Requested)],
        vec![approval(3, ApprovalStep::Approved), outcome(3, 4, 1)],
    ];
    for batch in batches {
        store.append(&batch).unwrap();
    }
}

#[test]
fn sessions_are_found_by_every_filter() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    three_sessions(&store);
    let secondary = open_read_only(dir.path().join("audit")).unwrap();
    for reader in [store.reader(), secondary] {
        let found = |filter: SessionFilter| -> Vec<_> {
            let page = reader.sessions(&filter, 10).unwrap();
            assert_eq!(page.next, None);
            page.items.into_iter().map(|summary| summary.id).collect()
        };
        let all = SessionFilter::default();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(found(all.clone()), [session(3), session(2), session(1)]);
        assert_eq!(found(SessionFilter { principal: some("dev/ci"), ..all.clone() }), [session(3), session(1)]);
        assert_eq!(found(SessionFilter { connection: some("orders"), ..all.clone() }), [session(2), session(1)]);
        assert_eq!(found(SessionFilter { verdict: Some(RecordedVerdict::Deny), ..all.clone() }), [session(2)]);
        assert_eq!(found(SessionFilter { verdict: Some(RecordedVerdict::Hold), ..all.clone() }), [session(3)]);
        assert_eq!(found(SessionFilter { open: Some(true), ..all.clone() }), [session(3), session(2)]);
        assert_eq!(found(SessionFilter { since: Some(Timestamp(1_000_003)), ..all.clone() }), [session(3), session(1)]);
        assert_eq!(found(SessionFilter { until: Some(Timestamp(1_000_000)), ..all.clone() }), []);
        assert_eq!(found(SessionFilter { principal: some("dev/ci"), connection: some("billing"), ..all.clone() }), [session(3)]);
        assert_eq!(found(SessionFilter { principal: some("dev/c"), ..all.clone() }), []);
        let first = reader.sessions(&all, 2).unwrap();
        assert_eq!(first.next, Some(session(2)));
        assert_eq!(found(SessionFilter { before: first.next, ..all }), [session(1)]);
        assert_eq!(reader.sessions_named("00000000-0000-0000-0000-0000000000", 9).unwrap().len(), 3);
        assert_eq!(reader.sessions_named(&session(2).to_string(), 9).unwrap(), [session(2)]);
        assert_eq!(reader.sessions_named("xyz", 9).unwrap(), []);
    }
}

#[test]
fn a_session_is_shown_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    three_sessions(&store);
    let secondary = open_read_only(dir.path().join("audit")).unwrap();
    for reader in [store.reader(), secondary] {
        let view = reader.session(session(3), 0, 100).unwrap().unwrap();
        assert_eq!((view.summary.held, view.summary.entries, view.summary.ended), (1, 5, None));
        assert!(view.started.is_some() && view.ended.is_none() && view.others.is_empty());
        let [held] = &view.requests[..] else { panic!("one request") };
        assert_eq!(held.approvals.len(), 2);
        assert!(held.outcome.is_some());
        let first = reader.session(session(3), 0, 2).unwrap().unwrap();
        assert_eq!(first.requests.len(), 1);
        let second = reader.session(session(3), first.next.unwrap(), 100).unwrap().unwrap();
        assert_eq!((second.others.len(), second.next), (3, None));
        assert_eq!(reader.session(session(9), 0, 100), Ok(None));
    }
}

#[test]
fn entries_are_filtered_forwards_and_backwards() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    three_sessions(&store);
    let secondary = open_read_only(dir.path().join("audit")).unwrap();
    let all = EntryFilter::default();
    let some = |text: &str| Some(text.to_owned());
    let cases: Vec<(EntryFilter, Vec<u64>)> = vec![
        (all.clone(), (0..12).collect()),
        (EntryFilter { session: Some(session(1)), ..all.clone() }, vec![0, 2, 5, 6]),
        (EntryFilter { principal: some("dev/etl"), ..all.clone() }, vec![1, 3]),
        (EntryFilter { connection: some("billing"), ..all.clone() }, vec![4, 7, 8, 9, 10, 11]),
        (EntryFilter { verdict: Some(RecordedVerdict::Deny), ..all.clone() }, vec![3]),
        (EntryFilter { kinds: vec![EventKind::Outcome, EventKind::LoginFailed], ..all.clone() }, vec![4, 5, 11]),
        (EntryFilter { since: Some(Timestamp(1_000_003)), ..all.clone() }, vec![4, 6, 10, 11]),
        (EntryFilter { until: Some(Timestamp(1_000_001)), ..all.clone() }, vec![0, 1, 7]),
    ];
    for reader in [store.reader(), secondary] {
        for (filter, expected) in &cases {
            let tail = reader.tail(0, filter, 100).unwrap();
            assert_eq!(tail.items.iter().map(|stored| stored.index).collect::<Vec<_>>(), *expected, "{filter:?}");
            assert_eq!(tail.next, Some(12));
            let mut newest: Vec<_> = Vec::new();
            let mut before = None;
            loop {
                let page = reader.latest(before, filter, 2).unwrap();
                newest.extend(page.items.iter().map(|stored| stored.index));
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            newest.reverse();
            assert_eq!(newest, *expected, "{filter:?}");
        }
        let page = reader.tail(0, &all, 5).unwrap();
        assert_eq!((page.items.len(), page.next), (5, Some(5)));
    }
}

#[test]
fn a_reader_beside_the_gateway_sees_what_is_not_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.append(&[started(1, "ci", "orders")]).unwrap();
    let reader = open_read_only(dir.path().join("audit")).unwrap();
    assert_eq!(reader.len(), Ok(1));
    for n in 0..3_000 {
        store.append(&[request(1, n + 1, n + 1, RecordedVerdict::Allow, "SELECT 1")]).unwrap();
        if n % 1_000 == 500 {
            store.flush().unwrap();
        }
        if n % 500 == 0 {
            assert_eq!(reader.len(), Ok(n + 2));
            assert_eq!(reader.summary(session(1)).unwrap().unwrap().entries, n + 2);
        }
    }
    assert_eq!(reader.log_id(), Ok(store.log_id()));
    assert!(reader.verify_sequence(0..u64::MAX, |_| ()).unwrap().holds());
    store.close().unwrap();
    drop(store);
    assert_eq!(reader.entries(0..u64::MAX).count(), 3_001);
}

/// Small memory, so that files are made and deleted all the time under the reader's hands.
#[test]
fn a_reader_beside_a_busy_gateway_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let store = AuditStore::open(&path, Options { memory: 0, ..options() }).unwrap();
    store.append(&[started(1, "ci", "orders")]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..20_000 {
                let text = format!("SELECT {n} {}", "x".repeat(if n % 10 == 0 { 20_000 } else { 800 }));
                store.append(&[request(1, n + 1, n + 1, RecordedVerdict::Allow, &text)]).unwrap();
                if n % 20 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        });
        let reader = open_read_only(&path).unwrap();
        let mut last = 0;
        for round in 0.. {
            let done = writer.is_finished();
            let accepted = store.health().entries;
            let len = reader.len().unwrap();
            assert!(len >= accepted && len >= last, "round {round}: {last}, {accepted}, then {len}");
            assert!(reader.entry(len - 1).unwrap().is_some());
            if round % 20 == 0 {
                let summary = reader.summary(session(1)).unwrap().unwrap();
                assert!(summary.entries >= len);
                assert_eq!(summary.entries, summary.last_index + 1);
            }
            last = len;
            if done {
                break;
            }
        }
        let verification = reader.verify_sequence(0..u64::MAX, |_| ()).unwrap();
        assert!(verification.holds(), "{:?}", verification.findings);
        assert_eq!((verification.entries, verification.withheld), (20_001, 0));
    });
}

#[test]
fn reading_where_there_is_no_store_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nothing");
    assert!(matches!(open_read_only(&path), Err(StoreError::Io(text)) if text.contains("no audit store")));
    assert!(!path.exists());
}

#[test]
fn gaps_in_a_session_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    three_sessions(&store);
    let gap = request(2, 5, 2, RecordedVerdict::Allow, "SELECT 5");
    let again = request(3, 2, 9, RecordedVerdict::Allow, "SELECT 2");
    store.append(&[gap, again]).unwrap();
    let verification = store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap();
    let found: Vec<_> = verification.findings.iter().map(|finding| (finding.index, finding.session)).collect();
    assert_eq!(found, [(12, Some(session(2))), (13, Some(session(3)))]);
    assert!(verification.findings[0].what.contains("2 to 4 are missing"), "{verification:?}");
    // A range that begins in the middle knows nothing of the numbers before it.
    assert!(store.reader().verify_sequence(4..12, |_| ()).unwrap().holds());
}

#[test]
fn the_index_is_caught_up_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(&dir);
        three_sessions(&store);
        std::mem::forget(store.reader());
    }
    let store = open(&dir);
    assert_eq!(store.health().indexed, 12);
    store.append(&[outcome(2, 2, 1), ended(2, 3)]).unwrap();
    let summary = store.reader().summary(session(2)).unwrap().unwrap();
    assert_eq!((summary.entries, summary.end_reason.as_deref()), (4, Some("client_terminated")));
    assert_eq!(store.reader().session(session(2), 0, 100).unwrap().unwrap().summary.denied, 1);
}

#[test]
fn json_shows_text_as_text_and_the_rest_as_base64() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.append(&[with_parameter(request(1, 0, 1, RecordedVerdict::Allow, "SELECT $1"), &[0xff, 0])]).unwrap();
    let json = serde_json::to_value(store.reader().entry(0).unwrap().unwrap()).unwrap();
    assert_eq!(json["event"], "request");
    assert_eq!(json["time"], "1970-01-01T00:00:01Z");
    assert_eq!(json["session"], session(1).to_string());
    assert_eq!(json["statement"], "SELECT $1");
    assert_eq!(json["parameters"][0]["value"]["base64"], "/wA=");
    assert_eq!(json["verdict"], "allow");
    assert_eq!(json["facts"]["operations"][0]["action"], "select");
}
