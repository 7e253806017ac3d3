//! Azure Key Vault: values of secrets, and keys that wrap others. Tokens are Entra ID's.

use super::FetchError;
use super::http::{Answer, Call, Http, encode};
use super::vault::{local, text};
use crate::config::{KeyVaultConfig, KeyVaultLogin};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use proxy_core::SecretBytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Version of Key Vault's interface.
const API: &str = "api-version=7.4";
/// What wraps.
const ALGORITHM: &str = "RSA-OAEP-256";

/// Key Vaults, as the gateway logs in to them.
#[derive(Debug)]
pub(super) struct KeyVault {
    config: KeyVaultConfig,
    /// Hosts that the configuration names: tokens go nowhere else, whatever a file of wrapped keys says.
    hosts: Vec<String>,
    http: Http,
    /// For tokens: not with the CA of the vaults.
    tokens: Http,
    token: tokio::sync::Mutex<Option<(SecretBytes, Instant)>>,
}

impl KeyVault {
    pub(super) fn new(config: &KeyVaultConfig, hosts: Vec<String>) -> Result<Self, FetchError> {
        let source = match &config.login {
            KeyVaultLogin::Managed { .. } => &config.metadata,
            KeyVaultLogin::Workload { .. } | KeyVaultLogin::Secret { .. } => &config.authority,
        };
        let plain = source.starts_with("http://");
        let http = Http::new(config.ca.as_deref(), false)?;
        Ok(Self { config: config.clone(), hosts, http, tokens: Http::new(None, plain)?, token: tokio::sync::Mutex::default() })
    }

    /// The value of a secret.
    pub(super) async fn read(&self, vault: &str, name: &str, version: Option<&str>) -> Result<SecretBytes, FetchError> {
        let version = version.map(|version| format!("/{version}")).unwrap_or_default();
        let url = self.url(vault, &format!("secrets/{name}{version}"))?;
        let answer = self.call(|| Call::get(url.clone())).await?;
        let answer = good(answer, vault, "`Key Vault Secrets User`")?;
        match &answer.body["value"] {
            Value::String(text) if !text.is_empty() => Ok(SecretBytes::new(text.as_bytes().to_vec())),
            _ => Err(FetchError::NotText("value".to_owned())),
        }
    }

