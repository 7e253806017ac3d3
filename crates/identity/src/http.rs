//! Fetches an issuer's documents: GET, no redirects, bounded in time and size.

use crate::limits::{DOCUMENT_MAX, FETCH_TIMEOUT};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
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

/// A client for issuers' documents. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
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
    pub(crate) async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let uri = checked(url)?;
        tokio::time::timeout(FETCH_TIMEOUT, self.get_unbounded(url, uri))
            .await
            .unwrap_or_else(|_| Err(FetchError::TimedOut(url.to_owned())))
    }

    async fn get_unbounded(&self, url: &str, uri: Uri) -> Result<Vec<u8>, FetchError> {
        let unreachable = |cause: String| FetchError::Unreachable { url: url.to_owned(), cause };
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("sallyport/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| unreachable(error.to_string()))?;
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

fn is_loopback(host: &str) -> bool {
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
