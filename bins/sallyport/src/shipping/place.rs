//! A place in object storage, with bounds on everything that comes from there.

use crate::config::ObjectUrl;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Longest checkpoint, in bytes (64 KiB): with the lines of a hundred witnesses it has 20.
pub(super) const CHECKPOINT_MAX: u64 = 64 << 10;
/// Longest bundle of entries, or tile of hashes, in bytes: 256 leaves of 65,535, each after its length.
pub(super) const ENTRIES_MAX: u64 = 256 * 65_537;
/// Longest file of payloads that is read, in bytes (4 GiB): a single put of S3 and of Azure takes no more than 5.
pub(super) const PAYLOADS_MAX: u64 = 4 << 30;
/// How much of what a server says of its refusal is shown, in characters.
const WORDS_MAX: usize = 300;
/// Longest that one object may take to be read, written or listed, all tries together.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why something cannot be done there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    /// The server, or the way to it.
    #[error("{path}: {why}")]
    Failed {
        /// Of which object.
        path: String,
        /// What it says.
        why: String,
    },
    /// It is not what it should be.
    #[error("{path} is longer than {max} bytes")]
    TooLong {
        /// Which object.
        path: String,
        /// How long it may be.
        max: u64,
    },
    /// It did not come to its end.
    #[error("{0}: not done within {seconds} s", seconds = PATIENCE.as_secs())]
    TimedOut(String),
    /// It is there, and it is not.
    #[error("{0}: the storage does not take it, because of a conflict, and has none")]
    Conflict(String),
    /// What should be a folder or a file is neither: it may lead anywhere.
    #[error("{} is not a plain file or folder: a destination has no links", .0.display())]
    Link(PathBuf),
}

impl PlaceError {
    /// What the trouble is, whichever object met it.
    pub(super) fn trouble(&self) -> String {
        match self {
            Self::Failed { why, .. } => why.clone(),
            Self::TimedOut(_) => "timed out".to_owned(),
            Self::TooLong { .. } | Self::Conflict(_) | Self::Link(_) => self.to_string(),
        }
    }
}

/// Whether an object was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It was not there before.
    New,
    /// There is one already, and nothing was written.
    There,
}

/// A place.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    store: Arc<dyn ObjectStore>,
    /// The same, for writing.
    writer: Arc<dyn ObjectStore>,
    /// What stands before each path; empty, or with a slash at its end.
    prefix: String,
    /// The folder that it is, if it is one.
    folder: Option<PathBuf>,
    shown: String,
}

impl Place {
    /// `writer`: the same store, for requests that write.
    pub(super) fn new(store: Arc<dyn ObjectStore>, writer: Arc<dyn ObjectStore>, url: &ObjectUrl) -> Self {
        let (prefix, folder) = match url {
            ObjectUrl::S3 { prefix, .. } | ObjectUrl::Azure { prefix, .. } if prefix.is_empty() => (String::new(), None),
            ObjectUrl::S3 { prefix, .. } | ObjectUrl::Azure { prefix, .. } => (format!("{prefix}/"), None),
            ObjectUrl::Folder { path } => (String::new(), Some(path.clone())),
        };
        Self { store, writer, prefix, folder, shown: url.to_string() }
    }

    /// The place called `name` below it.
    #[must_use]
    pub(super) fn below(&self, name: &str) -> Self {
        Self { prefix: format!("{}{name}/", self.prefix), shown: format!("{}/{name}", self.shown), ..self.clone() }
    }

