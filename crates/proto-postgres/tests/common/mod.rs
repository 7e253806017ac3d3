//! A small language for PostgreSQL conversations.
#![allow(dead_code, reason = "each test file uses a part")]

use bytes::{BufMut, BytesMut};
use proto_postgres::message::{
    Authentication, BackendKeyData, Bind, ClientMessage, DataRow, Describe, ErrorFields, Execute, Field, ParameterStatus, Parse,
    Query, RowDescription, StartupPacket, Target, TransactionStatus, UpstreamMessage,
};
use proto_postgres::types::{FormatCode, ProtocolVersion};
use proto_postgres::{ClientTls, PostgresSession, SessionConfig};
use proto_testkit::{Script, Seen};
use proxy_core::limits::SessionLimits;
use proxy_core::session::{CancelKey, Denial, DenialKind, UpstreamLogin};
use proxy_core::{Applied, ColumnRule, Disclosure, Input, Mask, Origin, Peer, ResultRules, SessionId, ValueFormat, ValueType};
use std::sync::Arc;

pub(crate) const ID: SessionId = SessionId([7; 16]);

pub(crate) type Pg = Script<PostgresSession>;

pub(crate) fn config() -> SessionConfig {
    SessionConfig {
        id: ID,
        limits: SessionLimits::default(),
        client_tls: ClientTls::Optional,
        cancel_key: CancelKey { process: 42, secret: (0..32).collect() },
    }
}

pub(crate) fn target() -> UpstreamLogin {
    UpstreamLogin { user: "gateway".into(), database: "shop".into(), tls: false }
}

pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup_version(ProtocolVersion::V3_0, parameters)
}

pub(crate) fn startup_version(version: ProtocolVersion, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    StartupPacket::encode_startup(version, parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &mut out);
    out.to_vec()
}

pub(crate) fn client(messages: &[ClientMessage<'_>]) -> Vec<u8> {
    let mut out = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out.to_vec()
}

pub(crate) fn upstream(messages: &[UpstreamMessage<'_>]) -> Vec<u8> {
    let mut out = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out.to_vec()
}

pub(crate) fn query(text: &str) -> Vec<u8> {
    client(&[q(text)])
}

pub(crate) fn q(text: &str) -> ClientMessage<'_> {
    ClientMessage::Query(Query { text: text.as_bytes() })
}

pub(crate) fn parse<'a>(name: &'a str, text: &'a str) -> ClientMessage<'a> {
    ClientMessage::Parse(Parse { name: name.as_bytes(), query: text.as_bytes(), types: vec![] })
}

pub(crate) fn bind<'a>(portal: &'a str, statement: &'a str, values: &[&'a str]) -> ClientMessage<'a> {
    ClientMessage::Bind(Bind {
        portal: portal.as_bytes(),
        statement: statement.as_bytes(),
        parameter_formats: vec![],
        parameters: values.iter().map(|v| Some(v.as_bytes())).collect(),
        result_formats: vec![],
    })
}

pub(crate) fn describe_portal(name: &str) -> ClientMessage<'_> {
    ClientMessage::Describe(Describe { target: Target::Portal, name: name.as_bytes() })
}

pub(crate) fn describe_statement(name: &str) -> ClientMessage<'_> {
    ClientMessage::Describe(Describe { target: Target::Statement, name: name.as_bytes() })
}

pub(crate) fn execute(portal: &str) -> ClientMessage<'_> {
    execute_rows(portal, 0)
}

pub(crate) fn execute_rows(portal: &str, max_rows: i32) -> ClientMessage<'_> {
    ClientMessage::Execute(Execute { portal: portal.as_bytes(), max_rows })
}

pub(crate) const SYNC: ClientMessage<'static> = ClientMessage::Sync;
pub(crate) const FLUSH: ClientMessage<'static> = ClientMessage::Flush;

pub(crate) fn complete(tag: &str) -> UpstreamMessage<'_> {
    UpstreamMessage::CommandComplete(tag.as_bytes())
}

pub(crate) fn row<'a>(values: &[&'a str]) -> UpstreamMessage<'a> {
    UpstreamMessage::DataRow(DataRow { values: values.iter().map(|v| Some(v.as_bytes())).collect() })
}

