//! The OpenID provider: where people are sent, and what comes back.

use super::attempts::Attempt;
use super::hash;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{Basic, FetchError, HttpClient, IssuerConfig, IssuerProblem, TokenError, Verifier, form_encoded};
use parking_lot::Mutex;
use proxy_core::{Principal, SecretBytes, Timestamp};
use proxy_io::clock::now;
use serde::Deserialize;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the provider's description is used before it is fetched again (1 h).
const METADATA_LASTS: Duration = Duration::from_secs(3_600);
/// Longest code of a provider, in bytes: Entra's are some 1,500.
const CODE_MAX: usize = 8 << 10;

/// The client's secret, as it is now, or why there is none.
pub type ClientSecret = Box<dyn Fn() -> Result<SecretBytes, String> + Send + Sync>;

/// Settings of the provider.
pub struct ProviderConfig {
    /// Who issues the ID tokens: its audience is the client's id, its purpose [`identity::Purpose::LogIn`].
    pub issuer: IssuerConfig,
    /// Before `/.well-known/openid-configuration`.
    pub discovery: String,
    /// The gateway as a client of the provider.
    pub client_id: String,
    /// `None`: a public client.
    pub client_secret: Option<ClientSecret>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The gateway's address: `https://HOST:PORT`.
    pub url: String,
}

