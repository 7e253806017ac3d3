//! `sallyport audit key` and `checkpoint`: what an auditor keeps elsewhere.

use crate::cli::control::{ask, locked, open_log, services, writing_keys};
use crate::cli::remote::block_on;
use crate::cli::{Failure, Output, load};
use crate::evidence::{self, PayloadKeyError, change_payload_keys as change};
use clap::Subcommand;
use control_plane::api::local_caller;
use proxy_io::clock::now;
use serde_json::{Value, json};
use std::path::Path;

/// `audit key`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new key, which the present one endorses; whoever knows that one goes on verifying
    Rotate {
        /// Not the key that signs: a new key for the payloads (audit.payload_key). Older ones go on opening what they sealed
        #[arg(long)]
        payload: bool,
    },
    /// Wrap the keys of the payloads by what audit.payload_key names now; what had wrapped them is not needed any more
    ///
    /// Both must be reachable while it runs. Payloads are not touched.
    Rewrap,
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    match args.action {
        None => show(file, output),
        Some(Action::Rotate { payload: false }) => rotate(file, output),
        Some(Action::Rotate { payload: true }) => payload(file, false, output),
        Some(Action::Rewrap) => payload(file, true, output),
    }
}

fn show(file: &Path, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let known = audit_store::notary::look(&config.control_dir()).map_err(|error| Failure::finding(error.to_string()))?;
    let (public, _) = known.ok_or_else(|| Failure::finding("the log has no key yet: start the gateway once"))?;
    let keys: Vec<String> = public.verifiers.iter().map(ToString::to_string).collect();
    if output.json() {
        return output.value(&json!({ "origin": public.origin, "keys": keys }));
    }
    // The one that signs now, alone on a line, so that it can be taken by a script.
    keys.first().into_iter().for_each(|key| output.line(key));
    Ok(())
}

fn rotate(file: &Path, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let client = control_plane::client::Client::new(&config.admin_socket());
    let answer = match ask(async { client.post("/api/v1/audit/key/rotate", &Value::Null).await })? {
        Some(answer) => answer,
        None => {
            let by = local_caller();
            let (_store, notary) = open_log(&config, false)?;
            let key = notary.rotate(&by, now()).map_err(|error| Failure::finding(error.to_string()))?;
            json!({ "key": key.to_string() })
        }
    };
    if output.json() {
        return output.value(&answer);
    }
    output.line(answer["key"].as_str().unwrap_or_default());
    Ok(())
}

/// A new key for payloads, or all of them wrapped anew.
fn payload(file: &Path, rewrap: bool, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let client = control_plane::client::Client::new(&config.admin_socket());
    let path = if rewrap { "/api/v1/audit/key/rewrap" } else { "/api/v1/audit/key/rotate-payload" };
    let answer = match ask(async { client.post(path, &Value::Null).await })? {
        Some(answer) => answer,
        None => {
            let mut keys = writing_keys(&config)?.ok_or_else(|| locked(PayloadKeyError::None))?;
            let (store, _notary) = evidence::open(&config, &local_caller(), Some(&mut keys), false)?;
            block_on(async {
                change(&config, &*services(&config)?, &mut keys, &store, &local_caller(), rewrap).await.map_err(Failure::finding)
            })?
        }
    };
    if output.json() {
        return output.value(&answer);
    }
    match answer["payload_key"].as_str() {
        Some(key) => output.line(format!("payloads are sealed with the key {key} from here on")),
        None => output.line(format!("{} keys are wrapped by {}", answer["keys"], answer["source"].as_str().unwrap_or_default())),
    }
    Ok(())
}

/// The checkpoint that was published last; where none is, the one that was signed last.
pub(super) fn checkpoint(file: &Path, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let client = control_plane::client::Client::new(&config.admin_socket());
    let asked = ask(async { client.text("/log/checkpoint").await.map(|(status, text)| json!([status, text])) })?;
    let running = asked.filter(|answer| answer[0] == 200).and_then(|answer| answer[1].as_str().map(str::to_owned));
    let note = match running {
        Some(note) => Some(note),
        None => match std::fs::read_to_string(config.export_dir().join("checkpoint")) {
            Ok(note) => Some(note),
            Err(_) => {
                let known = audit_store::notary::look(&config.control_dir());
                let known = known.map_err(|error| Failure::finding(error.to_string()))?;
                known.and_then(|(_, signed)| signed).map(|signed| signed.note)
            }
        },
    };
    let note = note.ok_or_else(|| Failure::finding("the log was not signed yet: start the gateway once"))?;
    if output.json() {
        return output.value(&json!({ "checkpoint": note }));
    }
    output.line(note.trim_end_matches('\n'));
    Ok(())
}