    /// `plain` wrapped by the newest version of a key: that version, and the wrapped key.
    pub(super) async fn wrap(&self, vault: &str, name: &str, plain: &SecretBytes) -> Result<(String, Vec<u8>), FetchError> {
        let url = self.url(vault, &format!("keys/{name}"))?;
        let answer = self.call(|| Call::get(url.clone())).await?;
        let answer = good(answer, vault, CRYPTO)?;
        let kid = answer.body["key"]["kid"].as_str().and_then(|kid| kid.rsplit('/').next()).unwrap_or_default().to_owned();
        if kid.is_empty() || !kid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(FetchError::Answer(vault.to_owned(), "it names no version of the key".to_owned()));
        }
        Ok((kid.clone(), self.operate(vault, name, &kid, "wrapkey", plain.expose()).await?))
    }

    /// The inverse.
    pub(super) async fn unwrap(&self, vault: &str, name: &str, version: &str, wrapped: &[u8]) -> Result<SecretBytes, FetchError> {
        self.operate(vault, name, version, "unwrapkey", wrapped).await.map(SecretBytes::new)
    }

    async fn operate(&self, vault: &str, name: &str, version: &str, what: &str, value: &[u8]) -> Result<Vec<u8>, FetchError> {
        let body = json!({ "alg": ALGORITHM, "value": BASE64URL.encode(value) });
        let url = self.url(vault, &format!("keys/{name}/{version}/{what}"))?;
        let answer = self.call(|| Call::post_json(url.clone(), &body)).await?;
        let answer = good(answer, vault, CRYPTO)?;
        let value = answer.body["value"].as_str().and_then(|text| BASE64URL.decode(text.trim_end_matches('=')).ok());
        value.ok_or_else(|| FetchError::Answer(vault.to_owned(), "there is no value in it".to_owned()))
    }

    fn url(&self, vault: &str, path: &str) -> Result<String, FetchError> {
        // A name alone is one of the domain's; what has a dot or a port is a host.
        if !vault.contains(['.', ':']) {
            return Ok(format!("https://{vault}.{}/{path}?{API}", self.config.domain));
        }
        let own = vault.strip_suffix(self.config.domain.as_str()).is_some_and(|name| name.ends_with('.'));
        if own || self.hosts.iter().any(|host| host == vault) {
            return Ok(format!("https://{vault}/{path}?{API}"));
        }
        let why = format!(
            "{vault} is no vault of {}, and the configuration does not name it: no token is sent there",
            self.config.domain
        );
        Err(FetchError::Setup(why))
    }

    async fn call(&self, call: impl Fn() -> Call) -> Result<Answer, FetchError> {
        let (token, fresh) = self.token().await?;
        let answer = self.ask(call(), &token).await?;
        if answer.status != 401 || fresh {
            return Ok(answer);
        }
        *self.token.lock().await = None;
        let (token, _) = self.token().await?;
        self.ask(call(), &token).await
    }

    async fn ask(&self, call: Call, token: &SecretBytes) -> Result<Answer, FetchError> {
        let bearer = SecretBytes::new([b"Bearer ", token.expose()].concat());
        self.http.send(call.header("authorization", bearer.expose())?).await
    }

    /// A token, and whether it was made just now.
    async fn token(&self) -> Result<(SecretBytes, bool), FetchError> {
        // One login at a time.
        let mut known = self.token.lock().await;
        if let Some((token, until)) = &*known
            && Instant::now() < *until
        {
            return Ok((token.clone(), false));
        }
        let (service, call) = self.login()?;
        let answer = self.tokens.send(call).await?;
        if !answer.is_good() {
            return Err(FetchError::Login { service, status: answer.status, words: answer.words() });
        }
        let odd = |what: &str| FetchError::Answer(service.clone(), what.to_owned());
        let token = answer.body["access_token"].as_str().ok_or_else(|| odd("there is no token in it"))?;
        let token = SecretBytes::new(token.as_bytes().to_vec());
        // Entra gives a number, the metadata service a text.
        let seconds = match &answer.body["expires_in"] {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let seconds = seconds.unwrap_or(600).min(86_400);
        *known = Some((token.clone(), Instant::now() + Duration::from_secs(seconds * 5 / 6)));
        Ok((token, true))
    }

    /// Whom to ask for a token, and how.
    fn login(&self) -> Result<(String, Call), FetchError> {
        let config = &self.config;
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let missing =
            |name: &str, key: &str| FetchError::Local(format!("set `{key}` in [keyvault], or {name} in the environment"));
        match &config.login {
            KeyVaultLogin::Managed { client_id } => {
                let chosen = client_id.as_ref().map(|id| format!("&client_id={id}")).unwrap_or_default();
                let resource = encode(&config.resource);
                // App Service, Functions and Container Apps have a service of their own.
                if let (Some(endpoint), Some(header)) = (env("IDENTITY_ENDPOINT"), env("IDENTITY_HEADER")) {
                    let url = format!("{endpoint}?api-version=2019-08-01&resource={resource}{chosen}");
                    return Ok((endpoint, Call::get(url).header("x-identity-header", header.as_bytes())?));
                }
                let path = "metadata/identity/oauth2/token?api-version=2018-02-01";
                let url = format!("{}/{path}&resource={resource}{chosen}", config.metadata);
                Ok(("the machine's metadata service".to_owned(), Call::get(url).header("metadata", b"true")?))
            }
            KeyVaultLogin::Workload { tenant, client_id, token_file } => {
                let tenant =
                    tenant.clone().or_else(|| env("AZURE_TENANT_ID")).ok_or_else(|| missing("AZURE_TENANT_ID", "tenant"))?;
                let client = client_id.clone().or_else(|| env("AZURE_CLIENT_ID"));
                let client = client.ok_or_else(|| missing("AZURE_CLIENT_ID", "client_id"))?;
                let file = token_file.clone().or_else(|| env("AZURE_FEDERATED_TOKEN_FILE").map(Into::into));
                let file = file.ok_or_else(|| missing("AZURE_FEDERATED_TOKEN_FILE", "token_file"))?;
                let assertion = std::fs::read_to_string(&file);
                let assertion = assertion.map_err(|error| FetchError::Local(format!("{}: {error}", file.display())))?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                self.entra(&tenant, &client, &[("client_assertion_type", kind), ("client_assertion", assertion.trim())])
            }
            KeyVaultLogin::Secret { tenant, client_id, secret } => {
                let secret = local(secret)?;
                self.entra(tenant, client_id, &[("client_secret", text(&secret)?)])
            }
        }
    }

    fn entra(&self, tenant: &str, client: &str, credential: &[(&str, &str)]) -> Result<(String, Call), FetchError> {
        let url = format!("{}/{}/oauth2/v2.0/token", self.config.authority, encode(tenant));
        let scope = format!("{}/.default", self.config.resource);
        let mut fields = vec![("grant_type", "client_credentials"), ("client_id", client), ("scope", &scope)];
        fields.extend_from_slice(credential);
        Ok((format!("Entra ID at {}", self.config.authority), Call::post_form(url, &fields)))
    }
}

/// The role that wrapping needs.
const CRYPTO: &str = "`Key Vault Crypto Service Encryption User`";

/// Says what is wrong with an answer, and what to do.
fn good(answer: Answer, vault: &str, role: &str) -> Result<Answer, FetchError> {
    if answer.is_good() {
        return Ok(answer);
    }
    let words = answer.words();
    Err(match answer.status {
        401 => FetchError::Forbidden(format!("Key Vault {vault} refuses the token (401 {words}): is its tenant another?")),
        403 => FetchError::Forbidden(format!(
            "Key Vault {vault} refuses it (403 {words}): give the gateway's identity the role {role} on it, or let its firewall pass"
        )),
        404 => FetchError::NotFound(format!("Key Vault {vault} has no such thing (404 {words}), or it is disabled or deleted")),
        status => FetchError::Status { service: format!("Key Vault {vault}"), status, words },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_to_vaults_of_the_domain_and_to_hosts_that_are_configured() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let made = KeyVault::new(&KeyVaultConfig::default(), vec!["kv.internal:8443".to_owned()]);
        // Without the system's CAs there is none to be made.
        let Ok(keyvault) = made else { return };
        let url = |vault: &str| keyvault.url(vault, "secrets/x").map(|url| url.split('/').nth(2).unwrap_or_default().to_owned());
        assert_eq!(url("prod").unwrap(), "prod.vault.azure.net");
        assert_eq!(url("prod.vault.azure.net").unwrap(), "prod.vault.azure.net");
        assert_eq!(url("kv.internal:8443").unwrap(), "kv.internal:8443");
        for bad in ["evil.example", "prodvault.azure.net", "kv.internal", "prod.vault.azure.net:444", "evil.example:443"] {
            assert!(matches!(url(bad), Err(FetchError::Setup(_))), "{bad}");
        }
    }
}
