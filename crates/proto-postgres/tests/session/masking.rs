//! Masking and refusing results, in every channel by which rows leave.

use crate::common::*;
use bytes::Bytes;
use proto_postgres::message::{
    Bind, ClientMessage, CopyResponse, DataRow, ErrorFields, Field, FunctionCall, RowDescription, UpstreamMessage,
};
use proto_postgres::types::FormatCode;
use proto_testkit::Seen;
use proxy_core::record::OutcomeStatus;
use proxy_core::results::CopyFormat;
use proxy_core::{CloseReason, ColumnRule, CopyShape, Disclosure, Peer, RequestId};
use std::sync::Arc;

const PARSED: UpstreamMessage<'static> = UpstreamMessage::ParseComplete;
const BOUND: UpstreamMessage<'static> = UpstreamMessage::BindComplete;

fn copy_out(columns: usize) -> UpstreamMessage<'static> {
    UpstreamMessage::CopyOutResponse(CopyResponse { binary: false, formats: vec![FormatCode::TEXT; columns] })
}

fn text_format() -> CopyFormat {
    CopyFormat::Text { delimiter: b'\t', null: Bytes::from_static(b"\\N"), header: false }
}

fn copy_disclosure(rules: Vec<ColumnRule>) -> Disclosure {
    let types = vec![25; rules.len()];
    Disclosure { copy: CopyShape::Columns { rules, format: text_format(), types }, ..masking() }
}

fn mask() -> ColumnRule {
    ColumnRule::Mask(Arc::new(Stars))
}

#[test]
fn an_alias_does_not_hide_a_column() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(query("select id, email as x from customers"));
    let described = columns(&[("id", 1, 1), ("x", 1, 2)]);
    let rows = [row(&["1", "a@b.c"]), row(&["2", "null"])];
    pg.upstream_sends(upstream(&[described.clone(), rows[0].clone(), rows[1].clone(), complete("SELECT 2"), IDLE]));
    let masked_null = UpstreamMessage::DataRow(DataRow { values: vec![Some(b"2"), None] });
    assert_eq!(pg.take_client(), upstream(&[described, row(&["1", "***"]), masked_null, complete("SELECT 2"), IDLE]));
    let outcomes = pg.take_outcomes();
    assert_eq!((outcomes[0].columns_passed, outcomes[0].columns_masked, outcomes[0].rows), (1, 1, 2));
    assert_eq!(outcomes[0].masked_classes, ["email"]);
}

#[test]
fn each_result_of_a_batch_has_its_own_columns() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(query("select id from customers; select email from customers"));
    pg.upstream_sends(upstream(&[
        columns(&[("id", 1, 1)]),
        row(&["1"]),
        complete("SELECT 1"),
        columns(&[("email", 1, 2)]),
        row(&["a@b.c"]),
        complete("SELECT 1"),
        IDLE,
    ]));
    let got = String::from_utf8_lossy(&pg.take_client()).into_owned();
    assert!(!got.contains("a@b.c") && got.contains("***"));
}

#[test]
fn re_execution_without_describe_is_masked() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(client(&[parse("s", "select email from customers"), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, IDLE]));
    for _ in 0..2 {
        pg.take_upstream();
        pg.take_client();
        pg.client_sends(client(&[bind("", "s", &[]), execute(""), SYNC]));
        assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Bind", "Describe", "Execute", "Sync"]);
        pg.upstream_sends(upstream(&[BOUND, columns(&[("email", 1, 2)]), row(&["a@b.c"]), complete("SELECT 1"), IDLE]));
        assert_eq!(
            pg.take_client(),
            upstream(&[BOUND, row(&["***"]), complete("SELECT 1"), IDLE]),
            "our Describe's answer is not the client's"
        );
    }
}

#[test]
fn the_clients_own_describe_is_still_answered() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(client(&[parse("", "select email"), bind("", "", &[]), describe_portal(""), execute(""), SYNC]));
    let described = columns(&[("email", 1, 2)]);
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Parse", "Bind", "Describe", "Describe", "Execute", "Sync"]);
    pg.upstream_sends(upstream(&[PARSED, BOUND, described.clone(), described.clone(), row(&["a"]), complete("SELECT 1"), IDLE]));
    assert_eq!(pg.take_client(), upstream(&[PARSED, BOUND, described, row(&["***"]), complete("SELECT 1"), IDLE]));
}

