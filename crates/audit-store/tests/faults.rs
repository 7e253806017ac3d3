//! What may happen to a store: kills, full disks, damage.

mod common;

use audit_store::{AuditStore, Damage, Options, SessionFilter, open_read_only};
use common::*;
use proxy_core::record::RecordedVerdict;
use proxy_core::{Entry, Store, StoreError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The other half of the kill tests; see there.
#[test]
fn child_that_appends() {
    child::append_until_killed();
}

fn survives_kills(sync: bool, rounds: u64) {
    let made = tempfile::tempdir().unwrap();
    let dir = made.path().join("audit");
    let mut end = 0;
    let mut accepted_in_all = 0;
    for round in 0..rounds {
        // Spread over opening, first writes, and full load with flushes.
        let life = Duration::from_millis(40 + round * 137 % 560);
        let accepted = child::run_and_kill(&dir, sync, life, |_| ());
        accepted_in_all += accepted.len();
        let said_end = accepted.iter().map(|(first, count)| first + count).max().unwrap_or(end);
        {
            // Before the writer repairs anything, a reader must see the same.
            if dir.join("CURRENT").exists() && !accepted.is_empty() {
                let reader = open_read_only(&dir).unwrap();
                assert!(reader.len().unwrap() >= said_end, "round {round}: a reader beside misses accepted entries");
            }
        }
        let store = AuditStore::open(&dir, options()).unwrap();
        let reader = store.reader();
        let len = reader.len().unwrap();
        assert!(len >= said_end, "round {round}: {said_end} were accepted, {len} are there");
        let verification = reader.verify_sequence(end..u64::MAX, |_| ()).unwrap();
        assert!(verification.holds(), "round {round}: {:?}", verification.findings);
        for (first, count) in &accepted {
            for index in *first..first + count {
                assert!(reader.entry(index).unwrap().is_some());
            }
        }
        end = len;
    }
    assert!(accepted_in_all > 100, "the child hardly wrote: {accepted_in_all} batches");
    let store = AuditStore::open(&dir, options()).unwrap();
    let whole = store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap();
    assert!(whole.holds(), "{:?}", whole.findings);
    // The index tells the same as the log.
    let sessions = store.reader().sessions(&SessionFilter::default(), 10_000).unwrap().items;
    assert_eq!(sessions.iter().map(|session| session.entries).sum::<u64>(), whole.entries);
    assert_eq!(sessions.len() as u64, whole.sessions);
}

#[test]
fn a_kill_loses_nothing_that_was_accepted_under_write() {
    survives_kills(false, 14);
}

#[test]
fn a_kill_loses_nothing_that_was_accepted_under_sync() {
    survives_kills(true, 6);
}

fn free(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[test]
fn refuses_before_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let needed = free(dir.path()) * 2;
    let store = AuditStore::open(dir.path().join("audit"), Options { min_free_bytes: needed, ..options() }).unwrap();
    let result = store.append(&[started(1, "ci", "orders")]);
    assert!(matches!(result, Err(StoreError::DiskFull { free, needed: n }) if free > 0 && n == needed), "{result:?}");
    let health = store.health();
    assert!(!health.accepting && health.reason.unwrap().contains("disk is full"));
    assert_eq!((health.entries, health.refused), (0, 1));
    // What is there can still be read.
    assert_eq!(store.reader().sessions(&SessionFilter::default(), 10).unwrap().items, []);
}

/// A file system of 48 MiB of its own; `None` where that is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: mounting a small file system is not allowed here");
        }
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

fn append_until_refused(store: &AuditStore, session_number: u64, number: &mut u64) -> StoreError {
    // Not compressible, so that files grow as fast as the log.
    let mut noise = vec![0; 900];
    for _ in 0..200_000 {
        aws_lc_rs::rand::fill(&mut noise).unwrap();
        let entry = with_parameter(request(session_number, *number, *number + 1, RecordedVerdict::Allow, "SELECT 1"), &noise);
        match store.append(&[entry]) {
            Ok(_) => *number += 1,
            Err(error) => return error,
        }
    }
    panic!("the disk does not get full");
}

