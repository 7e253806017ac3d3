//! Simple queries, COPY, cancel, ends.

use crate::common::*;
use proto_postgres::message::*;
use proxy_core::record::OutcomeStatus;
use proxy_core::*;

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
    pg.upstream_sends(&answer);
    assert_eq!(pg.take_client(), answer);
    let outcomes = pg.take_outcomes();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].status, OutcomeStatus::Completed);
    assert_eq!((outcomes[0].rows, outcomes[0].columns_passed), (1, 1));
    assert_eq!(outcomes[0].tag.as_deref(), Some(&b"SELECT 1"[..]));
    assert_eq!(outcomes[0].bytes, answer.len() as u64);
}
