//! Receivers on this host, and a notifier that talks to them.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, reason = "each test file uses a part of it")]

pub mod smtp;
pub mod tls;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use notify::{
    Addresses, ChannelConfig, DeadLetter, DeadLetterError, DeadLetters, Delivery, Destination, Event, Events, Group, Kind,
    Notice, Notifier, Reach, Resolve, Secret, Setup, StartError, What,
};
use parking_lot::Mutex;
use proxy_core::Timestamp;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// 2026-11-28T10:00:00Z.
pub const NOW: i64 = 1_795_860_000;
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const STATEMENT: &str = "DELETE FROM customers WHERE id = 7";

pub fn clock() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

/// How a receiver answers one request.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16),
    Header(u16, &'static str, String),
    Body(String),
    /// Never.
    Hang,
    /// 200, and a body without an end.
    Endless,
}

#[derive(Debug, Clone)]
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Got {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Answers with what is in its script, then with 200.
#[derive(Clone, Default)]
pub struct Receiver {
    script: Arc<Mutex<VecDeque<Reply>>>,
    got: Arc<Mutex<Vec<Got>>>,
    pub address: Option<SocketAddr>,
}

impl Receiver {
    pub async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let (receiver, listener) = Self::bound(script).await;
        let served = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(served.clone().serve(stream));
            }
        });
        receiver
    }

    /// The same behind TLS, for `name`.
    pub async fn start_tls(acceptor: tokio_rustls::TlsAcceptor) -> Self {
        let (receiver, listener) = Self::bound([]).await;
        let served = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                tokio::spawn(served.clone().serve(stream));
            }
        });
        receiver
    }

    async fn bound(script: impl IntoIterator<Item = Reply>) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { address: Some(listener.local_addr().unwrap()), ..Self::default() };
        receiver.script.lock().extend(script);
        (receiver, listener)
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<Said> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.got.lock().push(Got { path: parts.uri.to_string(), headers: parts.headers, body, at: Instant::now() });
        let reply = self.script.lock().pop_front().unwrap_or(Reply::Status(200));
        let (status, body) = match &reply {
            Reply::Status(status) | Reply::Header(status, ..) => (*status, Bytes::new()),
            Reply::Body(text) => (200, Bytes::from(text.clone())),
            Reply::Endless => (200, Bytes::new()),
            Reply::Hang => std::future::pending().await,
        };
        let mut response = Response::builder().status(status);
        if let Reply::Header(_, name, value) = &reply {
            response = response.header(*name, value);
        }
        let endless = matches!(reply, Reply::Endless);
        response.body(Said { body: Some(body).filter(|_| !endless), endless }).unwrap()
    }

    pub fn url(&self, path: &str) -> Secret {
        Secret::new(format!("http://{}{path}", self.address.unwrap()))
    }

    pub fn port(&self) -> u16 {
        self.address.unwrap().port()
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }

    pub async fn wait_for(&self, count: usize) -> Vec<Got> {
        until("requests", || Some(self.got()).filter(|got| got.len() >= count)).await
    }
}

/// A body that ends, or not.
pub struct Said {
    body: Option<Bytes>,
    endless: bool,
}

