//! `sallyport revocations`: principals and tokens that are refused although they are valid elsewhere.

use super::control::{ask, open_store, record};
use super::output::{Cell, Tone};
use super::{Failure, Output, load};
use crate::config::Config;
use crate::serve::parts::revocations_file;
use clap::Subcommand;
use control_plane::api::{RevocationRequest, RevokedName, local_caller, revocation_details, revocation_value, revoked_name};
use control_plane::client::Client;
use control_plane::units::parse_time;
use identity::{RevocationError, Revocations};
use proxy_io::clock::now;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// `revocations`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Revoke a principal or a token: its open sessions end, its logins are refused, also after a restart
    Create {
        #[command(flatten)]
        what: What,
        /// For how long: 12h, 30d … If left out: until it is lifted
        #[arg(long, value_name = "DURATION")]
        lifetime: Option<String>,
        /// Why
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// All that is revoked
    List,
    /// Take a revocation back
    Lift {
        #[command(flatten)]
        what: What,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A principal, whatever it shows: ISSUER/SUBJECT
    #[arg(long, value_name = "ID")]
    principal: Option<String>,
    /// One token: ISSUER/ID, with the credential that `sessions show` prints for ID
    #[arg(long, value_name = "ID")]
    token: Option<String>,
}

impl What {
    fn name(&self, config: &Config) -> Result<RevokedName, Failure> {
        let name = RevokedName { principal: self.principal.clone(), token: self.token.clone() };
        name.resolve().map_err(Failure::usage)?;
        // A mistyped issuer would revoke nobody, and say that all is well.
        let issuer = name.principal.iter().chain(&name.token).find_map(|text| text.split_once('/')).map(|(issuer, _)| issuer);
        let known = |issuer: &str| issuer == identity::keys::KEY_ISSUER || config.issuers.iter().any(|one| one.name == issuer);
        match issuer.filter(|issuer| !known(issuer)) {
            Some(issuer) => Err(Failure::usage(format!("there is no issuer {issuer:?} in {}", config.file.display()))),
            None => Ok(name),
        }
    }
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let client = Client::new(&config.admin_socket());
    match &args.action {
        Action::Create { what, lifetime, reason } => {
            let request = RevocationRequest { what: what.name(&config)?, lifetime: lifetime.clone(), reason: reason.clone() };
            create(&config, &client, request, output)
        }
        Action::List => list(&config, &client, output),
        // What was configured once may still be lifted.
        Action::Lift { what } => {
            let name = RevokedName { principal: what.principal.clone(), token: what.token.clone() };
            lift(&config, &client, &name, output)
        }
    }
}

fn open(config: &Config) -> Result<Revocations, Failure> {
    Revocations::open(&revocations_file(config)).map_err(|error| Failure::finding(error.to_string()))
}

fn failed(error: RevocationError) -> Failure {
    Failure::finding(error.to_string())
}

fn create(config: &Config, client: &Client, request: RevocationRequest, output: &Output) -> Result<(), Failure> {
    let entry = match ask(client.post("/api/v1/revocations", &json!(request)))? {
        Some(value) => value,
        None => {
            let store = open_store(config)?;
            let entry = request.resolve(&local_caller(), now()).map_err(Failure::usage)?;
            record(&store, "revoked", revoked_name(&entry.what), revocation_details(&entry))?;
            let value = revocation_value(&entry);
            open(config)?.revoke(entry).map_err(failed)?;
            store.close()?;
            value
        }
    };
    if output.json() {
        return output.value(&entry);
    }
    output.line(format!("{} is revoked; its open sessions end", shown(&entry)));
    Ok(())
}

fn list(config: &Config, client: &Client, output: &Output) -> Result<(), Failure> {
    let entries = match ask(client.get("/api/v1/revocations"))? {
        Some(value) => value["revocations"].as_array().cloned().unwrap_or_default(),
        None => open(config)?.list().iter().map(revocation_value).collect(),
    };
    output.listing(&entries, "nothing is revoked", &["WHAT", "SINCE", "UNTIL", "BY", "REASON", "STATE"], row)
}

fn row(entry: &Value) -> Vec<Cell> {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let minute = |name: &str| entry[name].as_str().and_then(|at| at.get(..16)).unwrap_or("lifted").to_owned();
    let over = parse_time(&text("until"), now()).is_some_and(|until| until <= now());
    let state = if over { Cell::toned("over", Tone::Quiet) } else { Cell::toned("in force", Tone::Bad) };
    vec![
        shown(entry).into(),
        minute("since").into(),
        minute("until").into(),
        text("by").into(),
        control_plane::view::printable(&text("reason")).into(),
        state,
    ]
}

fn lift(config: &Config, client: &Client, name: &RevokedName, output: &Output) -> Result<(), Failure> {
    let what = name.resolve().map_err(Failure::usage)?;
    let entry = match ask(client.post("/api/v1/revocations/lift", &json!(name)))? {
        Some(value) => value,
        None => {
            let store = open_store(config)?;
            let list = open(config)?;
            let entry = list.list().into_iter().find(|entry| entry.what == what).ok_or(failed(RevocationError::NotFound))?;
            record(&store, "revocation lifted", revoked_name(&what), BTreeMap::new())?;
            list.lift(&what).map_err(failed)?;
            store.close()?;
            revocation_value(&entry)
        }
    };
    if output.json() {
        return output.value(&entry);
    }
    output.line(format!("{} is no longer revoked", shown(&entry)));
    Ok(())
}

/// `principal dev/ci` or `token dev/ID`.
fn shown(entry: &Value) -> String {
    let name = ["principal", "token"].into_iter().find_map(|kind| entry[kind].as_str().map(|name| format!("{kind} {name}")));
    control_plane::view::printable(&name.unwrap_or_default())
}
