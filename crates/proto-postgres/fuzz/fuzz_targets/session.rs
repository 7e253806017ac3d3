//! Sequences: both peers and the driver do anything, from the first byte on. The scripted driver checks at
//! each upstream send that its permit was given.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use proto_postgres::{ClientTls, PostgresSession, SessionConfig};
use proto_testkit::Script;
use proxy_core::limits::SessionLimits;
use proxy_core::results::CopyFormat;
use proxy_core::session::{
    CancelKey, Denial, DenialKind, EndReason, LoginReply, TlsInfo, UpstreamFailure, UpstreamLogin,
};
use proxy_core::{
    Applied, ColumnRule, CopyShape, Disclosure, Input, Mask, Origin, Peer, ResultRules, SecretBytes, SessionId, ValueType,
};
use std::sync::Arc;

const ID: SessionId = SessionId([7; 16]);

#[derive(Debug)]
struct Stars;

impl Mask for Stars {
    fn class(&self) -> &str {
        "stars"
    }

    fn apply(&self, value: &[u8], _: ValueType, out: &mut BytesMut) -> Applied {
        if value.len() % 2 == 0 {
            return Applied::Null;
        }
        out.extend_from_slice(b"***");
        Applied::Written
    }
}

#[derive(Debug)]
struct Rules;

impl ResultRules for Rules {
    fn column(&self, origin: Origin) -> ColumnRule {
        match origin.table % 3 {
            1 => ColumnRule::Mask(Arc::new(Stars)),
            2 => ColumnRule::Refuse("no".into()),
            _ => ColumnRule::Pass,
        }
    }
}

fn disclosure(sort: u8) -> Disclosure {
    let rules = (sort & 1 == 1).then(|| Arc::new(Rules) as Arc<dyn ResultRules>);
    let format = match sort >> 1 & 3 {
        0 => CopyFormat::Text { delimiter: b'\t', null: Bytes::from_static(b"\\N"), header: false },
        1 => CopyFormat::Csv { delimiter: b',', quote: b'"', escape: b'"', null: Bytes::new(), header: true },
        _ => CopyFormat::Binary,
    };
    let copy = match sort >> 3 & 3 {
        0 => CopyShape::Pass,
        1 => CopyShape::Describe { query: Bytes::from_static(b"select 1"), format },
        _ => CopyShape::Columns { rules: vec![ColumnRule::Mask(Arc::new(Stars))], format, types: vec![25] },
    };
    Disclosure { rules, withhold_messages: sort & 0x20 != 0, copy }
}

/// Logs in at both ends, so that most inputs reach the ready state.
fn log_in(script: &mut Script<PostgresSession>) {
    script.client_sends(b"\0\0\0\x11\0\x03\0\0user\0ci\0\0");
    script.client_sends(b"p\0\0\0\x06t\0");
    script.accept(None, UpstreamLogin { user: "u".into(), database: "d".into(), tls: false });
    let _ = script.permit(Disclosure::default());
    script.input(Input::Connected(Ok(())));
    script.upstream_sends(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01abcdZ\0\0\0\x05I");
}

fuzz_target!(|data: &[u8]| {
    let limits = SessionLimits {
        statement_max: 200,
        message_max: 400,
        masked_row_max: 200,
        prepared_max: 5,
        pipeline_max: 5,
        ..SessionLimits::default()
    };
    let cancel_key = CancelKey { process: 1, secret: vec![0; 32] };
    let config = SessionConfig { id: ID, limits, client_tls: ClientTls::Optional, cancel_key };
    let mut script = Script::new(PostgresSession::new(config), ID);
    let Some((first, mut rest)) = data.split_first() else { return };
    if first & 1 == 1 {
        log_in(&mut script);
    }
    // Each operation: a byte that says which, a byte of length or argument, and bytes.
    while let [operation, argument, after @ ..] = rest {
        if script.closed().is_some() {
            break;
        }
        let (bytes, remaining) = match operation % 16 {
            0..=6 => after.split_at(usize::from(*argument).min(after.len())),
            _ => (&after[..0], after),
        };
        rest = remaining;
        match operation % 16 {
            0..=3 => script.client_sends(bytes),
            4..=6 => script.upstream_sends(bytes),
            7..=9 if script.waiting() > 0 => drop(script.permit(disclosure(*argument))),
            10 if script.waiting() > 0 => {
                let kind = DenialKind::Policy;
                let denial = Denial { kind, message: "no".into(), detail: String::new(), hint: String::new() };
                drop(script.deny(denial));
            }
            11 if script.waiting() > 0 => {
                let request = script.hold("wait");
                if argument & 1 == 1 && script.closed().is_none() {
                    script.permit_request(&request, disclosure(*argument));
                }
            }
            12 => script.input(match argument % 8 {
                0 => Input::Cancel,
                1 => Input::Deadline,
                2 => Input::Eof { from: Peer::Client },
                3 => Input::Eof { from: Peer::Upstream },
                4 => Input::End(EndReason::Killed),
                5 => Input::Connected(Err(UpstreamFailure::Unreachable)),
                6 => Input::UpstreamAnswer(Ok(SecretBytes::new(b"M\0x".to_vec()))),
                _ => Input::Login(LoginReply::Challenge(vec![1])),
            }),
            13 => script.tls_done(Peer::Client, TlsInfo::default()),
            14 => script.tls_done(Peer::Upstream, TlsInfo::default()),
            _ => script.accept(None, UpstreamLogin { user: "u".into(), database: "d".into(), tls: argument & 1 == 1 }),
        }
    }
    if script.closed().is_none() {
        script.input(Input::End(EndReason::Shutdown));
    }
    assert!(script.closed().is_some());
});
