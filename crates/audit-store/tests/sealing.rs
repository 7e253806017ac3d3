//! Payloads that are sealed: nothing of them on the disk, and every use of the log goes on with the keys, as far as it can
//! without them.

mod common;

use audit_store::{
    AuditStore, EntryFilter, Expected, Export, Folder, KEY_LENGTH, Notary, Opening, Options, PayloadKeys, Reader, Selection,
    SessionFilter, Verification, open_read_only, open_read_only_with, verify_published,
};
use common::*;
use proxy_core::record::RecordedVerdict;
use proxy_core::{Entry, Event, SecretBytes, Store, Timestamp};
use rocksdb::{DB, IteratorMode};
use std::path::Path;
use std::sync::Arc;

const MARKER: &str = "xyzzy-marker-of-a-secret";

fn key(byte: u8) -> SecretBytes {
    SecretBytes::new(vec![byte; KEY_LENGTH])
}

fn keys(bytes: &[u8]) -> Option<PayloadKeys> {
    let keys: Vec<_> = bytes.iter().map(|byte| key(*byte)).collect();
    PayloadKeys::new(&keys).unwrap()
}

fn sealing(bytes: &[u8]) -> Options {
    Options { payload_keys: keys(bytes), ..options() }
}

/// A statement that is kept beside, with the marker in its middle.
fn long(n: u64) -> String {
    let noise = |from: u64| (from..from + 300).map(|at| format!("{:x} ", at.wrapping_mul(n + 7))).collect::<String>();
    format!("SELECT '{}{MARKER}-{n}{}'", noise(1_000), noise(2_000))
}

fn said(n: u64) -> Entry {
    request(1, n, n, RecordedVerdict::Allow, &long(n))
}

/// Whether any file under `dir` has `text`, in either case.
fn on_disk(dir: &Path, text: &[u8]) -> Option<std::path::PathBuf> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if file.is_dir() {
                folders.push(file);
            } else if std::fs::read(&file).unwrap_or_default().windows(text.len()).any(|window| window == text) {
                return Some(file);
            }
        }
    }
    None
}

fn by_text(reader: &Reader, text: &str) -> Vec<u64> {
    let filter = EntryFilter { text: Some(text.to_owned()), ..EntryFilter::default() };
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = reader.latest(before, &filter, 100).unwrap();
        found.extend(page.items.iter().map(|stored| stored.index));
        before = page.next;
        if before.is_none() {
            return found;
        }
    }
}

fn verified(reader: &Reader) -> Verification {
    reader.verify(&Expected::default(), |_| ()).unwrap()
}

type Row = (Box<[u8]>, Box<[u8]>);

/// Keys of the index by texts, with their values.
fn text_rows(dir: &Path) -> Vec<Row> {
    let options = rocksdb::Options::default();
    let families = DB::list_cf(&options, dir).unwrap();
    let db = DB::open_cf_for_read_only(&options, dir, families, false).unwrap();
    let all = db.iterator_cf(db.cf_handle("segments").unwrap(), IteratorMode::Start).map(|item| item.unwrap());
    all.filter(|(key, _)| key.get(8) == Some(&b'T')).collect()
}

#[test]
fn nothing_of_a_payload_gets_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let entries: Vec<Entry> = std::iter::once(started(1, "ci", "orders")).chain((1..40).map(said)).collect();
    let nowhere = |when: &str| assert_eq!(on_disk(dir.path(), MARKER.as_bytes()), None, "{when}");
    {
        let store = AuditStore::open(&path, sealing(&[1])).unwrap();
        store.append(&entries).unwrap();
        nowhere("in the journal");
        store.sync().unwrap();
        store.flush().unwrap();
        nowhere("in the database");
        // A parameter that is too long for the journal goes to the database at once.
        let huge = MARKER.repeat(200_000).into_bytes();
        store.append(&[with_parameter(request(1, 40, 40, RecordedVerdict::Allow, "SELECT $1"), &huge)]).unwrap();
        nowhere("past the journal");
        store.sweep(0..41).unwrap();
        nowhere("after a compaction");
        assert_eq!(store.reader().entry(7).unwrap().unwrap().entry, entries[7]);
    }
    nowhere("after it was closed");
    let store = AuditStore::open(&path, sealing(&[1])).unwrap();
    assert_eq!(store.reader().entry(39).unwrap().unwrap().entry, entries[39]);
    drop(store);
    // The test itself finds what is there.
    assert!(on_disk(dir.path(), b"pgbench_accounts").is_some() || on_disk(dir.path(), b"journal").is_some());
    let plain = AuditStore::open(dir.path().join("plain"), options()).unwrap();
    plain.append(&entries).unwrap();
    assert!(on_disk(dir.path(), MARKER.as_bytes()).is_some());
}

