//! Simple queries, COPY, cancel, ends.

use crate::common::*;
use proto_postgres::message::{
    ClientMessage, CopyResponse, FunctionCall, Notification, ParameterStatus, TransactionStatus, UpstreamMessage,
};
use proto_postgres::types::FormatCode;
use proto_testkit::Seen;
use proxy_core::record::OutcomeStatus;
use proxy_core::session::EndReason;
use proxy_core::{CloseReason, Disclosure, Input, Peer, RequestId, RequestKind, Statement};
use std::time::Duration;

fn copy_response(columns: usize) -> CopyResponse {
    CopyResponse { binary: false, formats: vec![FormatCode::TEXT; columns] }
}

#[test]
fn a_query_is_decided_then_forwarded_as_it_came() {
    let mut pg = ready();
    pg.client_sends(query("select 1"));
    assert_eq!(pg.take_upstream(), b"", "nothing goes before the verdict");
    let request = pg.permit(Disclosure::default());
    assert_eq!(request.kind, RequestKind::Query);
    assert_eq!(request.statement, Statement::Sql("select 1".into()));
    assert_eq!(request.id, RequestId(1));
    assert_eq!(pg.sends(), [(query("select 1").into(), RequestId(1))]);
    let answer = upstream(&[columns(&[("a", 0, 0)]), row(&["1"]), complete("SELECT 1"), IDLE]);
    pg.advance(Duration::from_micros(250));
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
    let outcomes = pg.take_outcomes();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].status, OutcomeStatus::Completed);
    assert_eq!((outcomes[0].rows, outcomes[0].columns_passed), (1, 1));
    assert_eq!(outcomes[0].tag.as_deref(), Some(&b"SELECT 1"[..]));
    assert_eq!(outcomes[0].bytes, answer.len() as u64);
    assert_eq!(outcomes[0].duration_micros, 250);
}

#[test]
fn a_batch_of_statements_has_one_outcome_with_all_tags() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("insert into t values (1),(2); select 1; "));
    pg.upstream_sends(upstream(&[complete("INSERT 0 2"), columns(&[("a", 0, 0)]), row(&["1"]), complete("SELECT 1"), IDLE]));
    let outcomes = pg.take_outcomes();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].tag.as_deref(), Some(&b"INSERT 0 2;SELECT 1"[..]));
    assert_eq!(outcomes[0].rows, 3);
}

#[test]
fn what_one_read_brings_leaves_in_one_write() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("select"));
    let before = pg.client_send_count();
    let mut messages = vec![columns(&[("a", 0, 0)])];
    messages.extend((0..1000).map(|_| row(&["value"])));
    messages.extend([complete("SELECT 1000"), IDLE]);
    pg.upstream_sends(upstream(&messages));
    assert_eq!(pg.client_send_count(), before + 1);
    assert_eq!(pg.take_outcomes()[0].rows, 1000);
}

#[test]
fn a_failed_query_is_recorded_with_its_code() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("selec"));
    let answer = upstream(&[error("42601", "syntax error"), IDLE]);
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
    let outcomes = pg.take_outcomes();
    assert_eq!((outcomes[0].status, outcomes[0].code.as_deref()), (OutcomeStatus::Failed, Some(&b"42601"[..])));
}

#[test]
fn a_huge_row_streams_without_being_held() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("select repeat('x', 1 << 29)"));
    pg.upstream_sends(upstream(&[columns(&[("a", 0, 0)])]));
    pg.take_client();
    pg.upstream_sends(b"D\x20\x00\x00\x0a\x00\x01\x20\x00\x00\x00");
    assert_eq!(pg.take_client().len(), 11);
    for _ in 0..64 {
        pg.upstream_sends([b'x'; 65536]);
        assert_eq!(pg.left(Peer::Upstream), 0);
        assert_eq!(pg.take_client().len(), 65536);
    }
}

#[test]
fn a_kill_in_the_middle_of_a_row_writes_no_error_into_it() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("select 1"));
    pg.upstream_sends(b"D\x00\x01\x00\x0a\x00\x01\x00\x00\xff\xffabc");
    pg.take_client();
    pg.input(Input::End(EndReason::Killed));
    assert_eq!(pg.take_client(), b"");
    assert_eq!(pg.closed(), Some(&CloseReason::Ended(EndReason::Killed)));
    assert_eq!(pg.take_outcomes()[0].status, OutcomeStatus::Unknown);
}

