//! Messages → requests and facts for policy. SQL itself is read by the policy engine: this layer hands over
//! the text as it came.

use crate::frame::slice_of;
use crate::message::{Bind, FunctionCall};
use crate::types::FormatCode;
use bytes::Bytes;
use proxy_core::{Facts, Object, ObjectKind, Operation, Parameter, Request, RequestId, RequestKind, Statement, ValueFormat};

/// The request that opens a session: `connect`, and `replicate` for a replication connection.
#[must_use]
pub fn connect(replication: bool) -> Request {
    let mut facts = Facts::default();
    let mut add = |action: &str| {
        let object = Object::new(ObjectKind::Connection, Vec::<String>::new());
        facts.add(Operation { action: action.to_owned(), object, has_where: None });
    };
    add("connect");
    if replication {
        add("replicate");
    }
    let text = if replication { &b"connect for replication"[..] } else { b"connect" };
    Request {
        id: RequestId(0),
        kind: RequestKind::Connect,
        statement: Statement::Facts { facts, text: Bytes::from_static(text) },
        prepared_as: None,
        portal: None,
        parameters: Vec::new(),
    }
}

/// A request for SQL.
#[must_use]
pub fn request(id: RequestId, kind: RequestKind, statement: Statement) -> Request {
    Request { id, kind, statement, prepared_as: None, portal: None, parameters: Vec::new() }
}

/// A function call's request.
#[must_use]
pub fn function_call(id: RequestId, call: &FunctionCall<'_>, frame: &Bytes) -> Request {
    let parameters = call.arguments.iter().enumerate().map(|(at, value)| Parameter {
        value: value.map(|value| slice_of(frame, value)),
        format: value_format(call.format_of(at)),
        type_id: 0,
    });
    Request { parameters: parameters.collect(), ..request(id, RequestKind::Command, Statement::Function(call.function)) }
}

/// A portal's parameters: values that share the frame's memory, with formats as the codes expand.
#[must_use]
pub fn parameters(bind: &Bind<'_>, types: &[u32], frame: &Bytes) -> Vec<Parameter> {
    let parameters = bind.parameters.iter().enumerate().map(|(at, value)| Parameter {
        value: value.map(|value| slice_of(frame, value)),
        format: value_format(bind.format_of(at)),
        type_id: types.get(at).copied().unwrap_or(0),
    });
    parameters.collect()
}

/// The format of a value. Codes that the protocol does not define are refused by the server.
pub(crate) fn value_format(code: FormatCode) -> ValueFormat {
    if code == FormatCode::TEXT { ValueFormat::Text } else { ValueFormat::Binary }
}

/// Whether SQL text may make or drop names that this protocol also gives: statements and cursors.
///
/// A SQL `DEALLOCATE s` followed by `PREPARE s AS …` changes what the protocol's `Bind` to `s` runs. These
/// are keywords, so they stand in the text as they are; what stands in strings and comments errs on the
/// safe side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NameEffects {
    /// May drop a prepared statement: `DEALLOCATE`, `DISCARD`.
    pub drops: bool,
    /// May make one: `PREPARE`.
    pub prepares: bool,
    /// May make a cursor: `DECLARE`.
    pub declares: bool,
}

impl NameEffects {
    /// Of this text.
    #[must_use]
    pub fn of(sql: &[u8]) -> Self {
        let mut effects = Self::default();
        for (at, byte) in sql.iter().enumerate() {
            // Each of the words begins with one of these, and few other places do.
            if !matches!(byte | 0x20, b'd' | b'p') {
                continue;
            }
            let rest = sql.get(at..).unwrap_or_default();
            let begins = |word: &[u8]| rest.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
            effects.drops |= begins(b"deallocate") || begins(b"discard");
            effects.prepares |= begins(b"prepare");
            effects.declares |= begins(b"declare");
        }
        effects
    }

    /// Whether it has any.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replication_connection_asks_for_more() {
        let Statement::Facts { facts, .. } = connect(true).statement else { panic!("facts") };
        let actions: Vec<_> = facts.operations.iter().map(|o| o.action.as_str()).collect();
        assert_eq!(actions, ["connect", "replicate"]);
    }

    #[test]
    fn texts_that_touch_names_are_seen() {
        assert_eq!(NameEffects::of(b"select * from products"), NameEffects::default());
        assert!(NameEffects::of(b"begin; Deallocate s; PREPARE s AS delete from t").drops);
        assert!(NameEffects::of(b"begin; deallocate s; PREPARE s AS delete from t").prepares);
        assert!(NameEffects::of(b"DISCARD ALL").drops);
        assert!(NameEffects::of(b"dEcLaRe c cursor for select 1").declares);
    }
}
