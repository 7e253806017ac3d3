//! Which entries of a segment: one bit for each, and the short forms in which they are stored.

use super::{BLOCK, BLOCKS, SEGMENT};
use crate::wire::{DecodeError, put_varint, take_varint};

const WORDS: usize = SEGMENT as usize / 64;
const WORDS_OF_BLOCK: usize = BLOCK as usize / 64;

/// Positions from which on bits are shorter in memory than a list (2,048 of 2 bytes).
const LIST_MAX: usize = WORDS * 4;

/// Forms of a stored set: the first byte.
const STEPS: u8 = 0;
const RUNS: u8 = 1;
const BITS: u8 = 2;

/// A set of entries of one segment, by their position in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Box<[u64; WORDS]>,
}

impl Bits {
    pub(crate) fn none() -> Self {
        Self { words: Box::new([0; WORDS]) }
    }

    /// The positions from `from` to before `to`.
    pub(crate) fn range(from: usize, to: usize) -> Self {
        let mut bits = Self::none();
        for (at, word) in bits.words.iter_mut().enumerate() {
            let below = |end: usize| match end.saturating_sub(at * 64) {
                0 => 0,
                some @ 1..64 => (1 << some) - 1,
                64.. => u64::MAX,
            };
            *word = below(to) & !below(from);
        }
        bits
    }

    pub(crate) fn set(&mut self, at: usize) {
        if let Some(word) = self.words.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    pub(crate) fn and(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(other.words.iter()) {
            *word &= other;
        }
    }

    pub(crate) fn or(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(other.words.iter()) {
            *word |= other;
        }
    }

    /// Keeps the entries of the blocks whose bit is set.
    pub(crate) fn and_blocks(&mut self, blocks: u128) {
        for (block, words) in self.words.chunks_mut(WORDS_OF_BLOCK).enumerate() {
            if blocks >> block & 1 == 0 {
                words.fill(0);
            }
        }
    }

    /// The blocks in which there are any.
    pub(crate) fn blocks(&self) -> u128 {
        let some = self.words.chunks(WORDS_OF_BLOCK).enumerate().filter(|(_, words)| words.iter().any(|word| *word != 0));
        some.fold(0, |blocks, (block, _)| blocks | 1 << (block % BLOCKS))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The positions, in ascending order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(at, word)| Ones(*word).map(move |bit| at * 64 + bit))
    }

    /// Reads a stored set.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (form, mut rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        let mut bits = Self::none();
        if *form == BITS {
            for (word, bytes) in bits.words.iter_mut().zip(rest.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            return Ok(bits);
        }
        let mut end = 0;
        while !rest.is_empty() {
            let from = end + small(&mut rest)?;
            end = from + if *form == RUNS { small(&mut rest)? } else { 1 };
            // A damaged one cannot make this long: positions past the end stop it.
            if end > SEGMENT as usize {
                return Err(DecodeError::Unexpected);
            }
            (from..end).for_each(|at| bits.set(at));
        }
        Ok(bits)
    }
}

/// A step, or the length of a run: never longer than a segment.
fn small(rest: &mut &[u8]) -> Result<usize, DecodeError> {
    usize::try_from(take_varint(rest)?).ok().filter(|step| *step <= SEGMENT as usize).ok_or(DecodeError::Unexpected)
}

/// The bits that are set in a word.
struct Ones(u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let bit = (self.0 != 0).then(|| self.0.trailing_zeros())?;
        self.0 &= self.0 - 1;
        Some(bit as usize)
    }
}

impl DoubleEndedIterator for Ones {
    fn next_back(&mut self) -> Option<usize> {
        let bit = (self.0 != 0).then(|| 63 - self.0.leading_zeros())?;
        self.0 &= !(1 << bit);
        Some(bit as usize)
    }
}

/// A set in the making: positions come in ascending order.
pub(crate) enum Positions {
    List(Vec<u16>),
    Bits(Bits),
}

impl Positions {
    pub(crate) fn new() -> Self {
        Self::List(Vec::new())
    }

