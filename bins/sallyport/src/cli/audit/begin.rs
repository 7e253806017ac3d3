//! `sallyport audit continue` and `new-log`: an operator decides about a log that would fork.

use super::repair::no_gateway;
use crate::cli::control::{open_log, record};
use crate::cli::{Failure, Output, load};
use base64::Engine;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// `audit continue`, `audit new-log`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Why: it is recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) fn continue_here(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    no_gateway(&config)?;
    let (store, notary) = open_log(&config, true)?;
    let details = BTreeMap::from([("reason".to_owned(), args.reason.clone())]);
    record(&store, "log continued", notary.origin().to_owned(), details)?;
    if output.json() {
        return output.value(&json!({ "origin": notary.origin() }));
    }
    output.line(format!("the log {} goes on here; its next entry says so", notary.origin()));
    Ok(())
}

pub(super) fn new_log(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    no_gateway(&config)?;
    let (folder, control, export) = (config.audit_dir(), config.control_dir(), config.export_dir());
    let aside = audit_store::notary::set_aside(&folder, &control, &export);
    let aside = aside.map_err(|error| Failure::finding(error.to_string()))?;
    let (store, notary) = open_log(&config, false)?;
    let mut details =
        BTreeMap::from([("reason".to_owned(), args.reason.clone()), ("old log".to_owned(), aside.folder.display().to_string())]);
    if let Some(checkpoint) = &aside.checkpoint {
        details.insert("old origin".to_owned(), checkpoint.origin.clone());
        details.insert("old size".to_owned(), checkpoint.size.to_string());
        details.insert("old root".to_owned(), base64::engine::general_purpose::STANDARD.encode(checkpoint.root));
    }
    record(&store, "log begun", notary.origin().to_owned(), details)?;
    if output.json() {
        return output.value(&json!({ "origin": notary.origin(), "key": notary.verifier().to_string(), "old": aside.folder }));
    }
    output.line(format!("the log {} begins; the old one is in {}", notary.origin(), aside.folder.display()));
    output.line(format!("its key: {}", notary.verifier()));
    Ok(())
}
