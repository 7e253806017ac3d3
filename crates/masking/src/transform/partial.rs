//! `partial`: the first and last characters stay, `4111111111111111` is shown as `***1111`.
//!
//! Never more than a third of the value: of six characters two are shown, of two none.

use super::{HIDDEN, Transform};
use bytes::BytesMut;

/// One character in so many may be shown.
const ONE_IN: usize = 3;

#[derive(Debug)]
pub(super) struct Partial {
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Transform for Partial {
    fn write(&self, text: &str, out: &mut BytesMut) {
        // `char(n)` pads with blanks, which are not part of the value.
        let blanks = text.bytes().rev().take_while(|byte| *byte == b' ').count();
        let text = text.get(..text.len() - blanks).unwrap_or_default();
        let ascii = text.is_ascii();
        let most = if ascii { text.len() } else { text.chars().count() } / ONE_IN;
        let last = self.last.min(most);
        let first = self.first.min(most - last);
        let (until, from) = if ascii { (first, text.len() - last) } else { places(text, first, last) };
        let (start, end) = (text.get(..until).unwrap_or_default(), text.get(from..).unwrap_or_default());
        out.reserve(start.len() + HIDDEN.len() + end.len());
        for piece in [start, HIDDEN, end] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
}

/// Where the first `first` characters end, and the last `last` ones begin.
fn places(text: &str, first: usize, last: usize) -> (usize, usize) {
    let until = text.char_indices().nth(first).map_or(text.len(), |(at, _)| at);
    let from = last.checked_sub(1).and_then(|back| text.char_indices().nth_back(back)).map_or(text.len(), |(at, _)| at);
    (until, from)
}
