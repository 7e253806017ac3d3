//! The text format: `CopyAttributeOutText`.

use super::delimited::{Delimited, Field, any_of};
use super::{CopyError, Row, Scan};
use bytes::{BufMut, Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// How a text stream is written.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) delimiter: u8,
    pub(super) null: Bytes,
}

/// A line end within a value is escaped, so the first one ends the row.
pub(super) fn find_row(scan: &mut Scan, rest: &[u8]) -> Row {
    match memchr(b'\n', rest.get(scan.at..).unwrap_or_default()) {
        Some(at) => Row::Ends { end: scan.at.saturating_add(at).saturating_add(1), terminator: 1 },
        None => {
            scan.at = rest.len();
            Row::Partial
        }
    }
}

impl Delimited for Text {
    fn null(&self) -> &[u8] {
        &self.null
    }

    /// A backslash takes the next byte along.
    #[inline]
    fn split(&self, rest: &[u8]) -> Result<Field, CopyError> {
        let (mut at, mut marked) = (0usize, false);
        while let Some(found) = rest.get(at..).and_then(|unseen| memchr2(self.delimiter, b'\\', unseen)) {
            at = at.saturating_add(found);
            if rest.get(at) != Some(&b'\\') {
                return Ok(Field { length: at, marked, more: true });
            }
            marked = true;
            at = at.saturating_add(2);
        }
        Ok(Field { length: rest.len(), marked, more: false })
    }

    fn clear(&self, field: &[u8], clear: &mut Vec<u8>) -> Result<(), CopyError> {
        unescape(field, clear)
    }

    #[inline]
    fn settle(&self, from: usize, _: bool, scratch: &mut Vec<u8>, out: &mut BytesMut) {
        let value = out.get(from..).unwrap_or_default();
        if any_of(value, b' ', [b'\\', self.delimiter]) {
            scratch.clear();
            scratch.extend_from_slice(value);
            out.truncate(from);
            escape(scratch, self.delimiter, out);
        }
    }
}

/// Undoes the escapes.
fn unescape(field: &[u8], out: &mut Vec<u8>) -> Result<(), CopyError> {
    let mut rest = field;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        let mut bytes = rest.get(at.saturating_add(1)..).unwrap_or_default().iter();
        let escaped = *bytes.next().ok_or(CopyError::Malformed)?;
        rest = bytes.as_slice();
        out.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'0'..=b'7' => {
                let mut value = escaped.wrapping_sub(b'0');
                for _ in 0..2 {
                    let Some((digit @ b'0'..=b'7', after)) = rest.split_first() else { break };
                    value = value.wrapping_mul(8).wrapping_add(digit.wrapping_sub(b'0'));
                    rest = after;
                }
                value
            }
            other => other,
        });
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Writes a value with its escapes.
fn escape(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    for byte in value {
        let letter = match *byte {
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            b'\\' => b'\\',
            byte if byte == delimiter => byte,
            byte => {
                out.put_u8(byte);
                continue;
            }
        };
        out.put_u8(b'\\');
        out.put_u8(letter);
    }
}
