//! FunctionCall: a function by its object id.

use super::extended::{expand, parse_formats, parse_values, put_formats, put_values};
use crate::error::Malformed;
use crate::frame::{Reader, write};
use crate::types::{ClientTag, FormatCode};
use bytes::{BufMut, BytesMut};

/// Calls a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// Object id of the function.
    pub function: u32,
    /// None, one for all, or one for each argument.
    pub argument_formats: Vec<FormatCode>,
    /// Arguments; `None` is NULL.
    pub arguments: Vec<Option<&'a [u8]>>,
    /// Format of the result.
    pub result_format: FormatCode,
}

impl<'a> FunctionCall<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let function = reader.u32()?;
        let argument_formats = parse_formats(&mut reader)?;
        let arguments = parse_values(&mut reader)?;
        let result_format = FormatCode(reader.i16()?);
        reader.end()?;
        if argument_formats.len() > 1 && argument_formats.len() != arguments.len() {
            return Err(Malformed::FormatCount);
        }
        Ok(Self { function, argument_formats, arguments, result_format })
    }

    /// The format of the argument at `at`.
    #[must_use]
    pub fn format_of(&self, at: usize) -> FormatCode {
        expand(&self.argument_formats, at)
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, ClientTag::FUNCTION_CALL.0, |out| {
            out.put_u32(self.function);
            put_formats(out, &self.argument_formats);
            put_values(out, &self.arguments);
            out.put_i16(self.result_format.0);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lengths_are_checked() {
        // CVE-2026-33816.
        assert_eq!(FunctionCall::parse(b"\0\0\0\x01\0\0\xff\xff"), Err(Malformed::Truncated));
        assert_eq!(FunctionCall::parse(b"\0\0\0\x01\0\0\0\x01\x80\0\0\0\0\0"), Err(Malformed::Negative));
        assert_eq!(FunctionCall::parse(b"\0\0\0\x01\0\0\0\0\0\x01").unwrap().result_format, FormatCode::BINARY);
        assert_eq!(FunctionCall::parse(b"\0\0\0\x01\0\0\0\0\0\x01z"), Err(Malformed::Trailing));
    }
}
