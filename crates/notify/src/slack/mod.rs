//! Messages to Slack, and what people press in them.
//!
//! Out: an incoming webhook, or `chat.postMessage` with a bot's token; [Block Kit](https://docs.slack.dev/block-kit/). In:
//! interactions, signed by Slack ([`Verifier`]). A button carries no authority: a name of Slack's is not an identity that the
//! gateway has verified. Whoever presses one is told to log in ([`Answerer`]).

mod inbound;
mod message;

use crate::connect::Dialer;
use crate::error::{ConfigError, SendError};
use crate::http::{Endpoint, Post};
use crate::notice::Notice;
use crate::secret::Secret;
use hyper::header::{AUTHORIZATION, HeaderValue};
pub use inbound::{Answerer, Interaction, InteractionError, Pressed, ResponseUrl, Verifier, parse_interaction};
pub(crate) use message::blocks;
use proxy_core::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// How Slack is spoken to.
#[derive(Debug, Clone)]
pub enum SlackDestination {
    /// An incoming webhook's address, which is a secret.
    Webhook(Secret),
    /// `chat.postMessage`.
    Bot {
        /// The bot's token, `xoxb-…`.
        token: Secret,
        /// Id of the channel, `C…`.
        channel: String,
        /// Where the API is, if not at `https://slack.com/api/`: `https://slack-gov.com/api/`.
        api: Option<String>,
    },
}

/// A channel of Slack's.
#[derive(Debug, Clone)]
pub struct SlackConfig {
    /// How it is spoken to.
    pub to: SlackDestination,
    /// Whether requests have buttons to approve and to deny. They need an address for interactions in the Slack app.
    pub buttons: bool,
}

/// The answer of Slack's API: errors have status 200.
#[derive(Deserialize)]
struct ApiAnswer {
    ok: bool,
    #[serde(default)]
    error: String,
}

/// The channel.
#[derive(Debug)]
pub(crate) struct Slack {
    to: Endpoint,
    bot: Option<(HeaderValue, String)>,
    buttons: bool,
}

impl Slack {
    pub(crate) fn new(config: &SlackConfig, loopback: bool) -> Result<Self, ConfigError> {
        let buttons = config.buttons;
        match &config.to {
            SlackDestination::Webhook(url) => Ok(Self { to: Endpoint::new(url, loopback)?, bot: None, buttons }),
            SlackDestination::Bot { token, channel, api } => {
                let api = api.as_deref().unwrap_or("https://slack.com/api/");
                let url = Secret::new(format!("{}/chat.postMessage", api.trim_end_matches('/')));
                let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
                let mut bearer = bearer.map_err(|_| ConfigError::Secret("the bot's token holds what a header cannot"))?;
                bearer.set_sensitive(true);
                Ok(Self { to: Endpoint::new(&url, loopback)?, bot: Some((bearer, channel.clone())), buttons })
            }
        }
    }

    pub(crate) async fn send(&self, dialer: &Dialer, notice: &Notice, now: Timestamp) -> Result<(), SendError> {
        let mut message = blocks(notice, self.buttons);
        let mut headers = Vec::new();
        if let Some((bearer, channel)) = &self.bot {
            headers.push((AUTHORIZATION, bearer.clone()));
            if let Value::Object(fields) = &mut message {
                fields.insert("channel".to_owned(), Value::from(channel.as_str()));
            }
        }
        let body = serde_json::to_vec(&message).map_err(|_| SendError::Compose)?;
        let wants_answer = self.bot.is_some();
        let answer = self.to.post(dialer, Post { headers, body, wants_answer, now }).await?;
        if !wants_answer {
            return Ok(());
        }
        let answer: ApiAnswer = serde_json::from_slice(&answer).map_err(|_| SendError::Protocol)?;
        if answer.ok {
            return Ok(());
        }
        Err(SendError::Slack(answer.error.chars().filter(|c| c.is_ascii_lowercase() || *c == '_').take(64).collect()))
    }
}
