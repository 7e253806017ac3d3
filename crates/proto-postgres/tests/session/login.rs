//! From the first byte to ready.

use crate::common::*;
use bytes::BytesMut;
use proto_postgres::message::{
    Authentication, BackendKeyData, ClientMessage, SaslInitialResponse, StartupPacket, UpstreamMessage,
};
use proto_postgres::types::ProtocolVersion;
use proto_postgres::{ClientTls, PostgresSession, SessionConfig};
use proto_testkit::{Script, Seen};
use proxy_core::session::{
    CancelKey, EndReason, Evidence, LoginRefusal, LoginReply, TlsInfo, UpstreamChallenge, UpstreamFailure, UpstreamLogin,
};
use proxy_core::{CloseReason, Disclosure, Input, Peer, RequestKind, SecretBytes, Statement};

fn new(config: SessionConfig) -> Pg {
    Script::new(PostgresSession::new(config), ID)
}

fn packet(packet: &StartupPacket<'_>) -> Vec<u8> {
    let mut out = BytesMut::new();
    packet.encode(&mut out);
    out.to_vec()
}

fn tls() -> TlsInfo {
    TlsInfo { description: "TLS 1.3".into(), server_end_point: Some(vec![7; 32]), ..TlsInfo::default() }
}

fn with_tls(client_tls: ClientTls) -> SessionConfig {
    SessionConfig { client_tls, ..config() }
}

/// A session at the point where the upstream is connected.
fn connected(upstream_tls: bool) -> Pg {
    let mut pg = new(config());
    pg.client_sends(startup(&[("user", "ci"), ("database", "shop")]));
    pg.client_sends(password("token"));
    pg.accept(None, UpstreamLogin { tls: upstream_tls, ..target() });
    pg.permit(Disclosure::default());
    pg.input(Input::Connected(Ok(())));
    while pg.take_seen() != Some(Seen::Connect) {}
    pg.take_client();
    pg
}

fn first_line(pg: &mut Pg) -> String {
    lines(Peer::Upstream, &pg.take_client()).into_iter().next().unwrap_or_default()
}

#[test]
fn a_login_goes_through() {
    let mut pg = new(config());
    pg.client_sends(startup(&[("user", "ci"), ("database", "shop"), ("application_name", "psql")]));
    assert_eq!(lines(Peer::Upstream, &pg.take_client()), ["Authentication CleartextPassword"]);
    pg.client_sends(password("token"));
    let Some(Seen::Authenticate(attempt)) = pg.take_seen() else { panic!("asks who it is") };
    assert_eq!((attempt.label.as_str(), attempt.database.as_str(), attempt.application.as_str()), ("ci", "shop", "psql"));
    assert_eq!(attempt.evidence, Evidence::Password(SecretBytes::new(b"token".to_vec())));
    pg.accept(None, target());
    assert_eq!(pg.take_upstream(), b"");
    assert_eq!(pg.permit(Disclosure::default()).kind, RequestKind::Connect);
    assert_eq!(pg.take_seen(), Some(Seen::Connect));
    pg.input(Input::Connected(Ok(())));
    assert_eq!(pg.take_upstream(), startup(&[("user", "gateway"), ("database", "shop"), ("application_name", "psql")]));
    pg.upstream_sends(greeting());
    assert_eq!(pg.take_seen(), Some(Seen::Established));
    let mut expected = greeting();
    let at = expected.len() - 6 - 8;
    expected[at..at + 8].copy_from_slice(&[0, 0, 0, 42, 0, 1, 2, 3]);
    assert_eq!(pg.take_client(), expected, "as the upstream said it, with a key of our own");
}

#[test]
fn bytes_before_tls_are_never_trusted_after_it() {
    // CVE-2021-3935.
    let mut pg = new(with_tls(ClientTls::Required));
    pg.client_sends([packet(&StartupPacket::SslRequest), startup(&[("user", "evil")])].concat());
    assert!(matches!(pg.closed(), Some(CloseReason::ClientViolation(_))));
    assert_eq!(pg.take_seen(), None, "no handshake is begun");
}

