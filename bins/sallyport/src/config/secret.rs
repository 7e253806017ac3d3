//! References to secrets: the configuration names where a secret is, never the secret itself.

use parking_lot::Mutex;
use proxy_core::SecretBytes;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Longest secret, in bytes: a file that is larger is not a password but a mistake (64 KiB).
const SECRET_MAX: u64 = 64 << 10;

/// Longest part of a reference, in characters: a name of Key Vault's has 127 at most.
const PART_MAX: usize = 256;

/// What references look like, for whoever wrote something else.
pub(super) const FORMS: &str =
    "write \"env:NAME\", \"file:PATH\", \"keyvault:VAULT/secrets/NAME\" or \"vault:MOUNT/data/PATH#FIELD\"";

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable of the gateway.
    Env(String),
    /// In a file, without its last line break. Read again when the file changes.
    File(PathBuf),
    /// In an Azure Key Vault.
    KeyVault {
        /// The vault's name, or its host.
        vault: String,
        /// The secret's name.
        name: String,
        /// Of its versions, this one; `None`: the newest.
        version: Option<String>,
    },
    /// In Vault's engine for keys and values, version 2.
    Vault {
        /// `MOUNT/data/PATH`.
        path: String,
        /// Which of its values.
        field: String,
    },
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidRef {
    /// It should be of this form.
    Form(&'static str),
    /// Something else; perhaps the secret itself, so it is not repeated.
    NotAReference,
    /// Nothing after the scheme.
    Empty,
}

impl SecretRef {
    /// Reads `env:NAME`, `file:PATH` (relative to `folder`), `keyvault:VAULT/secrets/NAME[/VERSION]` or
    /// `vault:MOUNT/data/PATH#FIELD`.
    ///
    /// # Errors
    /// [`InvalidRef`]; it never carries the text, which may be the secret itself.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, InvalidRef> {
        let Some((scheme, rest)) = text.split_once(':') else { return Err(InvalidRef::NotAReference) };
        match scheme {
            "env" | "file" | "keyvault" | "vault" if rest.is_empty() => Err(InvalidRef::Empty),
            "env" => Ok(Self::Env(rest.to_owned())),
            "file" => Ok(Self::File(folder.join(rest))),
            "keyvault" => {
                keyvault(rest).ok_or(InvalidRef::Form("keyvault:VAULT/secrets/NAME, with /VERSION if it is not the newest"))
            }
            "vault" => {
                vault(rest).ok_or(InvalidRef::Form("vault:MOUNT/data/PATH#FIELD (the engine for keys and values, version 2)"))
            }
            _ => Err(InvalidRef::NotAReference),
        }
    }

    /// Whether it is on another machine: then it is fetched, and cannot be read.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Env(_) | Self::File(_) => false,
            Self::KeyVault { .. } | Self::Vault { .. } => true,
        }
    }
}

fn keyvault(text: &str) -> Option<SecretRef> {
    let parts: Vec<&str> = text.split('/').collect();
    let (vault, name, version) = match parts[..] {
        [vault, "secrets", name] => (vault, name, None),
        [vault, "secrets", name, version] if is_name(version) => (vault, name, Some(version.to_owned())),
        _ => return None,
    };
    (is_host(vault) && is_name(name)).then(|| SecretRef::KeyVault { vault: vault.to_owned(), name: name.to_owned(), version })
}

fn vault(text: &str) -> Option<SecretRef> {
    let (path, field) = text.split_once('#')?;
    let (mount, rest) = path.split_once("/data/")?;
    let good = is_key_path(mount) && is_key_path(rest) && !field.is_empty() && field.len() <= PART_MAX;
    good.then(|| SecretRef::Vault { path: path.to_owned(), field: field.to_owned() })
}

/// A name of Azure's: letters, digits and hyphens.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= PART_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A host with or without a port, or the first label of one.
pub(super) fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "443"));
    let label = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    host.len() <= PART_MAX && host.split('.').all(label) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A path of Vault's. What would have to be escaped in a URL, or goes up in it, is refused.
pub(super) fn is_key_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@' | b'+' | b'=');
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= PART_MAX && part.bytes().all(plain);
    text.len() <= 4 * PART_MAX && text.split('/').all(part)
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::KeyVault { vault, name, version: None } => write!(f, "keyvault:{vault}/secrets/{name}"),
            Self::KeyVault { vault, name, version: Some(version) } => write!(f, "keyvault:{vault}/secrets/{name}/{version}"),
            Self::Vault { path, field } => write!(f, "vault:{path}#{field}"),
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
    /// It was not fetched yet.
    #[error("{0} was not fetched yet")]
    NotFetched(String),
    /// It could not be fetched, and there is no last value that may still be used.
    #[error("{0} cannot be had: {1}")]
    Unavailable(String, String),
}

/// A secret by reference, held once it was read. A file is read again when it changed, so that a rotated
/// secret is used from the next login on. A secret on another machine is fetched by [`crate::secrets`], and never here: a
/// login does not wait for it. Clones share what they hold.
#[derive(Clone)]
pub struct Secret {
    reference: SecretRef,
    held: Arc<Mutex<Option<Held>>>,
    /// Where what was fetched is. After a reload, that is shared with the configuration before.
    fetched: Arc<Mutex<Arc<Mutex<Fetched>>>>,
}

