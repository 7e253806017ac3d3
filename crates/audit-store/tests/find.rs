//! Whatever is asked, the answer is that of reading the whole log: by the gateway, and by a reader beside it.

mod common;

use audit_store::{
    AuditStore, EntryFilter, EventKind, Reader, Selection, SessionFilter, SessionSummary, StoredEntry, open_read_only,
};
use common::*;
use proptest::prelude::*;
use proxy_core::record::RecordedVerdict;
use proxy_core::{Entry, Event, Facts, Object, ObjectKind, Operation, Parameter, SessionId, Store, Timestamp, ValueFormat};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A segment is 32,768 entries, so these are logs of two and a bit.
const ENTRIES: u64 = 70_000;
const HOUR: i64 = 3_600_000_000;
const TABLES: [&str; 5] = ["accounts", "orders", "people", "Secrets", "rare"];
const STATEMENTS: [&str; 5] =
    ["SELECT 1", "select * from ORDERS where id = ", "Delete From people", "ÄNDERN öffentlich", "insert "];

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next(from.len() as u64) as usize]
    }
}

fn at_time(mut entry: Entry, session: Option<(SessionId, u64)>, time: i64) -> Entry {
    entry.time = Timestamp(time);
    entry.session = session;
    entry
}

/// A UUID of version 7.
fn id(random: &mut Random, time: i64) -> SessionId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&(time / 1_000).to_be_bytes()[2..]);
    id[6..].iter_mut().for_each(|byte| *byte = random.next(256) as u8);
    id[6] = id[6] & 0x0f | 0x70;
    SessionId(id)
}

fn random_request(random: &mut Random, rare: bool) -> Entry {
    let verdict = match random.next(400) {
        0 => RecordedVerdict::Deny,
        1 if rare => RecordedVerdict::Hold,
        _ => RecordedVerdict::Allow,
    };
    let mut statement = random.pick(&STATEMENTS).to_owned();
    match random.next(1_000) {
        0 => statement.push_str(&"long ".repeat(300)),
        1 if rare => statement.push_str("needle in a haystack"),
        n if n < 500 => statement.push_str(&random.next(50_000).to_string()),
        _ => {}
    }
    let mut entry = request(0, 0, 1, verdict, &statement);
    let Event::Request(record) = &mut entry.event else { unreachable!() };
    let operation = |random: &mut Random| {
        let table = if rare && random.next(2_000) == 0 { "rare" } else { random.pick(&TABLES[..4]) };
        let object = Object::new(ObjectKind::Table, [["public", "private"][random.next(2) as usize], table]);
        Operation { action: "select".to_owned(), object, has_where: None }
    };
    let operations = (0..random.next(3)).map(|_| operation(random)).collect();
    record.facts = Arc::new(Facts { operations, ..Facts::default() });
    record.policies = vec![Arc::from(["p1", "p2", "p3"][random.next(3) as usize])].into();
    if random.next(10) == 0 {
        let format = if random.next(2) == 0 { ValueFormat::Text } else { ValueFormat::Binary };
        record.parameters.push(Parameter { value: Some(format!("value {}", random.next(9_000)).into()), format, type_id: 25 });
    }
    entry
}

/// A random log, in the order in which it is appended.
fn log(seed: u64) -> Vec<Entry> {
    let mut random = Random(seed);
    let mut time = 1_700_000_000_000_000 + random.next(1_000_000) as i64;
    let mut open: Vec<(SessionId, u64)> = Vec::new();
    let mut entries = Vec::new();
    while entries.len() < ENTRIES as usize {
        // A day in all; and now and then the clock jumps by hours, back as well.
        time += random.next(2_400_000) as i64;
        if random.next(20_000) == 0 {
            time += (random.next(9) as i64 - 4) * HOUR;
        }
        let n = random.next(100);
        if open.is_empty() || n == 0 && open.len() < 40 {
            let id = id(&mut random, time);
            let subject = format!("svc-{}", random.next(12));
            let connection = random.pick(&["orders", "billing", "crm"]);
            entries.push(at_time(started(0, &subject, connection), Some((id, 0)), time + 2_000));
            open.push((id, 1));
            continue;
        }
        if n == 1 {
            let event = Event::LoginFailed {
                source: "10.0.0.1:5".to_owned(),
                protocol: "postgres".to_owned(),
                label: format!("Intruder {}", random.next(50)),
                connection: "crm".to_owned(),
                reason: "no such key".to_owned(),
            };
            entries.push(Entry { time: Timestamp(time), session: None, event });
            continue;
        }
        let at = random.next(open.len() as u64) as usize;
        // Session 0 is a long one.
        let ends = n == 2 && at > 0;
        let rare = entries.len() < 35_000;
        let (id, number) = open[at];
        let entry = match () {
            () if ends => ended(0, 0),
            () if n.is_multiple_of(2) => outcome(0, 0, 1),
            () => random_request(&mut random, rare),
        };
        entries.push(at_time(entry, Some((id, number)), time));
        open[at].1 += 1;
        if ends {
            open.swap_remove(at);
        }
    }
    entries
}

