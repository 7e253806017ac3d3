//! The extended protocol: pipelines, names, partial execution.

use crate::common::*;
use proto_postgres::message::{Bind, ClientMessage, Close, CopyResponse, Target, UpstreamMessage};
use proto_postgres::types::FormatCode;
use proxy_core::record::OutcomeStatus;
use proxy_core::{Disclosure, Peer, Request, RequestId, RequestKind, Statement, ValueFormat};

const PARSED: UpstreamMessage<'static> = UpstreamMessage::ParseComplete;
const BOUND: UpstreamMessage<'static> = UpstreamMessage::BindComplete;
const CLOSED: UpstreamMessage<'static> = UpstreamMessage::CloseComplete;

fn sql(request: &Request) -> &str {
    match &request.statement {
        Statement::Sql(text) => std::str::from_utf8(text).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn statuses(pg: &mut Pg) -> Vec<(u64, OutcomeStatus)> {
    pg.take_outcomes().iter().map(|o| (o.request.0, o.status)).collect()
}

#[test]
fn parse_bind_execute_is_one_request_and_one_send() {
    let mut pg = ready();
    let sent = client(&[parse("", "select $1"), bind("", "", &["x"]), describe_portal(""), execute(""), SYNC]);
    pg.client_sends(&sent);
    assert_eq!(pg.waiting(), 1);
    assert_eq!(pg.take_upstream(), b"");
    let request = pg.permit(Disclosure::default());
    assert_eq!(request.kind, RequestKind::Execute);
    assert_eq!(request.statement, Statement::Sql("select $1".into()));
    assert_eq!(request.prepared_as.as_deref(), Some(&b""[..]));
    assert_eq!(request.parameters[0].value.as_deref(), Some(&b"x"[..]));
    assert_eq!(pg.sends(), [(sent.into(), RequestId(1))]);
    let answer = upstream(&[PARSED, BOUND, columns(&[("a", 0, 0)]), row(&["x"]), complete("SELECT 1"), IDLE]);
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
    let outcomes = pg.take_outcomes();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].status, OutcomeStatus::Completed);
}

#[test]
fn re_executions_of_a_prepared_statement_are_requests_with_their_values() {
    let mut pg = ready();
    pg.client_sends(client(&[parse("s", "select $1"), SYNC]));
    let prepare = pg.permit(Disclosure::default());
    assert_eq!((prepare.kind, prepare.prepared_as.as_deref()), (RequestKind::Prepare, Some(&b"s"[..])));
    pg.upstream_sends(upstream(&[PARSED, IDLE]));
    for value in ["1", "2"] {
        pg.take_upstream();
        let sent = client(&[bind("", "s", &[value]), execute(""), SYNC]);
        pg.client_sends(&sent);
        let request = pg.permit(Disclosure::default());
        assert_eq!((request.kind, sql(&request)), (RequestKind::Execute, "select $1"));
        assert_eq!(request.parameters[0].value.as_deref(), Some(value.as_bytes()));
        assert_eq!(pg.sends().len(), 1, "Bind goes with its Execute: one write");
        assert_eq!(pg.take_upstream(), sent);
        pg.upstream_sends(upstream(&[BOUND, row(&[value]), complete("SELECT 1"), IDLE]));
    }
    assert_eq!(pg.take_outcomes().len(), 3);
}

#[test]
fn binary_parameters_come_with_their_format() {
    let mut pg = ready();
    let bind = ClientMessage::Bind(Bind {
        portal: b"",
        statement: b"",
        parameter_formats: vec![FormatCode::TEXT, FormatCode::BINARY],
        parameters: vec![Some(b"a"), Some(b"\0\x01")],
        result_formats: vec![FormatCode::BINARY],
    });
    pg.client_sends(client(&[parse("", "select $1, $2"), bind, execute(""), SYNC]));
    let request = pg.permit(Disclosure::default());
    let formats: Vec<_> = request.parameters.iter().map(|p| p.format).collect();
    assert_eq!(formats, [ValueFormat::Text, ValueFormat::Binary]);
}

