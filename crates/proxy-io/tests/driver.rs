//! The driver with a protocol of lines, over real sockets: what its loop must not lose, and whom a failure must not reach.

use bytes::{Bytes, BytesMut};
use proto_testkit::{MemoryStore, principal, target};
use proxy_core::pipeline::{Approval, NotReady, Permit, SessionFacts};
use proxy_core::record::{Outcome, OutcomeStatus};
use proxy_core::session::{
    Action, Answer, CloseReason, EndReason, Evidence, Input, LoginAttempt, LoginReply, Peer, TlsInfo, UpstreamFailure,
};
use proxy_core::{
    Authorizer, Decision, DenyReason, Disclosure, Entry, Event, Ledger, Principal, Request, RequestId, RequestKind, SecretBytes,
    Session, SessionAuthorizer, Statement, Timestamp, Verdict,
};
use proxy_io::services::{BoxFuture, Held};
use proxy_io::worker::ListenAddress;
use proxy_io::{
    Approvals, Authenticate, HeldRequest, ListenerSpec, LoginConversation, LoginStep, Opened, PeerInfo, Registry, Services,
    UpstreamAnswers, UpstreamCredential, UpstreamEndpoint, Workers,
};
use std::any::Any;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Longest that anything is waited for: then the driver has lost it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A protocol of lines. The gateway says `ready`; then each line is a request, one at a time, that the upstream answers
/// with a line. `alarm N` and `no alarm` are for the session itself, and `break` is a request at whose verdict it panics.
#[derive(Default)]
struct Lines {
    actions: VecDeque<Action>,
    permit: Option<Permit>,
    last: u64,
    /// The line that waits for its verdict, and the request that waits for its answer.
    asked: Option<Bytes>,
    running: Option<RequestId>,
    ended: bool,
}

impl Lines {
    fn begin(&mut self) {
        let evidence = Evidence::Password(SecretBytes::new(b"token".to_vec()));
        let (label, database, application) = ("ci".to_owned(), "lines".to_owned(), String::new());
        let attempt = LoginAttempt { label, database, application, settings: Vec::new(), evidence };
        self.actions.push_back(Action::Authenticate(Box::new(attempt)));
    }

    fn say(&mut self, text: &'static str) {
        self.actions.push_back(Action::SendClient(Bytes::from_static(text.as_bytes())));
    }

    fn client(&mut self, buffer: &mut BytesMut) {
        if self.permit.is_none() {
            if buffer.starts_with(b"hello\n") {
                drop(buffer.split_to(6));
                self.begin();
            }
            return;
        }
        while self.asked.is_none() && self.running.is_none() {
            let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else { return };
            let line = buffer.split_to(end + 1).freeze();
            if let Some(millis) = line.strip_prefix(b"alarm ") {
                let millis = std::str::from_utf8(millis).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
                self.actions.push_back(Action::SetDeadline(Some(Duration::from_millis(millis))));
            } else if line.starts_with(b"no alarm") {
                self.actions.push_back(Action::SetDeadline(None));
            } else {
                self.last += 1;
                self.asked = Some(line.clone());
                self.decide(RequestId(self.last), RequestKind::Query, Statement::Sql(line));
            }
        }
    }

    fn decide(&mut self, id: RequestId, kind: RequestKind, statement: Statement) {
        let request = Request { id, kind, statement, prepared_as: None, portal: None, parameters: Vec::new() };
        self.actions.push_back(Action::Decide(Box::new(request)));
    }

    fn upstream(&mut self, buffer: &mut BytesMut) {
        self.actions.push_back(Action::SendClient(buffer.clone().freeze()));
        let answered = buffer.contains(&b'\n');
        buffer.clear();
        if answered && let Some(request) = self.running.take() {
            self.actions.push_back(Action::Record(Box::new(Outcome {
                request,
                status: OutcomeStatus::Completed,
                code: None,
                tag: None,
                rows: 0,
                bytes: 0,
                duration_micros: 0,
                columns_passed: 0,
                columns_masked: 0,
                columns_refused: 0,
                masked_classes: Vec::new(),
            })));
        }
    }

    fn verdict(&mut self, request: RequestId, answer: Answer) {
        let Answer::Permitted { permit, .. } = answer else {
            self.asked = None;
            return self.say("denied\n");
        };
        if request == RequestId(0) {
            self.permit = Some(permit);
            return self.actions.push_back(Action::Connect(permit));
        }
        let Some(bytes) = self.asked.take() else { return };
        assert!(!bytes.starts_with(b"break"), "a session that breaks, as this test wants it");
        self.running = Some(request);
        self.actions.push_back(Action::SendUpstream { bytes, permit });
    }

