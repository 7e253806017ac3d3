//! Fetches an issuer's documents: GET, no redirects, bounded in time and size.

use crate::limits::{DOCUMENT_MAX, FETCH_TIMEOUT};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use proxy_core::SecretBytes;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Why a document could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The address is not one that may be asked.
    #[error("{0:?} is not an https address (http is accepted on loopback alone)")]
    Address(String),
    /// No answer: not resolved, refused, TLS failed, or broken off.
    #[error("{url} could not be reached: {cause}")]
    Unreachable {
        /// Which document.
        url: String,
        /// The library's words.
        cause: String,
    },
    /// It took too long.
    #[error("{0} did not answer within {s} seconds", s = FETCH_TIMEOUT.as_secs())]
    TimedOut(String),
    /// It answered, but not with the document. Redirects are not followed.
    #[error("{url} answered with status {status}")]
    Status {
        /// Which document.
        url: String,
        /// The status.
        status: u16,
    },
    /// The document is longer than the limit.
    #[error("{0} is longer than {DOCUMENT_MAX} bytes")]
    TooLarge(String),
    /// The document is not what it should be.
    #[error("{url}: {problem}")]
    Document {
        /// Which document.
        url: String,
        /// What is wrong.
        problem: String,
    },
}

/// The trust anchors cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HttpSetupError {
    /// The additional CA file cannot be used.
    #[error("cannot use the CA file {path}: {problem}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The TLS library refused its settings.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// A client's name and secret, for HTTP's `Basic` scheme as OAuth has it (RFC 6749 §2.3.1: both form-encoded first).
pub struct Basic<'s> {
    /// The client's id.
    pub user: &'s str,
    /// Its secret.
    pub password: &'s SecretBytes,
}

impl Basic<'_> {
    /// The header; `None`: the secret is no text.
    fn header(&self) -> Option<HeaderValue> {
        let password = std::str::from_utf8(self.password.expose()).ok()?;
        let both = format!("{}:{}", form_encoded(self.user), form_encoded(password));
        let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64.encode(both))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Text as part of a form or a query: all but the unreserved characters is escaped (RFC 3986 §2.3).
#[must_use]
pub fn form_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A client for issuers' documents. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpClient {
    /// Trusts the system's CAs, and those of the PEM file `extra_ca`.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate.
    pub fn new(extra_ca: Option<&Path>) -> Result<Self, HttpSetupError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "a CA certificate of the system was left out");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = extra_ca {
            let refuse = |problem: String| HttpSetupError::CaFile { path: path.display().to_string(), problem };
            let read = CertificateDer::pem_file_iter(path).map_err(|error| refuse(error.to_string()))?;
            let certificates = read.collect::<Result<Vec<_>, _>>().map_err(|error| refuse(error.to_string()))?;
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(refuse("there is no certificate in it".to_owned()));
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(HttpSetupError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // No idle connections: a document an hour is not worth one.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client })
    }

    /// The document at `url`.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        self.ask(url, Method::GET, HeaderMap::new(), Bytes::new()).await
    }

    /// What is answered to a form (`application/x-www-form-urlencoded`), in the name of somebody.
    ///
    /// # Errors
    /// [`FetchError`]. What the answer says about a refusal is not read: it would be a stranger's text.
    pub async fn post_form(&self, url: &str, form: String, as_client: Option<&Basic<'_>>) -> Result<Vec<u8>, FetchError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(value) = as_client.and_then(Basic::header) {
            headers.insert(header::AUTHORIZATION, value);
        }
        self.ask(url, Method::POST, headers, form.into()).await
    }

    async fn ask(&self, url: &str, method: Method, headers: HeaderMap, body: Bytes) -> Result<Vec<u8>, FetchError> {
        let uri = checked(url)?;
        tokio::time::timeout(FETCH_TIMEOUT, self.ask_unbounded(url, (method, uri, headers), body))
            .await
            .unwrap_or_else(|_| Err(FetchError::TimedOut(url.to_owned())))
    }

    async fn ask_unbounded(&self, url: &str, head: (Method, Uri, HeaderMap), body: Bytes) -> Result<Vec<u8>, FetchError> {
        let unreachable = |cause: String| FetchError::Unreachable { url: url.to_owned(), cause };
        let (method, uri, headers) = head;
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("sallyport/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| unreachable(error.to_string()))?;
        request.headers_mut().extend(headers);
        let response = self.client.request(request).await.map_err(|error| unreachable(with_causes(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { url: url.to_owned(), status: response.status().as_u16() });
        }
        match Limited::new(response.into_body(), DOCUMENT_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(FetchError::TooLarge(url.to_owned())),
            Err(error) => Err(unreachable(error.to_string())),
        }
    }
}

/// An error with what caused it: the library's top-level message says little, `client error (Connect)`.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Whether an address may be asked, and people may be sent to it: https, or http on loopback.
#[must_use]
pub fn is_acceptable(url: &str) -> bool {
    checked(url).is_ok()
}

/// `url` parsed, if it is https, or http on loopback.
pub(crate) fn checked(url: &str) -> Result<Uri, FetchError> {
    let refuse = || FetchError::Address(url.chars().take(200).collect());
    let uri: Uri = url.parse().map_err(|_| refuse())?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refuse());
    }
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(uri),
        (Some("http"), Some(host)) if is_loopback(host) => Ok(uri),
        _ => Err(refuse()),
    }
}

/// Whether a host, without a port, is this machine by its name or address.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `url` is plain http (on loopback, since [`checked`] accepts no other).
pub(crate) fn is_plain(url: &str) -> bool {
    url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"))
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn https_anywhere_and_http_on_loopback_alone() {
        for good in ["https://login.example.com/x", "http://127.0.0.1:80/x", "http://[::1]:9/", "http://localhost/k"] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in [
            "http://login.example.com/",
            "http://127.0.0.1.example.com/",
            "ftp://127.0.0.1/",
            "/keys",
            "",
            "http://a@127.0.0.1/",
            "file:///etc/passwd",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