#[test]
fn a_pipeline_is_decided_as_a_whole_and_forwarded_in_order() {
    let mut pg = ready();
    let sent = client(&[
        parse("a", "select 1"),
        bind("", "a", &[]),
        execute(""),
        parse("b", "select 2"),
        bind("", "b", &[]),
        execute(""),
        SYNC,
    ]);
    pg.client_sends(&sent);
    assert_eq!(pg.waiting(), 2);
    pg.permit(Disclosure::default());
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Parse", "Bind", "Execute"]);
    pg.permit(Disclosure::default());
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Parse", "Bind", "Execute", "Sync"]);
    pg.upstream_sends(upstream(&[PARSED, BOUND, complete("SELECT 1"), PARSED, BOUND, complete("SELECT 1"), IDLE]));
    assert_eq!(statuses(&mut pg), [(1, OutcomeStatus::Completed), (2, OutcomeStatus::Completed)]);
}

#[test]
fn a_parse_never_goes_under_another_statements_permit() {
    let mut pg = ready();
    pg.client_sends(client(&[parse("a", "select 1"), parse("b", "drop table t"), bind("", "a", &[]), execute(""), SYNC]));
    assert_eq!(pg.waiting(), 3);
    let texts: Vec<_> = pg.asked()[1..].iter().map(|r| (r.kind, sql(r).to_owned())).collect();
    let kind = RequestKind::Prepare;
    let expected = [(kind, "select 1".into()), (kind, "drop table t".into()), (RequestKind::Execute, "select 1".into())];
    assert_eq!(texts, expected);
    pg.permit(Disclosure::default());
    pg.deny(denial());
    assert_eq!(lines(Peer::Client, &pg.take_upstream())[1], "Parse statement=sallyport_denied types=[] sallyport_denied");
}

#[test]
fn requests_behind_an_error_are_skipped() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[
        parse("", "select 1/0"),
        bind("", "", &[]),
        execute(""),
        parse("", "select 2"),
        bind("", "", &[]),
        execute(""),
        SYNC,
        q("select 3"),
    ]));
    pg.upstream_sends(upstream(&[PARSED, BOUND, error("22012", "division by zero"), IDLE]));
    assert_eq!(statuses(&mut pg), [(1, OutcomeStatus::Failed), (2, OutcomeStatus::Skipped)]);
    pg.upstream_sends(upstream(&[columns(&[("a", 0, 0)]), row(&["3"]), complete("SELECT 1"), IDLE]));
    assert_eq!(statuses(&mut pg), [(3, OutcomeStatus::Completed)]);
}

#[test]
fn after_an_error_the_clients_messages_are_dropped_to_its_sync() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[parse("", "selec"), FLUSH]));
    pg.upstream_sends(upstream(&[error("42601", "syntax error")]));
    pg.take_upstream();
    let asked = pg.asked().len();
    pg.client_sends(client(&[bind("", "", &[]), execute(""), q("drop table t"), SYNC]));
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Sync"], "as the server would skip them");
    assert_eq!(pg.asked().len(), asked);
    pg.upstream_sends(upstream(&[IDLE]));
    pg.client_sends(query("select 1"));
    assert_eq!(pg.take_upstream(), query("select 1"));
    assert_eq!(pg.closed(), None);
}

#[test]
fn verdicts_that_an_error_made_useless_are_withdrawn() {
    let mut pg = ready();
    pg.client_sends(client(&[parse("", "selec"), FLUSH]));
    pg.permit(Disclosure::default());
    pg.client_sends(client(&[parse("x", "select 1"), bind("", "x", &[]), execute("")]));
    assert_eq!(pg.waiting(), 1);
    pg.upstream_sends(upstream(&[error("42601", "syntax error")]));
    assert_eq!(pg.waiting(), 0);
    assert_eq!(pg.take_seen(), Some(proto_testkit::Seen::Withdraw(RequestId(2), RequestId(2))));
    pg.client_sends(client(&[SYNC]));
    pg.upstream_sends(upstream(&[IDLE]));
    assert_eq!(statuses(&mut pg), [(1, OutcomeStatus::Failed)]);
    assert_eq!(pg.closed(), None);
}