#[test]
fn bytes_before_upstream_tls_are_never_trusted_after_it() {
    let mut pg = connected(true);
    assert_eq!(pg.take_upstream(), packet(&StartupPacket::SslRequest));
    pg.upstream_sends([&b"S"[..], &greeting()].concat());
    assert_eq!(pg.closed(), Some(&CloseReason::UpstreamFailed(UpstreamFailure::Protocol)));
}

#[test]
fn an_upstream_without_tls_is_not_used_when_tls_is_asked_for() {
    let mut pg = connected(true);
    pg.upstream_sends(b"N");
    assert_eq!(pg.closed(), Some(&CloseReason::UpstreamFailed(UpstreamFailure::Tls)));
    let mut pg = connected(true);
    pg.take_upstream();
    pg.upstream_sends(b"S");
    assert_eq!(pg.take_seen(), Some(Seen::StartTls(Peer::Upstream)));
    assert_eq!(pg.take_upstream(), b"", "nothing is sent before the handshake");
    pg.tls_done(Peer::Upstream, tls());
    assert_eq!(pg.take_upstream(), startup(&[("user", "gateway"), ("database", "shop")]));
}

#[test]
fn a_plain_connection_is_refused_before_a_password_is_asked_for() {
    let mut pg = new(with_tls(ClientTls::Required));
    pg.client_sends(startup(&[("user", "ci"), ("database", "shop")]));
    let answer = pg.take_client();
    assert_eq!(names(Peer::Upstream, &answer), ["ErrorResponse"]);
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.contains("C28000\0") && text.contains("sslmode=require"), "{text}");
}

#[test]
fn tls_by_request_and_directly() {
    let mut pg = new(with_tls(ClientTls::Required));
    pg.client_sends(packet(&StartupPacket::GssEncRequest));
    assert_eq!(pg.take_client(), b"N");
    pg.client_sends(packet(&StartupPacket::SslRequest));
    assert_eq!(pg.take_client(), b"S");
    assert_eq!(pg.take_seen(), Some(Seen::StartTls(Peer::Client)));
    pg.tls_done(Peer::Client, tls());
    pg.client_sends(startup(&[("user", "ci")]));
    assert_eq!(first_line(&mut pg), "Authentication CleartextPassword");

    let mut pg = new(with_tls(ClientTls::Required));
    pg.client_sends(b"\x16\x03\x01");
    assert_eq!(pg.take_seen(), Some(Seen::StartTls(Peer::Client)));
    assert_eq!(pg.left(Peer::Client), 3, "the handshake's bytes are TLS's");
    pg.tls_done(Peer::Client, TlsInfo { alpn: Some(b"postgresql".to_vec()), ..tls() });
    pg.client_sends(startup(&[("user", "ci")]));
    assert_eq!(first_line(&mut pg), "Authentication CleartextPassword");
}

#[test]
fn direct_tls_needs_its_alpn() {
    for alpn in [None, Some(b"h2".to_vec())] {
        let mut pg = new(with_tls(ClientTls::Required));
        pg.client_sends(b"\x16");
        pg.tls_done(Peer::Client, TlsInfo { alpn, ..tls() });
        assert!(first_line(&mut pg).starts_with("ErrorResponse FATAL 08P01"));
        assert!(matches!(pg.closed(), Some(CloseReason::ClientViolation(_))));
    }
}

#[test]
fn a_gateway_without_a_certificate_says_no_and_goes_on() {
    let mut pg = new(with_tls(ClientTls::Off));
    pg.client_sends(packet(&StartupPacket::SslRequest));
    assert_eq!(pg.take_client(), b"N");
    pg.client_sends(startup(&[("user", "ci")]));
    assert_eq!(first_line(&mut pg), "Authentication CleartextPassword");
    let mut pg = new(with_tls(ClientTls::Off));
    pg.client_sends(packet(&StartupPacket::SslRequest));
    pg.client_sends(packet(&StartupPacket::SslRequest));
    pg.take_client();
    assert!(matches!(pg.closed(), Some(CloseReason::ClientViolation(_))), "once");
}

