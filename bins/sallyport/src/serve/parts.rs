//! Parts made from the configuration: for the gateway's start, its reloads, and `sallyport check`.

use crate::cli::Failure;
use crate::config::{Config, IssuerKind, KeySource, MaskWith, SecretError};
use control_plane::login::{Login, LoginConfig, ProviderConfig};
use identity::{DevIssuer, HttpClient, IssuerConfig, Revocations, Verifier};
use masking::{Classify, MaskRules, MaskSpec};
use policy::PolicySet;
use proxy_core::{Principal, SecretBytes};
use proxy_io::clock::now;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The policy set in the configured folder.
///
/// # Errors
/// It does not load: each problem with its file and line.
pub fn policies(config: &Config) -> Result<PolicySet, Failure> {
    PolicySet::load(&config.policy_dir).map_err(|error| Failure::usage(error.to_string()))
}

/// The masking rules.
///
/// # Errors
/// Everything that is wrong with them.
pub fn masks(config: &Config) -> Result<MaskRules, Failure> {
    let classify: Vec<_> = config
        .classify
        .iter()
        .map(|c| Classify { class: c.class.clone(), columns: c.columns.clone(), detect: c.detect.clone() })
        .collect();
    let specs: Result<Vec<_>, SecretError> = config
        .masks
        .iter()
        .map(|mask| {
            let with = match &mask.with {
                MaskWith::Email => masking::MaskWith::Email,
                MaskWith::Partial { first, last } => masking::MaskWith::Partial { first: *first, last: *last },
                MaskWith::Redact => masking::MaskWith::Redact,
                MaskWith::Hash { secret } => {
                    masking::MaskWith::Hash { secret: secret.as_ref().map(crate::config::Secret::get).transpose()? }
                }
                MaskWith::Null => masking::MaskWith::Null,
                MaskWith::Fixed(value) => masking::MaskWith::Fixed(value.clone()),
            };
            Ok(MaskSpec { class: mask.class.clone(), with })
        })
        .collect();
    let specs = specs.map_err(|error| Failure::finding(error.to_string()))?;
    let safe: Vec<_> = config
        .connections
        .iter()
        .flat_map(|connection| connection.safe_functions.iter().map(move |function| format!("{}/{function}", connection.name)))
        .collect();
    let key = hash_key(config)?;
    MaskRules::new(&classify, &specs, &safe, &key).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Failure::usage(format!("{}: {}", config.file.display(), lines.join("\n")))
    })
}

/// The gateway's own key for hashes: made once, kept under the data folder.
fn hash_key(config: &Config) -> Result<SecretBytes, Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = config.control_dir().join("hash.key");
    let failed = |error: std::io::Error| Failure::finding(format!("{}: {error}", path.display()));
    match std::fs::read(&path) {
        Ok(key) if key.len() == 32 => return Ok(SecretBytes::new(key)),
        Ok(_) => return Err(Failure::finding(format!("{} is damaged: it must be 32 bytes", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    std::fs::create_dir_all(config.control_dir()).map_err(failed)?;
    let mut key = vec![0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Failure::finding("the system has no randomness"))?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(SecretBytes::new(key))
}

/// The dev issuer's folder.
#[must_use]
pub fn dev_issuer_dir(config: &Config) -> PathBuf {
    config.control_dir().join("dev-issuer")
}

/// The file of the machine keys.
#[must_use]
pub fn keys_file(config: &Config) -> PathBuf {
    config.control_dir().join("keys.json")
}

/// The file of the kill list.
#[must_use]
pub fn revocations_file(config: &Config) -> PathBuf {
    config.control_dir().join("revocations.json")
}

/// How people log in; `None`: nobody does.
///
/// # Errors
/// The provider's settings cannot be used.
pub fn login(config: &Config, revocations: Arc<Revocations>) -> Result<Option<Arc<Login>>, Failure> {
    let dev_tokens = config.issuers.iter().any(|issuer| issuer.kind == IssuerKind::Dev);
    let settings = match &config.login {
        None if !dev_tokens => return Ok(None),
        None => LoginConfig {
            provider: None,
            url: None,
            dev_tokens,
            lasts: Duration::from_secs(8 * 3_600),
            idle: Duration::from_secs(3_600),
            fresh: None,
        },
        Some(login) => LoginConfig {
            provider: Some(provider(config, login)?),
            url: Some(login.url.clone()),
            dev_tokens,
            lasts: login.session,
            idle: login.idle,
            fresh: login.fresh,
        },
    };
    let http = HttpClient::new(None).map_err(|error| Failure::finding(error.to_string()))?;
    let stands = move |principal: &Principal| revocations.against(principal, now()).is_none();
    let login = Login::new(settings, http, Box::new(stands)).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Some(login))
}

fn provider(config: &Config, login: &crate::config::Login) -> Result<ProviderConfig, Failure> {
    let missing = || Failure::usage(format!("[login] names the issuer {:?}, which is not there", login.issuer));
    let issuer = config.issuers.iter().find(|issuer| issuer.name == login.issuer).ok_or_else(missing)?;
    let mut settings = issuer_settings(config, issuer)?;
    settings.audiences = vec![login.client_id.clone()];
    settings.purpose = identity::Purpose::LogIn;
    let secret = login.client_secret.clone();
    Ok(ProviderConfig {
        discovery: issuer.issuer.clone(),
        issuer: settings,
        client_id: login.client_id.clone(),
        client_secret: secret.map(|secret| {
            let get = move || secret.get().map_err(|error| error.to_string());
            Box::new(get) as control_plane::login::ClientSecret
        }),
        scopes: login.scopes.clone(),
        url: login.url.clone(),
    })
}

/// Verifies tokens of the configured issuers.
///
/// # Errors
/// An issuer's settings cannot be used.
pub fn verifier(config: &Config) -> Result<Verifier, Failure> {
    let issuers: Result<Vec<_>, Failure> = config.issuers.iter().map(|issuer| issuer_settings(config, issuer)).collect();
    let http = HttpClient::new(None).map_err(|error| Failure::finding(error.to_string()))?;
    Verifier::new(issuers?, http).map_err(|error| Failure::usage(error.to_string()))
}

fn issuer_settings(config: &Config, issuer: &crate::config::Issuer) -> Result<IssuerConfig, Failure> {
    let keys = match &issuer.keys {
        KeySource::Discovery => identity::KeySource::Discovery,
        KeySource::Url(url) => identity::KeySource::Url(url.clone()),
        KeySource::File(path) => identity::KeySource::File(path.clone()),
        KeySource::Own => {
            let dev = DevIssuer::open_or_create(&dev_issuer_dir(config), &issuer.issuer)
                .map_err(|error| Failure::finding(error.to_string()))?;
            identity::KeySource::Inline(dev.jwks())
        }
    };
    let kind = match issuer.kind {
        IssuerKind::Oidc => identity::IssuerKind::Oidc,
        IssuerKind::Entra => identity::IssuerKind::Entra,
        IssuerKind::Dev => identity::IssuerKind::Dev,
    };
    let mut settings = IssuerConfig::new(&issuer.name, kind, &issuer.issuer, &[]);
    settings.audiences.clone_from(&issuer.audiences);
    settings.keys = keys;
    settings.roles_claim.clone_from(&issuer.roles_claim);
    settings.tenants.clone_from(&issuer.tenants);
    Ok(settings)
}
