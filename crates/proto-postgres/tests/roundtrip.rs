//! Properties: what is parsed encodes to the same bytes; how bytes are cut changes nothing; peers that send
//! anything at all break nothing.

mod common;

use bytes::BytesMut;
use common::*;
use proptest::prelude::*;
use proto_postgres::PostgresSession;
use proto_postgres::message::{
    Authentication, BackendKeyData, Bind, ClientMessage, Close, CopyResponse, DataRow, Describe, ErrorFields, Execute, Field,
    FunctionCall, NegotiateProtocolVersion, Notification, ParameterStatus, Parse, Query, RowDescription, Target,
    TransactionStatus, UpstreamMessage,
};
use proto_postgres::types::{FormatCode, ProtocolVersion};
use proto_testkit::Script;
use proxy_core::results::CopyFormat;
use proxy_core::session::EndReason;
use proxy_core::{ColumnRule, CopyShape, Disclosure, Input, Peer, Statement};
use std::sync::Arc;

type Text = Vec<u8>;

fn text() -> impl Strategy<Value = Text> {
    prop::collection::vec(1u8.., 0..12)
}

fn values() -> impl Strategy<Value = Vec<Option<Text>>> {
    prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..12)), 0..4)
}

fn formats() -> impl Strategy<Value = Vec<FormatCode>> {
    prop::collection::vec(any::<i16>().prop_map(FormatCode), 0..2)
}

fn refs(values: &[Option<Text>]) -> Vec<Option<&[u8]>> {
    values.iter().map(|value| value.as_deref()).collect()
}

fn check_client(message: &ClientMessage<'_>) {
    let bytes = client(std::slice::from_ref(message));
    assert_eq!(&ClientMessage::parse(bytes[0], &bytes[5..]).unwrap(), message);
}

fn check_upstream(message: &UpstreamMessage<'_>) {
    let bytes = upstream(std::slice::from_ref(message));
    assert_eq!(&UpstreamMessage::parse(bytes[0], &bytes[5..]).unwrap(), message);
}

/// Whatever parses encodes to the bytes that it was parsed from.
fn check_bytes(tag: u8, body: &[u8]) {
    let frame = |out: &mut BytesMut| {
        let mut expected = vec![tag];
        expected.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        expected.extend_from_slice(body);
        assert_eq!(out, &expected);
        out.clear();
    };
    let mut out = BytesMut::new();
    if let Ok(message) = ClientMessage::parse(tag, body) {
        message.encode(&mut out);
        frame(&mut out);
    }
    if let Ok(message) = UpstreamMessage::parse(tag, body) {
        message.encode(&mut out);
        frame(&mut out);
    }
}

