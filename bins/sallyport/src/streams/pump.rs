//! One stream at work: reads, sends, waits, moves the cursor.

use super::batch::{Batch, Source};
use super::cursor::Cursor;
use super::sink::{Sink, SinkError, Taken};
use super::{POLL, RETRY, SEND_TIMEOUT};
use crate::config::Stream;
use crate::metrics::{Counter, Gauge, Metrics, family};
use audit_export::{ExportError, LogInfo};
use audit_store::{AuditStore, Reader};
use proxy_core::{StoreError, Timestamp};
use proxy_io::clock::now;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What is counted of a stream.
pub(super) struct Meters {
    lag: Gauge,
    lag_seconds: Gauge,
    sent: Counter,
    failures: Counter,
    rejected: Counter,
    missing: Counter,
}

impl Meters {
    pub(super) fn new(metrics: &Metrics, name: &str) -> Self {
        Self {
            lag: metrics.gauge(&family::STREAM_LAG, &[name]),
            lag_seconds: metrics.gauge(&family::STREAM_LAG_SECONDS, &[name]),
            sent: metrics.counter(&family::STREAM_SENT, &[name]),
            failures: metrics.counter(&family::STREAM_FAILURES, &[name]),
            rejected: metrics.counter(&family::STREAM_REJECTED, &[name]),
            missing: metrics.counter(&family::STREAM_MISSING, &[name]),
        }
    }

    /// `oldest`: when the first entry was made that has not been delivered; `None`: there is none.
    fn lag(&self, entries: u64, oldest: Option<Timestamp>) {
        self.lag.set(i64::try_from(entries).unwrap_or(i64::MAX));
        let micros = oldest.map_or(0, |oldest| now().micros_since(oldest));
        self.lag_seconds.set(i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX));
    }
}

/// What was written last: where each batch began and how long it was, as far back as may be lost.
#[derive(Debug, Default)]
struct Window {
    batches: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Window {
    /// Adds a batch that began at `first`; where a new connection would begin. `max`: bytes that may be lost.
    fn add(&mut self, first: u64, bytes: usize, next: u64, max: usize) -> u64 {
        if max == 0 {
            return next;
        }
        self.batches.push_back((first, bytes));
        self.bytes += bytes;
        while let Some((_, oldest)) = self.batches.front().filter(|(_, oldest)| self.bytes - oldest >= max) {
            self.bytes -= oldest;
            self.batches.pop_front();
        }
        self.batches.front().map_or(next, |(first, _)| *first)
    }
}

/// Waits that double, each shortened at random by up to a half, so that gateways do not come back all at once.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    fn next(&mut self) -> Duration {
        let full = self.0;
        self.0 = (full * 2).min(RETRY.1);
        let mut random = [0; 2];
        // Without randomness, the whole wait.
        let part = aws_lc_rs::rand::fill(&mut random).map_or(0, |()| u32::from(u16::from_be_bytes(random)));
        full - full / 2 * part / u32::from(u16::MAX)
    }
}

/// One stream.
pub(super) struct Pump {
    name: String,
    store: Arc<AuditStore>,
    reader: Reader,
    /// Gone while a batch is being read.
    source: Option<Source>,
    cursor: Option<Cursor>,
    sink: Sink,
    window: Window,
    /// The next entry to send; before the cursor, where entries are sent again.
    position: u64,
    acknowledged: u64,
    resend_from: u64,
    /// When the entry was made that waits; `None`: none does, or it is not known yet.
    oldest: Option<Timestamp>,
    backoff: Backoff,
    failing: bool,
}