    /// Its URL.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    fn at(&self, path: &str) -> Result<Path, PlaceError> {
        let full = format!("{}{path}", self.prefix);
        self.no_links(&full)?;
        Path::parse(&full).map_err(|error| self.failed(path, error.to_string()))
    }

    fn failed(&self, path: &str, why: String) -> PlaceError {
        PlaceError::Failed { path: format!("{}/{path}", self.shown), why }
    }

    fn refused(&self, path: &str, error: &Error) -> PlaceError {
        self.failed(path, in_words(error))
    }

    /// In a folder: nothing on the way to `path` is a link, and what is there is a file. The library would follow it.
    fn no_links(&self, path: &str) -> Result<(), PlaceError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (mut at, mut parts) = (folder.clone(), path.split('/').peekable());
        while let Some(part) = parts.next() {
            at.push(part);
            let Ok(found) = std::fs::symlink_metadata(&at) else { return Ok(()) };
            let good = if parts.peek().is_some() { found.is_dir() } else { found.is_file() || found.is_dir() };
            if !good {
                return Err(PlaceError::Link(at));
            }
        }
        Ok(())
    }

    async fn timed<T>(&self, path: &str, work: impl Future<Output = Result<T, PlaceError>>) -> Result<T, PlaceError> {
        let late = |_| PlaceError::TimedOut(format!("{}/{path}", self.shown));
        tokio::time::timeout(PATIENCE, work).await.map_err(late)?
    }

    /// Makes an object, unless there is one.
    pub(super) async fn create(&self, path: &str, content: Bytes) -> Result<Made, PlaceError> {
        let (at, options) = (self.at(path)?, PutOptions::from(PutMode::Create));
        let made = async { Ok(self.writer.put_opts(&at, content.into(), options).await) };
        match self.timed(path, made).await? {
            Ok(_) => Ok(Made::New),
            // Locked containers answer to a second write with a conflict.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Made::There),
            Err(error) => Err(self.refused(path, &error)),
        }
    }

    /// Puts an object in the place of what is there.
    pub(super) async fn replace(&self, path: &str, content: Bytes) -> Result<(), PlaceError> {
        let at = self.at(path)?;
        let put = async { self.writer.put(&at, content.into()).await.map_err(|error| self.refused(path, &error)) };
        self.timed(path, put).await.map(drop)
    }

    /// Removes an object; one that is not there is removed.
    pub(super) async fn remove(&self, path: &str) -> Result<(), PlaceError> {
        let at = self.at(path)?;
        let removed = async { Ok(self.store.delete(&at).await) };
        match self.timed(path, removed).await? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.refused(path, &error)),
        }
    }

    /// The content of an object of at most `max` bytes; `None`: there is none.
    pub(super) async fn get(&self, path: &str, max: u64) -> Result<Option<Bytes>, PlaceError> {
        match self.get_within(path, max, max).await? {
            Some(Read::Content(content)) => Ok(Some(content)),
            Some(Read::Long) => Err(PlaceError::TooLong { path: format!("{}/{path}", self.shown), max }),
            None => Ok(None),
        }
    }

    /// The same, unless it is longer than `within`.
    pub(super) async fn get_within(&self, path: &str, within: u64, max: u64) -> Result<Option<Read>, PlaceError> {
        let at = self.at(path)?;
        self.timed(path, async {
            let found = match self.store.get(&at).await {
                Ok(found) => found,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(self.refused(path, &error)),
            };
            if found.meta.size > within.min(max) {
                return Ok(Some(Read::Long));
            }
            let (mut stream, mut content) = (found.into_stream(), BytesMut::new());
            while let Some(part) = stream.next().await {
                content.extend_from_slice(&part.map_err(|error| self.refused(path, &error))?);
                if content.len() as u64 > within.min(max) {
                    return Ok(Some(Read::Long));
                }
            }
            Ok(Some(Read::Content(content.freeze())))
        })
        .await
    }

    /// Paths below `folder`, as they come, relative to this place.
    pub(super) fn list<'p>(&'p self, folder: &'p str, after: Option<&str>) -> BoxStream<'p, Result<String, PlaceError>> {
        let at = match self.at(folder) {
            Ok(at) => at,
            Err(error) => return futures_util::stream::iter([Err(error)]).boxed(),
        };
        // The library shows a folder that is not there as an error.
        if self.folder.as_ref().is_some_and(|root| !root.join(format!("{}{folder}", self.prefix)).exists()) {
            return futures_util::stream::empty().boxed();
        }
        let listed = match after.map(|after| self.at(&format!("{folder}/{after}"))) {
            Some(Ok(offset)) => self.store.list_with_offset(Some(&at), &offset),
            Some(Err(error)) => return futures_util::stream::iter([Err(error)]).boxed(),
            None => self.store.list(Some(&at)),
        };
        let relative = move |found: Result<object_store::ObjectMeta, Error>| {
            let found = found.map_err(|error| self.refused(folder, &error))?;
            let path: &str = found.location.as_ref();
            let path = path.strip_prefix(self.prefix.as_str());
            path.map(str::to_owned).ok_or_else(|| self.failed(folder, "the listing has objects from elsewhere".to_owned()))
        };
        listed.map(relative).boxed()
    }

    /// Names of what looks like folders directly below.
    pub(super) async fn folders(&self) -> Result<Vec<String>, PlaceError> {
        let prefix = Some(self.prefix.trim_end_matches('/')).filter(|prefix| !prefix.is_empty());
        let at = prefix.map(Path::parse).transpose().map_err(|error| self.failed("", error.to_string()))?;
        let listed = async { self.store.list_with_delimiter(at.as_ref()).await.map_err(|error| self.refused("", &error)) };
        let listed = self.timed("", listed).await?;
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
        Ok(names.collect())
    }
}