fn wait_until_accepting(store: &AuditStore) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !store.health().accepting {
        assert!(Instant::now() < deadline, "does not recover: {:?}", store.health());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn recovers_when_space_is_back_after_refusing_in_time() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.0.path().join("audit");
    let options = Options { min_free_bytes: 8 << 20, memory: 16 << 20, ..options() };
    let store = AuditStore::open(&dir, options.clone()).unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let mut number = 0;
    let error = append_until_refused(&store, 1, &mut number);
    assert!(matches!(error, StoreError::DiskFull { needed, .. } if needed == 8 << 20), "{error}");
    let accepted = store.health().entries;
    assert_eq!(accepted, number);
    std::fs::remove_file(&ballast).unwrap();
    wait_until_accepting(&store);
    assert_eq!(store.append(&[request(1, number, number + 1, RecordedVerdict::Allow, "SELECT 1")]), Ok(accepted));
    assert!(store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap().holds());
}

/// The guard is off, so that the disk really is full under RocksDB's feet.
#[test]
fn recovers_after_the_disk_was_full_in_the_middle_of_a_write() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.0.path().join("audit");
    let options = Options { min_free_bytes: 0, memory: 16 << 20, ..options() };
    let store = AuditStore::open(&dir, options.clone()).unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 24 << 20]).unwrap();
    let mut number = 0;
    let error = append_until_refused(&store, 1, &mut number);
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    let accepted = store.health().entries;
    assert_eq!(accepted, number);
    // While it is full it goes on refusing.
    assert!(store.append(&[request(1, number, number + 1, RecordedVerdict::Allow, "SELECT 1")]).is_err());
    std::fs::remove_file(&ballast).unwrap();
    wait_until_accepting(&store);
    let len = store.reader().len().unwrap();
    assert!(len >= accepted, "{accepted} were accepted, {len} are there");
    let stored: Vec<Entry> = store.reader().entries(0..len).map(|stored| stored.unwrap().entry).collect();
    let next = stored.last().and_then(|entry| entry.session).map_or(0, |(_, number)| number + 1);
    assert_eq!(next, len, "what a refused append left, if anything, is whole");
    assert_eq!(store.append(&[request(1, next, next + 1, RecordedVerdict::Allow, "SELECT 1")]), Ok(len));
    store.close().unwrap();
    drop(store);
    let store = AuditStore::open(&dir, options).unwrap();
    assert!(store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap().holds());
    assert_eq!(store.reader().len(), Ok(len + 1));
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_a_file_is_reported_and_does_not_panic() {
    let made = tempfile::tempdir().unwrap();
    let dir = made.path().join("audit");
    {
        let store = AuditStore::open(&dir, options()).unwrap();
        for n in 0..20_000 {
            store.append(&[request(1, n, n + 1, RecordedVerdict::Allow, &format!("SELECT {n}, {}", n * 7_919))]).unwrap();
        }
        store.reader().sessions(&SessionFilter::default(), 1).unwrap();
        store.flush().unwrap();
    }
    let largest = files(&dir, "sst").into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    flip(&largest, 10_000);
    let store = AuditStore::open(&dir, options()).unwrap();
    let first_error = store.reader().entries(0..u64::MAX).find_map(Result::err);
    assert!(matches!(first_error, Some(StoreError::Corrupt(_))), "{first_error:?}");
    let verification = store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap();
    assert!(!verification.holds());
    assert!(verification.findings[0].what.contains("damaged"), "{:?}", verification.findings);
    // The end is sound, so the log goes on.
    assert_eq!(store.append(&[request(1, 20_000, 20_001, RecordedVerdict::Allow, "SELECT 1")]), Ok(20_000));
}

