//! A shipped log, as `audit verify` reads it: from where it was shipped to.
//!
//! Reading is ahead of verifying by some bundles, so that a storage that answers slowly does not make a long log take hours.

use super::connect;
use super::place::{CHECKPOINT_MAX, ENTRIES_MAX, PAYLOADS_MAX, Place, PlaceError, Read};
use super::plan;
use crate::config::{ObjectUrl, Reach};
use audit_store::{Blobs, Finding, payload_path};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use proxy_core::StoreError;
use std::collections::VecDeque;
use tlog::tile::{Content, WIDTH};
use tlog::{Note, Tile};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Bundles that are read ahead (32).
const AHEAD: u64 = 32;
/// Longest file that is read ahead, in bytes (2 MiB): longer ones are read when their turn comes, so that what is ahead is at
/// most 128 MiB.
const AHEAD_MAX: u64 = 2 << 20;
/// Checkpoints that are read ahead (64).
const NOTES_AHEAD: usize = 64;
/// Checkpoints that are looked at, the newest first, for one whose entries are there (64).
const NEWEST_TRIED: usize = 64;

/// Checkpoints that a log may have (10 million: one for each minute of 19 years): their sizes are held.
const CHECKPOINTS_MAX: usize = 10_000_000;

/// Why a shipped log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// The settings.
    #[error("{0}")]
    Setup(String),
    /// The storage.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A storage that lists names for ever, or makes them up.
    #[error("{0} has more than {CHECKPOINTS_MAX} checkpoints: no log has so many")]
    TooMany(String),
    /// There is none.
    #[error("no log is shipped to {0}: it has no folder LOG ID/checkpoints with a checkpoint in it")]
    None(String),
    /// There are several.
    #[error("several logs are shipped to {url}: name one of them, as {url}/{first} (there are {logs})", first = logs.first().map_or("", String::as_str), logs = logs.join(", "))]
    Several {
        /// Where.
        url: String,
        /// Their ids.
        logs: Vec<String>,
    },
}

/// What is read of a bundle at once; [`Read::Long`]: not yet.
struct Triple {
    index: u64,
    entries: Option<Read>,
    hashes: Option<Read>,
    payloads: Option<Read>,
}

/// A bundle that is on its way.
type Coming = (u64, JoinHandle<Result<Triple, PlaceError>>);

#[derive(Default)]
struct Ahead {
    coming: VecDeque<Coming>,
    current: Option<Triple>,
}

#[derive(Default)]
struct Notes {
    /// Where in the sizes those begin that are coming.
    at: usize,
    coming: VecDeque<JoinHandle<Result<Option<Bytes>, PlaceError>>>,
}

/// A shipped log. Its methods wait: they are not for an event loop's thread.
pub(crate) struct Remote {
    place: Place,
    runtime: Runtime,
    /// Full bundles of the log that is verified.
    full: u64,
    /// Sizes of all checkpoints that are there, ascending.
    sizes: Vec<u64>,
    ahead: Mutex<Ahead>,
    notes: Mutex<Notes>,
    /// The last checkpoint whose entries are there.
    last: Option<String>,
    /// The one outside.
    latest: Option<String>,
    findings: Vec<Finding>,
}

