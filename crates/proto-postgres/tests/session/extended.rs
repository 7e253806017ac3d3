//! The extended protocol.

use crate::common::*;
use proto_postgres::message::*;
use proxy_core::record::OutcomeStatus;
use proxy_core::*;

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
    let answer = upstream(&[
        UpstreamMessage::ParseComplete,
        UpstreamMessage::BindComplete,
        columns(&[("a", 0, 0)]),
        row(&["x"]),
        complete("SELECT 1"),
        IDLE,
    ]);
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
    let outcomes = pg.take_outcomes();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].status, OutcomeStatus::Completed);
}
