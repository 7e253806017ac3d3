//! Does the log hold together? Indices, sessions, encodings, payloads. (Whether it is the log that was
//! written is what checkpoints and the Merkle tree will say.)

use crate::db::Db;
use crate::decode::{self, Commitment};
use crate::kind::EventKind;
use crate::limits::FINDINGS_MAX;
use crate::log::{self, Chunks, Leaves};
use hashbrown::HashMap;
use proxy_core::{SessionId, StoreError};
use serde::Serialize;

/// Entries between two reports of progress.
const PROGRESS_EVERY: u64 = 65_536;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Index of the first entry that was to be checked.
    pub from: u64,
    /// The index after the last.
    pub to: u64,
    /// Entries that were read.
    pub entries: u64,
    /// Sessions that were seen.
    pub sessions: u64,
    /// Payloads that were checked against their commitment.
    pub payloads: u64,
    /// Payloads that are not kept any more.
    pub withheld: u64,
    /// What is wrong; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Findings in all.
    pub finding_count: u64,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.finding_count == 0
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub index: u64,
    /// In which session.
    pub session: Option<SessionId>,
    /// What, in words.
    pub what: String,
}

struct Check<'d> {
    db: &'d Db,
    /// From the beginning of the log: every session's numbers must begin at 0.
    whole: bool,
    /// The next number of each open session.
    sessions: HashMap<SessionId, u64>,
    result: Verification,
}

/// Checks the entries from `from` to before `to`.
pub(crate) fn sequence(db: &Db, from: u64, to: u64, mut progress: impl FnMut(u64)) -> Result<Verification, StoreError> {
    let result =
        Verification { from, to, entries: 0, sessions: 0, payloads: 0, withheld: 0, findings: Vec::new(), finding_count: 0 };
    let mut check = Check { db, whole: from == 0, sessions: HashMap::new(), result };
    let mut expected = from;
    let mut reported = 0;
    let mut chunks = Chunks::new(db, true)?;
    let mut moved = chunks.seek(from);
    while expected < to {
        if let Err(error) = moved {
            // What cannot be read cannot be stepped over either: the rest of the file's block is gone.
            check.finding(expected, None, format!("{error}; nothing after it was checked"));
            return Ok(check.finish());
        }
        let current = match chunks.current() {
            Ok(current) => current,
            Err(error) => {
                check.finding(expected, None, error.to_string());
                return Ok(check.finish());
            }
        };
        let Some((first, chunk)) = current else { break };
        if first > expected {
            check.finding(expected, None, format!("entries {expected} to {} are missing", first.min(to) - 1));
            expected = first;
        }
        for (index, leaf) in (first..to).zip(Leaves::new(chunk)) {
            if index < expected {
                continue;
            }
            expected = index + 1;
            match leaf {
                Ok(leaf) => check.leaf(index, leaf)?,
                Err(error) => check.finding(index, None, error.to_string()),
            }
        }
        if check.result.entries - reported >= PROGRESS_EVERY {
            reported = check.result.entries;
            progress(reported);
        }
        moved = chunks.next();
    }
    if expected < to {
        check.finding(expected, None, format!("entries {expected} to {} are missing", to - 1));
    }
    progress(check.result.entries);
    Ok(check.finish())
}

impl Check<'_> {
    fn finding(&mut self, index: u64, session: Option<SessionId>, what: String) {
        self.result.finding_count += 1;
        if self.result.findings.len() < FINDINGS_MAX {
            self.result.findings.push(Finding { index, session, what });
        }
    }

    fn finish(self) -> Verification {
        self.result
    }

    fn leaf(&mut self, index: u64, leaf: &[u8]) -> Result<(), StoreError> {
        self.result.entries += 1;
        let commitments = match decode::commitments(leaf) {
            Ok(commitments) => commitments,
            Err(error) => {
                self.finding(index, None, error.to_string());
                return Ok(());
            }
        };
        for commitment in &commitments {
            self.payload(index, commitment)?;
        }
        match log::decode(self.db, index, leaf) {
            Ok(decoded) => {
                let kind = EventKind::of(&decoded.entry.event);
                if let Some((session, number)) = decoded.entry.session {
                    self.number(index, session, number, kind);
                }
            }
            // Already a finding, with the field's name.
            Err(_) if !commitments.is_empty() && self.result.findings.last().is_some_and(|last| last.index == index) => {}
            Err(error) => self.finding(index, None, error.to_string()),
        }
        Ok(())
    }

    fn payload(&mut self, index: u64, commitment: &Commitment) -> Result<(), StoreError> {
        match self.db.payload(index, commitment.field) {
            Ok(None) => self.result.withheld += 1,
            Ok(Some(payload)) => {
                self.result.payloads += 1;
                if let Err(error) = decode::open_payload(commitment, &payload) {
                    self.finding(index, None, error.to_string());
                }
            }
            Err(StoreError::Corrupt(error)) => {
                self.finding(index, None, format!("the payload of field {}: {error}", commitment.field));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn number(&mut self, index: u64, session: SessionId, number: u64, kind: EventKind) {
        let expected = self.sessions.get(&session).copied();
        if expected.is_none() {
            self.result.sessions += 1;
        }
        // A session that began before the range begins with whatever number it had come to.
        let expected = expected.unwrap_or(if self.whole { 0 } else { number });
        if number > expected {
            let what = format!("the session's entries {expected} to {} are missing", number - 1);
            self.finding(index, Some(session), what);
        } else if number < expected {
            self.finding(index, Some(session), format!("the session's entry {number} comes after {}", expected - 1));
        }
        if kind == EventKind::SessionEnded {
            self.sessions.remove(&session);
        } else {
            self.sessions.insert(session, number.saturating_add(1));
        }
    }
}
