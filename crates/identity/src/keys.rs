//! Machine keys: for clients that cannot carry a token.
//!
//! A key is a secret of 256 random bits, shown once. What is kept is its SCRAM verifier, from which neither the
//! secret nor a login can be had. The client logs in as `SUBJECT+ID`, by SCRAM-SHA-256 or with the secret as the
//! password inside TLS.
//!
//! ```text
//!  id      k7x3qm2r5ab                       k and 10 letters or digits
//!  login   ci-bot+k7x3qm2r5ab
//!  secret  sp_k7x3qm2r5ab_9Zu…(43)…(6)       43 of 62 letters and digits, then a checksum against typing errors
//! ```
//!
//! The file (`machine-keys.json`) is JSON, mode 0600, written by the gateway and the command line alike. Revoked
//! keys stay in it, so that the record's `key:ID` can be looked up.

use crate::error::rfc3339;
use crate::limits::{DESCRIPTION_MAX, MACHINE_KEYS_MAX, ROLE_MAX, ROLES_MAX, SUBJECT_MAX};
use crate::scram::{NoRandomness, ScramServer, ScramVerifier, random};
use crate::store::{JsonFile, Stamp, StoreFileError};
use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::{Mutex, RwLock};
use proxy_core::session::EndReason;
use proxy_core::{Principal, PrincipalKind, SecretBytes, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The issuer's name of principals with a machine key.
pub const KEY_ISSUER: &str = "key";
/// How a secret begins: it tells keys from tokens, and lets scanners find a leaked one.
pub const SECRET_PREFIX: &str = "sp_";

const VERSION: u32 = 1;
const ID_LEN: usize = 11;
const RANDOM_LEN: usize = 43;
const CHECK_LEN: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why a machine key is refused. The client sees [`Self::public`]; only who has shown the secret learns that the
/// key was revoked or has expired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not of a secret's form, or its checksum is wrong: mistyped or cut off.
    #[error("the machine key is incomplete or mistyped (its checksum is wrong)")]
    Mistyped,
    /// There is no such key, or the secret is not its own, or the login's subject is not.
    #[error("there is no such machine key, or the secret is wrong")]
    Wrong,
    /// Expired.
    #[error("machine key {id} expired at {at}", at = rfc3339(*.since))]
    Expired {
        /// Which key.
        id: String,
        /// When.
        since: Timestamp,
    },
    /// Revoked.
    #[error("machine key {id} was revoked at {at}", at = rfc3339(*.at))]
    Revoked {
        /// Which key.
        id: String,
        /// When.
        at: Timestamp,
    },
}

impl KeyError {
    /// What the client may see: a sentence, and what to do.
    #[must_use]
    pub fn public(&self) -> (String, &'static str) {
        let remedy = match self {
            Self::Mistyped => "copy the whole key: it begins with sp_ and has 64 characters",
            Self::Wrong => "check the user name (SUBJECT+ID) and the key",
            Self::Expired { .. } | Self::Revoked { .. } => "ask the gateway's administrator for a new key",
        };
        (self.to_string(), remedy)
    }
}

/// Why a key cannot be created or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The file.
    #[error(transparent)]
    File(#[from] StoreFileError),
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// What was asked for is not possible.
    #[error("{0}")]
    Invalid(&'static str),
    /// There are too many keys.
    #[error("there are {MACHINE_KEYS_MAX} keys already")]
    Full,
    /// There is no such key.
    #[error("there is no machine key {0:?}")]
    NotFound(String),
}

/// What a new key shall be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose it is: the principal will be `key/SUBJECT`.
    pub subject: String,
    /// What kind of principal.
    pub kind: PrincipalKind,
    /// Its roles.
    pub roles: Vec<String>,
    /// The connections that it may be used for; empty: all that policy allows.
    pub connections: Vec<String>,
    /// When it expires; `None`: never.
    pub expires: Option<Timestamp>,
    /// What it is for.
    pub description: String,
    /// Who creates it.
    pub created_by: String,
}

