//! Messages to mailboxes.
//!
//! TLS is required, from the start or by STARTTLS, unless the server is this host. A decision appears beneath its request:
//! `Message-ID` and `References` come from the request.

mod message;
mod smtp;

use crate::connect::Dialer;
use crate::error::{ConfigError, SendError};
use crate::http::is_host;
use crate::limits::RECIPIENTS_MAX;
use crate::notice::Notice;
use crate::secret::Secret;
use lettre::message::Mailbox;

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailTls {
    /// TLS from the start, port 465 (RFC 8314 §3.3).
    Implicit,
    /// By STARTTLS, port 587 (RFC 3207). A server that does not offer it gets nothing.
    StartTls,
    /// Not: to this host alone, where loopback is allowed.
    None,
}

/// An SMTP server, and whom it delivers to.
#[derive(Debug, Clone)]
pub struct EmailConfig {
    /// Host of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: EmailTls,
    /// What the gateway calls itself, a name of its host.
    pub hello: String,
    /// Name and password, if it wants them.
    pub login: Option<(String, Secret)>,
    /// Who sends: `Sallyport <sallyport@example.com>`.
    pub from: String,
    /// Who gets it; 1 to 50.
    pub to: Vec<String>,
}

/// The channel.
#[derive(Debug)]
pub(crate) struct Email {
    server: smtp::Server,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Email {
    pub(crate) fn new(config: &EmailConfig, loopback: bool) -> Result<Self, ConfigError> {
        if config.tls == EmailTls::None && !loopback {
            return Err(ConfigError::Plain);
        }
        for name in [&config.host, &config.hello] {
            if !is_host(name) {
                return Err(ConfigError::Host(name.chars().take(100).collect()));
            }
        }
        if config.to.is_empty() || config.to.len() > RECIPIENTS_MAX {
            return Err(ConfigError::Recipients);
        }
        let mailbox = |text: &String| {
            let refuse = || ConfigError::Mailbox(text.chars().take(100).collect());
            if text.chars().any(char::is_control) { Err(refuse()) } else { text.parse::<Mailbox>().map_err(|_| refuse()) }
        };
        let to = config.to.iter().map(mailbox).collect::<Result<_, _>>()?;
        Ok(Self { server: smtp::Server::new(config), from: mailbox(&config.from)?, to })
    }

    pub(crate) async fn send(&self, dialer: &Dialer, notice: &Notice) -> Result<(), SendError> {
        let message = message::compose(notice, &self.from, &self.to)?;
        self.server.send(dialer, &message).await
    }
}