#[test]
fn binary_values_are_masked_as_binary() {
    let mut pg = ready();
    pg.allow_all(masking());
    let bind = ClientMessage::Bind(Bind {
        portal: b"",
        statement: b"",
        parameter_formats: vec![],
        parameters: vec![],
        result_formats: vec![FormatCode::BINARY],
    });
    pg.client_sends(client(&[parse("", "select email"), bind, execute(""), SYNC]));
    let field =
        Field { name: b"e", table: 1, column: 2, type_id: 25, type_size: -1, type_modifier: -1, format: FormatCode::BINARY };
    let described = UpstreamMessage::RowDescription(RowDescription { fields: vec![field] });
    pg.upstream_sends(upstream(&[PARSED, BOUND, described, row(&["\u{1}\u{2}"]), complete("SELECT 1"), IDLE]));
    assert_eq!(pg.take_client(), upstream(&[PARSED, BOUND, row(&["bin"]), complete("SELECT 1"), IDLE]));
}

#[test]
fn a_statement_without_rows_has_no_rows() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(client(&[parse("", "update t"), bind("", "", &[]), execute(""), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, BOUND, UpstreamMessage::NoData, complete("UPDATE 1"), IDLE]));
    assert_eq!(pg.take_client(), upstream(&[PARSED, BOUND, complete("UPDATE 1"), IDLE]));
    pg.client_sends(client(&[bind("", "", &[]), execute(""), SYNC]));
    pg.upstream_sends(upstream(&[BOUND, UpstreamMessage::NoData, row(&["a@b.c"])]));
    assert!(matches!(pg.closed(), Some(CloseReason::UpstreamViolation(_))));
    assert!(!String::from_utf8_lossy(&pg.take_client()).contains("a@b.c"));
}

#[test]
fn rows_with_rules_and_no_description_never_pass() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(query("select email"));
    pg.upstream_sends(upstream(&[row(&["a@b.c"])]));
    assert!(matches!(pg.closed(), Some(CloseReason::UpstreamViolation(_))));
    assert!(!String::from_utf8_lossy(&pg.take_client()).contains("a@b.c"));
}

#[test]
fn a_row_that_does_not_fit_its_description_never_passes() {
    // Fewer fields (RUSTSEC-2026-0178), a negative length (CVE-2026-32286).
    for bad in [upstream(&[row(&["a@b.c"])]), b"D\0\0\0\x0e\0\x02\xff\xff\xff\xfe\0\0\0\0".to_vec()] {
        let mut pg = ready();
        pg.allow_all(masking());
        pg.client_sends(query("select"));
        pg.upstream_sends([upstream(&[columns(&[("id", 1, 1), ("email", 1, 2)])]), bad].concat());
        assert!(matches!(pg.closed(), Some(CloseReason::UpstreamViolation(_))));
        assert!(!String::from_utf8_lossy(&pg.take_client()).contains("a@b.c"));
    }
}

#[test]
fn a_refused_column_refuses_the_result_and_the_session_goes_on() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(client(&[q("select secret"), q("select id")]));
    pg.upstream_sends(upstream(&[columns(&[("secret", 2, 1)]), row(&["classified"])]));
    pg.upstream_sends(upstream(&[row(&["classified"]), complete("SELECT 2"), IDLE]));
    let got = lines(Peer::Upstream, &pg.take_client());
    assert_eq!(got, ["ErrorResponse ERROR 42501 \"column secret must not be seen\"", "ReadyForQuery Idle"]);
    let outcome = pg.take_outcomes().remove(0);
    assert_eq!((outcome.status, outcome.columns_refused), (OutcomeStatus::Refused, 1));
    assert_eq!(pg.take_seen(), None, "a short result is not cancelled: the cancel could hit the next statement");
    pg.upstream_sends(upstream(&[columns(&[("id", 1, 1)]), row(&["1"]), complete("SELECT 1"), IDLE]));
    assert_eq!(names(Peer::Upstream, &pg.take_client()).len(), 4);
}

#[test]
fn whose_result_is_refused_learns_that_the_statement_ran_and_so_does_the_record() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(query("update t set a = 1 returning secret"));
    pg.upstream_sends(upstream(&[columns(&[("secret", 2, 1)]), row(&["classified"]), complete("UPDATE 1"), IDLE]));
    let said = String::from_utf8(pg.take_client()).unwrap();
    assert!(said.contains("request 1. The target has been sent this statement") && !said.contains("classified"), "{said}");
    let outcome = pg.take_outcomes().remove(0);
    assert_eq!((outcome.status, outcome.tag.as_deref(), outcome.rows), (OutcomeStatus::Refused, Some(&b"UPDATE 1"[..]), 1));
}

