//! The gateway's own metrics, in Prometheus' text format.
//!
//! [`FAMILIES`] is the documentation and the only set of names. A series is a handle, made once and kept by
//! whoever counts: counting is one relaxed addition to a cache line of the thread's own, so that event loops do
//! not wait for each other. Rendering adds the lines up.

mod store;

pub use store::MeteredStore;

use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Lines over which each series is spread. Threads beyond it share.
const SHARDS: usize = 16;
/// Series of one family (10,000): labels come from the configuration, so this is never met but by a defect.
const SERIES_MAX: usize = 10_000;
/// Upper bounds of histogram buckets, in microseconds: 10 µs to 60 s.
const BOUNDS: [u64; 18] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 15_000_000,
    60_000_000,
];

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations, in seconds.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric: a name with its labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The labels' names, in order.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! families {
    ($($(#[$doc:meta])* $ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// The families, one constant each.
        pub mod family {
            use super::{Family, Kind};
            $(
                #[doc = $help]
                pub const $ident: Family = Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
            )*
        }
        /// Every family, in the order of the reference.
        pub const FAMILIES: &[&Family] = &[$(&family::$ident),*];
    };
}

families! {
    BUILD_INFO = Gauge "sallyport_build_info" ["version"] "Always 1; the version is the label.";
    START_TIME = Gauge "sallyport_start_time_seconds" [] "When the gateway started, in seconds since the epoch.";
    CONNECTIONS = Counter "sallyport_connections_total" ["protocol"] "Client connections that were accepted.";
    CONNECTIONS_OPEN = Gauge "sallyport_connections_open" ["protocol"] "Client connections that are open, logged in or not.";
    CONNECTIONS_CLOSED = Counter "sallyport_connections_closed_total" ["protocol", "reason"] "Client connections that closed, by reason.";
    LOGINS = Counter "sallyport_logins_total" ["protocol", "outcome"] "Logins by how they ended: accepted, refused.";
    SESSIONS_OPEN = Gauge "sallyport_sessions_open" [] "Sessions that are logged in.";
    REQUESTS = Counter "sallyport_requests_total" ["verdict"] "Requests by verdict: allow, deny, hold.";
    REQUEST_OUTCOMES = Counter "sallyport_request_outcomes_total" ["status"] "What came of requests: completed, failed, skipped, refused, unknown.";
    REQUEST_SECONDS = Histogram "sallyport_request_seconds" [] "From forwarding a request to its completion by the target.";
    ROWS = Counter "sallyport_rows_total" [] "Rows that requests returned or touched.";
    COLUMNS = Counter "sallyport_result_columns_total" ["fate"] "Result columns: passed, masked, refused.";
    BYTES = Counter "sallyport_bytes_total" ["direction"] "Bytes from clients (in) and to clients (out).";
    HELD = Gauge "sallyport_held_requests" [] "Requests that wait for approval.";
    APPROVALS = Counter "sallyport_approvals_total" ["outcome"] "Steps of approvals: requested, approved, denied, expired, withdrawn.";
    NOTICES = Counter "sallyport_notices_total" ["channel", "outcome"] "Messages about requests: sent, retried, dead (given up; `sallyport notices list`), dropped.";
    AUDIT_ENTRIES = Counter "sallyport_audit_entries_total" [] "Entries that the audit store accepted.";
    AUDIT_SECONDS = Histogram "sallyport_audit_append_seconds" [] "Time to append one batch of entries, of every sixteenth.";
    AUDIT_FAILURES = Counter "sallyport_audit_failures_total" [] "Batches that the audit store refused; their requests were refused too.";
    AUDIT_HEALTHY = Gauge "sallyport_audit_healthy" [] "1 while the audit store accepts entries.";
    AUDIT_PUBLISHED = Gauge "sallyport_audit_published_entries" [] "Entries of the audit log that the last published checkpoint commits to.";
    AUDIT_COSIGNED = Gauge "sallyport_audit_cosigned" [] "Witnesses that have cosigned the last checkpoint.";
    AUDIT_PUBLISHING = Gauge "sallyport_audit_publishing" [] "1 while the audit log is signed and published; 0: the gateway's log says why not.";
    STREAM_LAG = Gauge "sallyport_stream_lag_entries" ["stream"] "Entries of the audit log that a stream has not delivered yet.";
    STREAM_LAG_SECONDS = Gauge "sallyport_stream_lag_seconds" ["stream"] "Age of the oldest entry that a stream has not delivered yet; 0 when it has delivered all.";
    STREAM_SENT = Counter "sallyport_stream_sent_total" ["stream"] "Entries that a stream delivered; those that were sent again count again.";
    STREAM_FAILURES = Counter "sallyport_stream_failures_total" ["stream"] "Attempts to deliver that failed and are made again.";
    STREAM_REJECTED = Counter "sallyport_stream_rejected_total" ["stream"] "Entries that the receiver took and threw away (OTLP partial success).";
    STREAM_MISSING = Counter "sallyport_stream_missing_total" ["stream"] "Entries that the log no longer had when their turn came.";
    SECRET_FETCHES = Counter "sallyport_secret_fetches_total" ["source", "result"] "Secrets that were to be fetched from Vault or Key Vault again: fetched, failed.";
    SECRETS_STALE = Gauge "sallyport_secrets_stale" [] "Secrets whose last fetch failed: their last values are used for a while.";
    SHIPPED = Gauge "sallyport_audit_shipped_entries" ["destination"] "Entries of the audit log that the last checkpoint which was shipped commits to.";
    SHIPPING = Gauge "sallyport_audit_shipping" ["destination"] "1 while the audit log is shipped; 0: the gateway's log says why not.";
    SHIPPING_LAG_SECONDS = Gauge "sallyport_audit_shipping_lag_seconds" ["destination"] "Age of the oldest entry that is not yet there; 0 when all are.";
    RELOADS = Counter "sallyport_reloads_total" ["what", "outcome"] "Reloads of configuration and policy: activated, refused.";
    WAITING = Gauge "sallyport_waiting_for_restart" [] "Sections of the configuration whose changes take effect at the next start.";
    MEMORY = Gauge "process_resident_memory_bytes" [] "Memory of the process that is in use.";
    CPU = Counter "process_cpu_seconds_total" [] "CPU time of the process, user and system.";
    FDS = Gauge "process_open_fds" [] "Open file descriptors of the process.";
}

/// One cache line, so that threads do not share.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

#[derive(Debug, Default)]
struct Cells([Line; SHARDS]);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The line of this thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|cell| {
        if cell.get() == usize::MAX {
            cell.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        cell.get()
    })
}

