//! Who may vouch for a caller: the settings of one `[[issuer]]`, and which `iss` values are its own.

use crate::limits::SKEW_MAX;
use std::path::PathBuf;
use std::time::Duration;

/// Kinds of issuers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IssuerKind {
    /// Any OpenID provider.
    Oidc,
    /// Microsoft Entra ID, with its own claim rules.
    Entra,
    /// The gateway's own [`crate::DevIssuer`].
    Dev,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// OpenID discovery: `ISSUER/.well-known/openid-configuration` names the key set.
    Discovery,
    /// The key set is at this address.
    Url(String),
    /// The key set is in this file. It is read again when it has changed.
    File(PathBuf),
    /// The key set itself, as JSON: [`crate::DevIssuer::jwks`].
    Inline(String),
}

/// What a token is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// To use something: an access token, whose audience is the gateway.
    #[default]
    Access,
    /// To say who has logged in: an ID token (OpenID Connect Core §2), whose audience is the gateway as a client.
    LogIn,
}

/// The settings of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The first part of its callers' ids. Not `key`: that is the machine keys' name.
    pub name: String,
    /// Its kind.
    pub kind: IssuerKind,
    /// The exact `iss`. Under Entra `https://login.microsoftonline.com/TENANT/v2.0`, where TENANT is a tenant's
    /// GUID, or `organizations`, `common` or `{tenantid}` for those of [`Self::tenants`]; tokens of version 1
    /// (`https://sts.windows.net/TENANT/`) of the same tenants are accepted too.
    pub issuer: String,
    /// Accepted `aud` values. Never empty.
    pub audiences: Vec<String>,
    /// What its tokens are shown for.
    pub purpose: Purpose,
    /// Where its keys are.
    pub keys: KeySource,
    /// The claim that holds the roles: its name, or a path with dots (`realm_access.roles`).
    pub roles_claim: String,
    /// Further claims by whose text a caller may call itself. Only such that the caller cannot choose.
    pub alias_claims: Vec<String>,
    /// Entra: the accepted tenants' GUIDs. Empty: the one in [`Self::issuer`].
    pub tenants: Vec<String>,
    /// By how much the issuer's clock may be ahead, for `nbf` and `iat`. At most 5 minutes.
    pub skew: Duration,
    /// The age (since `iat`) beyond which a token is refused even if it has not expired.
    pub token_age_max: Option<Duration>,
}

impl IssuerConfig {
    /// The settings that most issuers need: discovery, the claim `roles`, 60 seconds of skew.
    #[must_use]
    pub fn new(name: &str, kind: IssuerKind, issuer: &str, audiences: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            issuer: issuer.to_owned(),
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            purpose: Purpose::Access,
            keys: KeySource::Discovery,
            roles_claim: "roles".to_owned(),
            alias_claims: Vec::new(),
            tenants: Vec::new(),
            skew: Duration::from_secs(60),
            token_age_max: None,
        }
    }
}

/// What is wrong with an issuer's settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("issuer {name:?}: {problem}")]
pub struct IssuerProblem {
    /// Which issuer.
    pub name: String,
    /// What.
    pub problem: String,
}

/// The `iss` values of an issuer, and where its discovery document is.
#[derive(Debug)]
pub(crate) struct Names {
    /// Each accepted `iss`, with the tenant that it belongs to.
    pub(crate) accepted: Vec<(String, Option<String>)>,
    /// Entra with several tenants: a key must say for which issuer it signs.
    pub(crate) several_tenants: bool,
    /// Before `/.well-known/openid-configuration`.
    pub(crate) discovery_base: String,
    /// What the discovery document may call itself.
    pub(crate) discovery_issuers: Vec<String>,
}

const V1_PREFIX: &str = "https://sts.windows.net/";
const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com";
/// Stands for the tenant in Entra's shared documents.
pub(crate) const TENANT_TEMPLATE: &str = "{tenantid}";

impl Names {
    pub(crate) fn of(config: &IssuerConfig) -> Result<Self, IssuerProblem> {
        let refuse = |problem: &str| IssuerProblem { name: config.name.clone(), problem: problem.to_owned() };
        if config.name.is_empty() || config.name == "key" || config.name.contains('/') {
            return Err(refuse("the name must not be empty, \"key\", or contain \"/\""));
        }
        if config.issuer.is_empty() {
            return Err(refuse("the issuer is empty"));
        }
        if config.audiences.is_empty() || config.audiences.iter().any(String::is_empty) {
            return Err(refuse("an audience is needed: without it, tokens meant for others would be accepted"));
        }
        if config.skew > SKEW_MAX {
            return Err(refuse("the skew is more than 300 seconds"));
        }
        match config.kind {
            IssuerKind::Entra => Self::entra(config).map_err(refuse),
            IssuerKind::Oidc | IssuerKind::Dev => Ok(Self {
                accepted: vec![(config.issuer.clone(), None)],
                several_tenants: false,
                discovery_base: config.issuer.trim_end_matches('/').to_owned(),
                discovery_issuers: vec![config.issuer.clone()],
            }),
        }
    }

