//! What an append costs, beside a bare write of the same bytes into RocksDB: `append_cost DIR`.
//!
//! Each measurement prints one JSON object in a line: threads (each stands for a session), appends per second, CPU of
//! the calling threads and of the whole process (index, compression, files) for each entry of about 300 bytes, and
//! entries for each fsync. `scripts/bench --only audit` runs it and sets SQLite beside it.

#[path = "../tests/common/mod.rs"]
mod common;

use audit_store::encode::encode;
use audit_store::{AuditStore, Durability, Options, SessionFilter};
use proxy_core::record::RecordedVerdict;
use proxy_core::{Entry, Store};
use rocksdb::{DB, DBCompressionType, WriteBatch, WriteOptions};
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Makes the average of leaves about 300 bytes.
const LONG: &str = " /* Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et \
    dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo \
    consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur. */";

fn main() -> Result {
    let dir = std::env::args_os().nth(1).ok_or("append_cost DIR")?;
    let dir = Path::new(&dir);
    for durability in [Durability::Write, Durability::Sync] {
        for threads in [1, 8, 64] {
            let entries = if durability == Durability::Write { 400_000 } else { 20_000 };
            let each = entries / threads;
            let folder = dir.join("measured");
            ours(&folder, durability, threads, each)?;
            std::fs::remove_dir_all(&folder)?;
            bare(&folder, durability, threads, each)?;
            std::fs::remove_dir_all(&folder)?;
        }
    }
    Ok(())
}

/// Entry `number` of a session: a pgbench statement, or its outcome, in turns.
fn entry(session: u64, number: u64) -> Entry {
    let request = number / 2 + 1;
    if number.is_multiple_of(2) {
        let aid = (session * 1_000_003 + number) * 7_919 % 10_000_000;
        let statement = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {aid};{LONG}");
        common::request(session, number, request, RecordedVerdict::Allow, &statement)
    } else {
        common::outcome(session, number, request)
    }
}

/// CPU of the threads' own work.
#[derive(Default)]
struct Callers(AtomicU64);

impl Callers {
    /// Runs `work` on so many threads, each with its number.
    fn run(&self, threads: u64, work: impl Fn(u64) -> Result + Sync) -> Result {
        std::thread::scope(|scope| {
            let run = |thread| {
                work(thread).map_err(|error| error.to_string())?;
                let stat = std::fs::read_to_string("/proc/thread-self/schedstat").map_err(|error| error.to_string())?;
                let nanos = stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
                self.0.fetch_add(nanos, Ordering::Relaxed);
                Ok::<_, String>(())
            };
            let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
            threads.into_iter().try_for_each(|thread| Ok(thread.join().map_err(|_| "a thread panicked")??))
        })
    }
}

struct Measured<'a> {
    way: &'a str,
    durability: Durability,
    threads: u64,
    entries: u64,
    bytes: u64,
}

impl Measured<'_> {
    fn print(&self, wall: f64, callers: &Callers, process: f64, syncs: Option<u64>) {
        let Measured { way, durability, threads, entries, bytes } = self;
        let (each, durability) = (*entries as f64, if *durability == Durability::Write { "write" } else { "sync" });
        println!(
            "{}",
            json!({ "way": way, "durability": durability, "threads": threads, "per_second": each / wall,
                "append_cpu_us": callers.0.load(Ordering::Relaxed) as f64 / 1e3 / each, "cpu_us": process * 1e6 / each,
                "per_fsync": syncs.map(|syncs| each / syncs as f64), "leaf_bytes": *bytes as f64 / each })
        );
    }
}

fn ours(dir: &Path, durability: Durability, threads: u64, each: u64) -> Result {
    let store = AuditStore::open(dir, Options { durability, ..Options::default() })?;
    let sessions: Vec<Vec<Entry>> =
        (0..threads).map(|session| (0..each).map(|number| entry(session, number)).collect()).collect();
    let (began, before, syncs) = (Instant::now(), cpu()?, store.health().syncs);
    let callers = Callers::default();
    callers.run(threads, |thread| {
        let entries = sessions.get(thread as usize).ok_or("no such session")?;
        entries.iter().try_for_each(|entry| Ok(store.append(std::slice::from_ref(entry)).map(drop)?))
    })?;
    let (wall, syncs) = (began.elapsed().as_secs_f64(), store.health().syncs - syncs);
    // The index and the compression belong to the cost.
    store.reader().sessions(&SessionFilter::default(), 1)?;
    store.flush()?;
    let process = cpu()? - before;
    let mut bytes = 0;
    store.reader().leaves(0..u64::MAX, |_, leaf| {
        bytes += leaf.len() as u64;
        Ok(())
    })?;
    store.close()?;
    Measured { way: "sallyport", durability, threads, entries: threads * each, bytes }.print(
        wall,
        &callers,
        process,
        Some(syncs),
    );
    Ok(())
}

/// One batch with one key for each entry, as it would be without a journal, an index, and encoding.
fn bare(dir: &Path, durability: Durability, threads: u64, each: u64) -> Result {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::Zstd);
    let db = DB::open(&options, dir)?;
    let leaf = |session: u64, number: u64| -> Result<Vec<u8>> {
        let (mut leaf, mut beside) = (Vec::new(), Vec::new());
        encode(&entry(session, number), 1_024, &mut leaf, &mut beside)?;
        Ok(leaf)
    };
    let sessions: Vec<Vec<Vec<u8>>> =
        (0..threads).map(|session| (0..each).map(|number| leaf(session, number)).collect()).collect::<Result<_>>()?;
    let bytes = sessions.iter().flatten().map(|leaf| leaf.len() as u64).sum();
    let next = AtomicU64::new(0);
    let (began, before) = (Instant::now(), cpu()?);
    let callers = Callers::default();
    callers.run(threads, |thread| {
        let mut write = WriteOptions::default();
        write.set_sync(durability == Durability::Sync);
        for leaf in sessions.get(thread as usize).ok_or("no such session")? {
            let mut batch = WriteBatch::default();
            batch.put(next.fetch_add(1, Ordering::Relaxed).to_be_bytes(), leaf);
            db.write_opt(batch, &write)?;
        }
        Ok(())
    })?;
    let wall = began.elapsed().as_secs_f64();
    db.flush()?;
    let process = cpu()? - before;
    Measured { way: "bare RocksDB", durability, threads, entries: threads * each, bytes }.print(wall, &callers, process, None);
    Ok(())
}

/// User and system time of this process, in seconds (`proc_pid_stat(5)`, fields 14 and 15, in ticks of 10 ms).
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no command in stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<std::result::Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}
