//! A witness over HTTP: `POST /add-checkpoint`, `GET /healthz`, and `GET /` for people.
//!
//! Anybody may ask, so whatever is asked is bounded: in size by [`REQUEST_MAX`], in time by [`Timeouts`], in number by the
//! connections that are accepted at once.

use super::memory::{Answer, Witness};
use super::seconds;
use control_plane::api::server::{HttpLimits, accept_all, serve_http};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tlog::witness::REQUEST_MAX;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 16 << 10;
/// How long a witness that stops waits for what it is answering.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection may take for what, so that one that is slow on purpose keeps its place for no longer.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For its TLS handshake, and for a request's head; also how long it may be idle between two requests.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// In all: also for reading what is answered.
    pub connection: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { head: Duration::from_secs(30), body: Duration::from_secs(10), connection: Duration::from_secs(600) }
    }
}

/// The TLS settings for the next connection: asked each time, so that a new certificate is used at once.
pub type TlsSettings = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// Serves a witness until `stop`; what is being answered then is answered. `tls`: none, and HTTP is spoken in the clear.
pub async fn serve(
    witness: Arc<Witness>,
    listener: TcpListener,
    tls: Option<TlsSettings>,
    timeouts: Timeouts,
    stop: CancellationToken,
) {
    // Each connection has a sender, and nothing is ever sent: once all are gone, so are the connections.
    let (alive, mut ended) = tokio::sync::mpsc::channel::<Infallible>(1);
    accept_all(
        &stop,
        || listener.accept(),
        |(stream, _), permit| {
            let (witness, tls, stop, alive) = (Arc::clone(&witness), tls.clone(), stop.clone(), alive.clone());
            async move {
                let _ = stream.set_nodelay(true);
                let all = async {
                    let Some(tls) = tls else { return connection(witness, stream, timeouts, &stop).await };
                    let handshake = TlsAcceptor::from(tls()).accept(stream);
                    if let Ok(Ok(stream)) = tokio::time::timeout(timeouts.head, handshake).await {
                        connection(witness, stream, timeouts, &stop).await;
                    }
                };
                let _ = tokio::time::timeout(timeouts.connection, all).await;
                drop((permit, alive));
            }
        },
    )
    .await;
    drop(alive);
    let _ = tokio::time::timeout(STOP_TIMEOUT, ended.recv()).await;
}

async fn connection<S>(witness: Arc<Witness>, stream: S, timeouts: Timeouts, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let witness = Arc::clone(&witness);
        async move { Ok::<_, Infallible>(respond(answer(witness, request, timeouts.body).await)) }
    });
    let limits = HttpLimits { head: timeouts.head, head_max: HEAD_MAX, grace: STOP_TIMEOUT };
    serve_http(stream, service, limits, stop).await;
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(answer.content_type));
    if answer.status == 405 {
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, POST"));
    }
    response
}

async fn answer(witness: Arc<Witness>, request: Request<Incoming>, timeout: Duration) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/add-checkpoint") => {
            let body = Limited::new(request.into_body(), REQUEST_MAX).collect();
            match tokio::time::timeout(timeout, body).await {
                Ok(Ok(body)) => {
                    let body = body.to_bytes();
                    blocking(move || witness.add_checkpoint(&body, seconds())).await
                }
                Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                    Answer::text(413, format!("a request has at most {REQUEST_MAX} bytes\n"))
                }
                Ok(Err(_)) => Answer::text(400, "the request broke off\n"),
                Err(_) => Answer::text(408, "the request did not come in time\n"),
            }
        }
        (&Method::GET, "/healthz") if witness.is_healthy() => Answer::text(200, "ok\n"),
        (&Method::GET, "/healthz") => Answer::text(503, "the last checkpoint could not be written to the disk\n"),
        (&Method::GET, "/") => blocking(move || Answer::text(200, witness.page())).await,
        (_, "/add-checkpoint" | "/healthz" | "/") => Answer::text(405, "this is not asked so\n"),
        _ => Answer::text(404, "there is POST /add-checkpoint, GET /healthz and GET /\n"),
    }
}

/// On a thread that may wait. Once begun it is carried through, whether or not anybody is left to hear the answer.
async fn blocking(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Answer::text(500, "the witness failed; its log says why\n"))
}