#[test]
fn a_whole_segment_is_searched_and_its_index_knows_nothing_of_what_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, statement: &dyn Fn(u64) -> String| {
        let store = AuditStore::open(dir.path().join(name), sealing(&[1])).unwrap();
        store.append(&[started(1, "ci", "orders")]).unwrap();
        for from in (1..33_000).step_by(500) {
            let entries: Vec<Entry> = (from..from + 500)
                .map(|n| {
                    let text = if n % 4_000 == 17 { statement(n) } else { format!("SELECT {}", n % 10) };
                    request(1, n, n, RecordedVerdict::Allow, &text)
                })
                .collect();
            store.append(&entries).unwrap();
        }
        let sealed: Vec<u64> = (1..33_000).filter(|n| n % 4_000 == 17).rev().collect();
        (store, sealed)
    };
    let (store, sealed) = make("a", &long);
    let reader = store.reader();
    assert_eq!(by_text(&reader, MARKER), sealed);
    assert_eq!(by_text(&reader, &MARKER.to_uppercase()), sealed);
    assert_eq!(by_text(&reader, &format!("{MARKER}-8017")), [8_017]);
    assert!(by_text(&reader, "nobody said this").is_empty());
    let sessions = SessionFilter { text: Some(MARKER.to_owned()), ..SessionFilter::default() };
    assert_eq!(reader.sessions(&sessions, 10).unwrap().items.len(), 1);
    drop(reader);
    store.reindex(|_, _| ()).unwrap();
    assert_eq!(by_text(&store.reader(), MARKER), sealed, "made anew");
    store.close().unwrap();
    let without = open_read_only(dir.path().join("a")).unwrap();
    assert!(by_text(&without, MARKER).is_empty());
    assert!(!by_text(&without, "SELECT 7").is_empty());
    let (other, _) = make("b", &|n| "z".repeat(2_000 + usize::try_from(n).unwrap()));
    other.reader().sessions(&SessionFilter::default(), 1).unwrap();
    other.close().unwrap();
    let rows = text_rows(&dir.path().join("a"));
    assert!(!rows.is_empty());
    assert_eq!(rows, text_rows(&dir.path().join("b")), "the index by texts differs with what was sealed");
}

#[test]
fn without_the_key_a_log_can_be_read_but_for_what_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = AuditStore::open(dir.path(), sealing(&[1])).unwrap();
        store.append(&[started(1, "ci", "orders"), said(1), outcome(1, 2, 1), ended(1, 3)]).unwrap();
        assert_eq!((verified(&store.reader()).payloads, verified(&store.reader()).sealed), (1, 0));
    }
    let with = open_read_only_with(dir.path(), keys(&[1])).unwrap();
    let Event::Request(record) = with.entry(1).unwrap().unwrap().entry.event else { panic!() };
    assert_eq!(record.statement, long(1).as_bytes());
    for reader in [open_read_only(dir.path()).unwrap(), open_read_only_with(dir.path(), keys(&[2])).unwrap()] {
        let stored = reader.entry(1).unwrap().unwrap();
        assert_eq!((stored.withheld.len(), stored.withheld[0].field, stored.withheld[0].sealed), (1, "statement", true));
        assert!(serde_json::to_string(&stored).unwrap().contains("\"sealed\":true"));
        assert_eq!(reader.session(session(1), 0, 100).unwrap().unwrap().requests.len(), 1);
        assert!(reader.prove(1, 4, "").unwrap_err().to_string().contains("its key"));
    }
    let without = verified(&open_read_only(dir.path()).unwrap());
    assert!(without.holds());
    assert_eq!((without.payloads, without.sealed, without.withheld), (0, 1, 0));
    // Whoever has keys has all of them: what none of them opens is not the log's.
    let wrong = verified(&open_read_only_with(dir.path(), keys(&[2])).unwrap());
    assert_eq!((wrong.finding_count, wrong.sealed), (1, 1));
}

