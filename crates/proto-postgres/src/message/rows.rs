//! RowDescription, DataRow, ParameterDescription.

use crate::error::Malformed;
use crate::frame::{Reader, put_cstr, write};
use crate::message::extended::put_values;
use crate::types::{FormatCode, UpstreamTag};
use bytes::{BufMut, BytesMut};

/// Fewest bytes of one column in a RowDescription: an empty name's NUL and 18 bytes.
const FIELD_MIN: usize = 19;

/// One column of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// What the client calls it: an alias does not change where it comes from.
    pub name: &'a [u8],
    /// Object id of the table or view; 0: an expression.
    pub table: u32,
    /// Number of the column in it, from 1; 0: an expression.
    pub column: i16,
    /// The type's object id.
    pub type_id: u32,
    /// The type's size; negative: variable.
    pub type_size: i16,
    /// The type's modifier.
    pub type_modifier: i32,
    /// How values travel.
    pub format: FormatCode,
}

/// The columns of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDescription<'a> {
    /// In order.
    pub fields: Vec<Field<'a>>,
}

impl<'a> RowDescription<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let count = usize::try_from(reader.i16()?).map_err(|_| Malformed::Negative)?;
        if reader.rest().len() < count.saturating_mul(FIELD_MIN) {
            return Err(Malformed::Truncated);
        }
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            fields.push(Field {
                name: reader.cstr()?,
                table: reader.u32()?,
                column: reader.i16()?,
                type_id: reader.u32()?,
                type_size: reader.i16()?,
                type_modifier: reader.i32()?,
                format: FormatCode(reader.i16()?),
            });
        }
        reader.end()?;
        Ok(Self { fields })
    }

    /// Checks the body as [`RowDescription::parse`] does, and gives the number of columns.
    ///
    /// # Errors
    /// [`Malformed`], as [`RowDescription::parse`].
    pub fn count(body: &[u8]) -> Result<usize, Malformed> {
        let mut reader = Reader::new(body);
        let count = usize::try_from(reader.i16()?).map_err(|_| Malformed::Negative)?;
        if reader.rest().len() < count.saturating_mul(FIELD_MIN) {
            return Err(Malformed::Truncated);
        }
        for _ in 0..count {
            reader.cstr()?;
            reader.take(FIELD_MIN - 1)?;
        }
        reader.end()?;
        Ok(count)
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, UpstreamTag::ROW_DESCRIPTION.0, |out| {
            out.put_i16(i16::try_from(self.fields.len()).unwrap_or(i16::MAX));
            for field in &self.fields {
                put_cstr(out, field.name);
                out.put_u32(field.table);
                out.put_i16(field.column);
                out.put_u32(field.type_id);
                out.put_i16(field.type_size);
                out.put_i32(field.type_modifier);
                out.put_i16(field.format.0);
            }
        });
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRow<'a> {
    /// Values; `None` is NULL.
    pub values: Vec<Option<&'a [u8]>>,
}

impl<'a> DataRow<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`]: negative counts and lengths among others (CVE-2026-32286).
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let count = usize::try_from(reader.i16()?).map_err(|_| Malformed::Negative)?;
        if reader.rest().len() < count.saturating_mul(4) {
            return Err(Malformed::Truncated);
        }
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(reader.value()?);
        }
        reader.end()?;
        Ok(Self { values })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, UpstreamTag::DATA_ROW.0, |out| put_values(out, &self.values));
    }
}

/// Parses a ParameterDescription's body.
///
/// # Errors
/// [`Malformed`].
pub fn parse_parameter_description(body: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u16()?);
    let mut ids = Reader::new(reader.take(count.saturating_mul(4))?);
    reader.end()?;
    let mut types = Vec::with_capacity(count);
    for _ in 0..count {
        types.push(ids.u32()?);
    }
    Ok(types)
}

/// Appends a ParameterDescription's frame.
pub fn encode_parameter_description(types: &[u32], out: &mut BytesMut) {
    write(out, UpstreamTag::PARAMETER_DESCRIPTION.0, |out| {
        out.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
        for id in types {
            out.put_u32(*id);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lengths_are_malformed() {
        assert_eq!(DataRow::parse(b"\xff\xff"), Err(Malformed::Negative));
        assert_eq!(DataRow::parse(b"\0\x01\xff\xff\xff\xfe"), Err(Malformed::Negative));
        assert_eq!(DataRow::parse(b"\x7f\xff"), Err(Malformed::Truncated));
        assert_eq!(DataRow::parse(b"\0\x01\x7f\xff\xff\xffab"), Err(Malformed::Truncated));
        assert_eq!(DataRow::parse(b"\0\0x"), Err(Malformed::Trailing));
        assert_eq!(RowDescription::parse(b"\x7f\xffabc"), Err(Malformed::Truncated));
        assert_eq!(RowDescription::parse(b"\xff\xfe"), Err(Malformed::Negative));
        let whole =
            b"\0\x02a\0\0\0\0\x01\0\x02\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\0\0\0\0\0\x01x";
        for end in 0..=whole.len() {
            let parsed = RowDescription::parse(&whole[..end]).map(|description| description.fields.len());
            assert_eq!(RowDescription::count(&whole[..end]), parsed, "up to {end}");
        }
    }
}
