//! `sallyport audit reindex`: what is derived from the log, made anew from it.

use super::progress::Progress;
use super::repair::no_gateway;
use crate::cli::control::{record, writing_keys};
use crate::cli::{Failure, Output, load};
use audit_store::{AuditStore, Options};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

pub(super) fn run(file: &Path, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    no_gateway(&config)?;
    let folder = config.audit_dir();
    // Opening makes a store where there is none.
    audit_store::open_read_only(&folder)?;
    let payload_keys = writing_keys(&config)?.map(|keys| keys.keys());
    let options = Options { min_free_bytes: config.audit.min_free, payload_keys, ..Options::default() };
    let store = AuditStore::open(&folder, options)?;
    let (began, entries) = (Instant::now(), store.health().entries);
    let mut bar = Progress::new(output, entries);
    store.reindex(|done, _| bar.show(done))?;
    drop(bar);
    let seconds = began.elapsed().as_secs_f64();
    record(&store, "index made anew", "the audit log".to_owned(), BTreeMap::from([("entries".to_owned(), entries.to_string())]))?;
    store.close()?;
    if output.json() {
        return output.value(&json!({ "entries": entries, "seconds": seconds }));
    }
    output.line(format!("the index of {entries} entries was made anew in {seconds:.1} s"));
    Ok(())
}
