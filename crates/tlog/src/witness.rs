//! Witnesses: what a log asks of one, what it answers, and how the answer is believed. C2SP tlog-witness, `add-checkpoint`.
//!
//! ```text
//! request = "old SIZE\n": of the checkpoint that the witness cosigned last, 0 if there is none
//!           up to 63 lines of base64: the consistency proof from that size to the checkpoint's
//!           an empty line
//!           the checkpoint, signed by the log
//!
//! answer  = 200  one or more lines of cosignatures
//!           400  it is no request, or its old size is larger than the checkpoint's
//!           403  no key that is known for this log has signed the checkpoint
//!           404  the log is not known
//!           409  the witness has cosigned another size last: that size, in decimal, with a newline;
//!                or another root of the same size
//!           422  the proof does not prove it
//! ```
//!
//! [`decide`] is the whole of a witness but for its memory: it is handed what was cosigned last, and the caller makes what
//! it returns durable before anybody sees the cosignature, with no other request of the same log in between.
//!
//! <https://c2sp.org/tlog-witness>, <https://c2sp.org/tlog-cosignature>

use crate::merkle::{EMPTY_ROOT, Hash, is_consistent};
use crate::note::{Checkpoint, KeyKind, Note, NoteError, Signer, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Most lines of a proof: a tree of 64-bit size needs no more (tlog-witness, add-checkpoint).
pub const PROOF_MAX: usize = 63;
/// Longest request that is read (64 KiB). One with a full proof has 3 KiB beside its checkpoint, and a checkpoint with
/// the signatures of a hundred witnesses has 20 KiB.
pub const REQUEST_MAX: usize = 64 << 10;
/// Longest answer that is read (64 KiB): a witness may sign with many keys, and ours is one of them.
pub const ANSWER_MAX: usize = 64 << 10;
/// How far a cosignature's time may be from the clock of the one who asked for it, in seconds (5 minutes): as much as
/// machines that keep time at all are apart, and short enough that an old cosignature does not pass for a new one.
pub const CLOCK_SKEW_MAX: u64 = 300;
/// The content type of a size, in an answer with status 409.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// What a witness remembers of a log: the tree that it cosigned last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its entries.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl Default for Known {
    /// Of a log that was never cosigned: the tree without leaves, with which every tree begins.
    fn default() -> Self {
        Self { size: 0, root: EMPTY_ROOT }
    }
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no request.
    #[error("not an add-checkpoint request: {0}")]
    Malformed(&'static str),
    /// The size that it starts from is beyond the checkpoint's.
    #[error("the old size {old} is larger than the checkpoint's, {new}")]
    Backwards {
        /// The request's old size.
        old: u64,
        /// The checkpoint's size.
        new: u64,
    },
    /// The log is not one that this witness knows.
    #[error("this witness does not know the log")]
    UnknownLog,
    /// No key that is known for the log has signed it, or one is claimed to have and has not.
    #[error("no key that is known for the log has signed the checkpoint")]
    Unsigned,
    /// It starts from another size than the one that was cosigned last.
    #[error("the size that was cosigned last is {known}, not the request's old size")]
    Conflict {
        /// The size that was cosigned last.
        known: u64,
    },
    /// Another root was cosigned for the same size: the log has two histories.
    #[error("another root of the same size, {known}, was cosigned")]
    Forked {
        /// That size.
        known: u64,
    },
    /// The proof does not show that what was cosigned last is the beginning of the checkpoint's tree.
    #[error("the consistency proof does not verify")]
    Inconsistent,
}

impl Refusal {
    /// The HTTP status that tells it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Backwards { .. } => 400,
            Self::Unsigned => 403,
            Self::UnknownLog => 404,
            // An editor's draft of July 2026 moves the second to 422; clients take either.
            Self::Conflict { .. } | Self::Forked { .. } => 409,
            Self::Inconsistent => 422,
        }
    }

    /// The size that the answer's body tells, with the content type [`SIZE_TYPE`].
    #[must_use]
    pub fn known(&self) -> Option<u64> {
        match self {
            Self::Conflict { known } | Self::Forked { known } => Some(*known),
            Self::Malformed(_) | Self::Backwards { .. } | Self::UnknownLog | Self::Unsigned | Self::Inconsistent => None,
        }
    }
}

/// A request that was taken apart: nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The size that the proof starts from.
    pub old: u64,
    /// The consistency proof.
    pub proof: Vec<Hash>,
    /// The checkpoint as a note.
    pub note: Note,
    /// What it says.
    pub checkpoint: Checkpoint,
}

