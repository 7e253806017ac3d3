//! Small JSON files that the gateway and the command line both write: whole or not at all, one writer at a time.
//!
//! A change takes the lock (`FILE.lock`, `flock`), reads the file afresh, writes `FILE.tmp`, syncs it, renames it
//! over the file and syncs the folder. A crash leaves the old file or the new one. Readers need no lock.

use crate::limits::STORE_FILE_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file of the control store cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreFileError {
    /// The file system says no.
    #[error("cannot {action} {path}")]
    Io {
        /// `read`, `write` …
        action: &'static str,
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read or write it.
    #[error("{path} can be used by others (mode {mode:03o}): chmod 600 {path}")]
    Permissions {
        /// Which file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// It is larger than the limit.
    #[error("{path} is larger than {STORE_FILE_MAX} bytes")]
    TooLarge {
        /// Which file.
        path: String,
    },
    /// It is not what was written.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong, without the file's content.
        problem: String,
    },
}

/// Which version of a file was read: another one has another stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct JsonFile {
    path: PathBuf,
}

impl JsonFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> StoreFileError {
        let path = self.path.display().to_string();
        move |source| StoreFileError::Io { action, path: path.clone(), source }
    }

    pub(crate) fn damaged(&self, problem: &str) -> StoreFileError {
        StoreFileError::Damaged { path: self.path.display().to_string(), problem: problem.to_owned() }
    }

    /// The stamp of the file as it is now; `None`: there is none.
    pub(crate) fn stamp(&self) -> Result<Option<Stamp>, StoreFileError> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io("read")(error)),
        }
    }

    /// The content, if the file exists.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<Option<(T, Stamp)>, StoreFileError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("read")(error)),
        };
        let metadata = file.metadata().map_err(self.io("read"))?;
        check_private(&self.path, &metadata)?;
        let mut content = Vec::new();
        file.take(STORE_FILE_MAX + 1).read_to_end(&mut content).map_err(self.io("read"))?;
        if content.len() as u64 > STORE_FILE_MAX {
            return Err(StoreFileError::TooLarge { path: self.path.display().to_string() });
        }
        // The library's message can quote the content: say only where.
        let value = serde_json::from_slice(&content)
            .map_err(|error| self.damaged(&format!("line {}, column {}", error.line(), error.column())))?;
        Ok(Some((value, Stamp::of(&metadata))))
    }

    /// Changes the content under the lock. If `change` fails, nothing is written.
    pub(crate) fn update<T, R, E>(&self, change: impl FnOnce(Option<T>) -> Result<(T, R), E>) -> Result<(T, R, Stamp), E>
    where
        T: Serialize + DeserializeOwned,
        E: From<StoreFileError>,
    {
        let _lock = self.lock()?;
        let before = self.read()?.map(|(value, _)| value);
        let (value, result) = change(before)?;
        let text = serde_json::to_vec_pretty(&value).map_err(|_| self.damaged("it cannot be written as JSON"))?;
        if text.len() as u64 > STORE_FILE_MAX {
            return Err(StoreFileError::TooLarge { path: self.path.display().to_string() }.into());
        }
        let stamp = self.replace(&text)?;
        Ok((value, result, stamp))
    }

    fn lock(&self) -> Result<File, StoreFileError> {
        create_private_dir(self.folder()).map_err(self.io("create the folder of"))?;
        let lock = private_options().create(true).truncate(false).open(self.beside("lock")).map_err(self.io("lock"))?;
        lock.lock().map_err(self.io("lock"))?;
        Ok(lock)
    }

    fn replace(&self, content: &[u8]) -> Result<Stamp, StoreFileError> {
        let temporary = self.beside("tmp");
        let write = || {
            let mut file = private_options().create(true).truncate(true).open(&temporary)?;
            // Left over from a crash, it may have had another mode.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(content)?;
            file.sync_all()?;
            let stamp = Stamp::of(&file.metadata()?);
            fs::rename(&temporary, &self.path)?;
            File::open(self.folder())?.sync_all()?;
            Ok(stamp)
        };
        write().map_err(self.io("write"))
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }
}

/// A file for its owner alone.
pub(crate) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// The folder, for its owner alone, if it is not there yet.
pub(crate) fn create_private_dir(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Refuses a file that others than its owner can read or write.
pub(crate) fn check_private(path: &Path, metadata: &Metadata) -> Result<(), StoreFileError> {
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(StoreFileError::Permissions { path: path.display().to_string(), mode }) }
}
