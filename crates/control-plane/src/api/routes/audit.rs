//! The log: entries as they come, and whether it holds together.

use super::super::{ApiError, ApiState, Caller, Role};
use crate::log::{Filter, find_session, forward, last};
use crate::view;
use audit_store::{EntryFilter, Expected, Reader, StoredEntry};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tlog::Verifier;
use tokio::sync::mpsc;

/// Entries when the caller does not say.
const LAST_DEFAULT: usize = 20;
/// Most entries that are shown from before now.
const LAST_MAX: usize = 100_000;
/// Lines that wait for a slow reader.
const WAITING_MAX: usize = 64;
/// How often the end of the log is looked at by a reader that follows it.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// Which entries.
#[derive(Debug, Deserialize)]
pub(super) struct EntriesQuery {
    #[serde(flatten)]
    filter: Filter,
    /// How many from before now.
    last: Option<String>,
    /// Of this session.
    session: Option<String>,
    /// Kinds, separated by commas.
    kinds: Option<String>,
    /// Go on with what comes.
    follow: Option<String>,
}

/// `GET /api/v1/audit/entries`: one JSON document in each line.
pub(super) async fn entries(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<EntriesQuery>,
) -> Result<Response, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let invalid = |what: String| ApiError::Invalid(what);
    let count = query.last.as_deref().map_or(Ok(LAST_DEFAULT), str::parse).map_err(|_| invalid("last is not a number".into()))?;
    let kinds: Vec<String> = query.kinds.iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect();
    let mut filter = query.filter.entries(&kinds).map_err(|error| invalid(error.to_string()))?;
    if let Some(name) = query.session.clone() {
        filter.session = Some(state.read(move |log| find_session(log, &name)).await?);
    }
    let asked =
        json!({ "filter": query.filter, "session": query.session, "kinds": query.kinds, "last": count, "follow": query.follow });
    state.record_reading(caller.id(), format!("entries {asked}")).await?;
    let follow = query.follow.as_deref() == Some("true");
    let log = state.log.clone();
    Ok(lines(move |lines| {
        if let Err(error) = send(&log, &filter, count.min(LAST_MAX), follow, lines) {
            let _ = lines.blocking_send(line(&json!({ "error": error.to_string() })));
        }
    }))
}

/// An answer of one JSON document in each line, as `write` sends them, away from the event loop.
fn lines(write: impl FnOnce(&mpsc::Sender<Bytes>) + Send + 'static) -> Response {
    let (lines, rx) = mpsc::channel::<Bytes>(WAITING_MAX);
    tokio::task::spawn_blocking(move || write(&lines));
    let stream = futures_util::stream::unfold(rx, |mut rx| async { rx.recv().await.map(|line| (Ok::<_, Infallible>(line), rx)) });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

/// Sends entries until there are none, or as long as somebody listens.
fn send(
    log: &Reader,
    filter: &EntryFilter,
    count: usize,
    follow: bool,
    lines: &mpsc::Sender<Bytes>,
) -> Result<(), proxy_core::StoreError> {
    let send = |entry: &StoredEntry| lines.blocking_send(line(&view::entry(entry))).is_ok();
    let (found, mut from) = last(log, filter, count)?;
    if !found.iter().all(send) {
        return Ok(());
    }
    while follow && !lines.is_closed() {
        match forward(log, from, filter, |entry| send(&entry))? {
            Some(next) => from = next,
            None => return Ok(()),
        }
        std::thread::sleep(FOLLOW_PAUSE);
    }
    Ok(())
}

/// How a verification is answered.
#[derive(Debug, Deserialize)]
pub(super) struct VerifyQuery {
    /// In lines: how far it is, now and then, and at the end what was found.
    progress: Option<String>,
}

/// What the caller holds, and the log must bear out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Holding {
    /// Checkpoints that were seen earlier: signed notes.
    pub checkpoints: Vec<String>,
    /// Keys of the log, as texts of verifiers.
    pub keys: Vec<String>,
    /// Keys of witnesses, likewise.
    pub witnesses: Vec<String>,
    /// How many of them must have cosigned the last checkpoint.
    pub witnesses_min: usize,
}

impl Holding {
    /// As the store takes it, without the log's own last checkpoint.
    ///
    /// # Errors
    /// A key cannot be read.
    pub fn expected(&self) -> Result<Expected, String> {
        let parse = |keys: &[String]| {
            let read = |key: &String| Verifier::parse(key).map_err(|error| format!("{key}: {error}"));
            keys.iter().map(read).collect::<Result<Vec<_>, _>>()
        };
        Ok(Expected {
            checkpoint: None,
            earlier: self.checkpoints.clone(),
            keys: parse(&self.keys)?,
            witnesses: parse(&self.witnesses)?,
            witnesses_min: self.witnesses_min,
            payload_keys: None,
        })
    }
}

/// `GET /api/v1/audit/verify`: reads the whole log, and holds it against its last checkpoint and key.
pub(super) async fn verify(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<VerifyQuery>,
) -> Result<Response, ApiError> {
    verify_expected(State(state), Extension(caller), Query(query), Json(Holding::default())).await
}

/// `POST /api/v1/audit/verify`: the same, and what the caller holds.
pub(super) async fn verify_expected(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<VerifyQuery>,
    Json(holding): Json<Holding>,
) -> Result<Response, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let mut expected = holding.expected().map_err(ApiError::Invalid)?;
    state.record_reading(caller.id(), "verification of the whole log".to_owned()).await?;
    let notary = state.publisher.notary();
    expected.checkpoint = match state.publisher.published() {
        // What witnesses have cosigned is what was published.
        Some(published) if expected.witnesses_min > 0 => Some(published.note.clone()),
        _ => notary.last().map(|last| last.note),
    };
    expected.keys.push(notary.verifier());
    if query.progress.as_deref() != Some("true") {
        let verification = state.read(move |log| Ok(log.verify(&expected, |_| {})?)).await?;
        return Ok(Json(json!({ "holds": verification.holds(), "verification": verification })).into_response());
    }
    let log = state.log.clone();
    Ok(lines(move |lines| {
        let verified = log.len().and_then(|entries| {
            log.verify(&expected, |checked| {
                // Whoever went away has the whole log read all the same: it cannot be stopped half way.
                let _ = lines.blocking_send(line(&json!({ "checked": checked, "entries": entries })));
            })
        });
        let _ = lines.blocking_send(line(&match verified {
            Ok(verification) => json!({ "holds": verification.holds(), "verification": verification }),
            Err(error) => json!({ "error": error.to_string() }),
        }));
    }))
}