#[test]
fn partial_execution_is_a_request_each_time() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("begin"));
    pg.upstream_sends(upstream(&[complete("BEGIN"), OPEN]));
    pg.client_sends(client(&[parse("", "select g"), bind("p", "", &[]), execute_rows("p", 1), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, BOUND, row(&["1"]), UpstreamMessage::PortalSuspended, OPEN]));
    pg.client_sends(client(&[execute_rows("p", 1), SYNC]));
    pg.upstream_sends(upstream(&[row(&["2"]), complete("SELECT 1"), OPEN]));
    let texts: Vec<_> = pg.asked()[2..].iter().map(|r| (r.portal.clone(), sql(r).to_owned())).collect();
    assert_eq!(texts, [(Some("p".into()), "select g".into()), (Some("p".into()), "select g".into())]);
    let rows: Vec<_> = pg.take_outcomes().iter().map(|o| o.rows).collect();
    assert_eq!(rows, [0, 1, 1]);
}

#[test]
fn a_portal_that_this_protocol_did_not_make_is_a_cursor_by_name() {
    let mut pg = ready();
    pg.client_sends(client(&[execute("cur"), SYNC]));
    let request = pg.permit(Disclosure::default());
    assert_eq!(request.statement, Statement::Named { cursor: true, name: "cur".into() });
}

#[test]
fn a_statement_that_was_prepared_in_sql_is_known_by_name() {
    let mut pg = ready();
    pg.client_sends(client(&[bind("", "made_in_sql", &["1"]), execute(""), SYNC]));
    let request = pg.permit(Disclosure::default());
    assert_eq!(request.statement, Statement::Named { cursor: false, name: "made_in_sql".into() });
    assert_eq!(request.parameters.len(), 1);
}

#[test]
fn a_parse_that_fails_on_the_server_does_not_change_what_a_name_means() {
    // The attack: "s" deletes. A second Parse of "s" fails on the server, which keeps the old text; a
    // gateway that believed the client would judge "select 1" while the server deletes.
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[parse("s", "delete from orders"), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, IDLE]));
    pg.decide_by_hand();
    pg.client_sends(client(&[parse("s", "select 1"), SYNC, bind("", "s", &[]), execute(""), SYNC]));
    pg.permit(Disclosure::default());
    assert_eq!(pg.waiting(), 0, "the second stretch waits for the server's answer");
    pg.upstream_sends(upstream(&[error("42P05", "prepared statement \"s\" already exists"), IDLE]));
    let request = pg.permit(Disclosure::default());
    assert_eq!(sql(&request), "delete from orders");
}

#[test]
fn a_parse_that_succeeds_does_change_it() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[
        parse("", "delete from orders"),
        SYNC,
        parse("", "select 1"),
        SYNC,
        bind("", "", &[]),
        execute(""),
        SYNC,
    ]));
    pg.upstream_sends(upstream(&[PARSED, IDLE, PARSED, IDLE]));
    assert_eq!(sql(pg.asked().last().unwrap()), "select 1");
    pg.upstream_sends(upstream(&[BOUND, complete("SELECT 0"), IDLE]));
    assert_eq!(pg.closed(), None);
}

#[test]
fn an_unnamed_parse_that_was_skipped_leaves_the_old_one() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[parse("", "delete from orders"), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, IDLE]));
    let skipped = client(&[parse("x", "selec"), parse("", "select 1"), SYNC, bind("", "", &[]), execute(""), SYNC]);
    pg.client_sends(skipped);
    pg.upstream_sends(upstream(&[error("42601", "syntax error"), IDLE]));
    assert_eq!(sql(pg.asked().last().unwrap()), "delete from orders");
}

