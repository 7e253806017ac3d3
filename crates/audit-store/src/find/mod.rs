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
//! Keys, all in the family `find`, numbers big-endian:
//!
//! | key | value |
//! | --- | --- |
//! | `H`, segment (8) | earliest and latest time (8 + 8), 2-logarithm of the rows (1) |
//! | `I`, segment (8) | earliest and latest time of each block (128 × 16) |
//! | `B`, segment (8), hash of the value (8) | its entries, see `bits.rs` |
//! | `T`, segment (8), group of 256 rows (2) | 16 bytes for each row, little-endian; left out when all zero |

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

/// A key of `sort` for `segment`.
pub(crate) fn key(sort: u8, segment: u64, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.push(sort);
    key.extend_from_slice(&segment.to_be_bytes());
    key.extend_from_slice(rest);
    key
}
