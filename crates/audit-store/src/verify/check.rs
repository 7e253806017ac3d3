//! One entry after the other: encodings, payloads, sessions, keys, and the tree that they make.

use super::explained::Explained;
use super::keys::Chain;
use super::{Finding, Verification, kept};
use crate::db::Stored;
use crate::decode::{self, Commitment};
use crate::encode::may_be_sealed;
use crate::kind::EventKind;
use crate::limits::FINDINGS_MAX;
use crate::seal::{PayloadKeys, key_of};
use crate::wire::DecodeError;
use hashbrown::HashMap;
use proxy_core::{Event, SessionId, StoreError};
use tlog::merkle::{Frontier, Hash, Node, leaf_hash};

/// Entries between two reports of progress.
const PROGRESS_EVERY: u64 = 65_536;

/// What lies beside the leaves, wherever they come from.
pub(super) trait Beside {
    /// What is kept beside the entry at `index` for a field; `None`: nothing.
    fn payload(&mut self, index: u64, field: u32) -> Result<Option<Stored>, StoreError>;

    /// The hash of a complete subtree, as whoever keeps the log says; `None`: it says nothing of this one.
    fn node(&mut self, node: Node) -> Result<Option<Hash>, StoreError>;

    /// The smallest checkpoint of more than `size` entries that is kept beside the last one.
    fn kept_after(&mut self, size: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let _ = size;
        Ok(None)
    }
}

/// The checks, while entries come in order.
pub(super) struct Check<'p, B> {
    pub(super) beside: B,
    /// From the beginning of the log: every session's numbers must begin at 0, and there is a tree.
    whole: bool,
    /// The next entry that must come.
    expected: u64,
    /// Of each open session, its next number, and how many entries had been destroyed when it was seen last.
    sessions: HashMap<SessionId, (u64, u64)>,
    frontier: Frontier,
    /// Sizes of which the root is wanted, the greatest first.
    wanted: Vec<u64>,
    roots: HashMap<u64, Hash>,
    /// The next of the checkpoints that are kept.
    kept: Option<(u64, Vec<u8>)>,
    pub(super) chain: Chain,
    /// What sealed payloads are opened with.
    pub(super) keys: Option<PayloadKeys>,
    explained: Explained,
    /// The log is read the second time, only for what is missing.
    again: bool,
    pub(super) result: Verification,
    reported: u64,
    progress: &'p mut dyn FnMut(u64),
}

impl<'p, B: Beside> Check<'p, B> {
    /// Checks of the entries from `from` to before `to`; the roots of `wanted` sizes will be known.
    pub(super) fn new(beside: B, from: u64, to: u64, mut wanted: Vec<u64>, progress: &'p mut dyn FnMut(u64)) -> Self {
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        wanted.dedup();
        let mut check = Self {
            beside,
            whole: from == 0,
            expected: from,
            sessions: HashMap::new(),
            frontier: Frontier::default(),
            wanted,
            roots: HashMap::new(),
            kept: None,
            chain: Chain::default(),
            keys: None,
            explained: Explained::default(),
            again: false,
            result: Verification::new(from, to),
            reported: 0,
            progress,
        };
        check.keep_root();
        check
    }

    /// The next entry that must come.
    pub(super) fn expected(&self) -> u64 {
        self.expected
    }

    /// The root of the first `size` entries, where it was wanted and nothing is missing before it.
    pub(super) fn root(&self, size: u64) -> Option<Hash> {
        self.roots.get(&size).copied()
    }

    pub(super) fn finding(&mut self, index: u64, session: Option<SessionId>, what: impl Into<String>) {
        self.result.finding_count += 1;
        if self.result.findings.len() < FINDINGS_MAX {
            self.result.findings.push(Finding { index, session, what: what.into() });
        }
    }

    /// Entries up to `index` are not there.
    pub(super) fn missing(&mut self, index: u64) {
        if index > self.expected {
            self.finding(self.expected, None, format!("entries {} to {} are missing", self.expected, index - 1));
            self.expected = index;
        }
    }

    /// Begins to read the log again, where contents are missing that were there: whether an entry of it says so. `false`:
    /// nothing is missing, or not the whole log was read.
    pub(super) fn begin_again(&mut self) -> bool {
        self.again = self.whole && !self.again && self.result.withheld + self.result.destroyed > 0;
        if self.again {
            self.expected = 0;
        }
        self.again
    }

    /// There are no more entries, and there should be those before `to`.
    pub(super) fn end(&mut self, to: u64) {
        if self.again {
            for (index, what) in self.explained.excess() {
                self.finding(index, None, what);
            }
        } else {
            self.missing(to);
        }
        self.expected = to;
    }

