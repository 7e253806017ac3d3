//! Texts and times as every format shows them, and how long texts are cut where a receiver could not take them.

use crate::limits::LIST_MAX;
use base64::Engine;
use proxy_core::Timestamp;
use serde_json::{Value, json};
use std::fmt::Write;
use time::OffsetDateTime;

/// How long a text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Texts {
    /// As long as it is: files, and receivers that take it.
    #[default]
    Whole,
    /// At most so many bytes of each text; what is cut says so. For syslog, whose receivers drop long messages.
    Cut(usize),
}

impl Texts {
    /// `text`, cut if it has to be: `BEGINNING… [cut: N bytes in all]`.
    pub(crate) fn limit(self, text: String) -> String {
        match self {
            Self::Cut(max) if text.len() > max => {
                let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                format!("{}… [cut: {} bytes in all]", text.get(..end).unwrap_or_default(), text.len())
            }
            Self::Cut(_) | Self::Whole => text,
        }
    }

    /// The same within a value; lists are cut after [`LIST_MAX`] elements.
    pub(crate) fn limit_value(self, value: &mut Value) {
        if self == Self::Whole {
            return;
        }
        match value {
            Value::String(text) => *text = self.limit(std::mem::take(text)),
            Value::Array(items) => {
                let all = items.len();
                items.truncate(LIST_MAX);
                items.iter_mut().for_each(|item| self.limit_value(item));
                if all > LIST_MAX {
                    items.push(json!({ "cut": format!("{all} elements in all") }));
                }
            }
            Value::Object(fields) => fields.values_mut().for_each(|field| self.limit_value(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Bytes as text; what is not UTF-8, or holds a NUL (which many readers end at), as base64, and that it is so.
pub(crate) fn readable(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => (text.to_owned(), false),
        Ok(_) | Err(_) => (base64::engine::general_purpose::STANDARD.encode(bytes), true),
    }
}

/// RFC 3339 in UTC, always with six digits of a second; a time out of its range as its microseconds.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000)
        .ok()
        .and_then(|at| at.format(&format).ok())
        .unwrap_or_else(|| format!("{} µs since 1970", at.0))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// `HOST:PORT`, `[IPv6]:PORT` or something without a port, in two parts.
pub(crate) fn endpoint(text: &str) -> (&str, Option<u16>) {
    let split = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match split {
        // An IPv6 address alone ends in something like a port as well.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host.trim_matches(['[', ']']), Some(port)),
        Some(_) | None => (text.trim_matches(['[', ']']), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so_and_keeps_whole_characters() {
        assert_eq!(Texts::Whole.limit("é".repeat(100)), "é".repeat(100));
        assert_eq!(Texts::Cut(3).limit("éé".into()), "é… [cut: 4 bytes in all]");
        assert_eq!(Texts::Cut(4).limit("éé".into()), "éé");
        let mut value = json!({ "list": vec![1; 300], "in": { "text": "abcdef" } });
        Texts::Cut(3).limit_value(&mut value);
        assert_eq!(value["list"].as_array().map(Vec::len), Some(257));
        assert_eq!(value["list"][256]["cut"], "300 elements in all");
        assert_eq!(value["in"]["text"], "abc… [cut: 6 bytes in all]");
    }

    #[test]
    fn what_is_not_text_is_base64() {
        assert_eq!(readable("SELECT 'é'".as_bytes()), ("SELECT 'é'".to_owned(), false));
        assert_eq!(readable(b"\xff"), ("/w==".to_owned(), true));
        assert_eq!(readable(b"a\0"), ("YQA=".to_owned(), true));
    }

    #[test]
    fn endpoints_in_all_forms() {
        assert_eq!(endpoint("10.0.0.1:5432"), ("10.0.0.1", Some(5432)));
        assert_eq!(endpoint("[::1]:5432"), ("::1", Some(5432)));
        assert_eq!(endpoint("db.example:1"), ("db.example", Some(1)));
        assert_eq!(endpoint("::1"), ("::1", None));
        assert_eq!(endpoint("unix:/run/postgresql"), ("unix:/run/postgresql", None));
    }

    #[test]
    fn times_have_six_digits() {
        assert_eq!(rfc3339(Timestamp(1)), "1970-01-01T00:00:00.000001Z");
        assert_eq!(rfc3339(Timestamp(i64::MAX)), format!("{} µs since 1970", i64::MAX));
    }
}
