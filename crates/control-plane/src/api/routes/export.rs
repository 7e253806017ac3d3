//! `GET /api/v1/audit/export`: a part of the log in a format, with a manifest that only a complete export has.
//!
//! The answer is `multipart/mixed` with two parts: the data, and `application/json`, the manifest. With `frames=true` it
//! is a sequence of [`Frame`]s, which say how far it is: what the command line reads. Either is sent while the log is
//! read; a reader that is slow holds it up, and one that goes away ends it.

use super::super::{ApiError, ApiState, Caller, Role};
use crate::export::{FRAME_DATA_MAX, Frame, Plan, PlanError, completed};
use crate::log::Filter;
use audit_export::{Export, ExportError, Format, Manifest};
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use proxy_core::record::{Entry, Event};
use proxy_io::clock::now;
use serde::Deserialize;
use std::io;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Exports at once (4): each reads the disk as fast as it can, and holds a thread.
static RUNNING: Semaphore = Semaphore::const_new(4);
/// Parts that wait for a slow reader.
const WAITING_MAX: usize = 2;

/// Which entries, and in which format.
#[derive(Debug, Deserialize)]
pub(super) struct ExportQuery {
    #[serde(flatten)]
    filter: Filter,
    format: Option<String>,
    /// Of this session: its id, or the start of it.
    session: Option<String>,
    /// Kinds, separated by commas.
    kinds: Option<String>,
    /// As frames.
    frames: Option<String>,
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Filter(error) => Self::Invalid(error.to_string()),
            PlanError::Log(error) => error.into(),
        }
    }
}

/// How data, progress and manifest are put on the wire.
#[derive(Clone)]
enum Wire {
    Frames,
    Multipart {
        /// 128 random bits: the data cannot contain it but by chance.
        boundary: String,
    },
}

impl Wire {
    fn new(frames: bool) -> Result<Self, ApiError> {
        if frames {
            return Ok(Self::Frames);
        }
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| ApiError::Failed("no randomness".to_owned()))?;
        Ok(Self::Multipart { boundary: format!("sallyport-{:032x}", u128::from_be_bytes(random)) })
    }

    fn media_type(&self) -> String {
        match self {
            Self::Frames => "application/vnd.sallyport.export".to_owned(),
            Self::Multipart { boundary } => format!("multipart/mixed; boundary={boundary}"),
        }
    }

    fn begin(&self, format: Format) -> Vec<u8> {
        match self {
            Self::Frames => Vec::new(),
            Self::Multipart { boundary } => format!("--{boundary}\r\nContent-Type: {}\r\n\r\n", format.media_type()).into_bytes(),
        }
    }

    fn part(&self, data: Vec<u8>, looked_at: u64, all: u64) -> Vec<u8> {
        match self {
            Self::Frames => {
                let frames = data.chunks(FRAME_DATA_MAX).map(|part| Frame::Data(part.to_vec()).encode());
                let mut out: Vec<u8> = frames.flatten().collect();
                out.extend(Frame::Progress(looked_at, all).encode());
                out
            }
            Self::Multipart { .. } => data,
        }
    }

    fn end(&self, manifest: &Manifest) -> Vec<u8> {
        let json = serde_json::to_vec(manifest).unwrap_or_default();
        match self {
            Self::Frames => Frame::Manifest(json).encode(),
            Self::Multipart { boundary } => {
                let mut out = format!("\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n").into_bytes();
                out.extend(json);
                out.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
                out
            }
        }
    }
}

/// The resource.
pub(super) async fn export(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    caller.require(&[Role::Admin, Role::Auditor])?;
    let by = caller.id();
    let format: Format = query
        .format
        .as_deref()
        .unwrap_or("jsonl")
        .parse()
        .map_err(|error: audit_export::UnknownFormat| ApiError::Invalid(error.to_string()))?;
    let busy = || ApiError::Conflict("as many exports as may run at once are running; try again when one has ended".to_owned());
    let permit = RUNNING.try_acquire().map_err(|_| busy())?;
    let wire = Wire::new(query.frames.as_deref() == Some("true"))?;
    let kinds: Vec<String> = query.kinds.iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect();
    let log = state.log.clone();
    let planned = tokio::task::spawn_blocking(move || Plan::new(&log, format, &query.filter, query.session.as_deref(), &kinds));
    let plan = planned.await.map_err(|error| ApiError::Failed(error.to_string()))??;
    state.record_event(plan.begun(by.clone())).await?;
    let (parts, received) = mpsc::channel::<io::Result<Bytes>>(WAITING_MAX);
    let (media_type, job) = (wire.media_type(), Job { state, plan, by, wire, parts });
    tokio::task::spawn_blocking(move || {
        job.run();
        drop(permit);
    });
    let stream =
        futures_util::stream::unfold(received, |mut received| async { received.recv().await.map(|part| (part, received)) });
    Ok(([(header::CONTENT_TYPE, media_type)], Body::from_stream(stream)).into_response())
}

/// Why an export ended before its end.
enum Ended {
    /// Its reader went away.
    Gone,
    Failed(ExportError),
}

struct Job {
    state: Arc<ApiState>,
    plan: Plan,
    by: String,
    wire: Wire,
    parts: mpsc::Sender<io::Result<Bytes>>,
}

impl Job {
    fn send(&self, bytes: Vec<u8>) -> Result<(), Ended> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.parts.blocking_send(Ok(Bytes::from(bytes))).map_err(|_| Ended::Gone)
    }

    fn run(self) {
        let why = match self.write() {
            Ok(()) => return,
            Err(Ended::Gone) => "its reader went away".to_owned(),
            Err(Ended::Failed(error)) => {
                if matches!(self.wire, Wire::Frames) {
                    let _ = self.send(Frame::Failed(error.to_string()).encode());
                }
                // The answer breaks off without its end, so that nobody takes it for whole.
                let _ = self.parts.blocking_send(Err(io::Error::other(error.to_string())));
                error.to_string()
            }
        };
        tracing::warn!(by = self.by, why, "an export of the audit log broke off");
        self.record(self.plan.broken_off(self.by.clone(), &why));
    }

    fn write(&self) -> Result<(), Ended> {
        let failed = |error: ExportError| Ended::Failed(error);
        let mut export = self.plan.export(self.state.log.clone()).map_err(|error| failed(error.into()))?;
        self.send(self.wire.begin(self.plan.format))?;
        let all = export.entries();
        while let Some(part) = next(&mut export)? {
            self.send(self.wire.part(part.data, part.looked_at, all))?;
        }
        let manifest = self.plan.manifest(&self.by, &export.totals());
        // What is not recorded is not handed over as complete.
        if let Err(error) = self.commit(completed(&manifest)) {
            return Err(Ended::Failed(error.into()));
        }
        self.send(self.wire.end(&manifest))
    }

    fn commit(&self, event: Event) -> Result<(), proxy_core::StoreError> {
        self.state.ledger.commit(&[Entry { time: now(), session: None, event }], &mut Vec::new())
    }

    fn record(&self, event: Event) {
        if let Err(error) = self.commit(event) {
            tracing::error!(%error, "the end of an export could not be recorded");
        }
    }
}

fn next(export: &mut Export) -> Result<Option<audit_export::Part>, Ended> {
    export.next_part().map_err(Ended::Failed)
}
