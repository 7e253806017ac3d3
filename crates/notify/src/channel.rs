//! A channel: whatever it is, it takes a notice.

use crate::config::{ChannelConfig, Destination};
use crate::connect::{Dialer, Resolve};
use crate::email::Email;
use crate::error::{ConfigError, SendError};
use crate::notice::Notice;
use crate::slack::Slack;
use crate::teams::Teams;
use crate::webhook::Webhook;
use proxy_core::Timestamp;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
enum To {
    Webhook(Webhook),
    Slack(Slack),
    Teams(Teams),
    Email(Email),
}

#[derive(Debug)]
pub(crate) struct Channel {
    dialer: Dialer,
    to: To,
}

impl Channel {
    pub(crate) fn new(config: &ChannelConfig, resolver: Arc<dyn Resolve>) -> Result<Self, ConfigError> {
        let dialer = Dialer::new(config.reach, config.ca.as_deref(), resolver)?;
        let loopback = dialer.reach().loopback;
        let to = match &config.to {
            Destination::Webhook(webhook) => To::Webhook(Webhook::new(webhook, loopback)?),
            Destination::Slack(slack) => To::Slack(Slack::new(slack, loopback)?),
            Destination::Teams(teams) => To::Teams(Teams::new(teams, loopback)?),
            Destination::Email(email) => To::Email(Email::new(email, loopback)?),
        };
        Ok(Self { dialer, to })
    }

    /// One attempt.
    pub(crate) async fn send(&self, notice: &Notice, now: Timestamp, timeout: Duration) -> Result<(), SendError> {
        let attempt = async {
            match &self.to {
                To::Webhook(webhook) => webhook.send(&self.dialer, notice, now).await,
                To::Slack(slack) => slack.send(&self.dialer, notice, now).await,
                To::Teams(teams) => teams.send(&self.dialer, notice, now).await,
                To::Email(email) => email.send(&self.dialer, notice).await,
            }
        };
        tokio::time::timeout(timeout, attempt).await.unwrap_or(Err(SendError::TimedOut))
    }
}