impl Cells {
    fn add(&self, n: u64) {
        self.0[shard()].0.fetch_add(n, Ordering::Relaxed);
    }

    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, line| sum.wrapping_add(line.0.load(Ordering::Relaxed)))
    }
}

/// A series that only grows. Clones count the same.
#[derive(Debug, Clone)]
pub struct Counter(Arc<Cells>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.add(n);
    }

    /// The sum over all threads.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.sum()
    }
}

/// A series that goes up and down. Clones count the same.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<Cells>);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.add(n.cast_unsigned());
    }

    /// Sets the value. Not together with [`Gauge::add`] from another thread.
    pub fn set(&self, value: i64) {
        self.add(value.wrapping_sub(self.get()));
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.sum().cast_signed()
    }

    /// Adds one, until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> GaugeGuard {
        self.add(1);
        GaugeGuard(self.clone())
    }
}

/// One unit of a [`Gauge`], while it lives.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

#[derive(Debug, Default)]
struct Buckets {
    counts: [Cells; BOUNDS.len() + 1],
    micros: Cells,
}

/// Durations, in buckets. Clones count the same.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        self.observe_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts one duration in microseconds.
    pub fn observe_micros(&self, micros: u64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.0.counts[bucket].add(1);
        self.0.micros.add(micros);
    }
}

