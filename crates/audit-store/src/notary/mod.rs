//! Signs the log's checkpoints, and refuses to sign for a log that would fork.
//!
//! ```text
//!   store ──tree head, on the disk──▶ Notary ──signed, kept in `checkpoint`──▶ witnesses, `export/`, object storage
//!                                        │
//!   log-key.json ──seed──────────────────┘
//! ```
//!
//! Two logs must never bear one name. A log that has fewer entries than its last checkpoint, or others, was restored from a
//! backup or changed; one whose folder was made at another time was copied. Either is refused until an operator decides:
//! [`Opening::moved`] where nothing was lost, and otherwise a new log ([`set_aside`]).
//!
//! What this cannot see (everything was put back to an earlier state together, disk and all) a witness sees, and whoever
//! compares with what was shipped.

pub(crate) mod file;
mod keys;

use crate::entry::StoredEntry;
use crate::store::AuditStore;
pub use file::replace as replace_file;
use keys::Keys;
pub use keys::{KeyError, PublicKeys, SEALING_MIN, check_endorsement, endorsed_text};
use parking_lot::Mutex;
use proxy_core::record::LogKey;
use proxy_core::{Entry, Event, SecretBytes, Store, StoreError, Timestamp};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tlog::merkle::Hash;
use tlog::{Checkpoint, Note, NoteError, Verifier};

/// The private key's file, in the notary's folder.
pub const KEY_FILE: &str = "log-key.json";
/// The last checkpoint that was signed, in the notary's folder.
pub const CHECKPOINT_FILE: &str = "log-checkpoint";

/// Entries at the log's beginning among which its first key is looked for.
const FIRST_ENTRIES: u64 = 64;

/// The name that a log bears in its checkpoints: `sallyport/` and its id, hexadecimal.
#[must_use]
pub fn origin(log_id: &[u8; 16]) -> String {
    let id: String = log_id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sallyport/{id}")
}

/// Why the log is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotaryError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is gone.
    #[error(
        "the log has a key, and {file} is not there: restore it from a backup, or begin a new log with `sallyport audit new-log`",
        file = .0.display()
    )]
    KeyGone(PathBuf),
    /// The last checkpoint cannot be read or written.
    #[error("{file}: {why}", file = .0.display(), why = .1)]
    File(PathBuf, String),
    /// The last checkpoint is not to be believed.
    #[error(
        "{file} is not what this log's key has signed ({why}): restore the file from a backup, or begin a new log with `sallyport audit new-log`",
        file = .0.display(), why = .1
    )]
    Checkpoint(PathBuf, NoteError),
    /// The log has lost entries that were signed.
    #[error(
        "the log has {entries} entries, and its last checkpoint {signed}: it was restored from a backup, or its end was removed. Going on would fork it. Put the whole log back, or begin a new log with `sallyport audit new-log`"
    )]
    Behind {
        /// Entries in the log.
        entries: u64,
        /// Entries that the checkpoint has.
        signed: u64,
    },
    /// The log has other entries than were signed.
    #[error(
        "the log's first {0} entries are not those that were signed: they were altered. `sallyport audit verify` says where; begin a new log with `sallyport audit new-log`"
    )]
    Altered(u64),
    /// A key that is to follow is in the log, and could not be put to use.
    #[error("the log names a new key that could not be put to use: run `sallyport audit key rotate` again")]
    KeyPending,
    /// The store's folder is another than before.
    #[error(
        "the log was copied or restored: its folder is not the one that was last written to. If this is its only copy, and none of it is lost, go on with `sallyport audit continue`; otherwise begin a new log with `sallyport audit new-log`"
    )]
    Copied,
}

/// A checkpoint with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// How many entries.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// The signed note.
    pub note: String,
}

/// Signs for one store.
pub struct Notary {
    store: Arc<AuditStore>,
    state: Mutex<State>,
    folder: PathBuf,
    origin: String,
}

struct State {
    keys: Keys,
    last: Option<Signed>,
}

/// What a notary begins with.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    /// Where its key and its last checkpoint are.
    pub folder: &'a Path,
    /// What the key's file is sealed with.
    pub sealing: Option<SecretBytes>,
    /// Whom the entry of a new key names.
    pub by: &'a str,
    /// When that is.
    pub now: Timestamp,
    /// The log was copied, and an operator says that this is the only copy: never [`NotaryError::Copied`]. The caller records
    /// that.
    pub moved: bool,
}

