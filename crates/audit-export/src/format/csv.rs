//! CSV as RFC 4180 has it: a header, CRLF after each record, and quotes around fields that hold a comma, a quote or a
//! line break. UTF-8, without a byte order mark. No value is an empty field; an empty text is `""`.
//!
//! **Formulas.** Spreadsheets run a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break (or a full-width
//! form of the first four) as a formula, quoted or not, and statements and names are the callers' own texts. Such a
//! text gets one `'` in front, and so does one that begins with `'`: who reads the file with a program takes one `'`
//! from the front of each text that has it, and has the exact value.

use super::columns::{COLUMNS, Kind};
use super::{EncodeError, Encoder};
use crate::context::SessionContext;
use crate::row::Row;
use crate::text::Texts;
use audit_store::StoredEntry;

/// What a spreadsheet may take for a formula, and the guard itself.
const GUARDED: [char; 12] = ['=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠'];

pub(super) struct Csv {
    pub(super) texts: Texts,
}

impl Encoder for Csv {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>().join(",").as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn entry(&mut self, session: Option<&SessionContext>, stored: &StoredEntry, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let row = Row::new(stored, session, self.texts);
        for (at, column) in COLUMNS.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            if let Some(value) = (column.value)(&row).shown() {
                field(&value, column.kind == Kind::Text, out);
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn field(value: &str, guard: bool, out: &mut Vec<u8>) {
    let guarded = guard && value.starts_with(GUARDED);
    // An empty text is not the absence of one.
    if !value.is_empty() && !value.contains([',', '"', '\r', '\n']) {
        if guarded {
            out.push(b'\'');
        }
        out.extend_from_slice(value.as_bytes());
        return;
    }
    out.push(b'"');
    if guarded {
        out.push(b'\'');
    }
    for byte in value.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::field;

    fn shown(value: &str) -> String {
        let mut out = Vec::new();
        field(value, true, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(shown("plain"), "plain");
        assert_eq!(shown(""), "\"\"");
        assert_eq!(shown("a,b"), "\"a,b\"");
        assert_eq!(shown("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(shown("two\r\nlines"), "\"two\r\nlines\"");
    }

    #[test]
    fn no_text_is_a_formula() {
        for bad in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "＝1", "'=1", "\n=1", "=cmd|' /C calc'!A0, \"x\""] {
            let shown = shown(bad);
            assert!(shown.trim_start_matches('"').starts_with('\''), "{shown}");
        }
    }
}
