//! Captures of real conversations: what their frames and requests are, and that they pass byte for byte.

mod common;

use common::*;
use proto_testkit::{Capture, Read};
use proxy_core::record::OutcomeStatus;
use proxy_core::{Disclosure, Peer, Request, Statement};
use std::fmt::Write;

fn load(name: &str) -> Capture {
    Capture::load(format!("{}/captures/{name}.jsonl", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn reads(capture: &Capture, connection: u64) -> Vec<&Read> {
    capture.reads.iter().filter(|read| read.connection == connection).collect()
}

/// The reads after the login: what follows the server's first ReadyForQuery.
fn after_login<'a>(reads: &[&'a Read]) -> Vec<&'a Read> {
    let ready = |read: &&Read| read.from == Peer::Upstream && read.bytes.ends_with(b"Z\0\0\0\x05I");
    let at = reads.iter().position(ready).expect("a login");
    reads[at + 1..].to_vec()
}

fn show(request: &Request) -> String {
    let statement = match &request.statement {
        Statement::Sql(text) => String::from_utf8_lossy(text).escape_debug().to_string(),
        other => format!("{other:?}"),
    };
    format!("{} {:?} {statement} ({})", request.id.0, request.kind, request.parameters.len())
}

/// Replays what both sides said through a session that allows everything, in pieces of `size`.
fn replay(reads: &[&Read], size: usize) -> (Pg, Vec<u8>, Vec<u8>) {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    let (mut upstream, mut client) = (Vec::new(), Vec::new());
    for read in reads {
        for piece in read.bytes.chunks(size) {
            match read.from {
                Peer::Client => pg.client_sends(piece),
                Peer::Upstream if pg.closed().is_none() => pg.upstream_sends(piece),
                Peer::Upstream => {}
            }
            upstream.extend(pg.take_upstream());
            client.extend(pg.take_client());
        }
    }
    (pg, upstream, client)
}

fn check(name: &str) {
    let capture = load(name);
    let mut snapshot = String::new();
    for connection in capture.connections() {
        let _ = writeln!(snapshot, "# connection {connection}, client");
        for line in proto_postgres::dump(Peer::Client, &capture.stream(connection, Peer::Client)) {
            let _ = writeln!(snapshot, "{line}");
        }
        let _ = writeln!(snapshot, "# upstream");
        for line in proto_postgres::dump(Peer::Upstream, &capture.stream(connection, Peer::Upstream)) {
            let _ = writeln!(snapshot, "{line}");
        }
        let reads = reads(&capture, connection);
        let rest = after_login(&reads);
        let sent = |from: Peer| -> Vec<u8> {
            rest.iter().filter(|read| read.from == from).flat_map(|read| read.bytes.iter().copied()).collect()
        };
        for size in [usize::MAX, 1, 7] {
            let (mut pg, upstream, client) = replay(&rest, size);
            assert!(upstream == sent(Peer::Client), "{name}: what the client sent arrives as it was, pieces of {size}");
            assert!(client == sent(Peer::Upstream), "{name}: what the server sent arrives as it was, pieces of {size}");
            let outcomes = pg.take_outcomes();
            assert_eq!(outcomes.len(), pg.asked().len() - 1, "{name}: one outcome for each request");
            assert!(outcomes.iter().all(|outcome| outcome.status != OutcomeStatus::Unknown), "{name}");
            if size != usize::MAX {
                continue;
            }
            let _ = writeln!(snapshot, "# requests");
            for (request, outcome) in pg.asked()[1..].iter().zip(outcomes) {
                let tag = String::from_utf8_lossy(&outcome.tag.unwrap_or_default()).into_owned();
                let code = String::from_utf8_lossy(&outcome.code.unwrap_or_default()).into_owned();
                let _ = writeln!(snapshot, "{} -> {:?} {tag}{code} rows={}", show(request), outcome.status, outcome.rows);
            }
        }
    }
    insta::assert_snapshot!(name, snapshot);
}

#[test]
fn psql() {
    check("psql");
}

#[test]
fn pgbench() {
    for mode in ["simple", "extended", "prepared", "pipeline"] {
        check(&format!("pgbench-{mode}"));
    }
}

#[test]
fn asyncpg() {
    check("asyncpg");
}

#[test]
fn psycopg3() {
    check("psycopg3");
}