#[test]
fn a_refused_result_that_streams_is_cancelled_once() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(query("select secret"));
    pg.upstream_sends(upstream(&[columns(&[("secret", 2, 1)])]));
    let long = "s".repeat(60_000);
    for _ in 0..64 {
        pg.upstream_sends(upstream(&[row(&[&long])]));
    }
    assert!(matches!(pg.take_seen(), Some(Seen::CancelUpstream(_))));
    assert_eq!(pg.take_seen(), None);
    pg.upstream_sends(upstream(&[error("57014", "canceling statement due to user request"), IDLE]));
    assert_eq!(names(Peer::Upstream, &pg.take_client()), ["ErrorResponse", "ReadyForQuery"]);
    assert_eq!(pg.take_outcomes()[0].status, OutcomeStatus::Refused);
}

#[test]
fn a_refused_execute_fails_the_rest_of_its_pipeline() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(client(&[
        parse("", "select secret"),
        bind("", "", &[]),
        execute(""),
        parse("", "select id"),
        bind("", "", &[]),
        execute(""),
        SYNC,
    ]));
    pg.upstream_sends(upstream(&[
        PARSED,
        BOUND,
        columns(&[("secret", 2, 1)]),
        row(&["classified"]),
        complete("SELECT 1"),
        PARSED,
        BOUND,
        columns(&[("id", 1, 1)]),
        row(&["1"]),
        complete("SELECT 1"),
        IDLE,
    ]));
    let got = names(Peer::Upstream, &pg.take_client());
    assert_eq!(got, ["ParseComplete", "BindComplete", "ErrorResponse", "ReadyForQuery"]);
    let statuses: Vec<_> = pg.take_outcomes().iter().map(|o| o.status).collect();
    assert_eq!(statuses, [OutcomeStatus::Refused, OutcomeStatus::Completed]);
    assert_eq!(pg.closed(), None);
}

#[test]
fn a_row_too_long_to_be_masked_is_refused() {
    let mut config = config();
    config.limits.masked_row_max = 1000;
    let mut pg = ready_with(config);
    pg.allow_all(masking());
    pg.client_sends(query("select email"));
    let long = "e".repeat(2000);
    let answer = upstream(&[columns(&[("email", 1, 2)]), row(&["short"]), row(&[&long]), complete("SELECT 2"), IDLE]);
    for piece in answer.chunks(100) {
        pg.upstream_sends(piece);
    }
    let got = names(Peer::Upstream, &pg.take_client());
    assert_eq!(got, ["RowDescription", "DataRow", "ErrorResponse", "ReadyForQuery"]);
}

#[test]
fn copy_to_stdout_is_masked() {
    let mut pg = ready();
    pg.allow_all(copy_disclosure(vec![ColumnRule::Pass, mask()]));
    pg.client_sends(query("copy customers to stdout"));
    pg.upstream_sends(upstream(&[
        copy_out(2),
        UpstreamMessage::CopyData(b"1\ta@b"),
        UpstreamMessage::CopyData(b".c\n2\t\\N\n"),
        UpstreamMessage::CopyDone,
        complete("COPY 2"),
        IDLE,
    ]));
    assert_eq!(
        pg.take_client(),
        upstream(&[
            copy_out(2),
            UpstreamMessage::CopyData(b"1\t***\n"),
            UpstreamMessage::CopyData(b"2\t\\N\n"),
            UpstreamMessage::CopyDone,
            complete("COPY 2"),
            IDLE,
        ])
    );
    let outcome = pg.take_outcomes().remove(0);
    assert_eq!((outcome.rows, outcome.columns_masked, outcome.columns_passed), (2, 1, 1));
}

#[test]
fn a_copy_whose_columns_are_not_known_is_refused() {
    for (disclosure, columns) in
        [(masking(), 2), (copy_disclosure(vec![mask()]), 2), (copy_disclosure(vec![ColumnRule::Refuse("no".into()), mask()]), 2)]
    {
        let mut pg = ready();
        pg.allow_all(disclosure);
        pg.client_sends(query("copy customers to stdout"));
        pg.upstream_sends(upstream(&[copy_out(columns), UpstreamMessage::CopyData(b"1\ta@b.c\n")]));
        pg.upstream_sends(upstream(&[UpstreamMessage::CopyDone, complete("COPY 1"), IDLE]));
        assert_eq!(names(Peer::Upstream, &pg.take_client()), ["ErrorResponse", "ReadyForQuery"]);
        assert_eq!(pg.take_outcomes()[0].status, OutcomeStatus::Refused);
    }
}