/// A key that was just created. The secret is here and nowhere else.
#[derive(Debug)]
pub struct CreatedKey {
    /// Its id.
    pub id: String,
    /// The user name to log in with.
    pub login: String,
    /// The secret: the password to log in with. Show it once.
    pub secret: SecretBytes,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its id.
    pub id: String,
    /// The user name to log in with.
    pub login: String,
    /// Whose it is.
    pub subject: String,
    /// What kind of principal.
    pub kind: PrincipalKind,
    /// Its roles.
    pub roles: Vec<String>,
    /// The connections that it may be used for; empty: all that policy allows.
    pub connections: Vec<String>,
    /// What it is for.
    pub description: String,
    /// When it was created.
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it expires.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<String>,
    /// When this process last saw it used.
    pub last_used: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: String,
    subject: String,
    kind: PrincipalKind,
    roles: Vec<String>,
    connections: Vec<String>,
    description: String,
    created: Timestamp,
    created_by: String,
    expires: Option<Timestamp>,
    revoked: Option<Timestamp>,
    revoked_by: Option<String>,
    /// In PostgreSQL's form.
    scram: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFile {
    version: u32,
    /// Makes the verifiers of unknown ids.
    mock_secret: String,
    keys: Vec<StoredKey>,
}

#[derive(Debug)]
struct Entry {
    stored: StoredKey,
    verifier: ScramVerifier,
}

#[derive(Debug)]
struct Contents {
    stamp: Option<Stamp>,
    mock_secret: Zeroizing<Vec<u8>>,
    keys: BTreeMap<String, Entry>,
}

/// The store of machine keys. Share it by `Arc`.
#[derive(Debug)]
pub struct MachineKeys {
    file: JsonFile,
    contents: RwLock<Arc<Contents>>,
    last_used: Mutex<HashMap<String, Timestamp>>,
}

/// A login by SCRAM with a machine key.
pub struct KeyExchange {
    /// The exchange. [`ScramServer::last`] succeeding proves that the client has the secret.
    pub scram: ScramServer,
    id: String,
}

impl MachineKeys {
    /// Opens the store at `path`, usually `DATA_DIR/control/machine-keys.json`. The file is written with the
    /// first key.
    ///
    /// # Errors
    /// The file is there and cannot be read, is damaged, or others may read it.
    pub fn open(path: &Path) -> Result<Self, StoreFileError> {
        let file = JsonFile::new(path);
        let contents = RwLock::new(Arc::new(load(&file)?));
        Ok(Self { file, contents, last_used: Mutex::default() })
    }

    /// Reads the file again if somebody else has changed it. Call it every second, so that a revocation by the
    /// command line ends sessions soon. A missing file has no keys.
    ///
    /// # Errors
    /// As [`Self::open`]; the keys stay as they were.
    pub fn reload_if_changed(&self) -> Result<bool, StoreFileError> {
        if self.file.stamp()? == self.contents.read().stamp {
            return Ok(false);
        }
        let contents = load(&self.file)?;
        *self.contents.write() = Arc::new(contents);
        Ok(true)
    }

    /// Creates a key.
    ///
    /// # Errors
    /// The request makes no sense, or the file cannot be written: then there is no new key.
    pub fn create(&self, new: NewKey, now: Timestamp) -> Result<CreatedKey, KeyStoreError> {
        check_new(&new, now)?;
        let (id, secret) = (new_id()?, Zeroizing::new(random_text(BASE62, RANDOM_LEN)?));
        let body = Zeroizing::new(format!("{SECRET_PREFIX}{id}_{}", *secret));
        let secret = SecretBytes::new(format!("{}{}", *body, checksum(&body)).into_bytes());
        let scram = ScramVerifier::for_password(secret.expose())?;
        let login = format!("{}+{id}", new.subject);
        let mut roles = new.roles;
        roles.sort();
        roles.dedup();
        let stored = StoredKey {
            id: id.clone(),
            subject: new.subject,
            kind: new.kind,
            roles,
            connections: new.connections,
            description: new.description,
            created: now,
            created_by: new.created_by,
            expires: new.expires,
            revoked: None,
            revoked_by: None,
            scram: scram.to_string(),
        };
        self.change(|file| {
            if file.keys.len() >= MACHINE_KEYS_MAX {
                return Err(KeyStoreError::Full);
            }
            if file.keys.iter().any(|key| key.id == stored.id) {
                return Err(KeyStoreError::Invalid("the new key's id exists already: try again"));
            }
            file.keys.push(stored);
            Ok(())
        })?;
        Ok(CreatedKey { id, login, secret })
    }