/// Repairs the store, which then takes an entry and opens again like any other. Gives where the damaged one was set aside.
fn goes_on_after_repair(dir: &Path, damage: &Damage, number: u64) -> PathBuf {
    let (store, aside) = audit_store::repair(dir, options()).unwrap();
    assert_eq!(store.reader().len(), Ok(damage.kept));
    assert!(store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap().holds());
    assert_eq!(store.append(&[request(1, damage.kept, number, RecordedVerdict::Allow, "SELECT 2")]), Ok(damage.kept));
    store.close().unwrap();
    assert_eq!(audit_store::damage(dir, &options()), Ok(None));
    let store = AuditStore::open(dir, options()).unwrap();
    assert_eq!(store.reader().len(), Ok(damage.kept + 1));
    assert!(store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap().holds());
    aside
}

fn copy(dir: &Path, to: &Path, journal: bool) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        if journal || !file.file_name().to_str().unwrap().starts_with("journal-") {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

/// RocksDB 11.8 reads a record of a recycled log for ever where the log is none. This store has no write-ahead log at all.
#[test]
fn a_write_ahead_log_with_something_in_it_is_refused() {
    let made = tempfile::tempdir().unwrap();
    let dir = made.path().join("audit");
    {
        let store = AuditStore::open(&dir, options()).unwrap();
        for n in 0..60 {
            append_and_move(&store, n);
        }
        assert!(files(&dir, "log").iter().all(|log| log.metadata().unwrap().len() == 0), "nothing is written there");
    }
    let log = files(&dir, "log").pop().unwrap();
    std::fs::write(&log, [1, 2, 3, 4, 1, 0, 5, 9, 9, 9, 9, 9]).unwrap();
    let error = AuditStore::open(&dir, options()).err().unwrap();
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("remove it")), "{error}");
    assert!(matches!(open_read_only(&dir).err().unwrap(), StoreError::Corrupt(_)));
    assert!(matches!(audit_store::damage(&dir, &options()), Err(StoreError::Corrupt(_))));
    std::fs::remove_file(&log).unwrap();
    assert_eq!(AuditStore::open(&dir, options()).unwrap().reader().len(), Ok(60));
}

/// Appends a small entry, which is then in the database's memory.
fn append_and_move(store: &AuditStore, n: u64) {
    store.append(&[request(1, n, n + 1, RecordedVerdict::Allow, "SELECT 1")]).unwrap();
    // Who reads the log sees what was accepted: it is moved before.
    assert!(store.reader().entry(n).unwrap().is_some());
}

/// A half of the journal is used again only when files have all of it.
#[test]
fn what_is_in_no_file_yet_is_in_the_journal() {
    let made = tempfile::tempdir().unwrap();
    let (live, with, without) = (made.path().join("live"), made.path().join("with"), made.path().join("without"));
    let store = AuditStore::open(&live, options()).unwrap();
    for n in 0..60 {
        append_and_move(&store, n);
        if n == 19 {
            store.flush().unwrap();
        }
    }
    copy(&live, &with, true);
    copy(&live, &without, false);
    assert_eq!(open_read_only(&without).unwrap().len(), Ok(20), "what was moved is in memory");
    assert_eq!(audit_store::damage(&with, &options()), Ok(None));
    assert_eq!(open_read_only(&with).unwrap().len(), Ok(60));
    let opened = AuditStore::open(&with, options()).unwrap();
    assert_eq!(opened.reader().len(), Ok(60));
    assert!(opened.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap().holds());
    drop(opened);
    // Many halves of 1 MiB, and one entry that is too long for any of them: all that is not in the journal is in files.
    for n in 60..3_000 {
        let length = if n == 1_500 { 700_000 } else { 2_000 };
        store.append(&[request(1, n, n + 1, RecordedVerdict::Allow, &"x".repeat(length))]).unwrap();
        if n % 500 == 0 {
            let killed = made.path().join(format!("killed-{n}"));
            // As a kill leaves it: nothing is written while it is copied.
            store.flush().unwrap();
            for more in 0..3 {
                assert!(store.append(&[request(2, n + more, n + more + 1, RecordedVerdict::Allow, "SELECT 2")]).is_ok());
            }
            copy(&live, &killed, true);
            assert_eq!(open_read_only(&killed).unwrap().len(), store.reader().len(), "at {n}");
        }
    }
}

