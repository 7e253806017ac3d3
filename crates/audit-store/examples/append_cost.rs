//! What an append costs: `cargo run --release -p audit-store --example append_cost [DIR]`.
//!
//! Prints CPU of the calling thread and of the whole process for each entry, for batches of 1, 4 and 8 under
//! `write` durability, and entries for each fsync under `sync` with 1, 8 and 64 threads.

#[path = "../tests/common/mod.rs"]
mod common;

use audit_store::{AuditStore, Durability, Options};
use proxy_core::record::RecordedVerdict;
use proxy_core::{Entry, Store};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Entries of one measurement.
const ENTRIES: u64 = 400_000;

fn main() -> Result<(), Box<dyn Error>> {
    let made = tempfile::tempdir()?;
    let dir = std::env::args_os().nth(1).map_or_else(|| made.path().to_owned(), PathBuf::from);
    println!(
        "{:>10} {:>8} {:>10} {:>12} {:>12} {:>10} {:>10}",
        "", "leaf B", "µs wall", "µs thread", "µs process", "disk B", "mem MiB"
    );
    for (name, text) in [("pgbench", ""), ("long", LONG)] {
        for size in [1, 2, 4, 8] {
            write(&dir.join(format!("{name}-{size}")), name, size, text)?;
        }
    }
    println!();
    println!("{:>10} {:>12} {:>14} {:>16}", "sync", "entries/s", "µs process", "entries/fsync");
    for threads in [1, 8, 64] {
        sync(&dir.join(format!("sync-{threads}")), threads)?;
    }
    Ok(())
}

/// Makes the average of leaves about 300 bytes.
const LONG: &str = " /* Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et \
    dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo \
    consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur. */";

/// A pgbench statement and its outcome, in turns.
fn turn(number: u64, size: usize, text: &str) -> Vec<Entry> {
    let at = |n: u64| {
        let (request, session) = ((number + n) / 2 + 1, (number + n) / 50_000);
        if (number + n).is_multiple_of(2) {
            let statement =
                format!("SELECT abalance FROM pgbench_accounts WHERE aid = {};{text}", (number + n) * 7_919 % 100_000);
            common::request(session, number + n, request, RecordedVerdict::Allow, &statement)
        } else {
            common::outcome(session, number + n, request)
        }
    };
    (0..size as u64).map(at).collect()
}

fn write(dir: &Path, name: &str, size: usize, text: &str) -> Result<(), Box<dyn Error>> {
    let store = AuditStore::open(dir, Options::default())?;
    let turns: Vec<_> = (0..ENTRIES / size as u64).map(|n| turn(n * size as u64, size, text)).collect();
    let (began, process, thread) = (Instant::now(), cpu("/proc/self/stat")?, cpu("/proc/thread-self/stat")?);
    for turn in &turns {
        store.append(turn)?;
    }
    let (wall, thread) = (began.elapsed(), cpu("/proc/thread-self/stat")? - thread);
    // The index and the compression belong to the cost.
    store.reader().sessions(&audit_store::SessionFilter::default(), 1)?;
    store.flush()?;
    let process = cpu("/proc/self/stat")? - process;
    let mut leaves = 0;
    store.reader().leaves(0..1_000, |_, leaf| {
        leaves += leaf.len();
        Ok(())
    })?;
    let memory = store.health().memory_bytes >> 20;
    store.close()?;
    drop(store);
    let each = |seconds: f64| seconds * 1e6 / ENTRIES as f64;
    println!(
        "{:>10} {:>8} {:>10.2} {:>12.2} {:>12.2} {:>10.1} {:>10}",
        format!("{name} {size}"),
        leaves / 1_000,
        each(wall.as_secs_f64()),
        each(thread),
        each(process),
        disk(dir)? as f64 / ENTRIES as f64,
        memory
    );
    Ok(())
}

fn sync(dir: &Path, threads: u64) -> Result<(), Box<dyn Error>> {
    let options = Options { durability: Durability::Sync, ..Options::default() };
    let store = Arc::new(AuditStore::open(dir, options)?);
    let each = 20_000 / threads.max(8);
    let (began, process) = (Instant::now(), cpu("/proc/self/stat")?);
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                for n in 0..each {
                    store.append(&turn(thread * each + n, 1, LONG))?;
                }
                Ok::<_, proxy_core::StoreError>(())
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| "a thread panicked")??;
    }
    let (wall, process) = (began.elapsed().as_secs_f64(), cpu("/proc/self/stat")? - process);
    let (entries, syncs) = ((threads * each) as f64, store.health().syncs as f64);
    println!(
        "{:>10} {:>12.0} {:>14.2} {:>16.1}",
        format!("{threads} thr"),
        entries / wall,
        process * 1e6 / entries,
        entries / syncs
    );
    Ok(())
}

/// User and system time, in seconds (`proc_pid_stat(5)`, fields 14 and 15, in ticks of 10 ms).
fn cpu(path: &str) -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string(path)?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no command in stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}

fn disk(dir: &Path) -> Result<u64, Box<dyn Error>> {
    let mut total = 0;
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        if file.path().extension().is_some_and(|extension| extension == "sst" || extension == "blob") {
            total += file.metadata()?.len();
        }
    }
    Ok(total)
}
