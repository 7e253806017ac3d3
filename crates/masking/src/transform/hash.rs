//! `hash`: HMAC-SHA-256 of the value's characters, the first 16 bytes in hex.
//!
//! Equal values give equal hashes under one key, so that columns can be joined and counted; without the key,
//! a hash cannot be found by hashing candidates.

use super::Transform;
use aws_lc_rs::hmac;
use bytes::BytesMut;
use proxy_core::SecretBytes;
use std::fmt;

/// Bytes of the hash that are shown: enough that two values do not meet by chance (2^64 values).
const SHOWN: usize = 16;

pub(super) struct Hash {
    key: hmac::Key,
}

impl Hash {
    pub(super) fn new(secret: &SecretBytes) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose()) }
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash { key: [redacted] }")
    }
}

impl Transform for Hash {
    fn write(&self, text: &str, out: &mut BytesMut) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let tag = hmac::sign(&self.key, text.as_bytes());
        let mut shown = [0; 2 * SHOWN];
        for ([high, low], byte) in shown.as_chunks_mut().0.iter_mut().zip(tag.as_ref()) {
            *high = DIGITS[usize::from(byte >> 4)];
            *low = DIGITS[usize::from(byte & 15)];
        }
        // One append costs less than 32.
        out.extend_from_slice(&shown);
    }
}
