//! `sallyport witness` as a process: what it prints, what it refuses, and what is left when it is killed.
#![allow(missing_docs, reason = "a test")]

use sallyport::config::WitnessConfig;
use sallyport::witness::Witnesses;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tlog::merkle::{Frontier, Node, consistency_proof, leaf_hash};
use tlog::witness::{cosignature, encode_request};
use tlog::{Checkpoint, Hash, KeyKind, Signer, Verifier};

struct Log {
    signer: Signer,
    nodes: HashMap<Node, Hash>,
    roots: Vec<Hash>,
}

impl Log {
    fn new(size: u64) -> Self {
        let (mut nodes, mut frontier) = (HashMap::new(), Frontier::default());
        let mut roots = vec![frontier.root()];
        for at in 0..size {
            frontier.push(leaf_hash(&at.to_be_bytes()), |node, hash| {
                nodes.insert(node, *hash);
            });
            roots.push(frontier.root());
        }
        Self { signer: Signer::from_seed("example.com/log", KeyKind::Log, &[1; 32]).unwrap(), nodes, roots }
    }

    fn text(&self, size: u64) -> String {
        Checkpoint { origin: "example.com/log".to_owned(), size, root: self.roots[size as usize] }.to_string()
    }

    fn request(&self, old: u64, new: u64) -> String {
        let Ok(proof) = consistency_proof(old, new, |node| Ok::<_, Infallible>(self.nodes[&node]));
        let text = self.text(new);
        encode_request(old, &proof, &format!("{text}\n{}", self.signer.sign(&text, 0)))
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.arg("witness").args(arguments).stdin(Stdio::null());
    command
}

struct Running {
    child: Child,
    port: u16,
    key: Verifier,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(dir: &Path, log: &Log) -> Running {
    start_on("127.0.0.1", dir, log, &[])
}

fn start_on(ip: &str, dir: &Path, log: &Log, more: &[&str]) -> Running {
    let port = free_port();
    let (address, key) = (format!("{ip}:{port}"), log.signer.verifier().to_string());
    let dir = dir.display().to_string();
    let arguments = ["--dir", &dir, "--name", "witness.example", "--address", &address, "--log", &key];
    let mut child = command(&[&arguments[..], more].concat()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let key = Verifier::parse(line.trim_end()).unwrap();
    Running { child, port, key }
}

/// Sends a request, and does not wait for what comes.
fn send(port: u16, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    let head = format!("POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream
}

/// Its status, 0 if there was no whole answer, and body.
fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return (0, String::new()) };
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn what_was_answered_before_a_kill_is_known_after_it() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(400));
    let (mut answered, mut known, mut keys) = (0, 0, Vec::new());
    for round in 0..12u64 {
        let mut running = start(dir.path(), &log);
        keys.push(running.key.clone());
        // From the log's side, what the witness knows is not known either.
        let (status, body) = answer(send(running.port, &log.request(known, known)));
        if status == 409 {
            known = body.trim_end().parse().unwrap();
        }
        assert!(status == 409 || status == 200, "{status} {body}");
        assert!(known >= answered, "{answered} entries were cosigned, and it knows {known}");
        let kill_after = Duration::from_micros(round * 700);
        let started = Instant::now();
        while known < 400 {
            let pending = send(running.port, &log.request(known, known + 1));
            if started.elapsed() >= kill_after {
                running.child.kill().unwrap();
            }
            let (status, body) = answer(pending);
            if status != 200 {
                break;
            }
            known += 1;
            answered = known;
            assert!(cosignature(&log.text(known), body.as_bytes(), &running.key).is_ok(), "{body}");
        }
    }
    assert!(answered > 0 && keys.iter().all(|key| *key == keys[0]), "{answered}");
}

#[test]
fn with_a_certificate_it_speaks_tls_on_any_address() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Log::new(9));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("w.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("w.key"), made.signing_key.serialize_pem()).unwrap();
    let tls = ["--certificate", &path("w.pem"), "--private-key", &path("w.key")];
    let running = start_on("0.0.0.0", &dir.path().join("w"), &log, &tls);
    let config = WitnessConfig {
        key: running.key.clone(),
        url: format!("https://localhost:{}", running.port),
        ca: Some(dir.path().join("w.pem")),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let witnesses = Witnesses::new(&[config], 1).unwrap();
    let text = log.text(9);
    let note = format!("{text}\n{}", log.signer.sign(&text, 0));
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let sum = runtime.block_on(witnesses.cosign(&note, |_, _| Some(Vec::new())));
        if sum.enough {
            break;
        }
        assert!(Instant::now() < until, "{sum:?}");
    }
    assert_eq!(answer(send(running.port, &log.request(9, 9))).0, 0, "and nothing else");
}

#[test]
fn it_says_what_is_missing_and_stops_when_told() {
    let (home, log) = (tempfile::tempdir().unwrap(), Log::new(3));
    let (dir, key) = (home.path().join("w"), log.signer.verifier().to_string());
    let dir_text = dir.display().to_string();
    let run = |more: &[&str]| {
        let output = command(&[&["--dir", &dir_text], more].concat()).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    };
    let says = |more: &[&str], status: i32, words: &str| {
        let (code, text) = run(more);
        assert!(code == Some(status) && text.contains(words), "{more:?}: {code:?}: {text}");
    };
    says(&["--log", &key], 2, "--name");
    says(&["--name", "w.example"], 2, "--log");
    says(&["--name", "w.example", "--log", "nonsense"], 2, "not a verifier key");
    says(&["--name", "w.example", "--log", &key, "--address", "0.0.0.0:0"], 2, "there is no TLS");
    says(&["--name", "w.example", "--log", &key, "--certificate", "c.pem"], 2, "--private-key");
    says(&["--name", "w.example", "--log", &key, "--certificate", "c.pem", "--private-key", "c.key"], 1, "c.pem");
    assert!(!dir.exists(), "nothing is made by what is refused");
    let (code, printed) = run(&["--name", "witness.example", "--print-key"]);
    assert_eq!(code, Some(0), "{printed}");

    let mut running = start(&dir, &log);
    assert_eq!(running.key.to_string(), printed.trim_end());
    says(&["--print-key"], 0, &printed);
    says(&["--log", &key, "--address", "127.0.0.1:0"], 1, "another witness runs on");
    assert_eq!(answer(send(running.port, &log.request(0, 3))).0, 200);
    let mut page = TcpStream::connect(("127.0.0.1", running.port)).unwrap();
    page.write_all(b"GET / HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").unwrap();
    assert!(answer(page).1.contains("example.com/log\n3\n"));
    let told = Command::new("kill").args(["-TERM", &running.child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let started = Instant::now();
    let ended = loop {
        if let Some(status) = running.child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "it does not stop");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success());

    let file = std::fs::read_dir(dir.join("logs")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(file).unwrap();
    says(&["--log", &key, "--address", "127.0.0.1:0"], 1, "start a new witness in an empty folder");
}
