//! A store whose write-ahead log is damaged elsewhere than at its end, or lacks entries before others: what it still has,
//! and going on from there.
//!
//! Looking changes nothing. Repairing first sets the whole store aside as it is: entries after the damage can then
//! still be read out of it by hand, although they are in the log no more.

use crate::db::Db;
use crate::log;
use crate::options::{Options, Recovery};
use crate::store::AuditStore;
use crate::wal;
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
/// [`StoreError`]: the damage is elsewhere than in the write-ahead log, so that no repair is possible here; or the
/// folder cannot be read.
pub fn damage(dir: &Path, options: &Options) -> Result<Option<Damage>, StoreError> {
    if let Some(foreign) = wal::foreign(dir)?.first() {
        // RocksDB cannot read past it: a copy in which it is damage like any other is looked at.
        let copy = Copy::new(dir).map_err(|e| StoreError::Io(format!("{} cannot be copied: {e}", dir.display())))?;
        wal::disarm(&copy.0)?;
        return behind(&copy.0, options, foreign.words()).map(Some);
    }
    match Db::open_read_only(dir, options, Some(Recovery::Refuse)) {
        Ok(db) => {
            let gap = log::gap(&db)?;
            Ok(gap.map(|gap| Damage { what: gap.words(), kept: gap.first, dropped: gap.after.unwrap_or(0) }))
        }
        Err(StoreError::Corrupt(what)) => behind(dir, options, what).map(Some),
        Err(other) => Err(other),
    }
}

/// What stands before and after the damage.
fn behind(dir: &Path, options: &Options, what: String) -> Result<Damage, StoreError> {
    let before = Db::open_read_only(dir, options, Some(Recovery::DropDamagedTail))?;
    // That entries are missing at its end is what the damage means.
    let (what, kept) = match log::gap(&before)?.filter(|gap| gap.after.is_some()) {
        None => (what, log::end(&before)?),
        Some(gap) => (format!("{what}; {}", gap.words()), gap.first),
    };
    let all = match Db::open_read_only(dir, options, None).and_then(|all| log::end(&all)) {
        // RocksDB 11.8 may take a whole record for damaged that follows a damaged one of several parts: then nothing
        // after the damage can be recognised.
        Err(StoreError::Corrupt(_)) => kept,
        all => all?,
    };
    Ok(Damage { what, kept, dropped: all.saturating_sub(kept) })
}

/// A copy of a store for looking at, which is removed again.
struct Copy(PathBuf);

impl Copy {
    fn new(dir: &Path) -> io::Result<Self> {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".looked-at-{}", std::process::id()));
        let copy = Self(PathBuf::from(name));
        // From a process that was killed while it looked.
        copy.remove();
        copy_files(dir, &copy.0)?;
        Ok(copy)
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "{} cannot be removed", self.0.display());
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
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
