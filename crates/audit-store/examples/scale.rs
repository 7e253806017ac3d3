//! How a large log behaves. One step for each call, so that each can be measured in a process of its own:
//!
//! ```text
//! scale fill DIR [ENTRIES]    write 10 million entries as pgbench -S makes them, in 10,000 sessions over 30 days, and die
//! scale restart DIR           open after that kill, append, close
//! scale find DIR [FILTER]     first page of every filter, beside a gateway (read-only): cold, then warm
//! scale verify DIR            read all
//! scale reindex DIR           make the index anew
//! ```
//!
//! Each prints one JSON object in a line for each thing measured. `scripts/bench --only audit` runs them.

#[path = "../tests/common/mod.rs"]
mod common;

use audit_store::{AuditStore, EntryFilter, EventKind, Options, Reader, SessionFilter, open_read_only};
use proxy_core::record::RecordedVerdict;
use proxy_core::{Entry, Event, Facts, Object, ObjectKind, Operation, SessionId, Store, Timestamp};
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const SESSIONS: u64 = 10_000;
/// Sessions that are open at the same time.
const TOGETHER: u64 = 8;
/// 2025-01-01, in microseconds.
const BEGIN: i64 = 1_735_689_600_000_000;
const SPAN: i64 = 30 * 86_400_000_000;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [step, dir, rest @ ..] = &arguments[..] else { return Err("scale fill|restart|find|verify|reindex DIR".into()) };
    let dir = Path::new(dir);
    match step.as_str() {
        "fill" => fill(dir, rest.first().map_or(Ok(10_000_000), |n| n.parse())?),
        "restart" => restart(dir),
        "find" => find(dir, rest.first().map(String::as_str)),
        "verify" => verify(dir),
        "reindex" => reindex(dir),
        other => Err(format!("no step is called {other}").into()),
    }
}

/// A number that looks random, the same in every run.
fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// A UUID of version 7 of that time.
fn id(session: u64, time: i64) -> SessionId {
    let mut id = u128::from(mix(session)) | 7 << 76 | 2 << 62;
    id = id & ((1 << 80) - 1) | u128::try_from(time / 1_000).unwrap_or(0) << 80;
    SessionId(id.to_be_bytes())
}

struct Filler {
    store: AuditStore,
    /// Facts of statements on accounts, tellers, and what nobody may read.
    facts: [Arc<Facts>; 3],
    policies: [Arc<[Arc<str>]>; 2],
    version: Arc<str>,
    entries: u64,
    /// Microseconds between two entries.
    step: i64,
    written: u64,
    batch: Vec<Entry>,
}

impl Filler {
    fn time(&self) -> i64 {
        BEGIN + i64::try_from(self.written).unwrap_or(0) * self.step
    }

    fn put(&mut self, id: SessionId, number: u64, mut entry: Entry) -> Result {
        let jitter = (mix(self.written) % 200) as i64;
        entry.time = Timestamp(self.time() + jitter);
        entry.session = Some((id, number));
        self.batch.push(entry);
        self.written += 1;
        if self.batch.len() >= 4 {
            self.store.append(&self.batch)?;
            self.batch.clear();
            if self.written % 65_536 < 4 {
                self.wait_for_index();
            }
        }
        Ok(())
    }