impl Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = if self.endless { Some(Bytes::from_static(&[b'x'; 8_192])) } else { self.body.take() };
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// Polls for at most 10 s.
pub async fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2_000 {
        if let Some(value) = done() {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited for {what} in vain")
}

#[derive(Default)]
pub struct Log(Mutex<Vec<Event>>);

impl Events for Log {
    fn event(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

impl Log {
    pub fn all(&self) -> Vec<Event> {
        self.0.lock().clone()
    }

    pub async fn wait_for(&self, test: impl Fn(&What) -> bool) -> Event {
        until("an event", || self.all().into_iter().find(|event| test(&event.what))).await
    }

    pub async fn wait_for_sent(&self, count: usize) -> Vec<Event> {
        let sent = |event: &Event| matches!(event.what, What::Sent { .. });
        until("sent events", || Some(self.all().into_iter().filter(sent).collect::<Vec<_>>()).filter(|all| all.len() >= count))
            .await
    }
}

/// Dead letters in memory.
#[derive(Default)]
pub struct Graves(pub Mutex<Vec<DeadLetter>>);

impl DeadLetters for Graves {
    fn bury(&self, letter: &DeadLetter) -> Result<u64, DeadLetterError> {
        self.0.lock().push(letter.clone());
        Ok(0)
    }
}

/// Answers each name with what it is told.
pub struct Names(pub Vec<(&'static str, Vec<IpAddr>)>);

impl Names {
    pub fn none() -> Self {
        Self(Vec::new())
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        let found = self.0.iter().find(|(name, _)| *name == host);
        let found = found.map(|(_, ips)| ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect());
        Box::pin(async move { found.ok_or(io::ErrorKind::NotFound.into()) })
    }
}

pub struct Rig {
    pub log: Arc<Log>,
    pub graves: Arc<Graves>,
    pub notifier: Notifier,
}

pub fn quick() -> Delivery {
    Delivery {
        send_timeout: Duration::from_millis(500),
        retry_first: Duration::from_millis(20),
        retry_max: Duration::from_millis(100),
        attempts_max: 4,
        ..Delivery::default()
    }
}

pub fn setup(channels: Vec<ChannelConfig>, names: Names) -> (Setup, Arc<Log>, Arc<Graves>) {
    let (log, graves) = (Arc::new(Log::default()), Arc::new(Graves::default()));
    let setup = Setup {
        channels,
        delivery: quick(),
        spool: None,
        dead: graves.clone(),
        events: log.clone(),
        resolver: Arc::new(names),
        clock,
        runtime: tokio::runtime::Handle::current(),
    };
    (setup, log, graves)
}

pub fn rig(channels: Vec<ChannelConfig>) -> Rig {
    rig_with(channels, Names::none(), |_| {})
}

pub fn rig_with(channels: Vec<ChannelConfig>, names: Names, change: impl FnOnce(&mut Setup)) -> Rig {
    try_rig(channels, names, change).unwrap()
}

pub fn try_rig(channels: Vec<ChannelConfig>, names: Names, change: impl FnOnce(&mut Setup)) -> Result<Rig, StartError> {
    let (mut setup, log, graves) = setup(channels, names);
    change(&mut setup);
    Ok(Rig { log, graves, notifier: Notifier::start(setup)? })
}

pub fn spooled(channels: Vec<ChannelConfig>, folder: &Path) -> Rig {
    rig_with(channels, Names::none(), |setup| setup.spool = Some(folder.to_owned()))
}

/// A channel that may speak to this host.
pub fn local(name: &str, to: Destination) -> ChannelConfig {
    ChannelConfig { reach: Reach { loopback: true, private: false }, ..ChannelConfig::new(name, to) }
}

pub fn webhook(receiver: &Receiver) -> ChannelConfig {
    let config = notify::webhook::WebhookConfig { url: receiver.url("/hook"), secrets: vec![Secret::new(SECRET)] };
    local("hook", Destination::Webhook(config))
}

pub fn notice_of(kind: Kind, request: &str) -> Notice {
    Notice {
        principal: "ci-deployer".into(),
        issuer: Some("https://token.actions.example".into()),
        application: Some("deploy".into()),
        connection: "shop".into(),
        owner: Some("ann@example.com".into()),
        action: "delete on shop/shop/public.customers".into(),
        groups: vec![Group { name: "keeper".into(), missing: 2 }, Group { name: "lead".into(), missing: 0 }],
        expires: Some(Timestamp::from_seconds(NOW + 600)),
        link: format!("https://gate.example/approvals/{request}"),
        digest: Some("sha256:9f86d081".into()),
        statement: Some(STATEMENT.into()),
        ..Notice::new(kind, request, Timestamp::from_seconds(NOW - 60), Timestamp::from_seconds(NOW))
    }
}

pub fn notice() -> Notice {
    notice_of(Kind::ApprovalRequested, "7k2m9x")
}

pub fn denied(request: &str) -> Notice {
    Notice {
        decided_by: Some("bob@example.com".into()),
        reason: Some("not on a Friday".into()),
        time: Timestamp::from_seconds(NOW + 30),
        ..notice_of(Kind::ApprovalDenied, request)
    }
}

/// What somebody writes who wants to be read as somebody else.
pub const HOSTILE: &str = "<!channel> <!here> @here @channel @everyone <@U1> <https://evil.example|Approve> *b* _i_ ~s~ `c` ```x``` \
    [Approve](https://evil.example) <at>All</at> <script>alert(1)</script> &lt; {{DATE(1)}} # h\r\nBcc: eve@evil.example\r\n\r\n.\r\nQUIT\r\n\u{202e}\0";

/// A notice that is hostile in every text.
pub fn hostile() -> Notice {
    let text = || HOSTILE.to_owned();
    Notice {
        principal: text(),
        issuer: Some(text()),
        application: Some(text()),
        connection: text(),
        owner: Some(text()),
        action: text(),
        groups: vec![Group { name: text(), missing: 1 }],
        decided_by: Some(text()),
        reason: Some(text()),
        digest: Some(text()),
        statement: Some(format!("{HOSTILE}\n{}", HOSTILE.repeat(100))),
        request: text(),
        ..notice()
    }
}
