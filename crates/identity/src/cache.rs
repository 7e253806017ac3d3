//! One issuer's keys: fetched when needed, refreshed in the background, used for a day at most without a refresh.
//!
//! ```text
//!  empty ──fetched──▶ fresh ──1 h──▶ due ──24 h──▶ too old
//!    ▲                  ▲             │ (still used)   │ (refused)
//!    └── failed: not again for 15 s   └───fetched──────┘
//! ```

use crate::http::{FetchError, HttpClient, is_plain};
use crate::issuer::{KeySource, Names};
use crate::jwks::KeySet;
use crate::limits::{
    DOCUMENT_MAX, FAILED_FETCH_INTERVAL, KEY_FILE_REFRESH, KEYS_AGE_MAX, KEYS_REFRESH, UNKNOWN_KEY_INTERVAL,
    UNKNOWN_KEY_INTERVAL_FILE,
};
use parking_lot::RwLock;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A monotonic clock that tests can push forward.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    #[cfg(test)]
    pub(crate) pushed_seconds: Arc<AtomicU64>,
}

impl Clock {
    fn now(&self) -> Instant {
        #[cfg(test)]
        return Instant::now() + Duration::from_secs(self.pushed_seconds.load(Ordering::Relaxed));
        #[cfg(not(test))]
        Instant::now()
    }
}

/// What is remembered of an issuer's keys.
#[derive(Debug, Clone, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    fetched: Option<Instant>,
    /// The last attempt that failed, if none has succeeded since.
    failed: Option<(Instant, FetchError)>,
    /// The last attempt that was made because of an unknown key id.
    asked_for_unknown: Option<Instant>,
    /// Counts attempts: who waited for another's fetch sees that it was made.
    attempts: u64,
}

/// What the cache says at once.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Use these.
    Keys(Arc<KeySet>),
    /// There are none, or too old ones: fetch first.
    Fetch,
    /// There are none, or too old ones, and fetching has just failed.
    Unavailable(FetchError),
}

/// Why keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// There are none, or too old ones.
    Needed,
    /// A token names one that is not among them.
    UnknownKey,
    /// It is time.
    Due,
}

/// How an issuer's keys stand: for readiness, `check` and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// The issuer's name.
    pub issuer: String,
    /// How many keys are in use; 0: tokens of this issuer are refused.
    pub keys: usize,
    /// How long ago they were fetched.
    pub age: Option<Duration>,
    /// Why the last attempt failed.
    pub error: Option<FetchError>,
}

#[derive(Debug)]
pub(crate) struct KeyCache {
    source: KeySource,
    state: RwLock<State>,
    /// Held while fetching: everybody else waits for the same answer.
    fetching: tokio::sync::Mutex<()>,
    clock: Clock,
}

impl KeyCache {
    pub(crate) fn new(source: KeySource, clock: Clock) -> Self {
        Self { source, state: RwLock::default(), fetching: tokio::sync::Mutex::default(), clock }
    }

    /// Takes over what another cache of the same source knows.
    pub(crate) fn adopt(&self, other: &Self) {
        if self.source == other.source {
            let known = other.state.read().clone();
            *self.state.write() = known;
        }
    }

    pub(crate) fn lookup(&self) -> Lookup {
        let state = self.state.read();
        let now = self.clock.now();
        if let (Some(keys), Some(fetched)) = (&state.keys, state.fetched)
            && now.duration_since(fetched) < KEYS_AGE_MAX
        {
            return Lookup::Keys(Arc::clone(keys));
        }
        match &state.failed {
            Some((at, error)) if now.duration_since(*at) < FAILED_FETCH_INTERVAL => Lookup::Unavailable(error.clone()),
            _ => Lookup::Fetch,
        }
    }

    /// Whether an unknown key id may cause a fetch now.
    pub(crate) fn may_ask_for_unknown(&self) -> bool {
        let interval = match self.source {
            KeySource::Discovery | KeySource::Url(_) => UNKNOWN_KEY_INTERVAL,
            KeySource::File(_) => UNKNOWN_KEY_INTERVAL_FILE,
            KeySource::Inline(_) => return false,
        };
        let asked = self.state.read().asked_for_unknown;
        asked.is_none_or(|at| self.clock.now().duration_since(at) >= interval)
    }

