//! A witness's folder: its key, and of each log the checkpoint that it cosigned last.
//!
//! ```text
//! DIR/lock              held while a witness runs: one at a time
//! DIR/key               PRIVATE+KEY+NAME+ID+BASE64: the kind (1 byte) and the seed (32 bytes); mode 0600
//! DIR/known             the origin of each log that has a file, one a line
//! DIR/logs/SHA256.note  the checkpoint that was cosigned last, with the log's signature and the witness's own;
//!                       SHA256: of the log's origin, hexadecimal
//! ```
//!
//! Files are written beside, synced, renamed, and the folder is synced. What is damaged or missing is refused and never
//! made anew: a witness that forgets what it cosigned would cosign a second history. Each file of a log bears the witness's
//! own signature, so no damage passes. An old copy of the whole folder does: nothing in it can tell that it is old.

use audit_store::notary::replace_file;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proxy_core::SecretBytes;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tlog::witness::{Known, REQUEST_MAX};
use tlog::{Checkpoint, KeyKind, Note, Signer};

/// Longest file that is read: a request's checkpoint and a signature, with room to spare.
const FILE_MAX: u64 = 2 * REQUEST_MAX as u64;
/// The byte that names a witness's kind of key (tlog-cosignature).
const KIND: u8 = 4;
const KEY_PREFIX: &str = "PRIVATE+KEY+";

/// Why a witness cannot use its folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no key, and no name to make one for.
    #[error("{} has no key yet; say whose it is to be with --name, for example --name witness.example.com", .0.display())]
    NoKey(PathBuf),
    /// The name cannot stand in a note.
    #[error("{0:?} cannot be a witness's name; use one word without a plus, such as a host's name")]
    Name(String),
    /// The key has another name.
    #[error("{} is the key of {has}, not of {wanted}; leave out --name, or use another folder", path.display())]
    AnotherName {
        /// The key's file.
        path: PathBuf,
        /// Its name.
        has: String,
        /// The one that was asked for.
        wanted: String,
    },
    /// Others may read the key.
    #[error("{} can be used by others (mode {mode:03o}); chmod 600 it, and make a new witness if somebody may have read it", path.display())]
    Permissions {
        /// The key's file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another witness runs on it.
    #[error("another witness runs on {}; two would cosign two histories", .0.display())]
    InUse(PathBuf),
    /// A file is not what was written, or is gone.
    #[error(
        "{}: {why}; nothing is cosigned until it is as it was. If it is lost for good, start a new witness in an empty folder and give its new key to those who rely on it",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// A log's key is given that is no log's.
    #[error("{0} is the key of a witness, not of a log; give the key of the log that is to be witnessed")]
    NotALog(String),
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> FolderError + '_ {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

/// A folder that is ours until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, for this user alone, and takes it. Nothing is made for a key without a name.
    pub(super) fn open(dir: &Path, name: Option<&str>) -> Result<Self, FolderError> {
        let key = dir.join("key");
        if name.is_none() && !key.try_exists().map_err(io_error(&key))? {
            return Err(FolderError::NoKey(dir.to_owned()));
        }
        let logs = dir.join("logs");
        DirBuilder::new().recursive(true).mode(0o700).create(&logs).map_err(io_error(&logs))?;
        sync_dir(dir).map_err(io_error(dir))?;
        let path = dir.join("lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io_error(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(FolderError::Io { path, source }),
        }
    }

    /// The witness's key, which is made if there is none. `name` must be its name, if one is given.
    pub(super) fn key(&self, name: Option<&str>) -> Result<Signer, FolderError> {
        let path = self.dir.join("key");
        if !path.try_exists().map_err(io_error(&path))? {
            let name = name.ok_or_else(|| FolderError::NoKey(self.dir.clone()))?;
            if self.dir.join("known").exists() {
                return Err(FolderError::Damaged { path, why: "the key is gone, and what it has signed is there" });
            }
            return make_key(&path, name);
        }
        Self::read_key(path, name)
    }

    /// The key of the witness of a folder that may be in use. One that is not there is made.
    pub(super) fn key_of(dir: &Path, name: Option<&str>) -> Result<Signer, FolderError> {
        let path = dir.join("key");
        if path.try_exists().map_err(io_error(&path))? { Self::read_key(path, name) } else { Self::open(dir, name)?.key(name) }
    }

    fn read_key(path: PathBuf, name: Option<&str>) -> Result<Signer, FolderError> {
        let mode = std::fs::metadata(&path).map_err(io_error(&path))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(FolderError::Permissions { path, mode });
        }
        let text = SecretBytes::new(read(&path)?);
        let signer = parse_key(text.expose()).ok_or(FolderError::Damaged { path: path.clone(), why: "it is not a key" })?;
        let has = signer.verifier().name().to_owned();
        match name {
            Some(wanted) if wanted != has => Err(FolderError::AnotherName { path, has, wanted: wanted.to_owned() }),
            Some(_) | None => Ok(signer),
        }
    }

    /// Where a log's checkpoint is.
    pub(super) fn file_of(&self, origin: &str) -> PathBuf {
        let hash = digest(&SHA256, origin.as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join("logs").join(format!("{hex}.note"))
    }

    /// What was cosigned last of a log. One that is new gets a file that says that nothing was, so that from now on a
    /// file that is missing is one that was lost.
    pub(super) fn known(&self, origin: &str, witness: &Signer, seconds: u64) -> Result<Known, FolderError> {
        let (path, list) = (self.file_of(origin), self.dir.join("known"));
        let mut origins = if list.try_exists().map_err(io_error(&list))? { read(&list)? } else { Vec::new() };
        let listed = origins.split(|byte| *byte == b'\n').any(|line| line == origin.as_bytes());
        if path.try_exists().map_err(io_error(&path))? {
            let known = parse_known(&read(&path)?, origin, witness);
            let known = known.map_err(|why| FolderError::Damaged { path, why })?;
            if !listed {
                self.list(&mut origins, origin)?;
            }
            return Ok(known);
        }
        if listed {
            return Err(FolderError::Damaged { path, why: "what was cosigned of a log is gone" });
        }
        let known = Known::default();
        let text = Checkpoint { origin: origin.to_owned(), size: known.size, root: known.root }.to_string();
        write(&path, format!("{text}\n{}", witness.sign(&text, seconds)).as_bytes()).map_err(io_error(&path))?;
        self.list(&mut origins, origin)?;
        Ok(known)
    }

    fn list(&self, origins: &mut Vec<u8>, origin: &str) -> Result<(), FolderError> {
        origins.extend_from_slice(origin.as_bytes());
        origins.push(b'\n');
        let path = self.dir.join("known");
        write(&path, origins).map_err(io_error(&path))
    }
}

