//! `sallyport audit repair`: a log that cannot be opened, because a power loss has damaged its end.

use crate::cli::control::{record, writing_keys};
use crate::cli::remote::block_on;
use crate::cli::{Failure, Output, load};
use crate::config::Config;
use audit_store::{Damage, Options};
use control_plane::client::{Client, ClientError};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) fn run(file: &Path, drop_damaged_tail: bool, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    no_gateway(&config)?;
    let folder = config.audit_dir();
    let options = Options { min_free_bytes: config.audit.min_free, ..Options::default() };
    let Some(damage) = audit_store::damage(&folder, &options)? else {
        if output.json() {
            return output.value(&json!({ "damaged": false }));
        }
        output.line("the log is not damaged; `sallyport audit verify` reads it");
        return Ok(());
    };
    if !drop_damaged_tail {
        report(&damage, None, output)?;
        return Err(Failure::finding(""));
    }
    // What is written is sealed, if anything is.
    let payload_keys = writing_keys(&config)?.map(|keys| keys.keys());
    let (store, aside) = audit_store::repair(&folder, Options { payload_keys, ..options })?;
    let details = BTreeMap::from([
        ("damage".to_owned(), damage.what.clone()),
        ("kept".to_owned(), format!("{} entries", damage.kept)),
        ("dropped".to_owned(), format!("{} entries, and what cannot be recognised", damage.dropped)),
        ("set aside".to_owned(), aside.display().to_string()),
    ]);
    record(&store, "log repaired", "the audit log".to_owned(), details)?;
    store.close()?;
    report(&damage, Some(aside), output)
}

/// A running gateway has the log open: there is nothing to repair, and it must not be touched.
pub(super) fn no_gateway(config: &Config) -> Result<(), Failure> {
    let client = Client::new(&config.admin_socket());
    match block_on(async { Ok(client.text("/healthz").await) })? {
        Err(ClientError::NotRunning(_)) => Ok(()),
        Ok(_) => Err(Failure::usage("a gateway is running here and has the log open: stop it first")),
        Err(other) => Err(other.into()),
    }
}

fn report(damage: &Damage, aside: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    if output.json() {
        return output.value(&json!({
            "damaged": true,
            "damage": damage.what,
            "kept": damage.kept,
            "dropped": damage.dropped,
            "set_aside": aside,
        }));
    }
    let Damage { what, kept, dropped } = damage;
    match aside {
        Some(aside) => {
            output.line(format!("the log has the {kept} entries before the damage, and one that records this"));
            output.line(format!("the damaged log is in {}; {dropped} entries after the damage are in it alone", aside.display()));
        }
        None => {
            output.line(format!("the log is damaged: {what}"));
            output.line(format!("{kept} entries before the damage can be kept; {dropped} after it were recognised"));
            output.line("--drop-damaged-tail sets the damaged log aside and goes on with those that can be kept");
        }
    }
    Ok(())
}
