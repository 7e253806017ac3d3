//! The log's private key, in a file of its own: made at the first start, sealed where a key source is configured, replaced
//! by one that it has endorsed.
//!
//! The file is JSON, for its owner alone. A seed stands in it either as it is (`seed`, 32 bytes in base64) or sealed
//! (`sealed`: a nonce of 12 bytes, then AES-256-GCM of the seed, in base64). The sealing key is HKDF-SHA-256 of the
//! configured secret; the verifier's text is authenticated with it, so that seeds cannot be exchanged.

use super::file;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proxy_core::SecretBytes;
use proxy_core::record::LogKey;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tlog::{KeyKind, Note, NoteError, Signer, Verifier};

/// Shortest secret that seals, in bytes: as much as what it protects.
pub const SEALING_MIN: usize = 32;

const NONCE: usize = 12;

/// Why the key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the log's key in {file}: {why}", file = .0.display(), why = .1)]
    Io(PathBuf, String),
    /// The file is not what was written.
    #[error("the log's key in {file} is damaged: {why}; restore the file from a backup", file = .0.display(), why = .1)]
    Damaged(PathBuf, &'static str),
    /// It is sealed, and no secret is configured.
    #[error("the log's key in {file} is sealed: configure the secret that it was sealed with (audit.key)", file = .0.display())]
    Sealed(PathBuf),
    /// The configured secret is another.
    #[error("the log's key in {file} was sealed with another secret than audit.key names", file = .0.display())]
    OtherSecret(PathBuf),
    /// The configured secret is too short.
    #[error("the secret that audit.key names has {0} bytes; it needs {SEALING_MIN} random ones (openssl rand -base64 32)")]
    ShortSecret(usize),
    /// The file is of another log.
    #[error("the log's key in {file} is of the log {of}", file = .0.display(), of = .1)]
    OtherLog(PathBuf, String),
    /// The system has no randomness, or cannot encrypt.
    #[error("cryptography failed")]
    Crypto,
}

/// What the file has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    origin: String,
    current: Pair,
    /// Where the log's entry of the current key is; absent until that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<u64>,
    /// The key that is to follow, until its entry is in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Next>,
    /// Keys that were used before, the last first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    former: Vec<Former>,
    /// When the store's folder was made, in nanoseconds since 1970, where the file system tells: a copy has another time.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder_made: Option<i64>,
}

/// A key in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pair {
    verifier: String,
    #[serde(flatten)]
    seed: Seed,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Seed {
    Seed(String),
    Sealed(String),
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Seed(_) => "Seed([redacted])",
            Self::Sealed(_) => "Sealed(…)",
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Next {
    pair: Pair,
    endorsement: String,
    by: String,
}

/// A key that was used before: its public half, and where its entry is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Former {
    verifier: String,
    entry: Option<u64>,
}

/// What anybody may know of a log's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeys {
    /// The log's name.
    pub origin: String,
    /// The key that signs now, and those before it, the last first.
    pub verifiers: Vec<Verifier>,
    /// Where the log's entries of them are, in order.
    pub entries: Vec<u64>,
}

/// The public part of the keys in the file at `path`; `None`: there is no file.
pub(super) fn public(path: &Path) -> Result<Option<PublicKeys>, KeyError> {
    read(path).map(|stored| stored.map(|stored| stored.public()))
}

fn read(path: &Path) -> Result<Option<Stored>, KeyError> {
    let Some(content) = file::read(path).map_err(|e| KeyError::Io(path.to_owned(), e.to_string()))? else { return Ok(None) };
    let damaged = |why| KeyError::Damaged(path.to_owned(), why);
    let stored: Stored = serde_json::from_slice(&content).map_err(|_| damaged("it is not the JSON that was written"))?;
    if stored.version == 1 { Ok(Some(stored)) } else { Err(damaged("it is of a version that is not known")) }
}

impl Stored {
    fn public(&self) -> PublicKeys {
        let former = self.former.iter().map(|former| (&former.verifier, former.entry));
        let all: Vec<_> = std::iter::once((&self.current.verifier, self.entry)).chain(former).collect();
        PublicKeys {
            origin: self.origin.clone(),
            verifiers: all.iter().filter_map(|(verifier, _)| Verifier::parse(verifier).ok()).collect(),
            entries: all.iter().rev().filter_map(|(_, entry)| *entry).collect(),
        }
    }
}

/// The log's keys, open for signing.
#[derive(Debug)]
pub(super) struct Keys {
    path: PathBuf,
    sealing: Option<SecretBytes>,
    stored: Stored,
    signer: Signer,
}