    fn entra(config: &IssuerConfig) -> Result<Self, &'static str> {
        const FORM: &str =
            "the form is https://login.microsoftonline.com/TENANT/v2.0, with the tenant's GUID or \"organizations\"";
        let (host, tenant) = match config.issuer.strip_prefix(V1_PREFIX) {
            Some(rest) => (PUBLIC_CLOUD, rest.trim_end_matches('/')),
            None => {
                let rest = config.issuer.trim_end_matches('/').strip_suffix("/v2.0").ok_or(FORM)?;
                rest.rsplit_once('/').ok_or(FORM)?
            }
        };
        let shared = matches!(tenant, "organizations" | "common" | TENANT_TEMPLATE);
        let mut tenants = Vec::new();
        for text in if config.tenants.is_empty() && !shared { vec![tenant.to_owned()] } else { config.tenants.clone() } {
            tenants.push(guid(&text).ok_or("a tenant is named by its GUID")?);
        }
        if !shared && guid(tenant).is_none() {
            return Err(FORM);
        }
        if tenants.is_empty() {
            // Any tenant's administrator can give roles of our application to their own programs.
            return Err("with a shared issuer, `tenants` must name the accepted tenants");
        }
        let mut accepted = Vec::new();
        for tenant in &tenants {
            accepted.push((format!("{host}/{tenant}/v2.0"), Some(tenant.clone())));
            if host == PUBLIC_CLOUD {
                accepted.push((format!("{V1_PREFIX}{tenant}/"), Some(tenant.clone())));
            }
        }
        let own = guid(tenant);
        let several_tenants = shared || tenants.len() > 1 || own.as_ref() != tenants.first();
        // The keys of all tenants are in the shared document alone.
        let document = if several_tenants { "organizations".to_owned() } else { own.unwrap_or_default() };
        let called = if several_tenants { TENANT_TEMPLATE } else { &document };
        Ok(Self {
            discovery_issuers: vec![format!("{host}/{called}/v2.0")],
            discovery_base: format!("{host}/{document}/v2.0"),
            accepted,
            several_tenants,
        })
    }
}

/// `text` in lower case, if it has the form of a GUID.
pub(crate) fn guid(text: &str) -> Option<String> {
    let groups = text.split('-').map(str::len).collect::<Vec<_>>();
    let digits = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    (groups == [8, 4, 4, 4, 12] && digits).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{IssuerConfig, IssuerKind, Names, guid};

    const TENANT: &str = "9f2b1c1e-0000-4000-8000-000000000001";
    const OTHER: &str = "9f2b1c1e-0000-4000-8000-000000000002";

    fn entra(issuer: &str, tenants: &[&str]) -> Result<Names, String> {
        let mut config = IssuerConfig::new("entra", IssuerKind::Entra, issuer, &["api://sallyport"]);
        config.tenants = tenants.iter().map(|tenant| (*tenant).to_owned()).collect();
        Names::of(&config).map_err(|error| error.problem)
    }

    fn issuers(names: &Names) -> Vec<&str> {
        names.accepted.iter().map(|(iss, _)| iss.as_str()).collect()
    }

    #[test]
    fn a_tenants_issuer_stands_for_both_versions() {
        let names = entra(&format!("https://login.microsoftonline.com/{TENANT}/v2.0"), &[]).unwrap();
        let expected = [format!("https://login.microsoftonline.com/{TENANT}/v2.0"), format!("https://sts.windows.net/{TENANT}/")];
        assert_eq!(issuers(&names), expected);
        assert!(!names.several_tenants);
        assert_eq!(names.discovery_base, expected[0]);

        let same = entra(&format!("https://sts.windows.net/{TENANT}/"), &[]).unwrap();
        assert_eq!(issuers(&same), expected);
    }

    #[test]
    fn a_shared_issuer_needs_its_tenants() {
        for shared in ["organizations", "common", "{tenantid}"] {
            let url = format!("https://login.microsoftonline.com/{shared}/v2.0");
            assert!(entra(&url, &[]).unwrap_err().contains("tenants"), "{shared}");
            let names = entra(&url, &[TENANT, OTHER]).unwrap();
            assert_eq!(names.accepted.len(), 4);
            assert!(names.several_tenants);
            assert_eq!(names.discovery_base, "https://login.microsoftonline.com/organizations/v2.0");
            assert_eq!(names.discovery_issuers, ["https://login.microsoftonline.com/{tenantid}/v2.0"]);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "https://login.microsoftonline.com/contoso.com/v2.0",
            "https://login.microsoftonline.com/",
            "x",
            "https://sts.windows.net/",
        ] {
            assert!(entra(bad, &[]).is_err(), "{bad}");
        }
        assert!(entra("https://login.microsoftonline.com/organizations/v2.0", &["contoso.com"]).is_err());
    }

    #[test]
    fn an_audience_is_needed_and_the_name_key_is_taken() {
        assert!(Names::of(&IssuerConfig::new("a", IssuerKind::Oidc, "https://a", &[])).is_err());
        assert!(Names::of(&IssuerConfig::new("a", IssuerKind::Oidc, "https://a", &[""])).is_err());
        assert!(Names::of(&IssuerConfig::new("key", IssuerKind::Oidc, "https://a", &["b"])).is_err());
        assert!(Names::of(&IssuerConfig::new("a/b", IssuerKind::Oidc, "https://a", &["b"])).is_err());
    }

    #[test]
    fn guids() {
        assert_eq!(guid("9F2B1C1E-0000-4000-8000-000000000001").as_deref(), Some(TENANT));
        for bad in [
            "",
            "9f2b1c1e00004000800000000000001",
            "9f2b1c1e-0000-4000-8000-00000000000g",
            "9f2b1c1e-0000-4000-8000-0000000000012",
        ] {
            assert_eq!(guid(bad), None, "{bad}");
        }
    }
}