impl Remote {
    /// Opens the log that is shipped to `url`, which may name one of several by the log's id at its end; `latest`: where the
    /// latest checkpoint is, if it is known. `log`: this one's id, where it is known.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub(crate) fn open(
        url: &ObjectUrl,
        latest: Option<&ObjectUrl>,
        reach: &Reach,
        log: Option<&str>,
    ) -> Result<Self, RemoteError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| RemoteError::Setup(format!("no event loop: {error}")))?;
        let place = runtime.block_on(async { connect::open(url, reach, false) }).map_err(RemoteError::Setup)?;
        let opened = runtime.block_on(async {
            // Before the checkpoints are listed: the gateway may go on shipping meanwhile.
            let latest = match latest.map(|latest| connect::open_object(latest, reach, false)).transpose() {
                Ok(Some((place, name))) => place.get(&name, CHECKPOINT_MAX).await?,
                Ok(None) | Err(_) => None,
            };
            let (place, sizes) = find(place, log).await?;
            Ok::<_, RemoteError>((latest, place, sizes))
        });
        let (latest, place, sizes) = opened?;
        let mut remote = Self {
            place,
            runtime,
            full: 0,
            sizes,
            ahead: Mutex::default(),
            notes: Mutex::default(),
            last: None,
            latest: None,
            findings: Vec::new(),
        };
        remote.find_last()?;
        let origin =
            |note: &str| Note::parse(note.as_bytes()).and_then(|note| note.checkpoint()).map(|checkpoint| checkpoint.origin);
        remote.latest = latest.map(|note| String::from_utf8_lossy(&note).into_owned()).filter(|latest| {
            // One of another log is that of a log which began later.
            remote.last.as_ref().is_none_or(|last| origin(latest).ok() == origin(last).ok())
        });
        Ok(remote)
    }

    /// The URL of the log.
    pub(crate) fn shown(&self) -> &str {
        self.place.shown()
    }

    /// The last checkpoint whose entries are there.
    pub(crate) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The one that stands outside of what is locked, where there is one of this log.
    pub(crate) fn latest(&self) -> Option<&str> {
        self.latest.as_deref()
    }

    /// What was found wrong with the checkpoints before anything was verified.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Finds the newest checkpoint that is one, and whose last entries are there. Those that are passed over are findings.
    fn find_last(&mut self) -> Result<(), RemoteError> {
        for size in self.sizes.iter().rev().take(NEWEST_TRIED).copied().collect::<Vec<_>>() {
            let path = plan::checkpoint_path(size);
            let note = self.runtime.block_on(self.place.get(&path, CHECKPOINT_MAX))?.unwrap_or_default();
            let checkpoint = Note::parse(&note).and_then(|note| note.checkpoint());
            let what = match checkpoint {
                Err(error) => format!("{path} is no checkpoint: {error}"),
                Ok(checkpoint) if checkpoint.size != size => {
                    format!("{path} is a checkpoint of {} entries: another was put in its place", checkpoint.size)
                }
                Ok(_) if !self.has_end(size)? => {
                    format!("{path} commits to {size} entries, and {} is not there: it was removed", end(size))
                }
                Ok(_) => {
                    self.full = size / WIDTH;
                    self.last = Some(String::from_utf8_lossy(&note).into_owned());
                    break;
                }
            };
            self.findings.push(Finding { index: size.saturating_sub(1), session: None, what });
        }
        // What is above was said.
        if let Some(last) = self.last.as_ref() {
            let size = Note::parse(last.as_bytes()).and_then(|note| note.checkpoint()).map_or(0, |checkpoint| checkpoint.size);
            self.sizes.retain(|known| *known <= size);
        }
        Ok(())
    }

    fn has_end(&self, size: u64) -> Result<bool, PlaceError> {
        self.runtime.block_on(async {
            let there = self.place.get_within(&end(size).to_string(), 0, 0).await?.is_some();
            Ok(there || self.place.get_within(&plan::bundle((size - 1) / WIDTH).to_string(), 0, 0).await?.is_some())
        })
    }

    /// The bundle at `index`, which is full, and what comes with it.
    fn bundle(&self, index: u64) -> Result<(), StoreError> {
        let mut ahead = self.ahead.lock();
        if ahead.current.as_ref().is_some_and(|current| current.index == index) {
            return Ok(());
        }
        while ahead.coming.front().is_some_and(|(coming, _)| *coming < index) {
            ahead.coming.pop_front();
        }
        if ahead.coming.front().is_none_or(|(coming, _)| *coming != index) {
            ahead.coming.clear();
        }
        let next = ahead.coming.back().map_or(index, |(last, _)| last + 1);
        for index in next..self.full.min(index.saturating_add(AHEAD)).max(index + 1) {
            let place = self.place.clone();
            ahead.coming.push_back((index, self.runtime.spawn(async move { triple(&place, index).await })));
        }
        let Some((_, coming)) = ahead.coming.pop_front() else { return Ok(()) };
        let gone = |error: tokio::task::JoinError| StoreError::Io(format!("reading ahead ended badly: {error}"));
        ahead.current = Some(self.runtime.block_on(coming).map_err(gone)?.map_err(|error| failed(&error))?);
        Ok(())
    }

    /// What was read ahead at `path`; `None`: nothing was, or it is too long for that.
    fn read_ahead(&self, path: &str) -> Result<Option<Option<Bytes>>, StoreError> {
        let full = |tile: &Tile| tile.is_full() && tile.index < self.full;
        let (index, part) = match path.strip_prefix("payload/") {
            Some(rest) => match Tile::parse(&format!("tile/entries/{rest}")).filter(full) {
                Some(tile) => (tile.index, Part::Payloads),
                None => return Ok(None),
            },
            None => match Tile::parse(path).filter(full) {
                Some(Tile { content: Content::Entries, index, .. }) => (index, Part::Entries),
                Some(Tile { content: Content::Hashes(0), index, .. }) => (index, Part::Hashes),
                Some(Tile { content: Content::Hashes(_), .. }) | None => return Ok(None),
            },
        };
        self.bundle(index)?;
        let mut ahead = self.ahead.lock();
        let Some(current) = &mut ahead.current else { return Ok(None) };
        let read = match part {
            Part::Entries => &current.entries,
            Part::Hashes => &current.hashes,
            Part::Payloads => &current.payloads,
        };
        Ok(match read {
            None => Some(None),
            Some(Read::Content(content)) => Some(Some(content.clone())),
            Some(Read::Long) => None,
        })
    }
}

