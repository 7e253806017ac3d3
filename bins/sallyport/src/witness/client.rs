//! Asking one witness for its cosignature.
//!
//! ```text
//!  ask(known size) ─▶ 200  cosignature, verified ─▶ done
//!                  ─▶ 409  another size ─▶ smaller than ours: ask again from there
//!                                       └▶ larger than ours: Ahead
//!                  ─▶ 409  our own size, another root; 422  the proof does not verify ─▶ Forked
//! ```
//!
//! Only a cosignature is signed: every other answer is believed as far as TLS goes. A witness that lies can hold up a log
//! that has to wait for it; it cannot make anything pass that it has not cosigned.

use super::seconds;
use crate::config::WitnessConfig;
use crate::target::tls::{TlsSetupError, roots};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use identity::with_causes;
use std::time::Duration;
use tlog::witness::{ANSWER_MAX, SIZE_TYPE, cosignature, encode_request, is_plausible, parse_size_answer};
use tlog::{Hash, Note, NoteError, Verifier};

/// Longest that a witness may take for its cosignature, with everything that is asked for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests for one cosignature: the size that is believed, the size that the witness says, and once more in case another
/// that speaks for the same log was faster.
const REQUESTS_MAX: usize = 3;
/// How long a connection is kept for the next checkpoint: witnesses should not need a handshake for each.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a witness cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessSetupError {
    /// Its address cannot be asked.
    #[error("the url of witness {0} cannot be asked; write https://HOST, with a port and a path if there are any")]
    Url(String),
    /// What is trusted for it cannot be had.
    #[error("witness {name}: {source}")]
    Tls {
        /// Its name.
        name: String,
        /// Why.
        source: TlsSetupError,
    },
}

/// Why a witness has not cosigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// What it was to cosign is none: a defect of the caller.
    #[error("what is to be cosigned is not a checkpoint: {0}")]
    NotACheckpoint(NoteError),
    /// The log cannot prove what the witness asks for.
    #[error("the log has no proof from {old} to {new} entries")]
    NoProof {
        /// The size that the witness knows.
        old: u64,
        /// The checkpoint's size.
        new: u64,
    },
    /// No answer: not resolved, refused, TLS failed, or broken off.
    #[error("it could not be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("it did not answer in time")]
    TimedOut,
    /// It does not know the log, or not by its key.
    #[error("it does not know this log (status {0}); start it with --log and the log's verifier key")]
    UnknownLog(u16),
    /// It answered with another status. Redirects are not followed.
    #[error("it answered with status {0}")]
    Status(u16),
    /// The answer is longer than any should be.
    #[error("its answer is longer than {ANSWER_MAX} bytes")]
    TooLarge,
    /// It says a size that it knows, and then another.
    #[error("it says that it knows {0} entries, and refuses what begins there")]
    Contradiction(u64),
    /// It has cosigned a larger tree: this log forgot entries, by a restored backup, or somebody else signs with its key.
    #[error(
        "it has cosigned {size} entries, which are more than this log has: an old copy was restored, or the log is there twice"
    )]
    Ahead {
        /// The size that it cosigned.
        size: u64,
    },
    /// What it has cosigned is not the beginning of this log.
    #[error("the {size} entries that it has cosigned are not the beginning of this log: it has two histories")]
    Forked {
        /// The size that it cosigned.
        size: u64,
    },
    /// What it answered is not its cosignature of this checkpoint.
    #[error("its cosignature cannot be believed: {0}")]
    Cosignature(NoteError),
    /// Its cosignature says a time that is far from ours.
    #[error("its cosignature says {said} seconds since 1970, and here it is {here}; one of the two clocks is wrong")]
    Clock {
        /// The cosignature's time.
        said: u64,
        /// Ours.
        here: u64,
    },
}

/// A witness that can be asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WitnessClient {
    key: Verifier,
    url: Uri,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What was answered to one request.
enum Answered {
    Cosignature(Bytes),
    /// The size that it knows.
    Size(u64),
    /// What it knows and what it was asked do not go together.
    Inconsistent,
}