#[test]
fn a_drain_ends_an_idle_session_at_once() {
    let mut pg = ready();
    pg.input(Input::Drain);
    assert_eq!(
        lines(Peer::Upstream, &pg.take_client()),
        ["ErrorResponse FATAL 57P01 \"terminating connection: the gateway is shutting down\""]
    );
    assert_eq!(pg.take_upstream(), client(&[ClientMessage::Terminate]));
    assert_eq!(pg.closed(), Some(&CloseReason::Ended(EndReason::Shutdown)));
}

#[test]
fn a_drain_waits_for_what_runs_and_for_the_end_of_its_transaction() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("begin"));
    pg.input(Input::Drain);
    assert_eq!(pg.closed(), None);
    let open = UpstreamMessage::ReadyForQuery(TransactionStatus::Open);
    pg.upstream_sends(upstream(&[complete("BEGIN"), open]));
    assert_eq!(pg.closed(), None, "a transaction is open");
    pg.client_sends(query("commit"));
    pg.upstream_sends(upstream(&[complete("COMMIT"), IDLE]));
    assert_eq!(pg.closed(), Some(&CloseReason::Ended(EndReason::Shutdown)));
    let statuses: Vec<OutcomeStatus> = pg.take_outcomes().iter().map(|outcome| outcome.status).collect();
    assert_eq!(statuses, [OutcomeStatus::Completed, OutcomeStatus::Completed]);
}

#[test]
fn asynchronous_messages_pass_at_any_time() {
    let mut pg = ready();
    let notification = UpstreamMessage::NotificationResponse(Notification { process: 1, channel: b"c", payload: b"p" });
    let status = UpstreamMessage::ParameterStatus(ParameterStatus { name: b"TimeZone", value: b"UTC" });
    let sent = upstream(&[notification, status]);
    pg.upstream_sends(&sent);
    assert_eq!(pg.take_client(), sent);
}

#[test]
fn a_kill_cancels_what_runs_and_tells_the_client() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("select pg_sleep(100)"));
    pg.take_upstream();
    pg.input(Input::End(EndReason::Killed));
    assert_eq!(pg.take_seen(), Some(Seen::CancelUpstream(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x63up!!"[..].to_vec().into())));
    assert_eq!(
        lines(Peer::Upstream, &pg.take_client()),
        ["ErrorResponse FATAL 57P01 \"terminating connection due to administrator command\""]
    );
    assert_eq!(pg.take_upstream(), client(&[ClientMessage::Terminate]));
}

#[test]
fn a_cancel_uses_the_upstreams_key() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.input(Input::Cancel);
    assert_eq!(pg.take_seen(), None, "nothing runs");
    pg.client_sends(query("select pg_sleep(100)"));
    pg.input(Input::Cancel);
    assert!(matches!(pg.take_seen(), Some(Seen::CancelUpstream(bytes)) if bytes.ends_with(b"up!!")));
}

#[test]
fn the_client_says_goodbye() {
    let mut pg = ready();
    pg.client_sends(client(&[ClientMessage::Terminate]));
    assert_eq!(pg.take_upstream(), client(&[ClientMessage::Terminate]));
    assert_eq!(pg.closed(), Some(&CloseReason::ClientTerminated));
}

#[test]
fn a_statement_sent_just_before_goodbye_still_runs() {
    let mut pg = ready();
    pg.client_sends(client(&[q("insert into t values (1)"), ClientMessage::Terminate]));
    assert_eq!(pg.closed(), None);
    pg.permit(Disclosure::default());
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Query", "Terminate"]);
    assert_eq!(pg.closed(), Some(&CloseReason::ClientTerminated));
    assert_eq!(pg.take_outcomes()[0].status, OutcomeStatus::Unknown);
}

#[test]
fn the_upstream_dies_in_the_middle_of_a_result() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("select 1"));
    pg.upstream_sends(upstream(&[columns(&[("a", 0, 0)]), row(&["1"])]));
    pg.take_client();
    pg.input(Input::Eof { from: Peer::Upstream });
    assert_eq!(lines(Peer::Upstream, &pg.take_client()), ["ErrorResponse FATAL 08006 \"the target closed the connection\""]);
    assert_eq!(pg.closed(), Some(&CloseReason::UpstreamClosed));
    assert_eq!(pg.take_outcomes()[0].status, OutcomeStatus::Unknown);
}

#[test]
fn the_upstreams_own_farewell_is_the_last_word() {
    let mut pg = ready();
    let farewell = upstream(&[fatal("57P01", "terminating connection due to administrator command")]);
    pg.upstream_sends(&farewell);
    pg.input(Input::Eof { from: Peer::Upstream });
    assert_eq!(pg.take_client(), farewell);
}