#[test]
fn a_close_that_is_skipped_leaves_the_name() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[parse("s", "delete from orders"), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, IDLE]));
    let close = ClientMessage::Close(Close { target: Target::Statement, name: b"s" });
    pg.client_sends(client(&[close.clone(), parse("s", "select 1"), bind("", "s", &[]), execute(""), SYNC]));
    assert_eq!(sql(pg.asked().last().unwrap()), "select 1", "within one stretch the client's order holds");
    pg.upstream_sends(upstream(&[CLOSED, PARSED, BOUND, complete("SELECT 0"), IDLE]));
    assert_eq!(pg.closed(), None);
}

#[test]
fn sql_that_remakes_a_protocol_name_does_not_fool_the_record() {
    // DEALLOCATE and PREPARE in SQL give the protocol's name another text.
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[parse("s", "select 1"), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, IDLE]));
    let asked = pg.asked().len();
    let remake = "deallocate s; prepare s as delete from orders";
    pg.client_sends(client(&[q(remake), bind("", "s", &[]), execute(""), SYNC]));
    assert_eq!(pg.asked().len(), asked + 1, "the name waits for the answer");
    pg.upstream_sends(upstream(&[complete("DEALLOCATE"), complete("PREPARE"), IDLE]));
    assert_eq!(pg.asked().last().unwrap().statement, Statement::Named { cursor: false, name: "s".into() });
}

#[test]
fn a_cursor_declared_over_a_portal_is_known_by_name() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("begin"));
    pg.upstream_sends(upstream(&[complete("BEGIN"), OPEN]));
    pg.client_sends(client(&[parse("", "select 1"), bind("p", "", &[]), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, BOUND, OPEN]));
    pg.client_sends(client(&[q("close p; declare p cursor for select secret from t"), execute("p"), SYNC]));
    pg.upstream_sends(upstream(&[complete("CLOSE CURSOR"), complete("DECLARE CURSOR"), OPEN]));
    assert_eq!(pg.asked().last().unwrap().statement, Statement::Named { cursor: true, name: "p".into() });
}

#[test]
fn a_full_pipeline_stops_reading_and_asks_for_answers() {
    let mut config = config();
    config.limits.pipeline_max = 4;
    let mut pg = ready_with(config);
    pg.allow_all(Disclosure::default());
    let mut messages = vec![parse("s", "select 1")];
    for _ in 0..20 {
        messages.extend([bind("", "s", &[]), execute("")]);
    }
    messages.push(SYNC);
    pg.client_sends(client(&messages));
    let mut executed = 0;
    pg.upstream_sends(upstream(&[PARSED]));
    while executed < 20 {
        let sent = names(Peer::Client, &pg.take_upstream());
        let now = sent.iter().filter(|name| *name == "Execute").count();
        assert!(now > 0 && now <= 4, "{now} at once: {sent:?}");
        if executed + now < 20 {
            assert_eq!(sent.last().map(String::as_str), Some("Flush"), "else the server would keep its answers");
        }
        executed += now;
        for _ in 0..now {
            pg.upstream_sends(upstream(&[BOUND, complete("SELECT 1")]));
        }
    }
    pg.upstream_sends(upstream(&[IDLE]));
    assert_eq!(pg.closed(), None);
    assert_eq!(pg.take_outcomes().len(), 20);
}

#[test]
fn too_many_prepared_statements_are_refused() {
    let mut config = config();
    config.limits.prepared_max = 2;
    let mut pg = ready_with(config);
    pg.allow_all(Disclosure::default());
    for name in ["a", "b"] {
        pg.client_sends(client(&[parse(name, "select 1"), SYNC]));
        pg.upstream_sends(upstream(&[PARSED, IDLE]));
    }
    pg.take_client();
    pg.client_sends(client(&[parse("c", "select 1"), SYNC]));
    pg.upstream_sends(upstream(&[error("42601", "syntax error"), IDLE]));
    assert!(lines(Peer::Upstream, &pg.take_client())[0].contains("54000"));
    assert_eq!(pg.closed(), None);
}

