//! A leaf field by field, with where each stands: for `sallyport inspect`. `FORMAT.md` in the form of a program.

use crate::kind::{BESIDE, FIRST_FIELD, NUMBER, SESSION, TIME};
use crate::wire::{DecodeError, Reader, take_varint};
use serde::Serialize;

/// One field of a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeafField {
    /// Where its tag stands, in bytes from the leaf's beginning.
    pub offset: usize,
    /// Bytes of tag, length and content.
    pub length: usize,
    /// In how many messages it stands.
    pub depth: usize,
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// Its content in words; for a message, empty: its fields follow.
    pub value: String,
}

/// What the fields of a message are called, in the order of their numbers, and which are messages themselves.
type Names = &'static [(&'static str, Shape)];

#[derive(Clone, Copy)]
enum Shape {
    Plain,
    Message(Names),
}

use Shape::{Message, Plain};

const LIST: Names = &[("item", Plain)];
const PAIR: Names = &[("key", Plain), ("value", Plain)];
const MAP: Names = &[("pair", Message(PAIR))];
const MOMENT: Names = &[("time", Plain)];
const PRINCIPAL: Names = &[
    ("kind", Plain),
    ("issuer", Plain),
    ("subject", Plain),
    ("tenant", Plain),
    ("application", Plain),
    ("credential_id", Plain),
    ("alias", Plain),
    ("role", Plain),
    ("claim", Message(PAIR)),
    ("expires", Message(MOMENT)),
];
const TARGET: Names = &[
    ("connection", Plain),
    ("address", Plain),
    ("database", Plain),
    ("upstream_user", Plain),
    ("owner", Plain),
    ("tag", Message(PAIR)),
];
const PARAMETERS: Names = &[("parameter", Message(&[("value", Plain), ("format", Plain), ("type", Plain)]))];
const OPERATION: Names = &[("action", Plain), ("object_kind", Plain), ("path", Plain), ("has_where", Plain)];
const FACTS: Names = &[("operation", Message(OPERATION)), ("unknown", Plain), ("kind", Plain), ("attribute", Message(PAIR))];
const COMMITMENT: Names = &[("field", Plain), ("length", Plain), ("sha256", Plain)];

/// The messages among the fields of a kind's own.
fn shape(name: &str) -> Shape {
    match name {
        "principal" => Message(PRINCIPAL),
        "target" => Message(TARGET),
        "parameters" => Message(PARAMETERS),
        "facts" => Message(FACTS),
        "details" => Message(MAP),
        "policies" | "difference" | "masked_classes" => Message(LIST),
        _ => Plain,
    }
}

/// The fields of `leaf`, in order: of a message, the fields stand after it, one deeper.
///
/// # Errors
/// [`DecodeError`]: not a leaf of this version. Contents are not checked: [`crate::decode::decode`] does that.
pub fn leaf_fields(leaf: &[u8]) -> Result<Vec<LeafField>, DecodeError> {
    // Version and kind.
    let kind = crate::decode::header(leaf)?.kind;
    let mut fields = Vec::new();
    let body = leaf.get(2..).unwrap_or_default();
    walk(body, 2, 0, &mut fields, &|number| match number {
        TIME => ("time", Plain),
        SESSION => ("session", Plain),
        NUMBER => ("number", Plain),
        BESIDE => ("beside", Message(COMMITMENT)),
        other if other >= FIRST_FIELD => {
            let name = kind.field_name(other);
            (name, shape(name))
        }
        _ => ("unknown", Plain),
    })?;
    Ok(fields)
}

fn walk(
    bytes: &[u8],
    at: usize,
    depth: usize,
    out: &mut Vec<LeafField>,
    named: &dyn Fn(u32) -> (&'static str, Shape),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    loop {
        let start = bytes.len() - reader.left();
        let mut tag = bytes.get(start..).unwrap_or_default();
        let Some((number, content)) = reader.skip()? else { return Ok(()) };
        let end = bytes.len() - reader.left();
        let (name, shape) = named(number);
        let field = LeafField { offset: at + start, length: end - start, depth, number, name, value: String::new() };
        let wire = take_varint(&mut tag)? & 7;
        match (wire, shape) {
            (2, Message(names)) => {
                out.push(field);
                let inner = |number: u32| {
                    let place = usize::try_from(number).ok().and_then(|number| names.get(number.checked_sub(1)?));
                    place.copied().unwrap_or(("unknown", Plain))
                };
                walk(content, at + end - content.len(), depth + 1, out, &inner)?;
            }
            (2, Plain) => out.push(LeafField { value: text_or_hex(content), ..field }),
            (1, _) => {
                let time = tag.first_chunk::<8>().map_or(0, |bytes| i64::from_le_bytes(*bytes));
                out.push(LeafField { value: format!("{time} µs since 1970"), ..field });
            }
            _ => {
                let value = take_varint(&mut tag)?;
                out.push(LeafField { value: format!("{value}{}", meaning(name, value)), ..field });
            }
        }
    }
}

/// What a number stands for, where that is fixed.
fn meaning(name: &str, value: u64) -> &'static str {
    match (name, value) {
        ("verdict", 1) => " (allow)",
        ("verdict", 2) => " (deny)",
        ("verdict", 3) => " (hold)",
        ("status", 1) => " (completed)",
        ("status", 2) => " (failed)",
        ("status", 3) => " (skipped)",
        ("status", 4) => " (refused)",
        ("status", 5) => " (unknown)",
        ("object_kind", 3) => " (schema)",
        ("object_kind", 4) => " (table)",
        ("object_kind", 5) => " (function)",
        ("object_kind", 7) => " (Kubernetes resource)",
        ("has_where", 1) => " (no)",
        ("has_where", 2) => " (yes)",
        _ => "",
    }
}

fn text_or_hex(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => format!("{text:?}"),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::leaf_fields;

    /// The example of `FORMAT.md`.
    #[test]
    fn every_byte_belongs_to_a_field() {
        let hex =
            "01090900401e18240a0600121001937f5e7a107c3e8d2b0a1b2c3d4e5f180520ac0228013a0853454c45435420314001485850d2015801";
        let leaf: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let fields = leaf_fields(&leaf).unwrap();
        let mut at = 2;
        for field in &fields {
            assert_eq!((field.offset, field.depth), (at, 0));
            at += field.length;
        }
        assert_eq!(at, leaf.len());
        let shown: Vec<_> = fields.iter().map(|field| (field.name, field.value.as_str())).collect();
        assert_eq!(
            shown[..6],
            [
                ("time", "1700000000000000 µs since 1970"),
                ("session", "01937f5e7a107c3e8d2b0a1b2c3d4e5f"),
                ("number", "5"),
                ("request", "300"),
                ("status", "1 (completed)"),
                ("tag", "\"SELECT 1\"")
            ]
        );
        for length in 0..leaf.len() {
            let _ = leaf_fields(&leaf[..length]);
        }
    }
}
