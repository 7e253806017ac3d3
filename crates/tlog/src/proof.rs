//! A proof that an entry is in the log, for somebody who has nothing but the log's key: C2SP tlog-proof.
//!
//! ```text
//! proof = "c2sp.org/tlog-proof@v1\n"; "extra BASE64\n", or nothing; "index NUMBER\n";
//!         the audit path, a hash in base64 on each line; an empty line; the signed checkpoint
//! ```
//!
//! <https://c2sp.org/tlog-proof>

use crate::merkle::{Hash, leaf_hash, root_of_inclusion};
use crate::note::{Checkpoint, NOTE_MAX, Note, NoteError, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Most hashes of a path: the tree has 64 levels at most.
const PATH_MAX: usize = 64;

/// Longest proof that is read, in bytes: a note, a path, and as much again for what an application adds.
const PROOF_MAX: usize = 2 * NOTE_MAX;

/// A proof. Nothing of it is verified before [`Proof::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Which entry.
    pub index: u64,
    /// Its audit path, from the leaf upwards.
    pub path: Vec<Hash>,
    /// The signed checkpoint, as it was published.
    pub checkpoint: String,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is no proof.
    #[error("not a tlog-proof: {0}")]
    Malformed(&'static str),
    /// Its checkpoint is not to be believed.
    #[error("the proof's checkpoint: {0}")]
    Checkpoint(#[from] NoteError),
    /// The checkpoint is another log's.
    #[error("the proof is of the log {0:?}")]
    OtherLog(String),
    /// The entry is not in the tree at that place.
    #[error("entry {0} is not what the checkpoint commits to: it was altered, or belongs elsewhere")]
    NotIncluded(u64),
}

impl Proof {
    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofError::Malformed`].
    pub fn parse(proof: &[u8]) -> Result<Self, ProofError> {
        let malformed = ProofError::Malformed;
        if proof.len() > PROOF_MAX {
            return Err(malformed("it is too long"));
        }
        let text = std::str::from_utf8(proof).map_err(|_| malformed("it is not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(malformed("no empty line is before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(malformed("its first line is another"));
        }
        // What an application adds is not authenticated by anything, and of no use here.
        lines.next_if(|line| line.starts_with("extra "));
        let number = lines.next().and_then(|line| line.strip_prefix("index "));
        let number = number.ok_or(malformed("it has no index"))?;
        let index: u64 = number.parse().map_err(|_| malformed("its index is no number"))?;
        // One spelling alone.
        if index.to_string() != number {
            return Err(malformed("its index is not written as a number is"));
        }
        let mut path = Vec::new();
        for line in lines {
            if path.len() >= PATH_MAX {
                return Err(malformed("its path is too long"));
            }
            let hash = BASE64.decode(line).ok().and_then(|hash| Hash::try_from(hash).ok());
            path.push(hash.ok_or(malformed("a line of its path is no hash"))?);
        }
        Ok(Self { index, path, checkpoint: checkpoint.to_owned() })
    }

    /// Whether `leaf` is in the log of `origin`, as one of `keys` has signed. Returns the checkpoint, and which keys have
    /// signed it.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, leaf: &[u8], origin: &str, keys: &[Verifier]) -> Result<(Checkpoint, Vec<usize>), ProofError> {
        let note = Note::parse(self.checkpoint.as_bytes())?;
        let signed = note.verify(keys)?.iter().map(|verified| verified.key).collect();
        let checkpoint = note.checkpoint()?;
        if checkpoint.origin != origin {
            return Err(ProofError::OtherLog(checkpoint.origin));
        }
        let root = root_of_inclusion(&leaf_hash(leaf), self.index, checkpoint.size, &self.path);
        if root != Some(checkpoint.root) {
            return Err(ProofError::NotIncluded(self.index));
        }
        Ok((checkpoint, signed))
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\nindex {}", self.index)?;
        for hash in &self.path {
            writeln!(f, "{}", BASE64.encode(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{inclusion_proof, root};
    use crate::note::{KeyKind, Signer};
    use std::convert::Infallible;

    const ORIGIN: &str = "example.com/log";

    fn key() -> Signer {
        Signer::from_seed(ORIGIN, KeyKind::Log, &[1; 32]).expect("a key")
    }

    /// A proof of the leaf at `index` of a tree of five leaves.
    fn proof(index: u64) -> Proof {
        let hashes: Vec<Hash> = (0..5u8).map(|at| leaf_hash(&[at])).collect();
        let node = |node: crate::Node| {
            let range = (node.index << node.level) as usize..((node.index + 1) << node.level) as usize;
            Ok::<_, Infallible>(crate::tile::hash_over(&hashes[range]).expect("some"))
        };
        let Ok(root) = root(5, node);
        let Ok(path) = inclusion_proof(index, 5, node);
        let text = Checkpoint { origin: ORIGIN.to_owned(), size: 5, root }.to_string();
        let checkpoint = format!("{text}\n{}", key().sign(&text, 0));
        Proof { index, path, checkpoint }
    }

    #[test]
    fn a_proof_is_for_one_leaf_in_one_place_of_one_log() {
        let keys = [key().verifier().clone()];
        for index in 0..5u8 {
            let proof = Proof::parse(proof(u64::from(index)).to_string().as_bytes()).expect("a proof");
            assert_eq!(proof.verify(&[index], ORIGIN, &keys).map(|(checkpoint, by)| (checkpoint.size, by)), Ok((5, vec![0])));
            assert_eq!(proof.verify(&[index + 1], ORIGIN, &keys), Err(ProofError::NotIncluded(u64::from(index))));
            assert_eq!(proof.verify(&[index], "other", &keys), Err(ProofError::OtherLog(ORIGIN.to_owned())));
            let moved = Proof { index: u64::from(index) ^ 1, ..proof.clone() };
            assert!(moved.verify(&[index], ORIGIN, &keys).is_err());
            let other = Signer::from_seed(ORIGIN, KeyKind::Log, &[2; 32]).expect("a key");
            let unsigned = proof.verify(&[index], ORIGIN, std::slice::from_ref(other.verifier()));
            assert_eq!(unsigned, Err(ProofError::Checkpoint(NoteError::Unsigned)));
        }
    }

    #[test]
    fn what_an_application_adds_is_passed_over() {
        let text = proof(3).to_string().replacen("\nindex", "\nextra AAAA\nindex", 1);
        assert_eq!(Proof::parse(text.as_bytes()), Ok(proof(3)));
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let text = proof(3).to_string();
        for changed in [
            String::new(),
            text.replacen("@v1", "@v2", 1),
            text.replacen("index 3", "index 03", 1),
            text.replacen("index 3", "index +3", 1),
            text.replacen("index 3\n", "", 1),
            text.replacen("index 3\n", "index 3\nAAAA\n", 1),
            text.replace("\n\n", "\n"),
            format!(
                "{}{}",
                text.replacen("index 3\n", &format!("index 3\n{}", format!("{}\n", BASE64.encode([0; 32])).repeat(65)), 1),
                ""
            ),
        ] {
            assert!(matches!(Proof::parse(changed.as_bytes()), Err(ProofError::Malformed(_))), "{changed:?}");
        }
        assert!(Proof::parse(b"\xff").is_err());
    }
}
