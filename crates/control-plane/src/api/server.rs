//! The sockets of the API.

use super::ApiState;
use super::auth::Peer;
use super::routes::{router, router_with_pages};
use axum::Router;
use axum::extract::Extension;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::fs::Permissions;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections to the API at once (2,048): a page that follows keeps one open, and needs others beside it.
const CONNECTIONS_MAX: usize = 2_048;
/// Longest that a TLS handshake, or a request's head, may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 64 << 10;
/// How long to rest when accepting fails: the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds the gateway's own socket, for its user alone. A socket that a gateway left behind is replaced; one
/// that answers is not.
///
/// # Errors
/// It cannot be bound, or another gateway serves it.
pub fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there and is not a socket", path.display())));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another gateway answers on {}", path.display())));
        }
        Ok(_) | Err(_) => {}
    }
    // Made under another name first: nobody can connect before the mode is right.
    let fresh = path.with_extension(format!("sock.{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Serves the gateway's own socket until `stop`.
pub async fn serve_socket(state: Arc<ApiState>, listener: UnixListener, stop: CancellationToken) {
    let own = std::fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid());
    let router = router(state);
    accept_all(
        &stop,
        || listener.accept(),
        |(stream, _), permit| {
            let (router, stop) = (router.clone(), stop.clone());
            async move {
                let Some(user) = local_user(&stream, own) else { return };
                serve(router, stream, Peer::Local { user }, &stop).await;
                drop(permit);
            }
        },
    )
    .await;
}

/// The peer's name, if it is this process' user or root.
fn local_user(stream: &UnixStream, own: u32) -> Option<String> {
    let uid = stream.peer_cred().ok()?.uid();
    if uid == own || uid == 0 {
        return Some(crate::machine::user_name(uid));
    }
    tracing::warn!(uid, "a connection to the admin socket was refused: it is another user's");
    None
}

/// What the `admin` listener speaks.
#[derive(Clone)]
pub struct Tls {
    /// The settings for the next connection: asked each time, so that a new certificate is used at once.
    pub config: Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>,
    /// Whether HTTP without TLS is spoken as well (a listener on a local address).
    pub optional: bool,
}

/// Serves the `admin` listener until `stop`. `None`: plain HTTP, only ever on a local address.
pub async fn serve_listener(state: Arc<ApiState>, listener: TcpListener, tls: Option<Tls>, stop: CancellationToken) {
    // A cookie is taken where a token is: within TLS, or from this host.
    let (plain_router, router) = (router(Arc::clone(&state)), router_with_pages(state));
    accept_all(
        &stop,
        || listener.accept(),
        |(stream, _), permit| {
            let (plain_router, router, tls, stop) = (plain_router.clone(), router.clone(), tls.clone(), stop.clone());
            async move {
                let _ = stream.set_nodelay(true);
                let peer = Peer::Remote { private: true };
                let plain = match &tls {
                    None => true,
                    Some(tls) => tls.optional && !looks_like_tls(&stream).await,
                };
                match tls {
                    Some(tls) if !plain => {
                        let handshake = TlsAcceptor::from((tls.config)()).accept(stream);
                        if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, handshake).await {
                            serve(router, stream, peer, &stop).await;
                        }
                    }
                    Some(_) | None => {
                        // A plain connection is taken from this host alone, whatever the listener's address is.
                        let private = stream.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
                        serve(if private { router } else { plain_router }, stream, Peer::Remote { private }, &stop).await;
                    }
                }
                drop(permit);
            }
        },
    )
    .await;
}

/// Whether the first byte opens a TLS record (22: handshake).
async fn looks_like_tls(stream: &tokio::net::TcpStream) -> bool {
    let mut first = [0];
    matches!(tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await, Ok(Ok(1)) if first == [22])
}

/// Accepts until `stop`, one task for each connection, at most [`CONNECTIONS_MAX`] at once.
pub async fn accept_all<A, F, S, T>(stop: &CancellationToken, accept: impl Fn() -> A, serve: F)
where
    A: Future<Output = io::Result<S>>,
    F: Fn(S, OwnedSemaphorePermit) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let permit = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((accept().await?, permit))
        };
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = next => match accepted {
                Ok((stream, permit)) => {
                    tokio::spawn(serve(stream, permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn serve<S>(router: Router, stream: S, peer: Peer, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    // What is being answered may finish; a listing that follows the log would not.
    let limits = HttpLimits { head: HEAD_TIMEOUT, head_max: HEAD_MAX, grace: Duration::from_secs(1) };
    serve_http(stream, service, limits, stop).await;
}

/// Limits of one connection.
pub struct HttpLimits {
    /// Longest that a request's head may take, and that it may be idle between two.
    pub head: Duration,
    /// Longest head, in bytes.
    pub head_max: usize,
    /// How long what is being answered may take when everything stops.
    pub grace: Duration,
}

/// Serves HTTP/1.1 on one connection until it closes, or until `stop`.
pub async fn serve_http<S, V, B>(stream: S, service: V, limits: HttpLimits, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service<Request<Incoming>, Response = Response<B>>,
    V::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(limits.head_max);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(limits.grace, connection).await;
        }
    }
}