/// A store with `entries` entries in its journal alone, as a kill leaves it.
fn in_the_journal(made: &Path, entries: u64) -> PathBuf {
    let (live, dir) = (made.join("live"), made.join("killed"));
    let store = AuditStore::open(&live, options()).unwrap();
    // Taken before there are any, with the journal of after.
    copy(&live, &dir, false);
    for n in 0..entries {
        let text = if n % 10 == 9 { "x".repeat(5_000) } else { format!("SELECT {n}") };
        store.append(&[request(1, n, n + 1, RecordedVerdict::Allow, &text)]).unwrap();
        if n == entries / 2 {
            store.sync().unwrap();
        }
    }
    for half in ["journal-0", "journal-1"] {
        std::fs::copy(live.join(half), dir.join(half)).unwrap();
    }
    dir
}

/// Where the journal's records begin, as its documentation says; and where the last one ends.
fn journal_records(journal: &[u8]) -> Vec<usize> {
    let mut starts = vec![4_096];
    loop {
        let at = starts[starts.len() - 1];
        let length = u32::from_be_bytes(journal[at + 16..at + 20].try_into().unwrap());
        if length == 0 {
            return starts;
        }
        starts.push(at + (44 + usize::try_from(length).unwrap()).next_multiple_of(8));
    }
}

/// The half with the records.
fn written_half(dir: &Path) -> (PathBuf, Vec<u8>, Vec<usize>) {
    for half in ["journal-0", "journal-1"] {
        let (path, bytes) = (dir.join(half), std::fs::read(dir.join(half)).unwrap());
        let starts = journal_records(&bytes);
        if starts.len() > 1 {
            return (path, bytes, starts);
        }
    }
    panic!("no record in the journal");
}

#[test]
fn what_the_journal_alone_has_is_read_and_moved() {
    let made = tempfile::tempdir().unwrap();
    let dir = in_the_journal(made.path(), 100);
    assert_eq!(audit_store::damage(&dir, &options()), Ok(None));
    let beside = open_read_only(&dir).unwrap();
    assert_eq!(beside.len(), Ok(100));
    let stored: Vec<Entry> = beside.entries(0..100).map(|stored| stored.unwrap().entry).collect();
    let newest = beside.latest(None, &audit_store::EntryFilter::default(), 100).unwrap().items;
    assert!(newest.iter().rev().map(|stored| &stored.entry).eq(&stored), "backwards it is the same");
    let session = beside.sessions(&SessionFilter::default(), 10).unwrap().items;
    assert_eq!((session.len(), session[0].entries), (1, 100));
    assert!(beside.verify_sequence(0..u64::MAX, |_| ()).unwrap().holds());
    for _ in 0..2 {
        let store = AuditStore::open(&dir, options()).unwrap();
        let moved: Vec<Entry> = store.reader().entries(0..u64::MAX).map(|stored| stored.unwrap().entry).collect();
        assert_eq!(moved, stored);
        assert!(store.reader().verify_sequence(0..u64::MAX, |_| ()).unwrap().holds());
    }
}

#[test]
fn a_torn_last_record_of_the_journal_is_dropped_alone() {
    for torn in ["head", "body"] {
        let made = tempfile::tempdir().unwrap();
        let dir = in_the_journal(made.path(), 40);
        let (path, mut bytes, starts) = written_half(&dir);
        let last = starts[starts.len() - 2];
        let from = if torn == "head" { last + 20 } else { last + 60 };
        bytes[from..].fill(0);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(open_read_only(&dir).unwrap().len(), Ok(39));
        let store = AuditStore::open(&dir, options()).unwrap();
        assert_eq!(store.reader().len(), Ok(39), "{torn}");
        assert_eq!(store.append(&[request(1, 39, 40, RecordedVerdict::Allow, "SELECT 1")]), Ok(39));
        store.close().unwrap();
        assert_eq!(AuditStore::open(&dir, options()).unwrap().reader().len(), Ok(40), "what followed does not come back");
    }
}

