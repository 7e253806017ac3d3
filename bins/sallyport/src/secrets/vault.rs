//! HashiCorp Vault, and OpenBao: values of the key-value engine (version 2), and keys of the transit engine.

use super::FetchError;
use super::http::{Answer, Call, Http};
use crate::config::{Secret, VaultConfig, VaultLogin};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proxy_core::SecretBytes;
use serde_json::json;
use std::time::{Duration, Instant};

/// A Vault, as the gateway logs in to it.
#[derive(Debug)]
pub(super) struct Vault {
    config: VaultConfig,
    http: Http,
    /// What a login gave, and until when it is used.
    token: tokio::sync::Mutex<Option<(SecretBytes, Instant)>>,
}

impl Vault {
    pub(super) fn new(config: &VaultConfig) -> Result<Self, FetchError> {
        let http = Http::new(config.ca.as_deref(), config.address.starts_with("http://"))?;
        Ok(Self { config: config.clone(), http, token: tokio::sync::Mutex::default() })
    }

    /// The value of `field` at `MOUNT/data/PATH`.
    pub(super) async fn read(&self, path: &str, field: &str) -> Result<SecretBytes, FetchError> {
        let answer = self.call(|| Call::get(self.url(path))).await?;
        let answer = self.good(answer, "read", path)?;
        // A version that was deleted has no data.
        match answer.body["data"]["data"].get(field) {
            Some(serde_json::Value::String(text)) if !text.is_empty() => Ok(SecretBytes::new(text.as_bytes().to_vec())),
            Some(_) => Err(FetchError::NotText(field.to_owned())),
            None => Err(FetchError::NoField(field.to_owned())),
        }
    }

    /// `plain` encrypted by a key of the transit engine.
    pub(super) async fn encrypt(&self, mount: &str, name: &str, plain: &SecretBytes) -> Result<String, FetchError> {
        let path = format!("{mount}/encrypt/{name}");
        let body = json!({ "plaintext": BASE64.encode(plain.expose()) });
        let answer = self.call(|| Call::post_json(self.url(&path), &body)).await?;
        let answer = self.good(answer, "update", &path)?;
        let text = answer.body["data"]["ciphertext"].as_str().filter(|text| text.starts_with("vault:v"));
        text.map(str::to_owned).ok_or_else(|| self.odd("there is no ciphertext in it"))
    }

    /// The inverse.
    pub(super) async fn decrypt(&self, mount: &str, name: &str, wrapped: &str) -> Result<SecretBytes, FetchError> {
        let path = format!("{mount}/decrypt/{name}");
        let body = json!({ "ciphertext": wrapped });
        let answer = self.call(|| Call::post_json(self.url(&path), &body)).await?;
        let answer = self.good(answer, "update", &path)?;
        let plain = answer.body["data"]["plaintext"].as_str().and_then(|text| BASE64.decode(text).ok());
        plain.map(SecretBytes::new).ok_or_else(|| self.odd("there is no plaintext in it"))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.config.address)
    }

    fn odd(&self, what: &str) -> FetchError {
        FetchError::Answer(self.config.address.clone(), what.to_owned())
    }

    /// Asks with a token; once more with a new one where that was refused, since it may have been revoked.
    async fn call(&self, call: impl Fn() -> Call) -> Result<Answer, FetchError> {
        let (token, fresh) = self.token().await?;
        let answer = self.ask(call(), Some(&token)).await?;
        if answer.status != 403 || fresh || matches!(self.config.login, VaultLogin::Token(_)) {
            return Ok(answer);
        }
        *self.token.lock().await = None;
        let (token, _) = self.token().await?;
        self.ask(call(), Some(&token)).await
    }

    async fn ask(&self, mut call: Call, token: Option<&SecretBytes>) -> Result<Answer, FetchError> {
        call = call.header("x-vault-request", b"true")?;
        if let Some(namespace) = &self.config.namespace {
            call = call.header("x-vault-namespace", namespace.as_bytes())?;
        }
        if let Some(token) = token {
            call = call.header("x-vault-token", token.expose())?;
        }
        self.http.send(call).await
    }

    /// A token, and whether it was made just now.
    async fn token(&self) -> Result<(SecretBytes, bool), FetchError> {
        let (path, body) = match &self.config.login {
            VaultLogin::Token(token) => return Ok((local(token)?, true)),
            VaultLogin::AppRole { mount, role_id, secret_id } => {
                (mount, json!({ "role_id": text(&local(role_id)?)?, "secret_id": text(&local(secret_id)?)? }))
            }
            VaultLogin::Kubernetes { mount, role, jwt } => {
                let file = std::fs::read_to_string(jwt);
                let jwt = file.map_err(|error| FetchError::Local(format!("{}: {error}", jwt.display())))?;
                (mount, json!({ "role": role, "jwt": jwt.trim() }))
            }
        };
        // One login at a time.
        let mut known = self.token.lock().await;
        if let Some((token, until)) = &*known
            && Instant::now() < *until
        {
            return Ok((token.clone(), false));
        }
        let path = format!("auth/{path}/login");
        let answer = self.ask(Call::post_json(self.url(&path), &body), None).await?;
        if !answer.is_good() {
            self.sealed(&answer)?;
            let (status, words) = (answer.status, answer.words());
            return Err(FetchError::Login { service: format!("Vault at {}", self.config.address), status, words });
        }
        let token = answer.body["auth"]["client_token"].as_str().ok_or_else(|| self.odd("there is no token in it"))?;
        let token = SecretBytes::new(token.as_bytes().to_vec());
        // 0: it does not expire. Two thirds of its time: the rest is for being late.
        let seconds = answer.body["auth"]["lease_duration"].as_u64().unwrap_or(0);
        let lease = Duration::from_secs(if seconds == 0 { 3_600 } else { seconds.min(86_400) * 2 / 3 });
        *known = Some((token.clone(), Instant::now() + lease));
        Ok((token, true))
    }

    /// Says what is wrong with an answer, and what to do.
    fn good(&self, answer: Answer, capability: &'static str, path: &str) -> Result<Answer, FetchError> {
        if answer.is_good() {
            return Ok(answer);
        }
        self.sealed(&answer)?;
        let words = answer.words();
        Err(match answer.status {
            403 => FetchError::Forbidden(format!(
                "Vault refuses it (403 {words}): the token's policy needs `path \"{path}\" {{ capabilities = [\"{capability}\"] }}`"
            )),
            404 => FetchError::NotFound(format!(
                "there is nothing at {path} (404 {words}): it was deleted, or the mount is another, or of version 1"
            )),
            status => FetchError::Status { service: format!("Vault at {}", self.config.address), status, words },
        })
    }

    fn sealed(&self, answer: &Answer) -> Result<(), FetchError> {
        match answer.status {
            501 => Err(FetchError::Sealed(format!("Vault at {} is not initialised", self.config.address))),
            503 => Err(FetchError::Sealed(format!("Vault at {} is sealed, or not ready: unseal it", self.config.address))),
            _ => Ok(()),
        }
    }
}

/// A secret of this machine.
pub(super) fn local(secret: &Secret) -> Result<SecretBytes, FetchError> {
    secret.get().map_err(|error| FetchError::Local(error.to_string()))
}

pub(super) fn text(secret: &SecretBytes) -> Result<&str, FetchError> {
    std::str::from_utf8(secret.expose()).map_err(|_| FetchError::Local("a credential is not UTF-8 text".to_owned()))
}