#[derive(Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// All series of this process.
#[derive(Debug, Default)]
pub struct Metrics {
    families: Mutex<BTreeMap<&'static str, BTreeMap<Vec<String>, Series>>>,
}

impl Metrics {
    /// No series yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The counter of `family` with these labels' values; the same handle for the same labels.
    #[must_use]
    pub fn counter(&self, family: &Family, labels: &[&str]) -> Counter {
        let fresh = || Series::Counter(Counter(Arc::default()));
        self.series(family, labels, fresh, |series| match series {
            Series::Counter(counter) => Some(counter.clone()),
            Series::Gauge(_) | Series::Histogram(_) => None,
        })
        .unwrap_or_else(|| Counter(Arc::default()))
    }

    /// The gauge of `family` with these labels' values.
    #[must_use]
    pub fn gauge(&self, family: &Family, labels: &[&str]) -> Gauge {
        let fresh = || Series::Gauge(Gauge(Arc::default()));
        self.series(family, labels, fresh, |series| match series {
            Series::Gauge(gauge) => Some(gauge.clone()),
            Series::Counter(_) | Series::Histogram(_) => None,
        })
        .unwrap_or_else(|| Gauge(Arc::default()))
    }

    /// The histogram of `family` with these labels' values.
    #[must_use]
    pub fn histogram(&self, family: &Family, labels: &[&str]) -> Histogram {
        let fresh = || Series::Histogram(Histogram(Arc::default()));
        self.series(family, labels, fresh, |series| match series {
            Series::Histogram(histogram) => Some(histogram.clone()),
            Series::Counter(_) | Series::Gauge(_) => None,
        })
        .unwrap_or_else(|| Histogram(Arc::default()))
    }

    /// A series by its labels; `None` only when the family is full, or of another kind (a defect, which must
    /// not end the gateway: the handle then counts for nobody).
    fn series<T>(
        &self,
        family: &Family,
        labels: &[&str],
        fresh: impl Fn() -> Series,
        take: impl Fn(&Series) -> Option<T>,
    ) -> Option<T> {
        debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        let mut families = self.families.lock();
        let all = families.entry(family.name).or_default();
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if all.len() >= SERIES_MAX && !all.contains_key(&labels) {
            return None;
        }
        take(all.entry(labels).or_insert_with(fresh))
    }

    /// Everything, in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        let families = self.families.lock();
        for family in FAMILIES {
            if let Some(value) = process_metric(family.name) {
                head(family, &mut out);
                let _ = writeln!(out, "{} {value}", family.name);
                continue;
            }
            let Some(all) = families.get(family.name) else { continue };
            head(family, &mut out);
            for (labels, series) in all {
                render_series(family, labels, series, &mut out);
            }
        }
        out
    }
}

fn head(family: &Family, out: &mut String) {
    let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", family.name, family.help, family.name, family.kind.as_str());
}

