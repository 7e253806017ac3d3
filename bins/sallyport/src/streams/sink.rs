//! Where batches go, whatever is spoken there.

use super::batch::Batch;
use super::http::Http;
use super::otlp::Otlp;
use super::syslog::Syslog;
use crate::config::{Destination, Stream};

/// What a receiver did with a batch that it acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Taken {
    /// Entries that it threw away, and must not be sent again.
    pub(super) rejected: u64,
    /// Its words about them.
    pub(super) why: String,
}

/// Why a batch was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SinkError {
    /// Nobody answers, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// It answered, and did not take it.
    #[error("the receiver answered with status {status}: {words}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The beginning of its answer.
        words: String,
    },
    /// A secret cannot be read now.
    #[error("{0}")]
    Secret(String),
    /// It did not take the batch within the time that it has.
    #[error("the receiver did not take a batch within {0} seconds")]
    TimedOut(u64),
}

/// One of them.
pub(super) enum Sink {
    Syslog(Box<Syslog>),
    Http(Box<Http>),
    Otlp(Box<Otlp>),
}

impl Sink {
    /// Not connected yet.
    ///
    /// # Errors
    /// What is wrong with its settings, in a sentence.
    pub(super) fn new(stream: &Stream) -> Result<Self, String> {
        Ok(match &stream.to {
            Destination::Syslog { host, port, tls } => Self::Syslog(Box::new(Syslog::new(stream, host, *port, *tls)?)),
            Destination::Http { url } => Self::Http(Box::new(Http::new(stream, url, stream.format.media_type())?)),
            Destination::Otlp { url } => Self::Otlp(Box::new(Otlp::new(stream, url)?)),
        })
    }

    /// Makes sure that there is a connection. `true`: it is a new one, and what was written last to the one before may
    /// not have arrived.
    pub(super) async fn connect(&mut self) -> Result<bool, SinkError> {
        match self {
            Self::Syslog(syslog) => syslog.connect().await,
            // Each request has its own acknowledgement.
            Self::Http(_) | Self::Otlp(_) => Ok(false),
        }
    }

    /// Sends a batch, and waits until it is acknowledged.
    pub(super) async fn send(&mut self, batch: &Batch) -> Result<Taken, SinkError> {
        match self {
            Self::Syslog(syslog) => syslog.send(batch).await,
            Self::Http(http) => http.send_lines(batch).await,
            Self::Otlp(otlp) => otlp.send(batch).await,
        }
    }

    /// Bytes that may be lost on their way although they were written.
    pub(super) fn window(&self) -> usize {
        match self {
            Self::Syslog(_) => super::syslog::RESEND_BYTES,
            Self::Http(_) | Self::Otlp(_) => 0,
        }
    }

    /// Gives up the connection.
    pub(super) fn disconnect(&mut self) {
        if let Self::Syslog(syslog) = self {
            syslog.disconnect();
        }
    }
}