    /// Takes the next entry.
    pub(super) fn take(&mut self, index: u64, leaf: Result<&[u8], DecodeError>) -> Result<(), StoreError> {
        if self.again {
            self.expected = index + 1;
            return leaf.map_or(Ok(()), |leaf| self.explain(index, leaf));
        }
        self.missing(index);
        self.expected = index + 1;
        match leaf {
            Ok([]) => self.destroyed(index)?,
            Ok(leaf) => self.leaf(index, leaf)?,
            Err(error) => self.finding(index, None, error.to_string()),
        }
        self.settle_kept()?;
        if self.result.entries - self.reported >= PROGRESS_EVERY {
            self.reported = self.result.entries;
            (self.progress)(self.reported);
        }
        Ok(())
    }

    /// Says how far it came, and gives what was found.
    pub(super) fn finish(self) -> Verification {
        (self.progress)(self.result.entries);
        self.result
    }

    /// Takes an entry that was destroyed: its hash is all that is left of it.
    fn destroyed(&mut self, index: u64) -> Result<(), StoreError> {
        self.result.entries += 1;
        self.result.destroyed += 1;
        match self.beside.node(Node { level: 0, index })? {
            Some(hash) => self.hash(index, hash),
            None => {
                self.finding(index, None, "the entry was destroyed, and its hash is missing");
                Ok(())
            }
        }
    }

    /// Whether an entry of the log says of what is missing that it was destroyed.
    fn explain(&mut self, index: u64, leaf: &[u8]) -> Result<(), StoreError> {
        if leaf.is_empty() {
            if !self.explained.entry(index) {
                self.finding(index, None, "the entry is not there, and none says that it was destroyed");
            }
            return Ok(());
        }
        // What cannot be read was said.
        let Ok(commitments) = decode::commitments(leaf) else { return Ok(()) };
        for commitment in commitments {
            let missing = self.beside.payload(index, commitment.field)?.is_none();
            if missing && !self.explained.field(index, leaf, commitment.field) {
                let name = decode::header(leaf).map(|header| header.kind.field_name(commitment.field)).unwrap_or_default();
                self.finding(index, None, format!("its {name} is not there, and no entry says that it was destroyed"));
            }
        }
        if let Ok(decoded) = decode::decode(leaf, |_| Ok::<_, DecodeError>(None)) {
            self.explained.see(&decoded.entry);
        }
        Ok(())
    }

    fn leaf(&mut self, index: u64, leaf: &[u8]) -> Result<(), StoreError> {
        self.result.entries += 1;
        self.hash(index, leaf_hash(leaf))?;
        let commitments = match decode::commitments(leaf) {
            Ok(commitments) => commitments,
            Err(error) => {
                self.finding(index, None, error.to_string());
                return Ok(());
            }
        };
        let kind = match decode::header(leaf) {
            Ok(header) => header.kind,
            Err(error) => {
                self.finding(index, None, error.to_string());
                return Ok(());
            }
        };
        let mut contents = HashMap::new();
        for commitment in &commitments {
            if let Some(content) = self.payload(index, kind, commitment)? {
                contents.insert(commitment.field, content);
            }
        }
        let before = self.result.finding_count;
        match decode::decode(leaf, |of| Ok::<_, DecodeError>(contents.remove(&of.field))) {
            Ok(decoded) => {
                if let Some((session, number)) = decoded.entry.session {
                    self.number(index, session, number, EventKind::of(&decoded.entry.event));
                }
                match &decoded.entry.event {
                    Event::LogKey(key) if self.whole => {
                        if let Err(what) = self.chain.add(index, key) {
                            self.finding(index, None, what);
                        }
                    }
                    Event::Destroyed(destroyed) => self.explained.add(index, destroyed),
                    _ => {}
                }
            }
            // What is wrong with a payload was said, with the field's name.
            Err(_) if before > 0 && self.result.findings.last().is_some_and(|last| last.index == index) => {}
            Err(error) => self.finding(index, None, error.to_string()),
        }
        Ok(())
    }

    /// Adds the leaf to the tree, and compares with what the log's keeper says of it.
    fn hash(&mut self, index: u64, leaf: Hash) -> Result<(), StoreError> {
        if !self.whole || self.frontier.size() != index {
            return Ok(());
        }
        let (beside, mut differs, mut failed) = (&mut self.beside, None, Ok(()));
        self.frontier.push(leaf, |node, hash| match beside.node(node) {
            // The lowest that differs says most.
            Ok(Some(known)) if known != *hash && differs.is_none() => differs = Some(node),
            Ok(_) => {}
            Err(error) => failed = Err(error),
        });
        failed?;
        if let Some(node) = differs {
            let (first, next) = (node.index << node.level, (node.index + 1) << node.level);
            self.finding(
                first,
                None,
                if node.level == 0 {
                    "it is not the entry that the tree has here: it was altered, or another was put in its place".to_owned()
                } else {
                    format!(
                        "entries {first} to {} are not those that the tree has: one of them was altered, or they were reordered",
                        next - 1
                    )
                },
            );
        }
        self.keep_root();
        Ok(())
    }

