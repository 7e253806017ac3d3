//! `sallyport audit hold`, `redact` and `retain`: what is kept, and what is not.

use crate::cli::output::Cell;
use crate::cli::remote::{block_on, encode};
use crate::cli::{Failure, Output, load};
use clap::Subcommand;
use control_plane::api::{HoldRequest, RedactionRequest};
use control_plane::client::Client;
use control_plane::view::printable;
use serde_json::{Value, json};
use std::path::Path;

/// `audit hold`.
#[derive(Debug, clap::Args)]
pub(super) struct HoldArgs {
    #[command(subcommand)]
    action: HoldAction,
}

#[derive(Debug, Subcommand)]
enum HoldAction {
    /// Keep a session, all sessions on a connection, or (with neither) the whole log, whatever the rules say
    Create {
        /// A session's id, or the start of it
        #[arg(long, value_name = "ID", conflicts_with = "connection")]
        session: Option<String>,
        /// A connection's name
        #[arg(long, value_name = "NAME")]
        connection: Option<String>,
        /// Why: it is recorded
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// All holds
    List,
    /// Take a hold back
    Release {
        /// Its name
        #[arg(value_name = "HOLD")]
        id: String,
        /// Why: it is recorded
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// `audit redact`.
#[derive(Debug, clap::Args)]
pub(super) struct RedactArgs {
    /// An entry's number
    #[arg(value_name = "ENTRY", required_unless_present = "session", conflicts_with = "session")]
    entry: Option<u64>,
    /// Every entry of this session: its id, or the start of it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// A field that is kept beside the entry: statement, parameters …; may be repeated
    #[arg(long = "field", value_name = "FIELD", required_unless_present = "whole")]
    fields: Vec<String>,
    /// The whole entry: nothing but its hash is left
    #[arg(long, conflicts_with = "fields")]
    whole: bool,
    /// Why: it is recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

fn post(file: &Path, path: &str, body: &Value) -> Result<Value, Failure> {
    let client = Client::new(&load(file)?.admin_socket());
    block_on(async { Ok(client.post(path, body).await?) })
}

pub(super) fn hold(file: &Path, args: &HoldArgs, output: &Output) -> Result<(), Failure> {
    let answer = match &args.action {
        HoldAction::Create { session, connection, reason } => {
            let request = HoldRequest { session: session.clone(), connection: connection.clone(), reason: reason.clone() };
            post(file, "/api/v1/audit/holds", &json!(request))?
        }
        HoldAction::Release { id, reason } => {
            post(file, &format!("/api/v1/audit/holds/{}/release", encode(id)), &json!({ "reason": reason }))?
        }
        HoldAction::List => {
            let client = Client::new(&load(file)?.admin_socket());
            let answer = block_on(async { Ok(client.get("/api/v1/audit/holds").await?) })?;
            let holds = answer["holds"].as_array().cloned().unwrap_or_default();
            return output.listing(&holds, "nothing is held", &["HOLD", "SINCE", "BY", "WHAT", "REASON"], row);
        }
    };
    if output.json() {
        return output.value(&answer);
    }
    let released = matches!(args.action, HoldAction::Release { .. });
    output.line(format!("{} {}: {}", if released { "released" } else { "hold" }, text(&answer, "id"), what(&answer)));
    Ok(())
}

fn text(value: &Value, name: &str) -> String {
    printable(value[name].as_str().unwrap_or_default())
}

fn what(hold: &Value) -> String {
    let part = ["session", "connection"].into_iter().find_map(|name| Some(format!("{name} {}", hold[name].as_str()?)));
    printable(&part.unwrap_or_else(|| "the whole log".to_owned()))
}

fn row(hold: &Value) -> Vec<Cell> {
    let since = hold["since"].as_str().and_then(|since| since.get(..16)).unwrap_or_default();
    vec![text(hold, "id").into(), since.into(), text(hold, "by").into(), what(hold).into(), text(hold, "reason").into()]
}

pub(super) fn redact(file: &Path, args: &RedactArgs, output: &Output) -> Result<(), Failure> {
    let request = RedactionRequest {
        entry: args.entry,
        session: args.session.clone(),
        fields: args.fields.clone(),
        reason: args.reason.clone(),
    };
    let answer = post(file, "/api/v1/audit/redact", &json!(request))?;
    if output.json() {
        return output.value(&answer);
    }
    output.line(format!("{} contents were destroyed; the log says so, and still commits to them", answer["contents"]));
    Ok(())
}

pub(super) fn retain(file: &Path, output: &Output) -> Result<(), Failure> {
    let answer = post(file, "/api/v1/audit/retain", &Value::Null)?;
    let rules = answer["rules"].as_array().cloned().unwrap_or_default();
    let row = |rule: &Value| vec![text(rule, "rule").into(), rule["contents"].to_string().into()];
    output.listing(&rules, "no rule was applied: there is none, or a hold is on the whole log", &["RULE", "DESTROYED"], row)
}