#[test]
fn a_second_copy_in_one_batch_is_refused() {
    let mut pg = ready();
    pg.allow_all(copy_disclosure(vec![mask()]));
    pg.client_sends(query("copy a to stdout; copy b to stdout"));
    let one = [copy_out(1), UpstreamMessage::CopyData(b"x\n"), UpstreamMessage::CopyDone, complete("COPY 1")];
    pg.upstream_sends([upstream(&one), upstream(&one), upstream(&[IDLE])].concat());
    let got = names(Peer::Upstream, &pg.take_client());
    assert_eq!(got, ["CopyOutResponse", "CopyData", "CopyDone", "CommandComplete", "ErrorResponse", "ReadyForQuery"]);
}

#[test]
fn a_copy_behind_a_change_in_its_batch_is_refused() {
    // The columns were found before the batch ran: `alter table … rename` could have made others of them.
    for (first, passes) in [("BEGIN", true), ("ALTER TABLE", false), ("CREATE VIEW", false)] {
        let mut pg = ready();
        pg.allow_all(copy_disclosure(vec![mask()]));
        pg.client_sends(query("…; copy a to stdout"));
        let copy = [copy_out(1), UpstreamMessage::CopyData(b"x\n"), UpstreamMessage::CopyDone, complete("COPY 1")];
        pg.upstream_sends([upstream(&[complete(first)]), upstream(&copy), upstream(&[IDLE])].concat());
        let got = names(Peer::Upstream, &pg.take_client());
        assert_eq!(got.iter().any(|name| name == "ErrorResponse"), !passes, "{first}: {got:?}");
    }
}

fn describe_disclosure() -> Disclosure {
    let query = Bytes::from_static(b"select id, email from customers");
    Disclosure { copy: CopyShape::Describe { query, format: text_format() }, ..masking() }
}

const COPY_QUERY: &str = "copy (select id, email from customers) to stdout";

#[test]
fn the_query_of_a_copy_is_described_first() {
    let mut pg = ready();
    pg.client_sends(query(COPY_QUERY));
    pg.permit(describe_disclosure());
    assert!(pg.sends().iter().all(|(_, request)| *request == RequestId(1)));
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Parse", "Describe", "Close", "Sync"]);
    pg.upstream_sends(upstream(&[
        PARSED,
        UpstreamMessage::ParameterDescription(vec![]),
        columns(&[("id", 1, 1), ("email", 1, 2)]),
        UpstreamMessage::CloseComplete,
        IDLE,
    ]));
    assert_eq!(pg.take_client(), b"", "all of that is the gateway's own");
    assert_eq!(pg.take_upstream(), query(COPY_QUERY));
    let done = [UpstreamMessage::CopyDone, complete("COPY 1"), IDLE];
    pg.upstream_sends([upstream(&[copy_out(2), UpstreamMessage::CopyData(b"1\ta@b.c\n")]), upstream(&done)].concat());
    let expected = [upstream(&[copy_out(2), UpstreamMessage::CopyData(b"1\t***\n")]), upstream(&done)].concat();
    assert_eq!(pg.take_client(), expected);
    assert_eq!(pg.take_outcomes().len(), 1);
}

#[test]
fn a_query_of_a_copy_that_fails_is_the_copys_failure() {
    let mut pg = ready();
    pg.client_sends(client(&[q(COPY_QUERY), q("select 1")]));
    pg.permit(describe_disclosure());
    pg.permit(Disclosure::default());
    pg.take_upstream();
    pg.upstream_sends(upstream(&[error("42P01", "relation does not exist"), FAILED]));
    assert_eq!(names(Peer::Upstream, &pg.take_client()), ["ErrorResponse", "ReadyForQuery"]);
    assert_eq!(pg.take_upstream(), query("select 1"), "the COPY itself is never sent; the next goes on");
    let outcome = pg.take_outcomes().remove(0);
    assert_eq!((outcome.status, outcome.code.as_deref()), (OutcomeStatus::Failed, Some(&b"42P01"[..])));
}

#[test]
fn a_query_of_a_copy_with_a_refused_column_never_runs() {
    let mut pg = ready();
    pg.client_sends(query(COPY_QUERY));
    pg.permit(describe_disclosure());
    pg.take_upstream();
    pg.upstream_sends(upstream(&[
        PARSED,
        UpstreamMessage::ParameterDescription(vec![]),
        columns(&[("secret", 2, 1)]),
        UpstreamMessage::CloseComplete,
        IDLE,
    ]));
    assert_eq!(pg.take_upstream(), query("sallyport_denied"));
    pg.upstream_sends(upstream(&[error("42601", "syntax error"), IDLE]));
    assert!(lines(Peer::Upstream, &pg.take_client())[0].contains("42501"));
    assert_eq!(pg.take_outcomes()[0].status, OutcomeStatus::Refused);
}

