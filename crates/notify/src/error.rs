//! Errors, by who is to blame. None holds a secret, an address that is one, or what a peer said.

use crate::guard::AddressClass;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a channel cannot be used as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Its name.
    #[error("a channel's name is 1 to 64 characters of a-z, 0-9, - and _; this one is {0:?}")]
    Name(String),
    /// Two have it.
    #[error("two channels are called {0}")]
    Twice(String),
    /// There are too many.
    #[error("there are more than {max} channels", max = crate::limits::CHANNELS_MAX)]
    TooMany,
    /// The address to which messages go. It may be a secret, and is not repeated.
    #[error("its address must be https://HOST[:PORT]/…, without a user (http:// on this host alone, where loopback is allowed)")]
    Url,
    /// One of its secrets.
    #[error("{0}")]
    Secret(&'static str),
    /// The file of CAs.
    #[error("no certificate can be read from {0}")]
    Ca(PathBuf),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls,
    /// An address of e-mail.
    #[error("{0:?} is not an address of e-mail")]
    Mailbox(String),
    /// How many get e-mail.
    #[error("an e-mail channel has 1 to {max} recipients", max = crate::limits::RECIPIENTS_MAX)]
    Recipients,
    /// The name of a host.
    #[error("{0:?} is not the name of a host")]
    Host(String),
    /// E-mail in the clear.
    #[error("e-mail without TLS is for a server on this host, where loopback is allowed")]
    Plain,
}

/// Why the notifier does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A channel.
    #[error("channel {channel}: {why}")]
    Channel {
        /// Which.
        channel: String,
        /// What is wrong.
        #[source]
        why: ConfigError,
    },
    /// The spool.
    #[error("the folder {path} cannot be used for undelivered messages: {why}", path = .path.display())]
    Spool {
        /// The folder.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The name leads to an address that this channel may not connect to.
    #[error("its host has a {0} address, which this channel may not connect to")]
    Address(AddressClass),
    /// The name leads nowhere.
    #[error("its host has no address")]
    NotResolved,
    /// No connection, or it broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(io::ErrorKind),
    /// Its certificate, or another failure of TLS.
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    /// It took too long.
    #[error("it did not answer in time")]
    TimedOut,
    /// What it said is not of the protocol.
    #[error("it does not speak the protocol")]
    Protocol,
    /// It said no. Redirects are not followed.
    #[error("it answered with status {status}")]
    Status {
        /// The status.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It said more than is read.
    #[error("its answer is longer than what is read")]
    AnswerTooLong,
    /// Slack's API said no.
    #[error("Slack answered {0:?}")]
    Slack(String),
    /// The SMTP server said no.
    #[error("it answered with SMTP code {0}")]
    Smtp(u16),
    /// The SMTP server has no TLS. Nothing was sent in the clear.
    #[error("it does not offer STARTTLS")]
    NoStartTls,
    /// The SMTP server offers no way to log in that we know.
    #[error("it offers no way to log in")]
    NoLogin,
    /// The message does not fit, however short its text is.
    #[error("the message is too large")]
    TooLarge,
    /// The message cannot be composed: a mistake of ours.
    #[error("the message cannot be composed")]
    Compose,
    /// It did not fit into the queue.
    #[error("too many messages of this channel were waiting")]
    QueueFull,
    /// It became too old.
    #[error("it was too old")]
    TooOld,
}

impl SendError {
    /// Whether another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotResolved | Self::Unreachable(_) | Self::Tls(_) | Self::TimedOut | Self::Protocol | Self::NoStartTls => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            // <https://docs.slack.dev/reference/methods/chat.postMessage#errors>
            Self::Slack(code) => {
                let later =
                    ["ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"];
                later.contains(&code.as_str())
            }
            // RFC 5321 §4.2.1: the first digit tells.
            Self::Smtp(code) => (400..500).contains(code),
            Self::Address(_) | Self::AnswerTooLong | Self::NoLogin | Self::TooLarge | Self::Compose => false,
            Self::QueueFull | Self::TooOld => false,
        }
    }

    /// When it wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Unreachable(error.kind()),
        }
    }
}
