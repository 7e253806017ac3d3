//! The binary format.

use super::{Column, CopyError, Row};
use crate::error::Malformed;
use crate::frame::{Reader, patch_length};
use bytes::{BufMut, BytesMut};
use proxy_core::{Applied, Mask, ValueType};

/// First bytes of the stream.
pub(super) const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Last bytes of the stream.
pub(super) const TRAILER: &[u8] = b"\xff\xff";

/// The header: signature, flags, extension.
pub(super) fn find_header(rest: &[u8]) -> Result<Row, CopyError> {
    let Some((signature, after)) = rest.split_at_checked(SIGNATURE.len()) else {
        return if SIGNATURE.starts_with(rest) { Ok(Row::Partial) } else { Err(CopyError::Malformed) };
    };
    if signature != SIGNATURE {
        return Err(CopyError::Malformed);
    }
    let mut reader = Reader::new(after);
    let (Ok(flags), Ok(extension)) = (reader.u32(), reader.i32()) else { return Ok(Row::Partial) };
    let extension = usize::try_from(extension).map_err(|_| CopyError::Malformed)?;
    // The upper half are flags that a reader must know; bit 16 says that rows carry object ids.
    if flags >> 16 != 0 {
        return Err(CopyError::Malformed);
    }
    if reader.take(extension).is_err() {
        return Ok(Row::Partial);
    }
    Ok(Row::Ends { end: rest.len().saturating_sub(reader.rest().len()), terminator: 0 })
}

/// A row, or the trailer.
pub(super) fn find_row(rest: &[u8], columns: usize) -> Result<Row, CopyError> {
    let mut reader = Reader::new(rest);
    let Ok(count) = reader.i16() else { return Ok(Row::Partial) };
    if count == -1 {
        return Ok(Row::Ends { end: TRAILER.len(), terminator: 0 });
    }
    if usize::try_from(count) != Ok(columns) {
        return Err(CopyError::Malformed);
    }
    for _ in 0..columns {
        match reader.value() {
            Ok(_) => {}
            Err(Malformed::Negative) => return Err(CopyError::Malformed),
            Err(_) => return Ok(Row::Partial),
        }
    }
    Ok(Row::Ends { end: rest.len().saturating_sub(reader.rest().len()), terminator: 0 })
}

/// Appends `row` with its masked columns masked. Runs of columns that pass are copied at once.
pub(super) fn rewrite(columns: &[Column], row: &[u8], out: &mut BytesMut) -> Result<(), CopyError> {
    let malformed = |_| CopyError::Malformed;
    let mut reader = Reader::new(row);
    reader.i16().map_err(malformed)?;
    put_values(columns, row, &mut reader, out).map_err(malformed)?;
    reader.end().map_err(malformed)
}

/// Appends the values at the reader's place, each with its length before it, as a DataRow and COPY's binary format
/// have them. `unsent` ends where the reader does, and begins with what passes and is not copied yet.
#[inline]
pub(crate) fn put_values(
    columns: &[Column],
    mut unsent: &[u8],
    reader: &mut Reader<'_>,
    out: &mut BytesMut,
) -> Result<(), Malformed> {
    for column in columns {
        let before = reader.rest().len();
        let value = reader.value()?;
        let (Some((mask, value_type)), Some(value)) = (column, value) else { continue };
        let passes = unsent.len().saturating_sub(before);
        out.extend_from_slice(unsent.get(..passes).unwrap_or_default());
        unsent = unsent.get(unsent.len().saturating_sub(reader.rest().len())..).unwrap_or_default();
        put_masked(mask.as_ref(), value, *value_type, out);
    }
    let passes = unsent.len().saturating_sub(reader.rest().len());
    out.extend_from_slice(unsent.get(..passes).unwrap_or_default());
    Ok(())
}

/// Appends a masked value with its length before it.
fn put_masked(mask: &dyn Mask, value: &[u8], value_type: ValueType, out: &mut BytesMut) {
    let at = out.len();
    out.put_i32(-1);
    let from = out.len();
    match mask.apply(value, value_type, out) {
        Applied::Written => patch_length(out, at, from),
        Applied::Null => out.truncate(from),
    }
}
