//! `sallyport audit prove`: entries that somebody can check who has neither the log nor a network.

use crate::cli::logs::{self, Source};
use crate::cli::remote::{block_on, encode};
use crate::cli::{Failure, Output, load};
use crate::evidence::write_proof;
use audit_store::Reader;
use audit_store::prove::Proven;
use control_plane::api::{prove_all, proven_of};
use control_plane::log::find_session;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `audit prove`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An entry's number, or a session's id (or the start of it: at least 8 characters)
    #[arg(value_name = "ENTRY|SESSION")]
    what: String,
    /// The folder to write, which must not be there [default: proof-WHAT]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What is to be proven.
enum What<'a> {
    Entry(u64),
    Session(&'a str),
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    // A number of fewer digits is no session's: ids are longer, and begin with a time.
    let what = match args.what.parse::<u64>() {
        Ok(index) if args.what.len() < 8 || !args.what.starts_with('0') => What::Entry(index),
        Ok(_) | Err(_) => What::Session(&args.what),
    };
    let proven = match logs::open(file)? {
        Source::Gateway(client) => {
            let query = match what {
                What::Entry(index) => format!("entry={index}"),
                What::Session(id) => format!("session={}", encode(id)),
            };
            let answer = block_on(async { Ok(client.get(&format!("/api/v1/audit/prove?{query}")).await?) })?;
            let entries = answer["entries"].as_array().map(|list| list.iter().map(proven_of).collect::<Option<Vec<_>>>());
            entries.flatten().ok_or_else(|| Failure::finding("the gateway's answer is no proof"))?
        }
        Source::Files(reader) => prove_here(file, &reader, &what)?,
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("proof-{}", args.what)));
    write_proof(&out, &proven).map_err(|error| Failure::finding(format!("{}: {error}", out.display())))?;
    if output.json() {
        return output.value(&json!({ "folder": out, "entries": proven.len() }));
    }
    output.line(format!("{} entries with their proofs are in {}", proven.len(), out.display()));
    output.line(format!("anybody can check them: sallyport audit verify {} --key KEY", out.display()));
    Ok(())
}

fn prove_here(file: &Path, reader: &Reader, what: &What<'_>) -> Result<Vec<Proven>, Failure> {
    let config = load(file)?;
    let known = audit_store::notary::look(&config.control_dir()).map_err(|error| Failure::finding(error.to_string()))?;
    let signed = known.and_then(|(public, signed)| Some((public, signed?)));
    let (public, signed) = signed.ok_or_else(|| Failure::finding("the log was not signed yet: start the gateway once"))?;
    let indices = match what {
        What::Entry(index) => vec![*index],
        What::Session(id) => reader.session_indices(find_session(reader, id)?)?,
    };
    let proven = prove_all(reader, &indices, &public.entries, signed.size, &signed.note)?;
    proven.ok_or_else(|| {
        Failure::finding(format!("it is not among the first {} entries, which are signed: start the gateway once", signed.size))
    })
}
