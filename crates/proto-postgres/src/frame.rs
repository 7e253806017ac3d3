//! Frames: a type byte, a length that counts itself, a body. And the bounds-checked reader for bodies.
//!
//! <https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS>

use crate::error::Malformed;
use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr;

/// Bytes before a body: type and length.
pub const HEADER: usize = 5;

/// Longest frame, header included: the server's `PQ_LARGE_MESSAGE_LIMIT` is `MaxAllocSize - 1`.
pub const FRAME_MAX: usize = 0x3fff_ffff + 1;

/// Bytes in which the end of a string is looked for one by one.
const NEAR: usize = 16;

/// A frame's type and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Type byte.
    pub tag: u8,
    /// Size of the whole frame, header included.
    pub total: usize,
}

/// Reads the header at the front of `bytes`; `None`: fewer than five bytes.
///
/// # Errors
/// [`Malformed::Length`]: shorter than its own length field, or longer than the protocol allows.
#[inline]
pub fn peek(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let &[tag, a, b, c, d, ..] = bytes else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..FRAME_MAX).contains(&length) {
        return Err(Malformed::Length);
    }
    Ok(Some(Header { tag, total: length.saturating_add(1) }))
}

/// One whole frame. Keeps the original bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    tag: u8,
    bytes: Bytes,
}

impl Frame {
    /// Takes the frame at the front of `buffer`; `None`: it is not whole yet.
    ///
    /// # Errors
    /// [`Malformed::Length`] as [`peek`], and for a frame longer than `max` (header included).
    pub fn decode(buffer: &mut BytesMut, max: usize) -> Result<Option<Self>, Malformed> {
        let Some(header) = peek(buffer)? else { return Ok(None) };
        if header.total > max {
            return Err(Malformed::Length);
        }
        if buffer.len() < header.total {
            return Ok(None);
        }
        Ok(Some(Self { tag: header.tag, bytes: buffer.split_to(header.total).freeze() }))
    }

    /// A frame from its whole bytes.
    ///
    /// # Errors
    /// [`Malformed::Length`]: its length field does not name exactly these bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, Malformed> {
        match peek(&bytes)? {
            Some(header) if header.total == bytes.len() => Ok(Self { tag: header.tag, bytes }),
            Some(_) | None => Err(Malformed::Length),
        }
    }

    /// Type byte.
    #[must_use]
    pub fn tag(&self) -> u8 {
        self.tag
    }

    /// What follows the length.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER.min(self.bytes.len())..)
    }

    /// The frame as it came.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Appends a frame of type `tag` whose body `body` writes.
pub fn write(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    body(out);
    patch_length(out, at, at);
}

/// Writes the bytes from `from` to the end of `out` as a length at `at`.
pub(crate) fn patch_length(out: &mut BytesMut, at: usize, from: usize) {
    let length = u32::try_from(out.len().saturating_sub(from)).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(at..at.saturating_add(4)) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends `text` and a NUL. A NUL inside ends it: nothing can be hidden behind.
pub fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.extend_from_slice(text.split(|b| *b == 0).next().unwrap_or_default());
    out.put_u8(0);
}

/// Makes room in a read buffer for a frame of `total` bytes that must be whole, in steps that double with
/// what has arrived, so that a length field by itself allocates little.
pub(crate) fn make_room(buffer: &mut BytesMut, total: usize) {
    if buffer.len() < buffer.capacity() {
        return;
    }
    let missing = total.saturating_sub(buffer.len());
    buffer.reserve(missing.min(buffer.len().max(crate::limits::BUFFER_STEP)));
}

/// Reads fields off a body. Every method fails rather than read past the end.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Over a body.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Exactly `n` bytes.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[b]| b)
    }

    /// Int16.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    /// Int16 without a sign: parameter counts go to 65,535.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Int32.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// Int32 without a sign: object ids.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A string up to its NUL, which is taken too.
    ///
    /// # Errors
    /// [`Malformed::MissingNul`].
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        // Names are short, and most are empty; texts are long.
        let near = self.rest.iter().take(NEAR).position(|byte| *byte == 0);
        let at = near.or_else(|| memchr(0, self.rest)).ok_or(Malformed::MissingNul)?;
        let text = self.take(at)?;
        self.take(1)?;
        Ok(text)
    }

    /// A value with its length before it; `None` is NULL.
    ///
    /// # Errors
    /// [`Malformed::Negative`] below −1, [`Malformed::Truncated`].
    #[inline]
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed::Negative)?;
                self.take(length).map(Some)
            }
        }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`Malformed::Trailing`].
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}

/// The part of `whole` that `part` is, without a copy. `part` must point into `whole`.
pub(crate) fn slice_of(whole: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { whole.slice_ref(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_below_four_is_malformed_before_anything_is_read() {
        for length in 0..4u8 {
            assert_eq!(peek(&[b'Q', 0, 0, 0, length]), Err(Malformed::Length));
        }
        assert_eq!(peek(&[b'D', 0xff, 0xff, 0xff, 0xff]), Err(Malformed::Length));
        assert_eq!(peek(&[b'D', 0x40, 0, 0, 0]), Err(Malformed::Length));
        assert_eq!(peek(&[b'Q', 0, 0, 0, 4]), Ok(Some(Header { tag: b'Q', total: 5 })));
        assert_eq!(peek(&[b'Q', 0, 0, 0]), Ok(None));
    }

    #[test]
    fn a_frame_takes_exactly_its_bytes() {
        let mut buffer = BytesMut::from(&b"S\0\0\0\x04H\0\0\0\x04X"[..]);
        assert_eq!(Frame::decode(&mut buffer, 100).unwrap().unwrap().tag(), b'S');
        assert_eq!(Frame::decode(&mut buffer, 100).unwrap().unwrap().tag(), b'H');
        assert_eq!(Frame::decode(&mut buffer, 100), Ok(None));
        assert_eq!(&buffer[..], b"X");
    }

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_it_is_buffered() {
        let mut buffer = BytesMut::from(&b"p\0\x01\0\0"[..]);
        assert_eq!(Frame::decode(&mut buffer, 1000), Err(Malformed::Length));
    }

    #[test]
    fn a_length_field_by_itself_allocates_little() {
        let mut buffer = BytesMut::with_capacity(8);
        buffer.extend_from_slice(&[0; 8]);
        make_room(&mut buffer, 64 << 20);
        assert!(buffer.capacity() <= 2 * crate::limits::BUFFER_STEP);
    }

    #[test]
    fn reader_refuses_what_is_not_there() {
        let mut reader = Reader::new(b"ab\0\xff\xff\xff\xfe");
        assert_eq!(reader.cstr(), Ok(&b"ab"[..]));
        assert_eq!(reader.value(), Err(Malformed::Negative));
        assert_eq!(Reader::new(b"abc").cstr(), Err(Malformed::MissingNul));
        assert_eq!(Reader::new(&[0, 0, 0, 9, 1]).value(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(b"x").end(), Err(Malformed::Trailing));
    }

    #[test]
    fn a_nul_inside_a_string_ends_it() {
        let mut out = BytesMut::new();
        put_cstr(&mut out, b"ab\0cd");
        assert_eq!(&out[..], b"ab\0");
    }
}
