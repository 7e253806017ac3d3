//! How far a destination has come, on the disk: one small JSON file, replaced as a whole.

use control_plane::units::show_time;
use proxy_io::clock::now;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// 1.
    version: u32,
    /// The log's id: another log has other entries under the same indices.
    log: String,
    /// Where it is shipped to: another place has nothing yet.
    to: String,
    /// Entries of which all full files are there: a multiple of 256.
    full: u64,
    /// Entries that the last checkpoint commits to which is there; 0: none.
    shipped: u64,
    /// When it was written; for people.
    updated: String,
}

/// The cursor of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Entries of which all full files are there: a multiple of 256.
    pub(super) full: u64,
    /// Entries that the last checkpoint commits to which is there; 0: none.
    pub(super) shipped: u64,
}

/// Where a cursor is kept, and what it is of.
#[derive(Debug, Clone)]
pub(super) struct CursorFile {
    pub(super) file: PathBuf,
    pub(super) log: String,
    pub(super) to: String,
}

impl CursorFile {
    /// Makes its folder.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    /// The cursor; `None`: there is none of this log and this destination. One that cannot be read is none either: what it
    /// says can be found out.
    pub(super) fn load(&self) -> Option<Cursor> {
        let bytes = std::fs::read(&self.file).ok()?;
        let Ok(state) = serde_json::from_slice::<State>(&bytes) else {
            tracing::warn!(file = %self.file.display(), "this is not a cursor: what was shipped is found out by a listing");
            return None;
        };
        let ours = state.version == 1 && state.log == self.log && state.to == self.to && state.full.is_multiple_of(256);
        ours.then_some(Cursor { full: state.full, shipped: state.shipped })
    }

    /// Writes it: it is on the disk when this returns.
    ///
    /// # Errors
    /// The file system's: after a restart, more is sent than has to be.
    pub(super) fn save(&self, cursor: &Cursor) -> io::Result<()> {
        let Cursor { full, shipped } = *cursor;
        let updated = show_time(now());
        let state = State { version: 1, log: self.log.clone(), to: self.to.clone(), full, shipped, updated };
        audit_store::notary::replace_file(&self.file, &serde_json::to_vec_pretty(&state)?, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_one_log_and_one_place() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("shipping/vault.cursor.json");
        let of = |log: &str, to: &str| CursorFile { file: file.clone(), log: log.to_owned(), to: to.to_owned() };
        let ours = of("a", "s3://x");
        ours.prepare().unwrap();
        assert_eq!(ours.load(), None);
        let cursor = Cursor { full: 512, shipped: 700 };
        ours.save(&cursor).unwrap();
        assert_eq!(ours.load(), Some(cursor));
        assert_eq!((of("b", "s3://x").load(), of("a", "s3://y").load()), (None, None));
        std::fs::write(&file, "{").unwrap();
        assert_eq!(ours.load(), None);
    }
}
