//! `sallyport policy`: what policies can say, and what they do say.

use super::remote::block_on;
use super::{Failure, Output, load};
use crate::config::units::now;
use crate::serve::parts::{masks, policies};
use crate::target::postgres::{connect, load_catalog};
use clap::{Subcommand, ValueEnum};
use policy::explain::Question;
use policy::{CatalogSource, PolicyEngine};
use proxy_core::{Catalog, Principal, PrincipalKind, Target};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

/// `policy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the Cedar schema that policies are validated against
    Schema,
    /// What one principal's statement would do, the decision, and the policies that determined it
    Explain(Explain),
}

#[derive(Debug, clap::Args)]
struct Explain {
    /// Who asks: ISSUER/SUBJECT
    #[arg(long, value_name = "ID")]
    principal: String,
    /// A role that they have; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// What kind of principal it is
    #[arg(long, value_enum, default_value_t = Kind::Service)]
    kind: Kind,
    /// A claim of the token, NAME=VALUE; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// The connection
    #[arg(long, value_name = "NAME")]
    connection: String,
    /// The database; the connection's default if left out
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// From which IP address
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    source: String,
    /// Application name
    #[arg(long, default_value = "", value_name = "NAME")]
    application: String,
    /// Do not connect to the target: names are not resolved, and what depends on that is unknown
    #[arg(long)]
    offline: bool,
    /// The statement
    #[arg(value_name = "SQL")]
    statement: String,
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

/// One catalogue, loaded once.
struct Loaded(Option<Arc<Catalog>>);

impl CatalogSource for Loaded {
    fn generation(&self) -> u64 {
        1
    }

    fn current(&self, _: &Target) -> Option<Arc<Catalog>> {
        self.0.clone()
    }

    fn refresh(&self, _: &Target) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    match &args.action {
        Action::Schema => {
            output.line(policy::schema::SCHEMA.trim_end());
            Ok(())
        }
        Action::Explain(explain) => self::explain(file, explain, output),
    }
}

fn explain(file: &Path, args: &Explain, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let Some(connection) = config.connection(&args.connection) else {
        let names = config.connections.iter().map(|connection| connection.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!(
            "there is no connection {:?} in {}; there are: {names}",
            args.connection,
            file.display()
        )));
    };
    let database = args.database.clone().unwrap_or_else(|| connection.database.clone());
    if !connection.allows_database(&database) {
        return Err(Failure::usage(format!("connection {:?} does not allow the database {database:?}", connection.name)));
    }
    let principal = principal(args)?;
    let (set, rules) = (policies(&config)?, masks(&config)?);
    block_on(async {
        let catalog = if args.offline {
            None
        } else {
            let offline = |error: String| Failure::finding(format!("{error}\n--offline explains without the target's catalogue"));
            let password = connection.password.as_ref().map(crate::config::Secret::get).transpose();
            let password = password.map_err(|error| offline(error.to_string()))?;
            let link = connect(connection, &database, password.as_ref()).await.map_err(|error| offline(error.to_string()))?;
            Some(Arc::new(load_catalog(link.client(), 1).await.map_err(|error| offline(error.to_string()))?))
        };
        let engine = PolicyEngine::new(set, rules, Arc::new(Loaded(catalog)));
        let question = Question {
            principal: Arc::new(principal),
            target: Arc::new(connection.target(&database)),
            source: args.source.clone(),
            application: args.application.clone(),
            settings: Vec::new(),
            statement: args.statement.clone(),
            now: now(),
        };
        let explanation = loop {
            match engine.explain(&question) {
                Ok(explanation) => break explanation,
                Err(not_ready) => not_ready.0.await,
            }
        };
        if output.json() {
            output.value(&explanation)?;
        } else {
            output.line(explanation.to_string().trim_end());
        }
        if explanation.verdict == "deny" { Err(Failure::finding("")) } else { Ok(()) }
    })
}

fn principal(args: &Explain) -> Result<Principal, Failure> {
    let Some((issuer, subject)) = args.principal.split_once('/') else {
        return Err(Failure::usage(format!(
            "--principal {:?} is not ISSUER/SUBJECT; the issuer is an [[issuer]]'s name, or key",
            args.principal
        )));
    };
    let mut claims = BTreeMap::new();
    for claim in &args.claims {
        let Some((name, value)) = claim.split_once('=') else {
            return Err(Failure::usage(format!("{claim:?} is not NAME=VALUE")));
        };
        claims.insert(name.to_owned(), value.to_owned());
    }
    let mut roles = args.roles.clone();
    roles.sort();
    roles.dedup();
    Ok(Principal {
        kind: match args.kind {
            Kind::Service => PrincipalKind::Service,
            Kind::Agent => PrincipalKind::Agent,
            Kind::Human => PrincipalKind::Human,
        },
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        tenant: claims.get("tid").cloned(),
        application: claims.get("azp").or_else(|| claims.get("appid")).cloned(),
        credential_id: None,
        aliases: Vec::new(),
        roles,
        claims,
        expires: None,
    })
}