    fn keep_root(&mut self) {
        while self.wanted.last().is_some_and(|size| *size <= self.frontier.size()) {
            if let Some(size) = self.wanted.pop().filter(|size| *size == self.frontier.size()) {
                self.roots.insert(size, self.frontier.root());
            }
        }
    }

    /// Begins with the first of the checkpoints that are kept.
    pub(super) fn begin_kept(&mut self) -> Result<(), StoreError> {
        self.kept = self.beside.kept_after(0)?;
        Ok(())
    }

    /// Compares the checkpoints that are kept of as many entries as were read.
    fn settle_kept(&mut self) -> Result<(), StoreError> {
        let size = self.frontier.size();
        while let Some((claimed, note)) = self.kept.take_if(|(claimed, _)| *claimed <= size) {
            // Of one that the tree has passed, an entry before it is missing: that was said.
            if claimed == size {
                match kept::check(&note, size, &self.frontier.root(), &self.chain) {
                    Ok(()) => self.result.kept += 1,
                    Err(what) => self.finding(size.saturating_sub(1), None, what),
                }
            }
            self.kept = self.beside.kept_after(claimed)?;
        }
        Ok(())
    }

    /// Checks a payload; its salt and content, where it holds.
    fn payload(&mut self, index: u64, kind: EventKind, commitment: &Commitment) -> Result<Option<Vec<u8>>, StoreError> {
        let payload = match self.beside.payload(index, commitment.field) {
            Ok(None) => {
                self.result.withheld += 1;
                return Ok(None);
            }
            Ok(Some(Stored::Plain(payload))) => {
                let held = decode::open_payload(commitment, &payload).map(|_| ());
                held.map(|()| payload)
            }
            Ok(Some(Stored::Sealed(_))) if !may_be_sealed(kind) => {
                let name = kind.field_name(commitment.field);
                self.finding(index, None, format!("its {name} is sealed, and every verifier needs it"));
                return Ok(None);
            }
            Ok(Some(Stored::Sealed(sealed))) => match self.unseal(index, commitment, &sealed) {
                Some(opened) => opened,
                None => return Ok(None),
            },
            Err(StoreError::Corrupt(error)) => {
                self.finding(index, None, format!("the payload of field {}: {error}", commitment.field));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.result.payloads += 1;
        match payload {
            Ok(payload) => Ok(Some(payload)),
            Err(error) => {
                self.finding(index, None, error.to_string());
                Ok(None)
            }
        }
    }

    /// Opens a sealed payload; `None`: it cannot be.
    fn unseal(&mut self, index: u64, commitment: &Commitment, sealed: &[u8]) -> Option<Result<Vec<u8>, DecodeError>> {
        let Some(id) = key_of(sealed) else {
            let what = format!("the payload of field {} is sealed in no form that is known, or cut off", commitment.field);
            self.finding(index, None, what);
            return None;
        };
        let opened = self.keys.as_ref().map(|keys| keys.open(commitment, sealed));
        match opened {
            Some(Ok(Some(payload))) => return Some(Ok(payload)),
            Some(Err(error)) => return Some(Err(error)),
            // Whoever has the log's keys has all of them: this is none of its payloads.
            Some(Ok(None)) => {
                let what =
                    format!("the payload of field {} is sealed with the key {id}, which is none of the log's", commitment.field);
                self.finding(index, None, what);
            }
            None => {}
        }
        self.result.sealed += 1;
        None
    }

    fn number(&mut self, index: u64, session: SessionId, number: u64, kind: EventKind) {
        let known = self.sessions.get(&session).copied();
        if known.is_none() {
            self.result.sessions += 1;
        }
        let gone = self.result.destroyed;
        // A session that began before the range begins with whatever number it had come to.
        let (expected, before) = known.unwrap_or((if self.whole { 0 } else { number }, 0));
        // Entries in between may be among those that were destroyed.
        if number > expected && number - expected > gone - before {
            let what = format!("the session's entries {expected} to {} are missing", number - 1);
            self.finding(index, Some(session), what);
        } else if number < expected {
            self.finding(index, Some(session), format!("the session's entry {number} comes after {}", expected - 1));
        }
        if kind == EventKind::SessionEnded {
            self.sessions.remove(&session);
        } else {
            self.sessions.insert(session, (number.saturating_add(1), gone));
        }
    }
}