fn lower(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().flat_map(char::to_lowercase).collect()
}

fn has_text(entry: &Entry, wanted: &str) -> bool {
    let texts: Vec<Vec<u8>> = match &entry.event {
        Event::Request(record) => {
            let texts = record.parameters.iter().filter(|parameter| parameter.format == ValueFormat::Text);
            let values = texts.filter_map(|parameter| parameter.value.as_ref()).map(|value| value.to_vec());
            values.chain([record.statement.to_vec()]).collect()
        }
        Event::SessionStarted(started) => {
            [started.principal.id(), started.label.clone(), started.application.clone(), started.source.clone()]
                .map(String::into_bytes)
                .to_vec()
        }
        Event::LoginFailed { source, label, reason, .. } => {
            [source, label, reason].map(|text| text.clone().into_bytes()).to_vec()
        }
        _ => Vec::new(),
    };
    texts.iter().any(|text| lower(text).contains(&lower(wanted.as_bytes())))
}

fn has_object(entry: &Entry, wanted: &str) -> bool {
    let Event::Request(record) = &entry.event else { return false };
    record.facts.operations.iter().any(|operation| {
        let path = &operation.object.path;
        *wanted == path.join(".") || path.iter().any(|part| part == wanted)
    })
}

fn has_policy(entry: &Entry, wanted: &str) -> bool {
    match &entry.event {
        Event::Request(record) => record.policies.iter().any(|id| **id == *wanted),
        Event::SessionStarted(started) => started.policies.iter().any(|id| id == wanted),
        _ => false,
    }
}

fn verdict_of(entry: &Entry) -> Option<RecordedVerdict> {
    match &entry.event {
        Event::Request(record) => Some(record.verdict),
        _ => None,
    }
}

/// The log as a reader without an index has it.
struct Truth {
    entries: Vec<Entry>,
    owners: BTreeMap<SessionId, (String, String)>,
    of_session: BTreeMap<SessionId, Vec<usize>>,
}

impl Truth {
    fn new(entries: Vec<Entry>) -> Self {
        let (mut owners, mut of_session) = (BTreeMap::new(), BTreeMap::<SessionId, Vec<usize>>::new());
        for (at, entry) in entries.iter().enumerate() {
            if let Some((id, _)) = entry.session {
                of_session.entry(id).or_default().push(at);
                if let Event::SessionStarted(started) = &entry.event {
                    owners.insert(id, (started.principal.id(), started.target.connection.clone()));
                }
            }
        }
        Self { entries, owners, of_session }
    }

    fn passes(&self, filter: &EntryFilter, entry: &Entry) -> bool {
        let session = entry.session.map(|(id, _)| id);
        let owner = session.and_then(|id| self.owners.get(&id));
        let connection = match (&entry.event, owner) {
            (Event::LoginFailed { connection, .. }, _) => Some(connection),
            (_, owner) => owner.map(|(_, connection)| connection),
        };
        filter.session.is_none_or(|id| session == Some(id))
            && filter.principal.as_ref().is_none_or(|id| owner.is_some_and(|(principal, _)| principal == id))
            && filter.connection.as_ref().is_none_or(|name| connection == Some(name))
            && filter.verdict.is_none_or(|verdict| verdict_of(entry) == Some(verdict))
            && filter.object.as_ref().is_none_or(|name| has_object(entry, name))
            && filter.policy.as_ref().is_none_or(|id| has_policy(entry, id))
            && filter.text.as_ref().is_none_or(|text| has_text(entry, text))
            && (filter.kinds.is_empty() || filter.kinds.contains(&EventKind::of(&entry.event)))
            && filter.since.is_none_or(|since| entry.time >= since)
            && filter.until.is_none_or(|until| entry.time < until)
    }

