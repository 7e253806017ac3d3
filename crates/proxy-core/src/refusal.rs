//! A refusal of the gateway's own: a request that policy cannot judge, because it is longer than what may be
//! held, or because the gateway cannot read it as the target would. It is recorded as denied all the same.

use crate::limits::REFUSED_HEAD;
use crate::session::DenialKind;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use bytes::Bytes;
use std::fmt;

/// Why a session refuses a request by itself, and what the record keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which sort: it chooses the protocol's error code.
    pub kind: DenialKind,
    /// The sentence for the client and the record.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// What was refused.
    pub excerpt: Excerpt,
}

impl fmt::Display for Refusal {
    /// The reason in the record: why, and what is not in the entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by the gateway: {}", self.message)?;
        let Excerpt { head, length, digest } = &self.excerpt;
        let Some(digest) = digest else { return Ok(()) };
        write!(f, "; recorded are the first {} of {length} bytes, whose SHA-256 is ", head.len())?;
        digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The beginning of something long, with the length and digest of the whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt {
    head: Bytes,
    length: u64,
    /// SHA-256 of the whole, where the head is not all of it.
    digest: Option<[u8; 32]>,
}

impl Excerpt {
    /// An excerpt of what is held whole.
    #[must_use]
    pub fn of(whole: &Bytes) -> Self {
        if whole.len() <= REFUSED_HEAD {
            return Self { head: whole.clone(), length: whole.len() as u64, digest: None };
        }
        let mut taking = Excerpting::default();
        taking.take(whole);
        taking.finish()
    }

    /// Its first bytes: all of them up to [`REFUSED_HEAD`].
    #[must_use]
    pub fn head(&self) -> &Bytes {
        &self.head
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.head, self.length)
    }
}

/// Makes an [`Excerpt`] of what is never held whole.
#[derive(Clone)]
pub struct Excerpting {
    head: Vec<u8>,
    length: u64,
    digest: Context,
}

impl Default for Excerpting {
    fn default() -> Self {
        Self { head: Vec::new(), length: 0, digest: Context::new(&SHA256) }
    }
}

impl Excerpting {
    /// The next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        let room = REFUSED_HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.digest.update(bytes);
    }

    /// All has come.
    #[must_use]
    pub fn finish(self) -> Excerpt {
        let whole = self.length == self.head.len() as u64;
        let digest = |digest: Digest| digest.as_ref().try_into().ok();
        Excerpt { digest: if whole { None } else { digest(self.digest.finish()) }, head: self.head.into(), length: self.length }
    }
}

impl fmt::Debug for Excerpting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes so far", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(excerpt: Excerpt) -> String {
        Refusal { kind: DenialKind::Limit, message: "too long".into(), hint: String::new(), excerpt }.to_string()
    }

    #[test]
    fn what_is_short_is_kept_whole() {
        let excerpt = Excerpt::of(&Bytes::from_static(b"select 1"));
        assert_eq!(excerpt.head(), "select 1");
        assert_eq!(refusal(excerpt), "refused by the gateway: too long");
    }

    #[test]
    fn what_is_long_is_known_by_its_digest_however_it_comes() {
        let whole = Bytes::from(vec![b'a'; 1_000_000]);
        let mut taking = Excerpting::default();
        whole.chunks(999).for_each(|piece| taking.take(piece));
        let excerpt = taking.finish();
        assert_eq!(excerpt, Excerpt::of(&whole));
        assert_eq!(excerpt.head().len(), REFUSED_HEAD);
        // The test vector of FIPS 180-2, B.3.
        let expected = "of 1000000 bytes, whose SHA-256 is cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert!(refusal(excerpt).ends_with(expected));
    }
}