pub(crate) fn columns(fields: &[(&'static str, u32, i16)]) -> UpstreamMessage<'static> {
    UpstreamMessage::RowDescription(RowDescription {
        fields: fields
            .iter()
            .map(|(name, table, column)| Field {
                name: name.as_bytes(),
                table: *table,
                column: *column,
                type_id: 25,
                type_size: -1,
                type_modifier: -1,
                format: FormatCode::TEXT,
            })
            .collect(),
    })
}

pub(crate) const IDLE: UpstreamMessage<'static> = UpstreamMessage::ReadyForQuery(TransactionStatus::Idle);
pub(crate) const OPEN: UpstreamMessage<'static> = UpstreamMessage::ReadyForQuery(TransactionStatus::Open);
pub(crate) const FAILED: UpstreamMessage<'static> = UpstreamMessage::ReadyForQuery(TransactionStatus::Failed);

pub(crate) fn error<'a>(code: &'a str, message: &'a str) -> UpstreamMessage<'a> {
    UpstreamMessage::ErrorResponse(ErrorFields {
        fields: vec![(b'S', b"ERROR"), (b'V', b"ERROR"), (b'C', code.as_bytes()), (b'M', message.as_bytes())],
    })
}

pub(crate) fn fatal<'a>(code: &'a str, message: &'a str) -> UpstreamMessage<'a> {
    UpstreamMessage::ErrorResponse(ErrorFields {
        fields: vec![(b'S', b"FATAL"), (b'V', b"FATAL"), (b'C', code.as_bytes()), (b'M', message.as_bytes())],
    })
}

pub(crate) fn password(text: &str) -> Vec<u8> {
    let mut body = text.as_bytes().to_vec();
    body.push(0);
    client(&[ClientMessage::Password(&body)])
}

pub(crate) fn greeting() -> Vec<u8> {
    upstream(&[
        UpstreamMessage::Authentication(Authentication::Ok),
        UpstreamMessage::ParameterStatus(ParameterStatus { name: b"client_encoding", value: b"UTF8" }),
        UpstreamMessage::BackendKeyData(BackendKeyData { process: 99, secret: b"up!!" }),
        IDLE,
    ])
}

/// A session that has logged in, at both ends; nothing is left of that.
pub(crate) fn ready() -> Pg {
    ready_with(config())
}

pub(crate) fn ready_with(config: SessionConfig) -> Pg {
    let mut pg = Script::new(PostgresSession::new(config), ID);
    pg.client_sends(startup(&[("user", "ci"), ("database", "shop")]));
    pg.client_sends(password("token"));
    pg.accept(None, target());
    pg.permit(Disclosure::default());
    pg.input(Input::Connected(Ok(())));
    pg.upstream_sends(greeting());
    while pg.take_seen() != Some(Seen::Established) {}
    while pg.take_seen().is_some() {}
    pg.take_client();
    pg.take_upstream();
    pg
}

pub(crate) fn denial() -> Denial {
    Denial { kind: DenialKind::Policy, message: "no".into(), detail: "Session x.".into(), hint: "ask".into() }
}

/// One line for each frame, without arrows and sizes.
pub(crate) fn names(from: Peer, bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    proto_postgres::dump::frames(from, bytes, &mut lines);
    lines.iter().map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
}

/// One line for each frame, without arrows.
pub(crate) fn lines(from: Peer, bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    proto_postgres::dump::frames(from, bytes, &mut lines);
    let strip = |line: &String| {
        let mut words = line.splitn(4, ' ');
        let (_, name, _, rest) = (words.next(), words.next(), words.next(), words.next());
        format!("{} {}", name.unwrap_or_default(), rest.unwrap_or_default()).trim_end().to_owned()
    };
    lines.iter().map(strip).collect()
}

/// Masks to `***`; the value `null` becomes NULL.
#[derive(Debug)]
pub(crate) struct Stars;

impl Mask for Stars {
    fn class(&self) -> &str {
        "email"
    }

    fn apply(&self, value: &[u8], value_type: ValueType, out: &mut BytesMut) -> Applied {
        if value == b"null" {
            return Applied::Null;
        }
        out.put_slice(if value_type.format == ValueFormat::Text { b"***" } else { b"bin" });
        Applied::Written
    }
}

/// Table 1 column 2 is masked, table 2 is refused, the rest passes.
#[derive(Debug)]
pub(crate) struct Rules;

impl ResultRules for Rules {
    fn column(&self, origin: Origin) -> ColumnRule {
        match (origin.table, origin.column) {
            (1, 2) => ColumnRule::Mask(Arc::new(Stars)),
            (2, _) => ColumnRule::Refuse("column secret must not be seen".into()),
            _ => ColumnRule::Pass,
        }
    }
}

pub(crate) fn masking() -> Disclosure {
    Disclosure { rules: Some(Arc::new(Rules)), ..Disclosure::default() }
}