proptest! {
    #[test]
    fn client_messages_round_trip(a in text(), b in text(), values in values(), formats in formats(), n in any::<i32>(), types in prop::collection::vec(any::<u32>(), 0..4)) {
        let target = if n % 2 == 0 { Target::Portal } else { Target::Statement };
        check_client(&ClientMessage::Bind(Bind { portal: &a, statement: &b, parameter_formats: formats.clone(), parameters: refs(&values), result_formats: formats.clone() }));
        check_client(&ClientMessage::Parse(Parse { name: &a, query: &b, types: types.clone() }));
        check_client(&ClientMessage::Describe(Describe { target, name: &a }));
        check_client(&ClientMessage::Close(Close { target, name: &a }));
        check_client(&ClientMessage::Execute(Execute { portal: &a, max_rows: n }));
        check_client(&ClientMessage::Query(Query { text: &a }));
        check_client(&ClientMessage::CopyFail(&a));
        check_client(&ClientMessage::CopyData(&a));
        let call = FunctionCall { function: 7, argument_formats: formats, arguments: refs(&values), result_format: FormatCode::TEXT };
        check_client(&ClientMessage::FunctionCall(call));
        for message in [ClientMessage::Sync, ClientMessage::Flush, ClientMessage::Terminate, ClientMessage::CopyDone] {
            check_client(&message);
        }
    }

    #[test]
    fn upstream_messages_round_trip(a in text(), b in text(), values in values(), formats in formats(), n in any::<u32>(), types in prop::collection::vec(any::<u32>(), 0..4)) {
        let field = Field { name: &a, table: n, column: 3, type_id: n, type_size: -1, type_modifier: -1, format: FormatCode::BINARY };
        let errors = ErrorFields { fields: vec![(b'S', &a), (b'M', &b), (b'?', &a)] };
        let copy = CopyResponse { binary: n % 2 == 0, formats };
        for message in [
            UpstreamMessage::RowDescription(RowDescription { fields: vec![field; values.len()] }),
            UpstreamMessage::DataRow(DataRow { values: refs(&values) }),
            UpstreamMessage::ErrorResponse(errors.clone()),
            UpstreamMessage::NoticeResponse(errors),
            UpstreamMessage::CopyInResponse(copy.clone()),
            UpstreamMessage::CopyOutResponse(copy.clone()),
            UpstreamMessage::CopyBothResponse(copy),
            UpstreamMessage::ParameterDescription(types),
            UpstreamMessage::ParameterStatus(ParameterStatus { name: &a, value: &b }),
            UpstreamMessage::NotificationResponse(Notification { process: n, channel: &a, payload: &b }),
            UpstreamMessage::CommandComplete(&a),
            UpstreamMessage::FunctionCallResponse(Some(&a)),
            UpstreamMessage::FunctionCallResponse(None),
            UpstreamMessage::BackendKeyData(BackendKeyData { process: n, secret: b"abcd" }),
            UpstreamMessage::NegotiateProtocolVersion(NegotiateProtocolVersion { version: ProtocolVersion(n), unrecognized: vec![&a, &b] }),
            UpstreamMessage::Authentication(Authentication::Md5Password(n.to_be_bytes())),
            UpstreamMessage::Authentication(Authentication::SaslContinue(&a)),
            UpstreamMessage::Authentication(Authentication::SaslFinal(&a)),
            UpstreamMessage::ReadyForQuery(TransactionStatus::Failed),
            UpstreamMessage::NoData,
            UpstreamMessage::PortalSuspended,
            UpstreamMessage::EmptyQueryResponse,
        ] {
            check_upstream(&message);
        }
    }

    #[test]
    fn what_parses_encodes_to_its_own_bytes(tag in any::<u8>(), body in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..40)) {
        check_bytes(tag, &body);
        for tag in *b"BCdcfDEHFPpQSX123WGTVvnNAtsZRK" {
            check_bytes(tag, &body);
        }
    }
}

/// A small, fast, deterministic generator: the same run everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let n = self.below(most + 1);
        (0..n).map(|_| if self.below(3) == 0 { 0 } else { self.next().to_le_bytes()[0] }).collect()
    }
}

/// A conversation that uses everything: what the client sends, and what the upstream answers, in rounds.
fn conversation() -> [(Vec<u8>, Vec<u8>); 2] {
    let copy = CopyResponse { binary: false, formats: vec![FormatCode::TEXT; 2] };
    let first_client = client(&[
        q("select id, email from customers"),
        parse("s", "select email from customers where id = $1"),
        bind("", "s", &["1"]),
        describe_portal(""),
        execute(""),
        SYNC,
    ]);
    let second_client = client(&[
        bind("p", "s", &["2"]),
        execute_rows("p", 1),
        FLUSH,
        execute("p"),
        ClientMessage::Close(Close { target: Target::Portal, name: b"p" }),
        SYNC,
        parse("", "selec"),
        bind("", "", &[]),
        execute(""),
        SYNC,
        q("select 2; select 3"),
    ]);
    let first_upstream = upstream(&[
        columns(&[("id", 1, 1), ("email", 1, 2)]),
        row(&["1", "a@b.c"]),
        complete("SELECT 1"),
        IDLE,
        UpstreamMessage::ParseComplete,
        UpstreamMessage::BindComplete,
        columns(&[("email", 1, 2)]),
        columns(&[("email", 1, 2)]),
        row(&["a@b.c"]),
        complete("SELECT 1"),
        IDLE,
    ]);
    let second_upstream = upstream(&[
        UpstreamMessage::BindComplete,
        columns(&[("email", 1, 2)]),
        row(&["a@b.c"]),
        UpstreamMessage::PortalSuspended,
        columns(&[("email", 1, 2)]),
        row(&["null"]),
        complete("SELECT 1"),
        UpstreamMessage::CloseComplete,
        IDLE,
        error("42601", "syntax error"),
        IDLE,
        columns(&[("a", 0, 0)]),
        row(&["2"]),
        complete("SELECT 1"),
        UpstreamMessage::CopyOutResponse(copy),
        UpstreamMessage::CopyData(b"1\ta@b.c\n"),
        UpstreamMessage::CopyDone,
        complete("COPY 1"),
        IDLE,
    ]);
    [(first_client, first_upstream), (second_client, second_upstream)]
}

