//! The keys that the log's payloads are sealed with: `control/payload-keys.json`, each wrapped by a key that is elsewhere.
//!
//! ```text
//!  audit.payload_key ─┬─ file:, env:    AES-256-GCM under HKDF-SHA-256 of the secret
//!                     ├─ keyvault:      wrapKey, unwrapKey: RSA-OAEP-256
//!                     └─ vault:         transit: encrypt, decrypt
//! ```
//!
//! They are unwrapped once, at the start. What unwraps to something else than it was is noticed: a key's id follows from it.

use crate::config::{Config, SecretRef, WrapSource};
use crate::secrets::{FetchError, SecretServices};
use audit_store::notary::replace_file;
use audit_store::{AuditStore, KEY_LENGTH, KeyId, PayloadKeys};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use control_plane::units::show_time;
use proxy_core::record::{Entry, Event};
use proxy_core::{SecretBytes, Store, StoreError};
use proxy_io::clock::now;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Least length of a secret that wraps, in bytes.
const SECRET_MIN: usize = 32;
/// Bytes of a nonce of AES-GCM.
const NONCE: usize = 12;
/// Most data keys of a log: each start unwraps all of them.
const KEYS_MAX: usize = 1_000;

/// Why the keys cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadKeyError {
    /// The file.
    #[error("{file}: {why}", file = .0.display(), why = .1)]
    File(PathBuf, String),
    /// Payloads of the log are sealed, and nothing is configured.
    #[error(
        "payloads of the log are sealed with the keys in {}, and audit.payload_key is not set: set it again, since without it they would be recorded unsealed",
        .0.display()
    )]
    NotConfigured(PathBuf),
    /// The source of a wrapping key.
    #[error("{0} cannot be used: {1}")]
    Source(String, FetchError),
    /// The secret on this machine.
    #[error("{0} cannot be used: {1}")]
    Secret(String, String),
    /// It is not what has wrapped it.
    #[error("the payload key {0} is not one that {1} has wrapped: it was altered, or the wrapping key is another")]
    Other(String, String),
    /// There are too many.
    #[error("there are {KEYS_MAX} payload keys already")]
    TooMany,
    /// The library refuses.
    #[error("a payload key could not be made")]
    Crypto,
    /// There are none.
    #[error("audit.payload_key is not set: payloads of the log are not sealed")]
    None,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeys {
    version: u32,
    /// The newest last.
    keys: Vec<StoredKey>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: String,
    /// RFC 3339.
    made: String,
    by: String,
    /// What has wrapped it, as `audit.payload_key` has it.
    source: String,
    /// Of a key in Azure Key Vault, which version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_version: Option<String>,
    wrapped: String,
    /// Whether the log has an entry of it.
    #[serde(default)]
    recorded: bool,
}

/// The file, unlocked.
#[derive(Debug)]
pub struct PayloadKeyFile {
    path: PathBuf,
    stored: StoredKeys,
    ring: PayloadKeys,
}

/// Where the file of this configuration is.
#[must_use]
pub fn payload_key_file(config: &Config) -> PathBuf {
    config.control_dir().join("payload-keys.json")
}

/// The keys of the file at `path`, for a reader; `None`: there is no file. Each is unwrapped by what has wrapped it.
///
/// # Errors
/// [`PayloadKeyError`].
pub async fn read_payload_keys(path: &Path, services: &SecretServices) -> Result<Option<PayloadKeys>, PayloadKeyError> {
    match read(path)? {
        Some(stored) => unlock(&stored, path, services).await.map(Some),
        None => Ok(None),
    }
}

/// Wraps a key that is thrown away, and unwraps those that there are. Returns how many.
///
/// # Errors
/// [`PayloadKeyError`].
pub async fn try_source(config: &Config, source: &WrapSource, services: &SecretServices) -> Result<usize, PayloadKeyError> {
    make(source, services, "check").await?;
    let keys = read_payload_keys(&payload_key_file(config), services).await?;
    Ok(keys.map_or(0, |keys| keys.ids().len()))
}