/// What the key before signs to name the next one: a note of two lines that is no checkpoint, since the second is no number.
pub fn endorsed_text(origin: &str, key: &Verifier) -> String {
    format!("sallyport log key\n{origin}\n{key}\n")
}

/// Whether `endorsement` names `key` as the one that follows `previous` for the log of `origin`.
///
/// # Errors
/// [`NoteError`].
pub fn check_endorsement(endorsement: &str, origin: &str, previous: &Verifier, key: &Verifier) -> Result<(), NoteError> {
    let note = Note::parse(endorsement.as_bytes())?;
    note.verify(std::slice::from_ref(previous))?;
    if note.text == endorsed_text(origin, key) { Ok(()) } else { Err(NoteError::Malformed("it names another key or log")) }
}

impl Keys {
    /// Opens the file at `path`. `None`: there is none.
    pub(super) fn open(path: &Path, origin: &str, sealing: Option<SecretBytes>) -> Result<Option<Self>, KeyError> {
        check_sealing(sealing.as_ref())?;
        let Some(stored) = read(path)? else { return Ok(None) };
        if stored.origin != origin {
            return Err(KeyError::OtherLog(path.to_owned(), stored.origin));
        }
        let signer = open_pair(&stored.current, origin, sealing.as_ref(), path)?;
        let mut keys = Self { path: path.to_owned(), sealing, stored, signer };
        keys.seal()?;
        Ok(Some(keys))
    }

    /// Makes the log's first key.
    pub(super) fn create(path: &Path, origin: &str, sealing: Option<SecretBytes>) -> Result<Self, KeyError> {
        check_sealing(sealing.as_ref())?;
        let (current, signer) = make_pair(origin, sealing.as_ref())?;
        let origin = origin.to_owned();
        let stored = Stored { version: 1, origin, current, entry: None, next: None, former: Vec::new(), folder_made: None };
        let keys = Self { path: path.to_owned(), sealing, stored, signer };
        keys.save()?;
        Ok(keys)
    }

    /// Seals what is not sealed, once a secret is configured.
    fn seal(&mut self) -> Result<(), KeyError> {
        let Some(sealing) = self.sealing.clone() else { return Ok(()) };
        let mut changed = false;
        let next = self.stored.next.as_mut().map(|next| &mut next.pair);
        for pair in std::iter::once(&mut self.stored.current).chain(next) {
            if let Seed::Seed(text) = &pair.seed {
                let seed = BASE64.decode(text).map_err(|_| KeyError::Damaged(self.path.clone(), "a seed is not base64"))?;
                pair.seed = sealed(&seed, &pair.verifier, &sealing)?;
                changed = true;
            }
        }
        if changed { self.save() } else { Ok(()) }
    }

    fn save(&self) -> Result<(), KeyError> {
        let failed = |why: String| KeyError::Io(self.path.clone(), why);
        let content = serde_json::to_vec_pretty(&self.stored).map_err(|e| failed(e.to_string()))?;
        file::replace(&self.path, &content, 0o600).map_err(|e| failed(e.to_string()))
    }

    pub(super) fn verifier(&self) -> &Verifier {
        self.signer.verifier()
    }

    /// What anybody may know of them.
    pub(super) fn public(&self) -> PublicKeys {
        self.stored.public()
    }

    /// A note with its signature.
    pub(super) fn sign(&self, text: &str) -> String {
        format!("{text}\n{}", self.signer.sign(text, 0))
    }

    /// Where the log's entry of the current key is.
    pub(super) fn entry(&self) -> Option<u64> {
        self.stored.entry
    }

    /// The entry that the log is to have of the current key, where it is not known to have one: its first.
    pub(super) fn first_entry(&self, by: &str) -> LogKey {
        LogKey {
            origin: self.stored.origin.clone(),
            key: self.verifier().to_string(),
            previous: None,
            endorsement: None,
            by: by.to_owned(),
        }
    }

    /// Notes where the entry of the current key is.
    pub(super) fn note_entry(&mut self, index: u64) -> Result<(), KeyError> {
        self.stored.entry = Some(index);
        self.save()
    }

    /// Makes the key that is to follow, and keeps it; the entry that names it must get into the log before it is used.
    pub(super) fn prepare(&mut self, by: &str) -> Result<LogKey, KeyError> {
        let (pair, signer) = make_pair(&self.stored.origin, self.sealing.as_ref())?;
        let endorsement = self.sign(&endorsed_text(&self.stored.origin, signer.verifier()));
        self.stored.next = Some(Next { pair, endorsement, by: by.to_owned() });
        // A key that is not kept must not get into the log: nobody could sign with it after the next start.
        self.save().inspect_err(|_| self.stored.next = None)?;
        self.next_entry().ok_or(KeyError::Crypto)
    }

