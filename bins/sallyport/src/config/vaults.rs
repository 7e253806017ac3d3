//! `[secrets]`, `[vault]`, `[keyvault]`: where secrets are that are not on this machine, and how the gateway logs in there.
//! Model and reading together.

use super::reader::{Section, Source};
use super::secret::{InvalidRef, Secret, SecretRef, is_host, is_key_path, is_name};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// `[secrets]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetching {
    /// How often a secret is fetched again.
    pub refresh: Duration,
    /// For how long its last value is used while it cannot be fetched.
    pub stale_max: Duration,
}

impl Default for Fetching {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(300), stale_max: Duration::from_secs(4 * 3_600) }
    }
}

/// `[vault]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultConfig {
    /// Its URL, without a slash at its end.
    pub address: String,
    /// Namespace, where it has any.
    pub namespace: Option<String>,
    /// CA bundle; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// How the gateway logs in.
    pub login: VaultLogin,
}

/// Logins to Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultLogin {
    /// A token that somebody else renews: an agent's sink, mostly.
    Token(Secret),
    /// AppRole.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The role's id.
        role_id: Secret,
        /// Its secret.
        secret_id: Secret,
    },
    /// A service account of Kubernetes.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role: String,
        /// The file with the service account's token.
        jwt: PathBuf,
    },
}

/// `[keyvault]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyVaultConfig {
    /// What stands after a vault's name.
    pub domain: String,
    /// What tokens are for.
    pub resource: String,
    /// Where tokens of workload identities and of client secrets come from.
    pub authority: String,
    /// Where tokens of managed identities come from.
    pub metadata: String,
    /// CA bundle; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// How the gateway logs in.
    pub login: KeyVaultLogin,
}

/// Logins to Entra ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyVaultLogin {
    /// The identity of the machine, app or pod.
    Managed {
        /// Which, of several.
        client_id: Option<String>,
    },
    /// A federated token in a file; what is not given comes from the environment that AKS's webhook sets.
    Workload {
        /// Tenant.
        tenant: Option<String>,
        /// Application.
        client_id: Option<String>,
        /// The file.
        token_file: Option<PathBuf>,
    },
    /// A client secret.
    Secret {
        /// Tenant.
        tenant: String,
        /// Application.
        client_id: String,
        /// The secret.
        secret: Secret,
    },
}

impl Default for KeyVaultConfig {
    fn default() -> Self {
        Self {
            domain: "vault.azure.net".to_owned(),
            resource: "https://vault.azure.net".to_owned(),
            authority: "https://login.microsoftonline.com".to_owned(),
            metadata: "http://169.254.169.254".to_owned(),
            ca: None,
            login: KeyVaultLogin::Managed { client_id: None },
        }
    }
}

/// What wraps the data keys of the log's payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrapSource {
    /// A secret on this machine, of at least 32 random bytes.
    Local(Secret),
    /// An RSA key of Azure Key Vault.
    KeyVault {
        /// The vault's name, or its host.
        vault: String,
        /// The key's name.
        name: String,
    },
    /// A key of Vault's transit engine.
    Transit {
        /// Where the engine is mounted.
        mount: String,
        /// The key's name.
        name: String,
    },
}

impl fmt::Display for WrapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(secret) => secret.reference().fmt(f),
            Self::KeyVault { vault, name } => write!(f, "keyvault:{vault}/keys/{name}"),
            Self::Transit { mount, name } => write!(f, "vault:{mount}/keys/{name}"),
        }
    }
}

impl WrapSource {
    /// Reads `env:NAME`, `file:PATH`, `keyvault:VAULT/keys/NAME` or `vault:MOUNT/keys/NAME`.
    ///
    /// # Errors
    /// [`InvalidRef`]; it never carries the text.
    pub fn parse(text: &str, folder: &std::path::Path) -> Result<Self, InvalidRef> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidRef::NotAReference)?;
        match scheme {
            "keyvault" => {
                let parts: Vec<&str> = rest.split('/').collect();
                match parts[..] {
                    [vault, "keys", name] if is_host(vault) && is_name(name) => {
                        Ok(Self::KeyVault { vault: vault.to_owned(), name: name.to_owned() })
                    }
                    _ => Err(InvalidRef::Form("keyvault:VAULT/keys/NAME")),
                }
            }
            "vault" => match rest.split_once("/keys/") {
                Some((mount, name)) if is_key_path(mount) && is_name(name) => {
                    Ok(Self::Transit { mount: mount.to_owned(), name: name.to_owned() })
                }
                _ => Err(InvalidRef::Form("vault:MOUNT/keys/NAME")),
            },
            _ => SecretRef::parse(text, folder).map(|reference| Self::Local(Secret::new(reference))),
        }
    }

    /// The secret on this machine that it is.
    #[must_use]
    pub fn local(&self) -> Option<&Secret> {
        match self {
            Self::Local(secret) => Some(secret),
            Self::KeyVault { .. } | Self::Transit { .. } => None,
        }
    }
}

