//! Both sides over HTTP, with what goes wrong between them.

mod asking;
mod keeping;
mod serving;

use super::server::{Timeouts, serve};
use super::{Witness, seconds};
use crate::config::WitnessConfig;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tlog::merkle::{Frontier, Node, consistency_proof, leaf_hash};
use tlog::witness::encode_request;
use tlog::{Checkpoint, Hash, KeyKind, Signer, Verifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

const ORIGIN: &str = "example.com/sallyport";
const NAME: &str = "witness.example";

/// A log, and the checkpoints of each of its sizes. Logs of other histories part from it at their entry `parts_at`, and
/// sign with the same key.
struct Log {
    signer: Signer,
    nodes: HashMap<Node, Hash>,
    roots: Vec<Hash>,
}

impl Log {
    fn new(history: u8, parts_at: u64) -> Self {
        let (mut nodes, mut frontier) = (HashMap::new(), Frontier::default());
        let mut roots = vec![frontier.root()];
        for at in 0..64u64 {
            let leaf = [&at.to_be_bytes()[..], if at < parts_at { &[] } else { std::slice::from_ref(&history) }].concat();
            frontier.push(leaf_hash(&leaf), |node, hash| {
                nodes.insert(node, *hash);
            });
            roots.push(frontier.root());
        }
        let signer = Signer::from_seed(ORIGIN, KeyKind::Log, &[1; 32]).unwrap();
        Self { signer, nodes, roots }
    }

    fn key(&self) -> Verifier {
        self.signer.verifier().clone()
    }

    fn note(&self, size: u64) -> String {
        let text = Checkpoint { origin: ORIGIN.to_owned(), size, root: self.roots[size as usize] }.to_string();
        format!("{text}\n{}", self.signer.sign(&text, 0))
    }

    fn proof(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        let Ok(proof) = consistency_proof(old, new, |node| Ok::<_, Infallible>(self.nodes[&node]));
        Some(proof)
    }

    fn request(&self, old: u64, new: u64) -> String {
        encode_request(old, &self.proof(old, new).unwrap(), &self.note(new))
    }
}

fn open(dir: &Path, log: &Log) -> Witness {
    Witness::open(dir, Some(NAME), &[log.key()], seconds()).unwrap()
}

/// A witness that is served until it is dropped.
struct Served {
    address: SocketAddr,
    witness: Arc<Witness>,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

impl Served {
    async fn start(log: &Log, timeouts: Timeouts) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let witness = Arc::new(open(dir.path(), log));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(Arc::clone(&witness), listener, None, timeouts, stop.clone()));
        Self { address, witness, _stop: stop.drop_guard(), _dir: dir }
    }

    fn config(&self) -> WitnessConfig {
        WitnessConfig { key: self.witness.key().clone(), url: format!("http://{}", self.address), ca: None }
    }
}

/// Sends bytes, and reads until the other side closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // One that is refused early closes with bytes unread: what it said before counts.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("it ends");
    String::from_utf8(answer).unwrap()
}

async fn post(address: SocketAddr, body: &str) -> (u16, String) {
    let length = body.len();
    let request =
        format!("POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    let answer = exchange(address, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Answers each connection's first request with these bytes, the n-th with the n-th; with none left, not at all.
async fn scripted(answers: Vec<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 64 << 10];
            let _ = stream.read(&mut request).await;
            if let Some(answer) = answers.next() {
                let _ = stream.write_all(answer.as_bytes()).await;
            } else {
                kept.push(stream);
            }
        }
    });
    address
}

fn http(status: u16, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}