impl PayloadKeyFile {
    /// For whoever writes the log: its keys; where there are none yet, the first is made. `None`: payloads are not sealed.
    ///
    /// # Errors
    /// [`PayloadKeyError`]: nothing must be recorded then.
    pub async fn open(config: &Config, services: &SecretServices, by: &str) -> Result<Option<Self>, PayloadKeyError> {
        let path = payload_key_file(config);
        match (read(&path)?, &config.audit.payload_key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(PayloadKeyError::NotConfigured(path)),
            (Some(stored), Some(_)) => {
                let ring = unlock(&stored, &path, services).await?;
                Ok(Some(Self { path, stored, ring }))
            }
            (None, Some(source)) => {
                let (key, made) = make(source, services, by).await?;
                let ring = PayloadKeys::new([&key]).ok().flatten().ok_or(PayloadKeyError::Crypto)?;
                let file = Self { path, stored: StoredKeys { version: 1, keys: vec![made] }, ring };
                file.save(&file.stored)?;
                Ok(Some(file))
            }
        }
    }

    /// What the store seals and opens with. It learns of later keys.
    #[must_use]
    pub fn keys(&self) -> PayloadKeys {
        self.ring.clone()
    }

    /// Makes a new key, wrapped by what is configured now. Payloads are sealed with it from here on.
    ///
    /// # Errors
    /// [`PayloadKeyError`]: the one before stays in use.
    pub async fn rotate(&mut self, source: &WrapSource, services: &SecretServices, by: &str) -> Result<KeyId, PayloadKeyError> {
        if self.stored.keys.len() >= KEYS_MAX {
            return Err(PayloadKeyError::TooMany);
        }
        let (key, made) = make(source, services, by).await?;
        let mut next = self.stored.clone();
        next.keys.push(made);
        // A key that is not kept must not seal anything.
        self.save(&next)?;
        self.stored = next;
        self.ring.add(&key).map_err(|_| PayloadKeyError::Crypto)
    }

    /// Wraps every key by what is configured now; what had wrapped them is not needed any more. Returns how many.
    ///
    /// # Errors
    /// [`PayloadKeyError`]: all stay as they were.
    pub async fn rewrap(&mut self, source: &WrapSource, services: &SecretServices) -> Result<usize, PayloadKeyError> {
        let mut next = self.stored.clone();
        for stored in &mut next.keys {
            let key = unwrap(stored, &self.path, services).await?;
            (stored.source, stored.source_version, stored.wrapped) = wrap(&key, &stored.id, source, services).await?;
        }
        self.save(&next)?;
        self.stored = next;
        Ok(self.stored.keys.len())
    }

    /// Records the keys that the log has no entry of.
    ///
    /// # Errors
    /// [`StoreError`], or the file's.
    pub fn record(&mut self, store: &AuditStore) -> Result<(), StoreError> {
        let mut next = self.stored.clone();
        for key in next.keys.iter_mut().filter(|key| !key.recorded) {
            let details = [("source", &key.source), ("made", &key.made)];
            let details: BTreeMap<_, _> = details.map(|(name, value)| (name.to_owned(), value.clone())).into();
            let object = format!("payload key {}", key.id);
            let event = Event::Administration { by: key.by.clone(), action: "payload key made".to_owned(), object, details };
            store.append(&[Entry { time: now(), session: None, event }])?;
            key.recorded = true;
        }
        store.sync()?;
        self.save(&next).map_err(|error| StoreError::Io(error.to_string()))?;
        self.stored = next;
        Ok(())
    }

    fn save(&self, stored: &StoredKeys) -> Result<(), PayloadKeyError> {
        let failed = |why: String| PayloadKeyError::File(self.path.clone(), why);
        let content = serde_json::to_vec_pretty(stored).map_err(|error| failed(error.to_string()))?;
        replace_file(&self.path, &content, 0o600).map_err(|error| failed(error.to_string()))
    }
}