#[test]
fn keys_change_while_it_runs_and_plain_payloads_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = AuditStore::open(dir.path(), options()).unwrap();
        store.append(&[started(1, "ci", "orders"), said(1)]).unwrap();
    }
    let ring = keys(&[1]).unwrap();
    let store = AuditStore::open(dir.path(), Options { payload_keys: Some(ring.clone()), ..options() }).unwrap();
    store.append(&[said(2)]).unwrap();
    ring.add(&key(2)).unwrap();
    store.append(&[said(3)]).unwrap();
    for n in 1..4 {
        assert_eq!(store.reader().entry(n).unwrap().unwrap().entry, said(n));
    }
    let newest = ring.ids().last().copied();
    assert_eq!(store.reader().last_payload_key().unwrap(), newest);
    store.close().unwrap();
    let second = open_read_only_with(dir.path(), keys(&[2])).unwrap();
    let sealed: Vec<bool> = second.entries(1..4).map(|stored| stored.unwrap().withheld.iter().any(|of| of.sealed)).collect();
    assert_eq!(sealed, [false, true, false]);
    assert_eq!(verified(&open_read_only_with(dir.path(), keys(&[1, 2])).unwrap()).payloads, 3);
}

/// A signed and published log in `dir`.
fn published(dir: &Path) {
    let store = Arc::new(AuditStore::open(dir.join("audit"), sealing(&[1])).unwrap());
    let opening = Opening { folder: dir, sealing: None, by: "test", now: Timestamp(1), moved: false };
    let notary = Notary::open(Arc::clone(&store), opening).unwrap();
    store.append(&[started(1, "ci", "orders"), said(1), said(2), said(3)]).unwrap();
    let head = notary.sign().unwrap().unwrap();
    Export::open(&dir.join("export")).unwrap().publish(&store.reader(), head.size, &head.note).unwrap();
    store.close().unwrap();
}

fn verify_folder(dir: &Path, payload_keys: Option<PayloadKeys>) -> Verification {
    let expected = Expected { payload_keys, ..Expected::default() };
    verify_published(&Folder::new(dir.join("export")), &expected, |_, _| ()).unwrap()
}

/// The payload file: its records' places, from the place byte on.
fn records(file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let length = u32::from_be_bytes(file[at + 2..at + 6].try_into().unwrap()) as usize;
        found.push(at..at + 6 + length);
        at += 6 + length;
    }
    found
}

