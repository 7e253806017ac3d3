//! `sallyport keys`: machine keys, for clients that cannot carry a token.

use super::control::{ask, open_store, record};
use super::output::{Cell, Tone};
use super::remote::encode;
use super::{Failure, Output, load};
use crate::config::Config;
use crate::serve::parts::keys_file;
use clap::{Subcommand, ValueEnum};
use control_plane::api::{KeyRequest, creation_details, key_value, local_caller};
use control_plane::client::Client;
use identity::MachineKeys;
use proxy_core::PrincipalKind;
use proxy_io::clock::now;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// `keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key; its secret is shown once
    Create(Create),
    /// All keys, expired and revoked ones included
    List,
    /// Make a key void; its open sessions end
    Revoke {
        /// Its id, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Whose it is: the principal is key/SUBJECT
    #[arg(long)]
    subject: String,
    /// A role that it carries; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A connection that it may be used for; may be repeated. None: all that policy allows
    #[arg(long = "connection", value_name = "NAME")]
    connections: Vec<String>,
    /// How long it is valid: 12h, 90d … or never
    #[arg(long, default_value = "90d", value_name = "DURATION")]
    lifetime: String,
    /// What kind of principal it is for
    #[arg(long, value_enum, default_value_t = Kind::Service)]
    kind: Kind,
    /// What it is for
    #[arg(long, default_value = "", value_name = "TEXT")]
    description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A program
    Service,
    /// An AI agent
    Agent,
    /// A person
    Human,
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let client = Client::new(&config.admin_socket());
    match &args.action {
        Action::Create(create) => self::create(&config, &client, create, output),
        Action::List => list(&config, &client, output),
        Action::Revoke { id } => revoke(&config, &client, id, output),
    }
}

fn create(config: &Config, client: &Client, args: &Create, output: &Output) -> Result<(), Failure> {
    if let Some(name) = args.connections.iter().find(|name| config.connection(name).is_none()) {
        return Err(Failure::usage(format!("there is no connection {name:?} in {}", config.file.display())));
    }
    let request = KeyRequest {
        subject: args.subject.clone(),
        kind: match args.kind {
            Kind::Service => PrincipalKind::Service,
            Kind::Agent => PrincipalKind::Agent,
            Kind::Human => PrincipalKind::Human,
        },
        roles: args.roles.clone(),
        connections: args.connections.clone(),
        lifetime: Some(args.lifetime.clone()),
        description: args.description.clone(),
    };
    let key = match ask(client.post("/api/v1/keys", &json!(request)))? {
        Some(value) => value,
        None => create_in_files(config, request)?,
    };
    if output.json() {
        return output.value(&key);
    }
    let text = |name: &str| key[name].as_str().unwrap_or("never").to_owned();
    output.line(format!("user      {}", text("login")));
    output.line(format!("password  {}", text("secret")));
    output.line(format!("expires   {}", text("expires")));
    output.line(output.paint(Tone::Quiet, "The password is not kept and cannot be shown again."));
    Ok(())
}

fn open_keys(config: &Config) -> Result<MachineKeys, Failure> {
    MachineKeys::open(&keys_file(config)).map_err(|error| Failure::finding(error.to_string()))
}

fn create_in_files(config: &Config, request: KeyRequest) -> Result<Value, Failure> {
    let store = open_store(config)?;
    let keys = open_keys(config)?;
    let new = request.resolve(&local_caller(), now()).map_err(Failure::usage)?;
    let created = keys.create(new, now()).map_err(|error| Failure::usage(error.to_string()))?;
    let info = keys.get(&created.id).ok_or_else(|| Failure::finding("the key is not there"))?;
    if let Err(failure) = record(&store, "key created", format!("key {}", created.id), creation_details(&info)) {
        // Nobody has seen the secret: a key that is not in the log is as if it had never been.
        let _ = keys.revoke(&created.id, "gateway", now());
        return Err(failure);
    }
    store.close()?;
    let mut value = key_value(&info);
    value["secret"] = json!(String::from_utf8_lossy(created.secret.expose()));
    Ok(value)
}

fn list(config: &Config, client: &Client, output: &Output) -> Result<(), Failure> {
    let keys = match ask(client.get("/api/v1/keys"))? {
        Some(value) => value["keys"].as_array().cloned().unwrap_or_default(),
        None => open_keys(config)?.list().iter().map(key_value).collect(),
    };
    let header = ["ID", "SUBJECT", "ROLES", "CONNECTIONS", "EXPIRES", "LAST USED", "STATE"];
    output.listing(&keys, "no machine keys; `sallyport keys create` makes one", &header, row)
}

fn row(key: &Value) -> Vec<Cell> {
    let text = |name: &str| key[name].as_str().map(str::to_owned);
    let day =
        |name: &str, none: &str| text(name).and_then(|at| at.get(..16).map(str::to_owned)).unwrap_or_else(|| none.to_owned());
    let joined = |name: &str| key[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let expired = text("expires").and_then(|at| control_plane::units::parse_time(&at, now())).is_some_and(|at| at <= now());
    let state = match (text("revoked"), expired) {
        (Some(_), _) => Cell::toned("revoked", Tone::Bad),
        (None, true) => Cell::toned("expired", Tone::Doubtful),
        (None, false) => Cell::toned("valid", Tone::Good),
    };
    vec![
        text("id").unwrap_or_default().into(),
        text("subject").unwrap_or_default().into(),
        joined("roles").into(),
        joined("connections").into(),
        day("expires", "never").into(),
        day("last_used", "-").into(),
        state,
    ]
}

fn revoke(config: &Config, client: &Client, id: &str, output: &Output) -> Result<(), Failure> {
    let key = match ask(client.post(&format!("/api/v1/keys/{}/revoke", encode(id)), &json!({})))? {
        Some(value) => value,
        None => {
            let store = open_store(config)?;
            let keys = open_keys(config)?;
            let info = keys
                .get(id)
                .ok_or_else(|| Failure::finding(format!("there is no key {id:?}; `sallyport keys list` shows them")))?;
            record(&store, "key revoked", format!("key {id}"), BTreeMap::from([("subject".to_owned(), info.subject)]))?;
            let revoked = keys.revoke(id, &local_caller(), now()).map_err(|error| Failure::finding(error.to_string()))?;
            store.close()?;
            key_value(&revoked)
        }
    };
    if output.json() {
        return output.value(&key);
    }
    output.line(format!("key {id} is revoked; its open sessions end"));
    Ok(())
}