fn render_series(family: &Family, labels: &[String], series: &Series, out: &mut String) {
    match series {
        Series::Counter(counter) => {
            let _ = writeln!(out, "{}{} {}", family.name, braces(family, labels, None), counter.get());
        }
        Series::Gauge(gauge) => {
            let _ = writeln!(out, "{}{} {}", family.name, braces(family, labels, None), gauge.get());
        }
        Series::Histogram(histogram) => {
            let mut total = 0u64;
            for (at, cells) in histogram.0.counts.iter().enumerate() {
                total = total.wrapping_add(cells.sum());
                let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), |micros| seconds(*micros));
                let _ = writeln!(out, "{}_bucket{} {total}", family.name, braces(family, labels, Some(&bound)));
            }
            let plain = braces(family, labels, None);
            let _ = writeln!(out, "{}_sum{plain} {}", family.name, seconds(histogram.0.micros.sum()));
            let _ = writeln!(out, "{}_count{plain} {total}", family.name);
        }
    }
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn braces(family: &Family, labels: &[String], bound: Option<&str>) -> String {
    let mut pairs: Vec<String> =
        family.labels.iter().zip(labels).map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    pairs.extend(bound.map(|bound| format!("le=\"{bound}\"")));
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What Linux says of this process.
fn process_metric(name: &str) -> Option<String> {
    match name {
        "process_resident_memory_bytes" => {
            let status = std::fs::read_to_string("/proc/self/status").ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            let kibibytes: u64 = line.trim().split(' ').next()?.parse().ok()?;
            Some((kibibytes * 1_024).to_string())
        }
        "process_cpu_seconds_total" => {
            let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
            // After the name in parentheses: field 3 is next, utime and stime are 14 and 15, in ticks of 10 ms.
            let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
            let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
            Some(seconds(ticks * 10_000))
        }
        "process_open_fds" => Some(std::fs::read_dir("/proc/self/fd").ok()?.count().to_string()),
        _ => None,
    }
}

/// `docs/reference/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Metrics: `/metrics` of the admin listener\n\n\
         <!-- Generated by `cargo xtask reference` from bins/sallyport/src/metrics.rs. -->\n\n\
         Prometheus' text format. Durations are in seconds. A series appears when it was first counted.\n\n\
         | name | type | labels | meaning |\n| --- | --- | --- | --- |\n",
    );
    for family in FAMILIES {
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "| `{}` | {} | {labels} | {} |", family.name, family.kind.as_str(), family.help);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_add_up() {
        let metrics = Metrics::new();
        let threads: Vec<_> = (0..40)
            .map(|_| {
                let metrics = Arc::clone(&metrics);
                std::thread::spawn(move || {
                    let counter = metrics.counter(&family::CONNECTIONS_CLOSED, &["postgres", "killed"]);
                    (0..1_000).for_each(|_| counter.inc());
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(metrics.counter(&family::CONNECTIONS_CLOSED, &["postgres", "killed"]).get(), 40_000);
        let text = metrics.render();
        assert!(text.contains("sallyport_connections_closed_total{protocol=\"postgres\",reason=\"killed\"} 40000\n"), "{text}");
    }

    #[test]
    fn gauges_go_down_again_on_other_threads() {
        let metrics = Metrics::new();
        let gauge = metrics.gauge(&family::SESSIONS_OPEN, &[]);
        let guard = gauge.hold();
        gauge.add(5);
        assert_eq!(gauge.get(), 6);
        std::thread::spawn(move || drop(guard)).join().unwrap();
        assert_eq!(gauge.get(), 5);
        gauge.set(-2);
        assert_eq!(gauge.get(), -2);
    }

    #[test]
    fn histograms_are_cumulative_and_in_seconds() {
        let metrics = Metrics::new();
        let histogram = metrics.histogram(&family::REQUEST_SECONDS, &[]);
        for micros in [10, 11, 1_000_000, 600_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let text = metrics.render();
        for line in [
            "sallyport_request_seconds_bucket{le=\"0.00001\"} 1",
            "sallyport_request_seconds_bucket{le=\"0.000025\"} 2",
            "sallyport_request_seconds_bucket{le=\"1\"} 3",
            "sallyport_request_seconds_bucket{le=\"60\"} 3",
            "sallyport_request_seconds_bucket{le=\"+Inf\"} 4",
            "sallyport_request_seconds_sum 601.000021",
            "sallyport_request_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_process_is_measured_and_labels_are_escaped() {
        let metrics = Metrics::new();
        metrics.counter(&family::REQUESTS, &["a\"b\\c\nd"]).inc();
        let text = metrics.render();
        assert!(text.contains(r#"{verdict="a\"b\\c\nd"} 1"#), "{text}");
        for name in ["process_resident_memory_bytes ", "process_cpu_seconds_total ", "process_open_fds "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}\n{text}");
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for family in FAMILIES {
            let total = family.name.ends_with("_total");
            assert_eq!(total, family.kind == Kind::Counter, "{}", family.name);
            assert!(family.kind != Kind::Histogram || family.name.ends_with("_seconds"), "{}", family.name);
        }
    }
}
