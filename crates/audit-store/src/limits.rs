//! Every maximum of the store: name, default, reason.

use std::time::Duration;

/// Longest leaf, in bytes: C2SP tlog-tiles gives an entry's length two bytes in its bundles.
pub const LEAF_MAX: usize = 65_535;

/// Longest field, in bytes, that may be kept in the leaf (4 KiB). No entry has more than
/// [`FIELDS_MAX`] fields, so no leaf can pass [`LEAF_MAX`], however long its parts are.
pub const INLINE_MAX: usize = 4_096;

/// Fields of an entry's own: numbers 4 to 14.
pub const FIELDS_MAX: usize = 11;

/// What a field that is kept beside leaves in the leaf, at most: tag, number, length, commitment.
const BESIDE_MAX: usize = 2 + 2 + 11 + 34;

/// Version, kind, time, session, number.
const HEADER_MAX: usize = 2 + 9 + 18 + 11;

const _: () = assert!(HEADER_MAX + FIELDS_MAX * (1 + 3 + INLINE_MAX + BESIDE_MAX) <= LEAF_MAX);

/// Entries under one key: one write of a session's turn is one key; a longer one is cut, so that reading one
/// entry reads little.
pub const CHUNK_ENTRIES_MAX: usize = 64;

/// Bytes under one key, after which the next entry starts another (64 KiB).
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Entries that one call returns at most: a reader asks again.
pub const PAGE_MAX: usize = 10_000;

/// Bytes of entries that one call returns, about (32 MiB): parameters may be long.
pub const PAGE_BYTES_MAX: usize = 32 << 20;

/// Entries that one call looks through at most, however few match (200,000: well under a second).
pub const SCAN_MAX: u64 = 200_000;

/// Entries whose encoding is checked when the store is opened: damage at the end is found before it is built on.
pub const TAIL_CHECKED: u64 = 256;

/// Findings that a verification lists: a broken log has millions.
pub const FINDINGS_MAX: usize = 1_000;

/// Entries that one turn of the index reads (bounds its memory).
pub const INDEX_PASS_MAX: u64 = 16_384;

/// Bytes that may be written between two looks at the free space (64 MiB): under load the second between two
/// of the watch's own looks is too long.
pub const UNWATCHED_MAX: u64 = 64 << 20;

/// Least memory of a store (8 MiB): below it RocksDB writes files of a few kilobytes.
pub const MEMORY_MIN: usize = 8 << 20;

/// How often a reader beside the gateway tries to get a whole picture (100 times, 2 ms apart): the writer begins
/// a half of the journal anew once in 16 MiB, so that the second try nearly always succeeds.
pub const CATCH_UP_TRIES: u32 = 100;

/// How long what is accepted may wait in the journal before it is moved into the database (50 ms).
pub const MOVE_INTERVAL: Duration = Duration::from_millis(50);

/// Bytes that are moved at once, however little time has passed (256 KiB): few large writes cost less than many, and what
/// waits should stay in the processor's caches.
pub const MOVE_ENOUGH: usize = 256 << 10;

/// A hole between database and journal that a reader beside the gateway sees more often than this (5) is one, and not a
/// half of the journal that was begun anew meanwhile.
pub const HOLES_SEEN: u32 = 5;

/// How often the free space is looked at, and a failed store is tried again.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How often the session index follows the log.
pub const INDEX_INTERVAL: Duration = Duration::from_millis(500);

/// How long a reopening waits for readers to let go of the old handle.
pub const REOPEN_WAIT: Duration = Duration::from_secs(2);

/// Shortest text that can be searched for (3 bytes): the index knows pieces of three and four.
pub const TEXT_MIN: usize = 3;

/// Sessions of which the index by segments remembers whom they are of (65,536: 3 MiB).
pub const OWNERS_KEPT_MAX: usize = 65_536;

/// Segments that one call looks at most into (8,192, of 32,768 entries): tens of milliseconds.
pub const SEGMENTS_LOOKED_MAX: u64 = 8_192;

/// Entries that one search of sessions by text looks at before it goes session by session (131,072: some 30 ms).
pub const TEXT_LOOKED_MAX: u64 = 131_072;

/// Decisions of one session that the session index remembers (64): further ones are read again each time.
pub const DECISIONS_SEEN_MAX: usize = 64;
