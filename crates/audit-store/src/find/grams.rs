//! Finding text: which blocks of a segment may have it.
//!
//! Texts are folded to lower case and cut into every piece of three and of four bytes. A piece's hash names one of
//! 65,536 rows; a row has one bit for each of the segment's 128 blocks. A block can only have a text if its bit is set in
//! the rows of all the text's pieces. When the segment is whole, rows are laid over each other until a sixteenth of the
//! bits is set: plain statements need a few kilobytes, texts full of numbers more.
//!
//! Pieces of three are for texts of three bytes alone. Longer ones ask for pieces of four: numbers, of which a block
//! has hundreds, have all pieces of three.

use crate::limits::TEXT_MIN;

/// Rows before they are laid over each other: 2 to the power of this.
pub(crate) const ROWS_BITS: u32 = 16;
const ROWS_BITS_MIN: u32 = 8;

/// One of so many bits may be set before more rows are kept (16).
const SPARSE: u32 = 16;

/// Rows under one key: 4 KiB.
pub(crate) const ROWS_OF_GROUP: usize = 256;

/// Pieces of a text that are asked for at most (16): more tell little.
const ASKED_MAX: usize = 16;

/// Appends `text` in lower case. Texts are folded character by character, so that a part of a text is folded as it is
/// in the whole; what is not UTF-8 is folded as far as it is ASCII.
pub(crate) fn fold(text: &[u8], out: &mut Vec<u8>) {
    if !text.is_ascii()
        && let Ok(text) = std::str::from_utf8(text)
    {
        let mut buffer = [0; 4];
        text.chars().flat_map(char::to_lowercase).for_each(|c| out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()));
    } else {
        let start = out.len();
        out.extend_from_slice(text);
        out[start..].make_ascii_lowercase();
    }
}

/// A piece's row, before rows are laid over each other.
fn row3(piece: [u8; 3]) -> usize {
    let [a, b, c] = piece;
    mix(u32::from_le_bytes([a, b, c, 0xa5]).wrapping_mul(0x85eb_ca6b))
}

fn row4(piece: [u8; 4]) -> usize {
    mix(u32::from_le_bytes(piece).wrapping_mul(0x9e37_79b1))
}

fn mix(hash: u32) -> usize {
    ((hash ^ hash >> 15).wrapping_mul(0x2c1b_3c6d) >> (32 - ROWS_BITS)) as usize
}

/// The rows of which a block with `folded` has all. Empty: the text is too short to say.
pub(crate) fn asked(folded: &[u8]) -> Vec<usize> {
    let mut rows: Vec<usize> = match folded.len() {
        0..TEXT_MIN => Vec::new(),
        TEXT_MIN => folded.as_chunks::<3>().0.iter().map(|piece| row3(*piece)).collect(),
        _ => folded.array_windows::<4>().map(|piece| row4(*piece)).collect(),
    };
    rows.sort_unstable();
    rows.dedup();
    // Spread over the whole text.
    let step = rows.len().div_ceil(ASKED_MAX).max(1);
    rows.into_iter().step_by(step).collect()
}

/// What a text is: of one sort, the next is likely to be much like the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextSort {
    Statement,
    Other,
}

/// The rows of a segment in the making.
pub(crate) struct Matrix {
    rows: Vec<u128>,
    /// The texts before, folded, by their sort and the last bits of their length: what a text has in common with the one of
    /// its own place is not looked at again within a block. What runs again and again differs in few places, or in none.
    last: [[Vec<u8>; 8]; 2],
    last_block: usize,
    folded: Vec<u8>,
}

impl Matrix {
    pub(crate) fn new() -> Self {
        Self { rows: vec![0; 1 << ROWS_BITS], last: Default::default(), last_block: usize::MAX, folded: Vec::new() }
    }

    /// Adds a text of an entry of `block`.
    pub(crate) fn add(&mut self, block: usize, sort: TextSort, text: &[u8]) {
        self.folded.clear();
        fold(text, &mut self.folded);
        if self.last_block != block {
            self.last.iter_mut().flatten().for_each(Vec::clear);
            self.last_block = block;
        }
        let folded = &self.folded[..];
        let last = &mut self.last[sort as usize][folded.len() % 8];
        if last == folded {
            return;
        }
        let (start, end) = common(last, folded);
        // Pieces that reach into what is new.
        let new = start.saturating_sub(3)..(folded.len() - end + 3).min(folded.len());
        let bit = 1 << block;
        let new = &folded[new];
        for piece in new.array_windows::<4>() {
            let [a, b, c, _] = *piece;
            self.rows[row4(*piece)] |= bit;
            self.rows[row3([a, b, c])] |= bit;
        }
        if let Some(piece) = new.last_chunk::<3>() {
            self.rows[row3(*piece)] |= bit;
        }
        std::mem::swap(last, &mut self.folded);
    }

