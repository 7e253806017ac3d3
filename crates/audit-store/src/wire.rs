//! The encoding's primitives: a canonical subset of the protocol buffers wire format.
//!
//! Canonical means that a value has one encoding only: fields in ascending order, varints minimal,
//! defaults (0, empty) left out unless the field is optional. [`Reader`] pulls the fields in that order, so
//! what is out of order, doubled or unknown is left over and [`Reader::finish`] refuses it.

use std::fmt;

/// Why a leaf cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later version of the format.
    #[error("format version {0} is not known")]
    UnknownVersion(u8),
    /// No such kind of entry in this version.
    #[error("kind {0} is not known")]
    UnknownKind(u8),
    /// It ends within a field.
    #[error("it ends within a field")]
    Truncated,
    /// Something is left that belongs to no field of this kind, or stands out of order.
    #[error("an unknown field, or one out of order")]
    Unexpected,
    /// A number that is not written in the shortest way, or a default that is written out.
    #[error("not the canonical encoding")]
    NotCanonical,
    /// A text that is not UTF-8.
    #[error("a text that is not UTF-8")]
    NotUtf8,
    /// A number that stands for nothing.
    #[error("a value out of range in field {0}")]
    OutOfRange(u32),
    /// A payload that is not what the leaf committed to.
    #[error("the payload of field {0} is not what the entry commits to")]
    Commitment(u32),
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
/// A varint of 64 bits takes at most ten bytes.
const VARINT_MAX: usize = 10;

/// Appends `value` as a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint off the front of `rest`.
#[inline]
pub(crate) fn take_varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    // Tags, lengths and most numbers.
    if let Some((byte, after)) = rest.split_first()
        && byte & 0x80 == 0
    {
        *rest = after;
        return Ok(u64::from(*byte));
    }
    take_long_varint(rest)
}

fn take_long_varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for at in 0..VARINT_MAX {
        let (byte, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if at == VARINT_MAX - 1 && bits > 1 {
            return Err(DecodeError::NotCanonical);
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return if *byte == 0 && at > 0 { Err(DecodeError::NotCanonical) } else { Ok(value) };
        }
    }
    Err(DecodeError::NotCanonical)
}

/// Takes a varint and that many bytes off the front of `rest`.
pub(crate) fn take_prefixed<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = usize::try_from(take_varint(rest)?).map_err(|_| DecodeError::Truncated)?;
    let (taken, after) = rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *rest = after;
    Ok(taken)
}

/// Maps a signed number to an unsigned one so that small ones stay small.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Appends fields to a buffer.
pub(crate) struct Writer<'a> {
    pub(crate) out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn tag(&mut self, field: u32, wire: u64) {
        put_varint(self.out, (u64::from(field) << 3) | wire);
    }

    /// A number; 0 is left out.
    pub(crate) fn uint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, VARINT);
            put_varint(self.out, value);
        }
    }

    /// A signed number of eight bytes, little-endian; always there.
    pub(crate) fn fixed(&mut self, field: u32, value: i64) {
        self.tag(field, FIXED64);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes; left out when empty.
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.element(field, value);
        }
    }

    /// Bytes that may be absent: empty ones are there.
    pub(crate) fn optional(&mut self, field: u32, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.element(field, value);
        }
    }

    /// One element of a list: always there.
    pub(crate) fn element(&mut self, field: u32, value: &[u8]) {
        self.tag(field, BYTES);
        put_varint(self.out, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// One element of a list of messages: always there.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Writer<'_>)) {
        self.tag(field, BYTES);
        // One byte is kept for the length; the few longer messages are moved up.
        let at = self.out.len();
        self.out.push(0);
        write(&mut Writer { out: self.out });
        let length = self.out.len() - at - 1;
        if length < 0x80 {
            self.out[at] = length as u8;
        } else {
            let mut prefix = Vec::with_capacity(VARINT_MAX);
            put_varint(&mut prefix, length as u64);
            self.out.splice(at..=at, prefix);
        }
    }

    /// Texts, each an element of `field`.
    pub(crate) fn list<'t>(&mut self, field: u32, values: impl IntoIterator<Item = &'t str>) {
        for value in values {
            self.element(field, value.as_bytes());
        }
    }

    /// A map of texts: elements of `field`, each with the key as 1 and the value as 2, in ascending order of keys.
    pub(crate) fn map(&mut self, field: u32, map: &std::collections::BTreeMap<String, String>) {
        for (key, value) in map {
            self.message(field, |entry| {
                entry.bytes(1, key.as_bytes());
                entry.bytes(2, value.as_bytes());
            });
        }
    }
}