#[derive(Clone, Copy)]
enum Part {
    Entries,
    Hashes,
    Payloads,
}

impl Drop for Remote {
    fn drop(&mut self) {
        // What is on its way is of no use any more.
        for (_, coming) in self.ahead.lock().coming.drain(..) {
            coming.abort();
        }
    }
}

/// The last file of entries that a log of `size` entries has.
fn end(size: u64) -> Tile {
    let index = size.saturating_sub(1) / WIDTH;
    let width = u16::try_from(size - index * WIDTH).unwrap_or(u16::MAX);
    Tile { content: Content::Entries, index, width }
}

fn failed(error: &PlaceError) -> StoreError {
    StoreError::Io(error.to_string())
}

async fn triple(place: &Place, index: u64) -> Result<Triple, PlaceError> {
    let entries = plan::bundle(index);
    let hashes = Tile { content: Content::Hashes(0), ..entries };
    let (entries_path, hashes_path, payloads_path) = (entries.to_string(), hashes.to_string(), payload_path(&entries));
    let (entries, hashes, payloads) = tokio::try_join!(
        place.get_within(&entries_path, AHEAD_MAX, ENTRIES_MAX),
        place.get_within(&hashes_path, AHEAD_MAX, ENTRIES_MAX),
        place.get_within(&payloads_path, AHEAD_MAX, PAYLOADS_MAX),
    )?;
    Ok(Triple { index, entries, hashes, payloads })
}

/// The log's own place, and the sizes of its checkpoints, ascending.
async fn find(place: Place, log: Option<&str>) -> Result<(Place, Vec<u64>), RemoteError> {
    if let Some(log) = log {
        let place = place.below(log);
        let sizes = sizes(&place).await?;
        return if sizes.is_empty() { Err(RemoteError::None(place.shown().to_owned())) } else { Ok((place, sizes)) };
    }
    // The URL may be the log's own.
    let own = sizes(&place).await?;
    if !own.is_empty() {
        return Ok((place, own));
    }
    let is_id = |name: &String| name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let logs: Vec<String> = place.folders().await?.into_iter().filter(is_id).collect();
    match logs.as_slice() {
        [] => Err(RemoteError::None(place.shown().to_owned())),
        [log] => {
            let place = place.below(log);
            let sizes = sizes(&place).await?;
            if sizes.is_empty() { Err(RemoteError::None(place.shown().to_owned())) } else { Ok((place, sizes)) }
        }
        _ => Err(RemoteError::Several { url: place.shown().to_owned(), logs }),
    }
}

async fn sizes(place: &Place) -> Result<Vec<u64>, RemoteError> {
    let (mut sizes, mut listed) = (Vec::new(), place.list(plan::CHECKPOINTS, None));
    while let Some(path) = listed.next().await {
        sizes.extend(plan::checkpoint_size(&path?));
        if sizes.len() > CHECKPOINTS_MAX {
            return Err(RemoteError::TooMany(place.shown().to_owned()));
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

impl Blobs for Remote {
    fn get(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(read) = self.read_ahead(path)? {
            return Ok(read.map(Vec::from));
        }
        let max = if path.starts_with("payload/") { PAYLOADS_MAX } else { ENTRIES_MAX };
        let read = self.runtime.block_on(self.place.get(path, max));
        Ok(read.map_err(|error| failed(&error))?.map(Vec::from))
    }

    fn kept_after(&self, size: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let at = self.sizes.partition_point(|known| *known <= size);
        let Some(size) = self.sizes.get(at).copied() else { return Ok(None) };
        let mut notes = self.notes.lock();
        if notes.at != at {
            *notes = Notes { at, coming: VecDeque::new() };
        }
        while notes.coming.len() < NOTES_AHEAD
            && let Some(size) = self.sizes.get(at + notes.coming.len())
        {
            let (place, path) = (self.place.clone(), plan::checkpoint_path(*size));
            notes.coming.push_back(self.runtime.spawn(async move { place.get(&path, CHECKPOINT_MAX).await }));
        }
        let Some(coming) = notes.coming.pop_front() else { return Ok(None) };
        notes.at = at + 1;
        let gone = |error: tokio::task::JoinError| StoreError::Io(format!("reading ahead ended badly: {error}"));
        let note = self.runtime.block_on(coming).map_err(gone)?.map_err(|error| failed(&error))?;
        Ok(Some((size, note.map(Vec::from).unwrap_or_default())))
    }
}
