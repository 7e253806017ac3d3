//! The task of one destination.

use super::cursor::{Cursor, CursorFile};
use super::place::{CHECKPOINT_MAX, ENTRIES_MAX, Made, PAYLOADS_MAX, Place, PlaceError};
use super::plan::{self, Inventory};
use super::rewrites::Rewrites;
use super::{CONCURRENT, IN_FLIGHT, LAST, POLL, RETRY, same};
use crate::config::Shipping;
use crate::metrics::{Gauge, Metrics, family};
use audit_store::{Bundle, Reader, Signed, payload_path};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use proxy_core::{StoreError, Timestamp};
use proxy_io::clock::now;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tlog::tile::{Content, WIDTH};
use tlog::{Note, Tile, Verifier};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Checkpoints that are there and are none of this log, before the newest that is (16).
const STRANGE_MAX: usize = 16;

/// Why a round did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ShipError {
    /// The settings.
    #[error("it cannot be reached: {0}")]
    Setup(String),
    /// The storage.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The log.
    #[error("the log cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The destination has seen another log of the same name.
    #[error(
        "it has a checkpoint of {size} entries, signed with this log's key, that this log does not bear out: the log was restored from a backup, or another gateway ships one with the same name. Nothing is shipped there. Put the whole log back, or begin a new one with `sallyport audit new-log`"
    )]
    Forked {
        /// How many entries it has seen.
        size: u64,
    },
    /// What is there is not what this log has.
    #[error(
        "{0} is there already, and is not this log's: somebody else has written or changed it. `sallyport audit verify` over the destination says what is wrong there; ship to a new place"
    )]
    Other(String),
    /// How far it is cannot be kept.
    #[error("{file}: {why}", file = .0.display(), why = .1)]
    Cursor(PathBuf, String),
    /// All is there but the object that is replaced.
    #[error(
        "the log is there, and its latest checkpoint cannot be replaced ({0}): let `latest` name a place outside of what is locked, or \"none\""
    )]
    Latest(PlaceError),
}

impl ShipError {
    /// What the trouble is: one that is the same as before is said once.
    fn trouble(&self) -> String {
        match self {
            Self::Place(error) => error.trouble(),
            Self::Latest(error) => format!("latest: {}", error.trouble()),
            other => other.to_string(),
        }
    }
}

/// What is measured of a destination.
#[derive(Clone)]
pub(super) struct Meters {
    shipped: Gauge,
    shipping: Gauge,
    lag: Gauge,
}

impl Meters {
    pub(super) fn new(metrics: &Metrics, name: &str) -> Self {
        let meters = Self {
            shipped: metrics.gauge(&family::SHIPPED, &[name]),
            shipping: metrics.gauge(&family::SHIPPING, &[name]),
            lag: metrics.gauge(&family::SHIPPING_LAG_SECONDS, &[name]),
        };
        meters.shipping.set(1);
        meters
    }
}

/// How much is not there yet: looked at beside the shipping, which may hang in the middle of a request.
pub(super) struct Lag {
    reader: Reader,
    shipped: Arc<AtomicU64>,
    /// An entry that waits, and when it was made.
    oldest: Option<(u64, Timestamp)>,
    meters: Meters,
}