#[test]
fn versions_are_negotiated_as_the_server_does() {
    let mut pg = new(config());
    pg.client_sends(startup_version(ProtocolVersion((3 << 16) | 9999), &[("user", "ci"), ("_pq_.x", "1")]));
    assert_eq!(
        lines(Peer::Upstream, &pg.take_client()),
        ["NegotiateProtocolVersion 3.2 unrecognized=1", "Authentication CleartextPassword"]
    );
    let mut pg = new(config());
    pg.client_sends(startup_version(ProtocolVersion(2 << 16), &[("user", "ci")]));
    assert!(first_line(&mut pg).starts_with("ErrorResponse FATAL 0A000"));
}

#[test]
fn protocol_3_2_gets_a_longer_cancel_key() {
    let mut pg = new(config());
    pg.client_sends(startup_version(ProtocolVersion::V3_2, &[("user", "ci")]));
    assert_eq!(names(Peer::Upstream, &pg.take_client()), ["Authentication"], "3.2 is not negotiated down");
    pg.client_sends(password("token"));
    pg.accept(None, target());
    pg.permit(Disclosure::default());
    pg.input(Input::Connected(Ok(())));
    pg.upstream_sends(greeting());
    assert!(lines(Peer::Upstream, &pg.take_client())[2].contains("secret=[32 bytes, redacted]"));
}

#[test]
fn a_cancel_request_is_handed_over_and_nothing_is_said() {
    for secret in [&[1, 2, 3, 4][..], &[9; 32]] {
        let mut pg = new(with_tls(ClientTls::Required));
        pg.client_sends(packet(&StartupPacket::CancelRequest { process: 7, secret }));
        assert_eq!(pg.take_seen(), Some(Seen::Cancel(CancelKey { process: 7, secret: secret.to_vec() })));
        assert_eq!(pg.closed(), Some(&CloseReason::CancelRequest));
        assert_eq!(pg.take_client(), b"");
    }
}

#[test]
fn a_password_has_a_limit_before_it_is_buffered() {
    let mut pg = new(config());
    pg.client_sends(startup(&[("user", "ci")]));
    pg.take_client();
    pg.client_sends(b"p\0\x10\0\0");
    assert!(matches!(pg.closed(), Some(CloseReason::ClientViolation(_))));
    let mut pg = new(config());
    pg.client_sends(startup(&[("user", "ci")]));
    pg.client_sends(password(&"t".repeat(8 << 10)));
    assert!(matches!(pg.take_seen(), Some(Seen::Authenticate(_))), "a token of 8 KiB passes");
}

#[test]
fn nothing_but_a_password_is_read_of_a_caller_that_is_not_known() {
    for bytes in [query("select 1"), client(&[SYNC]), b"p\0\0\0\x09token".to_vec(), b"p\0\0\0\x08a\0b\0".to_vec()] {
        let mut pg = new(config());
        pg.client_sends(startup(&[("user", "ci")]));
        pg.client_sends(&bytes);
        assert!(matches!(pg.closed(), Some(CloseReason::ClientViolation(_))), "{bytes:?}");
    }
}

