//! Write-ahead logs, and the manifest, as they are before RocksDB reads them.
//!
//! ```text
//! file   = blocks of 32 KiB; what is too short for a header at a block's end is filled up
//! record = checksum (4 bytes), length (2, little-endian), type (1); of a recycled log: its number (4); the content
//! ```
//!
//! This store recycles no logs. Where a disk left a record with the type of a recycled one in a log that began without,
//! RocksDB 11.8 reads it for ever (`log::Reader::ReadPhysicalRecord` gives `kBadRecord` and has consumed nothing); at a
//! log's beginning it takes all that follows for old, and passes over it without a word. So these are found before.
//!
//! Records are followed by their lengths alone. Within a damaged block RocksDB goes to the next one where a checksum is
//! wrong; here more is looked at than it reads, and never less.

use proxy_core::StoreError;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;

/// Types of records in recycled logs: `kRecyclableFullType` to `kRecyclableLastType`,
/// `kRecyclableUserDefinedTimestampSizeType`, `kRecyclePredecessorWALInfoType`.
fn is_recyclable(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

/// No type of a record: what has it fails its checksum, as any other damage does.
const NO_TYPE: u8 = 0x10;

/// A record of a recycled log where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    file: PathBuf,
    /// Where it begins, in bytes from the file's beginning.
    at: u64,
    kind: u8,
}

impl Foreign {
    pub(crate) fn words(&self) -> String {
        let name = self.file.file_name().unwrap_or_default().display();
        format!("{name}: the record at byte {} is of type {}, which this log does not have", self.at, self.kind)
    }
}

/// The error of a store that RocksDB must not open.
///
/// # Errors
/// [`StoreError::Corrupt`]: there is a record that it would not come past. [`StoreError::Io`]: it cannot be told.
pub(crate) fn check(dir: &Path) -> Result<(), StoreError> {
    match foreign(dir)?.first() {
        None => Ok(()),
        Some(found) => Err(StoreError::Corrupt(format!("cannot open {}: {}", dir.display(), found.words()))),
    }
}

/// All such records of the store in `dir`, file by file.
pub(crate) fn foreign(dir: &Path) -> Result<Vec<Foreign>, StoreError> {
    let mut found = Vec::new();
    for file in logs(dir).map_err(|e| unreadable(dir, &e))? {
        match File::open(&file) {
            Ok(mut opened) => look(&file, &mut opened, &mut found).map_err(|e| unreadable(&file, &e))?,
            // A gateway that is running deletes what it has flushed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&file, &error)),
        }
    }
    Ok(found)
}

/// Takes the type away from such records, so that they are damage like any other. For a store that is a copy, or of
/// which there is one.
pub(crate) fn disarm(dir: &Path) -> Result<(), StoreError> {
    for found in foreign(dir)? {
        overwrite(&found).map_err(|e| unreadable(&found.file, &e))?;
    }
    Ok(())
}

fn overwrite(found: &Foreign) -> io::Result<()> {
    let mut file = File::options().write(true).open(&found.file)?;
    file.seek(SeekFrom::Start(found.at + HEADER as u64 - 1))?;
    file.write_all(&[NO_TYPE])?;
    file.sync_all()
}

fn unreadable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io(format!("cannot read {}: {error}", path.display()))
}

/// The write-ahead logs, oldest first, and the manifest that is in use. None where there is no store yet.
fn logs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        listed => listed?,
    };
    for file in listed {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            files.push(path);
        }
    }
    files.sort();
    match fs::read_to_string(dir.join("CURRENT")) {
        Ok(name) => files.push(dir.join(name.trim_end())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Not text: RocksDB says so.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
        Err(error) => return Err(error),
    }
    Ok(files)
}

fn look(path: &Path, file: &mut File, found: &mut Vec<Foreign>) -> io::Result<()> {
    let mut block = Vec::with_capacity(BLOCK);
    let mut start = 0;
    loop {
        block.clear();
        Read::by_ref(file).take(BLOCK as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(());
        }
        let mut at = 0;
        while let Some(&[_, _, _, _, low, high, kind]) = block.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) {
            let length = usize::from(u16::from_le_bytes([low, high]));
            if is_recyclable(kind) {
                found.push(Foreign { file: path.to_owned(), at: start + at as u64, kind });
            }
            if kind == 0 && length == 0 {
                break;
            }
            at += HEADER + length;
        }
        start += BLOCK as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: u16) -> Vec<u8> {
        let mut record = vec![0xaa; 4];
        record.extend_from_slice(&length.to_le_bytes());
        record.push(kind);
        record.extend(std::iter::repeat_n(7, usize::from(length)));
        record
    }

    fn found_in(bytes: &[u8]) -> Vec<(u64, u8)> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("000004.log"), bytes).unwrap();
        let found = foreign(dir.path()).unwrap();
        disarm(dir.path()).unwrap();
        assert_eq!(foreign(dir.path()), Ok(Vec::new()));
        assert_eq!(check(dir.path()), Ok(()));
        found.iter().map(|found| (found.at, found.kind)).collect()
    }

    #[test]
    fn every_recyclable_type_is_found_where_a_record_begins() {
        for kind in 0..=u8::MAX {
            let bytes = [record(1, 100), record(kind, 3)].concat();
            let expected = if [5, 6, 7, 8, 11, 131].contains(&kind) { vec![(107, kind)] } else { vec![] };
            assert_eq!(found_in(&bytes), expected, "{kind}");
        }
    }

    #[test]
    fn records_are_followed_over_blocks_and_damage() {
        let full = u16::try_from(BLOCK - HEADER).unwrap();
        // A whole block, and then one.
        assert_eq!(found_in(&[record(2, full), record(5, 0)].concat()), [(32_768, 5)]);
        // A block whose end is too short for a header.
        let short = [record(1, full - 3), vec![5; 3], record(6, 1)].concat();
        assert_eq!(found_in(&short), [(32_768, 6)]);
        // A length that passes the block's end, zeros to the end of a block: on with the next block.
        let mut torn = record(1, 60_000);
        torn.truncate(BLOCK);
        assert_eq!(found_in(&[torn, record(7, 1)].concat()), [(32_768, 7)]);
        let mut zeros = record(1, 10);
        zeros.resize(BLOCK, 0);
        assert_eq!(found_in(&[zeros, record(8, 1)].concat()), [(32_768, 8)]);
        // Several, also with a content that is not there.
        assert_eq!(found_in(&[record(131, 2), record(11, 9)[..7].to_vec()].concat()), [(0, 131), (9, 11)]);
        // Within a record they mean nothing; a header that is cut off is none.
        assert_eq!(found_in(&[record(1, 2), record(5, 0)[..6].to_vec()].concat()), []);
        assert_eq!(found_in(&[]), []);
    }

    #[test]
    fn the_manifest_is_looked_at_and_a_missing_store_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(foreign(&dir.path().join("none")), Ok(Vec::new()));
        fs::write(dir.path().join("CURRENT"), "MANIFEST-000005\n").unwrap();
        fs::write(dir.path().join("MANIFEST-000005"), record(5, 1)).unwrap();
        fs::write(dir.path().join("MANIFEST-000001"), record(5, 1)).unwrap();
        let error = check(dir.path()).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("MANIFEST-000005: the record at byte 0")), "{error}");
        fs::write(dir.path().join("CURRENT"), [0xff, 0xfe]).unwrap();
        assert_eq!(foreign(dir.path()), Ok(Vec::new()));
    }
}