impl Lag {
    async fn run(mut self) {
        loop {
            self.measure().await;
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn measure(&mut self) {
        let waits = self.shipped.load(Ordering::Relaxed);
        self.meters.shipped.set(i64::try_from(waits).unwrap_or(i64::MAX));
        let Ok(end) = self.reader.len() else { return };
        if end <= waits {
            return self.meters.lag.set(0);
        }
        if self.oldest.is_none_or(|(index, _)| index != waits) {
            // The first that is there: of one that was destroyed, nobody knows when it was made.
            let reader = self.reader.clone();
            let made = move || reader.entries(waits..end).flatten().next().map(|stored| stored.entry.time);
            let time = tokio::task::spawn_blocking(made).await.ok().flatten();
            self.oldest = time.map(|time| (waits, time));
        }
        let micros = self.oldest.map_or(0, |(_, made)| now().micros_since(made));
        self.meters.lag.set(i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX));
    }
}

/// Where the log comes from.
pub(super) struct Source {
    pub(super) reader: Reader,
    /// The checkpoint that was published last.
    pub(super) published: Box<dyn Fn() -> Option<Arc<Signed>> + Send + Sync>,
    /// The log's keys.
    pub(super) keys: Box<dyn Fn() -> Vec<Verifier> + Send + Sync>,
}

/// Opens the destination, and the place and name of the latest checkpoint.
pub(super) type Connect = Box<dyn Fn() -> Result<(Place, Option<(Place, String)>), String> + Send + Sync>;

/// A destination that was found in order.
struct Open {
    place: Place,
    latest: Option<(Place, String)>,
    cursor: Cursor,
    /// The latest checkpoint that is there is perhaps not the last one that was shipped.
    latest_due: bool,
}

/// One destination.
pub(super) struct Shipper {
    name: String,
    every: Duration,
    locked: bool,
    /// The log's id, hexadecimal.
    log: String,
    source: Source,
    rewrites: Arc<Rewrites>,
    connect: Connect,
    file: CursorFile,
    open: Option<Open>,
    /// Entries that the last checkpoint commits to which is there, as far as is known.
    shipped: Arc<AtomicU64>,
    /// Objects that were said to be strange.
    strange: BTreeSet<String>,
    /// A bundle is read at a time, when there is room for it.
    turn: Mutex<()>,
    room: Arc<Semaphore>,
}

impl Shipper {
    pub(super) fn new(
        shipping: &Shipping,
        file: PathBuf,
        source: Source,
        rewrites: Arc<Rewrites>,
        connect: Connect,
    ) -> Result<Self, ShipError> {
        let log = format!("{:032x}", u128::from_be_bytes(source.reader.log_id()?));
        let file = CursorFile { file, log: log.clone(), to: shipping.identity() };
        file.prepare().map_err(|error| ShipError::Cursor(file.file.clone(), error.to_string()))?;
        Ok(Self {
            name: shipping.name.clone(),
            every: shipping.every,
            locked: shipping.locked,
            log,
            source,
            rewrites,
            connect,
            shipped: Arc::new(AtomicU64::new(file.load().map_or(0, |cursor| cursor.shipped))),
            file,
            open: None,
            strange: BTreeSet::new(),
            turn: Mutex::new(()),
            room: Arc::new(Semaphore::new(IN_FLIGHT)),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How much is not there yet.
    pub(super) fn lag(&self, meters: &Meters) -> Lag {
        let (reader, shipped) = (self.source.reader.clone(), Arc::clone(&self.shipped));
        Lag { reader, shipped, oldest: None, meters: meters.clone() }
    }

    /// Ships until `stop`, and then, for a short while, what was published last.
    pub(super) async fn run(self, meters: Meters, stop: CancellationToken) {
        let lag = self.lag(&meters);
        tokio::select! {
            () = self.work(meters, stop) => {}
            () = lag.run() => {}
        }
    }

    async fn work(mut self, meters: Meters, stop: CancellationToken) {
        let (mut said, mut pause, mut backoff) = (String::new(), POLL.min(self.every), RETRY.0);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
            let round = tokio::select! {
                round = self.round() => round,
                () = stop.cancelled() => break,
            };
            if round.is_ok() {
                (pause, backoff) = (self.every, RETRY.0);
            } else {
                pause = backoff;
                backoff = (backoff * 2).min(RETRY.1);
            }
            self.say(round, &mut said, &meters);
        }
        match tokio::time::timeout(LAST, self.round()).await {
            Ok(round) => self.say(round, &mut said, &meters),
            Err(_) => tracing::warn!(
                destination = self.name,
                shipped = self.shipped.load(Ordering::Relaxed),
                "the gateway stops before all of the audit log is shipped; the rest goes at the next start"
            ),
        }
    }

    /// Says what the trouble is, where it is not the one that was said before.
    fn say(&self, round: Result<(), ShipError>, said: &mut String, meters: &Meters) {
        meters.shipping.set(i64::from(round.is_ok()));
        let trouble = round.as_ref().err().map(ShipError::trouble).unwrap_or_default();
        if trouble == *said {
            return;
        }
        let (destination, shipped) = (self.name.as_str(), self.shipped.load(Ordering::Relaxed));
        match round {
            Ok(()) => tracing::info!(destination, shipped, "the audit log is shipped again"),
            Err(error) => tracing::error!(destination, shipped, "the audit log is not shipped: {error}"),
        }
        *said = trouble;
    }

    /// Ships what was published. After a failure, everything is opened anew: with secrets as they are then.
    pub(super) async fn round(&mut self) -> Result<(), ShipError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.meet().await?,
        };
        self.shipped.store(open.cursor.shipped, Ordering::Relaxed);
        self.rewrite(&open).await?;
        if let Some(signed) = (self.source.published)() {
            self.ship(&mut open, &signed).await?;
            if open.latest_due && signed.size == open.cursor.shipped {
                if let Some((place, name)) = &open.latest {
                    let note = Bytes::from(signed.note.clone());
                    place.replace(name, note).await.map_err(ShipError::Latest)?;
                }
                open.latest_due = false;
            }
        }
        self.open = Some(open);
        Ok(())
    }