#[test]
fn a_published_log_carries_ciphertext_and_whatever_is_done_to_it_is_found_with_the_key() {
    let dir = tempfile::tempdir().unwrap();
    published(dir.path());
    assert_eq!(on_disk(dir.path(), MARKER.as_bytes()), None);
    let (with, without) = (verify_folder(dir.path(), keys(&[1])), verify_folder(dir.path(), None));
    assert!(with.holds() && without.holds());
    assert_eq!((with.payloads, with.sealed, without.payloads, without.sealed), (3, 0, 0, 3));
    let file = std::fs::read_dir(dir.path().join("export/payload")).unwrap().next().unwrap().unwrap().path();
    let file = if file.is_dir() { std::fs::read_dir(file).unwrap().next().unwrap().unwrap().path() } else { file };
    let whole = std::fs::read(&file).unwrap();
    let places = records(&whole);
    assert!(places.iter().all(|place| whole[place.start + 1] == 7 | 0x80), "the field's bit says that it is sealed");
    let [a, b] = [&places[0], &places[1]];
    let swapped = [
        &whole[..a.start + 2],
        &whole[b.start + 2..b.end],
        &whole[b.start..b.start + 2],
        &whole[a.start + 2..a.end],
        &whole[b.end..],
    ];
    let flip = |at: usize| {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        changed
    };
    let mut said_plain = whole.clone();
    said_plain[a.start + 1] = 7;
    // What it is, whether it is found without the key as well, and what is said.
    for (name, content, without, words) in [
        ("swapped", swapped.concat(), false, "not what the entry commits to"),
        ("a bit of the ciphertext", flip(a.end - 20), false, "not what the entry commits to"),
        ("another key's id", flip(a.start + 8), false, "none of the log's"),
        ("another form", flip(a.start + 6), true, "no form that is known"),
        ("taken out", whole[b.start..].to_vec(), true, "no entry says that it was destroyed"),
        ("said to be plain", said_plain, true, "not what the entry commits to"),
    ] {
        std::fs::write(&file, content).unwrap();
        let with = verify_folder(dir.path(), keys(&[1]));
        assert!(with.findings.iter().any(|finding| finding.what.contains(words)), "{name}: {:?}", with.findings);
        assert_eq!(verify_folder(dir.path(), None).holds(), !without, "{name}");
    }
}

#[test]
fn a_sealed_payload_that_was_altered_in_the_store_is_found_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    published(dir.path());
    let path = dir.path().join("audit");
    {
        let options = rocksdb::Options::default();
        let families = DB::list_cf(&options, &path).unwrap();
        let db = DB::open_cf(&options, &path, families).unwrap();
        let payload = db.cf_handle("payload").unwrap();
        let (at, mut value) = db.iterator_cf(payload, IteratorMode::Start).next().unwrap().unwrap();
        assert_eq!(at[8], 7 | 0x80);
        value[40] ^= 1;
        db.put_cf_opt(payload, at, value, &{
            let mut options = rocksdb::WriteOptions::default();
            options.disable_wal(true);
            options
        })
        .unwrap();
        db.flush_cf(payload).unwrap();
    }
    let store = AuditStore::open(&path, sealing(&[1]));
    // It is among the last entries, which must be whole.
    assert!(store.is_err_and(|error| error.to_string().contains("not what the entry commits to")));
    let found = verified(&open_read_only_with(&path, keys(&[1])).unwrap());
    assert!(found.findings.iter().any(|finding| finding.what.contains("not what the entry commits to")), "{found:?}");
}

#[test]
fn a_sealed_payload_is_redacted_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    published(dir.path());
    let store = AuditStore::open(dir.path().join("audit"), sealing(&[1])).unwrap();
    let end = store.reader().len().unwrap();
    let statement = (0..end).find(|index| store.reader().entry(*index).unwrap().unwrap().entry == said(2)).unwrap();
    let selection = Selection {
        range: statement..statement + 1,
        rule: "redaction".to_owned(),
        by: "dpo".to_owned(),
        reason: Some("art. 17".to_owned()),
        fields: vec!["statement".to_owned()],
        ..Selection::default()
    };
    assert_eq!(store.destroy(&selection, Timestamp(9)).unwrap().contents, 1);
    store.sweep(statement..statement + 1).unwrap();
    assert!(by_text(&store.reader(), &format!("{MARKER}-2")).is_empty());
    assert_eq!(by_text(&store.reader(), MARKER).len(), 2);
    let stored = store.reader().entry(statement).unwrap().unwrap();
    assert_eq!((stored.withheld.len(), stored.withheld[0].sealed), (1, false), "it is gone, not sealed");
    for verification in [verified(&store.reader()), verified(&open_read_only(dir.path().join("audit")).unwrap())] {
        assert!(verification.holds(), "{:?}", verification.findings);
        assert_eq!((verification.withheld, verification.payloads + verification.sealed), (1, 2));
    }
}
