//! How requests to object storage are sent: our own client in the place of the library's.
//!
//! - TLS by rustls with the roots that the configuration names. In the clear, nothing goes anywhere but to this host and to
//!   the addresses at which clouds tell a machine who it is.
//! - Redirects are answers like others: credentials go nowhere but where they were meant to go.
//! - No answer is longer than it can sensibly be, none is waited for without an end, and none says how much memory to set
//!   aside for it.

use super::place::{CHECKPOINT_MAX, PAYLOADS_MAX};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::TokioExecutor;
use identity::with_causes;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use rustls::ClientConfig;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Longest that a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest until an answer begins, after a request without a body …
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// … and so much longer for each MiB of it: 64 KiB a second.
const ANSWER_TIMEOUT_MIB: Duration = Duration::from_secs(16);
/// Longest silence within an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest answer that is not the content of an object (16 MiB): a page of a listing has 5,000 names.
const ANSWER_MAX: u64 = 16 << 20;

/// Makes the clients.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    client: Client<HttpsConnector<TcpConnector>, HttpRequestBody>,
}

impl Connector {
    pub(super) fn new(tls: ClientConfig) -> Self {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        Self { client: Client::builder(TokioExecutor::new()).build(https) }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri();
        if uri.scheme_str() != Some("https") && !uri.host().is_some_and(may_be_plain) {
            let host = uri.host().unwrap_or_default();
            return Err(failed(HttpErrorKind::Unknown, format!("{host} is not asked without TLS: name it by https://")));
        }
        let object = is_object(uri.path());
        let mib = u32::try_from(request.body().content_length() >> 20).unwrap_or(u32::MAX);
        let patience = ANSWER_TIMEOUT + ANSWER_TIMEOUT_MIB.saturating_mul(mib);
        let answer = tokio::time::timeout(patience, self.client.request(request)).await;
        let answer = answer.map_err(|_| failed(HttpErrorKind::Timeout, format!("no answer within {} s", patience.as_secs())))?;
        let (parts, body) = answer
            .map_err(|error| {
                let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
                failed(kind, with_causes(&error))
            })?
            .into_parts();
        let left = if !parts.status.is_success() {
            CHECKPOINT_MAX
        } else if object {
            PAYLOADS_MAX
        } else {
            ANSWER_MAX
        };
        let body = Bounded { body, left, silence: Box::pin(tokio::time::sleep(SILENCE_MAX)) };
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// Whether a path is that of an object which may be long: `place.rs` reads those with a limit of their own.
fn is_object(path: &str) -> bool {
    path.contains("/payload/") || path.contains("/tile/")
}

/// This host, and where clouds tell a machine who it is: link-local addresses, which nobody beyond the machine's own network
/// can answer for.
fn may_be_plain(host: &str) -> bool {
    let metadata = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => matches!(ip.segments(), [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x23 | 0x254]),
    };
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback() || metadata(ip))
}

fn failed(kind: HttpErrorKind, why: String) -> HttpError {
    HttpError::new(kind, io::Error::other(why))
}

/// An answer's body with its bounds. It gives no hint of its size: memory is set aside by what has come, not by what a server
/// promises.
struct Bounded {
    body: Incoming,
    left: u64,
    silence: Pin<Box<Sleep>>,
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let late = self.silence.as_mut().poll(context);
            let silent = || failed(HttpErrorKind::Timeout, format!("silent for {} s within an answer", SILENCE_MAX.as_secs()));
            return late.map(|()| Some(Err(silent())));
        };
        self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(|error| failed(HttpErrorKind::Interrupted, with_causes(&error)))?;
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(left) = self.left.checked_sub(length) else {
            return Poll::Ready(Some(Err(failed(HttpErrorKind::Decode, "the answer is too long".to_owned()))));
        };
        self.left = left;
        Poll::Ready(Some(Ok(frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_clear_to_this_host_and_to_metadata_alone() {
        for good in
            ["localhost", "127.0.0.1", "[::1]", "169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "[::ffff:127.0.0.1]"]
        {
            assert!(may_be_plain(good), "{good}");
        }
        for bad in ["minio", "10.0.0.1", "localhost.evil.example", "[fd00:ec2::1]", "169.255.0.1", ""] {
            assert!(!may_be_plain(bad), "{bad}");
        }
    }
}
