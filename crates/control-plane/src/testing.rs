//! For tests: a control plane whose sessions and tokens are made up, and HTTP by hand.

use crate::api::server::{bind_socket, serve_listener, serve_socket};
use crate::api::{ApiState, Health, LiveSession, LiveSessions, Verify};
use crate::approvals::ApprovalBoard;
use crate::client::Client;
use crate::keeping::Keeper;
use crate::login::Login;
use crate::published::{PublishedLog, Round};
use audit_store::{AuditStore, EntryFilter};
use bytes::Bytes;
use parking_lot::Mutex;
use proxy_core::pipeline::{ApprovalRule, ReviewGroup, Widths};
use proxy_core::record::{Entry, Event};
use proxy_core::{Ledger, Principal, PrincipalKind, RequestId, SessionId, Store, StoreError, Target, Timestamp};
use proxy_io::HeldRequest;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// The real store, which can be told to refuse.
pub(crate) struct Recording {
    pub(crate) store: Arc<AuditStore>,
    pub(crate) closed: Mutex<bool>,
}

impl Store for Recording {
    fn append(&self, entries: &[Entry]) -> Result<u64, StoreError> {
        if *self.closed.lock() { Err(StoreError::Closed) } else { self.store.append(entries) }
    }

    fn blocks(&self) -> bool {
        self.store.blocks()
    }
}

#[derive(Default)]
pub(crate) struct Live(pub(crate) Mutex<Vec<LiveSession>>);

impl LiveSessions for Live {
    fn list(&self) -> Vec<LiveSession> {
        self.0.lock().clone()
    }

    fn kill(&self, id: SessionId) -> bool {
        let mut list = self.0.lock();
        let before = list.len();
        list.retain(|session| session.id != id);
        list.len() < before
    }

    fn recheck(&self) {}

    fn version(&self) -> u64 {
        0
    }
}

pub(crate) fn principal(subject: &str, roles: &[&str]) -> Principal {
    Principal {
        kind: PrincipalKind::Human,
        issuer: "dev".into(),
        subject: subject.into(),
        tenant: None,
        application: None,
        credential_id: None,
        aliases: vec![],
        roles: roles.iter().map(ToString::to_string).collect(),
        claims: BTreeMap::new(),
        expires: None,
    }
}

pub(crate) fn target() -> Target {
    Target {
        connection: "shop".into(),
        address: "db:5432".into(),
        database: "shop".into(),
        upstream_user: "gateway".into(),
        owner: None,
        tags: BTreeMap::new(),
    }
}

/// A log that is signed, and published nowhere.
struct Unpublished(audit_store::Notary);

impl PublishedLog for Unpublished {
    fn published(&self) -> Option<Arc<audit_store::Signed>> {
        self.0.last().map(Arc::new)
    }

    fn notary(&self) -> &audit_store::Notary {
        &self.0
    }

    fn publish_now(self: Arc<Self>) -> Round {
        Box::pin(async { Ok(()) })
    }