#[test]
fn a_machine_key_is_proved_by_scram() {
    let mut pg = new(with_tls(ClientTls::Required));
    pg.client_sends(packet(&StartupPacket::SslRequest));
    pg.tls_done(Peer::Client, tls());
    while pg.take_seen().is_some() {}
    pg.take_client();
    pg.client_sends(startup(&[("user", "ci+kabcdefghi2")]));
    assert_eq!(first_line(&mut pg), "Authentication SASL SCRAM-SHA-256-PLUS,SCRAM-SHA-256");
    let mut out = BytesMut::new();
    SaslInitialResponse { mechanism: b"SCRAM-SHA-256", data: Some(b"n,,n=,r=x") }.encode(&mut out);
    pg.client_sends(&out);
    let Some(Seen::Authenticate(attempt)) = pg.take_seen() else { panic!() };
    let initial = Evidence::SaslInitial { mechanism: "SCRAM-SHA-256".into(), data: b"n,,n=,r=x".to_vec() };
    assert_eq!(attempt.evidence, initial);
    pg.input(Input::Login(LoginReply::Challenge(b"r=xy".to_vec())));
    assert_eq!(pg.take_client(), upstream(&[UpstreamMessage::Authentication(Authentication::SaslContinue(b"r=xy"))]));
    pg.client_sends(client(&[ClientMessage::Password(b"c=,p=")]));
    let Some(Seen::Authenticate(attempt)) = pg.take_seen() else { panic!() };
    assert_eq!(attempt.evidence, Evidence::SaslResponse(b"c=,p=".to_vec()));
    pg.accept(Some(b"v=sig".to_vec()), target());
    assert_eq!(pg.take_client(), upstream(&[UpstreamMessage::Authentication(Authentication::SaslFinal(b"v=sig"))]));
    assert_eq!(pg.waiting(), 1);
}

#[test]
fn channel_binding_is_not_offered_without_a_channel() {
    let mut pg = new(config());
    pg.client_sends(startup(&[("user", "ci+kabcdefghi2")]));
    assert_eq!(first_line(&mut pg), "Authentication SASL SCRAM-SHA-256");
    let mut out = BytesMut::new();
    SaslInitialResponse { mechanism: b"SCRAM-SHA-256-PLUS", data: None }.encode(&mut out);
    pg.client_sends(&out);
    assert!(matches!(pg.closed(), Some(CloseReason::ClientViolation(_))));
}

#[test]
fn a_refused_login_has_the_code_of_its_sort() {
    for (kind, code) in [
        (LoginRefusal::Credential, "28P01"),
        (LoginRefusal::NotAllowed, "28000"),
        (LoginRefusal::TooMany, "53300"),
        (LoginRefusal::Unavailable, "58000"),
    ] {
        let mut pg = new(config());
        pg.client_sends(startup(&[("user", "ci")]));
        pg.client_sends(password("token"));
        pg.take_client();
        pg.input(Input::Login(LoginReply::Refused { kind, message: "no".into(), hint: "h".into() }));
        assert_eq!(first_line(&mut pg), format!("ErrorResponse FATAL {code} no"));
        assert_eq!(pg.closed(), Some(&CloseReason::LoginRefused));
    }
}

#[test]
fn a_connection_that_policy_forbids_never_reaches_the_target() {
    let mut pg = new(config());
    pg.client_sends(startup(&[("user", "ci")]));
    pg.client_sends(password("token"));
    pg.accept(None, target());
    pg.take_client();
    pg.take_seen();
    pg.deny(denial());
    assert_eq!(first_line(&mut pg), "ErrorResponse FATAL 42501 no");
    assert_eq!(pg.take_seen(), None);
    assert_eq!(pg.closed(), Some(&CloseReason::LoginRefused));
}

#[test]
fn a_replication_connection_is_decided_as_one() {
    let mut pg = new(config());
    pg.client_sends(startup(&[("user", "ci"), ("replication", "database")]));
    pg.client_sends(password("token"));
    pg.accept(None, target());
    let request = pg.permit(Disclosure::default());
    let Statement::Facts { facts, .. } = request.statement else { panic!() };
    assert_eq!(facts.operations.iter().map(|o| o.action.as_str()).collect::<Vec<_>>(), ["connect", "replicate"]);
    pg.input(Input::Connected(Ok(())));
    let expected = startup(&[("user", "gateway"), ("database", "shop"), ("replication", "database")]);
    assert_eq!(pg.take_upstream(), expected);
}

