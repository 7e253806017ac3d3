//! Entries that are sent together, in their format.

use super::{BATCH_BYTES, BATCH_ENTRIES, SYSLOG_TEXT_MAX};
use crate::config::{Destination, Stream};
use audit_export::{Contexts, Encoder, ExportError, LogInfo, Texts, encoder, session_of};
use audit_store::{EntryFilter, EventKind, Reader, StoredEntry};
use proxy_core::record::{OutcomeStatus, RecordedVerdict};
use proxy_core::{Event, Timestamp};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) index: u64,
    pub(super) time: Timestamp,
    pub(super) kind: EventKind,
    pub(super) session: Option<String>,
    pub(super) weight: Weight,
    /// One line, without its line break.
    pub(super) line: Vec<u8>,
}

/// How much an entry matters to whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// What happens all day.
    Information,
    /// What somebody changed.
    Notice,
    /// What was refused, or failed in a way that the target did not choose.
    Warning,
}

impl Weight {
    fn of(stored: &StoredEntry) -> Self {
        match &stored.entry.event {
            Event::LoginFailed { .. } | Event::ReloadRefused { .. } | Event::ClockJump { .. } => Self::Warning,
            Event::Request(record) => match record.verdict {
                RecordedVerdict::Deny => Self::Warning,
                RecordedVerdict::Hold => Self::Notice,
                RecordedVerdict::Allow => Self::Information,
            },
            Event::Outcome(outcome) if outcome.status == OutcomeStatus::Refused => Self::Warning,
            Event::GatewayStarted { .. }
            | Event::GatewayStopped { .. }
            | Event::Activated { .. }
            | Event::Approval { .. }
            | Event::Administration { .. }
            | Event::LogRead { .. }
            | Event::LogKey(_)
            | Event::Destroyed(_) => Self::Notice,
            Event::SessionStarted(_) | Event::SessionEnded { .. } | Event::Outcome(_) | Event::Heartbeat => Self::Information,
        }
    }
}

/// Entries in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    /// Where to go on after them; `items` may be empty although this moves.
    pub(super) next: u64,
    /// Entries that should have been there: the log does not have them any more.
    pub(super) missing: u64,
    /// Parts of entries that the log does not have any more.
    pub(super) withheld: usize,
}

impl Batch {
    /// Bytes of all lines, each with a line break.
    pub(super) fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.line.len() + 1).sum()
    }

    /// All lines.
    pub(super) fn lines(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        for item in &self.items {
            out.extend_from_slice(&item.line);
            out.push(b'\n');
        }
        out
    }
}

/// Makes batches. Every call may wait for the disk.
pub(super) struct Source {
    reader: Reader,
    filter: EntryFilter,
    contexts: Contexts,
    encoder: Box<dyn Encoder>,
}

impl Source {
    pub(super) fn new(stream: &Stream, log: &LogInfo, reader: Reader) -> Self {
        let texts = match stream.to {
            Destination::Syslog { .. } => Texts::Cut(SYSLOG_TEXT_MAX),
            Destination::Http { .. } | Destination::Otlp { .. } => Texts::Whole,
        };
        let filter = EntryFilter { kinds: stream.kinds.clone(), ..EntryFilter::default() };
        Self { reader, filter, contexts: Contexts::default(), encoder: encoder(stream.format, log, texts) }
    }

    /// The next entries from `from` on and before `end`, as many as are sent at once.
    pub(super) fn batch(&mut self, from: u64, end: u64) -> Result<Batch, ExportError> {
        let page = self.reader.tail(from, &self.filter, BATCH_ENTRIES)?;
        let mut batch =
            Batch { items: Vec::new(), next: page.next.unwrap_or(end).clamp(from, end.max(from)), missing: 0, withheld: 0 };
        let (mut expected, mut bytes) = (from, 0);
        for stored in page.items {
            if stored.index >= end {
                break;
            }
            if bytes >= BATCH_BYTES {
                batch.next = stored.index;
                break;
            }
            // Only without a filter is a gap in what is read one in the log.
            if self.filter.kinds.is_empty() {
                batch.missing += stored.index.saturating_sub(expected);
            }
            expected = stored.index + 1;
            batch.withheld += stored.withheld.len();
            let session = self.contexts.of(&self.reader, &stored)?;
            let mut line = Vec::new();
            self.encoder.entry(session.as_deref(), &stored, &mut line)?;
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            bytes += line.len();
            let (time, kind, weight) = (stored.entry.time, stored.kind(), Weight::of(&stored));
            batch.items.push(Item { index: stored.index, time, kind, session: session_of(&stored), weight, line });
        }
        Ok(batch)
    }
}
