//! Masking and refusing results.

use crate::common::*;
use proxy_core::*;

#[test]
fn an_alias_does_not_hide_a_column() {
    let mut pg = ready();
    pg.allow_all(masking());
    pg.client_sends(query("select id, email as x from customers"));
    let described = columns(&[("id", 1, 1), ("x", 1, 2)]);
    pg.upstream_sends(upstream(&[described.clone(), row(&["1", "a@b.c"]), row(&["2", "null"]), complete("SELECT 2"), IDLE]));
    let got = pg.take_client();
    let masked_null =
        proto_postgres::message::UpstreamMessage::DataRow(proto_postgres::message::DataRow { values: vec![Some(b"2"), None] });
    assert_eq!(got, upstream(&[described, row(&["1", "***"]), masked_null, complete("SELECT 2"), IDLE]));
    let outcomes = pg.take_outcomes();
    assert_eq!((outcomes[0].columns_passed, outcomes[0].columns_masked), (1, 1));
    assert_eq!(outcomes[0].masked_classes, ["email"]);
    let _ = Peer::Client;
}