    /// Revokes a key. Its sessions end when the gateway checks [`Self::still_valid`]. A key that was revoked
    /// before stays as it was.
    ///
    /// # Errors
    /// There is no such key, or the file cannot be written: then it is not revoked.
    pub fn revoke(&self, id: &str, by: &str, now: Timestamp) -> Result<KeyInfo, KeyStoreError> {
        self.change(|file| {
            let key = file.keys.iter_mut().find(|key| key.id == id).ok_or_else(|| KeyStoreError::NotFound(id.to_owned()))?;
            if key.revoked.is_none() {
                key.revoked = Some(now);
                key.revoked_by = Some(by.to_owned());
            }
            Ok(())
        })?;
        self.get(id).ok_or_else(|| KeyStoreError::NotFound(id.to_owned()))
    }

    /// All keys, the oldest first, expired and revoked ones included.
    #[must_use]
    pub fn list(&self) -> Vec<KeyInfo> {
        let contents = self.contents();
        let mut list = contents.keys.values().map(|entry| self.info(&entry.stored)).collect::<Vec<_>>();
        list.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        list
    }

    /// One key.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<KeyInfo> {
        self.contents().keys.get(id).map(|entry| self.info(&entry.stored))
    }

    /// Checks a secret that was sent as the password. `login`: what the client calls itself.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify_secret(&self, secret: &[u8], now: Timestamp) -> Result<Principal, KeyError> {
        let id = secret_id(secret).ok_or(KeyError::Mistyped)?;
        let contents = self.contents();
        match contents.keys.get(id) {
            Some(entry) if entry.verifier.matches(secret) => self.usable(entry, now),
            Some(_) => Err(KeyError::Wrong),
            None => {
                // The same work: the time must not tell which ids exist.
                let _ = ScramVerifier::mock(&contents.mock_secret, id).matches(secret);
                Err(KeyError::Wrong)
            }
        }
    }

    /// Begins a SCRAM login for the name `SUBJECT+ID`. For a name that is not known the exchange goes on, always
    /// with the same salt, and fails at its end. `binding`: as for [`ScramServer::new`].
    #[must_use]
    pub fn exchange(&self, login: &str, binding: Option<Vec<u8>>) -> KeyExchange {
        let contents = self.contents();
        let (subject, id) = split_login(login).unwrap_or((login, ""));
        let scram = match contents.keys.get(id).filter(|entry| entry.stored.subject == subject) {
            Some(entry) => ScramServer::new(entry.verifier.clone(), binding),
            None => ScramServer::doomed(ScramVerifier::mock(&contents.mock_secret, login), binding),
        };
        KeyExchange { scram, id: id.to_owned() }
    }

    /// The caller of an exchange that succeeded.
    ///
    /// # Errors
    /// The key was revoked or has expired.
    pub fn principal_for(&self, exchange: &KeyExchange, now: Timestamp) -> Result<Principal, KeyError> {
        let contents = self.contents();
        contents.keys.get(&exchange.id).ok_or(KeyError::Wrong).and_then(|entry| self.usable(entry, now))
    }

    /// Whether the key may be used for this connection.
    #[must_use]
    pub fn allows(&self, principal: &Principal, connection: &str) -> bool {
        let Some(id) = key_id(principal) else { return true };
        let contents = self.contents();
        let allowed = contents.keys.get(id).map(|entry| &entry.stored.connections);
        allowed.is_some_and(|list| list.is_empty() || list.iter().any(|name| name == connection))
    }

    /// Whether a principal's key still stands. A principal with a token: yes.
    ///
    /// # Errors
    /// It was revoked, or is not there any more, or has expired.
    pub fn still_valid(&self, principal: &Principal, now: Timestamp) -> Result<(), EndReason> {
        let Some(id) = key_id(principal) else { return Ok(()) };
        match self.contents().keys.get(id).map(|entry| entry.stored.state(now)) {
            Some(Ok(())) => Ok(()),
            Some(Err(KeyError::Expired { .. })) => Err(EndReason::Expired),
            Some(Err(_)) | None => Err(EndReason::Revoked),
        }
    }

    fn contents(&self) -> Arc<Contents> {
        Arc::clone(&self.contents.read())
    }

    fn usable(&self, entry: &Entry, now: Timestamp) -> Result<Principal, KeyError> {
        entry.stored.state(now)?;
        self.last_used.lock().insert(entry.stored.id.clone(), now);
        Ok(entry.stored.principal())
    }

    fn info(&self, stored: &StoredKey) -> KeyInfo {
        let last_used = self.last_used.lock().get(&stored.id).copied();
        KeyInfo {
            id: stored.id.clone(),
            login: stored.login(),
            subject: stored.subject.clone(),
            kind: stored.kind,
            roles: stored.roles.clone(),
            connections: stored.connections.clone(),
            description: stored.description.clone(),
            created: stored.created,
            created_by: stored.created_by.clone(),
            expires: stored.expires,
            revoked: stored.revoked,
            revoked_by: stored.revoked_by.clone(),
            last_used,
        }
    }

    fn change(&self, change: impl FnOnce(&mut StoredFile) -> Result<(), KeyStoreError>) -> Result<(), KeyStoreError> {
        let mock_secret = STANDARD.encode(&*self.contents().mock_secret);
        let (stored, (), stamp) = self.file.update(|before: Option<StoredFile>| {
            let mut file = before.unwrap_or(StoredFile { version: VERSION, mock_secret, keys: Vec::new() });
            if file.version != VERSION {
                return Err(KeyStoreError::File(self.file.damaged("it was written by another version")));
            }
            // A damaged file is left as it is, for somebody to look at.
            parse(&self.file, file.clone(), None)?;
            change(&mut file)?;
            Ok((file, ()))
        })?;
        let contents = parse(&self.file, stored, Some(stamp))?;
        *self.contents.write() = Arc::new(contents);
        Ok(())
    }
}

