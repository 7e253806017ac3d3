//! CSV: `CopyAttributeOutCSV`.

use super::delimited::{Delimited, Field, any_of};
use super::{CopyError, Row, Scan};
use bytes::{BufMut, Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// How a CSV stream is written.
#[derive(Debug)]
pub(super) struct Csv {
    pub(super) delimiter: u8,
    pub(super) quote: u8,
    pub(super) escape: u8,
    pub(super) null: Bytes,
    /// Rows have one column: then `\\.` is quoted, which would end the data.
    pub(super) single: bool,
}

impl Csv {
    /// A line end within quotes belongs to its value.
    pub(super) fn find_row(&self, scan: &mut Scan, rest: &[u8]) -> Row {
        match self.find(b'\n', rest, scan) {
            Some(at) => Row::Ends { end: at.saturating_add(1), terminator: 1 },
            None => Row::Partial,
        }
    }

    /// Finds `wanted` outside quotes, from where `scan` is; moves `scan` over what was looked at.
    #[inline]
    fn find(&self, wanted: u8, bytes: &[u8], scan: &mut Scan) -> Option<usize> {
        while let Some(unseen) = bytes.get(scan.at..) {
            let found = match scan.quoted {
                false => memchr2(wanted, self.quote, unseen),
                // A doubled quote opens again at once.
                true if self.escape == self.quote => memchr(self.quote, unseen),
                true => memchr2(self.escape, self.quote, unseen),
            };
            let Some(found) = found else {
                scan.at = bytes.len();
                return None;
            };
            let at = scan.at.saturating_add(found);
            scan.at = at.saturating_add(1);
            if bytes.get(at) == Some(&self.quote) {
                scan.quoted = !scan.quoted;
            } else if scan.quoted {
                // An escape takes the next byte along.
                scan.at = at.saturating_add(2);
            } else {
                return Some(at);
            }
        }
        None
    }
}

impl Delimited for Csv {
    fn null(&self) -> &[u8] {
        &self.null
    }

    #[inline]
    fn split(&self, rest: &[u8]) -> Result<Field, CopyError> {
        let mut scan = Scan::default();
        let end = self.find(self.delimiter, rest, &mut scan);
        if end.is_none() && scan.quoted {
            return Err(CopyError::Malformed);
        }
        let marked = rest.first() == Some(&self.quote);
        Ok(Field { length: end.unwrap_or(rest.len()), marked, more: end.is_some() })
    }

    /// Undoes the quotes.
    fn clear(&self, field: &[u8], clear: &mut Vec<u8>) -> Result<(), CopyError> {
        let inner = field.strip_prefix(&[self.quote]).and_then(|field| field.strip_suffix(&[self.quote]));
        let mut rest = inner.ok_or(CopyError::Malformed)?;
        while let Some(at) = memchr2(self.quote, self.escape, rest) {
            let (run, special) = rest.split_at_checked(at).ok_or(CopyError::Malformed)?;
            clear.extend_from_slice(run);
            rest = match special {
                [first, second, after @ ..] if *first == self.escape && (*second == self.quote || *second == self.escape) => {
                    clear.push(*second);
                    after
                }
                [first, ..] if *first == self.quote => return Err(CopyError::Malformed),
                [first, after @ ..] => {
                    clear.push(*first);
                    after
                }
                [] => special,
            };
        }
        clear.extend_from_slice(rest);
        Ok(())
    }

    /// What was quoted stays quoted.
    #[inline]
    fn settle(&self, from: usize, marked: bool, scratch: &mut Vec<u8>, out: &mut BytesMut) {
        let value = out.get(from..).unwrap_or_default();
        let ends_data = self.single && value == b"\\.";
        let special = any_of(value, 0, [self.delimiter, self.quote, b'\n', b'\r']);
        if !(marked || ends_data || special || value == self.null) {
            return;
        }
        scratch.clear();
        scratch.extend_from_slice(value);
        out.truncate(from);
        out.put_u8(self.quote);
        let mut rest = scratch.as_slice();
        while let Some(at) = memchr2(self.quote, self.escape, rest) {
            let (run, after) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            out.extend_from_slice(run);
            out.put_u8(self.escape);
            let (special, after) = after.split_at_checked(1).unwrap_or_default();
            out.extend_from_slice(special);
            rest = after;
        }
        out.extend_from_slice(rest);
        out.put_u8(self.quote);
    }
}
