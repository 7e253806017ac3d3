//! A log that grows, shipped to a storage that fails when it is told to.

use super::cursor::{Cursor, CursorFile};
use super::place::{Place, PlaceError};
use super::rewrites::Rewrites;
use super::shipper::{Connect, Meters, ShipError, Shipper, Source};
use super::{STEP, plan};
use crate::config::{Config, ObjectUrl, Shipping, parse};
use crate::metrics::{Metrics, family};
use audit_store::{AuditStore, Blobs, Expected, Notary, Opening, Options, Selection, Signed, Verification, verify_published};
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use proxy_core::record::{Entry, Event};
use proxy_core::{Store, StoreError, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// A storage in memory that counts, and fails when it is told to.
#[derive(Debug, Default)]
struct Faulty {
    inner: InMemory,
    puts: AtomicU64,
    overwritten: Mutex<Vec<String>>,
    removed: AtomicU64,
    /// Puts that still succeed; what comes after is lost, or kept without an answer.
    left: Mutex<Option<u64>>,
    answers_are_lost: bool,
    /// As `rclone serve s3`: a condition is no condition.
    ignores_conditions: bool,
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

fn down() -> Error {
    Error::Generic { store: "faulty", source: "down".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        let fails = match &mut *self.left.lock() {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if fails && !self.answers_are_lost {
            return Err(down());
        }
        if self.ignores_conditions || options.mode == PutMode::Overwrite {
            if let Ok(known) = self.inner.get(location).await
                && known.bytes().await? != bytes::Bytes::from(payload.clone())
            {
                self.overwritten.lock().push(location.to_string());
            }
            options.mode = PutMode::Overwrite;
        }
        let put = self.inner.put_opts(location, payload, options).await;
        if fails { Err(down()) } else { put }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(down())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.removed.fetch_add(1, Ordering::Relaxed);
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(down())
    }
}

/// A log with its notary, and a destination's settings.
struct Log {
    dir: tempfile::TempDir,
    store: Arc<AuditStore>,
    notary: Arc<Notary>,
    config: Config,
    rewrites: Arc<Rewrites>,
    metrics: Arc<Metrics>,
}

const DAY: i64 = 86_400_000_000;

impl Log {
    fn new(locked: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\ntls = \"optional\"\n\
            [[shipping]]\nname = \"vault\"\nurl = \"s3://bucket/x\"\nlocked = {locked}\n"
        );
        let config = parse(&text, &dir.path().join("sallyport.toml")).unwrap();
        Self::open(dir, config)
    }

    fn open(dir: tempfile::TempDir, config: Config) -> Self {
        let options = Options { min_free_bytes: 0, memory: 16 << 20, ..Options::default() };
        let store = Arc::new(AuditStore::open(dir.path().join("audit"), options).unwrap());
        let opening = Opening { folder: dir.path(), sealing: None, by: "test", now: Timestamp(1), moved: true };
        let notary = Arc::new(Notary::open(Arc::clone(&store), opening).unwrap());
        let rewrites = Arc::new(Rewrites::open(&config, &id(&store)).unwrap());
        Self { dir, store, notary, config, rewrites, metrics: Metrics::new() }
    }

    /// Appends that many entries, of which every hundredth has a long text beside it, and signs.
    fn grow(&self, entries: u64) -> u64 {
        let entry = |n: u64| {
            let text = if n.is_multiple_of(100) { format!("{n}{}", "x".repeat(2_000)) } else { n.to_string() };
            let event = Event::LogRead { by: "test".to_owned(), query: text };
            Entry { time: Timestamp(2), session: None, event }
        };
        let all: Vec<Entry> = (0..entries).map(entry).collect();
        for chunk in all.chunks(1_000) {
            self.store.append(chunk).unwrap();
        }
        self.store.sync().unwrap();
        self.notary.sign().unwrap();
        self.notary.last().unwrap().size
    }

    fn shipping(&self) -> &Shipping {
        &self.config.shipping[0]
    }

    fn shipper(&self, store: &Arc<Faulty>) -> Shipper {
        let (published, keys) = (Arc::clone(&self.notary), Arc::clone(&self.notary));
        let source = Source {
            reader: self.store.reader(),
            published: Box::new(move || published.last().map(Arc::new)),
            keys: Box::new(move || keys.public().verifiers),
        };
        let place = place(store);
        let latest = (
            Place::new(
                Arc::clone(store) as _,
                Arc::clone(store) as _,
                &ObjectUrl::parse("s3://bucket/open", self.dir.path()).unwrap(),
            ),
            "latest".to_owned(),
        );
        let connect: Connect = Box::new(move || Ok((place.clone(), Some(latest.clone()))));
        let file = self.config.shipping_file("vault", "cursor");
        Shipper::new(self.shipping(), file, source, Arc::clone(&self.rewrites), connect).unwrap()
    }

    fn cursor(&self) -> CursorFile {
        let to = self.shipping().identity();
        CursorFile { file: self.config.shipping_file("vault", "cursor"), log: id(&self.store), to }
    }

    fn meters(&self) -> Meters {
        Meters::new(&self.metrics, "vault")
    }

    fn expected(&self) -> Expected {
        Expected { keys: vec![self.notary.public().verifiers.last().unwrap().clone()], ..Expected::default() }
    }

    async fn round(&self, shipper: &mut Shipper) -> std::result::Result<(), ShipError> {
        shipper.lag(&self.meters()).measure().await;
        let round = shipper.round().await;
        shipper.lag(&self.meters()).measure().await;
        round
    }
}

fn id(store: &AuditStore) -> String {
    format!("{:032x}", u128::from_be_bytes(store.log_id()))
}

fn place(store: &Arc<Faulty>) -> Place {
    Place::new(
        Arc::clone(store) as _,
        Arc::clone(store) as _,
        &ObjectUrl::parse("s3://bucket/x", std::path::Path::new("")).unwrap(),
    )
}

/// What is there, as a verifier reads it.
struct Copy(BTreeMap<String, Vec<u8>>);

impl Blobs for Copy {
    fn get(&self, path: &str) -> std::result::Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(path).cloned())
    }

    fn kept_after(&self, size: u64) -> std::result::Result<Option<(u64, Vec<u8>)>, StoreError> {
        let found = self.0.range(plan::checkpoint_path(size + 1)..plan::checkpoint_path(u64::MAX)).next();
        Ok(found.map(|(path, note)| (plan::checkpoint_size(path).unwrap(), note.clone())))
    }
}