#[test]
fn a_copy_of_a_query_in_the_extended_protocol_is_refused_with_a_way_out() {
    let mut pg = ready();
    pg.client_sends(client(&[parse("", COPY_QUERY), bind("", "", &[]), execute(""), SYNC]));
    pg.permit(describe_disclosure());
    assert_eq!(names(Peer::Client, &pg.take_upstream()), ["Parse", "Sync"]);
    pg.upstream_sends(upstream(&[error("42601", "syntax error"), IDLE]));
    let answer = String::from_utf8_lossy(&pg.take_client()).into_owned();
    assert!(answer.contains("C42501") && answer.contains("simple query"), "{answer}");
    assert_eq!(pg.take_outcomes()[0].status, OutcomeStatus::Refused);
}

#[test]
fn a_function_calls_value_has_no_origin() {
    let call = ClientMessage::FunctionCall(FunctionCall {
        function: 1,
        argument_formats: vec![],
        arguments: vec![],
        result_format: FormatCode::TEXT,
    });
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(client(&[call]));
    pg.upstream_sends(upstream(&[UpstreamMessage::FunctionCallResponse(Some(b"x")), IDLE]));
    assert_eq!(names(Peer::Upstream, &pg.take_client()), ["FunctionCallResponse", "ReadyForQuery"]);
}

#[test]
fn a_replication_stream_with_rules_ends_the_session() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(query("START_REPLICATION SLOT s LOGICAL 0/0"));
    let both = UpstreamMessage::CopyBothResponse(CopyResponse { binary: false, formats: vec![] });
    pg.upstream_sends(upstream(&[both, UpstreamMessage::CopyData(b"secret")]));
    assert!(pg.closed().is_some());
    assert!(!String::from_utf8_lossy(&pg.take_client()).contains("secret"));
}

#[test]
fn errors_that_may_quote_values_are_withheld() {
    let fields = |code: &'static [u8]| ErrorFields {
        fields: vec![(b'S', b"ERROR"), (b'V', b"ERROR"), (b'C', code), (b'M', b"quotes a@b.c"), (b'D', b"Key (email)=(a@b.c)")],
    };
    let mut pg = ready();
    pg.allow_all(Disclosure { withhold_messages: true, ..masking() });
    pg.client_sends(query("insert"));
    let notice = UpstreamMessage::NoticeResponse(fields(b"01000"));
    pg.upstream_sends(upstream(&[notice, UpstreamMessage::ErrorResponse(fields(b"23505")), IDLE]));
    let answer = String::from_utf8_lossy(&pg.take_client()).into_owned();
    assert!(!answer.contains("a@b.c"), "{answer}");
    assert!(answer.contains("C23505") && answer.contains("withheld"), "{answer}");
    // In the extended protocol the failure may come at Bind already.
    pg.client_sends(client(&[parse("", "insert"), bind("", "", &[]), execute(""), SYNC]));
    pg.upstream_sends(upstream(&[PARSED, UpstreamMessage::ErrorResponse(fields(b"22P02")), IDLE]));
    assert!(!String::from_utf8_lossy(&pg.take_client()).contains("a@b.c"));
}

#[test]
fn however_the_bytes_are_cut_the_client_gets_the_same() {
    let answer = upstream(&[
        columns(&[("id", 1, 1), ("email", 1, 2)]),
        row(&["1", "a@b.c"]),
        row(&["22", "null"]),
        UpstreamMessage::NoticeResponse(ErrorFields { fields: vec![(b'S', b"NOTICE"), (b'M', b"m")] }),
        row(&["333", "a@b.c"]),
        complete("SELECT 3"),
        IDLE,
    ]);
    let whole = {
        let mut pg = ready();
        pg.allow_all(masking());
        pg.client_sends(query("select"));
        pg.upstream_sends(&answer);
        pg.take_client()
    };
    for size in 1..answer.len() {
        let mut pg = ready();
        pg.allow_all(masking());
        pg.client_sends(query("select"));
        answer.chunks(size).for_each(|piece| pg.upstream_sends(piece));
        assert_eq!(pg.take_client(), whole, "pieces of {size}");
    }
}
