//! Opening the log for writing: the store, and the notary that must agree to it.

use crate::cli::Failure;
use crate::cli::control::cannot_open;
use crate::config::{Config, Durability};
use audit_store::{AuditStore, Notary, NotaryError, Opening, Options};
use proxy_core::SecretBytes;
use proxy_io::clock::now;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

/// Opens the log of this configuration. `by` is who makes its key, if it has none yet.
///
/// # Errors
/// It cannot be opened, or must not be written to before an operator has decided: the message says what to do.
pub fn open(config: &Config, by: &str) -> Result<(Arc<AuditStore>, Notary), Failure> {
    start(config, by, false)
}

/// The same for a log that was copied, of which an operator says that this is the only copy.
///
/// # Errors
/// As [`open`].
pub fn open_moved(config: &Config, by: &str) -> Result<(Arc<AuditStore>, Notary), Failure> {
    start(config, by, true)
}

fn start(config: &Config, by: &str, moved: bool) -> Result<(Arc<AuditStore>, Notary), Failure> {
    for folder in [config.data_dir.clone(), config.control_dir()] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| Failure::finding(format!("{}: {error}", folder.display())))?;
    }
    let options = Options {
        durability: match config.audit.durability {
            Durability::Write => audit_store::Durability::Write,
            Durability::Sync => audit_store::Durability::Sync,
        },
        min_free_bytes: config.audit.min_free,
        ..Options::default()
    };
    let folder = config.audit_dir();
    let store = Arc::new(AuditStore::open(&folder, options).map_err(|error| cannot_open(&folder, &error))?);
    let folder = &config.control_dir();
    let opening = Opening { folder, sealing: sealing(config)?, by, now: now(), moved };
    let notary = Notary::open(Arc::clone(&store), opening).map_err(failure)?;
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