    fn end(&mut self, reason: CloseReason) {
        if !std::mem::replace(&mut self.ended, true) {
            self.actions.push_back(Action::Close(reason));
        }
    }
}

impl Session for Lines {
    fn handle(&mut self, _: Timestamp, input: Input<'_>) {
        match input {
            Input::Bytes { from: Peer::Client, buffer } => self.client(buffer),
            Input::Bytes { from: Peer::Upstream, buffer } => self.upstream(buffer),
            Input::Login(LoginReply::Accepted { .. }) => {
                self.decide(RequestId(0), RequestKind::Connect, Statement::Sql(Bytes::from_static(b"connect")));
            }
            Input::Verdict { request, verdict } => self.verdict(request, verdict),
            Input::Connected(Ok(())) => {
                self.actions.push_back(Action::Established);
                self.say("ready\n");
            }
            Input::Deadline => self.say("alarm\n"),
            Input::Eof { from: Peer::Client } => self.end(CloseReason::ClientVanished),
            Input::Eof { from: Peer::Upstream } => self.end(CloseReason::UpstreamClosed),
            Input::Connected(Err(failure)) => self.end(CloseReason::UpstreamFailed(failure)),
            Input::End(reason) => self.end(CloseReason::Ended(reason)),
            Input::Login(_) | Input::Tls { .. } | Input::UpstreamAnswer(_) | Input::Cancel | Input::Drain => {}
        }
    }

    fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

/// Everybody is let in, to the upstream at this address, and may do everything.
struct Everything(SocketAddr);

impl Authenticate for Everything {
    fn admit(&self, _: Option<IpAddr>) -> Option<Box<dyn Any + Send>> {
        Some(Box::new(()))
    }

    fn begin(&self, _: PeerInfo) -> Box<dyn LoginConversation> {
        Box::new(Self(self.0))
    }

    fn still_valid(&self, _: &Principal, _: Timestamp) -> Result<(), EndReason> {
        Ok(())
    }
}

impl LoginConversation for Everything {
    fn step<'a>(&'a mut self, _: Timestamp, _: LoginAttempt, _: Option<&'a TlsInfo>) -> BoxFuture<'a, LoginStep> {
        let (host, port) = (self.0.ip().to_string(), self.0.port());
        let opened = Opened {
            principal: Arc::new(principal()),
            target: Arc::new(target()),
            upstream: UpstreamEndpoint { host, port, tls: None, credential: Arc::new(NoCredential) },
            last: None,
            expires: None,
            slot: Box::new(()),
        };
        Box::pin(async { LoginStep::Accepted(Box::new(opened)) })
    }
}

struct NoCredential;

impl UpstreamCredential for NoCredential {
    fn begin(&self, _: Option<Vec<u8>>) -> Result<Box<dyn UpstreamAnswers>, UpstreamFailure> {
        Err(UpstreamFailure::Credential)
    }
}

impl Authorizer for Everything {
    fn open(&self, _: &SessionFacts) -> Box<dyn SessionAuthorizer> {
        Box::new(Self(self.0))
    }
}

impl SessionAuthorizer for Everything {
    fn decide(&mut self, _: Timestamp, _: &Request, _: Option<&Approval>) -> Result<Decision, NotReady> {
        Ok(Decision {
            verdict: Verdict::Allow,
            policies: Arc::default(),
            policy_version: Arc::from("test"),
            facts: Arc::default(),
            disclosure: Disclosure::default(),
        })
    }

    fn completed(&mut self, _: RequestId, _: bool) {}

    fn still_connected(&mut self, _: Timestamp) -> Result<(), DenyReason> {
        Ok(())
    }
}

impl Approvals for Everything {
    fn hold(&self, _: HeldRequest) -> Result<Held, String> {
        Err("nothing is held here".to_owned())
    }

    fn session_ended(&self, _: proxy_core::SessionId) {}
}

/// One worker with the protocol of lines, on TCP and on a Unix socket.
struct Gateway {
    workers: Option<Workers>,
    registry: Arc<Registry>,
    store: Arc<MemoryStore>,
    upstream: TcpListener,
    tcp: SocketAddr,
    folder: tempfile::TempDir,
}

impl Gateway {
    fn start() -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("an upstream");
        let everything = Arc::new(Everything(upstream.local_addr().expect("its address")));
        let (store, registry) = (Arc::<MemoryStore>::default(), Arc::<Registry>::default());
        let services = Arc::new(Services {
            authenticate: everything.clone(),
            authorizer: everything.clone(),
            ledger: Ledger::new(store.clone()),
            approvals: everything,
            registry: registry.clone(),
            metrics: Arc::new(()),
        });
        let folder = tempfile::tempdir().expect("a folder");
        let addresses = [ListenAddress::Tcp(([127, 0, 0, 1], 0).into()), ListenAddress::Unix(folder.path().join("socket"))];
        let listeners = addresses.map(|address| ListenerSpec {
            protocol: "lines",
            address,
            connection: None,
            session: Arc::new(|_| Box::new(Lines::default())),
            tls: Arc::new(|| None),
            login_timeout: PATIENCE,
            hold_timeout: PATIENCE,
            message_max: 1 << 20,
        });
        let workers = Workers::start(1, listeners.to_vec(), &services).expect("a worker");
        let ListenAddress::Tcp(tcp) = workers.addresses[0] else { panic!("the first is TCP") };
        Self { workers: Some(workers), registry, store, upstream, tcp, folder }
    }