#[test]
fn every_way_to_log_in_upstream() {
    let mut pg = connected(false);
    pg.take_upstream();
    pg.upstream_sends(upstream(&[UpstreamMessage::Authentication(Authentication::CleartextPassword)]));
    assert_eq!(pg.take_seen(), Some(Seen::AnswerUpstream(UpstreamChallenge::Cleartext)));
    pg.input(Input::UpstreamAnswer(Ok(SecretBytes::new(b"secret".to_vec()))));
    assert_eq!(pg.take_upstream(), password("secret"));

    let mut pg = connected(false);
    pg.upstream_sends(upstream(&[UpstreamMessage::Authentication(Authentication::Md5Password([1, 2, 3, 4]))]));
    assert_eq!(pg.take_seen(), Some(Seen::AnswerUpstream(UpstreamChallenge::Md5([1, 2, 3, 4]))));

    let mut pg = connected(false);
    pg.take_upstream();
    pg.upstream_sends(upstream(&[UpstreamMessage::Authentication(Authentication::Sasl(vec![b"SCRAM-SHA-256"]))]));
    let start = UpstreamChallenge::SaslStart(vec!["SCRAM-SHA-256".into()]);
    assert_eq!(pg.take_seen(), Some(Seen::AnswerUpstream(start)));
    pg.input(Input::UpstreamAnswer(Ok(SecretBytes::new(b"SCRAM-SHA-256\0n,,n=,r=1".to_vec()))));
    let mut expected = BytesMut::new();
    SaslInitialResponse { mechanism: b"SCRAM-SHA-256", data: Some(b"n,,n=,r=1") }.encode(&mut expected);
    assert_eq!(pg.take_upstream(), expected);
    pg.upstream_sends(upstream(&[UpstreamMessage::Authentication(Authentication::SaslContinue(b"r=12"))]));
    assert_eq!(pg.take_seen(), Some(Seen::AnswerUpstream(UpstreamChallenge::SaslContinue(b"r=12".to_vec()))));
    pg.input(Input::UpstreamAnswer(Ok(SecretBytes::new(b"c=biws".to_vec()))));
    assert_eq!(pg.take_upstream(), client(&[ClientMessage::Password(b"c=biws")]));
    let last = UpstreamMessage::Authentication(Authentication::SaslFinal(b"v=x"));
    pg.upstream_sends([upstream(&[last]), greeting()].concat());
    assert_eq!(pg.take_seen(), Some(Seen::AnswerUpstream(UpstreamChallenge::SaslFinal(b"v=x".to_vec()))));
    assert_eq!(pg.take_client(), b"", "not before the server has proved itself");
    pg.input(Input::UpstreamAnswer(Ok(SecretBytes::new(Vec::new()))));
    assert_eq!(pg.take_seen(), Some(Seen::Established));
}

#[test]
fn a_server_that_skips_its_own_proof_is_not_believed() {
    let mut pg = connected(false);
    pg.upstream_sends(upstream(&[UpstreamMessage::Authentication(Authentication::Sasl(vec![b"SCRAM-SHA-256"]))]));
    pg.input(Input::UpstreamAnswer(Ok(SecretBytes::new(b"SCRAM-SHA-256\0n,,n=,r=1".to_vec()))));
    pg.upstream_sends(greeting());
    assert_eq!(pg.closed(), Some(&CloseReason::UpstreamFailed(UpstreamFailure::Credential)));
}

#[test]
fn a_method_that_is_not_supported_is_a_failed_credential() {
    let mut pg = connected(false);
    pg.upstream_sends(upstream(&[UpstreamMessage::Authentication(Authentication::Other(7, b""))]));
    assert_eq!(pg.closed(), Some(&CloseReason::UpstreamFailed(UpstreamFailure::Credential)));
}

#[test]
fn the_upstreams_words_about_the_credential_stay_inside() {
    for (code, text) in [
        ("28P01", "password authentication failed for user \"gateway\""),
        ("28000", "no pg_hba.conf entry for host \"10.0.0.9\", user \"gateway\""),
        ("42501", "permission denied for database shop as gateway"),
    ] {
        let mut pg = connected(false);
        pg.upstream_sends(upstream(&[fatal(code, text)]));
        let answer = pg.take_client();
        let shown = String::from_utf8_lossy(&answer).into_owned();
        assert!(!shown.contains("gateway\"") && !shown.contains("10.0.0.9") && !shown.contains("as gateway"), "{shown}");
        assert!(shown.contains("C08001\0") && shown.contains(code) && shown.contains(&ID.to_string()), "{shown}");
        assert_eq!(pg.closed(), Some(&CloseReason::UpstreamFailed(UpstreamFailure::Credential)));
    }
}

