//! HTTP: each batch is one POST. Acknowledged: any 2xx.

use super::batch::Batch;
use super::sink::{SinkError, Taken};
use crate::config::{Secret, Stream};
use crate::target::tls::outbound;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use identity::with_causes;

/// Longest answer that is read, in bytes (64 KiB).
const ANSWER_MAX: usize = 64 << 10;
/// How much of it is shown, in characters.
const WORDS_MAX: usize = 200;

/// A receiver of POST requests.
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    media_type: &'static str,
    headers: Vec<(HeaderName, Secret)>,
}

impl Http {
    pub(super) fn new(stream: &Stream, url: &str, media_type: &'static str) -> Result<Self, String> {
        let tls = outbound(stream.ca.as_deref(), url.starts_with("http://")).map_err(|error| error.to_string())?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let mut headers = Vec::new();
        for (name, secret) in &stream.headers {
            // A secret that cannot be read is better found now than at night.
            secret.get().map_err(|error| format!("headers.{name}: {error}"))?;
            headers.push((name.parse().map_err(|error| format!("headers.{name}: {error}"))?, secret.clone()));
        }
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), uri, media_type, headers })
    }

    /// The batch as lines.
    pub(super) async fn send_lines(&self, batch: &Batch) -> Result<Taken, SinkError> {
        self.post(batch.lines()).await?;
        Ok(Taken::default())
    }

    /// Sends a body; the beginning of the answer.
    ///
    /// # Errors
    /// [`SinkError`]: whatever it was, it can be sent again.
    pub(super) async fn post(&self, body: Vec<u8>) -> Result<Bytes, SinkError> {
        let mut request = Request::post(self.uri.clone()).header(CONTENT_TYPE, self.media_type).header(USER_AGENT, "sallyport");
        for (name, secret) in &self.headers {
            let value = secret.get().map_err(|error| SinkError::Secret(error.to_string()))?;
            // The error would hold the value.
            let mut value = HeaderValue::from_bytes(value.expose())
                .map_err(|_| SinkError::Secret(format!("the value of the header {name} holds what a header cannot")))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| SinkError::Unreachable(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| SinkError::Unreachable(with_causes(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map(|body| body.to_bytes());
        if status.is_success() {
            // It has the batch; what it says about it may be lost.
            return Ok(body.unwrap_or_default());
        }
        let words =
            String::from_utf8_lossy(&body.unwrap_or_default()).chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
        Err(SinkError::Refused { status: status.as_u16(), words })
    }
}
