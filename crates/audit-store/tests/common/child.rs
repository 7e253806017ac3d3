//! A store in a process of its own that is killed: what the tests of kills and of power loss share.

use super::{options, outcome, request, started};
use audit_store::{AuditStore, Durability, Options};
use proxy_core::Store;
use proxy_core::record::RecordedVerdict;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const CHILD: &str = "SALLYPORT_TEST_STORE";

/// What the child does, as the test `child_that_appends` of the same binary: it appends until it is killed, and says of
/// every entry that was accepted that it was. Without its variable it does nothing.
pub fn append_until_killed() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let durability = if std::env::var_os("SALLYPORT_TEST_SYNC").is_some() { Durability::Sync } else { Durability::Write };
    let store = AuditStore::open(dir, Options { durability, ..options() }).unwrap();
    let threads: Vec<_> = (0..2).map(|thread| (thread, store.reader().len().unwrap())).collect();
    std::thread::scope(|scope| {
        for (thread, base) in threads {
            let store = &store;
            scope.spawn(move || {
                // Every life of the child has sessions of its own.
                let id = base * 2 + thread + 1;
                announce(store.append(&[started(id, "ci", "orders")]).unwrap(), 1);
                for n in 0.. {
                    // Kept beside the leaf, and too long for the journal as well.
                    let text = match n % 100 {
                        49 => "x".repeat(5_000),
                        99 => "x".repeat(300_000),
                        _ => format!("SELECT {n}"),
                    };
                    let mut batch = vec![request(id, n * 2 + 1, n + 1, RecordedVerdict::Allow, &text)];
                    batch.push(outcome(id, n * 2 + 2, n + 1));
                    announce(store.append(&batch).unwrap(), 2);
                }
            });
        }
    });
}

/// One write(2) for each line: what was said was said before the kill.
fn announce(first: u64, count: u64) {
    let line = format!("accepted {first} {count}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

/// Runs the child for `life`, kills it, and returns the ranges that it said were accepted.
pub fn run_and_kill(dir: &Path, sync: bool, life: Duration, prepare: impl FnOnce(&mut Command)) -> Vec<(u64, u64)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_that_appends", "--nocapture", "--test-threads=1"]).env(CHILD, dir);
    if sync {
        command.env("SALLYPORT_TEST_SYNC", "1");
    }
    prepare(&mut command);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || stdout.lines().map_while(Result::ok).collect::<Vec<_>>());
    std::thread::sleep(life);
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    let mut accepted = Vec::new();
    for line in reader.join().unwrap() {
        // The test harness writes its own words before the first line.
        let Some((_, numbers)) = line.split_once("accepted ") else { continue };
        let mut numbers = numbers.split(' ').map_while(|number| number.parse::<u64>().ok());
        if let (Some(first), Some(count)) = (numbers.next(), numbers.next()) {
            accepted.push((first, count));
        }
    }
    accepted
}