    fn found(&self, filter: &EntryFilter) -> Vec<u64> {
        (0..).zip(&self.entries).filter(|(_, entry)| self.passes(filter, entry)).map(|(at, _)| at).collect()
    }

    /// The newest first.
    fn sessions(&self, filter: &SessionFilter) -> Vec<SessionId> {
        let of = |entries: &[usize], passes: &dyn Fn(&Entry) -> bool| entries.iter().any(|at| passes(&self.entries[*at]));
        let passes = |(id, at): &(&SessionId, &Vec<usize>)| {
            let (principal, connection) = &self.owners[*id];
            let (first, last) = (&self.entries[at[0]], &self.entries[*at.last().unwrap()]);
            let ended = of(at, &|entry| matches!(entry.event, Event::SessionEnded { .. }));
            filter.principal.as_ref().is_none_or(|id| id == principal)
                && filter.connection.as_ref().is_none_or(|name| name == connection)
                && filter.verdict.is_none_or(|verdict| of(at, &|entry| verdict_of(entry) == Some(verdict)))
                && filter.object.as_ref().is_none_or(|name| of(at, &|entry| has_object(entry, name)))
                && filter.policy.as_ref().is_none_or(|id| of(at, &|entry| has_policy(entry, id)))
                && filter.text.as_ref().is_none_or(|text| of(at, &|entry| has_text(entry, text)))
                && filter.since.is_none_or(|since| last.time >= since)
                && filter.until.is_none_or(|until| first.time < until)
                && filter.open.is_none_or(|open| open != ended)
        };
        self.of_session.iter().rev().filter(passes).map(|(id, _)| *id).collect()
    }
}

fn random_filter(random: &mut Random, truth: &Truth) -> EntryFilter {
    let mut filter = EntryFilter::default();
    let some = |text: &str| Some(text.to_owned());
    let moment = |random: &mut Random| Some(truth.entries[random.next(truth.entries.len() as u64) as usize].time);
    for _ in 0..=random.next(3) {
        match random.next(9) {
            0 => filter.principal = Some(format!("dev/svc-{}", random.next(14))),
            1 => filter.connection = some(random.pick(&["orders", "billing", "crm", "none"])),
            2 => filter.verdict = Some(random.pick(&[RecordedVerdict::Allow, RecordedVerdict::Deny, RecordedVerdict::Hold])),
            3 => {
                filter.object =
                    some(random.pick(&["public", "orders", "private.people", "Secrets", "secrets", "rare", "public.rare"]))
            }
            4 => filter.policy = some(random.pick(&["p1", "p2", "readers", "p9"])),
            5 => {
                let number = random.next(50_000).to_string();
                let texts = [
                    "ORDERS",
                    "needle",
                    "long LONG",
                    "öffENT",
                    "id = ",
                    "intruder 7",
                    "svc-11",
                    "value 12",
                    "nowhere",
                    "1",
                    "id",
                ];
                filter.text = some(if random.next(3) == 0 { &number } else { random.pick(&texts) });
            }
            6 => filter.kinds = vec![random.pick(&EventKind::ALL), EventKind::LoginFailed],
            7 => filter.since = moment(random),
            _ => filter.until = moment(random),
        }
    }
    if random.next(12) == 0 {
        filter.session = truth.of_session.keys().nth(random.next(truth.of_session.len() as u64) as usize).copied();
    }
    filter
}

fn sessions_of(filter: &EntryFilter, random: &mut Random) -> SessionFilter {
    let EntryFilter { principal, connection, verdict, object, policy, text, since, until, .. } = filter.clone();
    let open = (random.next(6) == 0).then_some(true);
    SessionFilter { principal, connection, verdict, object, policy, text, since, until, open, before: None }
}

/// Everything, a page at a time.
fn all_down(reader: &Reader, filter: &EntryFilter, page: usize) -> Vec<u64> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = reader.latest(before, filter, page).unwrap();
        found.extend(page.items.iter().map(|stored| stored.index));
        before = page.next;
        if before.is_none() {
            found.reverse();
            return found;
        }
    }
}

fn all_up(reader: &Reader, filter: &EntryFilter, page: usize) -> Vec<u64> {
    let (mut found, mut from, end) = (Vec::new(), 0, reader.len().unwrap());
    while from < end {
        let page = reader.tail(from, filter, page).unwrap();
        found.extend(page.items.iter().map(|stored| stored.index));
        let next = page.next.unwrap();
        assert!(next > from || next == end);
        from = next;
    }
    found
}