/// Makes a new key, or wraps all of them anew, and records it. The answer is for whoever asked.
///
/// # Errors
/// Why not, in words.
pub async fn change_payload_keys(
    config: &Config,
    services: &SecretServices,
    keys: &mut PayloadKeyFile,
    store: &AuditStore,
    by: &str,
    rewrap: bool,
) -> Result<Value, String> {
    let words = |error: PayloadKeyError| error.to_string();
    let source = config.audit.payload_key.as_ref().ok_or_else(|| words(PayloadKeyError::None))?;
    if !rewrap {
        let id = keys.rotate(source, services, by).await.map_err(words)?;
        keys.record(store).map_err(|error| error.to_string())?;
        return Ok(json!({ "payload_key": id.to_string() }));
    }
    let count = keys.rewrap(source, services).await.map_err(words)?;
    let source = absolute(source);
    let details = BTreeMap::from([("source".to_owned(), source.clone()), ("keys".to_owned(), count.to_string())]);
    let (action, object) = ("payload keys wrapped anew".to_owned(), "payload keys".to_owned());
    let event = Event::Administration { by: by.to_owned(), action, object, details };
    let recorded = store.append(&[Entry { time: now(), session: None, event }]).and_then(|_| store.sync());
    recorded.map_err(|error| error.to_string())?;
    Ok(json!({ "keys": count, "source": source }))
}

fn read(path: &Path) -> Result<Option<StoredKeys>, PayloadKeyError> {
    let failed = |why: String| PayloadKeyError::File(path.to_owned(), why);
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let stored: StoredKeys = serde_json::from_slice(&content).map_err(|error| failed(format!("it is damaged: {error}")))?;
    if stored.version != 1 || stored.keys.is_empty() || stored.keys.len() > KEYS_MAX {
        return Err(failed("it is of another version of sallyport, or damaged".to_owned()));
    }
    Ok(Some(stored))
}

async fn unlock(stored: &StoredKeys, path: &Path, services: &SecretServices) -> Result<PayloadKeys, PayloadKeyError> {
    let mut keys = Vec::new();
    for key in &stored.keys {
        keys.push(unwrap(key, path, services).await?);
    }
    PayloadKeys::new(&keys).ok().flatten().ok_or(PayloadKeyError::Crypto)
}

async fn make(source: &WrapSource, services: &SecretServices, by: &str) -> Result<(SecretBytes, StoredKey), PayloadKeyError> {
    let mut key = vec![0; KEY_LENGTH];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| PayloadKeyError::Crypto)?;
    let key = SecretBytes::new(key);
    let id = KeyId::of(&key).map_err(|_| PayloadKeyError::Crypto)?.to_string();
    let (source, source_version, wrapped) = wrap(&key, &id, source, services).await?;
    let stored = StoredKey { id, made: show_time(now()), by: by.to_owned(), source, source_version, wrapped, recorded: false };
    // What cannot be unwrapped must not be found out at the next start.
    unwrap(&stored, Path::new("the new key"), services).await?;
    Ok((key, stored))
}

type Wrapped = (String, Option<String>, String);

async fn wrap(key: &SecretBytes, id: &str, source: &WrapSource, services: &SecretServices) -> Result<Wrapped, PayloadKeyError> {
    let name = absolute(source);
    let failed = |error| PayloadKeyError::Source(name.clone(), error);
    Ok(match source {
        WrapSource::Local(_) => {
            let mut content = key.expose().to_vec();
            let nonce = local_key(source)?.seal_in_place_append_tag(Aad::from(id.as_bytes()), &mut content);
            let nonce = nonce.map_err(|_| PayloadKeyError::Crypto)?;
            (name, None, BASE64.encode([&nonce.as_ref()[..], &content].concat()))
        }
        WrapSource::KeyVault { vault, name: key_name } => {
            let (version, wrapped) = services.wrap(vault, key_name, key).await.map_err(failed)?;
            (name, Some(version), BASE64.encode(wrapped))
        }
        WrapSource::Transit { mount, name: key_name } => {
            let wrapped = services.encrypt(mount, key_name, key).await.map_err(failed)?;
            (name, None, wrapped)
        }
    })
}

