//! Maxima of policies and decisions. Each has a name, a default and a reason.

use std::time::Duration;

/// Longest policy file, in bytes: people write these, and a reload must be quick.
pub const POLICY_FILE_MAX: u64 = 1 << 20;

/// Most policies in one set: validation is linear in it, and so is a decision that no slice narrows.
pub const POLICIES_MAX: usize = 10_000;

/// Most operations (an action on an object) of one request. A statement that touches more cannot be
/// reviewed, and each costs an evaluation.
pub const OPERATIONS_MAX: usize = 1_000;

/// Most decisions that are remembered for one principal on one target, in each of a cache's two halves.
pub const CACHED_DECISIONS_MAX: usize = 1_024;

/// Most bytes of statement keys in each half (128 KiB: some 600 statements). Their parse trees take some fifty
/// times as much.
pub const CACHED_BYTES_MAX: usize = 128 << 10;

/// Longest statement key that is remembered: longer ones (bulk inserts) are seldom the same twice.
pub const CACHED_KEY_MAX: usize = 16 << 10;

/// Most decisions that one session remembers for itself, in each half: those that depend on what the
/// session made (temporary tables, its search path).
pub const SESSION_DECISIONS_MAX: usize = 128;

/// Most bytes of statement keys in each half of what a session remembers for itself (32 KiB).
pub const SESSION_BYTES_MAX: usize = 32 << 10;

/// Most principals with their targets whose decisions one thread remembers when they have no session.
pub const PROFILES_MAX: usize = 64;

/// Least time between two reloads of a target's catalogue on account of names that it does not have: a
/// client that asks for what does not exist must not make the gateway query the target each time.
pub const UNRESOLVED_REFRESH_MIN: Duration = Duration::from_secs(5);