impl StoredKey {
    fn login(&self) -> String {
        format!("{}+{}", self.subject, self.id)
    }

    fn state(&self, now: Timestamp) -> Result<(), KeyError> {
        if let Some(at) = self.revoked {
            return Err(KeyError::Revoked { id: self.id.clone(), at });
        }
        match self.expires.filter(|expires| *expires <= now) {
            Some(since) => Err(KeyError::Expired { id: self.id.clone(), since }),
            None => Ok(()),
        }
    }

    fn principal(&self) -> Principal {
        Principal {
            kind: self.kind,
            issuer: KEY_ISSUER.to_owned(),
            subject: self.subject.clone(),
            tenant: None,
            application: None,
            credential_id: Some(format!("{KEY_ISSUER}:{}", self.id)),
            aliases: vec![self.login()],
            roles: self.roles.clone(),
            claims: BTreeMap::from([
                ("key_id".to_owned(), self.id.clone()),
                // Who made it answers for it, and does not approve what it asks for.
                ("created_by".to_owned(), self.created_by.clone()),
            ]),
            expires: self.expires,
        }
    }
}

fn load(file: &JsonFile) -> Result<Contents, StoreFileError> {
    if let Some((stored, stamp)) = file.read::<StoredFile>()? {
        return parse(file, stored, Some(stamp));
    }
    let mut mock_secret = Zeroizing::new(vec![0; 32]);
    random(&mut mock_secret).map_err(|error| file.damaged(&error.to_string()))?;
    Ok(Contents { stamp: None, mock_secret, keys: BTreeMap::new() })
}

fn parse(file: &JsonFile, stored: StoredFile, stamp: Option<Stamp>) -> Result<Contents, StoreFileError> {
    if stored.version != VERSION {
        return Err(file.damaged("it was written by another version"));
    }
    let mock_secret = STANDARD.decode(&stored.mock_secret).ok().filter(|secret| secret.len() >= 32);
    let mock_secret = Zeroizing::new(mock_secret.ok_or_else(|| file.damaged("mock_secret"))?);
    let mut keys = BTreeMap::new();
    for key in stored.keys {
        let verifier = key.scram.parse().map_err(|_| file.damaged(&format!("the verifier of key {:?}", key.id)))?;
        let id = key.id.clone();
        if keys.insert(id.clone(), Entry { stored: key, verifier }).is_some() {
            return Err(file.damaged(&format!("key {id:?} is in it twice")));
        }
    }
    Ok(Contents { stamp, mock_secret, keys })
}