async fn unwrap(stored: &StoredKey, path: &Path, services: &SecretServices) -> Result<SecretBytes, PayloadKeyError> {
    let damaged = |what: &str| PayloadKeyError::File(path.to_owned(), format!("it is damaged: {what}"));
    let source = WrapSource::parse(&stored.source, Path::new("/")).map_err(|_| damaged("a source is none"))?;
    let failed = |error| PayloadKeyError::Source(stored.source.clone(), error);
    let other = || PayloadKeyError::Other(stored.id.clone(), stored.source.clone());
    let bytes = || BASE64.decode(&stored.wrapped).map_err(|_| damaged("a wrapped key is not base64"));
    let key = match &source {
        WrapSource::Local(_) => {
            let mut content = bytes()?;
            if content.len() < NONCE {
                return Err(damaged("a wrapped key is cut off"));
            }
            let mut rest = content.split_off(NONCE);
            let nonce = Nonce::try_assume_unique_for_key(&content).map_err(|_| PayloadKeyError::Crypto)?;
            let opened = local_key(&source)?.open_in_place(nonce, Aad::from(stored.id.as_bytes()), &mut rest);
            SecretBytes::new(opened.map_err(|_| other())?.to_vec())
        }
        WrapSource::KeyVault { vault, name } => {
            let version = stored.source_version.as_deref().unwrap_or_default();
            services.unwrap(vault, name, version, &bytes()?).await.map_err(failed)?
        }
        WrapSource::Transit { mount, name } => services.decrypt(mount, name, &stored.wrapped).await.map_err(failed)?,
    };
    match KeyId::of(&key) {
        Ok(id) if id.to_string() == stored.id => Ok(key),
        Ok(_) | Err(_) => Err(other()),
    }
}

/// The key that wraps, from a secret on this machine.
fn local_key(source: &WrapSource) -> Result<RandomizedNonceKey, PayloadKeyError> {
    let failed = |why: String| PayloadKeyError::Secret(source.to_string(), why);
    let secret = source.local().ok_or(PayloadKeyError::Crypto)?.get().map_err(|error| failed(error.to_string()))?;
    if secret.expose().len() < SECRET_MIN {
        let why =
            format!("it has {} bytes, and {SECRET_MIN} random ones are needed: `openssl rand -base64 48`", secret.expose().len());
        return Err(failed(why));
    }
    let mut key = [0; 32];
    let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret.expose());
    let expanded = pseudo_random.expand(&[b"sallyport payload key wrapping"], hkdf::HKDF_SHA256);
    expanded.and_then(|okm| okm.fill(&mut key)).map_err(|_| PayloadKeyError::Crypto)?;
    RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| PayloadKeyError::Crypto)
}

