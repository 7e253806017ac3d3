//! Streams: the audit log is sent elsewhere as it grows, at least once and in order.
//!
//! ```text
//!  log ──read from the cursor on──▶ Batch ──▶ Sink (syslog, HTTP, OTLP) ──acknowledged──▶ cursor, on the disk
//!            ▲                                    │ not: wait, longer each time, and again
//!            └────────────────────────────────────┘
//! ```
//!
//! - One task for each `[[stream]]`. It reads the log as anybody does: what it cannot send waits in the log, not in
//!   memory, so that sessions never wait for it, and a receiver that is down for a day misses nothing.
//! - The cursor moves after the receiver's acknowledgement alone. What was sent and not acknowledged is sent again:
//!   every entry carries the log's id and its index, by which a receiver drops what it has.
//! - What a receiver refuses (a wrong token, an entry that it cannot take) is tried again for ever, slowly, and counted:
//!   nothing is left out without a person having decided so.
//!
//! Start at `pump.rs`.

mod batch;
mod cursor;
mod http;
mod otlp;
mod pump;
mod sink;
mod syslog;

use crate::cli::Failure;
use crate::config::{Config, Stream};
use crate::metrics::Metrics;
use audit_store::AuditStore;
use cursor::Cursor;
use proxy_core::StoreError;
use proxy_core::record::Event;
use pump::{Meters, Pump};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Entries that are sent at once (256).
const BATCH_ENTRIES: usize = 256;
/// Bytes that are sent at once, about (512 KiB): many proxies refuse bodies over 1 MiB. A single entry may be longer.
const BATCH_BYTES: usize = 512 << 10;
/// Longest text in a syslog message, in bytes (16 KiB): receivers drop longer messages, most of them at 64 KiB.
const SYSLOG_TEXT_MAX: usize = 16 << 10;
/// How often the end of the log is looked at.
const POLL: Duration = Duration::from_millis(500);
/// Longest that a batch may take to be taken.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The first wait after a failure, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Whether a stream can work as it is configured: CA file and secrets are read; with `connect`, a syslog receiver is
/// connected to. (Others would have to be sent something.)
///
/// # Errors
/// What is wrong, in a sentence.
pub(crate) async fn check(stream: &Stream, connect: bool) -> Result<(), String> {
    let mut sink = sink::Sink::new(stream)?;
    if !connect {
        return Ok(());
    }
    let connected = tokio::time::timeout(SEND_TIMEOUT, sink.connect()).await;
    connected.map_err(|_| format!("{} does not answer", stream.to))?.map(drop).map_err(|error| format!("{}: {error}", stream.to))
}

/// Streams that are ready to start.
pub(crate) struct Streams(Vec<Pump>);

impl Streams {
    /// Finds out how far each stream has come, and records that each reads the log.
    ///
    /// # Errors
    /// A CA file, a header's secret or a cursor cannot be read, or the log does not accept the record.
    pub(crate) fn open(
        config: &Config,
        store: &Arc<AuditStore>,
        record: impl Fn(Event) -> Result<(), StoreError>,
    ) -> Result<Self, Failure> {
        let mut pumps = Vec::new();
        for stream in &config.streams {
            let failed = |why: String| Failure::finding(format!("stream {:?}: {why}", stream.name));
            let cursor =
                Cursor::open(&config.stream_cursor(&stream.name), stream, &store.reader()).map_err(|e| failed(e.to_string()))?;
            let sink = sink::Sink::new(stream).map_err(failed)?;
            let query = format!("entries from {} on, as {}, to {}", cursor.position(), stream.format, stream.to);
            record(Event::LogRead { by: format!("stream {}", stream.name), query }).map_err(|error| failed(error.to_string()))?;
            pumps.push(Pump::new(stream, cursor, sink, Arc::clone(store)).map_err(|error| failed(error.to_string()))?);
        }
        Ok(Self(pumps))
    }

    /// Starts them; they end with `stop`.
    pub(crate) fn start(self, metrics: &Arc<Metrics>, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        let start = |pump: Pump| {
            let meters = Meters::new(metrics, pump.name());
            tokio::spawn(pump.run(meters, stop.clone()))
        };
        self.0.into_iter().map(start).collect()
    }
}
