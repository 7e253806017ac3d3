//! A witness and whoever asks it.

use super::super::server::{Timeouts, serve};
use super::{Log, Served, exchange, open, post};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tlog::witness::REQUEST_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const SHORT: Timeouts =
    Timeouts { head: Duration::from_millis(300), body: Duration::from_millis(300), connection: Duration::from_millis(900) };

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_race_from_one_size_one_wins() {
    let (log, fork) = (Log::new(0, 64), Log::new(1, 0));
    for _ in 0..8 {
        let served = Served::start(&log, Timeouts::default()).await;
        let racers = [(&log, 9), (&fork, 9), (&log, 12), (&fork, 12)].map(|(log, size)| {
            let (address, body) = (served.address, log.request(0, size));
            tokio::spawn(async move { (size, post(address, &body).await) })
        });
        let (mut won, mut lost) = (vec![], vec![]);
        for racer in racers {
            let (size, (status, body)) = racer.await.unwrap();
            if status == 200 { won.push(size) } else { lost.push((status, body)) }
        }
        let [size] = won[..] else { panic!("{won:?} have won") };
        assert_eq!(lost, vec![(409, format!("{size}\n")); 3]);
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told_so() {
    let log = Log::new(0, 64);
    let served = Served::start(&log, Timeouts::default()).await;
    for (line, status) in [
        ("GET / HTTP/1.1", 200),
        ("GET /healthz HTTP/1.1", 200),
        ("GET /add-checkpoint HTTP/1.1", 405),
        ("PUT /add-checkpoint HTTP/1.1", 405),
        ("POST / HTTP/1.1", 405),
        ("POST /add-checkpoint/ HTTP/1.1", 404),
        ("POST /sign-subtree HTTP/1.1", 404),
        ("POST /add-checkpoint HTTP/1.1", 400),
        ("nonsense", 400),
    ] {
        let answer = exchange(served.address, format!("{line}\r\nhost: w\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
    let (status, _) = post(served.address, &log.request(0, 5)).await;
    assert_eq!(status, 200);
    let conflict = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{}",
        log.request(0, 9).len(),
        log.request(0, 9)
    );
    let answer = exchange(served.address, conflict.as_bytes()).await;
    assert!(
        answer.contains("409") && answer.contains("content-type: text/x.tlog.size\r\n") && answer.ends_with("\r\n\r\n5\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_too_long_is_not_read() {
    let log = Log::new(0, 64);
    let served = Served::start(&log, Timeouts::default()).await;
    let longest = format!("{}\n", "x".repeat(REQUEST_MAX - 1));
    assert_eq!(post(served.address, &longest).await.0, 400, "the longest is read");
    assert_eq!(post(served.address, &format!("{longest}x")).await.0, 413);
    let chunks = "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let more = format!("1000\r\n{}\r\n", "x".repeat(0x1000)).repeat(17);
    let answer = exchange(served.address, format!("{chunks}{more}0\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    let answer = exchange(served.address, head.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn what_is_being_answered_when_it_stops_is_answered() {
    let (log, dir) = (Log::new(0, 64), tempfile::tempdir().unwrap());
    let witness = Arc::new(open(dir.path(), &log));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let served = tokio::spawn(serve(witness, listener, None, Timeouts::default(), stop.clone()));
    let body = log.request(0, 9);
    let (first, rest) = body.split_at(20);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n{first}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!served.is_finished(), "it waits for the rest");
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    served.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "and nobody is let in");
}

#[tokio::test]
async fn who_is_slow_is_sent_away() {
    let log = Log::new(0, 64);
    let served = Served::start(&log, SHORT).await;
    let started = Instant::now();
    for (bytes, expected) in [
        ("", ""),
        ("POST /add-checkpoint HTTP/1.1\r\nhost:", ""),
        ("POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: 100\r\n\r\nold 0", "HTTP/1.1 408 "),
        // One request is answered; then the connection is idle.
        ("GET /healthz HTTP/1.1\r\nhost: w\r\n\r\n", "HTTP/1.1 200 "),
    ] {
        let answer = exchange(served.address, bytes.as_bytes()).await;
        assert!(answer.starts_with(expected), "{bytes:?}: {answer:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // Nobody was kept from being served.
    assert_eq!(post(served.address, &log.request(0, 9)).await.0, 200);
}
