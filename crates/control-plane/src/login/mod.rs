//! How people log in to the pages: OpenID Connect's authorization code flow (Core §3.1) with PKCE (RFC 7636), and a session in a
//! cookie afterwards.
//!
//! ```text
//!  GET /login ──▶ provider ──▶ GET /login/callback: state, browser, issuer, code, ID token, nonce ──▶ recorded ──▶ session
//! ```
//!
//! - A login that has begun is bound to the browser by a cookie of its own, is used once, and does not last ([`attempts`]).
//! - A session's id is new at each login, and is kept here as its hash alone ([`table`]).
//! - Whoever is revoked has no session any more, from the next request on.
//!
//! Where the gateway's own development issuer is configured (on loopback alone), one of its tokens logs in as well: a first run
//! needs no provider.

mod attempts;
mod cookies;
mod provider;
mod routes;
mod table;
#[cfg(test)]
mod tests;

use crate::api::ApiError;
use attempts::Attempts;
use axum::http::{HeaderMap, header};
use cookies::Cookies;
use identity::{HttpClient, IssuerProblem};
use parking_lot::Mutex;
use provider::Provider;
pub use provider::{ClientSecret, ProviderConfig};
use proxy_core::{Principal, Timestamp};
pub(crate) use routes::router;
use std::sync::Arc;
use std::time::Duration;
use table::Table;

/// Settings of the login.
pub struct LoginConfig {
    /// Where people are sent; `None`: nowhere, a token of the development issuer is all there is.
    pub provider: Option<ProviderConfig>,
    /// The gateway's address as a browser has it: `https://HOST:PORT`. `None`: whatever it is, on loopback.
    pub url: Option<String>,
    /// Whether a token of the development issuer logs in.
    pub dev_tokens: bool,
    /// How long a session lasts at most.
    pub lasts: Duration,
    /// How long it lasts without a request.
    pub idle: Duration,
    /// How long ago somebody may have shown who they are when they decide on a request; `None`: as long as the session lasts.
    pub fresh: Option<Duration>,
}

/// Whether a principal may be here still: it is not revoked.
pub type Stands = Box<dyn Fn(&Principal) -> bool + Send + Sync>;

/// Somebody with a session.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub principal: Arc<Principal>,
    /// What a form of theirs must bring along.
    pub csrf: String,
    /// When they showed who they are.
    pub logged_in: Timestamp,
}

/// The login, and who has.
pub struct Login {
    provider: Option<Provider>,
    url: Option<String>,
    dev_tokens: bool,
    fresh: Option<Duration>,
    cookies: Cookies,
    stands: Stands,
    attempts: Mutex<Attempts>,
    table: Mutex<Table>,
}

impl Login {
    /// As configured.
    ///
    /// # Errors
    /// The provider's settings cannot be used.
    pub fn new(config: LoginConfig, http: HttpClient, stands: Stands) -> Result<Arc<Self>, IssuerProblem> {
        let provider = config.provider.map(|provider| Provider::new(provider, http)).transpose()?;
        // On loopback alone, with or without TLS, there is no url.
        let secure = config.url.as_ref().is_some_and(|url| url.starts_with("https:"));
        Ok(Arc::new(Self {
            provider,
            dev_tokens: config.dev_tokens,
            fresh: config.fresh,
            cookies: Cookies { secure },
            url: config.url,
            stands,
            attempts: Mutex::default(),
            table: Mutex::new(Table::new(config.lasts, config.idle)),
        }))
    }

    /// Whose cookie this is, if it still stands. What a page asks by itself, to follow what happens, does not prolong it.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap) -> Option<Person> {
        let by_itself =
            headers.contains_key("hx-request") || headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream");
        let id = self.cookies.session(headers)?;
        let person = self.table.lock().find(&id, !by_itself)?;
        if (self.stands)(&person.principal) {
            return Some(person);
        }
        self.table.lock().remove(&id);
        None
    }

    /// Opens a session without a login: its cookie, and its token for forms.
    #[cfg(test)]
    pub(crate) fn open_for(&self, principal: Principal) -> (String, String) {
        let (id, csrf) = (random().unwrap(), random().unwrap());
        let (principal, logged_in) = (Arc::new(principal), proxy_io::clock::now());
        let opening = table::Opening { id: id.clone(), csrf: csrf.clone(), principal, logged_in, id_token: None, at_most: None };
        self.table.lock().open(opening);
        (format!("{}sallyport={id}", if self.cookies.secure { "__Host-" } else { "" }), csrf)
    }

    /// Whether somebody has shown who they are lately enough to decide on something.
    #[must_use]
    pub fn is_fresh(&self, person: &Person, now: Timestamp) -> bool {
        self.fresh.is_none_or(|fresh| now.micros_since(person.logged_in) <= fresh.as_micros().try_into().unwrap_or(u64::MAX))
    }

    /// Whether a request that changes something comes from our own pages: from our origin, and with the token that those alone
    /// know, in the header `X-CSRF-Token` or from a form.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`].
    pub fn is_ours(&self, headers: &HeaderMap, person: &Person, form: Option<&str>) -> Result<(), ApiError> {
        let given = form.or_else(|| headers.get("x-csrf-token").and_then(|value| value.to_str().ok())).unwrap_or_default();
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(given.as_bytes(), person.csrf.as_bytes()).is_ok();
        if self.is_from_us(headers) && same {
            return Ok(());
        }
        Err(ApiError::Forbidden(
            "this did not come from a page of the gateway; load the page again, and try once more".to_owned(),
        ))
    }

    /// Whether the browser says that one of our own pages sends this (the Fetch standard, `Origin` and `Sec-Fetch-Site`). A
    /// browser that says neither is not believed.
    fn is_from_us(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        match text(header::ORIGIN) {
            Some(origin) => match &self.url {
                Some(url) => origin == url,
                None => text(header::HOST).is_some_and(|host| names_loopback(host) && origin_host(origin) == Some(host)),
            },
            None => text(header::HeaderName::from_static("sec-fetch-site")) == Some("same-origin"),
        }
    }
}

/// The host and port of an origin.
fn origin_host(origin: &str) -> Option<&str> {
    origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))
}

/// Whether a `Host` names this machine itself: any other name could be somebody's who has it point here.
fn names_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    identity::is_loopback(name)
}

/// Where a login goes afterwards: a path of ours, whatever was asked for. Browsers read `//host`, `/\host` and a path with a
/// line break in it as another site's address.
fn local_path(asked: &str) -> &str {
    let good = asked.starts_with('/')
        && !asked.starts_with("//")
        && asked.len() <= 2_000
        && !asked.contains(['\\', '@'])
        && !asked.starts_with("/login")
        && asked.bytes().all(|byte| byte.is_ascii_graphic());
    if good { asked } else { "/" }
}

/// 256 random bits, base64url.
fn random() -> Result<String, ApiError> {
    use base64::Engine;
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ApiError::Failed("the system has no randomness".to_owned()))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// SHA-256.
fn hash(text: &str) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().try_into().unwrap_or([0; 32])
}
