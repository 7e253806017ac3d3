//! Denials, holds, cancels while held.

use crate::common::*;
use proto_postgres::SessionConfig;
use proto_postgres::message::{ClientMessage, Close, FunctionCall, ParameterStatus, Target, UpstreamMessage};
use proto_postgres::types::FormatCode;
use proto_testkit::Seen;
use proxy_core::limits::{REFUSED_HEAD, SessionLimits};
use proxy_core::record::OutcomeStatus;
use proxy_core::session::{Denial, DenialKind, EndReason};
use proxy_core::{CloseReason, Disclosure, Input, Peer, RequestId, RequestKind, Statement};

const SYNTAX: &str = "syntax error at or near \"sallyport_denied\"";
const PARSED: UpstreamMessage<'static> = UpstreamMessage::ParseComplete;
const BOUND: UpstreamMessage<'static> = UpstreamMessage::BindComplete;

#[test]
fn a_denied_query_leaves_the_session_as_the_servers_own_error_would() {
    let mut pg = ready();
    pg.client_sends(query("delete from orders"));
    pg.deny(denial());
    assert_eq!(pg.sends(), [(query("sallyport_denied").into(), RequestId(0))], "housekeeping: nothing of the request");
    pg.take_upstream();
    pg.upstream_sends(upstream(&[error("42601", SYNTAX), FAILED]));
    assert_eq!(lines(Peer::Upstream, &pg.take_client()), ["ErrorResponse ERROR 42501 no", "ReadyForQuery Failed"]);
    assert!(pg.take_outcomes().is_empty(), "it never ran");
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("rollback"));
    assert_eq!(pg.take_upstream(), query("rollback"));
}

#[test]
fn a_denial_in_a_failed_transaction_says_so_all_the_same() {
    let mut pg = ready();
    pg.client_sends(query("delete from orders"));
    pg.deny(denial());
    pg.upstream_sends(upstream(&[error("25P02", "current transaction is aborted"), FAILED]));
    assert_eq!(lines(Peer::Upstream, &pg.take_client())[0], "ErrorResponse ERROR 42501 no");
}

#[test]
fn a_denied_execute_fails_its_pipeline_and_no_other() {
    let mut pg = ready();
    let close = ClientMessage::Close(Close { target: Target::Statement, name: b"old" });
    pg.client_sends(client(&[
        close,
        parse("", "select 1"),
        bind("", "", &[]),
        execute(""),
        parse("", "delete from orders"),
        bind("", "", &[]),
        execute(""),
        parse("", "select 3"),
        bind("", "", &[]),
        execute(""),
        SYNC,
        parse("", "select 4"),
        bind("", "", &[]),
        execute(""),
        SYNC,
    ]));
    pg.permit(Disclosure::default());
    pg.deny(denial());
    assert_eq!(pg.take_seen(), Some(Seen::Withdraw(RequestId(3), RequestId(3))));
    assert_eq!(pg.waiting(), 1, "the next stretch is not touched");
    pg.permit(Disclosure::default());
    assert_eq!(
        names(Peer::Client, &pg.take_upstream()),
        ["Close", "Parse", "Bind", "Execute", "Parse", "Sync", "Parse", "Bind", "Execute", "Sync"]
    );
    pg.upstream_sends(upstream(&[
        UpstreamMessage::CloseComplete,
        PARSED,
        BOUND,
        complete("SELECT 1"),
        error("42601", SYNTAX),
        IDLE,
        PARSED,
        BOUND,
        complete("SELECT 1"),
        IDLE,
    ]));
    let got = lines(Peer::Upstream, &pg.take_client());
    assert_eq!(got[4], "ErrorResponse ERROR 42501 no");
    assert_eq!(got.len(), 10);
    let statuses: Vec<_> = pg.take_outcomes().iter().map(|o| (o.request.0, o.status)).collect();
    assert_eq!(statuses, [(1, OutcomeStatus::Completed), (4, OutcomeStatus::Completed)]);
    assert_eq!(pg.closed(), None);
}

#[test]
fn a_denial_without_a_sync_is_answered_at_once_and_the_rest_is_dropped() {
    let mut pg = ready();
    pg.client_sends(client(&[parse("", "delete from orders"), FLUSH]));
    pg.deny(denial());
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Parse", "Flush"]);
    pg.upstream_sends(upstream(&[error("42601", SYNTAX)]));
    assert_eq!(lines(Peer::Upstream, &pg.take_client()), ["ErrorResponse ERROR 42501 no"]);
    pg.client_sends(client(&[bind("", "", &[]), execute(""), SYNC]));
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Sync"]);
    pg.upstream_sends(upstream(&[IDLE]));
    assert_eq!(pg.closed(), None);
    assert_eq!(pg.waiting(), 0);
}

