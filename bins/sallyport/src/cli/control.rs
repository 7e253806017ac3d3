//! Changes of the control store: through the running gateway, or in its files when none runs.

use super::Failure;
use super::remote::block_on;
use crate::admin::client::ClientError;
use crate::admin::local_caller;
use crate::config::Config;
use crate::evidence;
use audit_store::AuditStore;
use proxy_core::record::{Entry, Event};
use proxy_core::{Store, StoreError};
use proxy_io::clock::now;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Asks the gateway; `None`: none runs.
pub(super) fn ask(work: impl Future<Output = Result<Value, ClientError>>) -> Result<Option<Value>, Failure> {
    match block_on(async { Ok(work.await) })? {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::NotRunning(_)) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// Without a gateway, the command line is the one that writes to the log.
pub(super) fn open_store(config: &Config) -> Result<Arc<AuditStore>, Failure> {
    evidence::open(config, &local_caller()).map(|(store, _)| store)
}

/// Why the store cannot be opened, and what to do.
pub(crate) fn cannot_open(folder: &Path, error: &StoreError) -> Failure {
    let remedy = match error {
        StoreError::Corrupt(_) => "\n`sallyport audit repair` says what can be kept of it",
        StoreError::Io(_) | StoreError::DiskFull { .. } | StoreError::Closed => "",
    };
    Failure::finding(format!("the audit store in {} cannot be opened: {error}{remedy}", folder.display()))
}

/// Records an action of this user. It is on the disk when this returns.
pub(super) fn record(store: &AuditStore, action: &str, object: String, details: BTreeMap<String, String>) -> Result<(), Failure> {
    let event = Event::Administration { by: local_caller(), action: action.to_owned(), object, details };
    store.append(&[Entry { time: now(), session: None, event }])?;
    Ok(store.sync()?)
}