fn check_new(new: &NewKey, now: Timestamp) -> Result<(), KeyStoreError> {
    let plain = |text: &str, max: usize| !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control);
    // PostgreSQL's drivers send up to 63 bytes of user name unharmed everywhere; the id takes 12 of them.
    let problem = if !plain(&new.subject, SUBJECT_MAX) || new.subject.chars().any(char::is_whitespace) {
        "a subject has 1 to 512 characters, without blanks"
    } else if new.roles.len() > ROLES_MAX || !new.roles.iter().all(|role| plain(role, ROLE_MAX)) {
        "there are too many roles, or one is empty or too long"
    } else if new.connections.len() > ROLES_MAX || !new.connections.iter().all(|name| plain(name, ROLE_MAX)) {
        "there are too many connections, or one is empty or too long"
    } else if new.description.len() > DESCRIPTION_MAX || new.created_by.len() > DESCRIPTION_MAX {
        "the description is longer than 1024 bytes"
    } else if new.expires.is_some_and(|expires| expires <= now) {
        "the expiry is in the past"
    } else {
        return Ok(());
    };
    Err(KeyStoreError::Invalid(problem))
}

fn key_id(principal: &Principal) -> Option<&str> {
    if principal.issuer != KEY_ISSUER {
        return None;
    }
    Some(principal.credential_id.as_deref().and_then(|id| id.strip_prefix("key:")).unwrap_or_default())
}

/// `SUBJECT` and `ID` of a login name, if it has that form: such a caller is asked for SCRAM, others for a token.
#[must_use]
pub fn split_login(login: &str) -> Option<(&str, &str)> {
    login.rsplit_once('+').filter(|(subject, id)| !subject.is_empty() && is_id(id))
}

/// Whether a password is a machine key's secret and not a token.
#[must_use]
pub fn is_secret(password: &[u8]) -> bool {
    password.starts_with(SECRET_PREFIX.as_bytes())
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.starts_with('k') && text.bytes().skip(1).all(|byte| BASE32.contains(&byte))
}

/// The id in a secret of the right form.
fn secret_id(secret: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(secret).ok()?;
    let (id, rest) = text.strip_prefix(SECRET_PREFIX)?.split_once('_')?;
    let (body, check) = text.split_at_checked(text.len().checked_sub(CHECK_LEN)?)?;
    let good = is_id(id)
        && rest.len() == RANDOM_LEN + CHECK_LEN
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && constant_time::verify_slices_are_equal(checksum(body).as_bytes(), check.as_bytes()).is_ok();
    good.then_some(id)
}

/// Against typing errors, not against attackers.
fn checksum(body: &str) -> String {
    let hash = digest::digest(&digest::SHA256, body.as_bytes());
    let number = hash.as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut rest = number;
    let mut text = String::with_capacity(CHECK_LEN);
    for _ in 0..CHECK_LEN {
        text.push(char::from(BASE62.get((rest % 62) as usize).copied().unwrap_or(b'0')));
        rest /= 62;
    }
    text
}

fn new_id() -> Result<String, NoRandomness> {
    Ok(format!("k{}", random_text(BASE32, ID_LEN - 1)?))
}

/// Characters drawn evenly: bytes beyond the last whole multiple are drawn again.
fn random_text(alphabet: &[u8], length: usize) -> Result<String, NoRandomness> {
    let mut text = String::with_capacity(length);
    let usable = 256 - 256 % alphabet.len();
    while text.len() < length {
        let mut bytes = Zeroizing::new([0; 64]);
        random(&mut *bytes)?;
        let drawn = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < usable);
        let characters = drawn.filter_map(|byte| alphabet.get(byte % alphabet.len())).map(|byte| char::from(*byte));
        text.extend(characters.take(length - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
