//! The few requests that Vault and Azure need: JSON both ways, no redirects, bounded in time and size.

use super::FetchError;
use crate::target::tls::outbound;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use identity::with_causes;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Longest that one request may take (5 s): a start waits for it, and a reload.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes (1 MiB): a secret has 64 KiB at most, Vault answers with all values of a path.
const ANSWER_MAX: usize = 1 << 20;
/// How long a connection is kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of an error's text is shown, in characters.
const WORDS_MAX: usize = 300;

/// A client of one service. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What is asked.
pub(super) struct Call {
    request: hyper::http::request::Builder,
    url: String,
    body: Vec<u8>,
}

impl Call {
    pub(super) fn get(url: String) -> Self {
        Self::new(Method::GET, url)
    }

    fn new(method: Method, url: String) -> Self {
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("sallyport/", env!("CARGO_PKG_VERSION")));
        Self { request, url, body: Vec::new() }
    }

    pub(super) fn post_json(url: String, body: &Value) -> Self {
        let mut call = Self::new(Method::POST, url);
        call.request = call.request.header(CONTENT_TYPE, "application/json");
        call.body = body.to_string().into_bytes();
        call
    }

    pub(super) fn post_form(url: String, fields: &[(&str, &str)]) -> Self {
        let mut call = Self::new(Method::POST, url);
        call.request = call.request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let pairs = fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>();
        call.body = pairs.join("&").into_bytes();
        call
    }

    pub(super) fn header(mut self, name: &'static str, value: &[u8]) -> Result<Self, FetchError> {
        // The error would hold the value.
        let mut value = HeaderValue::from_bytes(value).map_err(|_| FetchError::Header(name))?;
        value.set_sensitive(true);
        self.request = self.request.header(HeaderName::from_static(name), value);
        Ok(self)
    }
}

/// A part of a URL, with everything escaped that could mean something in it.
pub(super) use identity::form_encoded as encode;

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Null where it is no JSON.
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What an error says of itself; never what a good answer says.
    pub(super) fn words(&self) -> String {
        let said = match (&self.body["errors"], &self.body["error"]) {
            // Vault's.
            (Value::Array(list), _) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
            // Key Vault's, and Entra's.
            (_, Value::Object(error)) => error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
            (_, Value::String(code)) => {
                format!("{code}: {}", self.body["error_description"].as_str().unwrap_or_default())
            }
            _ => String::new(),
        };
        said.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
    }
}

impl Http {
    /// `plain`: it is only ever asked without TLS, so that no CA need be there.
    pub(super) fn new(ca: Option<&Path>, plain: bool) -> Result<Self, FetchError> {
        let tls = outbound(ca, plain).map_err(|error| FetchError::Setup(error.to_string()))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(2)
            .build(connector);
        Ok(Self { client })
    }

    pub(super) async fn send(&self, call: Call) -> Result<Answer, FetchError> {
        let host = call.url.split('/').take(3).collect::<Vec<_>>().join("/");
        match tokio::time::timeout(TIMEOUT, self.send_unbounded(call, &host)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Unreachable(host, format!("it did not answer within {} seconds", TIMEOUT.as_secs()))),
        }
    }

    async fn send_unbounded(&self, call: Call, host: &str) -> Result<Answer, FetchError> {
        let unreachable = |why: String| FetchError::Unreachable(host.to_owned(), why);
        let request = call.request.body(Full::new(Bytes::from(call.body))).map_err(|error| unreachable(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| unreachable(with_causes(&error)))?;
        let status = answer.status().as_u16();
        let body = match Limited::new(answer.into_body(), ANSWER_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(FetchError::Answer(host.to_owned(), "it is longer than 1 MiB".to_owned()));
            }
            Err(error) => return Err(unreachable(error.to_string())),
        };
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_are_shown_in_the_services_words_and_good_answers_never_are() {
        let words = |body| Answer { status: 400, body }.words();
        assert_eq!(words(json!({ "errors": ["permission denied", "x\ny"] })), "permission denied; x y");
        assert_eq!(words(json!({ "error": { "code": "Forbidden", "message": "no" } })), "no");
        assert_eq!(
            words(json!({ "error": "invalid_client", "error_description": "AADSTS7000215" })),
            "invalid_client: AADSTS7000215"
        );
        assert_eq!(words(json!({ "data": { "password": "hunter2" }, "value": "hunter2" })), "");
    }

    #[test]
    fn what_means_something_in_a_form_is_escaped() {
        assert_eq!(encode("a b&c=é/"), "a%20b%26c%3D%C3%A9%2F");
    }
}