    async fn ship(&self, open: &mut Open, signed: &Signed) -> Result<(), ShipError> {
        if signed.size <= open.cursor.shipped {
            return Ok(());
        }
        while let Some(step) = plan::step(open.cursor.full, signed.size) {
            self.upload(&open.place, step.bundles.map(plan::bundle).chain(step.hashes)).await?;
            open.cursor.full = step.next;
            self.save(&open.cursor).await?;
        }
        self.upload(&open.place, plan::edge(signed.size)).await?;
        let (path, note) = (plan::checkpoint_path(signed.size), Bytes::from(signed.note.clone()));
        self.put(&open.place, &path, note, |ours, theirs| same::checkpoint(ours, theirs, &(self.source.keys)())).await?;
        open.cursor.shipped = signed.size;
        open.latest_due = true;
        self.shipped.store(signed.size, Ordering::Relaxed);
        self.save(&open.cursor).await
    }

    /// Puts files there, some at a time, in no order.
    async fn upload(&self, place: &Place, tiles: impl IntoIterator<Item = Tile>) -> Result<(), ShipError> {
        let files = tiles.into_iter().map(|tile| self.put_tile(place, tile));
        stream::iter(files).buffer_unordered(CONCURRENT).try_collect::<()>().await
    }

    async fn put_tile(&self, place: &Place, tile: Tile) -> Result<(), ShipError> {
        let missing = || StoreError::Corrupt(format!("{tile} is to be shipped and is missing"));
        if tile.content != Content::Entries {
            let reader = self.source.reader.clone();
            let content = blocking(move || reader.tile(&tile)).await?.ok_or_else(missing)?;
            return self.put(place, &tile.to_string(), content.into(), |ours, theirs| ours == theirs).await;
        }
        let (bundle, _room) = self.read(tile).await?;
        let Bundle { entries, hashes, payloads } = bundle.ok_or_else(missing)?;
        let tree = hashes.clone();
        self.put(place, &tile.to_string(), entries.into(), |ours, theirs| same::entries(ours, theirs, &tree)).await?;
        let lowest = Tile { content: Content::Hashes(0), ..tile };
        self.put(place, &lowest.to_string(), hashes.into(), |ours, theirs| ours == theirs).await?;
        if !payloads.is_empty() {
            self.put(place, &payload_path(&tile), payloads.into(), same::payloads).await?;
        }
        Ok(())
    }

    /// Reads a bundle, when there is room for it.
    async fn read(&self, tile: Tile) -> Result<(Option<Bundle>, Option<OwnedSemaphorePermit>), ShipError> {
        let _turn = self.turn.lock().await;
        let reader = self.source.reader.clone();
        let bundle = blocking(move || reader.bundle(&tile)).await?;
        let length = bundle.as_ref().map_or(0, |bundle| bundle.entries.len() + bundle.payloads.len());
        let wanted = u32::try_from(length.min(IN_FLIGHT)).unwrap_or(u32::MAX);
        // It is never closed.
        let room = Arc::clone(&self.room).acquire_many_owned(wanted).await.ok();
        Ok((bundle, room))
    }

    /// Makes an object; one that is there must be the same.
    async fn put(&self, place: &Place, path: &str, content: Bytes, same: impl Fn(&[u8], &[u8]) -> bool) -> Result<(), ShipError> {
        if place.create(path, content.clone()).await? == Made::New {
            return Ok(());
        }
        let max = if path.starts_with("payload/") { PAYLOADS_MAX } else { ENTRIES_MAX };
        match place.get(path, max).await? {
            Some(theirs) if same(&content, &theirs) => Ok(()),
            Some(_) => Err(ShipError::Other(format!("{}/{path}", place.shown()))),
            None => Err(PlaceError::Conflict(format!("{}/{path}", place.shown())).into()),
        }
    }