#[test]
fn a_sync_that_copy_reads_over_is_not_waited_for() {
    // libpq sends Sync right behind the Execute of a COPY; the server reads over it.
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    let copy = UpstreamMessage::CopyInResponse(CopyResponse { binary: false, formats: vec![FormatCode::TEXT] });
    pg.client_sends(client(&[parse("", "copy t from stdin"), bind("", "", &[]), execute(""), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, BOUND, copy.clone()]));
    pg.client_sends(client(&[ClientMessage::CopyData(b"1\n"), ClientMessage::CopyDone, SYNC]));
    pg.upstream_sends(upstream(&[complete("COPY 1"), IDLE]));
    assert_eq!(pg.take_outcomes()[0].rows, 1);
    // The same, with an error before the first row is read: there the server answers both.
    pg.client_sends(client(&[parse("", "copy t from stdin"), bind("", "", &[]), execute(""), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, BOUND, copy, error("P0001", "trigger"), IDLE]));
    pg.client_sends(client(&[ClientMessage::CopyDone, SYNC]));
    pg.upstream_sends(upstream(&[IDLE]));
    assert_eq!(pg.closed(), None);
    pg.client_sends(query("select 1"));
    assert!(pg.take_upstream().ends_with(&query("select 1")));
}

#[test]
fn a_copy_in_the_extended_protocol_that_fails_skips_to_the_sync() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    let copy = UpstreamMessage::CopyInResponse(CopyResponse { binary: false, formats: vec![FormatCode::TEXT] });
    pg.client_sends(client(&[parse("", "copy t from stdin"), bind("", "", &[]), execute(""), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, BOUND, copy]));
    pg.client_sends(client(&[ClientMessage::CopyData(b"bad\n")]));
    pg.upstream_sends(upstream(&[error("22P02", "invalid input")]));
    pg.take_upstream();
    pg.client_sends(client(&[ClientMessage::CopyData(b"more\n"), ClientMessage::CopyDone, SYNC]));
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Sync"]);
    pg.upstream_sends(upstream(&[IDLE]));
    pg.client_sends(query("select 1"));
    pg.upstream_sends(upstream(&[complete("SELECT 1"), IDLE]));
    assert_eq!(pg.closed(), None);
    assert_eq!(statuses(&mut pg), [(1, OutcomeStatus::Failed), (2, OutcomeStatus::Completed)]);
}

#[test]
fn an_error_at_the_sync_itself_passes() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[parse("", "insert"), bind("", "", &[]), execute(""), SYNC]));
    let answer = upstream(&[PARSED, BOUND, complete("INSERT 0 1"), error("23503", "deferred constraint"), IDLE]);
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
    assert_eq!(pg.closed(), None);
}

#[test]
fn describe_of_a_statement_has_two_answers() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(client(&[parse("s", "select $1"), describe_statement("s"), SYNC]));
    let answer = upstream(&[PARSED, UpstreamMessage::ParameterDescription(vec![25]), columns(&[("a", 0, 0)]), IDLE]);
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
    pg.client_sends(client(&[describe_statement("s"), SYNC]));
    let answer = upstream(&[UpstreamMessage::ParameterDescription(vec![25]), UpstreamMessage::NoData, IDLE]);
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
    assert_eq!(pg.closed(), None);
}

#[test]
fn a_portal_is_still_known_after_a_query_that_only_speaks_of_closing() {
    let mut pg = ready();
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("begin"));
    pg.upstream_sends(upstream(&[complete("BEGIN"), OPEN]));
    pg.client_sends(client(&[parse("", "select open, close from prices"), bind("p", "", &[]), execute_rows("p", 1), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, BOUND, row(&["1", "2"]), UpstreamMessage::PortalSuspended, OPEN]));
    pg.client_sends(query("select 'close'"));
    pg.upstream_sends(upstream(&[columns(&[("a", 0, 0)]), complete("SELECT 0"), OPEN]));
    pg.client_sends(client(&[execute_rows("p", 1), SYNC]));
    assert_eq!(sql(pg.asked().last().unwrap()), "select open, close from prices");
}
