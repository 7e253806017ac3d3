//! Rows whose values are separated by one byte: the text format and CSV.

use super::{Column, CopyError};
use bytes::BytesMut;
use proxy_core::Applied;

/// Memory for one value at a time.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// A value without the format's escapes.
    pub(super) clear: Vec<u8>,
    /// A masked value that must be escaped.
    pub(super) masked: Vec<u8>,
}

/// The field at the front of what is left of a row.
pub(super) struct Field {
    /// Its length.
    pub(super) length: usize,
    /// Whether there are escapes or quotes in it.
    pub(super) marked: bool,
    /// Whether a delimiter and a further field follow.
    pub(super) more: bool,
}

/// A format with one byte between values.
pub(super) trait Delimited {
    /// What stands for NULL.
    fn null(&self) -> &[u8];

    /// Finds the end of the field at the front of `rest`.
    fn split(&self, rest: &[u8]) -> Result<Field, CopyError>;

    /// The value of a field that is marked.
    fn clear(&self, field: &[u8], clear: &mut Vec<u8>) -> Result<(), CopyError>;

    /// Makes the value at the end of `out`, from `from`, one of this format; `marked`: the field that it stands for was.
    fn settle(&self, from: usize, marked: bool, scratch: &mut Vec<u8>, out: &mut BytesMut);
}

/// Whether one of `value`'s bytes is below `floor` (at most 128) or one of `bytes`. Eight at a time: values are
/// short, and most have none.
#[inline]
pub(super) fn any_of<const N: usize>(value: &[u8], floor: u8, bytes: [u8; N]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, floor: u8| word.wrapping_sub(ONES.wrapping_mul(u64::from(floor))) & !word & HIGHS;
    let word = |chunk: &[u8; 8]| {
        let word = u64::from_le_bytes(*chunk);
        let equal = |byte: &u8| below(word ^ ONES.wrapping_mul(u64::from(*byte)), 1);
        bytes.iter().fold(below(word, floor), |found, byte| found | equal(byte))
    };
    match value.last_chunk() {
        // The last eight overlap what is before them.
        Some(last) => value.as_chunks().0.iter().fold(word(last), |found, chunk| found | word(chunk)) != 0,
        None => value.iter().any(|byte| *byte < floor || bytes.contains(byte)),
    }
}

/// Appends `line` with its masked columns masked. Runs of columns that pass are copied at once.
pub(super) fn rewrite<F: Delimited>(
    format: &F,
    columns: &[Column],
    line: &[u8],
    scratch: &mut Scratch,
    out: &mut BytesMut,
) -> Result<(), CopyError> {
    // `rest` begins with the next field, `unsent` with what passes and is not copied yet.
    let (mut rest, mut unsent, mut more) = (line, line, true);
    for column in columns {
        if !more {
            return Err(CopyError::Malformed);
        }
        let field = format.split(rest)?;
        let (value, after) = rest.split_at_checked(field.length).ok_or(CopyError::Malformed)?;
        if let Some((mask, value_type)) = column
            && value != format.null()
        {
            let passes = unsent.len().saturating_sub(rest.len());
            out.extend_from_slice(unsent.get(..passes).unwrap_or_default());
            unsent = after;
            let clear = if field.marked {
                scratch.clear.clear();
                format.clear(value, &mut scratch.clear)?;
                scratch.clear.as_slice()
            } else {
                value
            };
            let from = out.len();
            match mask.apply(clear, *value_type, out) {
                Applied::Written => format.settle(from, field.marked, &mut scratch.masked, out),
                Applied::Null => {
                    out.truncate(from);
                    out.extend_from_slice(format.null());
                }
            }
        }
        more = field.more;
        rest = after.get(1..).unwrap_or_default();
    }
    if more {
        return Err(CopyError::Malformed);
    }
    out.extend_from_slice(unsent);
    Ok(())
}