#[test]
fn answers_out_of_turn_end_the_session() {
    for bad in [
        upstream(&[row(&["1"])]),
        upstream(&[complete("SELECT 1")]),
        upstream(&[IDLE]),
        upstream(&[UpstreamMessage::ParseComplete]),
        upstream(&[UpstreamMessage::CopyDone]),
        upstream(&[UpstreamMessage::CopyData(b"x")]),
        upstream(&[error("42601", "unasked")]),
        b"R\0\0\0\x08\0\0\0\0".to_vec(),
        b"\x7f\0\0\0\x04".to_vec(),
        b"D\xff\xff\xff\xff".to_vec(),
        b"Z\0\0\0\x05X".to_vec(),
    ] {
        let mut pg = ready();
        pg.upstream_sends(&bad);
        assert!(matches!(pg.closed(), Some(CloseReason::UpstreamViolation(_))), "{bad:?}");
        assert_eq!(lines(Peer::Upstream, &pg.take_client()), ["ErrorResponse FATAL 08P01 \"the target broke the protocol\""]);
    }
}

#[test]
fn messages_that_the_client_may_not_send_end_the_session() {
    for bad in [&b"p\0\0\0\x05\0"[..], b"Q\0\0\0\x03", b"Q\0\0\0\x0aselec1", b"S\0\0\0\x05x", b"\x16\x03\x01\0\0", b"d\0\0\0\0"] {
        let mut pg = ready();
        pg.client_sends(bad);
        assert!(matches!(pg.closed(), Some(CloseReason::ClientViolation(_))), "{bad:?}");
        assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Terminate"]);
    }
}

#[test]
fn a_query_hidden_behind_a_nul_is_refused() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(b"Q\0\0\0\x1aselect 1\0drop table t\0");
    assert!(matches!(pg.closed(), Some(CloseReason::ClientViolation(_))));
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Terminate"]);
}

#[test]
fn a_statement_that_is_too_long_is_refused_and_the_session_goes_on() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query(&"x".repeat((1 << 20) + 1)));
    assert_eq!(pg.take_upstream(), query("sallyport_denied"));
    pg.upstream_sends(upstream(&[error("42601", "syntax error"), IDLE]));
    let answer = lines(Peer::Upstream, &pg.take_client());
    assert!(answer[0].starts_with("ErrorResponse ERROR 54000"), "{answer:?}");
    pg.client_sends(query("select 1"));
    assert_eq!(pg.take_upstream(), query("select 1"));
}

#[test]
fn a_message_longer_than_may_be_held_is_dropped_as_it_comes() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends([&b"B"[..], &0x3fff_0000u32.to_be_bytes()].concat());
    for _ in 0..16 {
        pg.client_sends([0; 65536]);
        assert_eq!(pg.left(Peer::Client), 0);
    }
    let rest = 0x3fff_0000 + 1 - 5 - 16 * 65536;
    for _ in 0..rest / 65536 {
        pg.client_sends([0; 65536]);
    }
    pg.client_sends(vec![0; rest % 65536]);
    pg.client_sends(client(&[execute(""), SYNC]));
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Parse", "Flush", "Sync"]);
    pg.upstream_sends(upstream(&[error("42601", "syntax error"), IDLE]));
    assert!(lines(Peer::Upstream, &pg.take_client())[0].contains("54000"));
    pg.client_sends(query("select 1"));
    assert_eq!(pg.take_upstream(), query("select 1"));
}

#[test]
fn copy_from_the_client_streams_under_its_permit() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("copy t from stdin"));
    pg.upstream_sends(upstream(&[UpstreamMessage::CopyInResponse(copy_response(1))]));
    pg.take_upstream();
    let data = client(&[ClientMessage::CopyData(b"1\n"), ClientMessage::CopyData(b"2\n")]);
    pg.client_sends(&data[..8]);
    pg.client_sends(&data[8..]);
    pg.client_sends(client(&[ClientMessage::CopyDone]));
    assert!(pg.sends().iter().all(|(_, request)| *request == RequestId(1)));
    assert_eq!(pg.take_upstream(), [data, client(&[ClientMessage::CopyDone])].concat());
    pg.upstream_sends(upstream(&[complete("COPY 2"), IDLE]));
    assert_eq!(pg.take_outcomes()[0].rows, 2);
    pg.client_sends(query("select 1"));
    pg.upstream_sends(upstream(&[columns(&[("a", 0, 0)]), row(&["1"]), complete("SELECT 1"), IDLE]));
    assert_eq!(pg.take_outcomes().len(), 1);
    assert_eq!(pg.closed(), None);
}

