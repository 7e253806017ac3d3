//! Notices that were given up. They can be listed, and sent again.

use crate::limits::SPOOL_FILE_MAX;
use crate::notice::Notice;
use crate::spool::{private_folder, replace};
use parking_lot::Mutex;
use proxy_core::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A notice that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The channel.
    pub channel: String,
    /// When it was given up.
    pub died: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// Why, in the words of the last [`SendError`](crate::SendError).
    pub error: String,
    /// The notice, as the channel would have had it.
    pub notice: Notice,
}

impl DeadLetter {
    /// Names it, for people: `CHANNEL/msg_…`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.channel, self.notice.id())
    }
}

/// The dead letters cannot be kept or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {kind}", path = .path.display())]
pub struct DeadLetterError {
    /// The file or folder.
    pub path: PathBuf,
    /// What happened.
    pub kind: io::ErrorKind,
}

/// Keeps what was given up. It may block.
pub trait DeadLetters: Send + Sync {
    /// Keeps one; how many older ones gave way.
    ///
    /// # Errors
    /// It is not kept. It stays in the spool until the next start, if there is one.
    fn bury(&self, letter: &DeadLetter) -> Result<u64, DeadLetterError>;
}

/// Dead letters as lines of JSON, in a file that nobody else can read.
#[derive(Debug)]
pub struct FileDeadLetters {
    file: PathBuf,
    bytes_max: u64,
    writing: Mutex<()>,
}

impl FileDeadLetters {
    /// Uses `dead-letters.jsonl` in `folder`, which is made if it is not there. Beyond `bytes_max` the oldest give way
    /// ([`DEAD_FILE_MAX`](crate::limits::DEAD_FILE_MAX)).
    ///
    /// # Errors
    /// [`DeadLetterError`]: the folder cannot be made.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, DeadLetterError> {
        let made = private_folder(folder);
        made.map_err(|error| DeadLetterError { path: folder.to_owned(), kind: error.kind() })?;
        Ok(Self { file: folder.join("dead-letters.jsonl"), bytes_max, writing: Mutex::default() })
    }

    fn failed(&self, error: &io::Error) -> DeadLetterError {
        DeadLetterError { path: self.file.clone(), kind: error.kind() }
    }

    /// All of them, oldest first. A line that is none, after a loss of power, is left out.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub fn list(&self) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let text = self.read().map_err(|error| self.failed(&error))?;
        Ok(lines(&text).filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Removes some; how many.
    ///
    /// # Errors
    /// [`DeadLetterError`]: none is removed.
    pub fn remove(&self, letters: &[DeadLetter]) -> Result<usize, DeadLetterError> {
        let _writing = self.writing.lock();
        let text = self.read().map_err(|error| self.failed(&error))?;
        let (mut kept, mut removed) = (Vec::new(), 0);
        for line in lines(&text) {
            let Ok(letter) = serde_json::from_slice::<DeadLetter>(line) else { continue };
            if letters.contains(&letter) {
                removed += 1;
            } else {
                kept.extend_from_slice(line);
                kept.push(b'\n');
            }
        }
        if removed > 0 {
            replace(&self.file, &kept).map_err(|error| self.failed(&error))?;
        }
        Ok(removed)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        match std::fs::File::open(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(file) => {
                file.take(self.bytes_max.saturating_add(SPOOL_FILE_MAX)).read_to_end(&mut text)?;
            }
        }
        Ok(text)
    }

    fn append(&self, line: &[u8]) -> io::Result<u64> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.file)?;
        let length = file.metadata()?.len();
        if length.saturating_add(line.len() as u64) > self.bytes_max {
            return self.make_room(line);
        }
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                // The last line was cut by a loss of power.
                file.write_all(b"\n")?;
            }
        }
        file.write_all(line)?;
        file.sync_all()?;
        Ok(0)
    }

    /// Drops the oldest until the file is half full, so that it is not written anew for each letter.
    fn make_room(&self, line: &[u8]) -> io::Result<u64> {
        let text = self.read()?;
        let (mut dropped, mut length) = (0, text.len() as u64);
        let mut rest = lines(&text);
        let mut kept = Vec::new();
        for old in rest.by_ref() {
            if length.saturating_add(line.len() as u64) <= self.bytes_max / 2 {
                kept.extend_from_slice(old);
                kept.push(b'\n');
                continue;
            }
            dropped += 1;
            length = length.saturating_sub(old.len() as u64 + 1);
        }
        kept.extend_from_slice(line);
        replace(&self.file, &kept)?;
        Ok(dropped)
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

impl DeadLetters for FileDeadLetters {
    fn bury(&self, letter: &DeadLetter) -> Result<u64, DeadLetterError> {
        let _writing = self.writing.lock();
        let mut line = serde_json::to_vec(letter).map_err(|error| self.failed(&error.into()))?;
        line.push(b'\n');
        self.append(&line).map_err(|error| self.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::Kind;
    use std::os::unix::fs::PermissionsExt;

    fn letter(request: &str) -> DeadLetter {
        let notice = Notice::new(Kind::ApprovalDenied, request, Timestamp(1), Timestamp(2));
        DeadLetter { channel: "ops".into(), died: Timestamp(3), attempts: 4, error: "it did not answer in time".into(), notice }
    }

    #[test]
    fn letters_are_kept_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dead = FileDeadLetters::open(&folder.path().join("x"), 1 << 20).unwrap();
        assert_eq!(dead.list().unwrap(), []);
        for request in ["a", "b", "c"] {
            assert_eq!(dead.bury(&letter(request)).unwrap(), 0);
        }
        assert_eq!(dead.remove(&[letter("b"), letter("never")]).unwrap(), 1);
        assert_eq!(dead.list().unwrap(), [letter("a"), letter("c")]);
        assert_eq!(std::fs::metadata(&dead.file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_oldest_give_way_when_the_file_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let dead = FileDeadLetters::open(folder.path(), 4_000).unwrap();
        let dropped: u64 = (0..100).map(|n| dead.bury(&letter(&format!("r{n}"))).unwrap()).sum();
        let list = dead.list().unwrap();
        assert!(std::fs::metadata(&dead.file).unwrap().len() <= 4_000);
        assert_eq!(list.len() as u64 + dropped, 100);
        assert_eq!(list.last(), Some(&letter("r99")));
    }

    #[test]
    fn a_line_that_was_cut_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let dead = FileDeadLetters::open(folder.path(), 1 << 20).unwrap();
        dead.bury(&letter("a")).unwrap();
        let text = std::fs::read(&dead.file).unwrap();
        std::fs::write(&dead.file, &text[..text.len() - 9]).unwrap();
        dead.bury(&letter("b")).unwrap();
        assert_eq!(dead.list().unwrap(), [letter("b")]);
    }
}
