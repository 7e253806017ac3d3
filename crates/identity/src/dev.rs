//! The issuer for a first run, demos and tests: a key of the gateway's own. Whoever can read its folder can make
//! any identity of it.

use crate::claims::DEV_KIND_CLAIM;
use crate::limits::{ROLES_MAX, TOKEN_MAX};
use crate::scram::{NoRandomness, random};
use crate::store::{StoreFileError, check_private, create_private_dir, private_options};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proxy_core::{PrincipalKind, SecretBytes, Timestamp};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// The key's file within the issuer's folder.
const KEY_FILE: &str = "signing-key.pk8";
/// Longest lifetime of a token (1 year).
const LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why the dev issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DevIssuerError {
    /// Its key's file.
    #[error(transparent)]
    File(#[from] StoreFileError),
    /// Its key cannot be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The token cannot be made.
    #[error("{0}")]
    Invalid(&'static str),
}

/// What a token shall say.
#[derive(Debug, Clone)]
pub struct DevToken {
    /// `sub`.
    pub subject: String,
    /// `aud`: one that the `[[issuer]]` accepts.
    pub audience: String,
    /// What kind of principal.
    pub kind: PrincipalKind,
    /// `roles`.
    pub roles: Vec<String>,
    /// From now to `exp`.
    pub lifetime: Duration,
    /// Further claims. They cannot replace the others.
    pub claims: Map<String, Value>,
}

/// Signs tokens with a key in a file (Ed25519, PKCS #8, mode 0600).
pub struct DevIssuer {
    issuer: String,
    key: EncodingKey,
    key_id: String,
    public: String,
}

impl std::fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevIssuer").field("issuer", &self.issuer).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl DevIssuer {
    /// Opens the issuer in `folder` (usually `DATA_DIR/control/dev-issuer`), or creates it: its key is made once.
    /// `issuer`: the `iss` of its tokens, as configured.
    ///
    /// # Errors
    /// The key cannot be read or written, or others may read it.
    pub fn open_or_create(folder: &Path, issuer: &str) -> Result<Self, DevIssuerError> {
        let path = folder.join(KEY_FILE);
        if !path.exists() {
            create_private_dir(folder).map_err(io(&path))?;
            create_key(folder, &path)?;
        }
        Self::open(folder, issuer)
    }

    /// Opens the issuer in `folder`.
    ///
    /// # Errors
    /// There is none, or as [`Self::open_or_create`].
    pub fn open(folder: &Path, issuer: &str) -> Result<Self, DevIssuerError> {
        let path = folder.join(KEY_FILE);
        check_private(&path, &fs::metadata(&path).map_err(io(&path))?)?;
        let pkcs8 = Zeroizing::new(fs::read(&path).map_err(io(&path))?);
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| StoreFileError::Damaged {
            path: path.display().to_string(),
            problem: "it is not an Ed25519 key in PKCS #8".to_owned(),
        })?;
        let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        // RFC 7638 §3: the members in this order, without blanks.
        let thumbprint = digest::digest(&digest::SHA256, format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}"#).as_bytes());
        let key_id = URL_SAFE_NO_PAD.encode(thumbprint.as_ref());
        Ok(Self { issuer: issuer.to_owned(), key: EncodingKey::from_ed_der(&pkcs8), key_id, public })
    }

    /// Its public key, as a key set: for [`crate::KeySource::Inline`].
    #[must_use]
    pub fn jwks(&self) -> String {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": self.public, "kid": self.key_id, "alg": "EdDSA", "use": "sig"});
        json!({ "keys": [key] }).to_string()
    }

    /// Makes a token.
    ///
    /// # Errors
    /// What was asked for is not possible.
    pub fn issue(&self, token: &DevToken, now: Timestamp) -> Result<SecretBytes, DevIssuerError> {
        if token.subject.is_empty() || token.audience.is_empty() {
            return Err(DevIssuerError::Invalid("a token needs a subject and an audience"));
        }
        if token.lifetime.is_zero() || token.lifetime > LIFETIME_MAX {
            return Err(DevIssuerError::Invalid("a token's lifetime is from 1 second to 366 days"));
        }
        if token.roles.len() > ROLES_MAX {
            return Err(DevIssuerError::Invalid("a token has at most 512 roles"));
        }
        let mut id = [0; 16];
        random(&mut id)?;
        let expires = now.seconds().saturating_add(i64::try_from(token.lifetime.as_secs().max(1)).unwrap_or(i64::MAX));
        let mut claims = token.claims.clone();
        let kind = token.kind.as_str().to_ascii_lowercase();
        for (name, value) in [
            ("iss", json!(self.issuer)),
            ("sub", json!(token.subject)),
            ("aud", json!(token.audience)),
            ("roles", json!(token.roles)),
            ("iat", json!(now.seconds())),
            ("nbf", json!(now.seconds())),
            ("exp", json!(expires)),
            ("jti", json!(URL_SAFE_NO_PAD.encode(id))),
            (DEV_KIND_CLAIM, json!(kind)),
        ] {
            claims.insert(name.to_owned(), value);
        }
        let header = Header { typ: Some("at+jwt".to_owned()), kid: Some(self.key_id.clone()), ..Header::new(Algorithm::EdDSA) };
        let text = jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|_| DevIssuerError::Invalid("the token cannot be signed"))?;
        if text.len() > TOKEN_MAX {
            return Err(DevIssuerError::Invalid("the token would be longer than 16 KiB"));
        }
        Ok(SecretBytes::new(text.into_bytes()))
    }
}