/// A source as it is noted: a file by a path that means the same wherever a command is run.
fn absolute(source: &WrapSource) -> String {
    match source.local().map(|secret| secret.reference()) {
        Some(SecretRef::File(path)) => {
            format!("file:{}", std::path::absolute(path).unwrap_or_else(|_| path.clone()).display())
        }
        _ => source.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn config(folder: &Path, payload_key: &str) -> Config {
        let text = format!(
            "data_dir = \"data\"\n{}\n[[listener]]\nprotocol = \"admin\"\naddress = \"127.0.0.1:1\"\ntls = \"optional\"\n",
            if payload_key.is_empty() { String::new() } else { format!("[audit]\npayload_key = \"{payload_key}\"") }
        );
        crate::config::parse(&text, &folder.join("sallyport.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn setting() -> (tempfile::TempDir, Config, Arc<SecretServices>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/control")).unwrap();
        std::fs::write(folder.path().join("one.key"), "1".repeat(32)).unwrap();
        std::fs::write(folder.path().join("two.key"), "2".repeat(32)).unwrap();
        let config = config(folder.path(), "file:one.key");
        let services = SecretServices::new(&config).unwrap();
        (folder, config, services)
    }

    #[tokio::test]
    async fn the_first_key_is_made_once_and_found_again() {
        let (folder, one, services) = setting();
        let made = PayloadKeyFile::open(&one, &services, "gateway").await.unwrap().unwrap().keys();
        let path = payload_key_file(&one);
        let content = std::fs::read_to_string(&path).unwrap();
        assert_eq!(PayloadKeyFile::open(&one, &services, "gateway").await.unwrap().unwrap().keys(), made);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // Whoever only reads makes none.
        assert_eq!(read_payload_keys(&folder.path().join("none"), &services).await, Ok(None));
        assert_eq!(read_payload_keys(&path, &services).await.unwrap(), Some(made));
    }

    #[tokio::test]
    async fn without_what_has_wrapped_them_they_are_not_to_be_had() {
        let (folder, one, services) = setting();
        PayloadKeyFile::open(&one, &services, "gateway").await.unwrap();
        let path = payload_key_file(&one);
        let none = PayloadKeyFile::open(&config(folder.path(), ""), &services, "gateway").await.unwrap_err();
        assert_eq!(none, PayloadKeyError::NotConfigured(path.clone()));
        std::fs::write(folder.path().join("one.key"), "3".repeat(32)).unwrap();
        let other = PayloadKeyFile::open(&one, &services, "gateway").await.unwrap_err();
        assert!(matches!(other, PayloadKeyError::Other(..)), "{other}");
        std::fs::write(folder.path().join("one.key"), "short").unwrap();
        let short = PayloadKeyFile::open(&one, &services, "gateway").await.unwrap_err();
        assert!(matches!(&short, PayloadKeyError::Secret(_, why) if why.contains("5 bytes")), "{short}");
        std::fs::remove_file(folder.path().join("one.key")).unwrap();
        assert!(matches!(PayloadKeyFile::open(&one, &services, "gateway").await, Err(PayloadKeyError::Secret(..))));
    }

    #[tokio::test]
    async fn keys_are_added_and_wrapped_anew() {
        let (folder, one, services) = setting();
        let mut file = PayloadKeyFile::open(&one, &services, "gateway").await.unwrap().unwrap();
        let ring = file.keys();
        let two = config(folder.path(), "file:two.key");
        let source = two.audit.payload_key.clone().unwrap();
        let id = file.rotate(&source, &services, "ops").await.unwrap();
        assert_eq!((ring.ids().len(), ring.ids().last()), (2, Some(&id)), "the store learns of it");
        // Each is unwrapped by what has wrapped it, until all are wrapped anew.
        assert_eq!(PayloadKeyFile::open(&two, &services, "gateway").await.unwrap().unwrap().keys(), ring);
        assert_eq!(file.rewrap(&source, &services).await, Ok(2));
        std::fs::remove_file(folder.path().join("one.key")).unwrap();
        assert_eq!(PayloadKeyFile::open(&two, &services, "gateway").await.unwrap().unwrap().keys(), ring);
    }

    #[tokio::test]
    async fn what_was_altered_is_noticed() {
        let (_folder, one, services) = setting();
        let mut file = PayloadKeyFile::open(&one, &services, "gateway").await.unwrap().unwrap();
        file.rotate(one.audit.payload_key.as_ref().unwrap(), &services, "ops").await.unwrap();
        let path = payload_key_file(&one);
        let whole: StoredKeys = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let swapped = |stored: &mut StoredKeys| {
            let first = stored.keys[0].wrapped.clone();
            stored.keys[1].wrapped = first;
        };
        let changes: [&dyn Fn(&mut StoredKeys); 5] = [
            &|stored| stored.version = 2,
            &|stored| stored.keys.clear(),
            &swapped,
            &|stored| stored.keys[0].wrapped = "AAAA".to_owned(),
            &|stored| stored.keys[0].source = "hunter2".to_owned(),
        ];
        for change in changes {
            let mut changed = whole.clone();
            change(&mut changed);
            std::fs::write(&path, serde_json::to_vec(&changed).unwrap()).unwrap();
            let error = PayloadKeyFile::open(&one, &services, "gateway").await.unwrap_err();
            assert!(matches!(error, PayloadKeyError::File(..) | PayloadKeyError::Other(..)), "{error}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