#[test]
fn copy_data_sent_ahead_of_the_verdict_waits_for_it() {
    let mut pg = ready();
    pg.client_sends(client(&[q("copy t from stdin"), ClientMessage::CopyData(b"1\n"), ClientMessage::CopyDone]));
    assert_eq!(pg.take_upstream(), b"");
    pg.permit(Disclosure::default());
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Query", "CopyData", "CopyDone"]);
}

#[test]
fn copy_that_fails_on_the_server_ends_as_the_server_says() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("copy t from stdin"));
    pg.upstream_sends(upstream(&[UpstreamMessage::CopyInResponse(copy_response(1))]));
    pg.client_sends(client(&[ClientMessage::CopyData(b"bad\n")]));
    pg.upstream_sends(upstream(&[error("22P02", "invalid input"), IDLE]));
    // What the client still sends, the server ignores.
    pg.client_sends(client(&[ClientMessage::CopyData(b"more\n"), ClientMessage::CopyDone, q("select 1")]));
    pg.upstream_sends(upstream(&[columns(&[("a", 0, 0)]), row(&["1"]), complete("SELECT 1"), IDLE]));
    assert_eq!(pg.closed(), None);
    let statuses: Vec<_> = pg.take_outcomes().iter().map(|o| o.status).collect();
    assert_eq!(statuses, [OutcomeStatus::Failed, OutcomeStatus::Completed]);
}

#[test]
fn copy_both_passes_both_ways() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("START_REPLICATION SLOT s LOGICAL 0/0"));
    pg.upstream_sends(upstream(&[UpstreamMessage::CopyBothResponse(copy_response(0)), UpstreamMessage::CopyData(b"w...")]));
    pg.client_sends(client(&[ClientMessage::CopyData(b"r...")]));
    pg.upstream_sends(upstream(&[UpstreamMessage::CopyData(b"w2")]));
    assert_eq!(names(Peer::Upstream, &pg.take_client()), ["CopyBothResponse", "CopyData", "CopyData"]);
    pg.client_sends(client(&[ClientMessage::CopyDone]));
    pg.upstream_sends(upstream(&[UpstreamMessage::CopyDone, complete("COPY 0"), complete("START_STREAMING"), IDLE]));
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Query", "CopyData", "CopyDone"]);
    assert_eq!(pg.take_outcomes().len(), 1);
    assert_eq!(pg.closed(), None);
}

#[test]
fn a_function_call_is_a_request_with_parameters() {
    let mut pg = ready();
    let call = ClientMessage::FunctionCall(FunctionCall {
        function: 1598,
        argument_formats: vec![FormatCode::BINARY],
        arguments: vec![Some(b"\0\0\0\x01"), None],
        result_format: FormatCode::BINARY,
    });
    pg.client_sends(client(std::slice::from_ref(&call)));
    let request = pg.permit(Disclosure::default());
    assert_eq!((request.kind, request.statement), (RequestKind::Command, Statement::Function(1598)));
    assert_eq!(request.parameters.len(), 2);
    assert_eq!(request.parameters[1].value, None);
    pg.upstream_sends(upstream(&[UpstreamMessage::FunctionCallResponse(Some(b"x")), IDLE]));
    assert_eq!(pg.take_outcomes()[0].status, OutcomeStatus::Completed);
}

#[test]
fn a_statement_timeout_cancels_at_the_upstream_and_says_why() {
    let mut config = config();
    config.limits.statement_timeout = Some(Duration::from_secs(5));
    let mut pg = ready_with(config);
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("select pg_sleep(100)"));
    assert_eq!(pg.take_seen(), Some(Seen::SetDeadline(Some(Duration::from_secs(5)))));
    pg.input(Input::Deadline);
    assert!(matches!(pg.take_seen(), Some(Seen::CancelUpstream(_))));
    pg.upstream_sends(upstream(&[error("57014", "canceling statement due to user request"), IDLE]));
    assert!(lines(Peer::Upstream, &pg.take_client())[0].contains("statement timeout"));
}

#[test]
fn an_idle_session_ends_with_the_servers_code() {
    let mut config = config();
    config.limits.idle_timeout = Some(Duration::from_secs(60));
    let mut pg = ready_with(config);
    pg.input(Input::Deadline);
    assert!(lines(Peer::Upstream, &pg.take_client())[0].starts_with("ErrorResponse FATAL 57P05"));
    assert_eq!(pg.closed(), Some(&CloseReason::Ended(EndReason::IdleTimeout)));
}
