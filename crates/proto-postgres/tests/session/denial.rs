//! Denials, holds, cancels.

use crate::common::*;
use proto_postgres::message::*;
use proxy_core::*;

#[test]
fn a_denied_query_leaves_the_session_as_the_servers_own_error_would() {
    let mut pg = ready();
    pg.client_sends(query("delete from orders"));
    pg.deny(crate::common::denial());
    assert_eq!(pg.take_upstream(), query("sallyport_denied"));
    pg.upstream_sends(upstream(&[error("42601", "syntax error at or near \"sallyport_denied\""), FAILED]));
    let seen = lines(Peer::Client, b"");
    assert!(seen.is_empty());
    assert_eq!(lines(Peer::Upstream, &pg.take_client()), ["ErrorResponse ERROR 42501 no", "ReadyForQuery Failed"]);
    assert!(pg.take_outcomes().is_empty());
    pg.allow_all(Disclosure::default());
    pg.client_sends(query("rollback"));
    assert_eq!(pg.take_upstream(), query("rollback"));
    let _ = UpstreamMessage::NoData;
}
