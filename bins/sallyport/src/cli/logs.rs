//! Where the log is read from: the running gateway, or the files when none runs.

use super::remote::{block_on, encode};
use super::{Failure, load};
use audit_store::Reader;
use control_plane::client::{Client, ClientError};
use control_plane::log::{Filter, InvalidFilter, LogError};
use proxy_core::StoreError;
use std::path::Path;

/// The log.
pub(super) enum Source {
    /// Through the gateway: it records the reading.
    Gateway(Client),
    /// The files themselves, which nothing writes to now.
    Files(Box<Reader>),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::finding(error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::finding(error.to_string())
    }
}

impl From<InvalidFilter> for Failure {
    fn from(error: InvalidFilter) -> Self {
        Self::usage(error.to_string())
    }
}

/// Finds the log of this configuration's gateway.
pub(super) fn open(file: &Path) -> Result<Source, Failure> {
    let config = load(file)?;
    let client = Client::new(&config.admin_socket());
    match block_on(async { Ok(client.text("/healthz").await) })? {
        Ok(_) => Ok(Source::Gateway(client)),
        Err(ClientError::NotRunning(_)) => {
            let folder = config.audit_dir();
            let reader = audit_store::open_read_only_with(&folder, super::control::payload_keys(&config)?).map_err(|error| {
                Failure::finding(format!(
                    "no gateway is running here, and the log in {} cannot be read: {error}",
                    folder.display()
                ))
            })?;
            Ok(Source::Files(Box::new(reader)))
        }
        Err(other) => Err(other.into()),
    }
}

/// The filter as the query part of a path; empty or ending in `&`.
pub(super) fn query(filter: &Filter) -> String {
    let set = filter.conditions().map(|(name, value)| format!("{name}={}&", encode(value)));
    set.collect()
}