pub(super) fn fetching(section: &Section<'_, '_>) -> Fetching {
    let mut fetching = Fetching::default();
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
    fetching.refresh = section.duration("refresh", second..=day).unwrap_or(fetching.refresh);
    fetching.stale_max = section.duration("stale_max", Duration::ZERO..=7 * day).unwrap_or(fetching.stale_max);
    fetching
}

pub(super) fn vault(section: &Section<'_, '_>, source: &Source<'_>) -> Option<VaultConfig> {
    let address = address(section, "address", true);
    let words = [("token", "token"), ("approle", "approle"), ("kubernetes", "kubernetes")];
    let method = section.one_of("auth", &words).unwrap_or("token");
    let belongs =
        [("token", "token"), ("role_id", "approle"), ("secret_id", "approle"), ("role", "kubernetes"), ("jwt", "kubernetes")];
    foreign(section, method, &belongs);
    let mount = section.string("mount").map(|mount| mount.trim_matches('/').to_owned());
    if mount.as_ref().is_some_and(|mount| !is_key_path(mount)) {
        section.problem("mount", "`mount` is not a path of Vault's", "for example: mount = \"approle\"");
    }
    let mount = mount.unwrap_or_else(|| method.to_owned());
    let login = match method {
        "approle" => VaultLogin::AppRole {
            mount,
            role_id: local(section, "role_id", source)?,
            secret_id: local(section, "secret_id", source)?,
        },
        "kubernetes" => VaultLogin::Kubernetes {
            mount,
            role: section.required("role")?,
            jwt: section.path("jwt").unwrap_or_else(|| PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token")),
        },
        _ => VaultLogin::Token(local(section, "token", source)?),
    };
    let namespace = section.string("namespace").filter(|namespace| {
        let good = is_key_path(namespace.trim_matches('/'));
        if !good {
            section.problem("namespace", "`namespace` is not a path of Vault's", "for example: namespace = \"team/prod\"");
        }
        good
    });
    Some(VaultConfig { address: address?, namespace, ca: section.path("ca"), login })
}

pub(super) fn keyvault(section: &Section<'_, '_>, source: &Source<'_>) -> Option<KeyVaultConfig> {
    let words = ["managed_identity", "workload_identity", "client_secret"].map(|word| (word, word));
    let method = section.one_of("auth", &words).unwrap_or("managed_identity");
    foreign(section, method, &[("client_secret", "client_secret"), ("token_file", "workload_identity")]);
    let mut config = KeyVaultConfig::default();
    if let Some(domain) = section.string("domain") {
        if !is_host(&domain) {
            section.problem("domain", "`domain` is not the end of a host's name", "for example: domain = \"vault.azure.cn\"");
        }
        config.resource = format!("https://{domain}");
        config.domain = domain;
    }
    config.authority = address(section, "authority", false).unwrap_or(config.authority);
    // Where it is on the link alone, http is all there is.
    config.metadata = address(section, "metadata", false).unwrap_or(config.metadata);
    config.ca = section.path("ca");
    config.login = match method {
        "client_secret" => KeyVaultLogin::Secret {
            tenant: section.required("tenant")?,
            client_id: section.required("client_id")?,
            secret: local(section, "client_secret", source)?,
        },
        "workload_identity" => KeyVaultLogin::Workload {
            tenant: section.string("tenant"),
            client_id: section.string("client_id"),
            token_file: section.path("token_file"),
        },
        _ => KeyVaultLogin::Managed { client_id: section.string("client_id") },
    };
    for name in ["tenant", "client_id"] {
        if section.string(name).is_some_and(|text| !is_name(&text.replace('.', "-"))) {
            section.problem(name, format!("`{name}` is not an id"), "an id, as the Azure portal shows it");
        }
    }
    Some(config)
}

/// Keys that belong to another method.
fn foreign(section: &Section<'_, '_>, method: &str, belongs: &[(&str, &str)]) {
    for (name, owner) in belongs.iter().filter(|(name, owner)| section.has(name) && *owner != method) {
        section.problem(name, format!("`{name}` is for auth = \"{owner}\" alone"), "remove it, or change `auth`");
    }
}

/// `https://HOST…`, or `http://` on this host, without a slash at the end.
fn address(section: &Section<'_, '_>, name: &str, must: bool) -> Option<String> {
    let text = if must { section.required(name) } else { section.string(name) }?;
    let text = text.trim_end_matches('/').to_owned();
    if super::streams::good_url(&text) {
        return Some(text);
    }
    let remedy = "write https://HOST:PORT; http:// on this host alone";
    section.problem(name, format!("`{name}` is not an address that may be asked: {text:?}"), remedy);
    None
}

/// A secret that must be on this machine: it is what opens the way to the others.
fn local(section: &Section<'_, '_>, name: &str, source: &Source<'_>) -> Option<Secret> {
    if !section.has(name) {
        section.missing(name);
    }
    let secret = super::parse::secret(section, name, source)?;
    if secret.reference().is_remote() {
        let remedy = "write \"env:NAME\" or \"file:PATH\": with it, the gateway gets at the others";
        section.problem(name, format!("`{name}` must be on this machine"), remedy);
        return None;
    }
    Some(secret)
}
