//! Power loss, simulated: of a store whose process was killed at a random moment, a copy is made that has only what the
//! disk had confirmed, and of the rest what chance leaves: nothing, a part, zeros, or something else.
//!
//! `power_loss.c` is preloaded into the process and notes every fsync. Every file of a store but the journal's is only ever
//! appended to, or written whole and renamed, so what a disk has confirmed of one is a length. The journal is written in
//! place: of it there is a copy of what was confirmed, and each sector may be as it was then or as it is now.

mod common;

use audit_store::AuditStore;
use common::{child, options};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// The other half of these tests.
#[test]
fn child_that_appends() {
    child::append_until_killed();
}

/// A file, whatever it is called: numbers of inodes are used again.
type File = (u64, String);

fn identity(path: &Path) -> File {
    let metadata = fs::metadata(path).unwrap();
    let birth = metadata.created().unwrap().duration_since(UNIX_EPOCH).unwrap();
    (metadata.ino(), format!("{}.{:09}", birth.as_secs(), birth.subsec_nanos()))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// How much of each file the disk has confirmed.
type Confirmed = HashMap<File, usize>;

/// All that is there now.
fn all(dir: &Path) -> Confirmed {
    files(dir).iter().map(|path| (identity(path), usize::try_from(path.metadata().unwrap().len()).unwrap())).collect()
}

/// What the shim has noted since.
fn confirm(confirmed: &mut Confirmed, noted: &str) {
    for line in noted.lines() {
        let [inode, birth, length] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let known = confirmed.entry((inode.parse().unwrap(), birth.to_owned())).or_default();
        *known = (*known).max(length.parse().unwrap());
    }
}

/// Numbers without a pattern, the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if end == 0 { 0 } else { usize::try_from(self.0 >> 33).unwrap() % end }
    }
}

/// Copies what is on the disk after the power failed. Returns how many bytes were not confirmed.
fn lose_power(from: &Path, to: &Path, confirmed: &Confirmed, noted: &Path, chance: &mut Chance) -> usize {
    fs::create_dir_all(to).unwrap();
    let mut unconfirmed = 0;
    for path in files(from) {
        let (file, name) = (identity(&path), path.file_name().unwrap().to_str().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        if name.starts_with("journal-") {
            let before = fs::read(noted.with_extension(name)).unwrap_or_default();
            if before.is_empty() {
                continue;
            }
            let (all, none) = (chance.below(4) == 0, chance.below(4) == 0);
            for (now, then) in bytes.chunks_mut(512).zip(before.chunks(512)).filter(|(now, then)| now != then) {
                unconfirmed += now.len();
                if !all && (none || chance.below(2) == 0) {
                    now.copy_from_slice(then);
                }
            }
            fs::write(to.join(name), bytes).unwrap();
            continue;
        }
        let kept = confirmed.get(&file).copied();
        // What was never synced need not be in the folder.
        if kept.is_none() && chance.below(2) == 0 {
            continue;
        }
        let kept = kept.unwrap_or(0);
        unconfirmed += bytes.len() - kept;
        let end = kept + chance.below(bytes.len() - kept + 1);
        // Of the manifest, which is synced after each change, the last change is lost. Something else at its end is refused
        // by RocksDB, and no repair is possible here: that store needs its backup.
        let outcomes = if name.starts_with("MANIFEST") { 3 } else { 4 };
        match chance.below(outcomes) {
            0 => bytes.truncate(kept),
            1 => bytes.truncate(end),
            2 => bytes[kept..].fill(0),
            _ => bytes[end..].iter_mut().for_each(|byte| *byte = u8::try_from(chance.below(256)).unwrap()),
        }
        fs::write(to.join(name), bytes).unwrap();
    }
    unconfirmed
}

/// The shim, compiled; a C compiler is needed to build this crate as well.
fn shim(dir: &Path) -> PathBuf {
    let library = dir.join("power_loss.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power_loss.c");
    let done = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(done.unwrap().success(), "the shim does not compile");
    library
}

struct Losses {
    /// Entries that were accepted, and how many of them were gone.
    accepted: u64,
    lost: u64,
    unconfirmed: usize,
}

/// Many lives of one store, each ended by a power loss; a life begins with what the one before left.
fn lives(sync: bool, rounds: u64, seed: u64) -> Losses {
    let made = tempfile::tempdir().unwrap();
    let library = shim(made.path());
    let mut chance = Chance(seed);
    let mut losses = Losses { accepted: 0, lost: 0, unconfirmed: 0 };
    let mut dir = made.path().join("0");
    fs::create_dir(&dir).unwrap();
    for round in 1..=rounds {
        let noted = made.path().join(format!("synced-{round}"));
        fs::write(&noted, "").unwrap();
        for path in files(&dir) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("journal-") {
                fs::copy(&path, noted.with_extension(name)).unwrap();
            }
        }
        let mut confirmed = all(&dir);
        let life = Duration::from_millis(60 + u64::try_from(chance.below(540)).unwrap());
        let accepted = child::run_and_kill(&dir, sync, life, |command| {
            command.env("LD_PRELOAD", &library).env("SALLYPORT_TEST_SYNCED", &noted);
        });
        confirm(&mut confirmed, &fs::read_to_string(&noted).unwrap());
        let after = made.path().join(round.to_string());
        losses.unconfirmed += lose_power(&dir, &after, &confirmed, &noted, &mut chance);
        dir = after;
        losses.accepted += accepted.iter().map(|(_, count)| count).sum::<u64>();
        // Whatever the disk has made of what was not synced, no operator is needed.
        assert_eq!(audit_store::damage(&dir, &options()), Ok(None), "round {round}");
        let store = AuditStore::open(&dir, options()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let reader = store.reader();
        let len = reader.len().unwrap();
        for index in accepted.iter().flat_map(|(first, count)| *first..first + count) {
            if index >= len {
                losses.lost += 1;
            } else {
                assert!(reader.entry(index).unwrap().is_some(), "round {round}: a hole at {index}");
            }
        }
        let verification = reader.verify_sequence(0..u64::MAX, |_| ()).unwrap();
        assert!(verification.holds(), "round {round}: {:?}", verification.findings);
        store.close().unwrap();
    }
    losses
}

#[test]
fn a_power_loss_loses_nothing_that_was_accepted_under_sync() {
    let losses = lives(true, 25, 1);
    assert!(losses.accepted > 500, "the child hardly wrote: {} entries", losses.accepted);
    assert!(losses.unconfirmed > 0, "nothing was ever at risk");
    assert_eq!(losses.lost, 0, "of {} accepted entries", losses.accepted);
    println!("{} accepted, {} bytes at risk", losses.accepted, losses.unconfirmed);
}

/// Also shows that the simulation takes away what was not synced.
#[test]
fn a_power_loss_loses_the_last_moment_alone_under_write() {
    let losses = lives(false, 6, 2);
    assert!(losses.lost > 0, "nothing was lost of {} entries", losses.accepted);
    assert!(losses.lost < losses.accepted, "all of {} entries are lost", losses.accepted);
}
