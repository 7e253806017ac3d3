//! Interactions: somebody has pressed a button.

use super::message::{APPROVE, DENY, REVIEW};
use crate::config::Reach;
use crate::connect::{Dialer, Resolve};
use crate::error::{ConfigError, SendError};
use crate::http::{Endpoint, Post};
use crate::limits::{FIELD_MAX, INBOUND_MAX, SECRETS_MAX, SEND_TIMEOUT};
use crate::secret::Secret;
use crate::signing::{MacKey, Replays, VerifyError, header, timestamp};
use crate::text;
use hyper::HeaderMap;
use proxy_core::Timestamp;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

const SIGNATURE: &str = "x-slack-signature";
const TIMESTAMP: &str = "x-slack-request-timestamp";

/// Checks that Slack sent a request, once: <https://docs.slack.dev/authentication/verifying-requests-from-slack>.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<MacKey>,
    replays: Replays,
}

impl Verifier {
    /// Believes what is signed with one of the app's signing secrets; more than one while they are changed.
    ///
    /// # Errors
    /// [`ConfigError::Secret`].
    pub fn new(secrets: &[Secret]) -> Result<Self, ConfigError> {
        if secrets.is_empty() || secrets.len() > SECRETS_MAX {
            return Err(ConfigError::Secret("a Slack app has 1 to 5 signing secrets"));
        }
        // An empty one would let everybody sign.
        if secrets.iter().any(|secret| secret.expose().len() < 16) {
            return Err(ConfigError::Secret("a signing secret of Slack's has 32 characters"));
        }
        let keys = secrets.iter().map(|secret| MacKey::new(secret.expose().as_bytes())).collect();
        Ok(Self { keys, replays: Replays::default() })
    }

    /// Checks one request: `body` as it came, byte by byte.
    ///
    /// # Errors
    /// [`VerifyError`]: do not believe it.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), VerifyError> {
        let signature = header(headers, SIGNATURE)?;
        let timestamp = timestamp(header(headers, TIMESTAMP)?, TIMESTAMP, now)?;
        if body.len() > INBOUND_MAX {
            return Err(VerifyError::TooLong);
        }
        let mac = signature.strip_prefix("v0=").and_then(hex).ok_or(VerifyError::Malformed(SIGNATURE))?;
        let mut content = format!("v0:{timestamp}:").into_bytes();
        content.extend_from_slice(body);
        if !self.keys.iter().any(|key| key.fits(&content, &mac)) {
            return Err(VerifyError::Forged);
        }
        self.replays.first_time(&content, timestamp, now)
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// Which button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressed {
    /// The link to the page: there is nothing to answer.
    Review,
    /// Approve.
    Approve,
    /// Deny.
    Deny,
}

/// Where Slack takes an answer: `https://hooks.slack.com/…`, and nowhere else.
#[derive(Debug, Clone)]
pub struct ResponseUrl(Endpoint);

/// Somebody has pressed a button. It is a wish, not a decision: Slack's word for who it was is not an identity of the gateway's.
#[derive(Debug, Clone)]
pub struct Interaction {
    /// Slack's id of the user, `U…`.
    pub user: String,
    /// Their name there, which they choose themselves.
    pub user_name: String,
    /// Slack's id of the workspace, `T…`.
    pub team: String,
    /// Which button.
    pub pressed: Pressed,
    /// Id of the request that the message was about.
    pub request: String,
    /// Where an answer is taken; `None`: there is none, or it is not Slack's.
    pub response_url: Option<ResponseUrl>,
}

/// Why a request of Slack's is not an interaction of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InteractionError {
    /// It is not of the form.
    #[error("it is not an interaction of Slack's")]
    Malformed,
    /// It is one of another kind, or of another app's buttons.
    #[error("it is not about a button of ours")]
    NotOurs,
}

#[derive(Deserialize)]
struct Payload {
    r#type: String,
    user: User,
    #[serde(default)]
    team: Option<Team>,
    #[serde(default)]
    actions: Vec<Action>,
    #[serde(default)]
    response_url: Option<String>,
}

#[derive(Deserialize)]
struct User {
    id: String,
    #[serde(default, alias = "username")]
    name: String,
    #[serde(default)]
    team_id: Option<String>,
}

#[derive(Deserialize)]
struct Team {
    id: String,
}

#[derive(Deserialize)]
struct Action {
    action_id: String,
    #[serde(default)]
    value: String,
}