impl Pump {
    pub(super) fn new(stream: &Stream, cursor: Cursor, mut sink: Sink, store: Arc<AuditStore>) -> Result<Self, StoreError> {
        let reader = store.reader();
        let id = format!("{:032x}", u128::from_be_bytes(reader.log_id()?));
        match &mut sink {
            Sink::Syslog(syslog) => syslog.of_log(&id),
            Sink::Otlp(otlp) => otlp.of_log(&id),
            Sink::Http(_) => {}
        }
        let host = control_plane::machine::host_name().unwrap_or_else(|| "unknown".to_owned());
        let log = LogInfo { id, version: env!("CARGO_PKG_VERSION").to_owned(), host };
        Ok(Self {
            name: stream.name.clone(),
            source: Some(Source::new(stream, &log, reader.clone())),
            reader,
            store,
            position: cursor.position(),
            acknowledged: cursor.position(),
            resend_from: cursor.resend_from(),
            cursor: Some(cursor),
            sink,
            window: Window::default(),
            oldest: None,
            backoff: Backoff(RETRY.0),
            failing: false,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends until `stop`. What is on its way then is sent again after the next start.
    pub(super) async fn run(mut self, meters: Meters, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = tokio::select! {
                pause = self.turn(&meters) => pause,
                () = stop.cancelled() => return,
            };
            tokio::select! {
                () = self.wait(pause, &meters) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Waits, while the lag grows as it does.
    async fn wait(&mut self, pause: Duration, meters: &Meters) {
        let mut rest = pause;
        while !rest.is_zero() {
            let part = rest.min(POLL);
            tokio::time::sleep(part).await;
            rest -= part;
            self.show_lag(meters);
        }
    }

    fn show_lag(&self, meters: &Meters) {
        let entries = self.store.synced().saturating_sub(self.acknowledged);
        meters.lag(entries, self.oldest.filter(|_| entries > 0));
    }

    /// One batch, if there is one; how long to wait before the next.
    async fn turn(&mut self, meters: &Meters) -> Duration {
        // What a power loss could still take away is not sent: its numbers would be given to others.
        let end = self.store.synced();
        if self.position >= end && self.acknowledged >= end {
            self.oldest = None;
            return POLL;
        }
        match timed(self.sink.connect()).await {
            Ok(false) => {}
            Ok(true) => {
                self.position = self.resend_from.min(self.position);
                self.window = Window::default();
            }
            Err(error) => return self.failed(&error, meters).await,
        }
        let batch = match self.read(end).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(stream = self.name, %error, "the log cannot be read for a stream");
                meters.failures.inc();
                return self.backoff.next();
            }
        };
        self.say_what_is_missing(&batch, meters);
        self.oldest = batch.items.first().map(|item| item.time);
        self.show_lag(meters);
        if !batch.items.is_empty() {
            match timed(self.sink.send(&batch)).await {
                Ok(taken) => self.delivered(&batch, &taken, meters),
                Err(error) => return self.failed(&error, meters).await,
            }
        }
        self.advance(&batch).await;
        self.show_lag(meters);
        Duration::ZERO
    }

    async fn read(&mut self, end: u64) -> Result<Batch, ExportError> {
        let gone = || StoreError::Io("the thread that reads for a stream did not end well".to_owned());
        let (Some(mut source), position) = (self.source.take(), self.position) else { return Err(gone().into()) };
        let read = tokio::task::spawn_blocking(move || {
            let batch = source.batch(position, end);
            (source, batch)
        });
        let (source, batch) = read.await.map_err(|_| gone())?;
        self.source = Some(source);
        batch
    }

    fn say_what_is_missing(&self, batch: &Batch, meters: &Meters) {
        if batch.missing > 0 {
            meters.missing.add(batch.missing);
            tracing::error!(
                stream = self.name,
                from = self.position,
                entries = batch.missing,
                "the log does not have these entries any more: the receiver will never get them"
            );
        }
        if batch.withheld > 0 {
            let (from, parts) = (self.position, batch.withheld);
            tracing::warn!(
                stream = self.name,
                from,
                parts,
                "the log does not have parts of these entries any more: they are sent as withheld"
            );
        }
    }

    fn delivered(&mut self, batch: &Batch, taken: &Taken, meters: &Meters) {
        meters.sent.add(batch.items.len() as u64);
        if taken.rejected > 0 {
            meters.rejected.add(taken.rejected);
            let (rejected, why) = (taken.rejected, &taken.why);
            tracing::error!(stream = self.name, from = self.position, rejected, why, "the receiver threw entries away");
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!(stream = self.name, from = self.position, "the stream delivers again");
        }
        self.backoff = Backoff(RETRY.0);
    }

    /// The batch was acknowledged: the cursor moves behind it.
    async fn advance(&mut self, batch: &Batch) {
        let bytes = batch.bytes();
        self.resend_from = self.window.add(self.position, bytes, batch.next, self.sink.window());
        self.position = batch.next;
        self.acknowledged = self.acknowledged.max(batch.next);
        let Some(mut cursor) = self.cursor.take() else { return };
        let (next, resend_from) = (self.position, self.resend_from);
        let written = tokio::task::spawn_blocking(move || {
            let written = cursor.advance(next, resend_from);
            (cursor, written)
        });
        match written.await {
            Ok((cursor, written)) => {
                self.cursor = Some(cursor);
                if let Err(error) = written {
                    tracing::error!(stream = self.name, %error, "how far the stream has come cannot be kept: it will send again");
                }
            }
            Err(error) => tracing::error!(stream = self.name, %error, "how far the stream has come cannot be kept any more"),
        }
    }

    /// Counts a failure; how long to wait.
    async fn failed(&mut self, error: &SinkError, meters: &Meters) -> Duration {
        self.sink.disconnect();
        meters.failures.inc();
        // The entry that waits, for the lag.
        let position = self.acknowledged;
        let reader = self.reader.clone();
        let oldest = tokio::task::spawn_blocking(move || reader.entry(position)).await;
        self.oldest = oldest.ok().and_then(Result::ok).flatten().map(|stored| stored.entry.time);
        self.show_lag(meters);
        let pause = self.backoff.next();
        let (next, retry_ms) = (self.acknowledged, u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        if self.failing {
            tracing::debug!(stream = self.name, %error, next, retry_ms, "a stream does not deliver");
        } else {
            self.failing = true;
            tracing::warn!(stream = self.name, %error, next, retry_ms, "a stream does not deliver; what waits stays in the log");
        }
        pause
    }
}

async fn timed<T>(work: impl Future<Output = Result<T, SinkError>>) -> Result<T, SinkError> {
    let late = |_| SinkError::TimedOut(SEND_TIMEOUT.as_secs());
    tokio::time::timeout(SEND_TIMEOUT, work).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_their_bounds() {
        let mut backoff = Backoff(RETRY.0);
        for full in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.next();
            assert!(wait <= Duration::from_secs(full) && wait >= Duration::from_millis(full * 500), "{wait:?} of {full}");
        }
    }

    #[test]
    fn a_window_reaches_back_as_far_as_may_be_lost() {
        let mut window = Window::default();
        assert_eq!(window.add(0, 60, 10, 100), 0);
        assert_eq!(window.add(10, 60, 20, 100), 0, "the last 60 bytes alone are not enough");
        assert_eq!(window.add(20, 60, 30, 100), 10);
        assert_eq!(window.add(30, 500, 40, 100), 30);
        assert_eq!(Window::default().add(0, 60, 10, 0), 10, "with acknowledgements nothing is sent again");
    }
}
