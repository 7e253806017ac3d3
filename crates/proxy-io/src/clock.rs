//! The wall clock, in the one place that reads it: everything beneath is told the time.

use proxy_core::Timestamp;

/// What time it is, to the microsecond. 1970 where the clock is set before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "everyone else asks here")]
pub fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