impl Notary {
    /// Begins to sign for `store`; makes a key for a log that has none, which is then its next entry.
    ///
    /// # Errors
    /// [`NotaryError`]: nothing may be appended before an operator has decided.
    pub fn open(store: Arc<AuditStore>, opening: Opening<'_>) -> Result<Self, NotaryError> {
        let Opening { folder, sealing, by, now, moved } = opening;
        let origin = origin(&store.log_id());
        let path = folder.join(KEY_FILE);
        let mut keys = match Keys::open(&path, &origin, sealing.clone())? {
            Some(keys) => keys,
            None if first_key(&store)?.is_some() => return Err(NotaryError::KeyGone(path)),
            None => Keys::create(&path, &origin, sealing)?,
        };
        let made = folder_made(store.dir());
        if !moved && keys.folder_made().is_some_and(|known| made.is_some_and(|made| made != known)) {
            return Err(NotaryError::Copied);
        }
        let last = last_checkpoint(&folder.join(CHECKPOINT_FILE), &origin, &keys.public().verifiers)?;
        if let Some(signed) = &last {
            check(&store, signed)?;
        }
        settle_keys(&store, &mut keys, by, now)?;
        keys.note_folder(made)?;
        Ok(Self { store, state: Mutex::new(State { keys, last }), folder: folder.to_owned(), origin })
    }

    /// The log's name in its checkpoints.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What anybody may know of the log's keys.
    #[must_use]
    pub fn public(&self) -> PublicKeys {
        self.state.lock().keys.public()
    }

    /// The public key that signs now.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.state.lock().keys.verifier().clone()
    }

    /// The last checkpoint that was signed.
    #[must_use]
    pub fn last(&self) -> Option<Signed> {
        self.state.lock().last.clone()
    }

    /// Signs the log as it is; `None`: nothing was appended since the last time. All that is signed is on the disk, and so is
    /// the checkpoint, before this returns.
    ///
    /// # Errors
    /// [`NotaryError`].
    pub fn sign(&self) -> Result<Option<Signed>, NotaryError> {
        // Held while signing: a key that is replaced meanwhile signs nothing any more.
        let mut state = self.state.lock();
        // What its entry is in, that key alone signs.
        if state.keys.next_entry().is_some() {
            return Err(NotaryError::KeyPending);
        }
        let head = self.store.tree_head()?;
        if state.last.as_ref().is_some_and(|last| last.size == head.size) {
            return Ok(None);
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size: head.size, root: head.root };
        let note = state.keys.sign(&checkpoint.to_string());
        let path = self.folder.join(CHECKPOINT_FILE);
        file::replace(&path, note.as_bytes(), 0o644).map_err(|e| NotaryError::File(path, e.to_string()))?;
        let signed = Signed { size: head.size, root: head.root, note };
        state.last = Some(signed.clone());
        Ok(Some(signed))
    }

    /// Replaces the key by a new one, which the old one endorses in the log. Returns the new public key.
    ///
    /// # Errors
    /// [`NotaryError`].
    pub fn rotate(&self, by: &str, now: Timestamp) -> Result<Verifier, NotaryError> {
        let mut state = self.state.lock();
        let keys = &mut state.keys;
        if keys.next_entry().is_none() {
            keys.prepare(by)?;
        }
        settle_keys(&self.store, keys, by, now)?;
        Ok(keys.verifier().clone())
    }
}

/// What can be told of a log without its key: the public keys, and the last checkpoint that was signed. `folder` is the
/// notary's.
///
/// # Errors
/// [`NotaryError`].
pub fn look(folder: &Path) -> Result<Option<(PublicKeys, Option<Signed>)>, NotaryError> {
    let Some(public) = keys::public(&folder.join(KEY_FILE))? else { return Ok(None) };
    let signed = last_checkpoint(&folder.join(CHECKPOINT_FILE), &public.origin, &public.verifiers)?;
    Ok(Some((public, signed)))
}

/// Brings the log's entries of its keys up to what the file has: a kill may have come between.
fn settle_keys(store: &AuditStore, keys: &mut Keys, by: &str, now: Timestamp) -> Result<(), NotaryError> {
    if keys.entry().is_none() {
        let known = first_key(store)?.filter(|(_, key)| key.key == keys.verifier().to_string());
        let index = match known {
            Some((index, _)) => index,
            None => append_key(store, keys.first_entry(by), now)?,
        };
        keys.note_entry(index)?;
    }
    if let Some(next) = keys.next_entry() {
        // Should a kill have come after the entry, there are two of it: verifiers take the second for what it is.
        let index = append_key(store, next, now)?;
        keys.advance(index)?;
    }
    Ok(())
}

