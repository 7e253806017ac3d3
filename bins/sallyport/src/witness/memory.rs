//! A witness: what it is asked, decided one request of a log after the other, and remembered before it is answered.

use super::folder::{Folder, FolderError, write};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tlog::witness::{Cosigned, Known, Refusal, Request, SIZE_TYPE, decide, encode_size};
use tlog::{Checkpoint, KeyKind, Signer, Verifier};

const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// What is answered over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

impl Answer {
    /// Plain text.
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT_TYPE, body: body.into() }
    }

    fn refusal(refusal: &Refusal) -> Self {
        match refusal.known() {
            Some(known) => Self { status: refusal.status(), content_type: SIZE_TYPE, body: encode_size(known) },
            None => Self::text(refusal.status(), format!("{refusal}\n")),
        }
    }
}

/// One log that is witnessed.
#[derive(Debug)]
struct Log {
    keys: Vec<Verifier>,
    file: PathBuf,
    /// Held from the decision until the disk has what follows from it: of two requests that start from one size, the
    /// second sees what the first has made of it.
    known: Mutex<Known>,
}

/// A witness with its key, its logs and its memory.
#[derive(Debug)]
pub struct Witness {
    signer: Signer,
    logs: BTreeMap<String, Log>,
    /// Whether the last write failed.
    failing: AtomicBool,
    _folder: Folder,
}

impl Witness {
    /// Opens a witness's folder, or makes it. `name`: of its key; needed for a new one. `keys`: of the logs that it
    /// witnesses; a log's origin is its key's name, and two keys of one name are two keys of one log. `seconds` since
    /// 1970: now.
    ///
    /// # Errors
    /// [`FolderError`]: above all, that something in it is not as this witness left it.
    pub fn open(dir: &Path, name: Option<&str>, keys: &[Verifier], seconds: u64) -> Result<Self, FolderError> {
        let folder = Folder::open(dir, name)?;
        let signer = folder.key(name)?;
        let mut logs: BTreeMap<String, Log> = BTreeMap::new();
        for key in keys {
            if key.kind() != KeyKind::Log {
                return Err(FolderError::NotALog(key.to_string()));
            }
            let origin = key.name();
            if let Some(log) = logs.get_mut(origin) {
                log.keys.push(key.clone());
                continue;
            }
            let known = Mutex::new(folder.known(origin, &signer, seconds)?);
            logs.insert(origin.to_owned(), Log { keys: vec![key.clone()], file: folder.file_of(origin), known });
        }
        Ok(Self { signer, logs, failing: AtomicBool::new(false), _folder: folder })
    }

    /// The verifier key of the witness of a folder. As [`Witness::open`], without any log: a key that is not there is made.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn key_in(dir: &Path, name: Option<&str>) -> Result<Verifier, FolderError> {
        Ok(Folder::key_of(dir, name)?.verifier().clone())
    }

    /// Its verifier key.
    #[must_use]
    pub fn key(&self) -> &Verifier {
        self.signer.verifier()
    }

    /// What it answers to the body of an `add-checkpoint`, at `seconds` since 1970. It waits for the disk, and for other
    /// requests of the same log: not for an event loop's thread.
    #[must_use]
    pub fn add_checkpoint(&self, body: &[u8], seconds: u64) -> Answer {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(refusal) => return Answer::refusal(&refusal),
        };
        let origin = &request.checkpoint.origin;
        let Some(log) = self.logs.get(origin) else { return Answer::refusal(&Refusal::UnknownLog) };
        let mut known = log.known.lock();
        let cosigned = match decide(&request, &log.keys, *known, &self.signer, seconds) {
            Ok(cosigned) => cosigned,
            Err(refusal) => {
                report(&request, &log.keys, &refusal);
                return Answer::refusal(&refusal);
            }
        };
        if cosigned.known != *known && !self.remember(log, &cosigned) {
            return Answer::text(500, "the witness cannot write to its disk; nothing was cosigned\n");
        }
        *known = cosigned.known;
        drop(known);
        tracing::info!(log = origin, size = cosigned.known.size, "cosigned");
        Answer::text(200, cosigned.line)
    }

    /// Whether the disk has it now. If not, it may have it or not: what was cosigned is not handed out, so either will do.
    fn remember(&self, log: &Log, cosigned: &Cosigned) -> bool {
        let written = write(&log.file, cosigned.note.as_bytes());
        self.failing.store(written.is_err(), Ordering::Relaxed);
        if let Err(error) = &written {
            tracing::error!(file = %log.file.display(), %error, "a checkpoint could not be kept, and was not cosigned");
        }
        written.is_ok()
    }

    /// Whether it can cosign, as far as it knows.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.failing.load(Ordering::Relaxed)
    }

    /// Its key and its logs, for people.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = format!("A witness of transparency logs (https://c2sp.org/tlog-witness)\n\nkey\n{}\n", self.key());
        for (origin, log) in &self.logs {
            let Known { size, root } = *log.known.lock();
            let checkpoint = Checkpoint { origin: origin.clone(), size, root };
            let _ = write!(page, "\nlog\n{checkpoint}");
            for key in &log.keys {
                let _ = writeln!(page, "{key}");
            }
        }
        page
    }
}

/// Two histories of one log are what a witness is there to see: what shows it goes to the witness's own log.
fn report(request: &Request, keys: &[Verifier], refusal: &Refusal) {
    let Request { old, checkpoint, note, .. } = request;
    match refusal {
        Refusal::Forked { .. } | Refusal::Inconsistent => {
            let lines: String = keys.iter().filter_map(|key| note.line_of(key)).collect();
            let evidence = format!("{}\n{lines}", note.text);
            tracing::warn!(log = checkpoint.origin, old, size = checkpoint.size, evidence, "not cosigned: {refusal}");
        }
        Refusal::Malformed(_)
        | Refusal::Backwards { .. }
        | Refusal::UnknownLog
        | Refusal::Unsigned
        | Refusal::Conflict { .. } => {
            tracing::debug!(log = checkpoint.origin, old, size = checkpoint.size, "not cosigned: {refusal}");
        }
    }
}
