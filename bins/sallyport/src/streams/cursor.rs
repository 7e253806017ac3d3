//! How far a stream has come, on the disk: one small JSON file, replaced as a whole.

use crate::config::Stream;
use audit_store::Reader;
use control_plane::units::show_time;
use proxy_core::StoreError;
use proxy_io::clock::now;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Why a cursor cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CursorError {
    /// The file cannot be read or written.
    #[error("{file}: {why}", file = .0.display(), why = .1)]
    File(PathBuf, io::Error),
    /// The file is not a cursor.
    #[error("{file} is not a cursor: {why}; remove it to send the whole log again", file = .0.display(), why = .1)]
    Damaged(PathBuf, String),
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// 1.
    version: u32,
    /// The log's id: another log has other entries under the same indices.
    log: String,
    /// Index of the first entry that was not acknowledged.
    next: u64,
    /// Where a new connection begins: earlier, where what was written last may not have arrived.
    resend_from: u64,
    /// When it was written; for people.
    updated: String,
}

/// The cursor of a stream.
pub(super) struct Cursor {
    file: PathBuf,
    state: State,
}

fn hex(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

impl Cursor {
    /// Reads the cursor, or makes one: at the start of the log, or at its end. It may wait for the disk.
    ///
    /// # Errors
    /// [`CursorError`].
    pub(super) fn open(file: &Path, stream: &Stream, reader: &Reader) -> Result<Self, CursorError> {
        let (log, end) = (hex(reader.log_id()?), reader.len()?);
        let fresh = |next: u64| State { version: 1, log: log.clone(), next, resend_from: next, updated: String::new() };
        let name = stream.name.as_str();
        let state = match std::fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh(if stream.from_start { 0 } else { end }),
            Err(error) => return Err(CursorError::File(file.to_owned(), error)),
            Ok(bytes) => {
                let read = serde_json::from_slice::<State>(&bytes).map_err(|error| error.to_string());
                let state = read.and_then(|state| if state.version == 1 { Ok(state) } else { Err("its version".to_owned()) });
                let mut state = state.map_err(|why| CursorError::Damaged(file.to_owned(), why))?;
                if state.log != log {
                    tracing::warn!(
                        stream = name,
                        was = state.log,
                        is = log,
                        "this is another log: its stream begins at its start"
                    );
                    state = fresh(0);
                }
                if state.next > end {
                    // Entries are sent when the disk has them: this one lied, or somebody has cut the log.
                    tracing::error!(stream = name, next = state.next, end, "the log is shorter than what was sent of it");
                    state = State { resend_from: end, ..fresh(end) };
                }
                state.resend_from = state.resend_from.min(state.next);
                state
            }
        };
        let mut cursor = Self { file: file.to_owned(), state };
        if let Some(folder) = file.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| CursorError::File(folder.to_owned(), error))?;
        }
        // A stream that begins now begins there after a restart, too.
        cursor.write()?;
        Ok(cursor)
    }

    /// Index of the first entry that was not acknowledged.
    pub(super) fn position(&self) -> u64 {
        self.state.next
    }

    /// Where a new connection begins.
    pub(super) fn resend_from(&self) -> u64 {
        self.state.resend_from
    }

    /// Everything before `next` was acknowledged; a new connection begins at `resend_from`. It is on the disk when this
    /// returns.
    ///
    /// # Errors
    /// [`CursorError::File`]: it is not. The stream may go on: after a restart it sends more than it has to.
    pub(super) fn advance(&mut self, next: u64, resend_from: u64) -> Result<(), CursorError> {
        // What is sent again does not move it back.
        self.state.next = self.state.next.max(next);
        self.state.resend_from = resend_from.min(self.state.next);
        self.write()
    }

    fn write(&mut self) -> Result<(), CursorError> {
        let failed = |error: io::Error| CursorError::File(self.file.clone(), error);
        self.state.updated = show_time(now());
        let text =
            serde_json::to_vec_pretty(&self.state).map_err(|error| CursorError::Damaged(self.file.clone(), error.to_string()))?;
        audit_store::notary::replace_file(&self.file, &text, 0o600).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Destination, Stream};
    use audit_export::Format;
    use audit_store::{AuditStore, Options};
    use proxy_core::record::{Entry, Event};
    use proxy_core::{Store, Timestamp};
    use std::collections::BTreeMap;

    fn stream(from_start: bool) -> Stream {
        let to = Destination::Http { url: "https://h/".into() };
        Stream { name: "siem".into(), to, format: Format::Jsonl, ca: None, headers: BTreeMap::new(), kinds: vec![], from_start }
    }

    fn store(folder: &Path, entries: usize) -> AuditStore {
        let store = AuditStore::open(folder, Options { min_free_bytes: 0, ..Options::default() }).unwrap();
        for _ in 0..entries {
            store.append(&[Entry { time: Timestamp(0), session: None, event: Event::Heartbeat }]).unwrap();
        }
        store
    }

    #[test]
    fn a_cursor_survives_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file) = (store(&folder.path().join("audit"), 9), folder.path().join("streams/siem.json"));
        let open = |from_start| Cursor::open(&file, &stream(from_start), &store.reader()).unwrap();
        assert_eq!(open(true).position(), 0);
        let mut cursor = open(true);
        cursor.advance(7, 4).unwrap();
        cursor.advance(5, 2).unwrap();
        assert_eq!((open(false).position(), open(false).resend_from()), (7, 2), "`from` is for a stream without a cursor");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(open(false).position(), 9);
        std::fs::write(&file, "{").unwrap();
        assert!(matches!(Cursor::open(&file, &stream(true), &store.reader()), Err(CursorError::Damaged(..))));
    }

    #[test]
    fn another_log_begins_anew_and_a_shorter_one_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("siem.json");
        let long = store(&folder.path().join("one"), 9);
        Cursor::open(&file, &stream(true), &long.reader()).unwrap().advance(9, 9).unwrap();
        let other = store(&folder.path().join("two"), 3);
        assert_eq!(Cursor::open(&file, &stream(true), &other.reader()).unwrap().position(), 0);
        let mut cursor = Cursor::open(&file, &stream(true), &other.reader()).unwrap();
        cursor.advance(50, 40).unwrap();
        let cursor = Cursor::open(&file, &stream(true), &other.reader()).unwrap();
        assert_eq!((cursor.position(), cursor.resend_from()), (3, 3));
    }
}