/// Reads an interaction, `payload=JSON` as a form (<https://docs.slack.dev/reference/interaction-payloads/block_actions-payload>).
/// Check it first: [`Verifier::verify`].
///
/// # Errors
/// [`InteractionError`].
pub fn parse_interaction(body: &[u8]) -> Result<Interaction, InteractionError> {
    if body.len() > INBOUND_MAX {
        return Err(InteractionError::Malformed);
    }
    let mut payloads = body.split(|byte| *byte == b'&').filter_map(|pair| pair.strip_prefix(b"payload="));
    let (Some(payload), None) = (payloads.next(), payloads.next()) else { return Err(InteractionError::Malformed) };
    let json = form_decoded(payload).ok_or(InteractionError::Malformed)?;
    let payload: Payload = serde_json::from_slice(&json).map_err(|_| InteractionError::Malformed)?;
    if payload.r#type != "block_actions" {
        return Err(InteractionError::NotOurs);
    }
    let [action] = payload.actions.as_slice() else { return Err(InteractionError::NotOurs) };
    let pressed = match action.action_id.as_str() {
        REVIEW => Pressed::Review,
        APPROVE => Pressed::Approve,
        DENY => Pressed::Deny,
        _ => return Err(InteractionError::NotOurs),
    };
    let team = payload.team.map(|team| team.id).or(payload.user.team_id).unwrap_or_default();
    Ok(Interaction {
        user: text::line(&payload.user.id, FIELD_MAX),
        user_name: text::line(&payload.user.name, FIELD_MAX),
        team: text::line(&team, FIELD_MAX),
        pressed,
        request: text::line(&action.value, FIELD_MAX),
        response_url: payload.response_url.and_then(|url| response_url(&url)),
    })
}

fn response_url(url: &str) -> Option<ResponseUrl> {
    let endpoint = Endpoint::new(&Secret::new(url), false).ok()?;
    endpoint.is_at("hooks.slack.com").then_some(ResponseUrl(endpoint))
}

/// `application/x-www-form-urlencoded`: `+` is a space, `%` begins two digits.
fn form_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                out.extend(hex(std::str::from_utf8(digits).ok()?)?);
                rest = after;
            }
            other => out.push(*other),
        }
    }
    Some(out)
}

/// Tells whoever pressed a button to log in; they alone see it. Slack takes that at the interaction's own address: the answer to
/// its request is an empty 200, within 3 seconds.
#[derive(Debug, Clone)]
pub struct Answerer {
    dialer: Dialer,
}

impl Answerer {
    /// Connects to public addresses alone.
    ///
    /// # Errors
    /// [`ConfigError::Tls`].
    pub fn new(resolver: Arc<dyn Resolve>) -> Result<Self, ConfigError> {
        Ok(Self { dialer: Dialer::new(Reach::default(), None, resolver)? })
    }

    /// The answer: where to log in. `link` is the gateway's own page, never one that came from Slack.
    #[must_use]
    pub fn answer(link: &str) -> serde_json::Value {
        let text = format!("A button decides nothing. Log in to decide: {link}");
        json!({
            "response_type": "ephemeral",
            "replace_original": false,
            "text": text,
            "blocks": [
                { "type": "section", "text": { "type": "plain_text", "text": "A button decides nothing: log in to decide.", "emoji": false } },
                { "type": "actions", "elements": [{
                    "type": "button",
                    "text": { "type": "plain_text", "text": "Log in to decide", "emoji": false },
                    "action_id": REVIEW,
                    "url": link,
                    "style": "primary",
                }] },
            ],
        })
    }

    /// Sends it.
    ///
    /// # Errors
    /// [`SendError`]: they see nothing; the link is in the message that they pressed, too.
    pub async fn send(&self, to: &ResponseUrl, link: &str, now: Timestamp) -> Result<(), SendError> {
        let body = serde_json::to_vec(&Self::answer(link)).map_err(|_| SendError::Compose)?;
        let post = to.0.post(&self.dialer, Post { headers: Vec::new(), body, wants_answer: false, now });
        tokio::time::timeout(SEND_TIMEOUT, post).await.map_err(|_| SendError::TimedOut)??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_slack_alone() {
        assert!(response_url("https://hooks.slack.com/actions/T1/2/x").is_some());
        for bad in [
            "http://hooks.slack.com/actions/T1",
            "https://hooks.slack.com.evil.example/x",
            "https://evil.example/hooks.slack.com",
            "https://hooks.slack.com@evil.example/",
            "https://evil.example#hooks.slack.com",
            "https://hooks.slack.com:8443/x",
            "https://169.254.169.254/",
            "",
        ] {
            assert!(response_url(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn forms_are_decoded_or_refused() {
        assert_eq!(form_decoded(b"a+b%20c%7B").as_deref(), Some(b"a b c{".as_slice()));
        for bad in ["%", "%7", "%zz", "%+1"] {
            assert_eq!(form_decoded(bad.as_bytes()), None, "{bad}");
        }
    }
}