    /// The entry of a key that is to follow and is not used yet: a kill may have come between.
    pub(super) fn next_entry(&self) -> Option<LogKey> {
        let next = self.stored.next.as_ref()?;
        Some(LogKey {
            origin: self.stored.origin.clone(),
            key: next.pair.verifier.clone(),
            previous: Some(self.verifier().to_string()),
            endorsement: Some(next.endorsement.clone()),
            by: next.by.clone(),
        })
    }

    /// Uses the key that was to follow, whose entry is at `index`. The seed of the one before is gone.
    pub(super) fn advance(&mut self, index: u64) -> Result<(), KeyError> {
        let Some(next) = self.stored.next.take() else { return Ok(()) };
        let signer = open_pair(&next.pair, &self.stored.origin, self.sealing.as_ref(), &self.path)?;
        self.stored.former.insert(0, Former { verifier: self.verifier().to_string(), entry: self.stored.entry });
        self.stored.current = next.pair;
        self.stored.entry = Some(index);
        self.signer = signer;
        self.save()
    }

    /// When the store's folder was made, as it was noted.
    pub(super) fn folder_made(&self) -> Option<i64> {
        self.stored.folder_made
    }

    /// Notes when the store's folder was made.
    pub(super) fn note_folder(&mut self, made: Option<i64>) -> Result<(), KeyError> {
        if self.stored.folder_made == made {
            return Ok(());
        }
        self.stored.folder_made = made;
        self.save()
    }
}

fn check_sealing(sealing: Option<&SecretBytes>) -> Result<(), KeyError> {
    match sealing.map(|secret| secret.expose().len()) {
        Some(length) if length < SEALING_MIN => Err(KeyError::ShortSecret(length)),
        Some(_) | None => Ok(()),
    }
}

fn make_pair(origin: &str, sealing: Option<&SecretBytes>) -> Result<(Pair, Signer), KeyError> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| KeyError::Crypto)?;
    let signer = Signer::from_seed(origin, KeyKind::Log, &seed).map_err(|_| KeyError::Crypto)?;
    let verifier = signer.verifier().to_string();
    let seed = match sealing {
        Some(secret) => sealed(&seed, &verifier, secret)?,
        None => Seed::Seed(BASE64.encode(seed)),
    };
    Ok((Pair { verifier, seed }, signer))
}

/// The key of a pair. Its public half must be the one that stands beside it.
fn open_pair(pair: &Pair, origin: &str, sealing: Option<&SecretBytes>, path: &Path) -> Result<Signer, KeyError> {
    let damaged = |why| KeyError::Damaged(path.to_owned(), why);
    let bytes = |text: &String| BASE64.decode(text).map_err(|_| damaged("a seed is not base64"));
    let seed = match (&pair.seed, sealing) {
        (Seed::Seed(text), _) => bytes(text)?,
        (Seed::Sealed(_), None) => return Err(KeyError::Sealed(path.to_owned())),
        (Seed::Sealed(text), Some(secret)) => {
            let opened = open_sealed(bytes(text)?, &pair.verifier, secret)?;
            opened.ok_or_else(|| KeyError::OtherSecret(path.to_owned()))?
        }
    };
    let seed = seed.try_into().map_err(|_| damaged("a seed has not 32 bytes"))?;
    let signer = Signer::from_seed(origin, KeyKind::Log, &seed).map_err(|_| damaged("a seed is none"))?;
    if signer.verifier().to_string() != pair.verifier {
        return Err(damaged("a seed is not that of its public key"));
    }
    Ok(signer)
}

/// The key that seals.
fn sealing_key(secret: &SecretBytes) -> Result<RandomizedNonceKey, KeyError> {
    let mut key = [0; 32];
    let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret.expose());
    let expanded = pseudo_random.expand(&[b"sallyport log key"], hkdf::HKDF_SHA256).map_err(|_| KeyError::Crypto)?;
    expanded.fill(&mut key).map_err(|_| KeyError::Crypto)?;
    RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| KeyError::Crypto)
}