    /// A session that is ready, and its connection at the upstream.
    fn open(&self) -> (BufReader<TcpStream>, TcpStream) {
        let client = TcpStream::connect(self.tcp).expect("the gateway listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        self.ready(client)
    }

    fn ready<S: Read + Write>(&self, client: S) -> (BufReader<S>, TcpStream) {
        let mut client = BufReader::new(client);
        client.get_mut().write_all(b"hello\n").expect("the gateway reads");
        let (upstream, _) = self.upstream.accept().expect("the gateway connects");
        upstream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert_eq!(line(&mut client), "ready\n");
        (client, upstream)
    }

    /// Stops it: the whole log.
    fn close(self) -> Vec<Entry> {
        let store = self.store.clone();
        drop(self);
        store.entries()
    }
}

/// Requests and outcomes, in order.
fn requests(log: &[Entry]) -> Vec<(&'static str, u64)> {
    let requests = log.iter().filter_map(|entry| match &entry.event {
        Event::Request(record) => Some(("request", record.request.0)),
        Event::Outcome(outcome) => Some(("outcome", outcome.request.0)),
        _ => None,
    });
    requests.collect()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Sessions have ended with their clients, or are ended.
        while !self.registry.is_empty() {
            self.registry.broadcast(&proxy_io::Control::End(EndReason::Shutdown));
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line comes in time");
    line
}

/// An upstream that answers each line with itself, until it ends.
fn echo(upstream: TcpStream) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(upstream);
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).is_ok_and(|n| n == 0) || lines.get_mut().write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn bytes_that_a_session_leaves_are_offered_until_they_are_taken() {
    let gateway = Gateway::start();
    let (mut client, upstream) = gateway.open();
    let upstream = echo(upstream);
    // One write, of which the session takes a line at a time: nothing more comes from the client to wake it.
    let all: String = (0..500).map(|at| format!("ask {at}\n")).collect();
    client.get_mut().write_all(all.as_bytes()).expect("the gateway reads");
    for at in 0..500 {
        assert_eq!(line(&mut client), format!("ask {at}\n"));
    }
    client.get_mut().shutdown(Shutdown::Both).expect("a socket");
    upstream.join().expect("the upstream ends with the session");
    let expected: Vec<_> = (1..=500).flat_map(|at| [("request", at), ("outcome", at)]).collect();
    drop(client);
    let entries = gateway.close();
    let sequence: Vec<u64> = entries.iter().filter_map(|entry| entry.session.map(|(_, at)| at)).collect();
    assert_eq!(sequence, (0..sequence.len() as u64).collect::<Vec<_>>(), "the session's own numbers have no gap");
    assert_eq!(requests(&entries), expected);
}

#[test]
fn a_request_is_in_the_log_before_the_upstream_hears_of_it() {
    let gateway = Gateway::start();
    let (mut client, upstream) = gateway.open();
    let mut upstream = BufReader::new(upstream);
    for at in 1..=20 {
        client.get_mut().write_all(b"ask\n").expect("the gateway reads");
        assert_eq!(line(&mut upstream), "ask\n");
        assert!(requests(&gateway.store.entries()).contains(&("request", at)));
        upstream.get_mut().write_all(b"answer\n").expect("the gateway reads");
        assert_eq!(line(&mut client), "answer\n");
    }
}

#[test]
fn a_session_that_panics_ends_alone() {
    let gateway = Gateway::start();
    let (mut client, upstream) = gateway.open();
    let upstream = echo(upstream);
    let (mut broken, other) = gateway.open();
    // Both in one turn, more often than not: the committer runs them on one after the other.
    for round in 0..20 {
        let ask = format!("ask {round}\n");
        client.get_mut().write_all(ask.as_bytes()).expect("the gateway reads");
        if round == 10 {
            broken.get_mut().write_all(b"break\n").expect("the gateway reads");
        }
        assert_eq!(line(&mut client), ask);
    }
    let mut rest = Vec::new();
    let _ = broken.read_to_end(&mut rest);
    assert_eq!(rest, b"", "it is closed, and nothing was said");
    drop(other);
    // New ones are served as before.
    let (mut later, third) = gateway.open();
    let third = echo(third);
    later.get_mut().write_all(b"ask\n").expect("the gateway reads");
    assert_eq!(line(&mut later), "ask\n");
    drop((client, later));
    for thread in [upstream, third] {
        thread.join().expect("the upstream ends with the session");
    }
    // Its end is recorded as every other's, and nobody waits for it.
    let ends: Vec<_> = gateway
        .close()
        .into_iter()
        .filter_map(|entry| match entry.event {
            Event::SessionEnded { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert_eq!(ends.iter().filter(|reason| reason.starts_with("the gateway failed")).count(), 1, "{ends:?}");
}

#[test]
fn a_deadline_that_was_taken_back_does_not_keep_the_next_from_coming() {
    let gateway = Gateway::start();
    let (mut client, _upstream) = gateway.open();
    let say = |client: &mut BufReader<TcpStream>, text: &str| {
        client.get_mut().write_all(text.as_bytes()).expect("the gateway reads");
    };
    say(&mut client, "alarm 1\n");
    assert_eq!(line(&mut client), "alarm\n");
    // The timer goes off with nothing to tell, and again for one that was set meanwhile.
    say(&mut client, "alarm 30\nno alarm\n");
    std::thread::sleep(Duration::from_millis(60));
    say(&mut client, "alarm 5\n");
    assert_eq!(line(&mut client), "alarm\n");
    // An earlier one after a later one, and a later one in its place.
    say(&mut client, "alarm 3600000\nalarm 5\n");
    assert_eq!(line(&mut client), "alarm\n");
    say(&mut client, "alarm 5\nalarm 50\n");
    assert_eq!(line(&mut client), "alarm\n");
}

#[test]
fn a_slow_client_gets_every_byte_and_the_upstream_is_not_read_ahead_without_bound() {
    let gateway = Gateway::start();
    let (mut client, mut upstream) = gateway.open();
    client.get_mut().write_all(b"ask\n").expect("the gateway reads");
    assert_eq!(line(&mut BufReader::new(upstream.try_clone().expect("a socket"))), "ask\n");
    upstream.set_write_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let block: Vec<u8> = (0..1 << 16).map(|at: u32| b'a' + (at % 23) as u8).collect();
    // Until nobody takes more: sockets have room for some megabytes, and the gateway for less than one.
    let mut sent = 0;
    while sent < 256 << 20 {
        match upstream.write(&block[sent % block.len()..]) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    assert!(sent < 256 << 20, "the gateway takes what its client does not");
    upstream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    let writer = std::thread::spawn(move || {
        let end = sent + (8 << 20);
        let mut sent = sent;
        while sent < end {
            sent += upstream.write(&block[sent % block.len()..]).expect("the gateway reads on");
        }
        upstream.write_all(b"\n").expect("the gateway reads on");
        sent
    });
    let mut received = Vec::new();
    client.read_until(b'\n', &mut received).expect("all of it comes");
    assert_eq!(received.len(), writer.join().expect("the upstream") + 1);
    let expected = |at: usize| b'a' + ((at % (1 << 16)) % 23) as u8;
    assert!(received[..received.len() - 1].iter().enumerate().all(|(at, byte)| *byte == expected(at)));
}

#[test]
fn a_client_that_ends_after_its_last_request_is_noticed_at_once() {
    let gateway = Gateway::start();
    let (mut client, upstream) = gateway.open();
    let mut upstream = BufReader::new(upstream);
    client.get_mut().write_all(b"ask\n").expect("the gateway reads");
    client.get_mut().shutdown(Shutdown::Write).expect("a socket");
    // The request may be overtaken by the end, or not; the upstream's connection ends in any case.
    let mut all = String::new();
    upstream.read_to_string(&mut all).expect("the gateway closes");
    assert!(all.is_empty() || all == "ask\n", "{all:?}");
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("the gateway closes");
}

#[test]
fn a_unix_socket_is_served_as_tcp_is() {
    let gateway = Gateway::start();
    let client = UnixStream::connect(gateway.folder.path().join("socket")).expect("the gateway listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let (mut client, upstream) = gateway.ready(client);
    let upstream = echo(upstream);
    for at in 0..50 {
        let ask = format!("ask {at}\n");
        client.get_mut().write_all(ask.as_bytes()).expect("the gateway reads");
        assert_eq!(line(&mut client), ask);
    }
    drop(client);
    upstream.join().expect("the upstream ends with the session");
}