#[test]
fn an_error_before_a_denial_takes_its_place() {
    let mut pg = ready();
    pg.client_sends(client(&[
        parse("", "selec"),
        bind("", "", &[]),
        execute(""),
        parse("", "delete from orders"),
        bind("", "", &[]),
        execute(""),
        SYNC,
        q("delete from orders"),
    ]));
    pg.permit(Disclosure::default());
    pg.deny(denial());
    pg.deny(Denial { message: "second".into(), ..denial() });
    pg.upstream_sends(upstream(&[error("42601", "syntax error at selec"), IDLE, error("42601", SYNTAX), IDLE]));
    let got = lines(Peer::Upstream, &pg.take_client());
    assert!(got[0].contains("selec"), "{got:?}");
    assert_eq!(got[2], "ErrorResponse ERROR 42501 second", "denials are not mixed up");
}

#[test]
fn denials_have_the_code_of_their_sort() {
    for (kind, code) in [
        (DenialKind::Policy, "42501"),
        (DenialKind::Approval, "42501"),
        (DenialKind::Cancelled, "57014"),
        (DenialKind::StoreUnavailable, "58030"),
        (DenialKind::Limit, "54000"),
        (DenialKind::Unreadable, "0A000"),
    ] {
        let mut pg = ready();
        pg.client_sends(query("select 1"));
        pg.deny(Denial { kind, ..denial() });
        pg.upstream_sends(upstream(&[error("42601", SYNTAX), IDLE]));
        let line = lines(Peer::Upstream, &pg.take_client()).remove(0);
        assert_eq!(line, format!("ErrorResponse ERROR {code} no"));
    }
}

#[test]
fn a_held_request_is_announced_and_waits() {
    let mut pg = ready();
    pg.client_sends(query("update t set a = 1"));
    let request = pg.hold("waits for approval");
    assert_eq!(lines(Peer::Upstream, &pg.take_client()), ["NoticeResponse NOTICE 00000 \"waits for approval\""]);
    assert_eq!(pg.take_upstream(), b"");
    pg.permit_request(&request, Disclosure::default());
    assert_eq!(pg.take_upstream(), query("update t set a = 1"));
}

#[test]
fn results_of_earlier_requests_flow_while_one_is_held() {
    let mut pg = ready();
    pg.client_sends(client(&[q("select 1"), q("delete from t")]));
    pg.permit(Disclosure::default());
    pg.hold("wait");
    pg.take_client();
    let answer = upstream(&[columns(&[("a", 0, 0)]), row(&["1"]), complete("SELECT 1"), IDLE]);
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
}

#[test]
fn a_notice_is_never_put_into_a_row() {
    let mut pg = ready();
    pg.client_sends(client(&[q("select 1"), q("delete from t")]));
    pg.permit(Disclosure::default());
    let answer = upstream(&[columns(&[("a", 0, 0)]), row(&["long value"]), complete("SELECT 1"), IDLE]);
    let cut = answer.len() - 25;
    pg.upstream_sends(&answer[..cut]);
    pg.hold("wait");
    pg.upstream_sends(&answer[cut..]);
    let got = names(Peer::Upstream, &pg.take_client());
    assert_eq!(got, ["RowDescription", "DataRow", "NoticeResponse", "CommandComplete", "ReadyForQuery"]);
}

#[test]
fn a_client_that_vanishes_while_held_ends_the_wait() {
    let mut pg = ready();
    pg.client_sends(query("update t set a = 1"));
    pg.hold("wait");
    pg.take_seen();
    pg.input(Input::Eof { from: Peer::Client });
    assert_eq!(pg.take_seen(), Some(Seen::Withdraw(RequestId(1), RequestId(1))));
    assert_eq!(pg.closed(), Some(&CloseReason::ClientVanished));
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Terminate"]);
    assert!(pg.take_outcomes().is_empty());
}

#[test]
fn a_cancel_while_held_withdraws_the_request() {
    let mut pg = ready();
    pg.client_sends(query("update t set a = 1"));
    pg.hold("wait");
    pg.take_client();
    pg.input(Input::Cancel);
    assert_eq!(pg.take_seen(), Some(Seen::Withdraw(RequestId(1), RequestId(1))));
    assert_eq!(pg.take_upstream(), query("sallyport_denied"));
    pg.upstream_sends(upstream(&[error("42601", SYNTAX), IDLE]));
    assert_eq!(
        lines(Peer::Upstream, &pg.take_client())[0],
        "ErrorResponse ERROR 57014 \"canceling statement due to user request\""
    );
    pg.client_sends(query("select 1"));
    pg.permit(Disclosure::default());
    assert_eq!(pg.take_upstream(), query("select 1"));
}

#[test]
fn a_session_that_ends_while_held_withdraws_too() {
    let mut pg = ready();
    pg.client_sends(query("update t set a = 1"));
    pg.hold("wait");
    pg.input(Input::End(EndReason::Expired));
    assert_eq!(pg.take_seen(), Some(Seen::Withdraw(RequestId(1), RequestId(1))));
    assert!(lines(Peer::Upstream, &pg.take_client())[1].starts_with("ErrorResponse FATAL 57P01"));
}

