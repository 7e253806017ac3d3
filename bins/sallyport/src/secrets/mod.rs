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

use crate::config::{Config, KeyVaultConfig, SecretRef, WrapSource};
use proxy_core::SecretBytes;
use std::sync::{Arc, OnceLock};

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
    /// Made when it is asked: most gateways have none, and the system's CAs take a while to read.
    keyvault: OnceLock<Result<keyvault::KeyVault, FetchError>>,
    /// With the vaults that the configuration names.
    keyvault_config: (KeyVaultConfig, Vec<String>),
}

impl SecretServices {
    /// Those that it names; nothing is asked yet.
    ///
    /// # Errors
    /// [`FetchError::Setup`].
    pub fn new(config: &Config) -> Result<Arc<Self>, FetchError> {
        let secrets = config.remote_secrets.iter().filter_map(|secret| match secret.reference() {
            SecretRef::KeyVault { vault, .. } => Some(vault.clone()),
            SecretRef::Vault { .. } | SecretRef::Env(_) | SecretRef::File(_) => None,
        });
        let mut vaults: Vec<String> = secrets.collect();
        if let Some(WrapSource::KeyVault { vault, .. }) = &config.audit.payload_key {
            vaults.push(vault.clone());
        }
        Ok(Arc::new(Self {
            vault: config.vault.as_ref().map(vault::Vault::new).transpose()?,
            keyvault: OnceLock::new(),
            keyvault_config: (config.keyvault.clone(), vaults),
        }))
    }

    fn vault(&self) -> Result<&vault::Vault, FetchError> {
        self.vault.as_ref().ok_or(FetchError::NoVault)
    }

    fn keyvault(&self) -> Result<&keyvault::KeyVault, FetchError> {
        let (config, vaults) = &self.keyvault_config;
        self.keyvault.get_or_init(|| keyvault::KeyVault::new(config, vaults.clone())).as_ref().map_err(Clone::clone)
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
