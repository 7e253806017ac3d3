//! One POST: a connection of its own, no redirects, bounded in time and size.

use crate::connect::Dialer;
use crate::error::{ConfigError, SendError};
use crate::limits::{ANSWER_MAX, RETRY_AFTER_MAX};
use crate::secret::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use proxy_core::Timestamp;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};

/// An address that messages are posted to. It may be a secret as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    url: Secret,
    host: String,
    port: u16,
    plain: bool,
}

impl Endpoint {
    /// Reads `https://HOST[:PORT]/…`, or `http://` if this host may be spoken to.
    pub(crate) fn new(url: &Secret, loopback: bool) -> Result<Self, ConfigError> {
        let uri: Uri = url.expose().parse().map_err(|_| ConfigError::Url)?;
        let authority = uri.authority().ok_or(ConfigError::Url)?;
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") if loopback => true,
            _ => return Err(ConfigError::Url),
        };
        // `Uri` leaves the port to be read; one that is none would become the default.
        let after_host = authority.as_str().get(authority.host().len()..).ok_or(ConfigError::Url)?;
        if authority.as_str().contains('@')
            || authority.host().is_empty()
            || (!after_host.is_empty() && authority.port_u16().is_none())
        {
            return Err(ConfigError::Url);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if plain { 80 } else { 443 });
        Ok(Self { url: url.clone(), host, port, plain })
    }

    /// Whether messages go to `host` at https' own port.
    pub(crate) fn is_at(&self, host: &str) -> bool {
        !self.plain && self.port == 443 && self.host.eq_ignore_ascii_case(host)
    }

    /// Posts a body; the answer's, if it is wanted. Otherwise the status is all that is read.
    pub(crate) async fn post(&self, dialer: &Dialer, post: Post) -> Result<Bytes, SendError> {
        let tcp = dialer.tcp(&self.host, self.port, self.plain).await?;
        if self.plain { self.exchange(tcp, post).await } else { self.exchange(dialer.tls(&self.host, tcp).await?, post).await }
    }

    async fn exchange<S>(&self, stream: S, post: Post) -> Result<Bytes, SendError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broken = |error: hyper::Error| {
            if error.is_parse() { SendError::Protocol } else { SendError::Unreachable(std::io::ErrorKind::ConnectionAborted) }
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(ANSWER_MAX);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let talk = async move {
            let answer = sender.send_request(self.request(post.headers, post.body)?).await.map_err(broken)?;
            let status = answer.status();
            if !status.is_success() {
                let retry_after = retry_after(answer.headers(), post.now);
                return Err(SendError::Status { status: status.as_u16(), retry_after });
            }
            if !post.wants_answer {
                return Ok(Bytes::new());
            }
            match Limited::new(answer.into_body(), ANSWER_MAX).collect().await {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(SendError::AnswerTooLong),
                Err(_) => Err(SendError::Protocol),
            }
        };
        tokio::pin!(talk, connection);
        // The connection is driven here, and closed with this function: nothing is left behind.
        tokio::select! {
            biased;
            done = &mut talk => done,
            ended = &mut connection => match ended {
                Ok(()) => talk.await,
                Err(error) => Err(broken(error)),
            },
        }
    }

    fn request(&self, headers: Vec<(HeaderName, HeaderValue)>, body: Vec<u8>) -> Result<Request<Full<Bytes>>, SendError> {
        let uri: Uri = self.url.expose().parse().map_err(|_| SendError::Compose)?;
        let host = uri.authority().map(|name| name.as_str().to_owned()).ok_or(SendError::Compose)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("sallyport/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).map_err(|_| SendError::Compose)
    }
}

/// What is posted.
#[derive(Debug, Default)]
pub(crate) struct Post {
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Vec<u8>,
    pub(crate) wants_answer: bool,
    pub(crate) now: Timestamp,
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
            at.saturating_sub(Duration::from_secs(u64::try_from(now.seconds()).ok()?))
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Whether a text can be the name of a host, or its address.
pub(crate) fn is_host(text: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = !text.is_empty() && text.len() <= 253 && text.bytes().all(name) && !text.starts_with(['-', '.']);
    is_name || text.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_alone_unless_this_host_is_allowed() {
        let new = |url: &str, loopback| Endpoint::new(&Secret::new(url), loopback);
        for good in ["https://h.example/x?y=z", "https://h.example:8443", "https://[2606:4700::1]/"] {
            assert!(new(good, false).is_ok(), "{good}");
        }
        for bad in [
            "http://h.example/",
            "http://127.0.0.1/",
            "ftp://h/",
            "/x",
            "",
            "https://u:p@h/",
            "https://h:99999/",
            "https://h:/",
            "file:///etc",
        ] {
            assert_eq!(new(bad, false).err(), Some(ConfigError::Url), "{bad}");
        }
        let local = new("http://[::1]:81/x", true).unwrap();
        assert_eq!((local.host.as_str(), local.port, local.plain), ("::1", 81, true));
        assert!(!format!("{:?}", new("https://h/token", false)).contains("token"));
    }

    #[test]
    fn a_wait_is_seconds_or_a_date_and_has_a_limit() {
        let wait = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&headers, Timestamp::from_seconds(784_111_700)).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(77));
        assert_eq!(wait("Sat, 06 Nov 1993 08:49:37 GMT"), Some(0));
        assert_eq!(wait("99999999999"), Some(RETRY_AFTER_MAX.as_secs()));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }
}
