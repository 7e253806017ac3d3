//! The kill list: identities and single credentials that are refused although their tokens are valid.
//!
//! A token cannot be called back; its issuer only stops making new ones. An entry here ends the sessions and
//! refuses the logins of a principal (`ISSUER/SUBJECT`), or of one token by its id (`jti`, Entra's `uti`).
//! Machine keys are revoked in [`crate::MachineKeys`], or here by their principal.

use crate::limits::{DESCRIPTION_MAX, REVOCATIONS_MAX, SUBJECT_MAX};
use crate::store::{JsonFile, Stamp, StoreFileError};
use parking_lot::RwLock;
use proxy_core::{Principal, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// A principal, by its id `ISSUER/SUBJECT`: whatever it shows.
    Principal(String),
    /// One credential of an issuer, by its id.
    Credential {
        /// The issuer's name.
        issuer: String,
        /// The credential's id.
        id: String,
    },
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What is revoked.
    pub what: Revoked,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: until it is lifted.
    pub until: Option<Timestamp>,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Why an entry cannot be made or lifted.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The file.
    #[error(transparent)]
    File(#[from] StoreFileError),
    /// A text is empty or too long.
    #[error("what is revoked must be named, in at most {SUBJECT_MAX} bytes; the reason has at most {DESCRIPTION_MAX}")]
    Invalid,
    /// The list is full.
    #[error("the list has {REVOCATIONS_MAX} entries already: lift some")]
    Full,
    /// There is no such entry.
    #[error("there is no such entry")]
    NotFound,
}

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFile {
    version: u32,
    revocations: Vec<Revocation>,
}

#[derive(Debug, Default)]
struct Contents {
    stamp: Option<Stamp>,
    entries: HashMap<Revoked, Revocation>,
}

/// The kill list. Share it by `Arc`.
#[derive(Debug)]
pub struct Revocations {
    file: JsonFile,
    contents: RwLock<Arc<Contents>>,
}

impl Revocations {
    /// Opens the list at `path`, usually `DATA_DIR/control/revocations.json`. The file is written with the first
    /// entry.
    ///
    /// # Errors
    /// The file is there and cannot be read, is damaged, or others may read it.
    pub fn open(path: &Path) -> Result<Self, StoreFileError> {
        let file = JsonFile::new(path);
        let contents = RwLock::new(Arc::new(load(&file)?));
        Ok(Self { file, contents })
    }

    /// Reads the file again if somebody else has changed it. Call it every second.
    ///
    /// # Errors
    /// As [`Self::open`]; or the file has vanished. The list stays as it was.
    pub fn reload_if_changed(&self) -> Result<bool, StoreFileError> {
        let stamp = self.file.stamp()?;
        let known = self.contents.read().stamp;
        if stamp == known {
            return Ok(false);
        }
        if stamp.is_none() {
            // Nothing here removes the file: to take its absence for an empty list would let everybody in again.
            return Err(self.file.damaged("it has vanished"));
        }
        let contents = load(&self.file)?;
        *self.contents.write() = Arc::new(contents);
        Ok(true)
    }

    /// Adds an entry, or replaces the one for the same.
    ///
    /// # Errors
    /// The file cannot be written: then nothing is revoked.
    pub fn revoke(&self, entry: Revocation) -> Result<(), RevocationError> {
        let named = |text: &str| !text.is_empty() && text.len() <= SUBJECT_MAX * 2;
        let good = match &entry.what {
            Revoked::Principal(id) => named(id),
            Revoked::Credential { issuer, id } => named(issuer) && named(id),
        };
        if !good || entry.reason.len() > DESCRIPTION_MAX || entry.by.len() > DESCRIPTION_MAX {
            return Err(RevocationError::Invalid);
        }
        self.change(|list| {
            list.retain(|other| other.what != entry.what && other.until.is_none_or(|until| until > entry.since));
            if list.len() >= REVOCATIONS_MAX {
                return Err(RevocationError::Full);
            }
            list.push(entry);
            Ok(())
        })
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// There is none, or the file cannot be written: then it stays.
    pub fn lift(&self, what: &Revoked) -> Result<(), RevocationError> {
        self.change(|list| {
            let before = list.len();
            list.retain(|entry| entry.what != *what);
            if list.len() == before { Err(RevocationError::NotFound) } else { Ok(()) }
        })
    }

    /// All entries, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Revocation> {
        let mut list = self.contents.read().entries.values().cloned().collect::<Vec<_>>();
        list.sort_by_key(|entry| entry.since);
        list
    }

    /// The entry that stands against a principal, if there is one.
    #[must_use]
    pub fn against(&self, principal: &Principal, now: Timestamp) -> Option<Revocation> {
        let contents = Arc::clone(&self.contents.read());
        // The usual case costs nothing.
        if contents.entries.is_empty() {
            return None;
        }
        let standing =
            |what: Revoked| contents.entries.get(&what).filter(|entry| entry.until.is_none_or(|until| until > now)).cloned();
        standing(Revoked::Principal(principal.id())).or_else(|| {
            let id = principal.credential_id.clone()?;
            standing(Revoked::Credential { issuer: principal.issuer.clone(), id })
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Revocation>) -> Result<(), RevocationError>) -> Result<(), RevocationError> {
        let (stored, (), stamp) = self.file.update(|before: Option<StoredFile>| {
            let mut file = before.unwrap_or(StoredFile { version: VERSION, revocations: Vec::new() });
            if file.version != VERSION {
                return Err(RevocationError::File(self.file.damaged("it was written by another version")));
            }
            change(&mut file.revocations)?;
            Ok((file, ()))
        })?;
        *self.contents.write() = Arc::new(index(stored, Some(stamp)));
        Ok(())
    }
}

fn load(file: &JsonFile) -> Result<Contents, StoreFileError> {
    match file.read::<StoredFile>()? {
        None => Ok(Contents::default()),
        Some((stored, _)) if stored.version != VERSION => Err(file.damaged("it was written by another version")),
        Some((stored, stamp)) => Ok(index(stored, Some(stamp))),
    }
}

fn index(stored: StoredFile, stamp: Option<Stamp>) -> Contents {
    let entries = stored.revocations.into_iter().map(|entry| (entry.what.clone(), entry)).collect();
    Contents { stamp, entries }
}
