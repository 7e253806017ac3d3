//! References to secrets: the configuration names where a secret is, never the secret itself.

use parking_lot::Mutex;
use proxy_core::SecretBytes;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Longest secret, in bytes: a file that is larger is not a password but a mistake (64 KiB).
const SECRET_MAX: u64 = 64 << 10;

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable of the gateway.
    Env(String),
    /// In a file, without its last line break. Read again when the file changes.
    File(PathBuf),
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidRef {
    /// A scheme that a later version will know.
    NotYet(String),
    /// Something else; perhaps the secret itself, so it is not repeated.
    NotAReference,
    /// Nothing after the scheme.
    Empty,
}

impl SecretRef {
    /// Reads `env:NAME` or `file:PATH` (relative to `folder`).
    ///
    /// # Errors
    /// [`InvalidRef`]; it never carries the text, which may be the secret itself.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, InvalidRef> {
        let Some((scheme, rest)) = text.split_once(':') else { return Err(InvalidRef::NotAReference) };
        match scheme {
            "env" | "file" if rest.is_empty() => Err(InvalidRef::Empty),
            "env" => Ok(Self::Env(rest.to_owned())),
            "file" => Ok(Self::File(folder.join(rest))),
            "keyvault" | "vault" => Err(InvalidRef::NotYet(scheme.to_owned())),
            _ => Err(InvalidRef::NotAReference),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A secret that cannot be had. The text names the reference, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set; set it for the gateway's process")]
    NotSet(String),
    /// The file cannot be read.
    #[error("{file} cannot be read: {why}; it must exist and be readable by the gateway's user", file = .0.display(), why = .1)]
    Unreadable(PathBuf, String),
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(String),
    /// It is too large to be a secret.
    #[error("{0} is larger than 64 KiB: is it the right file?")]
    TooLarge(String),
}

/// A secret by reference, held once it was read. A file is read again when it changed, so that a rotated
/// secret is used from the next login on. Clones share what they hold.
#[derive(Clone)]
pub struct Secret {
    reference: SecretRef,
    held: Arc<Mutex<Option<Held>>>,
}

struct Held {
    modified: Option<SystemTime>,
    length: u64,
    value: SecretBytes,
}

impl Secret {
    /// A secret that is read at first use.
    #[must_use]
    pub fn new(reference: SecretRef) -> Self {
        Self { reference, held: Arc::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn reference(&self) -> &SecretRef {
        &self.reference
    }

    /// The secret as it is now.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn get(&self) -> Result<SecretBytes, SecretError> {
        match &self.reference {
            SecretRef::Env(name) => {
                let value = std::env::var_os(name).ok_or_else(|| SecretError::NotSet(name.clone()))?;
                let bytes = std::os::unix::ffi::OsStringExt::into_vec(value);
                if bytes.is_empty() { Err(SecretError::Empty(self.reference.to_string())) } else { Ok(SecretBytes::new(bytes)) }
            }
            SecretRef::File(path) => self.read_file(path),
        }
    }

    fn read_file(&self, path: &Path) -> Result<SecretBytes, SecretError> {
        let unreadable = |error: std::io::Error| SecretError::Unreadable(path.to_owned(), error.kind().to_string());
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        let (modified, length) = (metadata.modified().ok(), metadata.len());
        let mut held = self.held.lock();
        if let Some(held) = held.as_ref()
            && held.modified.is_some()
            && held.modified == modified
            && held.length == length
        {
            return Ok(held.value.clone());
        }
        if length > SECRET_MAX {
            return Err(SecretError::TooLarge(self.reference.to_string()));
        }
        let mut bytes = std::fs::read(path).map_err(unreadable)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(SecretError::Empty(self.reference.to_string()));
        }
        let value = SecretBytes::new(bytes);
        *held = Some(Held { modified, length, value: value.clone() });
        Ok(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.reference)
    }
}

impl PartialEq for Secret {
    /// Equal references: the values are not compared.
    fn eq(&self, other: &Self) -> bool {
        self.reference == other.reference
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_changed_and_loses_one_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "first\n").unwrap();
        let secret = Secret::new(SecretRef::parse("file:password", folder.path()).unwrap());
        assert_eq!(secret.get().unwrap().expose(), b"first");
        std::fs::write(&path, "second one\r\n").unwrap();
        assert_eq!(secret.get().unwrap().expose(), b"second one");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(secret.get(), Err(SecretError::Empty(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(secret.get(), Err(SecretError::Unreadable(..))));
    }

    #[test]
    fn a_literal_is_refused_without_being_repeated() {
        let refused = SecretRef::parse("hunter2", Path::new("/")).unwrap_err();
        assert_eq!(refused, InvalidRef::NotAReference);
        assert!(!format!("{refused:?}").contains("hunter2"));
        assert_eq!(SecretRef::parse("keyvault:x", Path::new("/")), Err(InvalidRef::NotYet("keyvault".into())));
        assert_eq!(SecretRef::parse("env:", Path::new("/")), Err(InvalidRef::Empty));
    }

    #[test]
    fn the_value_is_in_no_debug_form() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p"), "hunter2").unwrap();
        let secret = Secret::new(SecretRef::parse("file:p", folder.path()).unwrap());
        secret.get().unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