    /// No gateway is so busy that its index falls behind for long, and has to read what is in files again.
    fn wait_for_index(&self) {
        while self.store.health().indexed + 500_000 < self.written {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn request(&self, session: u64, number: u64) -> Entry {
        let rare = session.is_multiple_of(1_000) && number == 101;
        let aid = mix(session << 32 | number) % 10_000_000;
        let (object, statement) = match (rare, session % 2) {
            (true, _) => (2, "SELECT * FROM secrets WHERE owner = 'Mallory'".to_owned()),
            (false, 0) => (0, format!("SELECT abalance FROM pgbench_accounts WHERE aid = {aid};")),
            (false, _) => (1, format!("SELECT tbalance FROM pgbench_tellers WHERE tid = {aid};")),
        };
        let verdict = if rare { RecordedVerdict::Deny } else { RecordedVerdict::Allow };
        let mut entry = common::request(session, number, number / 2 + 1, verdict, &statement);
        if let Event::Request(record) = &mut entry.event {
            record.facts = Arc::clone(&self.facts[object]);
            record.policies = Arc::clone(&self.policies[usize::from(rare)]);
            record.policy_version = Arc::clone(&self.version);
        }
        entry
    }

    fn session_group(&mut self, group: u64, each: u64) -> Result {
        let sessions: Vec<_> =
            (0..TOGETHER).map(|n| group * TOGETHER + n).map(|session| (session, id(session, self.time()))).collect();
        for (session, id) in &sessions {
            self.put(
                *id,
                0,
                common::started(*session, &format!("svc-{}", session % 100), ["orders", "billing"][(session / 4 % 2) as usize]),
            )?;
        }
        for number in (1..each - 1).step_by(2) {
            for (session, id) in &sessions {
                self.put(*id, number, self.request(*session, number))?;
                let mut outcome = common::outcome(*session, number + 1, number / 2 + 1);
                if let Event::Outcome(outcome) = &mut outcome.event {
                    outcome.duration_micros = 80 + mix(self.written) % 400;
                    outcome.bytes = 60 + mix(self.written) % 8;
                }
                self.put(*id, number + 1, outcome)?;
            }
        }
        for (session, id) in &sessions {
            self.put(*id, each - 1, common::ended(*session, each - 1))?;
        }
        Ok(())
    }
}

fn facts(table: &str) -> Arc<Facts> {
    let object = Object::new(ObjectKind::Table, ["public", table]);
    let operation = Operation { action: "select".to_owned(), object, has_where: Some(true) };
    Arc::new(Facts { operations: vec![operation], kinds: vec!["SELECT".to_owned()], ..Facts::default() })
}

fn fill(dir: &Path, entries: u64) -> Result {
    let mut filler = Filler {
        store: AuditStore::open(dir, Options::default())?,
        facts: ["pgbench_accounts", "pgbench_tellers", "secrets"].map(facts),
        policies: ["readers", "no-secrets"].map(|id| vec![Arc::from(id)].into()),
        version: Arc::from("0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"),
        entries,
        step: SPAN / i64::try_from(entries)?,
        written: 0,
        batch: Vec::new(),
    };
    let began = Instant::now();
    // An odd number in all, with start and end.
    let each = (entries / SESSIONS) & !1;
    for group in 0..SESSIONS / TOGETHER {
        filler.session_group(group, each)?;
    }
    let (wall, process) = (began.elapsed().as_secs_f64(), cpu("/proc/self/stat")?);
    filler.wait_for_index();
    let all = cpu("/proc/self/stat")?;
    let index = thread_cpu("audit-index")?;
    println!(
        "{}",
        json!({ "what": "fill", "entries": filler.written, "of": filler.entries, "seconds": wall, "cpu_us": process * 1e6 / filler.written as f64,
            "index_cpu_us": index * 1e6 / filler.written as f64, "all_cpu_us": all * 1e6 / filler.written as f64 })
    );
    // No closing: as a kill would leave it.
    std::process::abort()
}

fn restart(dir: &Path) -> Result {
    let began = Instant::now();
    let store = AuditStore::open(dir, Options::default())?;
    let opened = began.elapsed().as_secs_f64();
    store.append(&[common::started(7, "svc-1", "orders")])?;
    let accepted = began.elapsed().as_secs_f64();
    store.reader().sessions(&SessionFilter::default(), 50)?;
    let listed = began.elapsed().as_secs_f64();
    let rss = memory("VmHWM")?;
    println!(
        "{}",
        json!({ "what": "restart", "entries": store.health().entries, "open_s": opened, "accepting_s": accepted, "listed_s": listed, "rss_kib": rss })
    );
    store.close()?;
    drop(store);
    println!("{}", json!({ "what": "disk", "bytes": disk(dir)?, "families": families(dir)? }));
    Ok(())
}

fn families(dir: &Path) -> Result<serde_json::Value> {
    let reader = open_read_only(dir)?;
    Ok(json!(reader.standing()?.families))
}

fn filters() -> Vec<(&'static str, EntryFilter)> {
    let some = |text: &str| Some(text.to_owned());
    let at = |days: i64| Some(Timestamp(BEGIN + days * 86_400_000_000));
    let all = EntryFilter::default;
    vec![
        ("nothing", all()),
        ("principal", EntryFilter { principal: some("dev/svc-7"), ..all() }),
        ("principal, none", EntryFilter { principal: some("dev/nobody"), ..all() }),
        ("connection", EntryFilter { connection: some("billing"), ..all() }),
        ("verdict, rare", EntryFilter { verdict: Some(RecordedVerdict::Deny), ..all() }),
        ("verdict, none", EntryFilter { verdict: Some(RecordedVerdict::Hold), ..all() }),
        ("kind, rare", EntryFilter { kinds: vec![EventKind::LoginFailed], ..all() }),
        ("kind, some", EntryFilter { kinds: vec![EventKind::SessionStarted], ..all() }),
        ("object", EntryFilter { object: some("public.pgbench_accounts"), ..all() }),
        ("object, rare", EntryFilter { object: some("secrets"), ..all() }),
        ("policy", EntryFilter { policy: some("readers"), ..all() }),
        ("policy, rare", EntryFilter { policy: some("no-secrets"), ..all() }),
        ("time, long ago", EntryFilter { since: at(2), until: at(3), ..all() }),
        ("text", EntryFilter { text: some("PGBENCH_accounts"), ..all() }),
        ("text, rare", EntryFilter { text: some("mallory"), ..all() }),
        ("text, one number", EntryFilter { text: Some(format!("aid = {};", mix(4_444 << 32 | 501) % 10_000_000)), ..all() }),
        ("text, no such number", EntryFilter { text: some("aid = 10000007"), ..all() }),
        ("text, three letters", EntryFilter { text: some("xyz"), ..all() }),
        (
            "principal and object, never together",
            EntryFilter { principal: some("dev/svc-7"), object: some("pgbench_accounts"), ..all() },
        ),
        ("object and text, long ago", EntryFilter { object: some("secrets"), text: some("owner"), until: at(9), ..all() }),
        ("verdict, long ago", EntryFilter { verdict: Some(RecordedVerdict::Allow), until: at(1), ..all() }),
        (
            "session and verdict, none",
            EntryFilter { session: Some(session_of(4_444)), verdict: Some(RecordedVerdict::Deny), ..all() },
        ),
    ]
}

/// The id of a session of a log of 10 million entries.
fn session_of(session: u64) -> SessionId {
    let each = 1_000;
    let written = session / TOGETHER * TOGETHER * each;
    id(session, BEGIN + i64::try_from(written).unwrap_or(0) * (SPAN / 10_000_000))
}

fn session_filters() -> Vec<(&'static str, SessionFilter)> {
    let entries = filters().into_iter().filter(|(_, filter)| filter.session.is_none() && filter.kinds.is_empty());
    let convert = |(name, filter): (_, EntryFilter)| {
        let EntryFilter { principal, connection, verdict, object, policy, text, since, until, .. } = filter;
        (name, SessionFilter { principal, connection, verdict, object, policy, text, since, until, ..SessionFilter::default() })
    };
    entries.map(convert).collect()
}

fn find(dir: &Path, only: Option<&str>) -> Result {
    let wanted = |name: &&str| only.is_none_or(|only| *name == only);
    let began = Instant::now();
    let reader = open_read_only(dir)?;
    reader.len()?;
    println!("{}", json!({ "what": "open", "ms": began.elapsed().as_secs_f64() * 1e3 }));
    for round in ["cold", "warm", "warm"] {
        // Cold: a reader of its own for each, of which RocksDB has nothing in memory.
        let fresh = |reader: &Reader| {
            if round == "cold" { open_read_only(dir).and_then(|reader| reader.len().map(|_| reader)) } else { Ok(reader.clone()) }
        };
        for (name, filter) in filters().into_iter().filter(|(name, _)| wanted(name)) {
            let reader = fresh(&reader)?;
            let began = Watch::start()?;
            let page = reader.latest(None, &filter, 50)?;
            report("entries", name, round, &began, page.items.len(), page.next.is_some())?;
        }
        for (name, filter) in session_filters().into_iter().filter(|(name, _)| wanted(name)) {
            let reader = fresh(&reader)?;
            let began = Watch::start()?;
            let page = reader.sessions(&filter, 50)?;
            report("sessions", name, round, &began, page.items.len(), page.next.is_some())?;
        }
        let reader = fresh(&reader)?;
        let began = Watch::start()?;
        let story = reader.session(session_of(4_444), 0, 1_000)?;
        report("story", "a session, 1,000 entries", round, &began, story.map_or(0, |story| story.requests.len()), false)?;
    }
    println!("{}", json!({ "what": "memory", "rss_kib": memory("VmRSS")?, "most_kib": memory("VmHWM")? }));
    Ok(())
}

/// What others do on the machine shows in the time, and not in this thread's CPU.
struct Watch {
    began: Instant,
    cpu: u64,
}

impl Watch {
    fn start() -> Result<Self> {
        Ok(Self { began: Instant::now(), cpu: Self::thread()? })
    }

    /// Nanoseconds of this thread on a CPU.
    fn thread() -> Result<u64> {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
        Ok(stat.split_whitespace().next().ok_or("no CPU time")?.parse()?)
    }
}

fn report(what: &str, name: &str, round: &str, watch: &Watch, found: usize, more: bool) -> Result {
    let (ms, cpu_ms) = (watch.began.elapsed().as_secs_f64() * 1e3, (Watch::thread()? - watch.cpu) as f64 / 1e6);
    println!(
        "{}",
        json!({ "what": what, "filter": name, "round": round, "cpu_ms": cpu_ms, "ms": ms, "found": found, "more": more })
    );
    Ok(())
}

fn verify(dir: &Path) -> Result {
    let reader = open_read_only(dir)?;
    let began = Instant::now();
    let verification = reader.verify_sequence(0..u64::MAX, |_| ())?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({ "what": "verify", "entries": verification.entries, "findings": verification.finding_count, "seconds": seconds, "most_kib": memory("VmHWM")? })
    );
    Ok(())
}

fn reindex(dir: &Path) -> Result {
    let store = AuditStore::open(dir, Options::default())?;
    let (began, before) = (Instant::now(), cpu("/proc/self/stat")?);
    store.reindex(|_, _| ())?;
    let entries = store.health().entries as f64;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu("/proc/self/stat")? - before);
    println!(
        "{}",
        json!({ "what": "reindex", "entries": entries, "seconds": seconds, "cpu_us": cpu * 1e6 / entries, "most_kib": memory("VmHWM")? })
    );
    store.close()?;
    Ok(())
}

/// User and system time, in seconds (`proc_pid_stat(5)`, fields 14 and 15, in ticks of 10 ms).
fn cpu(path: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(path)?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no command in stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<std::result::Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}

/// The same of this process's threads of that name.
fn thread_cpu(name: &str) -> Result<f64> {
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == name {
            total += cpu(&task.join("stat").display().to_string())?;
        }
    }
    Ok(total)
}

/// A line of `/proc/self/status`, in KiB.
fn memory(line: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let found =
        status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok());
    Ok(found.ok_or("no such line in /proc/self/status")?)
}

fn disk(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        if file.path().extension().is_some_and(|extension| extension == "sst" || extension == "blob") {
            total += file.metadata()?.len();
        }
    }
    Ok(total)
}
