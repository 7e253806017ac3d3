//! HMAC-SHA256 of messages, and what a receiver checks of them: signature, age, and that it is not a replay.

use crate::limits::{INBOUND_MAX, REPLAYS_MAX, TOLERANCE};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use hyper::HeaderMap;
use parking_lot::Mutex;
use proxy_core::Timestamp;
use std::collections::HashMap;
use std::fmt;

/// Why a message is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header is missing, or there twice.
    #[error("the message must have one header {0}")]
    Header(&'static str),
    /// A header is not of its form.
    #[error("the header {0} is not of its form")]
    Malformed(&'static str),
    /// The body is too long.
    #[error("the body is longer than {INBOUND_MAX} bytes")]
    TooLong,
    /// It is too old, or from the future.
    #[error("its timestamp is more than {s} seconds from now", s = TOLERANCE.as_secs())]
    Stale,
    /// No signature fits.
    #[error("its signature is not valid")]
    Forged,
    /// It was here before.
    #[error("it was received before")]
    Replayed,
    /// Too many were received to tell.
    #[error("too many messages were received to tell whether this one was")]
    Busy,
}

/// A key of HMAC-SHA256. It has no debug form.
#[derive(Clone)]
pub(crate) struct MacKey(Key);

impl MacKey {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(Key::new(HMAC_SHA256, bytes))
    }

    pub(crate) fn sign(&self, content: &[u8]) -> Vec<u8> {
        sign(&self.0, content).as_ref().to_vec()
    }

    /// In constant time.
    pub(crate) fn fits(&self, content: &[u8], mac: &[u8]) -> bool {
        verify(&self.0, content, mac).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey([redacted])")
    }
}

/// Messages that were here, until they would be too old anyway.
#[derive(Debug, Default)]
pub(crate) struct Replays(Mutex<HashMap<[u8; 32], i64>>);

impl Replays {
    /// Remembers a message whose signature is valid: only its sender can fill the memory.
    pub(crate) fn first_time(&self, content: &[u8], timestamp: i64, now: Timestamp) -> Result<(), VerifyError> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, content).as_ref());
        let mut seen = self.0.lock();
        if seen.contains_key(&key) {
            return Err(VerifyError::Replayed);
        }
        if seen.len() >= REPLAYS_MAX {
            seen.retain(|_, timestamp| is_fresh(*timestamp, now));
        }
        if seen.len() >= REPLAYS_MAX {
            return Err(VerifyError::Busy);
        }
        seen.insert(key, timestamp);
        Ok(())
    }
}

fn is_fresh(timestamp: i64, now: Timestamp) -> bool {
    timestamp.abs_diff(now.seconds()) <= TOLERANCE.as_secs()
}

/// The one header of that name.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, VerifyError> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(VerifyError::Header(name)) };
    value.to_str().map_err(|_| VerifyError::Malformed(name))
}

/// The timestamp in that header, in seconds, if it is near `now`.
pub(crate) fn timestamp(text: &str, name: &'static str, now: Timestamp) -> Result<i64, VerifyError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse::<i64>().ok().filter(|_| digits).ok_or(VerifyError::Malformed(name))?;
    if is_fresh(seconds, now) { Ok(seconds) } else { Err(VerifyError::Stale) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_memory_refuses_until_what_it_holds_is_old() {
        let (replays, now) = (Replays::default(), Timestamp::from_seconds(1_000));
        for n in 0..REPLAYS_MAX {
            replays.first_time(&n.to_be_bytes(), 1_000, now).unwrap();
        }
        assert_eq!(replays.first_time(b"one more", 1_000, now), Err(VerifyError::Busy));
        assert_eq!(replays.first_time(&7_usize.to_be_bytes(), 1_000, now), Err(VerifyError::Replayed));
        assert_eq!(replays.first_time(b"one more", 1_301, Timestamp::from_seconds(1_301)), Ok(()));
    }
}