impl WitnessClient {
    /// For the witness of a configuration.
    ///
    /// # Errors
    /// [`WitnessSetupError`].
    pub fn new(config: &WitnessConfig) -> Result<Self, WitnessSetupError> {
        let name = config.key.name().to_owned();
        let url = format!("{}/add-checkpoint", config.url).parse().map_err(|_| WitnessSetupError::Url(name.clone()))?;
        let roots = roots(config.ca.as_deref()).map_err(|source| WitnessSetupError::Tls { name, source })?;
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { key: config.key.clone(), url, http })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// Its cosignature line for the checkpoint `note`, which the log has signed. It is verified, and says a time within
    /// [`tlog::witness::CLOCK_SKEW_MAX`] of now. `known` is the size that the witness is believed to have cosigned last, 0
    /// if nothing is known of it. `proof` is the log's consistency proof from one size to another; `None`: it has none. It
    /// is called on the event loop.
    ///
    /// It is not tried again here: the caller knows when.
    ///
    /// # Errors
    /// [`WitnessError`].
    pub async fn cosign(
        &self,
        note: &str,
        known: u64,
        proof: &(impl Fn(u64, u64) -> Option<Vec<Hash>> + Sync),
    ) -> Result<String, WitnessError> {
        tokio::time::timeout(TIMEOUT, self.cosign_unbounded(note, known, proof)).await.unwrap_or(Err(WitnessError::TimedOut))
    }

    async fn cosign_unbounded(
        &self,
        note: &str,
        known: u64,
        proof: &(impl Fn(u64, u64) -> Option<Vec<Hash>> + Sync),
    ) -> Result<String, WitnessError> {
        let parsed = Note::parse(note.as_bytes()).map_err(WitnessError::NotACheckpoint)?;
        let size = parsed.checkpoint().map_err(WitnessError::NotACheckpoint)?.size;
        let mut old = known.min(size);
        for _ in 0..REQUESTS_MAX {
            let proof = proof(old, size).ok_or(WitnessError::NoProof { old, new: size })?;
            match self.ask(encode_request(old, &proof, note)).await? {
                Answered::Cosignature(answer) => return self.believe(&parsed.text, &answer),
                Answered::Inconsistent => return Err(WitnessError::Forked { size: old }),
                Answered::Size(told) if told > size => return Err(WitnessError::Ahead { size: told }),
                // Started from its own size and told the same: it is the root that is another.
                Answered::Size(told) if told == old && old == size => return Err(WitnessError::Forked { size }),
                Answered::Size(told) if told == old => return Err(WitnessError::Contradiction(told)),
                Answered::Size(told) => old = told,
            }
        }
        Err(WitnessError::Contradiction(old))
    }

    fn believe(&self, text: &str, answer: &[u8]) -> Result<String, WitnessError> {
        let (line, said) = cosignature(text, answer, &self.key).map_err(WitnessError::Cosignature)?;
        let here = seconds();
        if is_plausible(said, here) { Ok(line) } else { Err(WitnessError::Clock { said, here }) }
    }

    async fn ask(&self, body: String) -> Result<Answered, WitnessError> {
        let unreachable = |error: &dyn std::error::Error| WitnessError::Unreachable(with_causes(error));
        let request = Request::post(self.url.clone())
            .header(USER_AGENT, concat!("sallyport/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unreachable(&error))?;
        let response = self.http.request(request).await.map_err(|error| unreachable(&error))?;
        let (status, is_size) = (response.status(), is_size(response.headers()));
        let body = match Limited::new(response.into_body(), ANSWER_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(WitnessError::TooLarge),
            Err(error) => return Err(unreachable(&*error)),
        };
        match status {
            StatusCode::OK => Ok(Answered::Cosignature(body)),
            StatusCode::CONFLICT if is_size => {
                parse_size_answer(&body).map(Answered::Size).ok_or(WitnessError::Status(status.as_u16()))
            }
            // Without a size it is about the roots; as witnesses have told it, and will.
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => Ok(Answered::Inconsistent),
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Err(WitnessError::UnknownLog(status.as_u16())),
            status => Err(WitnessError::Status(status.as_u16())),
        }
    }
}

fn is_size(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == SIZE_TYPE.as_bytes())
}
