//! Limits that every protocol shares. Each has a name, a default and a reason; a protocol's own are in
//! its `limits.rs`. Peers cannot make the gateway allocate beyond these before it has validated.

use std::time::Duration;

/// Bytes that the record keeps of a request that the gateway refuses unread (64 KiB): enough to know it by, and
/// no way to fill the log's disk with what is over a limit. The whole's length and digest stand beside it.
pub const REFUSED_HEAD: usize = 64 << 10;

/// Limits of one session. The configuration file's `[limits]` sets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// Longest statement, in bytes, that is parsed and recorded (1 MiB). Longer ones are refused: the
    /// grammar takes 0.6 s for a megabyte of `OR`, and nobody can review more.
    pub statement_max: usize,
    /// Longest message, in bytes, that must be held whole to be understood (64 MiB). Messages that
    /// stream (rows, COPY data) have no limit of their own.
    pub message_max: usize,
    /// Longest row, in bytes, that can be masked (64 MiB): its length stands before its values, so it is held.
    pub masked_row_max: usize,
    /// Prepared statements and portals that a session may have at once (10,000).
    pub prepared_max: usize,
    /// Requests sent and not yet answered (1,024): bounds what the session remembers of a pipeline.
    pub pipeline_max: usize,
    /// From the accepted connection to the finished login (15 s).
    pub login_timeout: Duration,
    /// Longest a held request waits for its approval (10 min).
    pub hold_timeout: Duration,
    /// Longest time without a request before the session is ended; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// Longest time that one request may run; `None`: no limit.
    pub statement_timeout: Option<Duration>,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            statement_max: 1 << 20,
            message_max: 64 << 20,
            masked_row_max: 64 << 20,
            prepared_max: 10_000,
            pipeline_max: 1_024,
            login_timeout: Duration::from_secs(15),
            hold_timeout: Duration::from_secs(600),
            idle_timeout: None,
            statement_timeout: None,
        }
    }
}
