//! Publishes the log into a folder: what `verify`, a web server or any reader of C2SP tlog-tiles takes as it is.

use crate::notary::file;
use crate::published::{Bundle, files, partial, payload_path};
use crate::reader::Reader;
use crate::verify::Blobs;
use proxy_core::StoreError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tlog::tile::{Content, WIDTH};
use tlog::{Note, Tile};

/// A published log in a folder.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// The log that is, or will be, in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn failed(&self, path: &Path, error: &io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull { free: 0, needed: 0 },
            _ => StoreError::Io(format!("{}: {error}", self.dir.join(path).display())),
        }
    }
}

impl Blobs for Folder {
    fn get(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        file::read(&self.dir.join(path)).map_err(|error| self.failed(Path::new(path), &error))
    }
}

/// Writes a published log into a folder, one checkpoint after the other.
#[derive(Debug)]
pub struct Export {
    folder: Folder,
    /// Entries that are published.
    published: u64,
    /// Entries of which full bundles are in the folder, with the hashes of their leaves: a multiple of 256.
    written: u64,
    /// Entries that were published before that, whose partial files go with the next.
    before: Option<u64>,
    /// Used again and again.
    bundle: Bundle,
}

impl Export {
    /// Goes on in `dir`, which is made where it is not there, for its owner alone.
    ///
    /// # Errors
    /// [`StoreError::Io`]: it cannot be made or read, or has a checkpoint that is none.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let folder = Folder::new(dir);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| folder.failed(Path::new(""), &error))?;
        let published = match folder.get("checkpoint")? {
            None => 0,
            Some(note) => {
                let checkpoint = Note::parse(&note).and_then(|note| note.checkpoint());
                checkpoint.map_err(|error| StoreError::Io(format!("{}/checkpoint: {error}", dir.display())))?.size
            }
        };
        Ok(Self { folder, published, written: published / WIDTH * WIDTH, before: None, bundle: Bundle::default() })
    }

    /// Entries that are published.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published
    }

    /// The checkpoint that is published; `None`: there is none yet.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        Ok(self.folder.get("checkpoint")?.map(|note| String::from_utf8_lossy(&note).into_owned()))
    }

    /// Writes the full bundles among the first `synced` entries, which the disk has: the next checkpoint then finds them
    /// there. Nobody reads them before.
    ///
    /// # Errors
    /// [`StoreError`]: they are written with the next checkpoint.
    pub fn write_ahead(&mut self, reader: &Reader, synced: u64) -> Result<(), StoreError> {
        for tile in Tile::of_tree(Content::Entries, synced, self.written / WIDTH).filter(Tile::is_full) {
            if !self.write_bundle(reader, &tile)? {
                break;
            }
        }
        Ok(())
    }

    /// Writes a bundle, the hashes of its leaves, and what is kept beside them; `false`: the log is too short for it.
    fn write_bundle(&mut self, reader: &Reader, tile: &Tile) -> Result<bool, StoreError> {
        let mut bundle = std::mem::take(&mut self.bundle);
        let read = reader.read_bundle(tile, &mut bundle)?;
        if read {
            self.write(&tile.to_string(), &bundle.entries)?;
            self.write(&Tile { content: Content::Hashes(0), ..*tile }.to_string(), &bundle.hashes)?;
            let payloads = payload_path(tile);
            if bundle.payloads.is_empty() {
                // What an earlier start has left there was destroyed since.
                self.replace(&payloads, &[])?;
            } else {
                self.write(&payloads, &bundle.payloads)?;
            }
            if tile.is_full() {
                self.written = tile.entries();
            }
        }
        self.bundle = bundle;
        Ok(read)
    }

    /// Publishes the first `size` entries, and `note`, their checkpoint, when all else is on the disk. Doing it again does no
    /// harm: files that are there are what they would be.
    ///
    /// # Errors
    /// [`StoreError`]: what was published before is as it was.
    pub fn publish(&mut self, reader: &Reader, size: u64, note: &str) -> Result<(), StoreError> {
        if size < self.published {
            return Err(StoreError::Io(format!("{} entries are published, and the log has {size}", self.published)));
        }
        for tile in files(self.published, size) {
            let missing = || StoreError::Corrupt(format!("{tile} is to be published and is missing"));
            match tile.content {
                Content::Entries => {
                    let written = tile.is_full() && tile.entries() <= self.written;
                    if !written && !self.write_bundle(reader, &tile)? {
                        return Err(missing());
                    }
                }
                // With its entries.
                Content::Hashes(0) => {}
                Content::Hashes(_) => self.write(&tile.to_string(), &reader.tile(&tile)?.ok_or_else(missing)?)?,
            }
        }
        let dir = &self.folder.dir;
        let synced = File::open(dir).and_then(|dir| rustix::fs::syncfs(dir).map_err(io::Error::from));
        synced.map_err(|error| self.folder.failed(Path::new(""), &error))?;
        let path = Path::new("checkpoint");
        file::replace(&dir.join(path), note.as_bytes(), 0o644).map_err(|error| self.folder.failed(path, &error))?;
        if size > self.published {
            self.remove_partial(size);
            self.before = Some(self.published);
            self.published = size;
        }
        Ok(())
    }

    /// Publishes the files of the entries of `range` again, of which contents were destroyed.
    ///
    /// # Errors
    /// [`StoreError`]: some files may still have what was destroyed; doing it again removes it.
    pub fn rewrite(&self, reader: &Reader, range: Range<u64>) -> Result<(), StoreError> {
        let sizes = [Some(self.published), self.before];
        let partial: Vec<Tile> =
            sizes.into_iter().flatten().flat_map(partial).filter(|tile| tile.content == Content::Entries).collect();
        // Of what is not published yet, this start or an earlier one may have written files ahead.
        for last in Tile::of_tree(Content::Entries, reader.len()?.max(self.published), range.start / WIDTH) {
            if last.index * WIDTH >= range.end {
                break;
            }
            let full = Some(last).filter(Tile::is_full);
            let partial = partial.iter().copied().filter(|tile| tile.index == last.index);
            let kept: Vec<Tile> = full.into_iter().chain(partial).collect();
            for tile in &kept {
                let bundle = reader.bundle(tile)?;
                let bundle = bundle.ok_or_else(|| StoreError::Corrupt(format!("{tile} was published and is missing")))?;
                self.replace(&tile.to_string(), &bundle.entries)?;
                self.replace(&payload_path(tile), &bundle.payloads)?;
            }
            self.remove_other_partial(&last, &kept)?;
        }
        Ok(())
    }

    /// Removes partial files of a bundle that no checkpoint needs any more, and that an earlier start has left.
    fn remove_other_partial(&self, bundle: &Tile, kept: &[Tile]) -> Result<(), StoreError> {
        // Any width will do: it is the folder that counts.
        let one = Tile { width: 1, ..*bundle };
        for path in [one.to_string(), payload_path(&one)] {
            let Some(folder) = Path::new(&path).parent() else { continue };
            let Ok(files) = fs::read_dir(self.folder.dir.join(folder)) else { continue };
            for file in files.flatten() {
                let width = file.file_name().to_str().and_then(|name| name.parse::<u16>().ok());
                if !kept.iter().any(|tile| !tile.is_full() && Some(tile.width) == width) {
                    fs::remove_file(file.path()).map_err(|error| self.folder.failed(folder, &error))?;
                }
            }
        }
        Ok(())
    }

    /// Replaces a file whose content was destroyed in part; one that is left without any is removed.
    fn replace(&self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        let at = self.folder.dir.join(path);
        let Ok(known) = fs::read(&at) else { return Ok(()) };
        let replaced = if known == content {
            Ok(())
        } else if content.is_empty() {
            fs::remove_file(&at)
        } else {
            file::replace(&at, content, 0o600)
        };
        replaced.map_err(|error| self.folder.failed(Path::new(path), &error))
    }

    /// Writes a file that never changes. Nobody reads it before the checkpoint that needs it, so it need not come to be there
    /// all at once.
    fn write(&self, path: &str, content: &[u8]) -> Result<(), StoreError> {
        let (at, path) = (self.folder.dir.join(path), Path::new(path));
        let open = || fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at);
        let written = (|| {
            let mut file = match open() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let parent = at.parent().ok_or(error)?;
                    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
                    open()?
                }
                // A round that did not come to its end has left it, whole or not.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::read(&at).is_ok_and(|known| known == content) {
                        return Ok(());
                    }
                    fs::OpenOptions::new().write(true).truncate(true).open(&at)?
                }
                opened => opened?,
            };
            file.write_all(content)
        })();
        written.map_err(|error: io::Error| self.folder.failed(path, &error))
    }

    /// Removes the partial files of the checkpoint before the last: whoever reads by the last one has its own.
    fn remove_partial(&self, size: u64) {
        let Some(before) = self.before else { return };
        let needed: Vec<Tile> = partial(self.published).chain(partial(size)).collect();
        for tile in partial(before).filter(|tile| !needed.contains(tile)) {
            for path in [tile.to_string(), payload_path(&tile)] {
                let at = self.folder.dir.join(path);
                // What is left over costs space, nothing else.
                let _ = fs::remove_file(&at);
                if let Some(parent) = at.parent() {
                    let _ = fs::remove_dir(parent);
                }
            }
        }
    }
}
