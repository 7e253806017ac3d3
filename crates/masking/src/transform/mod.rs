//! The ways of masking, one file each.
//!
//! What a mask makes of a value depends on the value's type (PostgreSQL's type numbers) and format:
//!
//! | type | result |
//! | --- | --- |
//! | `text`, `varchar`, `char(n)`, `name`, `unknown` | the transform, in text and in binary (the same bytes) |
//! | `json`, `jsonb` | the transform's result as a JSON string; binary `jsonb` with its version byte |
//! | types that are not built in (`citext`, enums, …) | text format: the transform; binary: NULL, its layout is not known |
//! | anything else | NULL: a mask whose result is not a value of the column's type gives NULL |
//!
//! `fixed` alone also gives numbers, booleans, dates and UUIDs when its text is one. A value that is not valid
//! UTF-8 is redacted. The length limit of a `varchar(n)` is not kept: a client that checks it must allow for the mask.

mod email;
mod fixed;
mod hash;
mod null;
mod partial;
mod redact;

use crate::rules::MaskWith;
use bytes::{BufMut, BytesMut};
use proxy_core::{Applied, Mask, SecretBytes, ValueFormat, ValueType};
use std::fmt::{Debug, Write};
use std::sync::Arc;

/// What stands for hidden characters, however many they are: lengths are not shown.
pub(crate) const HIDDEN: &str = "***";

/// PostgreSQL's numbers of built-in types, `pg_type.dat`.
pub(crate) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const NAME: u32 = 19;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const JSON: u32 = 114;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const UNKNOWN: u32 = 705;
    pub(crate) const BPCHAR: u32 = 1042;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const JSONB: u32 = 3802;
    /// The first number of an object that is not built in: `FirstNormalObjectId`.
    pub(crate) const FIRST_USER: u32 = 16_384;
}

/// How a value is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Its characters.
    Text,
    /// JSON text.
    Json,
    /// A version byte (1), then JSON text.
    Jsonb,
    /// Something else.
    Other,
}

impl Layout {
    pub(crate) fn of(value_type: ValueType) -> Self {
        let binary = match value_type.format {
            ValueFormat::Text => false,
            ValueFormat::Binary => true,
        };
        match value_type.type_id {
            oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN => Self::Text,
            oid::JSON => Self::Json,
            oid::JSONB if binary => Self::Jsonb,
            oid::JSONB => Self::Json,
            oid::FIRST_USER.. if !binary => Self::Text,
            _ => Self::Other,
        }
    }
}

/// A transform of characters.
trait Transform: Debug + Send + Sync {
    /// Appends what is shown of `text`.
    fn write(&self, text: &str, out: &mut BytesMut);
}

/// A transform of characters, bound to a class.
#[derive(Debug)]
struct TextMask<T> {
    class: Arc<str>,
    transform: T,
}

impl<T: Transform> Mask for TextMask<T> {
    fn class(&self) -> &str {
        &self.class
    }

    fn apply(&self, value: &[u8], value_type: ValueType, out: &mut BytesMut) -> Applied {
        match Layout::of(value_type) {
            Layout::Text => match std::str::from_utf8(value) {
                Ok(text) => self.transform.write(text, out),
                Err(_) => out.extend_from_slice(HIDDEN.as_bytes()),
            },
            Layout::Json => json_string(&self.transform, value, out),
            Layout::Jsonb => {
                out.put_u8(1);
                json_string(&self.transform, value.get(1..).unwrap_or_default(), out);
            }
            Layout::Other => return Applied::Null,
        }
        Applied::Written
    }
}

/// Appends the transform's result as a JSON string. The content of a plain string is what is transformed; any
/// other JSON value is transformed as its text.
fn json_string<T: Transform>(transform: &T, value: &[u8], out: &mut BytesMut) {
    let inner = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let plain = inner.filter(|inner| !inner.iter().any(|byte| matches!(byte, b'"' | b'\\')));
    let mut shown = BytesMut::new();
    match std::str::from_utf8(plain.unwrap_or(value)) {
        Ok(text) => transform.write(text, &mut shown),
        Err(_) => shown.extend_from_slice(HIDDEN.as_bytes()),
    }
    quote_json(std::str::from_utf8(&shown).unwrap_or(HIDDEN), out);
}

/// Appends `text` as a JSON string.
pub(crate) fn quote_json(text: &str, out: &mut BytesMut) {
    out.put_u8(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            // Writing to a buffer that grows does not fail.
            '\0'..='\u{1f}' => drop(write!(out, "\\u{:04x}", u32::from(character))),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.put_u8(b'"');
}

/// The mask that shows nothing.
pub(crate) fn redact(class: Arc<str>) -> Arc<dyn Mask> {
    Arc::new(TextMask { class, transform: redact::Redact })
}

/// The mask of `class` that the configuration asks for. `hash_key` keys hashes without a secret of their own.
pub(crate) fn build(class: Arc<str>, with: &MaskWith, hash_key: &SecretBytes) -> Arc<dyn Mask> {
    match with {
        MaskWith::Email => Arc::new(TextMask { class, transform: email::Email }),
        MaskWith::Partial { first, last } => {
            Arc::new(TextMask { class, transform: partial::Partial { first: *first, last: *last } })
        }
        MaskWith::Redact => redact(class),
        MaskWith::Hash { secret } => {
            Arc::new(TextMask { class, transform: hash::Hash::new(secret.as_ref().unwrap_or(hash_key)) })
        }
        MaskWith::Null => Arc::new(null::Null { class }),
        MaskWith::Fixed(value) => Arc::new(fixed::Fixed::new(class, value)),
    }
}

#[cfg(test)]
mod tests;
