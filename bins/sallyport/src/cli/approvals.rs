//! `sallyport approvals`: requests that wait for a reviewer.

use super::output::{Cell, Tone};
use super::remote::{block_on, encode, gateway};
use super::{Failure, Output};
use clap::Subcommand;
use control_plane::client::Client;
use control_plane::units::{parse_time, show_duration};
use control_plane::view::{one_line, printable, statement};
use proxy_io::clock::now;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// `approvals`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What waits now
    List,
    /// One request: who asks, the exact statement, its parameters, what it would do
    Show {
        /// The id, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Let it run
    Approve {
        #[command(flatten)]
        decision: Decision,
        /// For how much: once, session (statements of this shape for the rest of it), or a time such as 30m (what the same
        /// policies hold of this principal on this target)
        #[arg(long, value_name = "WIDTH")]
        width: Option<String>,
    },
    /// Refuse it
    Deny(Decision),
    /// Approvals in force that cover more than one request
    Standing,
    /// Take such an approval back
    Revoke {
        /// The id, as `standing` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Decision {
    /// The id, as `list` shows it
    #[arg(value_name = "ID")]
    id: String,
    /// Why: recorded, and on a denial shown to the caller
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let client = gateway(file)?;
    block_on(async {
        match &args.action {
            Action::List => list(&client, output).await,
            Action::Show { id } => show(&client, id, output).await,
            Action::Approve { decision, width } => decide(&client, "approve", decision, width.as_deref(), output).await,
            Action::Deny(decision) => decide(&client, "deny", decision, None, output).await,
            Action::Standing => standing(&client, output).await,
            Action::Revoke { id } => revoke(&client, id, output).await,
        }
    })
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let answer = client.get("/api/v1/approvals").await?;
    let waiting = answer["approvals"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |value: &Value| -> Vec<Cell> {
        vec![
            Cell::toned(text(value, "id"), Tone::Doubtful),
            remaining(value).into(),
            text(&value["principal"], "id").into(),
            text(&value["target"], "connection").into(),
            joined(value, "missing").into(),
            one_line(&statement(value)).into(),
        ]
    };
    let header = ["ID", "EXPIRES IN", "PRINCIPAL", "CONNECTION", "WAITS FOR", "STATEMENT"];
    output.listing(waiting, "nothing waits for approval", &header, row)
}

async fn show(client: &Client, id: &str, output: &Output) -> Result<(), Failure> {
    let value = client.get(&format!("/api/v1/approvals/{}", encode(id))).await?;
    if output.json() {
        return output.value(&value);
    }
    let roles = value["principal"]["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    let target = &value["target"];
    let facts = [
        ("approval", text(&value, "id").to_owned()),
        ("principal", format!("{}  (roles: {})", text(&value["principal"], "id"), roles.join(", "))),
        (
            "target",
            format!(
                "{}/{} at {} as {}",
                text(target, "connection"),
                text(target, "database"),
                text(target, "address"),
                text(target, "upstream_user")
            ),
        ),
        ("owner", text(target, "owner").to_owned()),
        ("session", format!("{}, request {}", text(&value, "session"), value["request"])),
        ("asks for", text(&value, "asks").to_owned()),
        ("would do", joined(&value, "operations")),
        ("policies", format!("{}  (set {})", joined(&value, "policies"), text(&value, "policy_version"))),
        ("must approve", groups(&value)),
        ("still missing", joined(&value, "missing")),
        ("may be for", joined(&value, "widths")),
        ("waiting since", text(&value, "submitted").to_owned()),
        ("expires in", remaining(&value)),
        ("digest", text(&value, "digest").to_owned()),
    ];
    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_empty()) {
        output.line(format!("{} {}", output.paint(Tone::Quiet, &format!("{name:>13}")), printable(fact)));
    }
    output.line("");
    for line in statement(&value).lines() {
        output.line(format!("    {}", printable(line)));
    }
    for (number, parameter) in value["parameters"].as_array().into_iter().flatten().enumerate() {
        let shown = parameter["value"].as_str().map_or_else(|| "NULL".to_owned(), |value| format!("{value:?}"));
        output.line(format!("    ${} = {shown}", number + 1));
    }
    Ok(())
}

async fn standing(client: &Client, output: &Output) -> Result<(), Failure> {
    let answer = client.get("/api/v1/approvals/standing").await?;
    let list = answer["standing"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |value: &Value| -> Vec<Cell> {
        let by = value["approvals"].as_array().into_iter().flatten().map(|opinion| text(opinion, "by")).collect::<Vec<_>>();
        vec![
            Cell::toned(text(value, "id"), Tone::Doubtful),
            text(value, "width").into(),
            value["until"].as_str().unwrap_or("the session's end").into(),
            text(&value["principal"], "id").into(),
            text(&value["target"], "connection").into(),
            by.join(", ").into(),
            one_line(&statement(value)).into(),
        ]
    };
    let header = ["ID", "WIDTH", "UNTIL", "PRINCIPAL", "CONNECTION", "BY", "STATEMENT"];
    output.listing(list, "no approval covers more than one request", &header, row)
}

async fn revoke(client: &Client, id: &str, output: &Output) -> Result<(), Failure> {
    let answer = client.post(&format!("/api/v1/approvals/{}/revoke", encode(id)), &json!({})).await?;
    if output.json() {
        return output.value(&answer);
    }
    let line = format!("{} {}: what it covered is asked about again", output.paint(Tone::Good, "revoked"), text(&answer, "id"));
    output.line(line);
    Ok(())
}

async fn decide(client: &Client, verb: &str, decision: &Decision, width: Option<&str>, output: &Output) -> Result<(), Failure> {
    let path = format!("/api/v1/approvals/{}/{verb}", encode(&decision.id));
    let answer = client.post(&path, &json!({ "reason": decision.reason, "width": width })).await?;
    if output.json() {
        return output.value(&answer);
    }
    let id = text(&answer, "id");
    if verb == "deny" {
        output.line(format!("{} {id}: the caller is told", output.paint(Tone::Bad, "denied")));
    } else if answer["approved"] == true {
        output.line(format!("{} {id}: it runs now", output.paint(Tone::Good, "approved")));
    } else {
        output.line(format!("{} {id}: it still waits for {}", output.paint(Tone::Doubtful, "noted"), joined(&answer, "missing")));
    }
    Ok(())
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn joined(value: &Value, name: &str) -> String {
    value[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// `dba (1 of 2; leads as well from 2026-11-28T12:05:00Z), security (0 of 1)`
fn groups(value: &Value) -> String {
    let group = |group: &Value| {
        let escalation = match group["escalation"]["group"].as_str() {
            Some(second) => format!("; {second} as well from {}", text(&group["escalation"], "from")),
            None => String::new(),
        };
        format!("{} ({} of {}{escalation})", text(group, "name"), group["approvals"], group["quorum"])
    };
    value["groups"].as_array().into_iter().flatten().map(group).collect::<Vec<_>>().join(", ")
}

fn remaining(value: &Value) -> String {
    let expires = parse_time(text(value, "expires"), now());
    let micros = expires.map_or(0, |expires| expires.micros_since(now()));
    show_duration(Duration::from_secs(micros / 1_000_000))
}