fn sealed(seed: &[u8], verifier: &str, secret: &SecretBytes) -> Result<Seed, KeyError> {
    let mut content = seed.to_vec();
    let aad = Aad::from(verifier.as_bytes());
    let nonce = sealing_key(secret)?.seal_in_place_append_tag(aad, &mut content).map_err(|_| KeyError::Crypto)?;
    Ok(Seed::Sealed(BASE64.encode([&nonce.as_ref()[..], &content].concat())))
}

/// The seed; `None`: it was sealed with another secret, or for another key.
fn open_sealed(mut content: Vec<u8>, verifier: &str, secret: &SecretBytes) -> Result<Option<Vec<u8>>, KeyError> {
    if content.len() < NONCE {
        return Ok(None);
    }
    let mut rest = content.split_off(NONCE);
    let Ok(nonce) = Nonce::try_assume_unique_for_key(&content) else { return Ok(None) };
    let opened = sealing_key(secret)?.open_in_place(nonce, Aad::from(verifier.as_bytes()), &mut rest);
    Ok(opened.ok().map(|seed| seed.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "sallyport/00";

    fn secret(byte: u8) -> Option<SecretBytes> {
        Some(SecretBytes::new(vec![byte; 32]))
    }

    fn open(path: &Path, sealing: Option<SecretBytes>) -> Result<Keys, KeyError> {
        Keys::open(path, ORIGIN, sealing).map(|keys| keys.expect("the file is there"))
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log-key.json");
        assert!(Keys::open(&path, ORIGIN, None).unwrap().is_none());
        let made = Keys::create(&path, ORIGIN, None).unwrap().verifier().clone();
        assert_eq!(open(&path, None).unwrap().verifier(), &made);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Keys::open(&path, "sallyport/01", None), Err(KeyError::OtherLog(..))));
        assert!(!format!("{:?}", open(&path, None).unwrap()).contains(&seed_in(&path)));
    }

    fn seed_in(path: &Path) -> String {
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        value["current"]["seed"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_secret_seals_the_key_and_no_other_opens_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log-key.json");
        let made = Keys::create(&path, ORIGIN, None).unwrap().verifier().clone();
        assert!(!seed_in(&path).is_empty());
        // It is sealed as soon as there is a secret.
        assert_eq!(open(&path, secret(1)).unwrap().verifier(), &made);
        assert!(seed_in(&path).is_empty());
        assert_eq!(open(&path, secret(1)).unwrap().verifier(), &made);
        assert_eq!(open(&path, None).unwrap_err(), KeyError::Sealed(path.clone()));
        assert_eq!(open(&path, secret(2)).unwrap_err(), KeyError::OtherSecret(path.clone()));
        let short = Some(SecretBytes::new(vec![1; 31]));
        assert_eq!(open(&path, short).unwrap_err(), KeyError::ShortSecret(31));
    }

    #[test]
    fn a_key_names_the_one_that_follows_and_is_gone_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log-key.json");
        for sealing in [None, secret(1)] {
            let mut keys = Keys::create(&path, ORIGIN, sealing.clone()).unwrap();
            let first = keys.verifier().clone();
            let entry = keys.prepare("ops").unwrap();
            // A kill comes between.
            let mut keys = open(&path, sealing.clone()).unwrap();
            assert_eq!(keys.next_entry().as_ref(), Some(&entry));
            keys.advance(7).unwrap();
            let keys = open(&path, sealing).unwrap();
            let second = keys.verifier().clone();
            assert_eq!((keys.entry(), keys.next_entry()), (Some(7), None));
            assert_eq!((entry.key, entry.previous), (second.to_string(), Some(first.to_string())));
            let endorsement = entry.endorsement.unwrap();
            assert_eq!(check_endorsement(&endorsement, ORIGIN, &first, &second), Ok(()));
            assert!(check_endorsement(&endorsement, "other", &first, &second).is_err());
            assert!(check_endorsement(&endorsement, ORIGIN, &second, &first).is_err());
            assert_eq!(keys.public().verifiers, [second, first]);
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log-key.json");
        Keys::create(&path, ORIGIN, None).unwrap();
        let content = std::fs::read_to_string(&path).unwrap();
        let seed = seed_in(&path);
        for changed in [
            content[..content.len() - 2].to_owned(),
            content.replace("\"version\": 1", "\"version\": 2"),
            content.replace(&seed, &BASE64.encode([7; 32])),
            content.replace(&seed, "AAAA"),
            content.replace(&seed, "!"),
        ] {
            assert_ne!(changed, content);
            std::fs::write(&path, changed).unwrap();
            assert!(matches!(open(&path, None), Err(KeyError::Damaged(..))));
        }
    }
}
