//! What walking and masking rows costs. By hand: `cargo test --release --test speed -- --ignored --nocapture`.

mod common;

use bytes::BytesMut;
use common::*;
use proto_postgres::PostgresSession;
use proto_testkit::permit_for;
use proxy_core::session::{Answer, LoginReply};
use proxy_core::{Action, Disclosure, Input, Peer, Session, Timestamp};
use std::hint::black_box;
use std::time::Instant;

fn feed(session: &mut PostgresSession, from: Peer, bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    session.handle(Timestamp::default(), Input::Bytes { from, buffer: &mut buffer });
    answer(session, &Disclosure::default());
}

fn answer(session: &mut PostgresSession, disclosure: &Disclosure) {
    while let Some(action) = session.next_action() {
        if let Action::Decide(request) = action {
            let permit = permit_for(ID, &request);
            let verdict = Answer::Permitted { permit, disclosure: disclosure.clone() };
            session.handle(Timestamp::default(), Input::Verdict { request: request.id, verdict });
        }
    }
}

fn logged_in() -> PostgresSession {
    let mut session = PostgresSession::new(config());
    feed(&mut session, Peer::Client, &startup(&[("user", "ci")]));
    feed(&mut session, Peer::Client, &password("t"));
    let accepted = LoginReply::Accepted { last: None, upstream: target() };
    session.handle(Timestamp::default(), Input::Login(accepted));
    answer(&mut session, &Disclosure::default());
    session.handle(Timestamp::default(), Input::Connected(Ok(())));
    feed(&mut session, Peer::Upstream, &greeting());
    session
}

/// Streams a million rows in reads of 64 KiB; gives bytes per second.
fn rows(disclosure: &Disclosure, row: &[u8]) -> f64 {
    let mut session = logged_in();
    let mut buffer = BytesMut::from(&query("select")[..]);
    session.handle(Timestamp::default(), Input::Bytes { from: Peer::Client, buffer: &mut buffer });
    answer(&mut session, disclosure);
    feed(&mut session, Peer::Upstream, &upstream(&[columns(&[("id", 1, 1), ("email", 1, 2), ("x", 1, 3), ("card", 1, 2)])]));
    let mut chunk = Vec::new();
    while chunk.len() < 64 << 10 {
        chunk.extend_from_slice(row);
    }
    let per_chunk = chunk.len() / row.len();
    let mut buffer = BytesMut::with_capacity(128 << 10);
    let (started, mut bytes, mut sent) = (Instant::now(), 0usize, 0usize);
    for _ in 0..1_000_000 / per_chunk {
        buffer.reserve(chunk.len());
        buffer.extend_from_slice(&chunk);
        bytes += chunk.len();
        session.handle(Timestamp::default(), Input::Bytes { from: Peer::Upstream, buffer: &mut buffer });
        while let Some(action) = session.next_action() {
            if let Action::SendClient(out) = action {
                sent += black_box(out).len();
            }
        }
    }
    assert!(sent > 0);
    bytes as f64 / started.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement"]
fn rows_per_second() {
    let small = upstream(&[row(&["1", "a", "b", "c"])]);
    let usual =
        upstream(&[row(&["123456", "somebody@example.org", "a text of some forty characters, as it is", "4111111111111111"])]);
    for (name, row) in [("small", &small), ("usual", &usual)] {
        let (pass, masked) = (rows(&Disclosure::default(), row), rows(&masking(), row));
        println!("{name} rows of {} bytes: pass {:.0} MB/s, two columns masked {:.0} MB/s", row.len(), pass / 1e6, masked / 1e6);
    }
}

#[test]
#[ignore = "a measurement"]
fn transactions_per_second() {
    let mut session = logged_in();
    let (asked, answered) = (
        query("select abalance from pgbench_accounts where aid = 1"),
        upstream(&[columns(&[("a", 0, 0)]), row(&["1"]), complete("SELECT 1"), IDLE]),
    );
    let permit = permit_for(
        ID,
        &proto_postgres::facts::request(
            proxy_core::RequestId(1),
            proxy_core::RequestKind::Query,
            proxy_core::Statement::Sql(asked.clone().into()),
        ),
    );
    let mut buffer = BytesMut::with_capacity(64 << 10);
    let started = Instant::now();
    let n = 1_000_000u64;
    for _ in 0..n {
        buffer.reserve(8192);
        buffer.extend_from_slice(&asked);
        session.handle(Timestamp::default(), Input::Bytes { from: Peer::Client, buffer: &mut buffer });
        while let Some(action) = session.next_action() {
            if let Action::Decide(request) = action {
                let verdict = Answer::Permitted { permit, disclosure: Disclosure::default() };
                session.handle(Timestamp::default(), Input::Verdict { request: request.id, verdict });
            }
        }
        buffer.extend_from_slice(&answered);
        session.handle(Timestamp::default(), Input::Bytes { from: Peer::Upstream, buffer: &mut buffer });
        while let Some(action) = session.next_action() {
            black_box(&action);
        }
    }
    println!("{:.0} ns for each simple transaction", started.elapsed().as_secs_f64() * 1e9 / n as f64);
}
