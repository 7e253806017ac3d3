//! Undelivered notices of one channel on the disk: one file each, named by its place in the order.
//!
//! A file is written beside its place, synced, and moved there, so a file that is there is whole. It is removed when its notice
//! has been delivered, or is a dead letter. In between the process may end: then the notice is delivered again.

use crate::limits::SPOOL_FILE_MAX;
use crate::notice::Notice;
use proxy_core::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// 1.
    version: u32,
    /// When the notice was accepted.
    pub(crate) accepted: Timestamp,
    pub(crate) notice: Notice,
}

impl Stored {
    pub(crate) fn new(accepted: Timestamp, notice: Notice) -> Self {
        Self { version: 1, accepted, notice }
    }
}

#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Opens or makes the folder; what is in it, in its order. A file that cannot be read as a notice is set aside as `.bad`.
    pub(crate) fn open(folder: &Path) -> io::Result<(Self, Vec<(u64, Stored)>)> {
        private_folder(folder)?;
        let spool = Self { folder: folder.to_owned() };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(".tmp") {
                // It was being written when the process ended.
                std::fs::remove_file(&path)?;
            }
            let Some(place) = name.strip_suffix(".json").and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
                continue;
            };
            match read(&path) {
                Some(stored) => found.push((place, stored)),
                None => std::fs::rename(&path, path.with_extension("bad"))?,
            }
        }
        found.sort_by_key(|(place, _)| *place);
        Ok((spool, found))
    }

    fn file(&self, place: u64) -> PathBuf {
        self.folder.join(format!("{place:016x}.json"))
    }

    /// It is on the disk when this returns.
    pub(crate) fn put(&self, place: u64, stored: &Stored) -> io::Result<()> {
        let text = serde_json::to_vec(stored)?;
        replace(&self.file(place), &text)
    }

    /// It has been delivered. If this is lost with the power, it is delivered again.
    pub(crate) fn remove(&self, place: u64) -> io::Result<()> {
        std::fs::remove_file(self.file(place))
    }
}

fn read(path: &Path) -> Option<Stored> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(SPOOL_FILE_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice::<Stored>(&text).ok().filter(|stored| stored.version == 1)
}

/// Makes a folder that nobody else can look into.
pub(crate) fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Replaces a file as a whole, readable by nobody else; it is on the disk when this returns.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&beside, path));
    if let Err(error) = written {
        // Whether it can be removed or not, the first error is the one that matters.
        let _ = std::fs::remove_file(&beside);
        return Err(error);
    }
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::Kind;
    use std::os::unix::fs::PermissionsExt;

    fn stored(request: &str) -> Stored {
        Stored::new(Timestamp(7), Notice::new(Kind::ApprovalRequested, request, Timestamp(1), Timestamp(2)))
    }

    #[test]
    fn what_was_put_is_found_in_order_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool/ops");
        let (spool, found) = Spool::open(&path).unwrap();
        assert!(found.is_empty());
        for (place, request) in [(10, "b"), (9, "a"), (11, "c")] {
            spool.put(place, &stored(request)).unwrap();
        }
        spool.remove(11).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&spool.file(9))), (0o700, 0o600));
        let (_, found) = Spool::open(&path).unwrap();
        assert_eq!(found, [(9, stored("a")), (10, stored("b"))]);
    }

    #[test]
    fn a_half_written_file_is_removed_and_a_damaged_one_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        spool.put(1, &stored("a")).unwrap();
        std::fs::write(spool.file(2), "{\"version\":1,").unwrap();
        std::fs::write(folder.path().join("0000000000000003.tmp"), "{").unwrap();
        let (_, found) = Spool::open(folder.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(folder.path().join("0000000000000002.bad").exists());
        assert!(!folder.path().join("0000000000000003.tmp").exists());
    }
}
