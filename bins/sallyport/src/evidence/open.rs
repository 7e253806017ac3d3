//! Opening the log for writing: the store, and the notary that must agree to it.

use super::PayloadKeyFile;
use crate::cli::Failure;
use crate::cli::control::{cannot_open, private_folders};
use crate::config::{Config, Durability};
use audit_store::{AuditStore, Notary, NotaryError, Opening, Options};
use proxy_core::SecretBytes;
use proxy_io::clock::now;
use std::sync::Arc;

/// Opens the log of this configuration. `by` is who makes its key, if it has none yet; `keys` are what its payloads are sealed
/// with; `moved`: an operator says that of a log that was copied, this is the only copy.
///
/// # Errors
/// It cannot be opened, or must not be written to before an operator has decided: the message says what to do.
pub fn open(
    config: &Config,
    by: &str,
    keys: Option<&mut PayloadKeyFile>,
    moved: bool,
) -> Result<(Arc<AuditStore>, Notary), Failure> {
    private_folders(config)?;
    let options = Options {
        durability: match config.audit.durability {
            Durability::Write => audit_store::Durability::Write,
            Durability::Sync => audit_store::Durability::Sync,
        },
        min_free_bytes: config.audit.min_free,
        payload_keys: keys.as_ref().map(|keys| keys.keys()),
        ..Options::default()
    };
    let folder = config.audit_dir();
    let store = Arc::new(AuditStore::open(&folder, options).map_err(|error| cannot_open(&folder, &error))?);
    let folder = &config.control_dir();
    let opening = Opening { folder, sealing: sealing(config)?, by, now: now(), moved };
    let notary = Notary::open(Arc::clone(&store), opening).map_err(failure)?;
    if let Some(keys) = keys {
        let last = store.reader().last_payload_key().map_err(|error| Failure::finding(error.to_string()))?;
        if let Some(id) = last.filter(|id| !keys.keys().ids().contains(id)) {
            let file = super::payload_key_file(config);
            tracing::error!(
                key = %id,
                file = %file.display(),
                "payloads of the log are sealed with a key that the file has not: restore it from a backup, or they are lost"
            );
        }
        keys.record(&store)
            .map_err(|error| Failure::finding(format!("the log's payload keys could not be recorded: {error}")))?;
    }
    Ok((store, notary))
}

/// What the log's key is sealed with.
fn sealing(config: &Config) -> Result<Option<SecretBytes>, Failure> {
    let secret = config.audit.key.as_ref().map(crate::config::Secret::get).transpose();
    secret.map_err(|error| Failure::finding(format!("the secret of the log's key (audit.key): {error}")))
}

fn failure(error: NotaryError) -> Failure {
    Failure::finding(format!("the audit log is not written to: {error}"))
}