fn all_sessions(reader: &Reader, filter: &SessionFilter, page: usize) -> Vec<SessionId> {
    let (mut filter, mut found) = (filter.clone(), Vec::new());
    loop {
        let page = reader.sessions(&filter, page).unwrap();
        found.extend(page.items.iter().map(|summary: &SessionSummary| summary.id));
        filter.before = page.next;
        if page.next.is_none() {
            return found;
        }
    }
}

fn filled(dir: &std::path::Path, entries: &[Entry]) -> AuditStore {
    let store = AuditStore::open(dir, options()).unwrap();
    let mut random = Random(7);
    let mut rest = entries;
    while !rest.is_empty() {
        let (turn, after) = rest.split_at(rest.len().min(1 + random.next(20) as usize));
        store.append(turn).unwrap();
        rest = after;
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn every_filter_finds_what_is_there(seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let truth = Truth::new(log(seed));
        let store = filled(&path, &truth.entries);
        let beside = open_read_only(&path).unwrap();
        let readers = [store.reader(), beside];
        let mut random = Random(seed ^ 1);
        for round in 0..40 {
            let filter = random_filter(&mut random, &truth);
            let expected = truth.found(&filter);
            let page = 1 + random.next(40) as usize;
            // A page at a time takes long where there is much.
            let page = page.max(expected.len() / 20);
            for (which, reader) in readers.iter().enumerate() {
                prop_assert_eq!(&all_down(reader, &filter, page), &expected, "{}, {}, down: {:?}", round, which, &filter);
                prop_assert_eq!(&all_up(reader, &filter, page), &expected, "{}, {}, up: {:?}", round, which, &filter);
            }
            let filter = sessions_of(&filter, &mut random);
            let expected = truth.sessions(&filter);
            for (which, reader) in readers.iter().enumerate() {
                let found = all_sessions(reader, &filter, page);
                prop_assert_eq!(&found, &expected, "{}, {}, sessions: {:?}", round, which, &filter);
            }
        }
    }
}

#[test]
fn the_index_is_made_anew_and_what_is_missing_of_it_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let truth = Truth::new(log(5));
    let store = filled(&path, &truth.entries);
    let filter = EntryFilter { text: Some("needle".to_owned()), ..EntryFilter::default() };
    let sessions = SessionFilter { object: Some("rare".to_owned()), ..SessionFilter::default() };
    let answer = |reader: &Reader| (all_down(reader, &filter, 9), all_sessions(reader, &sessions, 9));
    let expected = (truth.found(&filter), truth.sessions(&sessions));
    assert!(!expected.0.is_empty() && !expected.1.is_empty());
    assert_eq!(answer(&store.reader()), expected);
    let mut told = Vec::new();
    store.reindex(|done, all| told.push((done, all))).unwrap();
    assert_eq!(told.last(), Some(&(ENTRIES, ENTRIES)));
    assert_eq!(answer(&store.reader()), expected);
    let standing = store.reader().standing().unwrap();
    assert!(standing.index.current);
    assert_eq!((standing.index.indexed, standing.index.segments), (ENTRIES, ENTRIES / 32_768 * 32_768));
    assert_eq!(standing.kinds.values().sum::<u64>(), ENTRIES);
    let requests = truth.entries.iter().filter(|entry| matches!(entry.event, Event::Request(_))).count() as u64;
    assert_eq!(standing.kinds["request"], requests);
    drop(store);
    // Another version's index, and one that was removed.
    for form in [Some("1"), None] {
        change_index_format(&path, form);
        let store = AuditStore::open(&path, options()).unwrap();
        assert_eq!(answer(&store.reader()), expected, "{form:?}");
        assert!(store.reader().standing().unwrap().index.segments > 0);
    }
}

/// As a store looks that another version has written.
fn change_index_format(path: &std::path::Path, form: Option<&str>) {
    raw(path, |db| match form {
        Some(form) => db.put(b"index-format", form).unwrap(),
        None => db.delete(b"index-format").unwrap(),
    });
}

