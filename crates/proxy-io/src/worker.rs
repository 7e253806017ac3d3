//! Workers: one thread, one event loop, one set of listening sockets each.

use crate::clock;
use crate::driver;
use crate::services::Services;
use crate::socket::Socket;
use crate::tls::ServerTls;
use crate::{Committer, PeerInfo};
use proxy_core::session::CancelKey;
use proxy_core::{Session, SessionId};
use socket2::{Domain, Protocol, Type};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// What a session is made of, besides its protocol.
pub struct SessionSeed {
    /// Its id.
    pub id: SessionId,
    /// The cancel key that it may offer.
    pub cancel_key: CancelKey,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket: served by the first worker.
    Unix(PathBuf),
}

/// Makes the protocol's session.
pub type SessionFactory = Arc<dyn Fn(SessionSeed) -> Box<dyn Session> + Send + Sync>;

/// One listener.
#[derive(Clone)]
pub struct ListenerSpec {
    /// The protocol's name.
    pub protocol: &'static str,
    /// Where.
    pub address: ListenAddress,
    /// The connection that it is tied to.
    pub connection: Option<String>,
    /// Makes its sessions.
    pub session: SessionFactory,
    /// What it shows to clients: asked for each handshake, so that a new certificate is used at once.
    pub tls: Arc<dyn Fn() -> Option<ServerTls> + Send + Sync>,
    /// From accept to the finished login.
    pub login_timeout: std::time::Duration,
    /// Longest a held request waits.
    pub hold_timeout: std::time::Duration,
    /// Longest message that a session may need whole.
    pub message_max: usize,
}

/// The running workers.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    accepting: CancellationToken,
    committing: CancellationToken,
    /// The addresses that are listened on, in the order of the specifications (ports filled in).
    pub addresses: Vec<ListenAddress>,
}

impl Workers {
    /// Binds every listener and starts `count` workers.
    ///
    /// # Errors
    /// A socket cannot be bound, or a thread cannot be started.
    pub fn start(count: usize, mut listeners: Vec<ListenerSpec>, services: &Arc<Services>) -> io::Result<Self> {
        let accepting = CancellationToken::new();
        let committing = CancellationToken::new();
        let mut sockets: Vec<Vec<(ListenerSpec, Bound)>> = (0..count.max(1)).map(|_| Vec::new()).collect();
        for spec in &mut listeners {
            for (at, worker) in sockets.iter_mut().enumerate() {
                match spec.address.clone() {
                    ListenAddress::Tcp(address) => {
                        let socket = bind(address)?;
                        // Port 0: the first socket chooses, the others share.
                        spec.address = ListenAddress::Tcp(socket.local_addr()?);
                        worker.push((spec.clone(), Bound::Tcp(socket)));
                    }
                    ListenAddress::Unix(path) if at == 0 => {
                        let _ = std::fs::remove_file(&path);
                        let socket = std::os::unix::net::UnixListener::bind(&path)?;
                        socket.set_nonblocking(true)?;
                        worker.push((spec.clone(), Bound::Unix(socket)));
                    }
                    ListenAddress::Unix(_) => {}
                }
            }
        }
        let addresses = listeners.iter().map(|spec| spec.address.clone()).collect();
        let mut threads = Vec::new();
        for (at, sockets) in sockets.into_iter().enumerate() {
            let services = services.clone();
            let (accepting, committing) = (accepting.clone(), committing.clone());
            let thread = std::thread::Builder::new()
                .name(format!("worker-{at}"))
                .spawn(move || run_worker(sockets, &services, accepting, committing))?;
            threads.push(thread);
        }
        Ok(Self { threads, accepting, committing, addresses })
    }

    /// Stops accepting connections; live sessions go on.
    pub fn stop_accepting(&self) {
        self.accepting.cancel();
    }

    /// Ends the workers' loops once every session has ended, writes what is left, and waits for the threads.
    pub fn join(self) {
        self.accepting.cancel();
        self.committing.cancel();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

fn run_worker(
    sockets: Vec<(ListenerSpec, Bound)>,
    services: &Arc<Services>,
    accepting: CancellationToken,
    committing: CancellationToken,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start its event loop");
            return;
        }
    };
    let committer = Arc::new(Committer::new(services.ledger.clone(), services.metrics.clone()));
    runtime.block_on(async {
        for (spec, bound) in sockets {
            tokio::spawn(accept_loop(spec, bound, services.clone(), committer.clone(), accepting.clone()));
        }
        // A task as the sessions are: it has its turn after those that were woken before it. This function's own future
        // would have it after another look for events.
        let committed = tokio::spawn(async move { committer.run(committing.cancelled()).await });
        if committed.await.is_err() {
            tracing::error!("a worker's committer ended by a panic");
        }
    });
}

async fn accept_loop(
    spec: ListenerSpec,
    bound: Bound,
    services: Arc<Services>,
    committer: Arc<Committer>,
    until: CancellationToken,
) {
    let spec = Arc::new(spec);
    let listener = match bound {
        Bound::Tcp(socket) => TcpListener::from_std(socket).map(Listener::Tcp),
        Bound::Unix(socket) => UnixListener::from_std(socket).map(Listener::Unix),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be used");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until.cancelled() => return,
        };
        match accepted {
            Ok(socket) => start(socket, spec.clone(), services.clone(), committer.clone()),
            Err(error) => {
                // Out of descriptors, most likely: waiting is better than spinning.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

fn start(socket: Socket, spec: Arc<ListenerSpec>, services: Arc<Services>, committer: Arc<Committer>) {
    let (source, address) = socket.peer();
    let address = address.map(|address| address.ip());
    let Some(admission) = services.authenticate.admit(address) else {
        tracing::warn!(%source, "too many logins are under way from this address: the connection is closed");
        services.metrics.login(spec.protocol, false);
        return;
    };
    let Some(id) = new_session_id() else { return };
    let mut secret = vec![0u8; 32];
    let mut process = [0u8; 4];
    if aws_lc_rs::rand::fill(&mut secret).is_err() || aws_lc_rs::rand::fill(&mut process).is_err() {
        return;
    }
    // Process numbers on the wire are positive 31-bit integers, as the real server's are.
    let cancel_key = CancelKey { process: u32::from_be_bytes(process) & 0x7fff_ffff, secret };
    if !services.registry.offer_cancel_key(id, &cancel_key) {
        return;
    }
    services.metrics.connected(spec.protocol);
    let session = (spec.session)(SessionSeed { id, cancel_key: cancel_key.clone() });
    let peer = PeerInfo { session: id, source, address, protocol: spec.protocol, listener_connection: spec.connection.clone() };
    tokio::spawn(driver::run(driver::Setup { socket, session, peer, cancel_key, admission, spec, services, committer }));
}

/// A UUID version 7 of the present time: sessions sort by their start.
fn new_session_id() -> Option<SessionId> {
    let millis = clock::now().0 / 1_000;
    let mut id = [0u8; 16];
    aws_lc_rs::rand::fill(&mut id).ok()?;
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    id[6] = (id[6] & 0x0f) | 0x70;
    id[8] = (id[8] & 0x3f) | 0x80;
    Some(SessionId(id))
}
