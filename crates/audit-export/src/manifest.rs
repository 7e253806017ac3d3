//! What an export says of itself, so that who gets it can see that it is complete.

use crate::export::Totals;
use crate::format::Format;
use crate::text::rfc3339;
use proxy_core::Timestamp;
use serde::{Deserialize, Serialize};

/// The manifest's own version.
const VERSION: u32 = 1;

/// What was asked for. All texts as they were given; times also as they were understood.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Only of this principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Only on this connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Only of this session, in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Only with this verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Only of these kinds; empty: of any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// From this time on, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Before this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A part of the log: first and last index, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Index of the first entry; `None`: there is none.
    pub first: Option<u64>,
    /// Index of the last entry.
    pub last: Option<u64>,
    /// How many.
    pub count: u64,
}

/// Which log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// Entries in it when the export began.
    pub entries: u64,
}

/// The bytes that were exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// How many.
    pub bytes: u64,
    /// Their SHA-256, hexadecimal.
    pub sha256: String,
}

/// The manifest. There is one only for an export that is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `sallyport audit export`: what it is.
    pub manifest: String,
    /// The manifest's version: 1.
    pub version: u32,
    /// The format's name.
    pub format: String,
    /// Which version of it.
    pub format_version: String,
    /// What was asked for.
    pub query: Query,
    /// Who asked.
    pub by: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// When it was complete.
    pub finished: String,
    /// The version of the program that wrote it.
    pub program: String,
    /// Which log.
    pub log: Log,
    /// The entries that were looked at: without gaps, all of the log when it began.
    pub looked_at: Looked,
    /// Those of them that passed the query, one row each.
    pub exported: Looked,
    /// The bytes.
    pub data: Data,
}

impl Manifest {
    /// Of an export that has ended.
    #[must_use]
    pub fn new(format: Format, query: Query, by: String, times: [Timestamp; 2], program: &str, totals: &Totals) -> Self {
        let [started, finished] = times.map(rfc3339);
        Self {
            manifest: "sallyport audit export".to_owned(),
            version: VERSION,
            format: format.as_str().to_owned(),
            format_version: format.version().to_owned(),
            query,
            by,
            started,
            finished,
            program: program.to_owned(),
            log: Log { id: totals.log_id.clone(), entries: totals.entries },
            looked_at: Looked {
                first: (totals.entries > 0).then_some(0),
                last: totals.entries.checked_sub(1),
                count: totals.entries,
            },
            exported: Looked { first: totals.first, last: totals.last, count: totals.rows },
            data: Data { bytes: totals.bytes, sha256: totals.sha256.clone() },
        }
    }
}