/// All objects of the log, by their paths in it.
async fn copy(log: &Log, store: &Arc<Faulty>) -> Copy {
    let prefix = format!("x/{}/", id(&log.store));
    let listed: Vec<ObjectMeta> = store.list(Some(&Path::from(prefix.trim_end_matches('/')))).try_collect().await.unwrap();
    let mut all = BTreeMap::new();
    for object in listed {
        let content = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        all.insert(object.location.as_ref().strip_prefix(&prefix).unwrap().to_owned(), content.to_vec());
    }
    Copy(all)
}

/// Verifies what is there against its newest checkpoint, and all that are kept.
async fn verify(log: &Log, store: &Arc<Faulty>) -> Verification {
    let copy = copy(log, store).await;
    let newest = copy.0.iter().rfind(|(path, _)| plan::checkpoint_size(path).is_some()).map(|(_, note)| note.clone());
    let checkpoint = newest.map(|note| String::from_utf8(note).unwrap());
    verify_published(&copy, &Expected { checkpoint, ..log.expected() }, |_, _| {}).unwrap()
}

async fn holds(log: &Log, store: &Arc<Faulty>, size: u64, kept: u64) {
    let verification = verify(log, store).await;
    assert!(verification.holds(), "{:?}", verification.findings);
    assert_eq!((verification.entries, verification.kept), (size, kept));
}