    /// Lays rows over each other as far as they stay sparse, or until there are 2 to the power of `keep`, and returns those
    /// that are left: 2 to the power of the number.
    pub(crate) fn finish(mut self, keep: Option<u32>) -> (u32, Vec<u128>) {
        let mut bits = ROWS_BITS;
        while bits > keep.unwrap_or(ROWS_BITS_MIN) {
            let half = 1usize << (bits - 1);
            let (low, high) = self.rows.split_at(half);
            let set: u32 = low.iter().zip(high).map(|(low, high)| (low | high).count_ones()).sum();
            if keep.is_none() && u64::from(set) * u64::from(SPARSE) > half as u64 * u64::from(u128::BITS) {
                break;
            }
            let (low, high) = self.rows.split_at_mut(half);
            low.iter_mut().zip(high).for_each(|(low, high)| *low |= *high);
            self.rows.truncate(half);
            bits -= 1;
        }
        (bits, self.rows)
    }
}

/// Bytes that two texts have in common at their start and at their end.
fn common(a: &[u8], b: &[u8]) -> (usize, usize) {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0).take_while(|(a, b)| a == b).count() * 8;
    let start = words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..], &b[start..]);
    (start, a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count())
}

/// A text to look for.
pub(crate) struct Needle {
    finder: memchr::memmem::Finder<'static>,
    rows: Vec<usize>,
    buffer: std::cell::RefCell<Vec<u8>>,
}

impl Needle {
    pub(crate) fn new(text: &str) -> Self {
        let mut folded = Vec::new();
        fold(text.as_bytes(), &mut folded);
        let rows = asked(&folded);
        Self { finder: memchr::memmem::Finder::new(&folded).into_owned(), rows, buffer: Default::default() }
    }

    /// The rows of which a block that has it has all.
    pub(crate) fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Whether it is in `text`.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        let mut buffer = self.buffer.borrow_mut();
        buffer.clear();
        fold(text, &mut buffer);
        self.finder.find(&buffer).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Blocks that may have `needle`.
    fn blocks((bits, rows): &(u32, Vec<u128>), needle: &str) -> u128 {
        let mask = (1usize << bits) - 1;
        Needle::new(needle).rows().iter().fold(u128::MAX, |blocks, row| blocks & rows[row & mask])
    }

    #[test]
    fn plain_texts_need_few_rows_and_numbers_more() {
        let (mut plain, mut numbers) = (Matrix::new(), Matrix::new());
        for n in 0..16_384u32 {
            plain.add(n as usize / 128, TextSort::Statement, b"SELECT abalance FROM pgbench_accounts WHERE aid = $1");
            let text =
                format!("SELECT abalance FROM pgbench_accounts WHERE aid = {};", n.wrapping_mul(2_654_435_761) % 10_000_000);
            numbers.add(n as usize / 128, TextSort::Statement, text.as_bytes());
        }
        let (plain, numbers) = (plain.finish(None), numbers.finish(None));
        assert_eq!(blocks(&plain, "pgbench_accounts"), u128::MAX);
        assert_eq!(blocks(&plain, "pgbench_tellers"), 0);
        assert!(plain.0 <= 11, "{} bits", plain.0);
        assert!((13..=15).contains(&numbers.0), "{} bits", numbers.0);
        let of = 77 * 128u32;
        let found = blocks(&numbers, &format!("aid = {};", of.wrapping_mul(2_654_435_761) % 10_000_000));
        assert_eq!(found >> 77 & 1, 1);
        assert!(found.count_ones() < 4, "{found:b}");
    }

    #[test]
    fn case_is_folded_character_by_character() {
        let needle = Needle::new("ÄPFEL");
        assert!(needle.is_in("select 'äpfel'".as_bytes()));
        assert!(Needle::new("ΟΔΟΣ").is_in("ΟΔΟΣ x".as_bytes()), "a final sigma is no other letter");
        assert!(Needle::new("from").is_in(b"SELECT \xff FROM t"));
        assert!(!needle.is_in(b"apfel"));
    }

    proptest! {
        /// What is there is never missed, whatever was there before in the block.
        #[test]
        fn nothing_is_missed(texts in proptest::collection::vec(("[abAB1 ]{0,12}", 0..3usize), 1..12), pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), length in 3..8usize) {
            let mut matrix = Matrix::new();
            let mut texts = texts;
            texts.sort_by_key(|(_, block)| *block);
            for (text, block) in &texts {
                let sort = if text.len() % 3 == 0 { TextSort::Statement } else { TextSort::Other };
                matrix.add(*block, sort, text.as_bytes());
            }
            let (text, block) = &texts[pick.index(texts.len())];
            if text.len() >= length {
                let from = at.index(text.len() - length + 1);
                prop_assert_eq!(blocks(&matrix.finish(None), &text[from..from + length]) >> block & 1, 1);
            }
        }
    }
}
