//! What a witness keeps, and what it refuses to go on from.

use super::{Log, NAME, ORIGIN, open};
use crate::witness::{FolderError, Witness};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn file(dir: &Path) -> PathBuf {
    std::fs::read_dir(dir.join("logs")).unwrap().next().unwrap().unwrap().path()
}

fn again(dir: &Path, log: &Log) -> Result<Witness, FolderError> {
    Witness::open(dir, None, &[log.key()], 7)
}

#[test]
fn a_key_is_made_once_and_is_its_users_alone() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(0, 64));
    assert!(matches!(Witness::key_in(dir.path(), None), Err(FolderError::NoKey(_))));
    assert!(matches!(Witness::key_in(dir.path(), Some("two words")), Err(FolderError::Name(_))));
    let key = Witness::key_in(dir.path(), Some(NAME)).unwrap();
    assert_eq!(key.name(), NAME);
    let running = again(dir.path(), &log).unwrap();
    assert_eq!(running.key(), &key);
    assert_eq!(Witness::key_in(dir.path(), None).unwrap(), key, "it can be asked for while the witness runs");
    assert!(matches!(Witness::key_in(dir.path(), Some("other.example")), Err(FolderError::AnotherName { .. })));
    assert!(matches!(again(dir.path(), &log), Err(FolderError::InUse(_))));
    drop(running);

    let path = dir.path().join("key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(again(dir.path(), &log), Err(FolderError::Permissions { mode: 0o640, .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for damaged in ["", &text[1..], text.trim_end(), &text.replace(NAME, "other.example")] {
        std::fs::write(&path, damaged).unwrap();
        assert!(matches!(again(dir.path(), &log), Err(FolderError::Damaged { .. })), "{damaged:?}");
    }
    std::fs::remove_file(&path).unwrap();
    let gone = Witness::open(dir.path(), Some(NAME), &[log.key()], 7);
    assert!(matches!(gone, Err(FolderError::Damaged { .. })), "a new key would be another witness");
}

#[test]
fn what_was_cosigned_is_known_after_a_restart_and_before_the_answer() {
    let (dir, log, fork) = (tempfile::tempdir().unwrap(), Log::new(0, 64), Log::new(1, 4));
    let witness = open(dir.path(), &log);
    assert_eq!(witness.add_checkpoint(log.request(0, 9).as_bytes(), 7).status, 200);
    // The answer is lost, and so is the process.
    drop(witness);
    let witness = again(dir.path(), &log).unwrap();
    assert_eq!(witness.add_checkpoint(fork.request(0, 9).as_bytes(), 7).body, "9\n");
    assert_eq!(witness.add_checkpoint(fork.request(9, 12).as_bytes(), 7).status, 422);
    assert_eq!(witness.add_checkpoint(log.request(9, 9).as_bytes(), 7).status, 200, "and the log can ask again");
}

#[test]
fn what_is_damaged_or_gone_is_refused_and_left_alone() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(0, 64));
    assert_eq!(open(dir.path(), &log).add_checkpoint(log.request(0, 9).as_bytes(), 7).status, 200);
    let path = file(dir.path());
    let good = std::fs::read(&path).unwrap();
    let refused = |content: &[u8], what: &str| {
        std::fs::write(&path, content).unwrap();
        let refused = again(dir.path(), &log);
        assert!(matches!(&refused, Err(FolderError::Damaged { .. })), "{what}: {refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), content, "{what}: it is not written over");
    };
    let text = good.windows(2).position(|two| two == b"\n\n").unwrap();
    let own = good.len() - 120;
    for at in (0..=text).chain(own..good.len()) {
        let mut changed = good.clone();
        changed[at] ^= 1;
        refused(&changed, &format!("byte {at}"));
    }
    for length in [0, 1, text, text + 2, own, good.len() - 1] {
        refused(&good[..length], &format!("cut to {length}"));
    }
    refused(&[&good[..], b"\n"].concat(), "a line more");
    refused(log.note(3).as_bytes(), "what the log alone has signed");
    refused(&vec![b'x'; 1 << 20], "far too long");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(again(dir.path(), &log), Err(FolderError::Damaged { .. })), "a file that is gone is not a new log");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(again(dir.path(), &log).unwrap().add_checkpoint(log.request(9, 10).as_bytes(), 7).status, 200);
}

#[test]
fn each_log_has_its_own_memory() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(0, 64));
    let other = tlog::Signer::from_seed("other.example", tlog::KeyKind::Log, &[2; 32]).unwrap();
    drop(open(dir.path(), &log));
    let keys = [log.key(), other.verifier().clone()];
    let witness = Witness::open(dir.path(), None, &keys, 7).unwrap();
    assert_eq!(witness.add_checkpoint(log.request(0, 9).as_bytes(), 7).status, 200);
    let page = witness.page();
    assert!(page.contains(&format!("{ORIGIN}\n9\n")) && page.contains("other.example\n0\n"), "{page}");
    assert!(page.contains(&witness.key().to_string()) && page.contains(&log.key().to_string()), "{page}");
    drop(witness);
    // One log's file in the place of the other's.
    let mut files: Vec<_> = std::fs::read_dir(dir.path().join("logs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    std::fs::copy(&files[0], &files[1]).unwrap();
    assert!(matches!(Witness::open(dir.path(), None, &keys, 7), Err(FolderError::Damaged { why: "it is of another log", .. })));
    let witness = tlog::Signer::from_seed("w", tlog::KeyKind::Witness, &[3; 32]).unwrap();
    let wrong = Witness::open(&dir.path().join("new"), Some("w"), &[witness.verifier().clone()], 7);
    assert!(matches!(wrong, Err(FolderError::NotALog(_))));
}

#[test]
fn what_cannot_be_written_is_not_cosigned() {
    let (dir, log, fork) = (tempfile::tempdir().unwrap(), Log::new(0, 64), Log::new(1, 4));
    let witness = open(dir.path(), &log);
    let (logs, away) = (dir.path().join("logs"), dir.path().join("away"));
    std::fs::rename(&logs, &away).unwrap();
    let answer = witness.add_checkpoint(log.request(0, 9).as_bytes(), 7);
    assert!(answer.status == 500 && !answer.body.contains('—'), "{answer:?}");
    assert!(!witness.is_healthy());
    std::fs::rename(&away, &logs).unwrap();
    // Nobody has a cosignature of the other history.
    assert_eq!(witness.add_checkpoint(fork.request(0, 9).as_bytes(), 7).status, 200);
    assert!(witness.is_healthy());
}
