//! Limits of the driver. Each with its reason.

use std::time::Duration;

/// Bytes asked for by one read (64 KiB): large enough that a bulk transfer is not dominated by system calls,
/// small enough that thousands of active sessions fit in memory. Idle sessions hold no buffer.
pub const READ_BUFFER: usize = 64 << 10;

/// Bytes that may wait to be written to one peer before the driver stops reading from the other (256 KiB).
pub const OUTPUT_HIGH_WATER: usize = 256 << 10;

/// Outputs below this size are copied together into one write (8 KiB); larger ones are written where they lie.
pub const COALESCE_BELOW: usize = 8 << 10;

/// Bytes of further requests that a client may send while one waits for its verdict (64 KiB).
pub const PENDING_INPUT_MAX: usize = 64 << 10;

/// Read buffers that a worker keeps for reuse (64: 4 MiB).
pub const POOLED_BUFFERS: usize = 64;

/// Outcomes wait at most this long for a request to share their log write with (100 ms).
pub const OUTCOME_FLUSH: Duration = Duration::from_millis(100);

/// Outcomes that may wait before they are written by themselves (512).
pub const OUTCOMES_WAITING_MAX: usize = 512;

/// Bytes of statements and parameters that share one log write (256 KiB): what would be more is written at once, so that no
/// write is so long that the journal has no room for it because of how many shared it.
pub const GATHERED_MAX: usize = 256 << 10;

/// Entries kept for another try while the store does not accept (100,000 for a worker).
pub const UNWRITTEN_MAX: usize = 100_000;

/// Statements longer than this are decided on a thread of their own (8 KiB): the grammar needs a tenth of a
/// millisecond for them, and other sessions must not wait.
pub const DECIDE_INLINE_MAX: usize = 8 << 10;

/// Time for the connection to a target (10 s).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a TLS handshake (10 s).
pub const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to tell a target to cancel, with the TLS handshake (10 s).
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a closing session to write what is left (5 s).
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Kill, cancel and policy messages that may wait for one session (16).
pub const CONTROL_QUEUE: usize = 16;
