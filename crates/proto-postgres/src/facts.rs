//! Messages → requests and facts for policy. SQL itself is read by the policy engine: this layer hands over
//! the text as it came.

use crate::error::Malformed;
use crate::frame::slice_of;
use crate::message::{BindLayout, FunctionCall};
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
///
/// # Errors
/// [`Malformed`]: none, of a layout that was checked.
pub fn parameters(bind: &BindLayout<'_>, types: &[u32], frame: &Bytes) -> Result<Vec<Parameter>, Malformed> {
    let mut parameters = Vec::with_capacity(bind.count);
    for (at, parameter) in bind.parameters().enumerate() {
        let (format, value) = parameter?;
        let value = value.map(|value| slice_of(frame, value));
        parameters.push(Parameter { value, format: value_format(format), type_id: types.get(at).copied().unwrap_or(0) });
    }
    Ok(parameters)
}

/// The format of a value. Codes that the protocol does not define are refused by the server.
pub(crate) fn value_format(code: FormatCode) -> ValueFormat {
    if code == FormatCode::TEXT { ValueFormat::Text } else { ValueFormat::Binary }
}

/// What SQL may do to the names that this protocol gives too: statements and portals.
///
/// A SQL `DEALLOCATE s` followed by `PREPARE s AS …` changes what the protocol's `Bind` to `s` runs. The words
/// are keywords, so they stand in the text as they are; what stands in strings and comments errs on the safe
/// side. What was really run, the completion tags say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NameEffects {
    /// Drops a prepared statement: `DEALLOCATE`, `DISCARD`.
    pub drops: bool,
    /// Makes one: `PREPARE`.
    pub prepares: bool,
    /// Makes or drops cursors: `DECLARE`, `CLOSE`, `ROLLBACK`.
    pub cursors: bool,
    /// Runs code whose tag does not say what it did: `DO`, `CALL`. Only of tags.
    pub hidden: bool,
}

impl NameEffects {
    /// What this text may do.
    #[must_use]
    pub fn of_text(sql: &[u8]) -> Self {
        let mut effects = Self::default();
        if !has_beginning(sql) {
            return effects;
        }
        for word in sql.split(|byte| !is_word(*byte)) {
            let is = |known: &[u8]| word.eq_ignore_ascii_case(known);
            effects.drops |= is(b"deallocate") || is(b"discard");
            effects.prepares |= is(b"prepare");
            effects.cursors |= is(b"declare") || is(b"close") || is(b"rollback");
        }
        effects
    }

    /// What a command with this tag did.
    #[must_use]
    pub fn of_tag(tag: &[u8]) -> Self {
        let first = tag.split(|b| *b == b' ').next().unwrap_or_default();
        Self {
            drops: first == b"DEALLOCATE" || first == b"DISCARD",
            prepares: first == b"PREPARE",
            cursors: first == b"DECLARE" || first == b"CLOSE" || first == b"ROLLBACK",
            hidden: first == b"DO" || first == b"CALL",
        }
    }

    /// Either's.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            drops: self.drops || other.drops,
            prepares: self.prepares || other.prepares,
            cursors: self.cursors || other.cursors,
            hidden: self.hidden || other.hidden,
        }
    }

    /// Whether it has any.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// Whether the first three letters of a word that has effects stand anywhere. Without branches, so that the compiler
/// looks at many bytes at once: most texts have none.
fn has_beginning(sql: &[u8]) -> bool {
    let (second, third) = (sql.get(1..).unwrap_or_default(), sql.get(2..).unwrap_or_default());
    let found = sql.iter().zip(second).zip(third).fold(0u8, |found, ((a, b), c)| {
        // A letter of either case; what else this makes a letter of does no harm.
        let [a, b, c] = [a | 0x20, b | 0x20, c | 0x20];
        let is = |word: &[u8; 3]| u8::from(a == word[0]) & u8::from(b == word[1]) & u8::from(c == word[2]);
        found | is(b"dea") | is(b"dis") | is(b"pre") | is(b"dec") | is(b"clo") | is(b"rol")
    });
    found != 0
}

/// Whether a byte can be in a word of SQL.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
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
        assert_eq!(NameEffects::of_text(b"select declared_value, closed, x_close from products"), NameEffects::default());
        let both = NameEffects::of_text(b"begin; Deallocate s; PREPARE s AS delete from t");
        assert!(both.drops && both.prepares && !both.cursors);
        assert!(NameEffects::of_text(b"DISCARD ALL").drops);
        assert!(NameEffects::of_text(b"dEcLaRe c cursor for select 1").cursors);
        assert!(NameEffects::of_text(b"select 1;close").cursors);
        assert!(NameEffects::of_tag(b"CLOSE CURSOR ALL").cursors && NameEffects::of_tag(b"DO").hidden);
        assert_eq!(NameEffects::of_tag(b"SELECT 1"), NameEffects::default());
    }
}
