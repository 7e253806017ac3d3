//! Secrets that are on other machines: HashiCorp Vault and Azure Key Vault.
//!
//! ```text
//!  start, reload ──▶ prepare ──▶ SecretServices ──▶ Vault, Key Vault ──▶ Secret::put
//!  every `refresh` ─▶ keep_fresh ────┘                               │
//!  a login ─────────────────────────────────────────▶ Secret::get ◀──┘   (never waits)
//! ```
//!
//! A value is held in memory and nowhere else. While it cannot be fetched, the last one is used for `stale_max`; the log and
//! a metric say so.

mod http;
mod keyvault;
mod refresh;
mod vault;

use crate::config::{Config, SecretRef};
use proxy_core::SecretBytes;
use std::sync::Arc;

pub use refresh::{Active, Refresher, prepare};

/// Longest secret, in bytes (64 KiB), as of those in files.
const SECRET_MAX: usize = 64 << 10;

/// Why a secret could not be fetched. Never with its value, nor a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The service is not configured.
    #[error("there is no [vault] in the configuration")]
    NoVault,
    /// What is trusted cannot be had.
    #[error("{0}")]
    Setup(String),
    /// What the gateway logs in with cannot be had.
    #[error("what the gateway logs in with: {0}")]
    Local(String),
    /// What the gateway logs in with cannot be sent.
    #[error("the value of the header {0} holds what a header cannot")]
    Header(&'static str),
    /// No answer.
    #[error("{0} could not be reached: {1}")]
    Unreachable(String, String),
    /// The login was refused.
    #[error("{service} refuses the gateway's login (status {status} {words})")]
    Login {
        /// Who.
        service: String,
        /// Status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// The gateway may not.
    #[error("{0}")]
    Forbidden(String),
    /// It is not there.
    #[error("{0}")]
    NotFound(String),
    /// Vault cannot decrypt anything yet.
    #[error("{0}")]
    Sealed(String),
    /// Another status.
    #[error("{service} answers with status {status} {words}")]
    Status {
        /// Who.
        service: String,
        /// Status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// The answer is not what it should be.
    #[error("the answer of {0} is odd: {1}")]
    Answer(String, String),
    /// It is there without that field.
    #[error("it has no field {0:?}")]
    NoField(String),
    /// The field is no text.
    #[error("its {0:?} is empty, or no text")]
    NotText(String),
    /// It is too large to be a secret.
    #[error("it is larger than 64 KiB")]
    TooLarge,
}

/// The services of a configuration.
#[derive(Debug)]
pub struct SecretServices {
    vault: Option<vault::Vault>,
    keyvault: Option<keyvault::KeyVault>,
}

impl SecretServices {
    /// Those that it names; nothing is asked yet.
    ///
    /// # Errors
    /// [`FetchError::Setup`].
    pub fn new(config: &Config) -> Result<Arc<Self>, FetchError> {
        let sources = || config.remote_secrets.iter().map(|secret| secret.reference());
        // Without a reference to it, the system's CAs need not be there.
        let wanted =
            sources().any(|reference| matches!(reference, SecretRef::KeyVault { .. })) || config.audit.payload_key.is_some();
        Ok(Arc::new(Self {
            vault: config.vault.as_ref().map(vault::Vault::new).transpose()?,
            keyvault: if wanted { keyvault::KeyVault::new(&config.keyvault).ok() } else { None },
        }))
    }

    fn vault(&self) -> Result<&vault::Vault, FetchError> {
        self.vault.as_ref().ok_or(FetchError::NoVault)
    }

    fn keyvault(&self) -> Result<&keyvault::KeyVault, FetchError> {
        let none =
            || FetchError::Setup("the CA certificates for Azure Key Vault cannot be had; set `ca` in [keyvault]".to_owned());
        self.keyvault.as_ref().ok_or_else(none)
    }

    /// Fetches a secret.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, reference: &SecretRef) -> Result<SecretBytes, FetchError> {
        let value = match reference {
            SecretRef::Vault { path, field } => self.vault()?.read(path, field).await?,
            SecretRef::KeyVault { vault, name, version } => self.keyvault()?.read(vault, name, version.as_deref()).await?,
            SecretRef::Env(_) | SecretRef::File(_) => return Err(FetchError::Local("it is on this machine".to_owned())),
        };
        if value.expose().len() > SECRET_MAX { Err(FetchError::TooLarge) } else { Ok(value) }
    }

    /// `plain` wrapped by the newest version of a key in Azure Key Vault: that version, and the wrapped key.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn wrap(&self, vault: &str, name: &str, plain: &SecretBytes) -> Result<(String, Vec<u8>), FetchError> {
        self.keyvault()?.wrap(vault, name, plain).await
    }

    /// The inverse.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn unwrap(&self, vault: &str, name: &str, version: &str, wrapped: &[u8]) -> Result<SecretBytes, FetchError> {
        self.keyvault()?.unwrap(vault, name, version, wrapped).await
    }

    /// `plain` encrypted by a key of Vault's transit engine.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn encrypt(&self, mount: &str, name: &str, plain: &SecretBytes) -> Result<String, FetchError> {
        self.vault()?.encrypt(mount, name, plain).await
    }

    /// The inverse.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn decrypt(&self, mount: &str, name: &str, wrapped: &str) -> Result<SecretBytes, FetchError> {
        self.vault()?.decrypt(mount, name, wrapped).await
    }
}
