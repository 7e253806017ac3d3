//! From the first byte to ready.

use crate::common::*;
use proto_postgres::message::*;
use proto_testkit::{Script, Seen};
use proxy_core::*;

#[test]
fn a_login_goes_through() {
    let mut pg = Script::new(proto_postgres::PostgresSession::new(config()), ID);
    pg.client_sends(startup(&[("user", "ci"), ("database", "shop"), ("application_name", "psql")]));
    assert_eq!(lines(Peer::Upstream, &pg.take_client()), ["Authentication CleartextPassword"]);
    pg.client_sends(password("token"));
    let Some(Seen::Authenticate(attempt)) = pg.take_seen() else { panic!("asks who it is") };
    assert_eq!((attempt.label.as_str(), attempt.database.as_str(), attempt.application.as_str()), ("ci", "shop", "psql"));
    pg.accept(None, target());
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
    let _ = UpstreamMessage::NoData;
}
