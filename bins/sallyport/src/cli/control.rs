//! Changes of the control store: through the running gateway, or in its files when none runs.

use super::Failure;
use super::remote::block_on;
use crate::config::{Config, SecretRef};
use crate::evidence::{self, PayloadKeyError, PayloadKeyFile, payload_key_file, read_payload_keys};
use crate::secrets::{SecretServices, prepare};
use audit_store::{AuditStore, Notary, PayloadKeys};
use control_plane::api::local_caller;
use control_plane::client::ClientError;
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
    open_log(config, false).map(|(store, _)| store)
}

/// The same with who signs it; `moved`: an operator says that it is the only copy.
pub(super) fn open_log(config: &Config, moved: bool) -> Result<(Arc<AuditStore>, Notary), Failure> {
    let mut keys = writing_keys(config)?;
    evidence::open(config, &local_caller(), keys.as_mut(), moved)
}

/// What the log's payloads are sealed with, for whoever writes it; and the other secrets that this takes.
pub(super) fn writing_keys(config: &Config) -> Result<Option<PayloadKeyFile>, Failure> {
    private_folders(config)?;
    block_on(async {
        let services = services(config)?;
        // What of it is needed here says so itself.
        prepare(config, &services, None).await;
        PayloadKeyFile::open(config, &services, &local_caller()).await.map_err(locked)
    })
}

/// The folders that everything of the gateway's is in.
pub(crate) fn private_folders(config: &Config) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    for folder in [config.data_dir.clone(), config.control_dir()] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| Failure::finding(format!("{}: {error}", folder.display())))?;
    }
    Ok(())
}

/// The services that secrets and keys are at.
pub(crate) fn services(config: &Config) -> Result<Arc<SecretServices>, Failure> {
    SecretServices::new(config).map_err(|error| Failure::finding(format!("secrets cannot be fetched: {error}")))
}

/// The keys in the way of the log.
pub(crate) fn locked(error: PayloadKeyError) -> Failure {
    Failure::finding(format!("the keys of the log's payloads cannot be had (audit.payload_key): {error}"))
}

/// Fetches the secrets that are on other machines. What cannot be fetched is an error where it is used.
pub(super) fn fetch(config: &Config) -> Result<Vec<(SecretRef, String)>, Failure> {
    if config.remote_secrets.is_empty() {
        return Ok(Vec::new());
    }
    block_on(async { Ok(prepare(config, &*services(config)?, None).await) })
}

/// What opens the log's payloads for a reader. Without it, they are withheld: that is said.
pub(super) fn payload_keys(config: &Config) -> Result<Option<PayloadKeys>, Failure> {
    let path = payload_key_file(config);
    if !path.exists() {
        return Ok(None);
    }
    let read = block_on(async { Ok(read_payload_keys(&path, &*services(config)?).await) })?;
    Ok(read.unwrap_or_else(|error| {
        eprintln!("long statements and parameters are withheld: {error}");
        None
    }))
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
