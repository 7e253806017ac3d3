//! Every maximum of an export: name, default, reason.

/// Entries that are read at once (256): what one step of an export holds.
pub const PAGE: usize = 256;

/// Bytes that are handed over at once, about (1 MiB): a single entry may be longer.
pub const PART_BYTES: usize = 1 << 20;

/// Sessions whose principal and target are remembered (1,024): entries of one session mostly stand close together.
pub const SESSIONS_MAX: usize = 1_024;

/// Rows of one row group of a Parquet file (65,536): it is held until it is full.
pub const ROW_GROUP_ROWS_MAX: usize = 65_536;

/// Bytes of texts in one row group of a Parquet file, about (16 MiB): the same, where texts are long.
pub const ROW_GROUP_BYTES_MAX: usize = 16 << 20;

/// Bytes of a text that a Parquet file's statistics repeat (64): they are for skipping row groups.
pub const STATISTICS_MAX: usize = 64;

/// Elements of a list that are shown where texts are cut as well: see [`crate::Texts`].
pub const LIST_MAX: usize = 256;

/// Characters of a statement that a line for people shows (160): a title, not the evidence.
pub const TITLE_MAX: usize = 160;