#[test]
fn what_the_client_can_mend_keeps_its_code() {
    for code in ["53300", "57P03", "3D000", "22023", "42704"] {
        let mut pg = connected(false);
        pg.upstream_sends(upstream(&[fatal(code, "text")]));
        assert!(first_line(&mut pg).starts_with(&format!("ErrorResponse FATAL {code}")), "{code}");
    }
}

#[test]
fn a_flood_of_settings_before_ready_is_bounded() {
    let mut pg = connected(false);
    pg.upstream_sends(upstream(&[UpstreamMessage::Authentication(Authentication::Ok)]));
    let value = vec![b'x'; 60_000];
    for _ in 0..8 {
        pg.upstream_sends(upstream(&[UpstreamMessage::ParameterStatus(proto_postgres::message::ParameterStatus {
            name: b"a",
            value: &value,
        })]));
    }
    assert!(matches!(pg.closed(), Some(CloseReason::UpstreamViolation(_))));
}

#[test]
fn messages_out_of_turn_in_the_upstream_login_end_it() {
    for bad in [
        upstream(&[IDLE]),
        upstream(&[row(&["x"])]),
        upstream(&[UpstreamMessage::BackendKeyData(BackendKeyData { process: 1, secret: b"abcd" })]),
        b"R\0\0\0\x08\0\0\0\x05".to_vec(),
        b"R\x7f\0\0\0".to_vec(),
        b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0".to_vec(),
    ] {
        let mut pg = connected(false);
        pg.upstream_sends(&bad);
        assert!(matches!(pg.closed(), Some(CloseReason::UpstreamViolation(_))), "{bad:?}");
    }
}

#[test]
fn a_login_that_stalls_is_ended() {
    let mut pg = new(config());
    pg.client_sends(b"\0\0\0");
    pg.input(Input::End(EndReason::LoginTimeout));
    assert_eq!(pg.closed(), Some(&CloseReason::Ended(EndReason::LoginTimeout)));
}

#[test]
fn the_credential_does_not_stay_in_the_read_buffer() {
    use proxy_core::Session;
    let mut session = PostgresSession::new(config());
    let mut buffer = BytesMut::with_capacity(4096);
    buffer.extend_from_slice(&startup(&[("user", "ci")]));
    session.handle(proxy_core::Timestamp::default(), Input::Bytes { from: Peer::Client, buffer: &mut buffer });
    buffer.extend_from_slice(&password("hunter2"));
    let at = buffer.as_ptr();
    session.handle(proxy_core::Timestamp::default(), Input::Bytes { from: Peer::Client, buffer: &mut buffer });
    drop(session);
    assert!(buffer.try_reclaim(4096), "the buffer is whole again");
    assert!(at >= buffer.as_ptr());
    buffer.resize(4096, 1);
    // What was not overwritten by the resize itself would show the secret; nothing of it can be left.
    assert!(!buffer.windows(7).any(|w| w == b"hunter2"));
}

#[test]
fn a_login_whose_text_cannot_be_read_is_refused() {
    let status = |name, value| UpstreamMessage::ParameterStatus(proto_postgres::message::ParameterStatus { name, value });
    let mut pg = connected(false);
    pg.upstream_sends(upstream(&[
        UpstreamMessage::Authentication(Authentication::Ok),
        status(b"client_encoding", b"SJIS"),
        IDLE,
    ]));
    assert!(first_line(&mut pg).starts_with("ErrorResponse FATAL 0A000"));
    assert_eq!(pg.closed(), Some(&CloseReason::LoginRefused));
}
