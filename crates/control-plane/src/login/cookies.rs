//! The two cookies: of a session, and of a login that has begun (RFC 6265bis).

use axum::http::{HeaderMap, HeaderValue, header};
use std::time::Duration;

/// Longest value of ours, in bytes: 256 bits in base64url are 43.
const VALUE_MAX: usize = 64;

/// Their names and attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cookies {
    /// Whether they are sent within TLS alone, and by this host alone (`__Host-`). Without TLS only on loopback.
    pub(super) secure: bool,
}

impl Cookies {
    fn name(self, of: &str) -> String {
        if self.secure { format!("__Host-{of}") } else { of.to_owned() }
    }

    fn find(self, headers: &HeaderMap, of: &str) -> Option<String> {
        let name = self.name(of);
        let pairs = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut found = pairs.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = found.find(|(known, _)| *known == name)?;
        (!value.is_empty() && value.len() <= VALUE_MAX).then(|| value.to_owned())
    }

    /// The session's id.
    pub(super) fn session(self, headers: &HeaderMap) -> Option<String> {
        self.find(headers, "sallyport")
    }

    /// The secret of the login that this browser has begun.
    pub(super) fn attempt(self, headers: &HeaderMap) -> Option<String> {
        self.find(headers, "sallyport-login")
    }

    /// Sets the session's. `Lax`: whoever follows a link in a message is still logged in; a form of another site is not.
    pub(super) fn set_session(self, id: &str, lasts: Duration) -> Option<HeaderValue> {
        self.set("sallyport", id, lasts.as_secs())
    }

    /// Sets the one of a login that begins. `Lax`: the provider sends the browser back by a link.
    pub(super) fn set_attempt(self, secret: &str, lasts: Duration) -> Option<HeaderValue> {
        self.set("sallyport-login", secret, lasts.as_secs())
    }

    /// Takes both away.
    pub(super) fn clear(self) -> impl Iterator<Item = HeaderValue> {
        ["sallyport", "sallyport-login"].into_iter().filter_map(move |of| self.set(of, "", 0))
    }

    fn set(self, of: &str, value: &str, age: u64) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}", self.name(of));
        HeaderValue::from_str(&text).ok()
    }
}
