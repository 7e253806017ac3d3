//! Exports of the log: what is asked for, how it is recorded, and how it travels from the gateway to the command line.

use crate::log::{Filter, InvalidFilter, LogError, find_session};
use crate::units::show_time;
use audit_export::{Export, Format, Manifest, Query, Totals};
use audit_store::{EntryFilter, Reader};
use proxy_core::record::Event;
use proxy_core::{StoreError, Timestamp};
use proxy_io::clock::now;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is exported, as the log's entries name it.
const OBJECT: &str = "the audit log";

/// An export that was asked for and makes sense.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its format.
    pub format: Format,
    /// Which entries.
    pub filter: EntryFilter,
    /// The same for the manifest: sessions in full, times as points in time.
    pub query: Query,
    /// When it was asked for.
    pub started: Timestamp,
}

/// Why an export cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The filter makes no sense.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// The log cannot answer.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Plan {
    /// An export of the entries of some kinds (empty: all) that pass.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(
        reader: &Reader,
        format: Format,
        given: &Filter,
        session: Option<&str>,
        kinds: &[String],
    ) -> Result<Self, PlanError> {
        let mut filter = given.entries(kinds)?;
        filter.session = session.map(|name| find_session(reader, name)).transpose()?;
        let query = Query {
            principal: given.principal.clone(),
            connection: given.connection.clone(),
            session: filter.session.map(|id| id.to_string()),
            verdict: given.verdict.clone(),
            kinds: kinds.to_vec(),
            since: filter.since.map(show_time),
            until: filter.until.map(show_time),
        };
        Ok(Self { format, filter, query, started: now() })
    }

    /// The export, over the log as it is now. Call it after [`Plan::begun`] was recorded.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn export(&self, reader: Reader) -> Result<Export, StoreError> {
        let host = crate::machine::host_name().unwrap_or_else(|| "unknown".to_owned());
        Export::new(reader, self.filter.clone(), self.format, env!("CARGO_PKG_VERSION"), &host)
    }

    /// The manifest of the export when it is complete.
    #[must_use]
    pub fn manifest(&self, by: &str, totals: &Totals) -> Manifest {
        let times = [self.started, now()];
        Manifest::new(self.format, self.query.clone(), by.to_owned(), times, env!("CARGO_PKG_VERSION"), totals)
    }

    fn asked(&self) -> Value {
        json!({ "format": self.format, "query": self.query })
    }

    /// The entry that must be in the log before the first byte leaves.
    #[must_use]
    pub fn begun(&self, by: String) -> Event {
        Event::LogRead { by, query: format!("export {}", self.asked()) }
    }

    /// The entry about an export that did not come to its end.
    #[must_use]
    pub fn broken_off(&self, by: String, why: &str) -> Event {
        let details = [("format", self.format.to_string()), ("query", json!(self.query).to_string()), ("why", why.to_owned())];
        let details = details.map(|(name, value)| (name.to_owned(), value)).into();
        Event::Administration { by, action: "log export broken off".to_owned(), object: OBJECT.to_owned(), details }
    }
}

/// The entry about an export that is complete, with what its manifest says.
#[must_use]
pub fn completed(manifest: &Manifest) -> Event {
    let index = |index: Option<u64>| index.map_or_else(|| "none".to_owned(), |index| index.to_string());
    let details = BTreeMap::from(
        [
            ("format", manifest.format.clone()),
            ("query", json!(manifest.query).to_string()),
            ("log_entries", manifest.log.entries.to_string()),
            ("rows", manifest.exported.count.to_string()),
            ("first", index(manifest.exported.first)),
            ("last", index(manifest.exported.last)),
            ("bytes", manifest.data.bytes.to_string()),
            ("sha256", manifest.data.sha256.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Event::Administration { by: manifest.by.clone(), action: "log exported".to_owned(), object: OBJECT.to_owned(), details }
}

/// One message of the stream from the gateway to the command line: a tag, a length in four bytes (big-endian), and so
/// many bytes. The last one is [`Frame::Manifest`]; a stream that ends before it was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// `P`: entries that were looked at, and all of them, eight bytes each.
    Progress(u64, u64),
    /// `D`: the next bytes of the data.
    Data(Vec<u8>),
    /// `M`: the manifest, JSON.
    Manifest(Vec<u8>),
    /// `E`: why it ended before its end.
    Failed(String),
}

/// Longest data in a frame that is sent (1 MiB).
pub const FRAME_DATA_MAX: usize = 1 << 20;
/// Longest frame that is read (16 MiB).
const FRAME_MAX: usize = 16 << 20;

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway's answer is not an export")]
pub struct NotAFrame;

impl Frame {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let (tag, body) = match self {
            Self::Progress(looked_at, all) => (b'P', [looked_at.to_be_bytes(), all.to_be_bytes()].concat()),
            Self::Data(data) => (b'D', data),
            Self::Manifest(json) => (b'M', json),
            Self::Failed(why) => (b'E', why.into_bytes()),
        };
        let mut out = Vec::with_capacity(body.len() + 5);
        out.push(tag);
        out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Takes the first frame off `bytes`; `None`: it is not there in full yet.
    ///
    /// # Errors
    /// [`NotAFrame`].
    pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Self>, NotAFrame> {
        let Some((tag, length)) = bytes.first().copied().zip(bytes.get(1..5)) else { return Ok(None) };
        let length: [u8; 4] = length.try_into().map_err(|_| NotAFrame)?;
        let end = 5 + usize::try_from(u32::from_be_bytes(length)).map_err(|_| NotAFrame)?;
        if end > FRAME_MAX {
            return Err(NotAFrame);
        }
        if bytes.len() < end {
            return Ok(None);
        }
        let body = bytes.get(5..end).unwrap_or_default().to_vec();
        bytes.drain(..end);
        let number = |at: usize| body.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_be_bytes);
        Ok(Some(match tag {
            b'P' => Self::Progress(number(0).ok_or(NotAFrame)?, number(8).ok_or(NotAFrame)?),
            b'D' => Self::Data(body),
            b'M' => Self::Manifest(body),
            b'E' => Self::Failed(String::from_utf8_lossy(&body).into_owned()),
            _ => return Err(NotAFrame),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let frames = [Frame::Progress(3, 9), Frame::Data(vec![0; 70_000]), Frame::Data(vec![]), Frame::Manifest(b"{}".to_vec())];
        let bytes: Vec<u8> = frames.iter().cloned().flat_map(Frame::encode).collect();
        for size in [1, 7, 4_096, bytes.len()] {
            let (mut held, mut found) = (Vec::new(), Vec::new());
            for part in bytes.chunks(size) {
                held.extend_from_slice(part);
                while let Some(frame) = Frame::take(&mut held).unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames);
            assert!(held.is_empty());
        }
        assert_eq!(Frame::take(&mut b"X\0\0\0\0".to_vec()), Err(NotAFrame));
        assert_eq!(Frame::take(&mut b"D\xff\xff\xff\xff".to_vec()), Err(NotAFrame));
        assert_eq!(Frame::take(&mut b"D\0\0\0\x01".to_vec()), Ok(None));
    }
}