/// What is known of a secret on another machine.
#[derive(Default)]
struct Fetched {
    /// The value, and until when it may be used.
    value: Option<(SecretBytes, Instant)>,
    /// Why it could not be fetched the last time.
    error: Option<String>,
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
        Self { reference, held: Arc::default(), fetched: Arc::default() }
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
            SecretRef::KeyVault { .. } | SecretRef::Vault { .. } => {
                let fetched = self.fetched();
                let fetched = fetched.lock();
                match (&fetched.value, &fetched.error) {
                    (Some((value, until)), _) if Instant::now() < *until => Ok(value.clone()),
                    (_, Some(error)) => Err(SecretError::Unavailable(self.reference.to_string(), error.clone())),
                    (_, None) => Err(SecretError::NotFetched(self.reference.to_string())),
                }
            }
        }
    }

    /// Takes the value that was fetched, which may be used until then. `true`: it is another than before.
    pub(crate) fn put(&self, value: SecretBytes, until: Instant) -> bool {
        let fetched = self.fetched();
        let mut fetched = fetched.lock();
        let new = fetched.value.as_ref().is_none_or(|(known, _)| known.expose() != value.expose());
        *fetched = Fetched { value: Some((value, until)), error: None };
        new
    }

    /// Notes why it could not be fetched. The last value stays for as long as it may be used. `true`: it is not the same
    /// trouble as before.
    pub(crate) fn put_error(&self, error: String) -> bool {
        let fetched = self.fetched();
        let mut fetched = fetched.lock();
        let new = fetched.error.as_ref() != Some(&error);
        fetched.error = Some(error);
        new
    }

    /// For whoever only looks whether a configuration could work: as if something had been fetched, if nothing was.
    pub(crate) fn assume(&self) {
        let fetched = self.fetched();
        let mut fetched = fetched.lock();
        if fetched.value.is_none() && self.reference.is_remote() {
            let later = Instant::now() + std::time::Duration::from_secs(3_600);
            fetched.value = Some((SecretBytes::new(vec![b'x'; 64]), later));
        }
    }

    /// Whether it could not be fetched the last time.
    pub(crate) fn is_stale(&self) -> bool {
        self.fetched().lock().error.is_some()
    }

    /// Shares from now on what another secret of the same reference holds.
    pub(crate) fn take_over(&self, other: &Self) {
        let shared = other.fetched();
        *self.fetched.lock() = shared;
    }

    fn fetched(&self) -> Arc<Mutex<Fetched>> {
        self.fetched.lock().clone()
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
        for empty in ["env:", "file:", "vault:", "keyvault:"] {
            assert_eq!(SecretRef::parse(empty, Path::new("/")), Err(InvalidRef::Empty));
        }
    }

    #[test]
    fn references_to_other_machines_have_one_form() {
        let parse = |text: &str| SecretRef::parse(text, Path::new("/"));
        for good in [
            "keyvault:prod-vault/secrets/orders",
            "keyvault:prod-vault/secrets/orders/0123456789abcdef0123456789abcdef",
            "keyvault:prod.vault.usgovcloudapi.net/secrets/orders",
            "keyvault:localhost:8443/secrets/orders",
            "vault:secret/data/orders#password",
            "vault:team/kv/data/orders/prod#pass word",
        ] {
            let reference = parse(good).unwrap();
            assert_eq!((reference.to_string(), reference.is_remote()), (good.to_owned(), true));
        }
        for bad in [
            "keyvault:prod-vault",
            "keyvault:prod-vault/keys/orders",
            "keyvault:prod-vault/secrets/",
            "keyvault:evil@host/secrets/x",
            "keyvault:prod/secrets/a?b",
            "keyvault:prod/secrets/x/y/z",
            "vault:secret/orders#password",
            "vault:secret/data/orders",
            "vault:secret/data/orders#",
            "vault:secret/data/../../sys/mounts#x",
            "vault:secret/data/a%2fb#x",
            "vault:/data/x#y",
        ] {
            assert!(matches!(parse(bad), Err(InvalidRef::Form(_))), "{bad}");
        }
    }

    #[test]
    fn what_was_fetched_is_used_for_its_time_and_a_failure_does_not_take_it_away() {
        let secret = Secret::new(SecretRef::parse("vault:kv/data/a#b", Path::new("/")).unwrap());
        assert!(matches!(secret.get(), Err(SecretError::NotFetched(_))));
        let value = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
        let later = Instant::now() + std::time::Duration::from_secs(60);
        assert!(secret.put(value("one"), later) && !secret.put(value("one"), later));
        assert!(secret.put_error("it is sealed".into()) && !secret.put_error("it is sealed".into()));
        assert_eq!(secret.get().unwrap().expose(), b"one");
        assert!(secret.is_stale());
        secret.put(value("two"), Instant::now());
        assert!(secret.get().is_err(), "its time is over");
        secret.put_error("it is sealed".into());
        assert_eq!(secret.get().unwrap_err().to_string(), "vault:kv/data/a#b cannot be had: it is sealed");
        let again = Secret::new(secret.reference().clone());
        secret.put(value("three"), later);
        let clone = again.clone();
        again.take_over(&secret);
        assert_eq!(clone.get().unwrap().expose(), b"three");
        clone.put(value("four"), later);
        assert_eq!(secret.get().unwrap().expose(), b"four", "whoever was there before is served as well");
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
