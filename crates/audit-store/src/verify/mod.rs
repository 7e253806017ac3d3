//! Is this the log that was written, all of it, and nothing else?
//!
//! ```text
//!  store, or published folder ──leaves in order──▶ Check ──┬─ each leaf canonical, its payloads as committed to
//!                                                          ├─ each session's numbers without gaps
//!                                                          ├─ keys endorsed one by the other
//!                                                          └─ tree ──▶ roots: those of the checkpoints?
//! ```
//!
//! One pass, in memory that does not grow with the log. What is wrong is a [`Finding`], with its place; an error means that
//! the log cannot be read at all.

mod check;
mod claims;
mod explained;
mod kept;
mod keys;
mod published;
mod stored;

use crate::seal::PayloadKeys;
use proxy_core::{SessionId, StoreError};
use serde::Serialize;
use tlog::Verifier;

pub(crate) use keys::Chain;
pub use published::published;
pub(crate) use stored::{sequence, stored};

/// What the verifier holds, and the log must bear out.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The log's last checkpoint, a signed note. Where it is not given, a published log's own is taken; a store's entries are
    /// then checked against nothing but each other.
    pub checkpoint: Option<String>,
    /// Checkpoints that were seen earlier, signed notes: the log must still begin with what they commit to.
    pub earlier: Vec<String>,
    /// Keys that are known to be the log's: each must be one of its keys. Empty: the log says itself which its key is.
    pub keys: Vec<Verifier>,
    /// Witnesses that are trusted.
    pub witnesses: Vec<Verifier>,
    /// How many of them must have cosigned the last checkpoint.
    pub witnesses_min: usize,
    /// What sealed payloads are opened with, which are not checked otherwise. Of an open store, its own are taken where none are
    /// given.
    pub payload_keys: Option<PayloadKeys>,
}

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
    /// Payloads that are sealed, and were not checked: the verifier has no key.
    pub sealed: u64,
    /// Payloads that are not kept any more.
    pub withheld: u64,
    /// Entries that were destroyed: their hashes are left.
    pub destroyed: u64,
    /// The log's name.
    pub origin: Option<String>,
    /// Checkpoints that the log bears out, the last one first.
    pub checkpoints: Vec<Borne>,
    /// How many checkpoints are kept beside the last one, and borne out.
    pub kept: u64,
    /// What is wrong; at most [`crate::limits::FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Findings in all.
    pub finding_count: u64,
}

/// A checkpoint that the log bears out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Borne {
    /// How many entries it commits to.
    pub size: u64,
    /// The root of their tree, in base64.
    pub root: String,
    /// The log's key that has signed it, as a verifier's text.
    pub key: String,
    /// Whether that key, or one before it, is known to the verifier otherwise than from the log.
    pub key_known: bool,
    /// Names of the trusted witnesses that have cosigned it.
    pub witnesses: Vec<String>,
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

impl Verification {
    fn new(from: u64, to: u64) -> Self {
        Self {
            from,
            to,
            entries: 0,
            sessions: 0,
            payloads: 0,
            sealed: 0,
            withheld: 0,
            destroyed: 0,
            origin: None,
            checkpoints: Vec::new(),
            kept: 0,
            findings: Vec::new(),
            finding_count: 0,
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.finding_count == 0
    }
}

/// What was read of a log that lies somewhere else, by its path: `checkpoint`, `tile/…`, `payload/…`.
pub trait Blobs {
    /// The content at `path`; `None`: there is nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`]: it cannot be read.
    fn get(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// The smallest checkpoint of more than `size` entries that is kept beside the last one, by its name: how many entries
    /// that says, and the signed note. They are asked for one after the other, while the log is read. `None`: there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`]: it cannot be read.
    fn kept_after(&self, size: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let _ = size;
        Ok(None)
    }
}