#[tokio::test]
async fn a_log_is_shipped_as_it_grows_and_every_checkpoint_stays() {
    let (log, store) = (Log::new(true), Arc::new(Faulty::default()));
    let mut shipper = log.shipper(&store);
    log.round(&mut shipper).await.unwrap();
    for (round, entries) in (1..).zip([10, 300, 1, 255, 20_000, 1]) {
        let size = log.grow(entries);
        log.round(&mut shipper).await.unwrap();
        holds(&log, &store, size, round).await;
        let latest = store.get(&Path::from("open/latest")).await;
        let latest = match latest {
            Ok(found) => found.bytes().await.unwrap(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(latest, log.notary.last().unwrap().note);
        assert_eq!(log.metrics.gauge(&family::SHIPPED, &["vault"]).get(), i64::try_from(size).unwrap());
        assert_eq!(log.metrics.gauge(&family::SHIPPING_LAG_SECONDS, &["vault"]).get(), 0);
        assert_eq!(log.cursor().load(), Some(Cursor { full: size / 256 * 256, shipped: size }));
    }
    let puts = store.puts.load(Ordering::Relaxed);
    log.round(&mut shipper).await.unwrap();
    assert_eq!(store.puts.load(Ordering::Relaxed), puts, "nothing new, nothing sent");
    assert!(store.overwritten.lock().iter().all(|path| path == "open/latest"));
    assert_eq!(store.removed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn wherever_it_is_cut_off_it_goes_on_and_sends_at_most_a_step_again() {
    for answers_are_lost in [false, true] {
        let log = Log::new(true);
        let size = log.grow(40_000);
        let store = Arc::new(Faulty { answers_are_lost, ..Faulty::default() });
        let needed = copy(&log, &store).await.0.len();
        assert_eq!(needed, 0);
        let mut tries = 0;
        for left in [0, 1, 5, 190, 60, 333, 2, 150, 200, 40].into_iter().cycle().take(60) {
            *store.left.lock() = Some(left);
            // As after a kill: what is known is on the disk.
            let mut shipper = log.shipper(&store);
            tries += 1;
            match log.round(&mut shipper).await {
                Ok(()) => break,
                Err(ShipError::Place(PlaceError::Failed { why, .. }) | ShipError::Latest(PlaceError::Failed { why, .. })) => {
                    assert!(why.contains("down"), "{why}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        *store.left.lock() = None;
        log.round(&mut log.shipper(&store)).await.unwrap();
        holds(&log, &store, size, 1).await;
        let (puts, there) = (store.puts.load(Ordering::Relaxed), copy(&log, &store).await.0.len() as u64);
        assert!(puts < there + tries * (STEP * 3 + 20), "{puts} puts for {there} objects in {tries} tries");
        assert_eq!(store.removed.load(Ordering::Relaxed), 0);
        assert!(store.overwritten.lock().iter().all(|path| path == "open/latest"), "{:?}", store.overwritten.lock());
    }
}

#[tokio::test]
async fn without_its_cursor_it_finds_out_how_far_it_is() {
    for ignores_conditions in [false, true] {
        let (log, store) = (Log::new(true), Arc::new(Faulty { ignores_conditions, ..Faulty::default() }));
        log.grow(40_000);
        log.round(&mut log.shipper(&store)).await.unwrap();
        let before = copy(&log, &store).await.0;
        std::fs::remove_file(log.cursor().file).unwrap();
        let puts = store.puts.load(Ordering::Relaxed);
        log.round(&mut log.shipper(&store)).await.unwrap();
        assert!(store.puts.load(Ordering::Relaxed) - puts < STEP * 3 + 20, "a step and the edge, not all of it");
        assert_eq!(copy(&log, &store).await.0, before);
        let size = log.grow(3_000);
        log.round(&mut log.shipper(&store)).await.unwrap();
        holds(&log, &store, size, 2).await;
        assert!(store.overwritten.lock().iter().all(|path| path == "open/latest"));
    }
}

#[tokio::test]
async fn what_was_removed_there_is_shipped_again() {
    let (log, store) = (Log::new(true), Arc::new(Faulty::default()));
    let size = log.grow(5_000);
    log.round(&mut log.shipper(&store)).await.unwrap();
    for object in copy(&log, &store).await.0.keys() {
        store.inner.delete(&Path::from(format!("x/{}/{object}", id(&log.store)))).await.unwrap();
    }
    log.round(&mut log.shipper(&store)).await.unwrap();
    holds(&log, &store, size, 1).await;
}

#[tokio::test]
async fn a_destination_that_has_seen_another_future_is_not_shipped_to() {
    let (log, store) = (Log::new(true), Arc::new(Faulty::default()));
    log.grow(400);
    log.round(&mut log.shipper(&store)).await.unwrap();
    // The whole folder is put back to here later.
    let Log { dir, store: audit, notary, config, rewrites, metrics } = log;
    audit.close().unwrap();
    drop((audit, notary, rewrites, metrics));
    let kept = tempfile::tempdir().unwrap();
    copy_folder(dir.path(), kept.path());
    let log = Log::open(dir, config.clone());
    log.grow(300);
    log.round(&mut log.shipper(&store)).await.unwrap();
    log.store.close().unwrap();
    let before = copy(&log, &store).await.0;
    let mut config = config;
    config.data_dir = kept.path().join("data");
    let restored = Log::open(kept, config);
    let forked = restored.round(&mut restored.shipper(&store)).await;
    assert!(matches!(forked, Err(ShipError::Forked { .. })), "shorter: {forked:?}");
    restored.grow(500);
    let mut shipper = restored.shipper(&store);
    for _ in 0..2 {
        let forked = restored.round(&mut shipper).await;
        assert!(matches!(forked, Err(ShipError::Forked { .. })), "longer, and another: {forked:?}");
    }
    assert_eq!(copy(&restored, &store).await.0, before, "nothing was written");
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(std::result::Result::unwrap) {
        let to = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_folder(&file.path(), &to)
        } else {
            std::fs::copy(file.path(), &to).unwrap();
        }
    }
}

#[tokio::test]
async fn what_somebody_else_has_written_there_is_never_taken_for_the_logs() {
    let (log, store) = (Log::new(true), Arc::new(Faulty::default()));
    log.grow(1_000);
    let at = |path: &str| Path::from(format!("x/{}/{path}", id(&log.store)));
    for path in ["tile/0/002", "tile/entries/002", "payload/002"] {
        store.inner.put(&at(path), b"planted".to_vec().into()).await.unwrap();
        let other = log.round(&mut log.shipper(&store)).await.unwrap_err();
        assert!(matches!(&other, ShipError::Other(named) if named.ends_with(path)), "{other}");
        store.inner.delete(&at(path)).await.unwrap();
    }
    // A checkpoint that is none, one of another log, and a true one under another name: they are passed over.
    let other = Log::new(true);
    other.grow(10);
    let size = log.notary.last().unwrap().size;
    for (size, note) in
        [(u64::MAX, "planted"), (9_000, &other.notary.last().unwrap().note), (8_000, &log.notary.last().unwrap().note)]
    {
        store.inner.put(&at(&plan::checkpoint_path(size)), note.as_bytes().to_vec().into()).await.unwrap();
    }
    log.round(&mut log.shipper(&store)).await.unwrap();
    assert_eq!(log.cursor().load().unwrap().shipped, size);
    for size in [u64::MAX, 9_000, 8_000] {
        store.inner.delete(&at(&plan::checkpoint_path(size))).await.unwrap();
    }
    holds(&log, &store, size, 1).await;
    // One in the place of the next: it is not taken for it.
    let next = log.grow(10);
    store.inner.put(&at(&plan::checkpoint_path(next)), other.notary.last().unwrap().note.clone().into()).await.unwrap();
    assert!(matches!(log.round(&mut log.shipper(&store)).await, Err(ShipError::Other(_))));
}

fn destroy(log: &Log, range: std::ops::Range<u64>, fields: &[&str]) {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    let kinds = vec![audit_store::EventKind::LogRead];
    let selection =
        Selection { rule: "test".into(), by: "test".into(), range: range.clone(), kinds, fields, ..Selection::default() };
    log.store.destroy(&selection, Timestamp(DAY)).unwrap();
    log.rewrites.add(&range).unwrap();
    log.store.sweep(range).unwrap();
}

#[tokio::test]
async fn what_was_destroyed_stays_where_it_is_locked_and_goes_where_it_is_not() {
    for locked in [true, false] {
        let (log, store) = (Log::new(locked), Arc::new(Faulty::default()));
        log.grow(1_000);
        let mut shipper = log.shipper(&store);
        log.round(&mut shipper).await.unwrap();
        let before = copy(&log, &store).await.0;
        // Whole entries, among them some of a partial file, and what is kept beside others.
        destroy(&log, 300..310, &[]);
        destroy(&log, 900..910, &[]);
        destroy(&log, 0..600, &["query"]);
        let size = log.grow(10);
        *store.left.lock() = Some(1);
        let _ = log.round(&mut shipper).await;
        *store.left.lock() = None;
        log.round(&mut log.shipper(&store)).await.unwrap();
        assert!(log.rewrites.pending("vault").is_empty());
        let verification = verify(&log, &store).await;
        assert!(verification.holds(), "{locked}: {:?}", verification.findings);
        assert_eq!((verification.entries, verification.kept), (size, 2));
        let after = copy(&log, &store).await.0;
        let changed: Vec<_> =
            before.iter().filter(|(path, content)| after.get(*path) != Some(*content)).map(|(path, _)| path).collect();
        if locked {
            assert!(changed.is_empty(), "{changed:?}");
            assert_eq!(store.removed.load(Ordering::Relaxed), 0);
            // Nothing of it is shipped later either.
            assert!(verification.destroyed >= 3, "{}", verification.destroyed);
        } else {
            assert!(verification.destroyed >= 20, "{}", verification.destroyed);
            assert!(changed.iter().any(|path| path.as_str() == "tile/entries/001"), "{changed:?}");
            assert!(changed.iter().any(|path| path.starts_with("payload/")), "{changed:?}");
            assert!(!changed.iter().any(|path| path.starts_with("checkpoints/") || path.starts_with("tile/0/")), "{changed:?}");
        }
        // The cursor is lost: what is there already has more than the log, and that is in order.
        std::fs::remove_file(log.cursor().file).unwrap();
        log.round(&mut log.shipper(&store)).await.unwrap();
        assert!(verify(&log, &store).await.holds());
    }
}

#[tokio::test]
async fn what_is_changed_there_is_found() {
    let (log, store) = (Log::new(true), Arc::new(Faulty::default()));
    let mut shipper = log.shipper(&store);
    log.grow(600);
    log.round(&mut shipper).await.unwrap();
    let first = log.notary.last().unwrap();
    log.grow(700);
    log.round(&mut shipper).await.unwrap();
    let Signed { size, .. } = log.notary.last().unwrap();
    let whole = copy(&log, &store).await.0;
    holds(&log, &store, size, 2).await;
    let kept = plan::checkpoint_path(first.size);
    let flip = |path: &str, at: usize| {
        let mut changed = whole.clone();
        changed.get_mut(path).unwrap()[at] ^= 1;
        changed
    };
    let with = |path: &str, content: &[u8]| {
        let mut changed = whole.clone();
        changed.insert(path.to_owned(), content.to_vec());
        changed
    };
    let without = |path: &str| {
        let mut changed = whole.clone();
        changed.remove(path).unwrap();
        changed
    };
    let last = whole[&plan::checkpoint_path(size)].clone();
    let mut forged = String::from_utf8(whole[&kept].clone()).unwrap();
    forged = forged.replace(&format!("\n{}\n", first.size), &format!("\n{}\n", first.size - 1));
    for (what, changed, words) in [
        ("an entry", flip("tile/entries/001", 9), "256"),
        ("a hash", flip("tile/0/001", 9), "256"),
        ("a payload", flip("payload/001", 40), "entry 301"),
        ("a missing bundle", without("tile/entries/003"), "entries 768 to 1023 are missing"),
        ("another under its name", with(&kept, &last), "another was put in its place"),
        ("a root", flip(&kept, 60), "checkpoint that is kept"),
        ("a size", with(&kept, forged.as_bytes()), "another was put in its place"),
        ("no checkpoint", with(&kept, b""), "is none"),
    ] {
        let checkpoint = Some(String::from_utf8(last.clone()).unwrap());
        let expected = Expected { checkpoint, ..log.expected() };
        let verification = verify_published(&Copy(changed), &expected, |_, _| {}).unwrap();
        let found: Vec<_> =
            verification.findings.iter().map(|finding| format!("entry {}: {}", finding.index, finding.what)).collect();
        assert!(!verification.holds() && found.iter().any(|finding| finding.contains(words)), "{what}: {found:?}");
    }
}

#[tokio::test]
async fn a_stopped_gateway_ships_what_it_recorded_last() {
    let (log, store) = (Log::new(true), Arc::new(Faulty::default()));
    log.grow(10);
    let stop = CancellationToken::new();
    let task = tokio::spawn(log.shipper(&store).run(log.meters(), stop.clone()));
    let size = log.grow(10);
    stop.cancel();
    task.await.unwrap();
    holds(&log, &store, size, 1).await;
}