    async fn save(&self, cursor: &Cursor) -> Result<(), ShipError> {
        let (file, cursor) = (self.file.clone(), cursor.clone());
        let failed = |why: String| ShipError::Cursor(self.file.file.clone(), why);
        let saved = tokio::task::spawn_blocking(move || file.save(&cursor)).await;
        saved.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    /// Opens the destination, and finds out how far it is.
    async fn meet(&mut self) -> Result<Open, ShipError> {
        let (place, latest) = (self.connect)().map_err(ShipError::Setup)?;
        let place = place.below(&self.log);
        let mut known = self.file.load();
        if let Some(cursor) = known.as_ref().filter(|cursor| cursor.shipped > 0) {
            let there = place.get(&plan::checkpoint_path(cursor.shipped), CHECKPOINT_MAX).await?;
            if there.is_none() {
                tracing::error!(
                    destination = self.name,
                    shipped = cursor.shipped,
                    "the checkpoint that was shipped last is not there any more: what is missing is shipped again"
                );
                known = None;
            }
        }
        self.check_newest(&place, known.as_ref()).await?;
        let cursor = match known {
            Some(cursor) => cursor,
            None => self.find_out(&place).await?,
        };
        Ok(Open { place, latest, cursor, latest_due: true })
    }

    /// Whether the newest checkpoint that is there, and is this log's, is borne out by it.
    async fn check_newest(&mut self, place: &Place, known: Option<&Cursor>) -> Result<(), ShipError> {
        let shipped = known.map_or(0, |cursor| cursor.shipped);
        let after = plan::checkpoint_path(shipped);
        let after = after.strip_prefix(plan::CHECKPOINTS).map(|name| name.trim_start_matches('/')).filter(|_| shipped > 0);
        let mut newest = BTreeSet::from([shipped]);
        let mut listed = place.list(plan::CHECKPOINTS, after);
        while let Some(path) = listed.next().await {
            newest.extend(plan::checkpoint_size(&path?));
            if newest.len() > STRANGE_MAX {
                newest.pop_first();
            }
        }
        drop(listed);
        for size in newest.into_iter().rev().filter(|size| *size > 0) {
            let path = plan::checkpoint_path(size);
            let note = place.get(&path, CHECKPOINT_MAX).await?.unwrap_or_default();
            if self.is_ours(size, &note).await? {
                return Ok(());
            }
            if self.strange.insert(path.clone()) {
                tracing::error!(
                    destination = self.name,
                    object = format!("{}/{path}", place.shown()),
                    "this is no checkpoint of this log: somebody else has written or changed it"
                );
            }
        }
        Ok(())
    }

    /// Whether `note` is this log's checkpoint of `size` entries; `false`: it is none, or of another log.
    ///
    /// # Errors
    /// [`ShipError::Forked`]: this log's key has signed it, and the log has not these entries.
    async fn is_ours(&self, size: u64, note: &[u8]) -> Result<bool, ShipError> {
        let read = Note::parse(note).and_then(|note| Ok((note.checkpoint()?, note)));
        let Ok((checkpoint, note)) = read else { return Ok(false) };
        let named = checkpoint.size == size && checkpoint.origin.strip_prefix("sallyport/") == Some(&self.log);
        if !named || note.verify(&(self.source.keys)()).is_err() {
            return Ok(false);
        }
        let reader = self.source.reader.clone();
        let root = blocking(move || reader.root(size)).await?;
        if root == Some(checkpoint.root) { Ok(true) } else { Err(ShipError::Forked { size }) }
    }

    /// How far a destination is of which nothing is known here.
    async fn find_out(&self, place: &Place) -> Result<Cursor, ShipError> {
        let (mut inventory, mut listed) = (Inventory::default(), place.list("tile", None));
        while let Some(path) = listed.next().await {
            inventory.add(&path?);
        }
        let full = inventory.full().min(self.source.reader.len()? / WIDTH * WIDTH);
        if full > 0 {
            tracing::info!(destination = self.name, full, "how far the destination is was found out by a listing");
        }
        // Its checkpoints say nothing of whether all is there that they need: the next one does.
        Ok(Cursor { full, shipped: 0 })
    }

    /// Writes again what something was destroyed of.
    async fn rewrite(&self, open: &Open) -> Result<(), ShipError> {
        if self.locked {
            return Ok(());
        }
        for range in self.rewrites.pending(&self.name) {
            let end = range.end.min(open.cursor.full.max(open.cursor.shipped));
            self.rewrite_range(&open.place, range.start..end).await?;
            let (rewrites, name) = (Arc::clone(&self.rewrites), self.name.clone());
            blocking(move || rewrites.done(&name, &range)).await?;
        }
        Ok(())
    }

    async fn rewrite_range(&self, place: &Place, range: Range<u64>) -> Result<(), ShipError> {
        for index in range.start / WIDTH..range.end.div_ceil(WIDTH) {
            self.rewrite_bundle(place, plan::bundle(index)).await?;
            let partial = format!("{}.p", plan::bundle(index));
            let listed: Vec<String> = place.list(&partial, None).try_collect().await?;
            for tile in listed.iter().filter_map(|path| Tile::parse(path)) {
                self.rewrite_bundle(place, tile).await?;
            }
        }
        Ok(())
    }

    async fn rewrite_bundle(&self, place: &Place, tile: Tile) -> Result<(), ShipError> {
        let (Some(Bundle { entries, payloads, .. }), _room) = self.read(tile).await? else { return Ok(()) };
        for (path, content, max) in [(tile.to_string(), entries, ENTRIES_MAX), (payload_path(&tile), payloads, PAYLOADS_MAX)] {
            match place.get(&path, max).await? {
                Some(theirs) if theirs != content => {
                    if content.is_empty() {
                        place.remove(&path).await?;
                    } else {
                        place.replace(&path, content.into()).await?;
                    }
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

/// Away from the event loop: it may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    let gone = |error: tokio::task::JoinError| StoreError::Io(format!("reading the log ended badly: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(gone)?
}
