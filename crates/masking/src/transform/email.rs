//! `email`: `alice@example.com` is shown as `a***@e***.com`.
//!
//! The first character of the local part and of the domain stay when there are at least three of them, and the
//! top-level domain when it is two to eight letters. What is not an address is redacted.

use super::{HIDDEN, Transform};
use bytes::BytesMut;

/// Characters that a part must have for its first to be shown.
const SHOWN_FROM: usize = 3;
/// Longest masked address: two characters of four bytes, a top level of eight, and what stands between.
const MASKED_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Email;

impl Transform for Email {
    fn write(&self, text: &str, out: &mut BytesMut) {
        let Some((local, domain, top)) = parts(text) else {
            out.extend_from_slice(HIDDEN.as_bytes());
            return;
        };
        let letters = (2..=8).contains(&top.len()) && top.bytes().all(|byte| byte.is_ascii_alphabetic());
        let top = if letters { top } else { HIDDEN };
        if let (Some(local), Some(domain)) = (ascii_initial(local), ascii_initial(domain)) {
            let mut masked = *b"?***@?***.        ";
            (masked[0], masked[5]) = (local, domain);
            masked.iter_mut().skip(10).zip(top.bytes()).for_each(|(place, byte)| *place = byte);
            out.extend_from_slice(masked.get(..10 + top.len()).unwrap_or_default());
            return;
        }
        let pieces = [initial(local), "***@", initial(domain), "***.", top];
        // Put together first: one append costs less than five.
        let mut masked = [0; MASKED_MAX];
        let mut length = 0;
        for piece in pieces {
            let Some(room) = masked.get_mut(length..length + piece.len()) else { break };
            room.copy_from_slice(piece.as_bytes());
            length += piece.len();
        }
        out.extend_from_slice(masked.get(..length).unwrap_or_default());
    }
}

/// Local part, domain without its top level, top level. Trailing blanks (`char(n)` has them) are not part of it.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_ascii_end();
    let bytes = text.as_bytes();
    // Blanks, line ends, control characters. Without an early end, so that it takes many bytes at once.
    if bytes.iter().fold(false, |blank, byte| blank | (*byte <= b' ')) {
        return None;
    }
    let last = |wanted: u8| bytes.iter().rposition(|byte| *byte == wanted);
    let (at, dot) = (last(b'@')?, last(b'.')?);
    let (local, domain, top) = (text.get(..at)?, text.get(at + 1..dot)?, text.get(dot + 1..)?);
    let empty = local.is_empty() || domain.is_empty() || top.is_empty();
    (!empty).then_some((local, domain, top))
}

/// The first character, if there are enough and they are ASCII.
fn ascii_initial(part: &str) -> Option<u8> {
    match part.as_bytes() {
        [first, second, third, ..] if (first | second | third).is_ascii() => Some(*first),
        _ => None,
    }
}

/// The first character, if there are enough.
fn initial(part: &str) -> &str {
    let mut starts = part.char_indices().map(|(at, _)| at).skip(1);
    let end = starts.next();
    let enough = starts.nth(SHOWN_FROM - 3).is_some();
    end.filter(|_| enough).and_then(|end| part.get(..end)).unwrap_or_default()
}
