//! A request: what the client asks of the target, and what is decided and recorded as one.

use crate::{Facts, Refusal};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Numbers a session's requests from 1. Decisions, approvals and outcomes refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// How a value is encoded on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueFormat {
    /// The protocol's text form.
    Text,
    /// The protocol's binary form.
    Binary,
}

/// One bound parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The value's bytes; `None` is NULL.
    pub value: Option<Bytes>,
    /// Their encoding.
    pub format: ValueFormat,
    /// The protocol's type number, 0 where the client named none.
    pub type_id: u32,
}

/// What a statement is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Open the session on the target.
    Connect,
    /// Run it at once.
    Query,
    /// Prepare it: nothing runs yet, so it is never held; it is denied if running it would be.
    Prepare,
    /// Run what was prepared, with its parameters.
    Execute,
    /// A call by number, a replication command, a Kubernetes request …: [`Statement::Facts`].
    Command,
}

impl RequestKind {
    /// The record's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Query => "query",
            Self::Prepare => "prepare",
            Self::Execute => "execute",
            Self::Command => "command",
        }
    }
}

/// What the request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// SQL in the target's dialect, byte for byte as it came: policy derives the facts.
    Sql(Bytes),
    /// SQL whose text the protocol layer does not have: a cursor or statement that was made in SQL, by name.
    /// Policy knows it from when it was made; else it is unknown.
    Named {
        /// `true`: a cursor (portal), `false`: a prepared statement.
        cursor: bool,
        /// Its name, as the server compares it.
        name: Bytes,
    },
    /// A PostgreSQL FunctionCall: the function's object id.
    Function(u32),
    /// The protocol layer derived the facts; `text` is what the record shows.
    Facts {
        /// The facts.
        facts: Facts,
        /// The request in words: `get pods/web-1 in prod`.
        text: Bytes,
    },
    /// The protocol layer refuses it: it is recorded as denied, and no policy permits it.
    Refused(Box<Refusal>),
}

/// One request of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// What is asked.
    pub kind: RequestKind,
    /// What it says.
    pub statement: Statement,
    /// Name under which a [`RequestKind::Prepare`] (or an Execute that carries its Prepare along) stores it;
    /// empty for the unnamed one.
    pub prepared_as: Option<Bytes>,
    /// Name of the portal that a [`RequestKind::Execute`] runs; empty for the unnamed one.
    pub portal: Option<Bytes>,
    /// Bound parameters, in order.
    pub parameters: Vec<Parameter>,
}