/// What came of reading an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    /// All of it.
    Content(Bytes),
    /// It is longer than asked for.
    Long,
}

/// An error of the library in one short line: what the server says, if it says something.
fn in_words(error: &Error) -> String {
    let whole = with_causes(error);
    let between = |open: &str, close: &str| {
        let (_, rest) = whole.split_once(open)?;
        Some(rest.split_once(close)?.0.trim().to_owned())
    };
    let status = between("status code: ", ":").unwrap_or_default();
    let text = match (between("<Code>", "</Code>"), between("<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("the storage answers {status}: {code}: {message}"),
        (Some(code), None) => format!("the storage answers {status}: {code}"),
        // What stands before it is the library's account of its tries, which differs each time.
        _ => match whole.rsplit_once("HTTP error: ").or_else(|| whole.split_once(" - ")) {
            Some((_, cause)) => cause.to_owned(),
            None => whole,
        },
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect()
}

/// The last cause says what happened; what stands around it is the library's own account of its tries.
fn with_causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(&format!(": {said}"));
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_short_and_say_what_the_storage_says() {
        let words = |text: &str| in_words(&Error::Generic { store: "S3", source: text.into() });
        let refused = "Error performing PUT http://h/b/k in 1.2s, after 3 retries, max_retries: 3, retry_timeout: 30s  - HTTP error: tcp connect error: Connection refused";
        assert_eq!(words(refused), "tcp connect error: Connection refused");
        let denied = "Error performing GET http://h/b/k in 3ms - Server returned non-2xx status code: 403 Forbidden: <?xml?><Error><Code>AccessDenied</Code><Message>No\r\n2026 way</Message></Error>";
        assert_eq!(words(denied), "the storage answers 403 Forbidden: AccessDenied: No  2026 way");
        assert_eq!(
            words("Error performing GET x in 3ms - Received redirect without LOCATION"),
            "Received redirect without LOCATION"
        );
        assert!(words(&"x".repeat(10_000)).len() == WORDS_MAX);
    }
    use crate::config::Reach;
    use crate::shipping::connect::open;

    fn folder(path: &std::path::Path) -> Place {
        open(&ObjectUrl::Folder { path: path.to_owned() }, &Reach::of_environment(), true).unwrap()
    }

    #[tokio::test]
    async fn what_is_there_is_never_written_again() {
        let scratch = tempfile::tempdir().unwrap();
        let place = folder(&scratch.path().join("made")).below("x");
        assert_eq!(place.create("tile/0/000", Bytes::from_static(b"one")).await, Ok(Made::New));
        assert_eq!(place.create("tile/0/000", Bytes::from_static(b"two")).await, Ok(Made::There));
        assert_eq!(place.get("tile/0/000", 9).await, Ok(Some(Bytes::from_static(b"one"))));
        assert!(matches!(place.get("tile/0/000", 2).await, Err(PlaceError::TooLong { .. })));
        assert_eq!(place.get("tile/0/001", 9).await, Ok(None));
        let listed: Vec<_> = place.list("tile", None).collect().await;
        assert_eq!(listed, [Ok("tile/0/000".to_owned())]);
        assert_eq!(place.list("checkpoints", None).count().await, 0);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(scratch.path().join("made")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn links_in_a_folder_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (scratch.path().join("root"), scratch.path().join("elsewhere"));
        let place = folder(&root);
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("000"), "secret").unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("tile")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("000"), root.join("latest")).unwrap();
        for path in ["tile/000", "latest"] {
            assert!(matches!(place.get(path, 99).await, Err(PlaceError::Link(_))), "{path}");
            assert!(matches!(place.create(path, Bytes::new()).await, Err(PlaceError::Link(_))), "{path}");
            assert!(matches!(place.replace(path, Bytes::new()).await, Err(PlaceError::Link(_))), "{path}");
        }
        assert_eq!(std::fs::read(elsewhere.join("000")).unwrap(), b"secret");
        assert!(place.get("../elsewhere/000", 99).await.is_err());
    }
}
