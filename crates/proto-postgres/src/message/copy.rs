//! CopyInResponse, CopyOutResponse, CopyBothResponse.

use super::extended::{parse_formats, put_formats};
use crate::error::Malformed;
use crate::frame::{Reader, write};
use crate::types::{FormatCode, UpstreamTag};
use bytes::{BufMut, BytesMut};

/// The start of a COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyResponse {
    /// Whether the whole is binary.
    pub binary: bool,
    /// One format for each column.
    pub formats: Vec<FormatCode>,
}

impl CopyResponse {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let binary = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed::Value),
        };
        let formats = parse_formats(&mut reader)?;
        reader.end()?;
        Ok(Self { binary, formats })
    }

    /// Appends the frame.
    pub fn encode(&self, tag: UpstreamTag, out: &mut BytesMut) {
        write(out, tag.0, |out| {
            out.put_u8(u8::from(self.binary));
            put_formats(out, &self.formats);
        });
    }
}
