//! How a large log behaves: `cargo run --release -p audit-store --example scale [ENTRIES] [DIR]`.
//!
//! Writes so many entries (10 million) in 10,000 sessions, dies without closing, and prints how long opening
//! takes after that, first pages, a session's story, and verification, with the memory they took.

#[path = "../tests/common/mod.rs"]
mod common;

use audit_store::{AuditStore, EntryFilter, Options, SessionFilter, open_read_only};
use proxy_core::record::RecordedVerdict;
use proxy_core::{Entry, Store};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const SESSIONS: u64 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, entries, dir] = &arguments[..]
        && mode == "fill"
    {
        return fill(Path::new(dir), entries.parse()?);
    }
    let entries = arguments.get(1).map_or(Ok(10_000_000), |n| n.parse::<u64>())?;
    let made = tempfile::tempdir()?;
    let dir = arguments.get(2).map_or_else(|| made.path().join("audit"), PathBuf::from);
    let began = Instant::now();
    Command::new(std::env::current_exe()?).arg("fill").arg(entries.to_string()).arg(&dir).status()?;
    println!("filled with {entries} entries in {:.1} s", began.elapsed().as_secs_f64());

    let store = timed("open after a kill", || AuditStore::open(&dir, Options::default()))?;
    let reader = store.reader();
    println!("  {:?}", store.health());
    timed("first page of sessions", || reader.sessions(&SessionFilter::default(), 50))?;
    let one = |subject: &str| SessionFilter { principal: Some(format!("dev/{subject}")), ..SessionFilter::default() };
    timed("sessions of a principal", || reader.sessions(&one("svc-7"), 50))?;
    timed("sessions of nobody", || reader.sessions(&one("nobody"), 50))?;
    let denied = SessionFilter { verdict: Some(RecordedVerdict::Deny), ..SessionFilter::default() };
    timed("sessions with a denial", || reader.sessions(&denied, 50))?;
    timed("last entries", || reader.latest(None, &EntryFilter::default(), 50))?;
    timed("one entry", || reader.entry(entries / 3))?;
    timed("a session's story", || reader.session(common::session(SESSIONS / 2), 0, 1_000))?;
    let beside = timed("open beside the gateway", || open_read_only(&dir))?;
    timed("first page beside it", || beside.sessions(&SessionFilter::default(), 50))?;
    let verification = timed("verify the sequence", || reader.verify_sequence(0..u64::MAX, |_| ()))?;
    println!("  {} entries, {} sessions, {} findings", verification.entries, verification.sessions, verification.finding_count);
    for line in std::fs::read_to_string("/proc/self/status")?.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("most memory: {line}");
    }
    Ok(())
}

fn timed<T, E: Error + 'static>(what: &str, run: impl FnOnce() -> Result<T, E>) -> Result<T, Box<dyn Error>> {
    let began = Instant::now();
    let result = run()?;
    println!("{what:>26}: {:9.2} ms", began.elapsed().as_secs_f64() * 1e3);
    Ok(result)
}

fn fill(dir: &Path, entries: u64) -> Result<(), Box<dyn Error>> {
    let store = AuditStore::open(dir, Options::default())?;
    let each = entries / SESSIONS;
    for session in 0..SESSIONS {
        store.append(&[common::started(session, &format!("svc-{}", session % 100), "orders")])?;
        let mut number = 1;
        while number + 4 <= each {
            let turn: Vec<Entry> = (number..number + 4).map(|n| entry(session, n)).collect();
            store.append(&turn)?;
            number += 4;
        }
    }
    // No closing: as a kill would leave it.
    std::process::abort()
}

fn entry(session: u64, number: u64) -> Entry {
    let request = number / 2 + 1;
    if number.is_multiple_of(2) {
        return common::outcome(session, number, request);
    }
    let verdict = if session.is_multiple_of(1_000) && number == 1 { RecordedVerdict::Deny } else { RecordedVerdict::Allow };
    let statement = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {};", (session + number) * 7_919 % 100_000);
    common::request(session, number, request, verdict, &statement)
}
