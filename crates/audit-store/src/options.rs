//! How a store is kept: durability, space, memory.

use crate::seal::PayloadKeys;
use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, LogLevel, Options as RocksOptions};
use std::time::Duration;
use tlog::merkle::Hash;

/// When an entry counts as accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// When it is in the journal: it survives a killed process at once, and a power loss or a crashed
    /// kernel after at most [`Options::sync_interval`].
    #[default]
    Write,
    /// When the disk has confirmed it: it survives a power loss. Calls that wait at the same time share one fsync.
    Sync,
}

/// What to do with a log that lacks entries which were on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recovery {
    /// Refuse to open: an operator decides. A record that the last write left incomplete is not damage.
    #[default]
    Refuse,
    /// Keep what stands before the first that is missing and drop what follows.
    DropDamagedTail,
}

/// Settings of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// When an entry counts as accepted.
    pub durability: Durability,
    /// Bytes that must stay free on the disk (512 MiB): below it, entries are refused, so that the store never
    /// meets a full disk in the middle of its own work. At least twice [`Self::memory`] is sensible.
    pub min_free_bytes: u64,
    /// How often what was written is synced under [`Durability::Write`] (100 ms).
    pub sync_interval: Duration,
    /// Longest field, in bytes, that is kept within the leaf (1 KiB; at most [`crate::limits::INLINE_MAX`]).
    /// Longer ones are kept beside, where they can be removed later without breaking the leaf.
    pub inline_max: usize,
    /// Memory for unwritten entries and for the cache of blocks, in bytes (128 MiB, at least 8 MiB): half for each, and a
    /// thirty-second for the hashes of the last entries. The journal is a quarter as long, on the disk.
    pub memory: usize,
    /// What to do with a log that lacks entries which were on the disk.
    pub recovery: Recovery,
    /// What payloads are sealed with, and opened; `None`: they are kept as they are.
    pub payload_keys: Option<PayloadKeys>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Write,
            min_free_bytes: 512 << 20,
            sync_interval: Duration::from_millis(100),
            inline_max: 1_024,
            memory: 128 << 20,
            recovery: Recovery::Refuse,
            payload_keys: None,
        }
    }
}

impl Options {
    /// Length of each half of the journal, in bytes.
    pub(crate) fn journal(&self) -> u64 {
        self.half() as u64 / 4
    }

    /// Of how many entries the hashes are kept in memory, until they are published.
    pub(crate) fn hashes(&self) -> usize {
        self.half() / 16 / size_of::<Hash>()
    }

    /// Half of the memory, never so little that RocksDB takes it for "no limit".
    fn half(&self) -> usize {
        self.memory.max(crate::limits::MEMORY_MIN) / 2
    }
}

/// The column families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `default`: the format's version, the log's id, how far the index has come.
    Meta,
    /// Index of the first leaf (8 bytes, big-endian) → leaves, each after its length (2 bytes, big-endian).
    Entries,
    /// Index and field (8 + 1 bytes) → salt and content, or sealed.
    Payload,
    /// Level of tiles and index (1 + 8 bytes) → hash of a complete subtree. Derived.
    Tree,
    /// Session → summary. Derived.
    Sessions,
    /// Session and index of the first entry in it → indices of entries. Derived.
    BySession,
    /// Value and session → nothing: which sessions belong to a principal, a connection, a verdict; and the times of segments.
    /// Derived.
    Find,
    /// Segment, sort and value (8 + 1 + …) → what is in a segment, see `find`. Written in ascending order, so that files never
    /// overlap. Derived.
    Segments,
}

impl Family {
    pub(crate) const ALL: [Self; 8] =
        [Self::Meta, Self::Entries, Self::Payload, Self::Tree, Self::Sessions, Self::BySession, Self::Find, Self::Segments];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "default",
            Self::Entries => "entries",
            Self::Payload => "payload",
            Self::Tree => "tree",
            Self::Sessions => "sessions",
            Self::BySession => "by_session",
            Self::Find => "find",
            Self::Segments => "segments",
        }
    }
}

/// RocksDB's own settings for the whole store.
pub(crate) fn database(options: &Options) -> RocksOptions {
    let mut rocks = RocksOptions::default();
    rocks.create_if_missing(true);
    rocks.create_missing_column_families(true);
    rocks.set_paranoid_checks(true);
    // Nothing is written to its write-ahead log, since the journal has what is not in files yet. So what one write put
    // into several families gets into files together.
    rocks.set_atomic_flush(true);
    // Bounds of memory: all unflushed data together.
    rocks.set_db_write_buffer_size(options.half());
    rocks.set_max_background_jobs(2);
    rocks.set_max_open_files(512);
    // Written back in small steps rather than in one burst that delays the next fsync.
    rocks.set_bytes_per_sync(1 << 20);
    rocks.set_log_level(LogLevel::Warn);
    rocks.set_max_log_file_size(4 << 20);
    rocks.set_keep_log_file_num(4);
    rocks.set_stats_dump_period_sec(0);
    rocks
}

/// RocksDB's settings for each column family.
pub(crate) fn families(options: &Options) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.half());
    Family::ALL
        .into_iter()
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, options, &cache)))
        .collect()
}

fn family_options(family: Family, options: &Options, cache: &Cache) -> RocksOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);
    // Larger blocks compress better; entries are mostly read in order. What is kept beside them is long, and much like what
    // came before it: only within one block can compression use that. Of what is found by, single values are read, of up to
    // 4 KiB.
    table.set_block_size(match family {
        Family::Entries => 32 << 10,
        Family::Payload => 64 << 10,
        Family::Find | Family::Segments => 4 << 10,
        Family::Meta | Family::Tree | Family::Sessions | Family::BySession => 16 << 10,
    });
    let mut rocks = RocksOptions::default();
    // The log grows at its end, so files never overlap and compaction moves them without rewriting. Hence
    // one compression at every level: what a flush wrote is final.
    // LZ4 takes a third of the time of zstd's level 1, and half as much space again.
    rocks.set_compression_type(DBCompressionType::Lz4);
    rocks.set_write_buffer_size(options.half() / 2);
    rocks.set_max_write_buffer_number(4);
    rocks.set_level_zero_slowdown_writes_trigger(64);
    rocks.set_level_zero_stop_writes_trigger(128);
    match family {
        Family::Entries => rocks.set_target_file_size_base(64 << 20),
        Family::Payload => {
            // Written rarely, and long.
            rocks.set_compression_type(DBCompressionType::Zstd);
            rocks.set_compression_options(-14, 1, 0, 0);
            // The longest values are written once, into files of their own, and collected when they were deleted.
            rocks.set_enable_blob_files(true);
            rocks.set_min_blob_size(32 << 10);
            rocks.set_blob_compression_type(DBCompressionType::Zstd);
            rocks.set_enable_blob_gc(true);
            rocks.set_blob_gc_age_cutoff(1.0);
        }
        Family::Sessions | Family::BySession | Family::Find | Family::Segments => {
            table.set_bloom_filter(10.0, false);
            rocks.set_write_buffer_size(options.half() / 8);
        }
        Family::Meta | Family::Tree => rocks.set_write_buffer_size(1 << 20),
    }
    rocks.set_block_based_table_factory(&table);
    rocks
}