    fn rewrite(&self, _: std::ops::Range<u64>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A control plane without a gateway.
pub(crate) struct Gateway {
    pub(crate) store: Arc<Recording>,
    pub(crate) live: Arc<Live>,
    pub(crate) state: Arc<ApiState>,
    pub(crate) stop: CancellationToken,
    pub(crate) folder: tempfile::TempDir,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Self::with_login(|_| None)
    }

    /// One where people log in.
    pub(crate) fn with_login(login: impl FnOnce(&Arc<identity::Revocations>) -> Option<Arc<Login>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = AuditStore::open(folder.path().join("audit"), audit_store::Options::default()).unwrap();
        let log = store.reader();
        let store = Arc::new(store);
        let opening = audit_store::Opening { folder: folder.path(), sealing: None, by: "test", now: Timestamp(0), moved: false };
        let notary = audit_store::Notary::open(Arc::clone(&store), opening).unwrap();
        let publisher = Arc::new(Unpublished(notary)) as Arc<dyn PublishedLog>;
        let keeper = Keeper::open(folder.path(), Arc::clone(&store), Arc::clone(&publisher)).unwrap();
        let (store, live) = (Arc::new(Recording { store, closed: Mutex::new(false) }), Arc::new(Live::default()));
        let keys = Arc::new(identity::MachineKeys::open(&folder.path().join("keys.json")).unwrap());
        let revocations = Arc::new(identity::Revocations::open(&folder.path().join("revocations.json")).unwrap());
        let verify: Verify = Arc::new(|token| {
            Box::pin(async move {
                match token.expose() {
                    b"ann" => Ok(principal("ann", &["reviewer", "dba"])),
                    b"eve" => Ok(principal("eve", &["reviewer"])),
                    b"ci" => Ok(principal("ci", &["reviewer", "dba", "admin"])),
                    b"old" => Ok(Principal { expires: Some(Timestamp(1)), ..principal("old", &["admin"]) }),
                    _ => Err("no such token".to_owned()),
                }
            })
        });
        let login = login(&revocations);
        let state = Arc::new(ApiState {
            publisher,
            keeper: Arc::new(keeper),
            retention: Box::new(Vec::new),
            payload_keys: Box::new(|_, _| Box::pin(async { Err("there are none".to_owned()) })),
            readings: crate::api::Readings::default(),
            live: Arc::clone(&live) as Arc<dyn LiveSessions>,
            approvals: ApprovalBoard::new(10, Box::new(|_| true)),
            keys,
            revocations,
            log,
            ledger: Ledger::new(Arc::clone(&store) as Arc<dyn Store>),
            verify,
            login,
            notices: None,
            watchers: crate::pages::Watchers::default(),
            metrics: Box::new(|| "sallyport_connections_total{protocol=\"postgres\"} 1\n".to_owned()),
            health: Box::new(|| Health { not_ready: vec!["the audit store's disk is full".into()], ..Health::default() }),
        });
        let (stop, listener) = (CancellationToken::new(), bind_socket(&folder.path().join("admin.sock")).unwrap());
        tokio::spawn(serve_socket(Arc::clone(&state), listener, stop.clone()));
        Self { store, live, state, stop, folder }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.folder.path().join("admin.sock"))
    }

    pub(crate) async fn listen(&self) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_listener(Arc::clone(&self.state), listener, None, self.stop.clone()));
        address
    }

    pub(crate) fn hold(&self) -> crate::approvals::Ticket {
        let held = HeldRequest {
            session: SessionId([7; 16]),
            request: RequestId(3),
            principal: Arc::new(principal("ci", &[])),
            target: Arc::new(target()),
            statement: Bytes::from_static(b"DELETE FROM orders"),
            parameters: vec![],
            digest: "ab".into(),
            facts: Arc::default(),
            rule: ApprovalRule {
                policies: vec!["hold".into()],
                groups: vec![ReviewGroup { name: "dba".into(), quorum: 1, escalation: None }],
                expires: None,
                widths: Widths::default(),
                what: "delete".into(),
            },
            policy_version: "v1".into(),
            submitted: proxy_io::clock::now(),
        };
        self.state.approvals.submit(held, Duration::from_secs(60)).unwrap()
    }

    /// What was recorded after the log's own key.
    pub(crate) fn recorded(&self) -> Vec<Event> {
        let entries = self.state.log.tail(1, &EntryFilter::default(), 1_000).unwrap().items;
        entries.into_iter().map(|stored| stored.entry.event).collect()
    }
}

/// One HTTP request over TCP: the status and the body.
pub(crate) async fn http(address: SocketAddr, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    send(address, method, path, token, "").await
}

/// One with a body in JSON.
pub(crate) async fn send(address: SocketAddr, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let login = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let answer = ask(address, method, path, &format!("{login}{kind}"), body).await;
    (answer.status, answer.body)
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The first header of that name; empty: there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// One with headers, each line with its end.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Answer { status, headers: headers.collect(), body: body.to_owned() }
}
