use super::*;
use crate::samples;
use audit_store::{AuditStore, EventKind, Options};
use aws_lc_rs::digest::digest;
use proxy_core::{Entry, Event, SessionId, Store, Timestamp};

/// A log of `sessions` sessions with three entries each, and a heartbeat after each.
fn store(sessions: u8) -> (tempfile::TempDir, AuditStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = AuditStore::open(folder.path().join("audit"), Options { min_free_bytes: 0, ..Options::default() }).unwrap();
    for session in 0..sessions {
        let entry = |number, event| Entry {
            time: Timestamp(1_700_000_000_000_000 + i64::from(session)),
            session: Some((SessionId([session + 1; 16]), number)),
            event,
        };
        let events = [
            entry(0, Event::SessionStarted(Box::new(samples::started()))),
            entry(1, Event::Request(Box::new(samples::request(b"SELECT 1")))),
            entry(2, Event::Outcome(Box::new(samples::outcome()))),
        ];
        store.append(&events).unwrap();
        store.append(&[Entry { time: Timestamp(1_700_000_000_000_000), session: None, event: Event::Heartbeat }]).unwrap();
    }
    (folder, store)
}

fn run(mut export: Export) -> (Vec<u8>, Totals) {
    let (mut all, mut looked_at) = (Vec::new(), 0);
    while let Some(part) = export.next_part().unwrap() {
        assert!(part.looked_at >= looked_at);
        looked_at = part.looked_at;
        all.extend(part.data);
    }
    (all, export.totals())
}

#[test]
fn an_export_counts_what_it_looked_at_and_what_it_wrote() {
    let (_folder, store) = store(200);
    let export = Export::new(store.reader(), EntryFilter::default(), Format::Jsonl, "0.1.0", "gw1").unwrap();
    assert_eq!(export.entries(), 800);
    // What comes later is not in it.
    store.append(&[Entry { time: Timestamp(0), session: None, event: Event::Heartbeat }]).unwrap();
    let (data, totals) = run(export);
    assert_eq!(data.iter().filter(|byte| **byte == b'\n').count(), 800);
    assert_eq!((totals.entries, totals.rows, totals.first, totals.last), (800, 800, Some(0), Some(799)));
    assert_eq!(totals.bytes, data.len() as u64);
    assert_eq!(totals.sha256, hex(digest(&SHA256, &data).as_ref()));
    assert_eq!(totals.log_id.len(), 32);
}

#[test]
fn a_filter_is_over_the_whole_log_and_outcomes_know_whose_they_are() {
    let (_folder, store) = store(20);
    let filter = EntryFilter { kinds: vec![EventKind::Outcome], ..EntryFilter::default() };
    let (data, totals) = run(Export::new(store.reader(), filter, Format::Jsonl, "0.1.0", "gw1").unwrap());
    assert_eq!((totals.entries, totals.rows, totals.first, totals.last), (80, 20, Some(2), Some(78)));
    for line in String::from_utf8(data).unwrap().lines() {
        assert!(
            line.contains("\"principal\":\"entra/9f2b/ci-bot\"") && line.contains("\"address\":\"db.example.com:5432\""),
            "{line}"
        );
    }
    let session = EntryFilter { session: Some(SessionId([5; 16])), ..EntryFilter::default() };
    let (_, totals) = run(Export::new(store.reader(), session, Format::Csv, "0.1.0", "gw1").unwrap());
    assert_eq!((totals.rows, totals.first, totals.last), (3, Some(16), Some(18)));
}

#[test]
fn nothing_is_exported_as_nothing() {
    let (_folder, store) = store(0);
    let (data, totals) = run(Export::new(store.reader(), EntryFilter::default(), Format::Jsonl, "0.1.0", "gw1").unwrap());
    assert_eq!((data.len(), totals.rows, totals.first, totals.entries), (0, 0, None, 0));
    let manifest = crate::Manifest::new(
        Format::Jsonl,
        crate::Query::default(),
        "local:root".into(),
        [Timestamp(0), Timestamp(1)],
        "0.1.0",
        &totals,
    );
    assert_eq!((manifest.looked_at.first, manifest.looked_at.last, manifest.looked_at.count), (None, None, 0));
}
