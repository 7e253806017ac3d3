//! Finding entries: derived from the log, for each **segment** of 32,768 entries once it is whole.
//!
//! ```text
//!  entries ──▶ segment.rs ──▶ one set of bits for each value   (terms.rs, bits.rs)   object, policy, verdict, kind, …
//!                        ├──▶ rows for pieces of text          (grams.rs)            which blocks of 256 may have it
//!                        └──▶ times of the segment and of its blocks
//!  filter  ──▶ walk.rs:   segments whose time fits, the sets of what is asked, their intersection; then each entry
//!                         that is left is read and looked at, so that an index can only cost time, never an answer
//! ```
//!
//! Nothing here changes once it is written, and everything can be made anew from the log. What stands behind the last
//! whole segment is looked through entry by entry, by the gateway and by a reader beside it alike: so both give the same
//! answers, and nothing is kept in memory between segments but which session belongs to whom.
//!
//! Keys, numbers big-endian; the first in the family `find`, so that a search by time reads one segment's after the other's,
//! the others in `segments`:
//!
//! | key | value |
//! | --- | --- |
//! | `H`, segment (8) | earliest and latest time (8 + 8), 2-logarithm of the rows (1) |
//! | segment (8), `I` | earliest and latest time of each block (128 × 16) |
//! | segment (8), `B`, hash of the value (8) | its entries, see `bits.rs` |
//! | segment (8), `T`, group of 256 rows (2) | 16 bytes for each row, little-endian; left out when all zero |

pub(crate) mod bits;
pub(crate) mod grams;
pub(crate) mod listing;
pub(crate) mod passes;
pub(crate) mod read;
pub(crate) mod segment;
pub(crate) mod terms;
pub(crate) mod walk;

/// Entries of a segment.
pub(crate) const SEGMENT: u64 = 32_768;

/// Entries of a block: what text is narrowed down to.
pub(crate) const BLOCK: u64 = 256;

/// Blocks of a segment: the bits of a row.
pub(crate) const BLOCKS: usize = (SEGMENT / BLOCK) as usize;

const _: () = assert!(BLOCKS == u128::BITS as usize);

/// The key of what `segment` has of a sort.
pub(crate) fn key(segment: u64, sort: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.extend_from_slice(&segment.to_be_bytes());
    key.push(sort);
    key.extend_from_slice(rest);
    key
}

/// The key of its head.
pub(crate) fn head_key(segment: u64) -> [u8; 9] {
    let mut key = [b'H'; 9];
    key[1..].copy_from_slice(&segment.to_be_bytes());
    key
}