fn everything() -> Disclosure {
    let rules = vec![ColumnRule::Pass, ColumnRule::Mask(Arc::new(Stars))];
    let format = CopyFormat::Text { delimiter: b'\t', null: bytes::Bytes::from_static(b"\\N"), header: false };
    Disclosure { copy: CopyShape::Columns { rules, format, types: vec![23, 25] }, ..masking() }
}

#[test]
fn however_both_sides_are_cut_the_peers_get_the_same() {
    let run = |client_size: usize, upstream_size: usize| {
        let mut pg = ready();
        pg.allow_all(everything());
        for (from_client, from_upstream) in conversation() {
            from_client.chunks(client_size).for_each(|piece| pg.client_sends(piece));
            from_upstream.chunks(upstream_size).for_each(|piece| pg.upstream_sends(piece));
        }
        assert_eq!(pg.closed(), None);
        let requests: Vec<_> = pg.asked().to_vec();
        let outcomes: Vec<_> = pg.take_outcomes().into_iter().map(|o| (o.request, o.status, o.rows, o.bytes)).collect();
        (pg.take_upstream(), pg.take_client(), requests, outcomes)
    };
    let whole = run(usize::MAX, usize::MAX);
    assert!(!String::from_utf8_lossy(&whole.1).contains("a@b.c"));
    for size in 1..80 {
        assert_eq!(run(size, usize::MAX), whole, "client in pieces of {size}");
        assert_eq!(run(usize::MAX, size), whole, "upstream in pieces of {size}");
        assert_eq!(run(size, 81 - size), whole, "both, {size}");
    }
}

/// Flips, inserts and removes a few bytes.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = random.next().to_le_bytes()[0],
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, 0),
            _ => bytes.truncate(at),
        }
    }
}

/// Everything that an input may be, in an order that no driver would choose.
fn disturb(random: &mut Random, pg: &mut Pg) {
    match random.below(40) {
        0 => pg.input(Input::Cancel),
        1 => pg.input(Input::Deadline),
        2 => pg.input(Input::Eof { from: Peer::Client }),
        3 => pg.input(Input::Eof { from: Peer::Upstream }),
        4 => pg.input(Input::End(EndReason::Killed)),
        5 if pg.waiting() > 0 => drop(pg.deny(denial())),
        6 if pg.waiting() > 0 => drop(pg.hold("wait")),
        7.. if pg.waiting() > 0 => drop(pg.permit(everything())),
        _ => {}
    }
}

/// Sends both sides in pieces; a client that is decided by hand does not wait for answers.
fn play(random: &mut Random, pg: &mut Pg, mut client: &[u8], mut upstream: &[u8], by_hand: bool) {
    while pg.closed().is_none() && !(client.is_empty() && upstream.is_empty()) {
        let n = random.below(client.len().min(200) + 1);
        pg.client_sends(&client[..n]);
        client = &client[n..];
        if by_hand && pg.closed().is_none() {
            disturb(random, pg);
        }
        if pg.closed().is_none() && (by_hand || client.is_empty()) {
            let n = random.below(upstream.len().min(200) + 1);
            pg.upstream_sends(&upstream[..n]);
            upstream = &upstream[n..];
        }
    }
}