impl Request {
    /// Takes a request's body apart.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.len() > REQUEST_MAX {
            return Err(Refusal::Malformed("it is too long"));
        }
        let body = std::str::from_utf8(body).map_err(|_| Refusal::Malformed("it is not UTF-8"))?;
        let (head, note) = body.split_once("\n\n").ok_or(Refusal::Malformed("no empty line is before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_size);
        let old = old.ok_or(Refusal::Malformed("its first line is not \"old SIZE\""))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() >= PROOF_MAX {
                return Err(Refusal::Malformed("its proof has more than 63 lines"));
            }
            let hash = BASE64.decode(line).ok().and_then(|hash| Hash::try_from(hash).ok());
            proof.push(hash.ok_or(Refusal::Malformed("a line of its proof is not a hash in base64"))?);
        }
        let note = Note::parse(note.as_bytes()).map_err(|_| Refusal::Malformed("its checkpoint is not a signed note"))?;
        let checkpoint = note.checkpoint().map_err(|_| Refusal::Malformed("its note is not a checkpoint"))?;
        Ok(Self { old, proof, note, checkpoint })
    }
}

/// A request's body: the proof from `old` to the size of the checkpoint `note`, which the log has signed.
#[must_use]
pub fn encode_request(old: u64, proof: &[Hash], note: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        body.push_str(&BASE64.encode(hash));
        body.push('\n');
    }
    body.push('\n');
    body.push_str(note);
    body
}

/// The body of an answer that tells a size.
#[must_use]
pub fn encode_size(size: u64) -> String {
    format!("{size}\n")
}

/// Reads the body of an answer that tells a size; `None`: it is none.
#[must_use]
pub fn parse_size_answer(body: &[u8]) -> Option<u64> {
    parse_size(std::str::from_utf8(body).ok()?.strip_suffix('\n')?)
}

/// A size in decimal digits, in its one spelling.
fn parse_size(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|size| size.to_string() == text)
}

/// A checkpoint that a witness cosigns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// What the witness remembers of the log from now on.
    pub known: Known,
    /// The checkpoint with the log's signature and the cosignature: what shows later that all was as it should be.
    pub note: String,
    /// The answer: the cosignature's line.
    pub line: String,
}

/// What a witness makes of a request. `keys` are the log's, none if the witness does not know it; `known` is what it
/// cosigned last for this log; `seconds` since 1970 is the time that the cosignature says.
///
/// # Errors
/// [`Refusal`]: which one, in the order of the specification.
pub fn decide(request: &Request, keys: &[Verifier], known: Known, witness: &Signer, seconds: u64) -> Result<Cosigned, Refusal> {
    if keys.is_empty() {
        return Err(Refusal::UnknownLog);
    }
    let verified = request.note.verify(keys).map_err(|_| Refusal::Unsigned)?;
    let next = Known { size: request.checkpoint.size, root: request.checkpoint.root };
    if request.old > next.size {
        return Err(Refusal::Backwards { old: request.old, new: next.size });
    }
    if request.old != known.size {
        return Err(Refusal::Conflict { known: known.size });
    }
    // Every tree begins with the empty one, which therefore proves nothing about a root.
    if next.size == 0 && next.root != EMPTY_ROOT {
        return Err(Refusal::Inconsistent);
    }
    if next.size == known.size && next.root != known.root {
        return Err(Refusal::Forked { known: known.size });
    }
    if !is_consistent(known.size, &known.root, next.size, &next.root, &request.proof) {
        return Err(Refusal::Inconsistent);
    }
    let text = &request.note.text;
    let line = witness.sign(text, seconds);
    let signed = verified.iter().filter_map(|verified| request.note.line_of(keys.get(verified.key)?));
    let note = format!("{text}\n{}{line}", signed.collect::<String>());
    Ok(Cosigned { known: next, note, line })
}

/// The line with which `witness` cosigned the checkpoint of that `text`, out of a witness's answer, and when it says that
/// it did so, in seconds since 1970. What other keys have signed is left out.
///
/// # Errors
/// [`NoteError`]: the answer is none, the key has not cosigned this checkpoint, or is not a witness's.
pub fn cosignature(text: &str, answer: &[u8], witness: &Verifier) -> Result<(String, u64), NoteError> {
    if witness.kind() != KeyKind::Witness {
        return Err(NoteError::Key("it is not a witness's"));
    }
    let note = Note::parse(&[text.as_bytes(), b"\n", answer].concat())?;
    // An answer with an empty line in it would be another text.
    if note.text != text {
        return Err(NoteError::Malformed("the answer is not signature lines"));
    }
    let verified = note.verify(std::slice::from_ref(witness))?;
    let seconds = verified.first().and_then(|verified| verified.seconds).ok_or(NoteError::Unsigned)?;
    Ok((note.line_of(witness).ok_or(NoteError::Unsigned)?, seconds))
}

/// Whether a cosignature that was asked for at `now` may say this time, both in seconds since 1970.
#[must_use]
pub fn is_plausible(seconds: u64, now: u64) -> bool {
    seconds.abs_diff(now) <= CLOCK_SKEW_MAX
}

#[cfg(test)]
mod tests;