/// What a log's file says, if the witness itself has signed it.
fn parse_known(note: &[u8], origin: &str, witness: &Signer) -> Result<Known, &'static str> {
    let note = Note::parse(note).map_err(|_| "it is not a signed note")?;
    note.verify(std::slice::from_ref(witness.verifier())).map_err(|_| "this witness has not signed it so")?;
    let checkpoint = note.checkpoint().map_err(|_| "it is not a checkpoint")?;
    if checkpoint.origin != origin {
        return Err("it is of another log");
    }
    Ok(Known { size: checkpoint.size, root: checkpoint.root })
}

fn make_key(path: &Path, name: &str) -> Result<Signer, FolderError> {
    let mut bytes = vec![KIND; 33];
    aws_lc_rs::rand::fill(&mut bytes[1..]).map_err(|_| io_error(path)(io::Error::other("the system has no randomness")))?;
    let bytes = SecretBytes::new(bytes);
    let signer = signer(name, bytes.expose()).ok_or_else(|| FolderError::Name(name.to_owned()))?;
    // The verifier key's text is NAME+ID+BASE64, with the public key.
    let verifier = signer.verifier().to_string();
    let id = verifier.split('+').nth(1).unwrap_or_default();
    let text = SecretBytes::new(format!("{KEY_PREFIX}{name}+{id}+{}\n", BASE64.encode(bytes.expose())).into_bytes());
    write(path, text.expose()).map_err(io_error(path))?;
    Ok(signer)
}

fn parse_key(text: &[u8]) -> Option<Signer> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.strip_prefix(KEY_PREFIX)?;
    let mut parts = text.splitn(3, '+');
    let (name, id, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = SecretBytes::new(BASE64.decode(encoded).ok()?);
    let signer = signer(name, bytes.expose())?;
    signer.verifier().to_string().starts_with(&format!("{name}+{id}+")).then_some(signer)
}

/// The key of a name, from its kind and its seed.
fn signer(name: &str, bytes: &[u8]) -> Option<Signer> {
    let (kind, seed) = bytes.split_first()?;
    let seed: &[u8; 32] = seed.try_into().ok()?;
    Signer::from_seed(name, KeyKind::Witness, seed).ok().filter(|_| *kind == KIND)
}

fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(io_error(path))?;
    file.take(FILE_MAX + 1).read_to_end(&mut content).map_err(io_error(path))?;
    if content.len() as u64 > FILE_MAX {
        return Err(FolderError::Damaged { path: path.to_owned(), why: "it is longer than any that was written" });
    }
    Ok(content)
}

/// Replaces a file, for its owner alone.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_file(path, content, 0o600)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
