//! One request on its way at the upstream, and what is to be recorded of it.

use super::rows::Columns;
use crate::copy::Rewriter;
use crate::facts::NameEffects;
use crate::limits::TAG_MAX;
use bytes::Bytes;
use proxy_core::pipeline::Permit;
use proxy_core::record::{Outcome, OutcomeStatus};
use proxy_core::{Disclosure, RequestId, Timestamp};
use std::collections::BTreeSet;

/// What the upstream streams for the request.
#[derive(Debug)]
pub(super) enum Copying {
    /// No COPY.
    No,
    /// The client sends.
    In,
    /// The upstream sends; the rewriter masks.
    Out(Option<Box<Rewriter>>),
    /// Both.
    Both,
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) request: RequestId,
    pub(super) permit: Permit,
    pub(super) disclosure: Disclosure,
    pub(super) copying: Copying,
    /// The columns of the current result, where they are known and one is masked.
    pub(super) columns: Option<Columns>,
    /// Whether a result with rules has been described: rows before that are a violation.
    pub(super) described: bool,
    /// Whether anything that can end a simple query has come.
    pub(super) answered: bool,
    pub(super) refused: bool,
    pub(super) bytes: u64,
    sent: Timestamp,
    code: Option<Bytes>,
    tags: Bytes,
    rows: u64,
    /// Rows of the current result, for when its tag names no number.
    counted: u64,
    pub(super) passed: u32,
    pub(super) masked: u32,
    pub(super) refused_columns: u32,
    classes: BTreeSet<String>,
    /// Whether a command of the batch is complete that may have changed what columns mean.
    pub(super) changed: bool,
    /// What its tags say that it did to names.
    pub(super) effects: NameEffects,
}

impl Running {
    pub(super) fn new(request: RequestId, permit: Permit, disclosure: Disclosure, sent: Timestamp) -> Self {
        Self {
            request,
            permit,
            disclosure,
            copying: Copying::No,
            columns: None,
            described: false,
            answered: false,
            refused: false,
            bytes: 0,
            sent,
            code: None,
            tags: Bytes::new(),
            rows: 0,
            counted: 0,
            passed: 0,
            masked: 0,
            refused_columns: 0,
            classes: BTreeSet::new(),
            changed: false,
            effects: NameEffects::default(),
        }
    }

    /// One more row.
    #[inline]
    pub(super) fn row(&mut self, count: u64) {
        self.counted = self.counted.saturating_add(count);
    }

    /// Bytes that went to the client.
    #[inline]
    pub(super) fn passed_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// The columns of a result that passes unread: known from its first row.
    pub(super) fn first_row(&mut self, columns: u16) {
        if self.counted == 0 && !self.described {
            self.passed = self.passed.saturating_add(u32::from(columns));
        }
    }

    pub(super) fn masks_class(&mut self, class: &str) {
        if !self.classes.contains(class) {
            self.classes.insert(class.to_owned());
        }
    }

    /// CommandComplete, EmptyQueryResponse or PortalSuspended: one result ends.
    pub(super) fn complete(&mut self, tag: &[u8]) {
        self.effects = self.effects.or(NameEffects::of_tag(tag));
        self.changed |= !keeps_columns(tag);
        if !tag.is_empty() && self.tags.len().saturating_add(tag.len()) < TAG_MAX {
            self.tags = match &self.tags[..] {
                [] => Bytes::copy_from_slice(tag),
                before => [before, b";", tag].concat().into(),
            };
        }
        self.rows = self.rows.saturating_add(rows_of(tag).unwrap_or(self.counted));
        self.counted = 0;
        self.columns = None;
        self.described = false;
        self.answered = true;
        self.copying = Copying::No;
    }

    /// The upstream failed it.
    pub(super) fn fail(&mut self, code: &[u8]) {
        self.code = Some(Bytes::copy_from_slice(code.get(..5).unwrap_or(code)));
        self.rows = self.rows.saturating_add(self.counted);
        self.counted = 0;
        self.columns = None;
        self.answered = true;
        self.copying = Copying::No;
    }

    /// Whether the upstream failed it.
    pub(super) fn failed(&self) -> bool {
        self.code.is_some()
    }

    /// What is recorded when it ends with `status`.
    pub(super) fn outcome(self, status: OutcomeStatus, now: Timestamp) -> Outcome {
        Outcome {
            request: self.request,
            status: if self.refused { OutcomeStatus::Refused } else { status },
            code: self.code,
            tag: (!self.tags.is_empty()).then_some(self.tags),
            rows: self.rows.saturating_add(self.counted),
            bytes: self.bytes,
            duration_micros: now.micros_since(self.sent),
            columns_passed: self.passed,
            columns_masked: self.masked,
            columns_refused: self.refused_columns,
            masked_classes: if self.classes.is_empty() { Vec::new() } else { self.classes.into_iter().collect() },
        }
    }
}

/// Whether a command with this tag leaves tables and views as they are.
fn keeps_columns(tag: &[u8]) -> bool {
    let first = tag.split(|b| *b == b' ').next().unwrap_or_default();
    [&b""[..], b"BEGIN", b"START", b"SELECT", b"SET", b"SHOW", b"COPY"].contains(&first)
}

/// The number at the end of a tag: `SELECT 3`, `INSERT 0 5`, `COPY 10`.
fn rows_of(tag: &[u8]) -> Option<u64> {
    let last = tag.rsplit(|b| *b == b' ').next()?;
    std::str::from_utf8(last).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::rows_of;

    #[test]
    fn rows_come_from_the_tag() {
        assert_eq!(rows_of(b"SELECT 3"), Some(3));
        assert_eq!(rows_of(b"INSERT 0 5"), Some(5));
        assert_eq!(rows_of(b"CREATE TABLE"), None);
        assert_eq!(rows_of(b""), None);
    }
}
