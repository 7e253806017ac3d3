//! Query.

use crate::error::Malformed;
use crate::frame::{put_cstr, write};
use crate::types::ClientTag;
use bytes::BytesMut;

/// A batch of statements, run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The text, without its NUL.
    pub text: &'a [u8],
}

impl<'a> Query<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed::MissingNul`]; [`Malformed::Trailing`]: bytes after the text could hide a second one.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self { text: super::only_cstr(body)? })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, ClientTag::QUERY.0, |out| put_cstr(out, self.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_cannot_hide_a_second_one() {
        assert_eq!(Query::parse(b"select 1\0drop table t\0"), Err(Malformed::Trailing));
        assert_eq!(Query::parse(b"select 1"), Err(Malformed::MissingNul));
        assert_eq!(Query::parse(b""), Err(Malformed::MissingNul));
        assert_eq!(Query::parse(b"select 1\0").unwrap().text, b"select 1");
    }
}