fn append_key(store: &AuditStore, key: LogKey, now: Timestamp) -> Result<u64, StoreError> {
    let index = store.append(&[Entry { time: now, session: None, event: Event::LogKey(Box::new(key)) }])?;
    store.sync()?;
    Ok(index)
}

/// The log's first key, and where its entry is.
fn first_key(store: &AuditStore) -> Result<Option<(u64, LogKey)>, StoreError> {
    for stored in store.reader().entries(0..FIRST_ENTRIES) {
        if let StoredEntry { index, entry: Entry { event: Event::LogKey(key), .. }, .. } = stored? {
            return Ok(Some((index, *key)));
        }
    }
    Ok(None)
}

/// The checkpoint that was kept, if there is one; only one that was signed by one of the log's keys.
fn last_checkpoint(path: &Path, origin: &str, keys: &[Verifier]) -> Result<Option<Signed>, NotaryError> {
    let content = file::read(path).map_err(|e| NotaryError::File(path.to_owned(), e.to_string()))?;
    let Some(content) = content else { return Ok(None) };
    let read = || {
        let note = Note::parse(&content)?;
        note.verify(keys)?;
        let checkpoint = note.checkpoint()?;
        if checkpoint.origin == origin { Ok(checkpoint) } else { Err(NoteError::Malformed("it is another log's")) }
    };
    let checkpoint = read().map_err(|error| NotaryError::Checkpoint(path.to_owned(), error))?;
    let note = String::from_utf8_lossy(&content).into_owned();
    Ok(Some(Signed { size: checkpoint.size, root: checkpoint.root, note }))
}

/// Whether the store still has what was signed.
fn check(store: &AuditStore, signed: &Signed) -> Result<(), NotaryError> {
    let reader = store.reader();
    match reader.root(signed.size)? {
        None => Err(NotaryError::Behind { entries: reader.len()?, signed: signed.size }),
        Some(root) if root != signed.root => Err(NotaryError::Altered(signed.size)),
        Some(_) => Ok(()),
    }
}

/// When a folder was made, in nanoseconds since 1970; `None`: the file system does not tell.
fn folder_made(dir: &Path) -> Option<i64> {
    let made = std::fs::metadata(dir).ok()?.created().ok()?;
    let since = made.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_nanos()).ok()
}

/// What became of a log that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now: its store, its last checkpoint, and the public part of its key.
    pub folder: PathBuf,
    /// The checkpoint that was signed last, as far as it can be read.
    pub checkpoint: Option<Checkpoint>,
}

/// Sets the log in `dir` aside, whose key and checkpoint are in `folder` and whose published form is in `export`, so that a
/// new one can begin in its place. No gateway may have it open. Its private key is destroyed: nothing is ever signed in its
/// name again.
///
/// # Errors
/// [`NotaryError::File`]: something cannot be moved. What was moved before can be found in the new folder.
pub fn set_aside(dir: &Path, folder: &Path, export: &Path) -> Result<SetAside, NotaryError> {
    let named = |number: u32| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".closed-{number}"));
        PathBuf::from(name)
    };
    let to = (1..1_000).map(named).find(|path| !path.exists());
    let to = to.ok_or_else(|| NotaryError::File(dir.to_owned(), "too many closed logs are beside it".to_owned()))?;
    let content = file::read(&folder.join(CHECKPOINT_FILE)).ok().flatten();
    let checkpoint = content.and_then(|content| Note::parse(&content).ok()?.checkpoint().ok());
    let moved = |from: &Path, to: &Path| match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NotaryError::File(from.to_owned(), error.to_string())),
        Ok(()) | Err(_) => Ok(()),
    };
    moved(dir, &to)?;
    moved(&folder.join(CHECKPOINT_FILE), &to.join(CHECKPOINT_FILE))?;
    moved(export, &to.join("export"))?;
    let key = folder.join(KEY_FILE);
    match std::fs::remove_file(&key) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(NotaryError::File(key, error.to_string())),
        Ok(()) | Err(_) => {}
    }
    file::sync_folder(&key).map_err(|error| NotaryError::File(key, error.to_string()))?;
    Ok(SetAside { folder: to, checkpoint })
}