    /// Whether the background refresh should fetch now.
    pub(crate) fn is_due(&self) -> bool {
        let refresh = match self.source {
            KeySource::Discovery | KeySource::Url(_) => KEYS_REFRESH,
            KeySource::File(_) => KEY_FILE_REFRESH,
            KeySource::Inline(_) => Duration::MAX,
        };
        let state = self.state.read();
        let now = self.clock.now();
        // An issuer that does not answer is asked again every minute.
        let failed = state.failed.as_ref().map(|(at, _)| now.duration_since(*at) >= Duration::from_secs(60));
        failed.unwrap_or_else(|| state.fetched.is_none_or(|at| now.duration_since(at) >= refresh))
    }

    /// Fetches, unless somebody else did while we waited for them, or it was done too recently.
    pub(crate) async fn fetch(&self, http: &HttpClient, names: &Names, why: Why) -> Result<(), FetchError> {
        let before = self.state.read().attempts;
        let _turn = self.fetching.lock().await;
        if self.state.read().attempts != before {
            return self.state.read().failed.as_ref().map_or(Ok(()), |(_, error)| Err(error.clone()));
        }
        if why == Why::UnknownKey {
            if !self.may_ask_for_unknown() {
                return Ok(());
            }
            self.state.write().asked_for_unknown = Some(self.clock.now());
        }
        let fetched = load(&self.source, http, names).await;
        let mut state = self.state.write();
        state.attempts = state.attempts.wrapping_add(1);
        match fetched {
            Ok(keys) => {
                state.keys = Some(Arc::new(keys));
                state.fetched = Some(self.clock.now());
                state.failed = None;
                Ok(())
            }
            Err(error) => {
                state.failed = Some((self.clock.now(), error.clone()));
                Err(error)
            }
        }
    }

    pub(crate) fn status(&self, issuer: &str) -> KeyStatus {
        let usable = match self.lookup() {
            Lookup::Keys(keys) => keys.len(),
            Lookup::Fetch | Lookup::Unavailable(_) => 0,
        };
        let state = self.state.read();
        KeyStatus {
            issuer: issuer.to_owned(),
            keys: usable,
            age: state.fetched.map(|at| self.clock.now().duration_since(at)),
            error: state.failed.as_ref().map(|(_, error)| error.clone()),
        }
    }
}

async fn load(source: &KeySource, http: &HttpClient, names: &Names) -> Result<KeySet, FetchError> {
    let (place, document) = match source {
        KeySource::Inline(text) => ("the key set".to_owned(), text.clone().into_bytes()),
        KeySource::File(path) => (path.display().to_string(), read_file(path).await?),
        KeySource::Url(url) => (url.clone(), http.get(url).await?),
        KeySource::Discovery => {
            let url = discover(http, names).await?;
            let document = http.get(&url).await?;
            (url, document)
        }
    };
    KeySet::parse(&document).map_err(|error| FetchError::Document { url: place, problem: error.to_string() })
}

async fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let refuse = |problem: String| FetchError::Document { url: path.display().to_string(), problem };
    let size = tokio::fs::metadata(path).await.map_err(|error| refuse(error.to_string()))?.len();
    if size > DOCUMENT_MAX as u64 {
        return Err(FetchError::TooLarge(path.display().to_string()));
    }
    tokio::fs::read(path).await.map_err(|error| refuse(error.to_string()))
}

/// The address of the key set, from the discovery document (OpenID Connect Discovery 1.0 §4).
async fn discover(http: &HttpClient, names: &Names) -> Result<String, FetchError> {
    let url = format!("{}/.well-known/openid-configuration", names.discovery_base);
    let refuse = |problem: String| FetchError::Document { url: url.clone(), problem };
    let document = http.get(&url).await?;
    let document: Value = serde_json::from_slice(&document).map_err(|_| refuse("it is not JSON".to_owned()))?;
    // §4.3: it must be the issuer's own, or somebody else's keys would be taken for its.
    let issuer = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
    if !names.discovery_issuers.iter().any(|expected| expected == issuer) {
        let issuer = crate::error::shown(issuer);
        return Err(refuse(format!("its issuer is {issuer:?}, not {:?}", names.discovery_issuers)));
    }
    let keys = document.get("jwks_uri").and_then(Value::as_str).ok_or_else(|| refuse("it has no \"jwks_uri\"".to_owned()))?;
    // A document from elsewhere must not send us to a service on this host.
    if is_plain(keys) && !is_plain(&url) {
        return Err(refuse("its \"jwks_uri\" is not an https address".to_owned()));
    }
    Ok(keys.to_owned())
}
