//! What a session did, in one line: derived from the log, kept for listings.

use crate::decode::Header;
use crate::kind::EventKind;
use crate::wire::{DecodeError, Reader, Writer};
use proxy_core::record::{OutcomeStatus, RecordedVerdict};
use proxy_core::{Event, SessionId, StoreError, Timestamp};
use serde::Serialize;

/// One session in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionSummary {
    /// The session.
    pub id: SessionId,
    /// Who: `ISSUER/SUBJECT`. Empty until its start has been seen, as all texts here.
    pub principal: String,
    /// `Service`, `Agent` or `Human`.
    pub principal_kind: String,
    /// The connection's name.
    pub connection: String,
    /// The database.
    pub database: String,
    /// The login that the gateway uses upstream.
    pub upstream_user: String,
    /// The peer's address and port.
    pub source: String,
    /// The listener's protocol.
    pub protocol: String,
    /// What the caller called itself.
    pub label: String,
    /// Application name, as the client says.
    pub application: String,
    /// When it started.
    pub started: Timestamp,
    /// When its last entry was made.
    pub last: Timestamp,
    /// When it ended; `None`: it is open, or the gateway was killed.
    pub ended: Option<Timestamp>,
    /// Why it ended.
    pub end_reason: Option<String>,
    /// Index of its first entry.
    pub first_index: u64,
    /// Index of its last entry.
    pub last_index: u64,
    /// Its entries in the log.
    pub entries: u64,
    /// Requests.
    pub requests: u64,
    /// Requests that were denied.
    pub denied: u64,
    /// Requests that were held.
    pub held: u64,
    /// Requests that the target failed, or whose result was refused.
    pub failed: u64,
    /// Rows returned or touched.
    pub rows: u64,
    /// Bytes returned to the client.
    pub bytes: u64,
}

impl SessionSummary {
    /// A session of which nothing is known but an entry.
    pub(crate) fn new(id: SessionId, index: u64, time: Timestamp) -> Self {
        Self {
            id,
            principal: String::new(),
            principal_kind: String::new(),
            connection: String::new(),
            database: String::new(),
            upstream_user: String::new(),
            source: String::new(),
            protocol: String::new(),
            label: String::new(),
            application: String::new(),
            started: time,
            last: time,
            ended: None,
            end_reason: None,
            first_index: index,
            last_index: index,
            entries: 0,
            requests: 0,
            denied: 0,
            held: 0,
            failed: 0,
            rows: 0,
            bytes: 0,
        }
    }

    /// Requests with that verdict.
    #[must_use]
    pub fn count(&self, verdict: RecordedVerdict) -> u64 {
        match verdict {
            RecordedVerdict::Allow => self.requests.saturating_sub(self.denied).saturating_sub(self.held),
            RecordedVerdict::Deny => self.denied,
            RecordedVerdict::Hold => self.held,
        }
    }

    /// Takes one more entry into account. `event` gives the whole entry, where the header is not enough.
    pub(crate) fn add(
        &mut self,
        index: u64,
        header: &Header,
        event: impl FnOnce() -> Result<Event, StoreError>,
    ) -> Result<(), StoreError> {
        self.last = header.time;
        self.last_index = index;
        self.entries += 1;
        match header.kind {
            EventKind::Request => {
                self.requests += 1;
                match header.verdict {
                    Some(RecordedVerdict::Deny) => self.denied += 1,
                    Some(RecordedVerdict::Hold) => self.held += 1,
                    Some(RecordedVerdict::Allow) | None => {}
                }
            }
            EventKind::Outcome => {
                let Some(outcome) = header.outcome else { return Ok(()) };
                let failed = matches!(outcome.status, OutcomeStatus::Failed | OutcomeStatus::Refused);
                self.failed += u64::from(failed);
                self.rows = self.rows.saturating_add(outcome.rows);
                self.bytes = self.bytes.saturating_add(outcome.bytes);
            }
            EventKind::SessionStarted | EventKind::SessionEnded => self.add_event(header.time, event()?),
            EventKind::GatewayStarted
            | EventKind::GatewayStopped
            | EventKind::Activated
            | EventKind::ReloadRefused
            | EventKind::LoginFailed
            | EventKind::Approval
            | EventKind::Administration
            | EventKind::LogRead
            | EventKind::ClockJump
            | EventKind::Heartbeat
            | EventKind::LogKey
            | EventKind::Destroyed => {}
        }
        Ok(())
    }

    fn add_event(&mut self, time: Timestamp, event: Event) {
        match event {
            Event::SessionStarted(started) => {
                self.principal = started.principal.id();
                started.principal.kind.as_str().clone_into(&mut self.principal_kind);
                self.connection = started.target.connection;
                self.database = started.target.database;
                self.upstream_user = started.target.upstream_user;
                self.source = started.source;
                self.protocol = started.protocol;
                self.label = started.label;
                self.application = started.application;
                self.started = time;
            }
            Event::SessionEnded { reason, .. } => {
                self.ended = Some(time);
                self.end_reason = Some(reason);
            }
            _ => {}
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer { out };
        let texts = [
            &self.principal,
            &self.principal_kind,
            &self.connection,
            &self.database,
            &self.upstream_user,
            &self.source,
            &self.protocol,
            &self.label,
            &self.application,
        ];
        for (field, text) in (1..).zip(texts) {
            w.bytes(field, text.as_bytes());
        }
        w.fixed(10, self.started.0);
        w.fixed(11, self.last.0);
        if let Some(ended) = self.ended {
            w.message(12, |w| w.fixed(1, ended.0));
        }
        w.optional(13, self.end_reason.as_deref().map(str::as_bytes));
        let counts = [
            self.first_index,
            self.last_index,
            self.entries,
            self.requests,
            self.denied,
            self.held,
            self.failed,
            self.rows,
            self.bytes,
        ];
        for (field, count) in (14..).zip(counts) {
            w.uint(field, count);
        }
    }

    pub(crate) fn decode(id: SessionId, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let summary = Self {
            id,
            principal: r.text(1)?,
            principal_kind: r.text(2)?,
            connection: r.text(3)?,
            database: r.text(4)?,
            upstream_user: r.text(5)?,
            source: r.text(6)?,
            protocol: r.text(7)?,
            label: r.text(8)?,
            application: r.text(9)?,
            started: Timestamp(r.fixed(10)?),
            last: Timestamp(r.fixed(11)?),
            ended: match r.optional(12)? {
                Some(bytes) => Some(Timestamp(Reader::new(bytes).fixed(1)?)),
                None => None,
            },
            end_reason: r.optional_text(13)?,
            first_index: r.uint(14)?,
            last_index: r.uint(15)?,
            entries: r.uint(16)?,
            requests: r.uint(17)?,
            denied: r.uint(18)?,
            held: r.uint(19)?,
            failed: r.uint(20)?,
            rows: r.uint(21)?,
            bytes: r.uint(22)?,
        };
        r.finish()?;
        Ok(summary)
    }
}
