//! The extended query protocol: Parse, Bind, Describe, Execute, Close.

use crate::error::Malformed;
use crate::frame::{Reader, put_cstr, write};
use crate::types::{ClientTag, FormatCode};
use bytes::{BufMut, BytesMut};

/// Prepares a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty: the unnamed one.
    pub name: &'a [u8],
    /// Its text.
    pub query: &'a [u8],
    /// Type numbers of the first parameters; 0: the server decides.
    pub types: Vec<u32>,
}

impl<'a> Parse<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    #[expect(clippy::self_named_constructors, reason = "the specification's name for the message, ours for the function")]
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let name = reader.cstr()?;
        let query = reader.cstr()?;
        let count = usize::from(reader.u16()?);
        // Four bytes each: the count cannot make us allocate more than the message holds.
        if reader.rest().len() != count.saturating_mul(4) {
            return Err(if reader.rest().len() < count.saturating_mul(4) { Malformed::Truncated } else { Malformed::Trailing });
        }
        let mut types = Vec::with_capacity(count);
        for _ in 0..count {
            types.push(reader.u32()?);
        }
        reader.end()?;
        Ok(Self { name, query, types })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, ClientTag::PARSE.0, |out| {
            put_cstr(out, self.name);
            put_cstr(out, self.query);
            out.put_u16(u16::try_from(self.types.len()).unwrap_or(u16::MAX));
            for id in &self.types {
                out.put_u32(*id);
            }
        });
    }
}

/// Makes a portal of a statement and parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty: the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// None, one for all, or one for each parameter.
    pub parameter_formats: Vec<FormatCode>,
    /// Values; `None` is NULL.
    pub parameters: Vec<Option<&'a [u8]>>,
    /// None, one for all, or one for each result column.
    pub result_formats: Vec<FormatCode>,
}

impl<'a> Bind<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let statement = reader.cstr()?;
        let parameter_formats = parse_formats(&mut reader)?;
        let parameters = parse_values(&mut reader)?;
        let result_formats = parse_formats(&mut reader)?;
        reader.end()?;
        if parameter_formats.len() > 1 && parameter_formats.len() != parameters.len() {
            return Err(Malformed::FormatCount);
        }
        Ok(Self { portal, statement, parameter_formats, parameters, result_formats })
    }

    /// The format of the parameter at `at`, as the format codes expand.
    #[must_use]
    pub fn format_of(&self, at: usize) -> FormatCode {
        expand(&self.parameter_formats, at)
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, ClientTag::BIND.0, |out| {
            put_cstr(out, self.portal);
            put_cstr(out, self.statement);
            put_formats(out, &self.parameter_formats);
            put_values(out, &self.parameters);
            put_formats(out, &self.result_formats);
        });
    }
}

/// A Bind whose layout was checked, and whose values are read where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindLayout<'a> {
    /// The portal's name; empty: the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// How many parameters it has.
    pub count: usize,
    formats: &'a [u8],
    values: &'a [u8],
}

impl<'a> BindLayout<'a> {
    /// Checks the body as [`Bind::parse`] does.
    ///
    /// # Errors
    /// [`Malformed`], as [`Bind::parse`].
    pub fn check(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let statement = reader.cstr()?;
        let codes = usize::from(reader.u16()?);
        let formats = reader.take(codes.saturating_mul(2))?;
        let count = usize::from(reader.u16()?);
        let values = reader.rest();
        for _ in 0..count {
            reader.value()?;
        }
        let results = usize::from(reader.u16()?);
        reader.take(results.saturating_mul(2))?;
        reader.end()?;
        if codes > 1 && codes != count {
            return Err(Malformed::FormatCount);
        }
        Ok(Self { portal, statement, count, formats, values })
    }

    /// Each parameter's format, as the codes expand, and value; `None` is NULL.
    pub fn parameters(&self) -> impl Iterator<Item = Result<(FormatCode, Option<&'a [u8]>), Malformed>> {
        let (formats, mut values) = (self.formats, Reader::new(self.values));
        (0..self.count).map(move |at| {
            let code = match formats.len() {
                0 => FormatCode::TEXT,
                2 => FormatCode(Reader::new(formats).i16()?),
                _ => FormatCode(Reader::new(formats.get(at.saturating_mul(2)..).unwrap_or_default()).i16()?),
            };
            Ok((code, values.value()?))
        })
    }
}

/// The code at `at` when none means text and one means all.
pub(crate) fn expand(formats: &[FormatCode], at: usize) -> FormatCode {
    match formats {
        [] => FormatCode::TEXT,
        [one] => *one,
        many => many.get(at).copied().unwrap_or(FormatCode::TEXT),
    }
}

pub(crate) fn parse_formats(reader: &mut Reader<'_>) -> Result<Vec<FormatCode>, Malformed> {
    let count = usize::from(reader.u16()?);
    let mut codes = Reader::new(reader.take(count.saturating_mul(2))?);
    let mut formats = Vec::with_capacity(count);
    for _ in 0..count {
        formats.push(FormatCode(codes.i16()?));
    }
    Ok(formats)
}

pub(crate) fn parse_values<'a>(reader: &mut Reader<'a>) -> Result<Vec<Option<&'a [u8]>>, Malformed> {
    let count = usize::from(reader.u16()?);
    // Each value has at least its length.
    if reader.rest().len() < count.saturating_mul(4) {
        return Err(Malformed::Truncated);
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(reader.value()?);
    }
    Ok(values)
}

