//! A proof of some entries, for somebody who has neither the log nor a network: the entries, what lies beside them, and for
//! each its path to one signed checkpoint. The entries of the log's keys are always among them.

use crate::decode;
use crate::entry::StoredEntry;
use crate::kind::EventKind;
use crate::reader::Reader;
use crate::verify::{Chain, Finding};
use crate::wire::DecodeError;
use proxy_core::{Event, SessionId, StoreError};
use std::collections::BTreeMap;
use tlog::{Note, Proof, Verifier};

/// One entry with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Its place in the log.
    pub index: u64,
    /// Its leaf.
    pub leaf: Vec<u8>,
    /// What is kept beside it: field, and salt and content.
    pub beside: Vec<(u32, Vec<u8>)>,
    /// Its path, and the checkpoint.
    pub proof: Proof,
}

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Shown {
    /// The log's name.
    pub origin: String,
    /// How many entries the checkpoint commits to.
    pub size: u64,
    /// The key that has signed it.
    pub key: String,
    /// Whether that key, or one before it, is known to the verifier otherwise than from the proof.
    pub key_known: bool,
    /// The entries, in order.
    pub entries: Vec<StoredEntry>,
    /// Sessions of which every entry is there, from their start to their end.
    pub whole_sessions: Vec<SessionId>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Shown {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Reader {
    /// Proves the entry at `index` by `checkpoint`, a signed note that commits to `size` entries; `None`: the entry is not
    /// one of them. What is kept beside it is opened: that is for whoever gets the proof.
    ///
    /// # Errors
    /// [`StoreError`]; also where this reader has not the key of what is kept beside it.
    pub fn prove(&self, index: u64, size: u64, checkpoint: &str) -> Result<Option<Proven>, StoreError> {
        let (Some(leaf), Some(path)) = (self.leaf(index)?, self.inclusion_proof(index, size)?) else { return Ok(None) };
        let mut beside = Vec::new();
        for commitment in decode::commitments(&leaf).map_err(|error| crate::log::damaged(index, &error))? {
            beside.extend(self.payload(index, &commitment)?.map(|payload| (commitment.field, payload)));
        }
        let proof = Proof { index, path, checkpoint: checkpoint.to_owned() };
        Ok(Some(Proven { index, leaf, beside, proof }))
    }
}

/// Checks a proof. `keys` are known to be the log's; where there are none, the proof says itself which they are.
#[must_use]
pub fn check(proven: &[Proven], keys: &[Verifier]) -> Shown {
    let mut findings = Vec::new();
    let mut wrong = |index: u64, session: Option<SessionId>, what: String| findings.push(Finding { index, session, what });
    let mut ordered: Vec<&Proven> = proven.iter().collect();
    ordered.sort_by_key(|proven| proven.index);
    let (mut chain, mut entries) = (Chain::default(), Vec::new());
    for proven in &ordered {
        match read(proven) {
            Ok((stored, missing)) => {
                if let Event::LogKey(key) = &stored.entry.event
                    && let Err(what) = chain.add(proven.index, key)
                {
                    wrong(proven.index, None, what);
                }
                for field in missing {
                    wrong(proven.index, None, format!("the content of its field {field} is not in the proof"));
                }
                entries.push(stored);
            }
            Err(error) => wrong(proven.index, None, error.to_string()),
        }
    }
    let checkpoint = ordered.first().and_then(|proven| Note::parse(proven.proof.checkpoint.as_bytes()).ok()?.checkpoint().ok());
    let Some(checkpoint) = checkpoint else {
        wrong(0, None, "there is no entry with a checkpoint".to_owned());
        let (origin, key) = (String::new(), String::new());
        return Shown { origin, size: 0, key, key_known: false, entries, whole_sessions: Vec::new(), findings };
    };
    let signer = chain.at(checkpoint.size);
    for known in keys.iter().filter(|known| !chain.has(known)) {
        wrong(0, None, format!("{known} is not a key of this log, as far as the proof goes"));
    }
    for proven in &ordered {
        if proven.proof.index != proven.index {
            wrong(proven.index, None, format!("its proof is of entry {}", proven.proof.index));
            continue;
        }
        match proven.proof.verify(&proven.leaf, chain.origin(), signer.as_slice()) {
            Ok((found, _)) if found == checkpoint => {}
            Ok(_) => wrong(proven.index, None, "it is proven by another checkpoint than the rest".to_owned()),
            Err(error) => wrong(proven.index, None, error.to_string()),
        }
    }
    let whole_sessions = sessions(&entries, &mut wrong);
    let key = signer.map(|key| key.to_string()).unwrap_or_default();
    let key_known = keys.iter().any(|known| chain.has(known));
    Shown { origin: chain.origin().to_owned(), size: checkpoint.size, key, key_known, entries, whole_sessions, findings }
}

/// The entry, and the fields whose contents are not there.
fn read(proven: &Proven) -> Result<(StoredEntry, Vec<u32>), DecodeError> {
    let beside: BTreeMap<u32, &Vec<u8>> = proven.beside.iter().map(|(field, payload)| (*field, payload)).collect();
    for commitment in decode::commitments(&proven.leaf)? {
        if let Some(payload) = beside.get(&commitment.field) {
            decode::open_payload(&commitment, payload)?;
        }
    }
    let decoded = decode::decode(&proven.leaf, |of| Ok::<_, DecodeError>(beside.get(&of.field).map(|found| (*found).clone())))?;
    let missing = decoded.withheld.iter().map(|commitment| commitment.field).collect();
    Ok((StoredEntry::new(proven.index, decoded), missing))
}

/// Sessions that are there from their start to their end. Numbers that are missing in between are wrong: a part of a session
/// must not pass for the whole of it.
fn sessions(entries: &[StoredEntry], wrong: &mut impl FnMut(u64, Option<SessionId>, String)) -> Vec<SessionId> {
    let mut next: BTreeMap<SessionId, (u64, bool)> = BTreeMap::new();
    for stored in entries {
        let Some((session, number)) = stored.entry.session else { continue };
        let known = next.entry(session).or_insert((number, number == 0));
        if known.0 != number {
            wrong(stored.index, Some(session), format!("the session's entry {number} is there, and {} is not", known.0));
        }
        known.0 = number.saturating_add(1);
    }
    let ended = |session: &SessionId| {
        entries
            .iter()
            .any(|stored| stored.kind() == EventKind::SessionEnded && stored.entry.session.is_some_and(|(id, _)| id == *session))
    };
    next.into_iter().filter(|(session, (_, from_start))| *from_start && ended(session)).map(|(session, _)| session).collect()
}