    /// Adds a position that is not below the last.
    pub(crate) fn push(&mut self, at: u16) {
        match self {
            Self::Bits(bits) => bits.set(usize::from(at)),
            Self::List(list) if list.last() == Some(&at) => {}
            Self::List(list) if list.len() < LIST_MAX => list.push(at),
            Self::List(list) => {
                let mut bits = Bits::none();
                list.iter().for_each(|at| bits.set(usize::from(*at)));
                bits.set(usize::from(at));
                *self = Self::Bits(bits);
            }
        }
    }

    /// Sets its positions in `bits`.
    pub(crate) fn put_into(&self, bits: &mut Bits) {
        match self {
            Self::Bits(own) => bits.or(own),
            Self::List(list) => list.iter().for_each(|at| bits.set(usize::from(*at))),
        }
    }

    /// Appends the shortest stored form; `false`: the set is empty.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match self {
            Self::List(list) => {
                encode_runs(list.iter().map(|at| usize::from(*at)), out);
                if out.len() - start <= list.len() {
                    return true;
                }
                let runs = out.split_off(start);
                out.push(STEPS);
                let mut last = 0;
                for at in list {
                    // From the last one's end, as in runs.
                    put_varint(out, u64::from(at - last));
                    last = *at + 1;
                }
                if runs.len() < out.len() - start {
                    out.truncate(start);
                    out.extend_from_slice(&runs);
                }
                !list.is_empty()
            }
            Self::Bits(bits) => {
                encode_runs(bits.iter(), out);
                if out.len() - start > WORDS * 8 {
                    out.truncate(start);
                    out.push(BITS);
                    bits.words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
                }
                true
            }
        }
    }
}

/// Runs: steps from the end of the last to the first of the next, and its length.
fn encode_runs(positions: impl Iterator<Item = usize>, out: &mut Vec<u8>) {
    out.push(RUNS);
    let (mut end, mut run) = (0, 0..0);
    for at in positions {
        if at != run.end || run.is_empty() {
            put_run(&run, end, out);
            end = if run.is_empty() { end } else { run.end };
            run = at..at;
        }
        run.end = at + 1;
    }
    put_run(&run, end, out);
}

fn put_run(run: &std::ops::Range<usize>, end: usize, out: &mut Vec<u8>) {
    if !run.is_empty() {
        put_varint(out, (run.start - end) as u64);
        put_varint(out, run.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(positions: &[u16]) -> Vec<u8> {
        let mut set = Positions::new();
        positions.iter().for_each(|at| set.push(*at));
        let mut out = Vec::new();
        set.encode(&mut out);
        out
    }

    fn read(bytes: &[u8]) -> Vec<usize> {
        Bits::decode(bytes).unwrap().iter().collect()
    }

    #[test]
    fn every_form_comes_back_and_the_shortest_is_taken() {
        let last = SEGMENT as u16 - 1;
        for (positions, form) in [
            (vec![], STEPS),
            (vec![0, 5, 9, 300, last], STEPS),
            ((100..2_000).collect(), RUNS),
            ((0..=last).collect(), RUNS),
            ((0..=last).step_by(2).collect(), BITS),
            ((0..=last).step_by(40).collect(), STEPS),
        ] {
            let bytes = stored(&positions);
            assert_eq!(bytes[0], form, "{} positions", positions.len());
            assert_eq!(read(&bytes), positions.iter().map(|at| usize::from(*at)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn ranges_and_blocks() {
        assert_eq!(Bits::range(3, 3).iter().count(), 0);
        assert_eq!(Bits::range(60, 130).iter().collect::<Vec<_>>(), (60..130).collect::<Vec<_>>());
        assert_eq!(Bits::range(0, SEGMENT as usize).iter().rev().count(), SEGMENT as usize);
        let mut bits = Bits::range(200, 600);
        assert_eq!(bits.blocks(), 0b111);
        bits.and_blocks(0b100);
        assert_eq!(bits.iter().collect::<Vec<_>>(), (512..600).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn sets_come_back(set in proptest::collection::btree_set(0..SEGMENT as u16, 0..400), base in 0..200usize) {
            let all: std::collections::BTreeSet<u16> = set.into_iter().chain((0..base).map(|n| n as u16 * 3)).collect();
            let list: Vec<u16> = all.into_iter().collect();
            prop_assert_eq!(read(&stored(&list)), list.iter().map(|at| usize::from(*at)).collect::<Vec<_>>());
        }

        #[test]
        fn damage_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Bits::decode(&bytes);
        }
    }
}