/// Makes the key under a name of its own and links it to the final one: of two processes, one wins, and both use
/// its key; a crash leaves no half a key.
fn create_key(folder: &Path, path: &Path) -> Result<(), DevIssuerError> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).map_err(|_| NoRandomness)?;
    let mut suffix = [0; 8];
    random(&mut suffix)?;
    let temporary = folder.join(format!("{KEY_FILE}.{}.tmp", URL_SAFE_NO_PAD.encode(suffix)));
    let write = || {
        let mut file = private_options().create_new(true).open(&temporary)?;
        file.write_all(pkcs8.as_ref())?;
        file.sync_all()?;
        let linked = match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        fs::remove_file(&temporary)?;
        linked?;
        File::open(folder)?.sync_all()
    };
    write().map_err(io(path)).map_err(DevIssuerError::File)
}

fn io(path: &Path) -> impl Fn(io::Error) -> StoreFileError {
    let path = path.display().to_string();
    move |source| StoreFileError::Io { action: "use the dev issuer's key", path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("control/dev-issuer");
        assert!(DevIssuer::open(&place, "sallyport:dev").is_err());
        let first = DevIssuer::open_or_create(&place, "sallyport:dev").unwrap().jwks();
        assert_eq!(DevIssuer::open_or_create(&place, "sallyport:dev").unwrap().jwks(), first);
        assert_eq!(DevIssuer::open(&place, "sallyport:dev").unwrap().jwks(), first);
        let mode = fs::metadata(place.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        DevIssuer::open_or_create(folder.path(), "x").unwrap();
        fs::set_permissions(folder.path().join(KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let error = DevIssuer::open(folder.path(), "x").unwrap_err();
        assert!(matches!(error, DevIssuerError::File(StoreFileError::Permissions { mode: 0o644, .. })), "{error}");
    }

    #[test]
    fn creators_at_the_same_time_end_with_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let threads = (0..8).map(|_| {
            let path = folder.path().to_owned();
            std::thread::spawn(move || DevIssuer::open_or_create(&path, "x").unwrap().jwks())
        });
        let threads = threads.collect::<Vec<_>>();
        let mut keys = threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>();
        keys.dedup();
        assert_eq!(keys.len(), 1);
    }
}