/// A power loss may leave later pages of what was not synced, and not earlier ones: what follows a hole is dropped, unless
/// something says that what is missing was on the disk.
#[test]
fn a_hole_in_the_journal_is_damage_where_it_was_on_the_disk() {
    for (place, synced) in [(5, true), (35, false)] {
        let made = tempfile::tempdir().unwrap();
        let dir = in_the_journal(made.path(), 40);
        let (path, mut bytes, starts) = written_half(&dir);
        bytes[starts[place] + 50] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let kept = place as u64;
        if synced {
            let error = AuditStore::open(&dir, options()).err().unwrap();
            assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("were on the disk and are missing")), "{error}");
            // Looking says what there is, twice the same: it changes nothing.
            let damage = audit_store::damage(&dir, &options()).unwrap().unwrap();
            assert_eq!(audit_store::damage(&dir, &options()), Ok(Some(damage.clone())));
            assert_eq!((damage.kept, damage.dropped), (kept, 39 - kept));
            let aside = goes_on_after_repair(&dir, &damage, 41);
            // What was damaged is still there.
            assert_eq!(std::fs::read(aside.join(path.file_name().unwrap())).unwrap(), bytes);
            assert_eq!(audit_store::damage(&aside, &options()), Ok(Some(damage)));
        } else {
            assert_eq!(audit_store::damage(&dir, &options()), Ok(None));
            let store = AuditStore::open(&dir, options()).unwrap();
            assert_eq!(store.reader().len(), Ok(kept));
            assert_eq!(store.append(&[request(1, kept, kept + 1, RecordedVerdict::Allow, "SELECT 1")]), Ok(kept));
            store.close().unwrap();
            assert_eq!(AuditStore::open(&dir, options()).unwrap().reader().len(), Ok(kept + 1));
        }
    }
}

#[test]
fn a_journal_of_another_log_or_a_damaged_head_is_refused() {
    let made = tempfile::tempdir().unwrap();
    let (dir, other) = (in_the_journal(made.path(), 40), tempfile::tempdir().unwrap());
    let (path, bytes, _) = written_half(&dir);
    let foreign = written_half(&in_the_journal(other.path(), 40)).1;
    let mut damaged = bytes.clone();
    damaged[37] ^= 1;
    for (content, words) in [(foreign, "belongs to another log"), (damaged, "does not begin as a journal does")] {
        std::fs::write(&path, content).unwrap();
        let error = AuditStore::open(&dir, options()).err().unwrap();
        assert!(matches!(&error, StoreError::Corrupt(text) if text.contains(words)), "{error}");
    }
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(AuditStore::open(&dir, options()).unwrap().reader().len(), Ok(40));
}

/// A caller who knows a whole record, of an earlier half of the same log, sends it as a parameter: where the place is
/// searched after damage, it is no record.
#[test]
fn a_record_within_a_statement_is_none() {
    let made = tempfile::tempdir().unwrap();
    let dir = in_the_journal(made.path(), 40);
    let (_, bytes, starts) = written_half(&dir);
    let stolen = &bytes[starts[5]..starts[6]];
    let (live, killed) = (made.path().join("again"), made.path().join("killed-again"));
    copy(&dir, &live, false);
    copy(&dir, &killed, false);
    let store = AuditStore::open(&live, options()).unwrap();
    for n in 0..5 {
        store.append(&[request(1, n, n + 1, RecordedVerdict::Allow, "SELECT 1")]).unwrap();
    }
    // At every alignment.
    let forged: Vec<u8> = (0..8).flat_map(|shift| [&[0; 8][..shift], stolen].concat()).collect();
    store.append(&[with_parameter(request(1, 5, 6, RecordedVerdict::Allow, "SELECT $1"), &forged)]).unwrap();
    for half in ["journal-0", "journal-1"] {
        std::fs::copy(live.join(half), killed.join(half)).unwrap();
    }
    let (path, mut bytes, starts) = written_half(&killed);
    bytes[starts[5] + 50] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(open_read_only(&killed).unwrap().len(), Ok(5));
    assert_eq!(AuditStore::open(&killed, options()).unwrap().reader().len(), Ok(5));
}