/// Pulls fields out of a message, in ascending order.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} bytes left)", self.rest.len())
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Moves past the tag if the next field is `field`.
    fn at(&mut self, field: u32, wire: u64) -> Result<bool, DecodeError> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let mut rest = self.rest;
        if take_varint(&mut rest)? != (u64::from(field) << 3) | wire {
            return Ok(false);
        }
        self.rest = rest;
        Ok(true)
    }

    /// A number, 0 where it is absent.
    pub(crate) fn uint(&mut self, field: u32) -> Result<u64, DecodeError> {
        if !self.at(field, VARINT)? {
            return Ok(0);
        }
        match take_varint(&mut self.rest)? {
            0 => Err(DecodeError::NotCanonical),
            value => Ok(value),
        }
    }

    /// A number of 32 bits.
    pub(crate) fn uint32(&mut self, field: u32) -> Result<u32, DecodeError> {
        u32::try_from(self.uint(field)?).map_err(|_| DecodeError::OutOfRange(field))
    }

    /// A signed number of eight bytes that must be there.
    pub(crate) fn fixed(&mut self, field: u32) -> Result<i64, DecodeError> {
        if !self.at(field, FIXED64)? {
            return Err(DecodeError::Unexpected);
        }
        let (bytes, after) = self.rest.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
        self.rest = after;
        Ok(i64::from_le_bytes(*bytes))
    }

    /// Bytes that may be absent, or one element of a list.
    pub(crate) fn optional(&mut self, field: u32) -> Result<Option<&'a [u8]>, DecodeError> {
        if self.at(field, BYTES)? { take_prefixed(&mut self.rest).map(Some) } else { Ok(None) }
    }

    /// Bytes, empty where they are absent.
    pub(crate) fn bytes(&mut self, field: u32) -> Result<&'a [u8], DecodeError> {
        match self.optional(field)? {
            Some([]) => Err(DecodeError::NotCanonical),
            Some(bytes) => Ok(bytes),
            None => Ok(&[]),
        }
    }

    /// A text, empty where it is absent.
    pub(crate) fn text(&mut self, field: u32) -> Result<String, DecodeError> {
        text(self.bytes(field)?)
    }

    /// A text that may be absent.
    pub(crate) fn optional_text(&mut self, field: u32) -> Result<Option<String>, DecodeError> {
        self.optional(field)?.map(text).transpose()
    }

    /// All texts of a list.
    pub(crate) fn list(&mut self, field: u32) -> Result<Vec<String>, DecodeError> {
        let mut list = Vec::new();
        while let Some(bytes) = self.optional(field)? {
            list.push(text(bytes)?);
        }
        Ok(list)
    }

    /// A map of texts.
    pub(crate) fn map(&mut self, field: u32) -> Result<std::collections::BTreeMap<String, String>, DecodeError> {
        let mut map = std::collections::BTreeMap::new();
        while let Some(bytes) = self.optional(field)? {
            let mut entry = Reader::new(bytes);
            let (key, value) = (entry.text(1)?, entry.text(2)?);
            entry.finish()?;
            if map.last_key_value().is_some_and(|(last, _): (&String, _)| *last >= key) {
                return Err(DecodeError::NotCanonical);
            }
            map.insert(key, value);
        }
        Ok(map)
    }

    /// Moves past whatever field is next and returns its number; `None` at the end.
    #[inline]
    pub(crate) fn skip(&mut self) -> Result<Option<(u32, &'a [u8])>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = take_varint(&mut self.rest)?;
        let field = u32::try_from(tag >> 3).map_err(|_| DecodeError::Unexpected)?;
        let bytes: &[u8] = match tag & 7 {
            VARINT => {
                take_varint(&mut self.rest)?;
                &[]
            }
            FIXED64 => {
                let (_, after) = self.rest.split_at_checked(8).ok_or(DecodeError::Truncated)?;
                self.rest = after;
                &[]
            }
            BYTES => take_prefixed(&mut self.rest)?,
            _ => return Err(DecodeError::Unexpected),
        };
        Ok(Some((field, bytes)))
    }

    /// Moves to the first field of a number of at least `field`.
    pub(crate) fn skip_to(&mut self, field: u32) -> Result<(), DecodeError> {
        loop {
            let before = *self;
            match self.skip()? {
                None => return Ok(()),
                Some((found, _)) if found >= field => {
                    *self = before;
                    return Ok(());
                }
                Some(_) => {}
            }
        }
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Unexpected) }
    }
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::{DecodeError, Reader, Writer, put_varint, take_varint, unzigzag, zigzag};

    #[test]
    fn varints_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut rest = &out[..];
            assert_eq!(take_varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
        }
        assert_eq!(take_varint(&mut &[0x80, 0x00][..]), Err(DecodeError::NotCanonical));
        assert_eq!(take_varint(&mut &[0x80][..]), Err(DecodeError::Truncated));
        assert_eq!(take_varint(&mut &[0xff; 11][..]), Err(DecodeError::NotCanonical));
    }

    #[test]
    fn zigzag_is_reversible() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn long_messages_get_a_long_length() {
        let mut out = Vec::new();
        Writer { out: &mut out }.message(3, |inner| inner.bytes(1, &[7; 300]));
        let mut reader = Reader::new(&out);
        let inner = reader.optional(3).unwrap().unwrap();
        assert_eq!(Reader::new(inner).bytes(1), Ok(&[7u8; 300][..]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn order_defaults_and_leftovers_are_checked() {
        let mut out = Vec::new();
        let mut writer = Writer { out: &mut out };
        writer.uint(2, 5);
        writer.uint(1, 5);
        let mut reader = Reader::new(&out);
        assert_eq!((reader.uint(1), reader.uint(2)), (Ok(0), Ok(5)));
        assert_eq!(reader.finish(), Err(DecodeError::Unexpected));
        assert_eq!(Reader::new(&[0x08, 0x00]).uint(1), Err(DecodeError::NotCanonical));
        assert_eq!(Reader::new(&[0x0a, 0x00]).bytes(1), Err(DecodeError::NotCanonical));
        assert_eq!(Reader::new(&[0x0a, 0x05, 1]).bytes(1), Err(DecodeError::Truncated));
    }
}
