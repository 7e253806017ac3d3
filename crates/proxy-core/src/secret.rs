//! Bytes that must not be printed.

use std::fmt;
use zeroize::Zeroize;

/// A password, token or key. Its debug form is redacted, and its memory is cleared when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes ownership of `bytes`; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The secret itself. Every call is a place to review.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes([redacted])")
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::SecretBytes;

    #[test]
    fn debug_form_is_redacted() {
        let shown = format!("{:?}", SecretBytes::new(b"hunter2".to_vec()));
        assert!(!shown.contains("hunter2"));
        assert!(!shown.contains("104"), "not as numbers either");
    }
}