/// Why nobody has logged in.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogInError {
    /// The provider does not answer, or not with what it must.
    #[error("the login provider cannot be asked: {0}")]
    Provider(#[from] FetchError),
    /// Its description lacks something, or is another's.
    #[error("the login provider's description is wrong: {0}")]
    Metadata(&'static str),
    /// The gateway's own secret is not there.
    #[error("the client's secret cannot be had: {0}")]
    Secret(String),
    /// The answer to the code is none.
    #[error("the login provider's answer to the code is wrong: {0}")]
    Answer(&'static str),
    /// The ID token is not good.
    #[error("the login provider's ID token is not accepted: {0}")]
    Token(#[from] TokenError),
}

/// What is used of the provider's description (OpenID Connect Discovery §3).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    pub(super) end_session_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    /// RFC 9207 §3.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
}

pub(super) struct Provider {
    config: ProviderConfig,
    verifier: Verifier,
    http: HttpClient,
    metadata: Mutex<Option<(Instant, Arc<Metadata>)>>,
}

/// Somebody has logged in.
pub(super) struct LoggedIn {
    pub(super) principal: Principal,
    pub(super) at: Timestamp,
    pub(super) id_token: String,
}

impl Provider {
    pub(super) fn new(config: ProviderConfig, http: HttpClient) -> Result<Self, IssuerProblem> {
        let verifier = Verifier::new(vec![config.issuer.clone()], http.clone())?;
        Ok(Self { config, verifier, http, metadata: Mutex::default() })
    }

    /// The provider's description, at most an hour old.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, LogInError> {
        if let Some((since, known)) = &*self.metadata.lock()
            && since.elapsed() < METADATA_LASTS
        {
            return Ok(Arc::clone(known));
        }
        let url = format!("{}/.well-known/openid-configuration", self.config.discovery.trim_end_matches('/'));
        let document = self.http.get(&url).await?;
        let metadata: Metadata = serde_json::from_slice(&document).map_err(|_| LogInError::Metadata("it is not one"))?;
        // OpenID Connect Discovery §4.3: another's description would send people, and their codes, elsewhere.
        if metadata.issuer.trim_end_matches('/') != self.config.discovery.trim_end_matches('/') {
            return Err(LogInError::Metadata("it is another issuer's"));
        }
        for address in [&metadata.authorization_endpoint, &metadata.token_endpoint] {
            if !identity::is_acceptable(address) {
                return Err(LogInError::Metadata("an address in it is not https"));
            }
        }
        let metadata = Arc::new(metadata);
        *self.metadata.lock() = Some((Instant::now(), Arc::clone(&metadata)));
        Ok(metadata)
    }

    fn callback(&self) -> String {
        format!("{}/login/callback", self.config.url)
    }

    /// Where the browser is sent (Core §3.1.2.1). `fresh`: whoever is logged in there is asked again.
    pub(super) async fn authorization(&self, state: &str, attempt: &Attempt, fresh: bool) -> Result<String, LogInError> {
        let metadata = self.metadata().await?;
        let scopes = ["openid"].into_iter().chain(self.config.scopes.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        let challenge = URL_SAFE_NO_PAD.encode(hash(&attempt.verifier));
        let callback = self.callback();
        let mut url = metadata.authorization_endpoint.clone();
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str("response_type=code&code_challenge_method=S256");
        let parts = [
            ("client_id", self.config.client_id.as_str()),
            ("redirect_uri", &callback),
            ("scope", &scopes),
            ("state", state),
            ("nonce", &attempt.nonce),
            ("code_challenge", &challenge),
        ];
        for (name, value) in parts {
            let _ = write!(url, "&{name}={}", form_encoded(value));
        }
        if fresh {
            url.push_str("&prompt=login&max_age=0");
        }
        Ok(url)
    }

    /// Whether the answer is this provider's (RFC 9207 §2.4): another one's code must not be shown to it.
    pub(super) async fn is_of(&self, iss: Option<&str>) -> Result<bool, LogInError> {
        let metadata = self.metadata().await?;
        Ok(match iss {
            Some(iss) => iss == metadata.issuer,
            None => !metadata.authorization_response_iss_parameter_supported,
        })
    }

    /// Shows the code (Core §3.1.3), and verifies the ID token that comes for it.
    pub(super) async fn redeem(&self, code: &str, attempt: &Attempt) -> Result<LoggedIn, LogInError> {
        if code.is_empty() || code.len() > CODE_MAX {
            return Err(LogInError::Answer("the code is empty or too long"));
        }
        let metadata = self.metadata().await?;
        let mut form = format!(
            "grant_type=authorization_code&code={}&redirect_uri={}&code_verifier={}",
            form_encoded(code),
            form_encoded(&self.callback()),
            form_encoded(&attempt.verifier)
        );
        let secret = self.config.client_secret.as_ref().map(|secret| secret()).transpose().map_err(LogInError::Secret)?;
        let methods = &metadata.token_endpoint_auth_methods_supported;
        // Left out, it is client_secret_basic (Discovery §3).
        let basic = methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic");
        let as_client = secret.as_ref().filter(|_| basic).map(|password| Basic { user: &self.config.client_id, password });
        if as_client.is_none() {
            let _ = write!(form, "&client_id={}", form_encoded(&self.config.client_id));
            if let Some(secret) = &secret {
                let text = std::str::from_utf8(secret.expose()).map_err(|_| LogInError::Secret("it is not text".to_owned()))?;
                let _ = write!(form, "&client_secret={}", form_encoded(text));
            }
        }
        let answer = self.http.post_form(&metadata.token_endpoint, form, as_client.as_ref()).await?;
        let answer: TokenAnswer = serde_json::from_slice(&answer).map_err(|_| LogInError::Answer("it has no ID token"))?;
        let at = now();
        let mut principal = self.verifier.verify(answer.id_token.as_bytes(), at).await?;
        // Core §3.1.3.7, 11: a token of another login.
        let nonce = principal.claims.get("nonce").map(String::as_bytes).unwrap_or_default();
        if aws_lc_rs::constant_time::verify_slices_are_equal(nonce, attempt.nonce.as_bytes()).is_err() {
            return Err(LogInError::Answer("the ID token is of another login"));
        }
        let since = principal.claims.get("auth_time").and_then(|seconds| seconds.parse::<i64>().ok());
        // What made this login only is no attribute of the person.
        for claim in ["nonce", "at_hash", "c_hash", "s_hash", "sid", "auth_time", "exp", "iat", "nbf"] {
            principal.claims.remove(claim);
        }
        let since = since.map_or(at, |seconds| Timestamp::from_seconds(seconds).min(at));
        Ok(LoggedIn { principal, at: since, id_token: answer.id_token })
    }

    /// Where the browser is sent to log out there as well (RP-Initiated Logout §2); `None`: the provider has no such place.
    pub(super) async fn end(&self, id_token: Option<&str>) -> Option<String> {
        let metadata = self.metadata().await.ok()?;
        let mut url = metadata.end_session_endpoint.clone().filter(|url| identity::is_acceptable(url))?;
        url.push(if url.contains('?') { '&' } else { '?' });
        let after = format!("{}/login/out", self.config.url);
        let _ =
            write!(url, "client_id={}&post_logout_redirect_uri={}", form_encoded(&self.config.client_id), form_encoded(&after));
        if let Some(token) = id_token {
            let _ = write!(url, "&id_token_hint={}", form_encoded(token));
        }
        Some(url)
    }
}
