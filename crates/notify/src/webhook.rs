//! Messages to programs, by the [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
//! specification.
//!
//! ```text
//! POST /hook HTTP/1.1
//! webhook-id: msg_2f0c…            the same for each attempt: what was handled once need not be handled again
//! webhook-timestamp: 1795860000    of this attempt
//! webhook-signature: v1,BASE64 …   HMAC-SHA256 of `id.timestamp.body`, one for each secret
//!
//! {"type":"approval.requested","timestamp":"2026-11-28T10:00:00Z","data":{"request":"7k2m9x", …}}
//! ```
//!
//! A receiver answers with any 2xx within the time limit. 408, 425, 429 and 5xx are tried again; all else is final, redirects as
//! well. Receivers check what they get: [`Verifier`] is how, in Rust; the specification lists libraries for other languages.

use crate::connect::Dialer;
use crate::error::{ConfigError, SendError};
use crate::http::{Endpoint, Post};
use crate::limits::{INBOUND_MAX, SECRETS_MAX, SIGNATURES_MAX};
use crate::notice::{Group, Notice};
use crate::secret::Secret;
use crate::signing::{MacKey, Replays, VerifyError, header, timestamp};
use crate::text;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use proxy_core::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// A receiver of signed JSON.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Where to.
    pub url: Secret,
    /// `whsec_BASE64` of 24 to 64 bytes each; 1 to 5. Messages are signed by all of them: a receiver changes from the old one to
    /// the new one while both are here.
    pub secrets: Vec<Secret>,
}

/// The body.
#[derive(Serialize)]
struct Payload<'n> {
    r#type: &'static str,
    timestamp: String,
    data: Data<'n>,
}

#[derive(Serialize)]
struct Data<'n> {
    request: &'n str,
    requested_at: String,
    principal: &'n str,
    issuer: Option<&'n str>,
    application: Option<&'n str>,
    owner: Option<&'n str>,
    connection: &'n str,
    action: &'n str,
    groups: &'n [Group],
    decided_by: Option<&'n str>,
    granted: Option<bool>,
    reason: Option<&'n str>,
    expires_at: Option<String>,
    link: Option<&'n str>,
    statement_digest: Option<&'n str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<&'n str>,
}

fn payload(notice: &Notice) -> Result<Vec<u8>, SendError> {
    let data = Data {
        request: &notice.request,
        requested_at: text::time(notice.asked),
        principal: &notice.principal,
        issuer: notice.issuer.as_deref(),
        application: notice.application.as_deref(),
        owner: notice.owner.as_deref(),
        connection: &notice.connection,
        action: &notice.action,
        groups: &notice.groups,
        decided_by: notice.decided_by.as_deref(),
        granted: notice.granted,
        reason: notice.reason.as_deref(),
        expires_at: notice.expires.map(text::time),
        link: notice.page(),
        statement_digest: notice.digest.as_deref(),
        statement: notice.statement.as_deref(),
    };
    let payload = Payload { r#type: notice.kind.as_str(), timestamp: text::time(notice.time), data };
    serde_json::to_vec(&payload).map_err(|_| SendError::Compose)
}

fn keys(secrets: &[Secret]) -> Result<Vec<MacKey>, ConfigError> {
    if secrets.is_empty() || secrets.len() > SECRETS_MAX {
        return Err(ConfigError::Secret("a webhook has 1 to 5 secrets"));
    }
    secrets.iter().map(key).collect()
}

/// `whsec_` and base64 of 24 to 64 bytes ("Signature scheme" of the specification).
fn key(secret: &Secret) -> Result<MacKey, ConfigError> {
    let bytes = secret.expose().strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok()).map(Zeroizing::new);
    match bytes {
        Some(bytes) if (24..=64).contains(&bytes.len()) => Ok(MacKey::new(&bytes)),
        _ => Err(ConfigError::Secret("a webhook's secret is whsec_ and the base64 of 24 to 64 bytes")),
    }
}

fn content(id: &str, timestamp: i64, body: &[u8]) -> Vec<u8> {
    let mut content = format!("{id}.{timestamp}.").into_bytes();
    content.extend_from_slice(body);
    content
}

/// The channel.
#[derive(Debug)]
pub(crate) struct Webhook {
    to: Endpoint,
    keys: Vec<MacKey>,
}

impl Webhook {
    pub(crate) fn new(config: &WebhookConfig, loopback: bool) -> Result<Self, ConfigError> {
        Ok(Self { to: Endpoint::new(&config.url, loopback)?, keys: keys(&config.secrets)? })
    }

    pub(crate) async fn send(&self, dialer: &Dialer, notice: &Notice, now: Timestamp) -> Result<(), SendError> {
        let body = payload(notice)?;
        let headers = self.headers(&notice.id(), now.seconds(), &body)?;
        self.to.post(dialer, Post { headers, body, wants_answer: false, now }).await?;
        Ok(())
    }

    fn headers(&self, id: &str, timestamp: i64, body: &[u8]) -> Result<Vec<(HeaderName, HeaderValue)>, SendError> {
        let content = content(id, timestamp, body);
        let signatures = self.keys.iter().map(|key| format!("v1,{}", STANDARD.encode(key.sign(&content))));
        let signatures = signatures.collect::<Vec<_>>().join(" ");
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| SendError::Compose);
        Ok(vec![
            (HeaderName::from_static(ID), value(id)?),
            (HeaderName::from_static(TIMESTAMP), HeaderValue::from(timestamp)),
            (HeaderName::from_static(SIGNATURE), value(&signatures)?),
        ])
    }
}

/// Checks messages, as a receiver does.
///
/// It remembers messages for as long as they would be believed, in memory: a receiver that restarts, or that runs on several
/// hosts, should keep the ids of what it has handled.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<MacKey>,
    replays: Replays,
}

impl Verifier {
    /// Believes what is signed by one of `secrets`.
    ///
    /// # Errors
    /// [`ConfigError::Secret`].
    pub fn new(secrets: &[Secret]) -> Result<Self, ConfigError> {
        Ok(Self { keys: keys(secrets)?, replays: Replays::default() })
    }

    /// Checks one message: `body` as it came, byte by byte. Its id: what was handled under it once need not be handled again.
    /// An attempt after one that failed has the same id and another timestamp, and is no replay.
    ///
    /// # Errors
    /// [`VerifyError`]: do not believe it.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<String, VerifyError> {
        let (id, signatures) = (header(headers, ID)?, header(headers, SIGNATURE)?);
        let timestamp = timestamp(header(headers, TIMESTAMP)?, TIMESTAMP, now)?;
        // A full stop would let parts of the id be taken for the timestamp.
        if id.is_empty() || id.contains('.') {
            return Err(VerifyError::Malformed(ID));
        }
        if body.len() > INBOUND_MAX {
            return Err(VerifyError::TooLong);
        }
        let content = content(id, timestamp, body);
        let macs = signatures.split(' ').take(SIGNATURES_MAX).filter_map(|text| STANDARD.decode(text.strip_prefix("v1,")?).ok());
        let macs: Vec<_> = macs.collect();
        if !self.keys.iter().any(|key| macs.iter().any(|mac| key.fits(&content, mac))) {
            return Err(VerifyError::Forged);
        }
        self.replays.first_time(&content, timestamp, now)?;
        Ok(id.to_owned())
    }
}