/// No statement's text went upstream but those that were permitted, and what stands in for a denied one.
fn check_texts(pg: &mut Pg, seed: u64) {
    let permitted = pg.permitted();
    let allowed: Vec<_> =
        pg.asked().iter().filter(|request| permitted.contains(&request.id)).map(|r| r.statement.clone()).collect();
    let sent = pg.take_upstream();
    let mut rest = &sent[..];
    while let Ok(Some(header)) = proto_postgres::frame::peek(rest) {
        let Some(frame) = rest.get(..header.total) else { break };
        rest = &rest[header.total..];
        let text = match ClientMessage::parse(header.tag, &frame[5..]).unwrap() {
            ClientMessage::Query(query) => query.text,
            ClientMessage::Parse(parse) => parse.query,
            _ => continue,
        };
        let ours = text == b"sallyport_denied";
        let theirs = allowed.iter().any(|statement| matches!(statement, Statement::Sql(sql) if sql == text));
        assert!(ours || theirs, "seed {seed}: {}", String::from_utf8_lossy(text));
    }
}

#[test]
fn peers_that_send_anything_break_nothing() {
    let rounds = conversation();
    for seed in 1..6_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut pg = ready();
        let by_hand = seed % 2 == 0;
        if !by_hand {
            pg.allow_all(everything());
        }
        for (client, upstream) in &rounds {
            let (mut client, mut upstream) = (client.clone(), upstream.clone());
            if seed % 3 != 1 {
                mutate(&mut random, &mut client);
            }
            if seed % 3 != 0 {
                mutate(&mut random, &mut upstream);
            }
            play(&mut random, &mut pg, &client, &upstream, by_hand);
        }
        if pg.closed().is_none() {
            pg.input(Input::End(EndReason::Shutdown));
        }
        assert!(pg.closed().is_some());
        let mut ids: Vec<_> = pg.take_outcomes().iter().map(|o| o.request).collect();
        ids.sort_unstable();
        assert_eq!(ids, pg.permitted(), "seed {seed}: each permitted request has exactly one outcome");
        check_texts(&mut pg, seed);
        // Where the upstream itself says what a column is, its clear value never gets out; and what the gateway
        // puts in between (notices, denials, farewells) never breaks a frame.
        if seed % 3 == 0 {
            let got = pg.take_client();
            assert!(!String::from_utf8_lossy(&got).contains("a@b.c"), "seed {seed}");
            let mut lines = Vec::new();
            proto_postgres::dump::frames(Peer::Upstream, &got, &mut lines);
            assert!(lines.iter().all(|line| !line.contains(" ! ") && !line.contains("0x")), "seed {seed}: {lines:#?}");
        }
    }
}

#[test]
fn callers_that_send_anything_before_login_break_nothing() {
    for seed in 1..20_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut pg = Script::new(PostgresSession::new(config()), ID);
        let mut bytes = match seed % 4 {
            0 => random.bytes(64),
            1 => startup(&[("user", "ci+kabcdefghi2"), ("database", "d"), ("options", "-c a=b")]),
            2 => [&0u32.to_be_bytes()[..], &80_877_103u32.to_be_bytes()].concat(),
            _ => startup(&[("user", "ci"), ("replication", "1")]),
        };
        mutate(&mut random, &mut bytes);
        pg.client_sends(&bytes);
        if pg.closed().is_none() {
            pg.client_sends(random.bytes(64));
        }
        if pg.closed().is_none() {
            pg.input(Input::Eof { from: Peer::Client });
        }
        assert!(pg.closed().is_some());
        assert_eq!(pg.take_upstream(), b"", "nothing goes upstream for a caller that is not known");
    }
}

#[test]
fn servers_that_send_anything_at_login_break_nothing() {
    for seed in 1..10_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut pg = Script::new(PostgresSession::new(config()), ID);
        pg.client_sends(startup(&[("user", "ci")]));
        pg.client_sends(password("token"));
        pg.accept(None, target());
        pg.permit(Disclosure::default());
        pg.input(Input::Connected(Ok(())));
        let mut bytes = if seed % 2 == 0 { random.bytes(64) } else { greeting() };
        mutate(&mut random, &mut bytes);
        pg.upstream_sends(&bytes);
        if pg.closed().is_none() {
            pg.input(Input::Eof { from: Peer::Upstream });
        }
        assert!(pg.closed().is_some());
    }
}
