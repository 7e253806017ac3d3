//! From verified claims to a [`Principal`].
//!
//! | kind | subject | application | human, if | agent, if |
//! | --- | --- | --- | --- | --- |
//! | OIDC | `sub` | `client_id`, else `azp` | `auth_time`, `amr` or `email_verified` is there: a person logged in | never |
//! | Entra | `TID/OID` | `azp`, else `appid` | `idtyp` is not `app`, and `scp` is there | it has Entra's agent marks |
//! | dev | `sub` | `client_id` | `principal_kind` is `human` | `principal_kind` is `agent` |
//!
//! Everybody else is a service. Whoever logs in by an ID token is human.

use crate::error::{TokenError, shown};
use crate::issuer::{IssuerConfig, IssuerKind, Purpose, guid};
use crate::jwt::Claims;
use crate::limits::{CLAIM_NAME_MAX, CLAIM_VALUE_MAX, CLAIMS_MAX, ROLE_MAX, ROLES_MAX, SUBJECT_MAX};
use proxy_core::{Principal, PrincipalKind, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The claim by which the dev issuer says what kind of principal it is.
pub(crate) const DEV_KIND_CLAIM: &str = "principal_kind";

/// The time rules. There is no leeway for `exp`: a session must not outlive its token.
pub(crate) fn check_times(config: &IssuerConfig, claims: &Claims, now: Timestamp) -> Result<Timestamp, TokenError> {
    let expires = claims.moment("exp")?.ok_or(TokenError::Claim("exp"))?;
    if expires <= now {
        return Err(TokenError::Expired { since: expires });
    }
    let latest = now.0.saturating_add(micros(config.skew));
    let issued = claims.moment("iat")?;
    for from in [claims.moment("nbf")?, issued].into_iter().flatten() {
        if from.0 > latest {
            return Err(TokenError::NotYetValid { from });
        }
    }
    if let Some(age_max) = config.token_age_max {
        let issued = issued.ok_or(TokenError::Claim("iat"))?;
        if now.0.saturating_sub(issued.0) > micros(age_max) {
            return Err(TokenError::TooOld { issued });
        }
    }
    Ok(expires)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The token must be meant for the gateway.
pub(crate) fn check_audience(config: &IssuerConfig, claims: &Claims) -> Result<(), TokenError> {
    let audiences = claims.texts("aud").ok_or(TokenError::Claim("aud"))?;
    let ours = |audience: &str| config.audiences.iter().any(|own| own == audience);
    // OpenID Connect Core §3.1.3.7, 3 to 5: one that was made for several, or by another, is not for our login.
    let party = claims.text("azp");
    let for_login = party.map_or(audiences.len() == 1, ours);
    if audiences.iter().any(|audience| ours(audience)) && (config.purpose == Purpose::Access || for_login) {
        return Ok(());
    }
    Err(TokenError::WrongAudience {
        issuer: config.name.clone(),
        got: audiences.into_iter().take(8).map(shown).collect(),
        accepted: config.audiences.clone(),
    })
}

/// Tokens that are something else, and tokens that are worth nothing without a proof that we cannot ask for.
pub(crate) fn check_use(config: &IssuerConfig, claims: &Claims) -> Result<(), TokenError> {
    // Keycloak says `typ` in the claims, Cognito `token_use`.
    let (types, uses) = match config.purpose {
        Purpose::Access => (&["ID", "Refresh", "Logout", "Offline"][..], &["id"][..]),
        Purpose::LogIn => (&["Bearer", "Refresh", "Logout", "Offline"][..], &["access"][..]),
    };
    for (name, others) in [("typ", types), ("token_use", uses)] {
        if let Some(value) = claims.text(name).filter(|value| others.contains(value)) {
            return Err(TokenError::WrongType(value.to_owned()));
        }
    }
    // RFC 7800 §3.1, RFC 8705 §3, RFC 9449 §6.
    if claims.0.contains_key("cnf") { Err(TokenError::SenderConstrained) } else { Ok(()) }
}

/// The caller, from claims of which everything else was checked. `tenant`: the one that `iss` stands for.
pub(crate) fn principal(
    config: &IssuerConfig,
    claims: &Claims,
    tenant: Option<&str>,
    expires: Timestamp,
) -> Result<Principal, TokenError> {
    let roles = roles(config, claims)?;
    let attributes = attributes(claims)?;
    let who = match config.kind {
        IssuerKind::Entra => entra(config, claims, tenant)?,
        IssuerKind::Oidc | IssuerKind::Dev => plain(config, claims)?,
    };
    // Any application of the tenant can get a token for our audience: only one with a role was let in by somebody.
    if config.kind == IssuerKind::Entra && roles.is_empty() {
        return Err(TokenError::MissingRoles);
    }
    let mut aliases = who.aliases;
    aliases.extend(config.alias_claims.iter().filter_map(|name| claims.at(name)?.as_str()).filter_map(name_text));
    aliases.sort();
    aliases.dedup();
    aliases.retain(|alias| *alias != who.subject);
    Ok(Principal {
        kind: who.kind,
        issuer: config.name.clone(),
        subject: who.subject,
        tenant: who.tenant,
        application: who.application,
        credential_id: who.credential_id,
        aliases,
        roles,
        claims: attributes,
        expires: Some(expires),
    })
}

struct Who {
    kind: PrincipalKind,
    subject: String,
    tenant: Option<String>,
    application: Option<String>,
    credential_id: Option<String>,
    aliases: Vec<String>,
}

fn plain(config: &IssuerConfig, claims: &Claims) -> Result<Who, TokenError> {
    let subject = claims.text("sub").and_then(name_text).ok_or(TokenError::Claim("sub"))?;
    let application = ["client_id", "azp"].into_iter().find_map(|name| claims.text(name).and_then(name_text));
    let logged_in = ["auth_time", "amr", "email_verified"].iter().any(|name| claims.0.contains_key(*name));
    let logged_in = logged_in || config.purpose == Purpose::LogIn;
    let kind = match (config.kind, claims.text(DEV_KIND_CLAIM)) {
        (IssuerKind::Dev, Some("agent")) => PrincipalKind::Agent,
        (IssuerKind::Dev, Some("human")) => PrincipalKind::Human,
        (IssuerKind::Dev, _) => PrincipalKind::Service,
        _ if logged_in => PrincipalKind::Human,
        _ => PrincipalKind::Service,
    };
    // For a person, the application is not the person: it must not stand for their name.
    let aliases = match kind {
        PrincipalKind::Human => Vec::new(),
        PrincipalKind::Service | PrincipalKind::Agent => application.iter().cloned().collect(),
    };
    let credential_id = claims.text("jti").and_then(name_text);
    Ok(Who { kind, subject, tenant: None, application, credential_id, aliases })
}

fn entra(config: &IssuerConfig, claims: &Claims, tenant: Option<&str>) -> Result<Who, TokenError> {
    let tid = claims.text("tid").ok_or(TokenError::Claim("tid"))?;
    let tid = guid(tid).filter(|tid| Some(tid.as_str()) == tenant).ok_or_else(|| TokenError::WrongTenant(shown(tid)))?;
    let oid = claims.text("oid").and_then(guid).ok_or(TokenError::Claim("oid"))?;
    // Access tokens have one of these; ID tokens, whose audience can be the same, have neither.
    let application = ["azp", "appid"].into_iter().find_map(|name| claims.text(name).and_then(name_text));
    let log_in = config.purpose == Purpose::LogIn;
    let application = application.or_else(|| claims.text("aud").filter(|_| log_in).and_then(name_text));
    let application = application.ok_or(TokenError::Claim("azp"))?;
    let kind = if log_in {
        PrincipalKind::Human
    } else if is_agent(claims) {
        PrincipalKind::Agent
    } else if claims.text("idtyp") != Some("app") && claims.text("scp").is_some() {
        PrincipalKind::Human
    } else {
        PrincipalKind::Service
    };
    let mut aliases = vec![oid.clone()];
    if kind != PrincipalKind::Human {
        aliases.push(application.clone());
    }
    let credential_id = claims.text("uti").or_else(|| claims.text("jti")).and_then(name_text);
    let subject = format!("{tid}/{oid}");
    Ok(Who { kind, subject, tenant: Some(tid), application: Some(application), credential_id, aliases })
}

/// Entra's marks of agent identities. They are recorded; they widen nothing.
fn is_agent(claims: &Claims) -> bool {
    const AGENT: &str = "11";
    let marked = |name: &str| match claims.0.get(name) {
        Some(Value::String(text)) => text.split([' ', ',']).any(|facet| facet == AGENT),
        Some(Value::Array(list)) => list.iter().filter_map(scalar).any(|facet| facet == AGENT),
        Some(other) => scalar(other).is_some_and(|facet| facet == AGENT),
        None => false,
    };
    claims.text("xms_par_app_azp").is_some() || marked("xms_act_fct") || marked("xms_sub_fct")
}

/// A text that can be a name: not empty, not too long, without control characters.
fn name_text(text: &str) -> Option<String> {
    let good = !text.is_empty() && text.len() <= SUBJECT_MAX && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

/// Roles: a list of texts, or one text with blanks between. No such claim: no roles.
fn roles(config: &IssuerConfig, claims: &Claims) -> Result<Vec<String>, TokenError> {
    const REFUSED: TokenError = TokenError::Claim("roles");
    let mut roles = match claims.at(&config.roles_claim) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split(' ').filter(|role| !role.is_empty()).map(str::to_owned).collect(),
        Some(Value::Array(list)) => {
            list.iter().map(|role| role.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>().ok_or(REFUSED)?
        }
        Some(_) => return Err(REFUSED),
    };
    if roles.len() > ROLES_MAX || roles.iter().any(|role| role.len() > ROLE_MAX) {
        return Err(TokenError::TooManyRoles);
    }
    if roles.iter().any(|role| role.is_empty() || role.chars().any(char::is_control)) {
        return Err(REFUSED);
    }
    roles.sort();
    roles.dedup();
    Ok(roles)
}

/// Scalar claims as text, and Entra's `xms_…` lists of scalars with blanks between.
fn attributes(claims: &Claims) -> Result<BTreeMap<String, String>, TokenError> {
    let mut attributes = BTreeMap::new();
    for (name, value) in &claims.0 {
        let text = match value {
            Value::Array(list) if name.starts_with("xms_") => {
                list.iter().map(scalar).collect::<Option<Vec<_>>>().map(|list| list.join(" "))
            }
            other => scalar(other),
        };
        let Some(text) = text else { continue };
        if name.len() > CLAIM_NAME_MAX || text.len() > CLAIM_VALUE_MAX {
            continue;
        }
        if attributes.len() == CLAIMS_MAX {
            return Err(TokenError::TooManyClaims);
        }
        attributes.insert(name.clone(), text);
    }
    Ok(attributes)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