#[test]
fn statements_are_refused_while_the_server_would_read_them_otherwise() {
    // `select 'x\', ' ; delete from t; --'` is one harmless select, or it deletes: the server says which.
    let status = |name, value| UpstreamMessage::ParameterStatus(ParameterStatus { name, value });
    for (name, value) in [(&b"standard_conforming_strings"[..], &b"off"[..]), (b"client_encoding", b"SJIS")] {
        let mut pg = ready();
        pg.upstream_sends(upstream(&[status(name, value)]));
        assert_eq!(names(Peer::Upstream, &pg.take_client()), ["ParameterStatus"]);
        let text = "select 'x\\', ' ; delete from t; --'";
        pg.client_sends(query(text));
        assert_eq!(refused(&mut pg), (RequestKind::Query, text.into()));
        assert_eq!(pg.take_upstream(), query("sallyport_denied"));
        pg.upstream_sends(upstream(&[error("42601", SYNTAX), IDLE]));
        assert!(lines(Peer::Upstream, &pg.take_client())[0].starts_with("ErrorResponse ERROR 0A000"));
        pg.client_sends(client(&[parse("", "select 1"), bind("", "", &[]), execute(""), SYNC]));
        assert_eq!(refused(&mut pg), (RequestKind::Prepare, "select 1".into()));
        assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Parse", "Sync"]);
        assert_eq!(pg.waiting(), 0, "what would have run it is withdrawn");
    }
}

/// The next request is one that the session refuses by itself: the pipeline records and denies it.
fn refused(pg: &mut Pg) -> (RequestKind, String) {
    assert_eq!(pg.take_upstream(), b"", "nothing of it leaves, and nothing in its place, before it is recorded");
    let request = pg.next_request();
    let Statement::Refused(refusal) = &request.statement else { panic!("{request:?}") };
    let text = String::from_utf8_lossy(refusal.excerpt.head()).into_owned();
    pg.permit_request(&request, Disclosure::default());
    (request.kind, text)
}

#[test]
fn what_is_over_a_limit_is_refused_on_the_record_and_the_session_goes_on() {
    let limits = SessionLimits { statement_max: 100, message_max: 1_000, prepared_max: 1, ..SessionLimits::default() };
    let mut pg = ready_with(SessionConfig { limits, ..config() });
    let (long, longer) = ("x".repeat(101), "y".repeat(100_000));
    let call = |argument: &str| {
        let arguments = vec![Some(argument.as_bytes())];
        let call = FunctionCall { function: 1598, argument_formats: vec![], arguments, result_format: FormatCode::TEXT };
        client(&[ClientMessage::FunctionCall(call)])
    };
    for (sent, kind, text) in [
        (query(&long), RequestKind::Query, long.clone()),
        (query(&longer), RequestKind::Query, longer[..REFUSED_HEAD].to_owned()),
        (call(&longer), RequestKind::Command, String::new()),
        (client(&[parse("s", &long), SYNC]), RequestKind::Prepare, long.clone()),
        (client(&[parse("s", &longer), SYNC]), RequestKind::Prepare, longer[..REFUSED_HEAD].to_owned()),
        (client(&[bind("p", "s", &[&longer]), SYNC]), RequestKind::Execute, String::new()),
    ] {
        for piece in sent.chunks(777) {
            pg.client_sends(piece);
        }
        let (got, head) = refused(&mut pg);
        assert_eq!(got, kind);
        assert!(text.is_empty() || head == text, "{head}");
        let sync = matches!(kind, RequestKind::Prepare | RequestKind::Execute);
        let expected =
            if sync { client(&[parse("sallyport_denied", "sallyport_denied"), SYNC]) } else { query("sallyport_denied") };
        assert_eq!(pg.take_upstream(), expected);
        pg.upstream_sends(upstream(&[error("42601", SYNTAX), IDLE]));
        let got = lines(Peer::Upstream, &pg.take_client());
        assert!(got[0].starts_with("ErrorResponse ERROR 54000") && got.len() == 2, "{got:?}");
    }
    pg.client_sends(client(&[parse("a", "select 1"), SYNC]));
    pg.permit(Disclosure::default());
    pg.take_upstream();
    pg.upstream_sends(upstream(&[PARSED, IDLE]));
    pg.client_sends(client(&[parse("b", "select 2"), SYNC]));
    assert_eq!(refused(&mut pg), (RequestKind::Prepare, "select 2".into()));
    pg.upstream_sends(upstream(&[error("42601", SYNTAX), IDLE]));
    pg.take_upstream();
    pg.client_sends(client(&[bind("p", "a", &[]), execute("p"), SYNC]));
    assert_eq!(refused(&mut pg), (RequestKind::Execute, "select 1".into()));
    assert_eq!(pg.closed(), None);
}

#[test]
fn refusals_keep_their_place_among_requests() {
    let limits = SessionLimits { statement_max: 10, ..SessionLimits::default() };
    let mut pg = ready_with(SessionConfig { limits, ..config() });
    pg.client_sends(client(&[q("select 1"), q("select 1234567890"), q("select 2")]));
    assert_eq!(pg.permit(Disclosure::default()).id, RequestId(1));
    assert_eq!(pg.take_upstream(), query("select 1"));
    assert_eq!(refused(&mut pg).1, "select 1234567890");
    assert_eq!(pg.permit(Disclosure::default()).id, RequestId(3));
    assert_eq!(pg.take_upstream(), [query("sallyport_denied"), query("select 2")].concat());
}
