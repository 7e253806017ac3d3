//! `sallyport policy`: what policies can say, what they do say, and whether that is what they are to say.

mod cases;
mod test;

use super::remote::block_on;
use super::{Failure, Output, load};
use crate::config::{Config, Connection, Secret};
use crate::serve::parts::{masks, policies};
use crate::target::postgres::{connect, load_catalog};
use clap::{Subcommand, ValueEnum};
use policy::explain::Question;
use policy::{CatalogSource, Explanation, PolicyEngine};
use proxy_core::{Catalog, Principal, PrincipalKind, Target};
use proxy_io::clock::now;
use std::collections::{BTreeMap, HashMap};
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
    /// Whether the policies decide as a file of cases says: allow, deny or hold, by which policy, masked or not
    ///
    /// Each [[case]] has a name, principal, connection and statement, and the verdict that it is to have: expect =
    /// "allow", "deny" or "hold". It may have roles, kind, claims, database, source, application and at (a time), and
    /// expect a determining policy and the masked classes. Each [[table]] (name, columns, connection) is one that
    /// statements may name. `sallyport init` writes an example. Fails if one case does.
    Test(test::Test),
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

impl From<Kind> for PrincipalKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Service => Self::Service,
            Kind::Agent => Self::Agent,
            Kind::Human => Self::Human,
        }
    }
}

/// Catalogues by connection and database, loaded once.
#[derive(Default)]
struct Loaded(HashMap<(String, String), Arc<Catalog>>);

impl CatalogSource for Loaded {
    fn generation(&self) -> u64 {
        1
    }

    fn current(&self, target: &Target) -> Option<Arc<Catalog>> {
        self.0.get(&(target.connection.clone(), target.database.clone())).cloned()
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
        Action::Test(test) => test::run(file, test, output),
    }
}

fn explain(file: &Path, args: &Explain, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let (connection, database) = connection(&config, &args.connection, args.database.as_deref())?;
    let principal = principal(&args.principal, args.kind.into(), &args.roles, claims(&args.claims)?)?;
    if args.offline {
        // Which secret keys a hash does not change what is decided.
        config.remote_secrets.iter().for_each(Secret::assume);
    } else {
        super::control::fetch(&config)?;
    }
    let (set, rules) = (policies(&config)?, masks(&config)?);
    block_on(async {
        let mut catalogs = Loaded::default();
        if !args.offline {
            let loaded = catalog_of(connection, &database).await;
            let hint = "--offline explains without the target's catalogue";
            let catalog = loaded.map_err(|failure| Failure { message: format!("{failure}\n{hint}"), ..failure })?;
            catalogs.0.insert((connection.name.clone(), database.clone()), catalog);
        }
        let engine = PolicyEngine::new(set, rules, Arc::new(catalogs));
        let question = Question {
            principal: Arc::new(principal),
            target: Arc::new(connection.target(&database)),
            source: args.source.clone(),
            application: args.application.clone(),
            settings: Vec::new(),
            statement: args.statement.clone(),
            now: now(),
        };
        let explanation = decide(&engine, &question).await;
        if output.json() {
            output.value(&explanation)?;
        } else {
            output.line(explanation.to_string().trim_end());
        }
        if explanation.verdict == "deny" { Err(Failure::finding("")) } else { Ok(()) }
    })
}

/// A connection by its name, and a database that it allows.
fn connection<'c>(config: &'c Config, name: &str, database: Option<&str>) -> Result<(&'c Arc<Connection>, String), Failure> {
    let Some(connection) = config.connection(name) else {
        let names = config.connections.iter().map(|connection| connection.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("there is no connection {name:?} in {}; there are: {names}", config.file.display())));
    };
    let database = database.unwrap_or(&connection.database).to_owned();
    if !connection.allows_database(&database) {
        return Err(Failure::usage(format!("connection {:?} does not allow the database {database:?}", connection.name)));
    }
    Ok((connection, database))
}

/// The target's own catalogue.
async fn catalog_of(connection: &Connection, database: &str) -> Result<Arc<Catalog>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::finding(error.to_string());
    let password = connection.password.as_ref().map(Secret::get).transpose();
    let password = password.map_err(|error| failed(&error))?;
    let link = connect(connection, database, password.as_ref()).await.map_err(|error| failed(&error))?;
    Ok(Arc::new(load_catalog(link.client(), 1).await.map_err(|error| failed(&error))?))
}

async fn decide(engine: &PolicyEngine, question: &Question) -> Explanation {
    loop {
        match engine.explain(question) {
            Ok(explanation) => return explanation,
            Err(not_ready) => not_ready.0.await,
        }
    }
}

fn claims(list: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let split = |claim: &String| match claim.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Failure::usage(format!("{claim:?} is not NAME=VALUE"))),
    };
    list.iter().map(split).collect()
}

fn principal(id: &str, kind: PrincipalKind, roles: &[String], claims: BTreeMap<String, String>) -> Result<Principal, Failure> {
    let Some((issuer, subject)) = id.split_once('/') else {
        return Err(Failure::usage(format!(
            "principal {id:?} is not ISSUER/SUBJECT; the issuer is an [[issuer]]'s name, or key"
        )));
    };
    let mut roles = roles.to_vec();
    roles.sort();
    roles.dedup();
    Ok(Principal {
        kind,
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
