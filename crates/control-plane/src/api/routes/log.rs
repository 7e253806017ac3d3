//! The log as others verify it: `/log/` is the root of a C2SP tlog-tiles log, and the API proves entries.

use super::super::{ApiError, ApiState, Caller, Role};
use crate::log::find_session;
use audit_store::prove::Proven;
use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tlog::Tile;
use tlog::tile::Content;

/// How long one entry of the log covers a caller's reading of the same: a verifier reads thousands of its files, and a page is
/// fetched again and again.
const READING: Duration = Duration::from_secs(600);

/// Readings that are remembered.
const READERS_MAX: usize = 1_024;

/// Entries of one proof at most.
const PROVEN_MAX: usize = 100_000;

/// Who has read what of the log lately, as its entries say.
#[derive(Debug, Default)]
pub struct Readings(parking_lot::Mutex<HashMap<String, Instant>>);

impl Readings {
    /// Whether the log does not say so of this caller and what it reads.
    pub(crate) fn is_new(&self, caller: &str) -> bool {
        self.0.lock().get(caller).is_none_or(|since| since.elapsed() >= READING)
    }

    pub(crate) fn note(&self, caller: String) {
        let mut known = self.0.lock();
        if known.len() >= READERS_MAX {
            known.retain(|_, since| since.elapsed() < READING);
            if known.len() >= READERS_MAX {
                known.clear();
            }
        }
        known.insert(caller, Instant::now());
    }
}

/// `GET /log/checkpoint`: for everybody, as witnesses and monitors want it.
pub(super) async fn checkpoint(State(state): State<Arc<ApiState>>) -> Result<Response, ApiError> {
    let published = state.publisher.published().ok_or_else(|| ApiError::NotFound("nothing is published yet".to_owned()))?;
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, published.note.clone()).into_response())
}

/// `GET /log/tile/…` and `GET /log/payload/…`: what the published checkpoint commits to.
pub(super) async fn file(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Path(path): Path<String>,
) -> Result<Response, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let missing = || ApiError::NotFound("the published log has no such file".to_owned());
    let payloads = path.strip_prefix("payload/").map(|rest| format!("tile/entries/{rest}"));
    let tile = Tile::parse(payloads.as_deref().unwrap_or(&path)).ok_or_else(missing)?;
    let published = state.publisher.published().map_or(0, |published| published.size);
    if tile.entries() > published {
        return Err(missing());
    }
    if tile.content == Content::Entries {
        note_reading(&state, &caller).await?;
    }
    let beside = payloads.is_some();
    let content = state.read(move |log| Ok(if beside { log.payloads(&tile)? } else { log.tile(&tile)? })).await?;
    let mut response = content.ok_or_else(missing)?.into_response();
    let fixed = HeaderValue::from_static("private, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, fixed);
    Ok(response)
}

/// The reading of the log's files is an entry of it before anything is shown: one for a while.
async fn note_reading(state: &ApiState, caller: &Caller) -> Result<(), ApiError> {
    state.record_look(caller, format!("files of the published log, for {} minutes", READING.as_secs() / 60)).await
}

/// `GET /api/v1/audit/key`: the log's name and public keys.
pub(super) async fn key(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let public = state.publisher.notary().public();
    let keys: Vec<String> = public.verifiers.iter().map(ToString::to_string).collect();
    Ok(Json(json!({ "origin": public.origin, "keys": keys })))
}

/// `POST /api/v1/audit/key/rotate`: the log is signed by a new key from here on.
pub(super) async fn rotate(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    let (publisher, by) = (Arc::clone(&state.publisher), caller.id());
    let rotated = tokio::task::spawn_blocking(move || publisher.notary().rotate(&by, proxy_io::clock::now())).await;
    let rotated = rotated.map_err(|error| ApiError::Failed(error.to_string()))?;
    let key = rotated.map_err(|error| ApiError::Failed(error.to_string()))?;
    Ok(Json(json!({ "key": key.to_string() })))
}

/// `POST /api/v1/audit/key/rotate-payload`: payloads are sealed with a new key from here on.
pub(super) async fn rotate_payload(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    (state.payload_keys)(caller.id(), false).await.map(Json).map_err(ApiError::Failed)
}

/// `POST /api/v1/audit/key/rewrap`: the payloads' keys are wrapped by what is configured now.
pub(super) async fn rewrap(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin])?;
    (state.payload_keys)(caller.id(), true).await.map(Json).map_err(ApiError::Failed)
}

/// What is to be proven.
#[derive(Debug, Deserialize)]
pub(super) struct ProveQuery {
    /// An entry.
    entry: Option<String>,
    /// A session: all its entries.
    session: Option<String>,
}

/// `GET /api/v1/audit/prove`: entries with their paths to the published checkpoint. What was recorded a moment ago is signed
/// first.
pub(super) async fn prove(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ProveQuery>,
) -> Result<Json<Value>, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let indices = match (&query.entry, query.session.clone()) {
        (Some(entry), None) => vec![entry.parse().map_err(|_| ApiError::Invalid("entry is not a number".to_owned()))?],
        (None, Some(session)) => state.read(move |log| Ok(log.session_indices(find_session(log, &session)?)?)).await?,
        _ => return Err(ApiError::Invalid("name either an entry or a session".to_owned())),
    };
    state.record_reading(caller.id(), format!("proof of {}", json!({ "entry": query.entry, "session": query.session }))).await?;
    Arc::clone(&state.publisher).publish_now().await.map_err(ApiError::Failed)?;
    let signed = state.publisher.published().ok_or_else(|| ApiError::NotFound("nothing is published yet".to_owned()))?;
    let keys = state.publisher.notary().public().entries;
    let proven = state.read(move |log| Ok(prove_all(log, &indices, &keys, signed.size, &signed.note)?)).await?;
    let proven = proven.ok_or_else(|| ApiError::NotFound("the log has no such entry".to_owned()))?;
    Ok(Json(json!({ "entries": proven.iter().map(proven_value).collect::<Vec<_>>() })))
}

/// Proofs of `indices` and of the entries of the log's keys; `None`: one of them is not there.
pub fn prove_all(
    log: &audit_store::Reader,
    indices: &[u64],
    keys: &[u64],
    size: u64,
    note: &str,
) -> Result<Option<Vec<Proven>>, proxy_core::StoreError> {
    let mut all: Vec<u64> = indices.iter().take(PROVEN_MAX).chain(keys.iter().filter(|key| **key < size)).copied().collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|index| log.prove(index, size, note)).collect()
}

fn proven_value(proven: &Proven) -> Value {
    let beside = proven.beside.iter().map(|(field, payload)| json!({ "field": field, "payload": BASE64.encode(payload) }));
    json!({
        "index": proven.index,
        "leaf": BASE64.encode(&proven.leaf),
        "beside": beside.collect::<Vec<_>>(),
        "proof": proven.proof.to_string(),
    })
}

/// The inverse, for the command line; `None`: it is none.
#[must_use]
pub fn proven_of(value: &Value) -> Option<Proven> {
    let bytes = |value: &Value| BASE64.decode(value.as_str()?).ok();
    let beside = value["beside"].as_array()?.iter();
    let beside = beside.map(|one| Some((u32::try_from(one["field"].as_u64()?).ok()?, bytes(&one["payload"])?)));
    Some(Proven {
        index: value["index"].as_u64()?,
        leaf: bytes(&value["leaf"])?,
        beside: beside.collect::<Option<_>>()?,
        proof: tlog::Proof::parse(value["proof"].as_str()?.as_bytes()).ok()?,
    })
}