/// Shows the database of a store that is closed.
fn raw<T>(path: &std::path::Path, work: impl FnOnce(&rocksdb::DB) -> T) -> T {
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), path).unwrap();
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), path, &families).unwrap();
    let done = work(&db);
    for family in &families {
        db.flush_cf(db.cf_handle(family).unwrap()).unwrap();
    }
    drop(db);
    // The store has no such log.
    for file in std::fs::read_dir(path).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "log") {
            std::fs::remove_file(file).unwrap();
        }
    }
    done
}

#[test]
fn long_statements_are_found_beside_and_forgotten_when_they_were_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let store = AuditStore::open(&path, options()).unwrap();
    store.append(&[started(1, "ci", "orders")]).unwrap();
    let long = format!("SELECT '{}', 'At The End'", "x".repeat(9_000));
    for n in 1..40_000u64 {
        let text = if n == 1_234 { long.as_str() } else { "SELECT 1" };
        store.append(&[request(1, n, n, RecordedVerdict::Allow, text)]).unwrap();
    }
    let reader = store.reader();
    let find = |text: &str| -> Vec<StoredEntry> {
        let filter = EntryFilter { text: Some(text.to_owned()), ..EntryFilter::default() };
        let page = reader.latest(None, &filter, 5).unwrap();
        assert_eq!(page.next, None);
        page.items
    };
    let found = find("at the end");
    assert_eq!(found.iter().map(|stored| stored.index).collect::<Vec<_>>(), [1_234]);
    assert_eq!(find("beyond the end"), []);
    // Nothing was removed, so forgetting changes nothing.
    store.forget_texts(&[1_234, 39_999, 1 << 40]).unwrap();
    assert_eq!(find("at the end").len(), 1);
    drop(store);

    // As a redaction removes it: field 7 is the statement.
    let before = raw(&path, |db| {
        let key = [&1_234u64.to_be_bytes()[..], &[7]].concat();
        let payload = db.cf_handle("payload").unwrap();
        assert!(db.get_cf(payload, &key).unwrap().is_some());
        db.delete_cf(payload, &key).unwrap();
        rows_set(db)
    });
    let store = AuditStore::open(&path, options()).unwrap();
    let reader = store.reader();
    let count = |text: &str| {
        let filter = EntryFilter { text: Some(text.to_owned()), ..EntryFilter::default() };
        let page = reader.latest(None, &filter, 50_000).unwrap();
        page.items.len()
    };
    assert_eq!(count("at the end"), 0, "what is not there does not pass");
    store.forget_texts(&[1_234]).unwrap();
    assert_eq!((count("at the end"), count("select 1")), (0, audit_store::limits::PAGE_MAX));
    assert_eq!(reader.entry(1_234).unwrap().unwrap().withheld.len(), 1);
    store.close().unwrap();
    drop(store);
    let after = raw(&path, rows_set);
    assert!(after < before, "its pieces are still in the index: {before} bits before, {after} after");
}

/// What is removed before its segment is whole is not in the segment that is made of it later.
#[test]
fn a_segment_in_the_making_forgets_as_well() {
    let long = format!("SELECT '{}', 'At The End'", "x".repeat(9_000));
    let rows = |with: bool| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let store = AuditStore::open(&path, options()).unwrap();
        store.append(&[started(1, "ci", "orders")]).unwrap();
        for n in 1..33_000u64 {
            let text = if with && n == 1_234 { long.as_str() } else { "SELECT 1" };
            store.append(&[request(1, n, n, RecordedVerdict::Allow, text)]).unwrap();
            if n == 2_000 {
                while store.health().indexed < 2_000 {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                let fields = vec!["statement".to_owned()];
                let selection = Selection { rule: "redaction".to_owned(), range: 1_234..1_235, fields, ..Selection::default() };
                assert_eq!(store.destroy(&selection, Timestamp(5)).unwrap().contents, u64::from(with));
                store.sweep(1_234..1_235).unwrap();
            }
        }
        store.close().unwrap();
        raw(&path, rows_set)
    };
    assert_eq!(rows(true), rows(false));
}

/// Bits that say which blocks may have a piece of text.
fn rows_set(db: &rocksdb::DB) -> u32 {
    let all = db.iterator_cf(db.cf_handle("segments").unwrap(), rocksdb::IteratorMode::Start).map(|row| row.unwrap());
    let rows = all.filter(|(key, _)| key.get(8) == Some(&b'T'));
    rows.map(|(_, rows)| rows.iter().map(|byte| byte.count_ones()).sum::<u32>()).sum()
}
