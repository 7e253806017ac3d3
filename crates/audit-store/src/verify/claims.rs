//! Checkpoints against the tree that the entries make.

use super::check::{Beside, Check};
use super::{Borne, Expected};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tlog::{Checkpoint, Note, NoteError};

/// A checkpoint that is to be borne out.
pub(super) struct Claim {
    note: Note,
    checkpoint: Checkpoint,
    /// The last one, which witnesses must have cosigned.
    last: bool,
}

/// What is claimed of the log.
pub(super) struct Claims {
    claims: Vec<Claim>,
    /// Notes that cannot be read.
    unreadable: Vec<String>,
}

impl Claims {
    /// Reads the checkpoints. Whether they were signed is checked when the log's keys are known.
    pub(super) fn read(last: Option<&str>, earlier: &[String]) -> Self {
        let (mut claims, mut unreadable) = (Vec::new(), Vec::new());
        let read = |text: &str, last: bool| {
            let note = Note::parse(text.as_bytes())?;
            let checkpoint = note.checkpoint()?;
            Ok::<_, NoteError>(Claim { note, checkpoint, last })
        };
        for (text, is_last) in last.map(|text| (text, true)).into_iter().chain(earlier.iter().map(|text| (&**text, false))) {
            match read(text, is_last) {
                Ok(claim) => claims.push(claim),
                Err(error) if is_last => unreadable.push(format!("the log's checkpoint: {error}")),
                Err(error) => unreadable.push(format!("a checkpoint that was given: {error}")),
            }
        }
        Self { claims, unreadable }
    }

    /// Sizes whose roots are needed.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.claims.iter().map(|claim| claim.checkpoint.size).collect()
    }

    /// Compares with what the entries have made.
    pub(super) fn settle<B: Beside>(self, check: &mut Check<'_, B>, expected: &Expected) {
        let end = check.expected();
        for text in self.unreadable {
            check.finding(end, None, text);
        }
        for key in expected.keys.iter().filter(|key| !check.chain.has(key)).cloned().collect::<Vec<_>>() {
            check.finding(
                0,
                None,
                format!("{key} is not a key of this log: the log was signed anew with another, or is another"),
            );
        }
        check.result.origin = Some(check.chain.origin().to_owned()).filter(|origin| !origin.is_empty());
        for claim in &self.claims {
            if let Some(borne) = claim.settle(check, expected) {
                check.result.checkpoints.push(borne);
            }
        }
    }
}

impl Claim {
    fn settle<B: Beside>(&self, check: &mut Check<'_, B>, expected: &Expected) -> Option<Borne> {
        let Checkpoint { origin, size, root } = &self.checkpoint;
        let (what, end) = (if self.last { "the log's checkpoint" } else { "the earlier checkpoint" }, check.expected());
        if origin != check.chain.origin() {
            check.finding(end, None, format!("{what} is of the log {origin:?}; this one is {:?}", check.chain.origin()));
            return None;
        }
        // First: the key that has signed it may have been removed with the rest.
        if *size > end {
            let missing = format!(
                "{what} commits to {size} entries, and the log ends after {end}: entries {end} to {} were removed",
                size - 1
            );
            check.finding(end, None, missing);
            return None;
        }
        let key = check.chain.at(*size);
        if let Err(error) = self.note.verify(key.as_slice()) {
            check.finding(
                end,
                None,
                format!("{what} of {size} entries is not signed by the key that the log has there: {error}"),
            );
            return None;
        }
        match check.root(*size) {
            Some(found) if found == *root => {}
            Some(_) => {
                check.finding(0, None, format!("the first {size} entries are not those that {what} commits to: some were altered, removed, added or reordered"));
                return None;
            }
            // What is missing was said.
            None => return None,
        }
        let witnesses = self.witnesses(check, expected, what);
        let key_known = expected.keys.iter().any(|key| check.chain.has(key));
        let key = key.map(|key| key.to_string()).unwrap_or_default();
        Some(Borne { size: *size, root: BASE64.encode(root), key, key_known, witnesses })
    }

    /// Witnesses that have cosigned it; of the last one, enough must have.
    fn witnesses<B: Beside>(&self, check: &mut Check<'_, B>, expected: &Expected, what: &str) -> Vec<String> {
        let verified = match self.note.verify(&expected.witnesses) {
            Ok(verified) => verified,
            Err(NoteError::Unsigned) => Vec::new(),
            Err(error) => {
                check.finding(check.expected(), None, format!("a cosignature of {what}: {error}"));
                Vec::new()
            }
        };
        let names: Vec<_> =
            verified.iter().filter_map(|verified| Some(expected.witnesses.get(verified.key)?.name().to_owned())).collect();
        if self.last && names.len() < expected.witnesses_min {
            let few = format!("{what} is cosigned by {} trusted witnesses; {} are needed", names.len(), expected.witnesses_min);
            check.finding(check.expected(), None, few);
        }
        names
    }
}