pub(crate) fn put_formats(out: &mut BytesMut, formats: &[FormatCode]) {
    out.put_u16(u16::try_from(formats.len()).unwrap_or(u16::MAX));
    for format in formats {
        out.put_i16(format.0);
    }
}

pub(crate) fn put_values(out: &mut BytesMut, values: &[Option<&[u8]>]) {
    out.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
    for value in values {
        put_value(out, *value);
    }
}

pub(crate) fn put_value(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(value) => {
            out.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
            out.extend_from_slice(value);
        }
    }
}

/// What Describe and Close speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement (`S`).
    Statement,
    /// A portal (`P`).
    Portal,
}

impl Target {
    fn parse(byte: u8) -> Result<Self, Malformed> {
        match byte {
            b'S' => Ok(Self::Statement),
            b'P' => Ok(Self::Portal),
            _ => Err(Malformed::Value),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

macro_rules! by_name {
    ($(#[$meta:meta])* $name:ident, $tag:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name<'a> {
            /// Statement or portal.
            pub target: Target,
            /// Its name.
            pub name: &'a [u8],
        }

        impl<'a> $name<'a> {
            /// Parses the body.
            ///
            /// # Errors
            /// [`Malformed`].
            pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
                let mut reader = Reader::new(body);
                let target = Target::parse(reader.u8()?)?;
                let name = reader.cstr()?;
                reader.end()?;
                Ok(Self { target, name })
            }

            /// Appends the frame.
            pub fn encode(&self, out: &mut BytesMut) {
                write(out, $tag.0, |out| {
                    out.put_u8(self.target.byte());
                    put_cstr(out, self.name);
                });
            }
        }
    };
}

by_name! {
    /// Asks for the columns of a statement or portal.
    Describe, ClientTag::DESCRIBE
}
by_name! {
    /// Drops a statement or portal.
    Close, ClientTag::CLOSE
}

/// Runs a portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// Most rows to return; 0: all.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let max_rows = reader.i32()?;
        reader.end()?;
        Ok(Self { portal, max_rows })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, ClientTag::EXECUTE.0, |out| {
            put_cstr(out, self.portal);
            out.put_i32(self.max_rows);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_parse_is_an_error_and_no_panic() {
        for end in 0..b"s\0select $1\0\0\x01\0\0\0\x17".len() {
            assert!(Parse::parse(&b"s\0select $1\0\0\x01\0\0\0\x17"[..end]).is_err(), "{end}");
        }
        let parse = Parse::parse(b"s\0select $1\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!((parse.name, parse.query, parse.types), (&b"s"[..], &b"select $1"[..], vec![23]));
        assert_eq!(Parse::parse(b"\0\0\xff\xff"), Err(Malformed::Truncated));
        assert_eq!(Parse::parse(b"\0\0\0\0x"), Err(Malformed::Trailing));
    }

    #[test]
    fn bind_counts_and_lengths_are_checked_before_use() {
        // CVE-2026-33815: a count that the message does not hold; a negative length.
        assert_eq!(Bind::parse(b"\0\0\0\0\xff\xff"), Err(Malformed::Truncated));
        assert_eq!(Bind::parse(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"), Err(Malformed::Negative));
        assert_eq!(Bind::parse(b"\0\0\0\x02\0\0\0\x01\0\x01\xff\xff\xff\xff\0\0"), Err(Malformed::FormatCount));
    }

    /// What is read of a Bind without building it.
    fn read(body: &[u8]) -> Result<Bind<'_>, Malformed> {
        let layout = BindLayout::check(body)?;
        let (parameter_formats, parameters) = layout.parameters().collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let BindLayout { portal, statement, .. } = layout;
        Ok(Bind { portal, statement, parameter_formats, parameters, result_formats: Vec::new() })
    }

    #[test]
    fn a_layout_is_checked_and_read_as_the_message_is_parsed() {
        let bodies: [&[u8]; 7] = [
            b"p\0s\0\0\0\0\0\0\0",
            b"p\0s\0\0\0\0\0\0\0x",
            b"\0\0\0\x02\0\0\0\x01\0\x01\xff\xff\xff\xff\0\0",
            b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0",
            b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\x01\0\0",
            b"\0s\0\0\x02\0\x01\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0",
            b"p\0longer than sixteen bytes\0\0\0\0\x01\0\0\0\x02ab\0\0",
        ];
        for body in bodies {
            for end in 0..=body.len() {
                let parsed = Bind::parse(&body[..end]);
                let expanded = parsed.map(|bind| Bind {
                    parameter_formats: (0..bind.parameters.len()).map(|at| bind.format_of(at)).collect(),
                    result_formats: Vec::new(),
                    ..bind
                });
                assert_eq!(read(&body[..end]), expanded, "{body:?} up to {end}");
            }
        }
    }

    #[test]
    fn format_codes_expand() {
        assert_eq!(expand(&[], 3), FormatCode::TEXT);
        assert_eq!(expand(&[FormatCode::BINARY], 3), FormatCode::BINARY);
        assert_eq!(expand(&[FormatCode::TEXT, FormatCode::BINARY], 1), FormatCode::BINARY);
    }

    #[test]
    fn describe_speaks_of_statements_and_portals_alone() {
        assert_eq!(Describe::parse(b"X\0"), Err(Malformed::Value));
        assert_eq!(Describe::parse(b"Pname\0").unwrap().target, Target::Portal);
    }
}
