//! `[login]`: how people log in to the pages.

use super::parse::{Parts, secret, web_address};
use super::reader::{Section, Source, nearest};
use super::secret::Secret;
use super::{IssuerKind, Login};
use std::time::Duration;

const IN_THE_CLEAR: &str = "http:// is accepted on this host alone: a cookie must not travel in the clear";

/// Longest session: a working week is too long to be one login.
const SESSION_MAX: Duration = Duration::from_secs(3 * 86_400);

pub(super) fn login(section: &Section<'_, '_>, source: &Source<'_>) -> Option<Login> {
    let (issuer, client_id) = (section.required("issuer"), section.required("client_id"));
    let url = section.required("url").filter(|url| web_address(section, "url", url, IN_THE_CLEAR) && origin(section, url));
    let client_secret: Option<Secret> =
        if section.has("client_secret") { Some(secret(section, "client_secret", source)?) } else { None };
    let minute = Duration::from_secs(60);
    let session = section.duration("session", minute..=SESSION_MAX).unwrap_or(Duration::from_secs(8 * 3_600));
    let idle = section.duration("idle", minute..=SESSION_MAX).unwrap_or(Duration::from_secs(3_600));
    let fresh = section.duration_or_none("fresh", minute..=SESSION_MAX).flatten();
    let scopes = section.strings("scopes").unwrap_or_else(|| vec!["profile".to_owned()]);
    Some(Login { issuer: issuer?, client_id: client_id?, client_secret, url: url?, scopes, session, idle, fresh })
}

/// Whether a URL is an origin, as browsers say it: scheme, host and port alone, in lower case.
fn origin(section: &Section<'_, '_>, url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let port = rest.rsplit_once(':').map_or("", |(_, port)| port);
    let usual = (url.starts_with("https:") && port == "443") || (url.starts_with("http:") && port == "80");
    let good = !rest.is_empty()
        && !usual
        && !rest.contains(|c: char| matches!(c, '/' | '?' | '#' | '@') || c.is_whitespace() || c.is_ascii_uppercase());
    if !good {
        let what = format!("`url` is not an origin: {url:?}");
        section.problem("url", what, "write it as a browser does: https://HOST or https://HOST:PORT, in lower case, and no more");
    }
    good
}

/// The issuer must be there, and be one where people can log in.
pub(super) fn check(source: &Source<'_>, parts: &Parts) {
    let Some(at) = &parts.login else { return };
    let name = &at.value.issuer;
    let Some(issuer) = parts.issuers.iter().find(|issuer| issuer.value.name == *name) else {
        let names = parts.issuers.iter().map(|issuer| issuer.value.name.as_str());
        let remedy =
            nearest(name, names).map_or_else(|| "name an [[issuer]]".to_owned(), |near| format!("did you mean {near:?}?"));
        source.problem(at.line, format!("[login] names the issuer {name:?}, which is not there"), remedy);
        return;
    };
    let issuer = &issuer.value;
    let (what, remedy) = match issuer.kind {
        IssuerKind::Dev => ("where nobody logs in", "leave [login] out: tokens of a development issuer log in by themselves"),
        IssuerKind::Entra if issuer.tenants.len() > 1 || shared(&issuer.issuer) => {
            ("of several tenants", "name an [[issuer]] of the tenant whose people log in")
        }
        IssuerKind::Entra | IssuerKind::Oidc => return,
    };
    source.problem(at.line, format!("[login] names the issuer {name:?}, {what}"), remedy);
}

/// Whether an issuer of Entra's stands for more than one tenant.
fn shared(issuer: &str) -> bool {
    ["organizations", "common", "{tenantid}"].iter().any(|word| issuer.contains(&format!("/{word}/")))
}
