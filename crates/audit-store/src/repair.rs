//! A store that lacks entries which were on the disk, since its journal is damaged: what it still has, and going on from
//! there.
//!
//! Looking changes nothing. Repairing first sets the whole store aside as it is: entries after the damage can then
//! still be read out of it by hand, although they are in the log no more.

use crate::db::Db;
use crate::log;
use crate::options::{Options, Recovery};
use crate::store::AuditStore;
use proxy_core::StoreError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders that damaged stores were set aside in (1,000): more is not an accident.
const SET_ASIDE_MAX: u32 = 1_000;

/// What a damaged store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong, in RocksDB's words or the store's.
    pub what: String,
    /// Entries before the damage: what a repair keeps.
    pub kept: u64,
    /// Entries after it that can be recognised: what a repair drops. What was in the damaged place itself cannot be
    /// counted.
    pub dropped: u64,
}

/// What is wrong with the store in `dir`, which no gateway may have open; `None`: it can be opened.
///
/// # Errors
/// [`StoreError`]: the damage is elsewhere than in the journal, so that no repair is possible here; or the folder cannot be
/// read.
pub fn damage(dir: &Path, options: &Options) -> Result<Option<Damage>, StoreError> {
    let db = Db::open_read_only(dir, options)?;
    let gap = log::gap(&db)?;
    Ok(gap.map(|gap| Damage { what: log::gap_words(gap), kept: gap.0, dropped: db.behind() }))
}

/// Sets the store in `dir` aside and opens it with what stands before the damage. The caller records that, before
/// anything else. Returns where the damaged store is as well.
///
/// # Errors
/// [`StoreError`]: it cannot be set aside, and nothing was changed; or it cannot be opened all the same.
pub fn repair(dir: &Path, options: Options) -> Result<(AuditStore, PathBuf), StoreError> {
    let aside = set_aside(dir).map_err(|e| StoreError::Io(format!("{} cannot be set aside: {e}", dir.display())))?;
    let store = AuditStore::open(dir, Options { recovery: Recovery::DropDamagedTail, ..options })?;
    Ok((store, aside))
}

/// A copy of the store beside it: `audit.damaged-1`. Files that never change are shared.
fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let named = |number: u32| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let free = (1..SET_ASIDE_MAX).map(named).find(|path| !path.exists());
    let aside = free.ok_or_else(|| io::Error::other("there are too many damaged stores beside it"))?;
    copy_files(dir, &aside)?;
    Ok(aside)
}

/// Makes `to`, with the files of `dir`.
fn copy_files(dir: &Path, to: &Path) -> io::Result<()> {
    {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(0o700).create(to)?;
    }
    for file in fs::read_dir(dir)? {
        let file = file?;
        let (from, copy) = (file.path(), to.join(file.file_name()));
        if !file.file_type()?.is_file() || file.file_name() == "LOCK" {
            continue;
        }
        let fixed = from.extension().is_some_and(|extension| extension == "sst" || extension == "blob");
        if !(fixed && fs::hard_link(&from, &copy).is_ok()) {
            fs::copy(&from, &copy)?;
            fs::File::open(&copy)?.sync_all()?;
        }
    }
    fs::File::open(to)?.sync_all()
}
