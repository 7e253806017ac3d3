//! `sallyport dev-token`: a token from the local development issuer.

use super::{Failure, Output, load};
use crate::config::{Config, IssuerKind};
use crate::serve::parts::dev_issuer_dir;
use control_plane::units::parse_duration;
use identity::{DevIssuer, DevToken};
use proxy_core::PrincipalKind;
use proxy_io::clock::now;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// `dev-token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who the token is for: also the user name to connect with
    #[arg(long)]
    subject: String,
    /// A role that it carries; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// How long it is valid
    #[arg(long, default_value = "1h", value_parser = duration, value_name = "DURATION")]
    lifetime: Duration,
    /// `aud`; the issuer's first audience if left out
    #[arg(long)]
    audience: Option<String>,
    /// What kind of principal it is for
    #[arg(long, value_enum, default_value_t = Kind::Service)]
    kind: Kind,
    /// A further claim, NAME=VALUE; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
}

/// Kinds of principals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A program
    Service,
    /// An AI agent
    Agent,
    /// A person
    Human,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a number with a unit: 90s, 15m, 1h30m".to_owned())
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let config: Config = load(file)?;
    let issuer = config.issuers.iter().find(|issuer| issuer.kind == IssuerKind::Dev).ok_or_else(|| {
        Failure::usage(format!(
            "{} has no issuer of kind \"dev\"; add [[issuer]] with name = \"dev\" and kind = \"dev\", beside listeners on loopback alone",
            file.display()
        ))
    })?;
    let audience = match (&args.audience, issuer.audiences.first()) {
        (Some(audience), _) | (None, Some(audience)) => audience.clone(),
        (None, None) => return Err(Failure::usage("the dev issuer has no audience; give --audience")),
    };
    let mut claims = Map::new();
    for claim in &args.claims {
        let Some((name, value)) = claim.split_once('=') else {
            return Err(Failure::usage(format!("{claim:?} is not NAME=VALUE")));
        };
        claims.insert(name.to_owned(), Value::String(value.to_owned()));
    }
    let token = DevToken {
        subject: args.subject.clone(),
        audience,
        kind: match args.kind {
            Kind::Service => PrincipalKind::Service,
            Kind::Agent => PrincipalKind::Agent,
            Kind::Human => PrincipalKind::Human,
        },
        roles: args.roles.clone(),
        lifetime: args.lifetime,
        claims,
    };
    let failed = |error: identity::DevIssuerError| Failure::finding(error.to_string());
    let dev = DevIssuer::open_or_create(&dev_issuer_dir(&config), &issuer.issuer).map_err(failed)?;
    let token = dev.issue(&token, now()).map_err(failed)?;
    let text = String::from_utf8_lossy(token.expose());
    if output.json() {
        return output.value(&serde_json::json!({ "token": text, "subject": args.subject }));
    }
    output.line(&*text);
    Ok(())
}
