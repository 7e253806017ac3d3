//! Verifies tokens of all configured issuers.
//!
//! The order: take the token apart, choose the issuer by `iss`, find the key, verify the signature, and only then
//! look at the other claims.

use crate::cache::{Clock, KeyCache, KeyStatus, Lookup, Why};
use crate::claims;
use crate::error::{TokenError, shown};
use crate::http::{FetchError, HttpClient};
use crate::issuer::{IssuerConfig, IssuerKind, IssuerProblem, Names, TENANT_TEMPLATE};
use crate::jwks::{Key, KeySet, NoKey};
use crate::jwt::Unverified;
use proxy_core::{Principal, Timestamp};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// How often it is looked whether keys are due (5 s).
pub(crate) const REFRESH_ROUND: Duration = Duration::from_secs(5);

/// Verifies tokens. Share it by `Arc`: all methods take `&self`.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Issuer>,
    http: HttpClient,
}

#[derive(Debug)]
struct Issuer {
    config: IssuerConfig,
    names: Names,
    keys: KeyCache,
}

/// What can be said of a token without I/O.
enum Step<'a> {
    Done(Box<Result<Principal, TokenError>>),
    Fetch(&'a Issuer, Why),
}

impl Verifier {
    /// For these issuers. Nothing is fetched yet.
    ///
    /// # Errors
    /// The first issuer whose settings are wrong, or whose name or `iss` another one has.
    pub fn new(issuers: Vec<IssuerConfig>, http: HttpClient) -> Result<Self, IssuerProblem> {
        Self::with_clock(issuers, http, &Clock::default())
    }

    pub(crate) fn with_clock(issuers: Vec<IssuerConfig>, http: HttpClient, clock: &Clock) -> Result<Self, IssuerProblem> {
        // Which of several providers is linked must not depend on who else is in the program. If one is
        // installed already, it is this one: no other is compiled in.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let mut made: Vec<Issuer> = Vec::new();
        for config in issuers {
            let names = Names::of(&config)?;
            let refuse = |problem: &str| IssuerProblem { name: config.name.clone(), problem: problem.to_owned() };
            if made.iter().any(|other| other.config.name == config.name) {
                return Err(refuse("another issuer has the same name"));
            }
            if made.iter().any(|other| names.accepted.iter().any(|(iss, _)| other.accepts(iss).is_some())) {
                return Err(refuse("another issuer has the same \"iss\": list both audiences in one"));
            }
            let keys = KeyCache::new(config.keys.clone(), clock.clone());
            made.push(Issuer { config, names, keys });
        }
        Ok(Self { issuers: made, http })
    }

    /// Takes over the keys that `previous` knows, for issuers that are the same: so that a reload fetches nothing.
    pub fn adopt_keys(&self, previous: &Self) {
        for issuer in &self.issuers {
            let same = |other: &&Issuer| {
                other.config.issuer == issuer.config.issuer && other.names.discovery_base == issuer.names.discovery_base
            };
            if let Some(other) = previous.issuers.iter().find(same) {
                issuer.keys.adopt(&other.keys);
            }
        }
    }

    /// Verifies a token with the keys at hand. `None`: keys must be fetched first, by [`Self::verify`].
    #[must_use]
    pub fn try_verify(&self, token: &[u8], now: Timestamp) -> Option<Result<Principal, TokenError>> {
        match self.step(token, now, true) {
            Step::Done(result) => Some(*result),
            Step::Fetch(..) => None,
        }
    }

    /// Verifies a token, and fetches the issuer's keys if that is needed: within 10 seconds (two documents).
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn verify(&self, token: &[u8], now: Timestamp) -> Result<Principal, TokenError> {
        let (issuer, why) = match self.step(token, now, true) {
            Step::Done(result) => return *result,
            Step::Fetch(issuer, why) => (issuer, why),
        };
        let fetched = issuer.keys.fetch(&self.http, &issuer.names, why).await;
        if let Err(error) = &fetched {
            tracing::warn!(issuer = issuer.config.name, %error, "an issuer's keys could not be fetched");
        }
        match self.step(token, now, false) {
            Step::Done(result) => *result,
            Step::Fetch(issuer, _) => Err(issuer.unavailable(fetched.err())),
        }
    }

    fn step(&self, token: &[u8], now: Timestamp, may_fetch: bool) -> Step<'_> {
        let done = |result| Step::Done(Box::new(result));
        let token = match Unverified::parse(token) {
            Ok(token) => token,
            Err(error) => return done(Err(error)),
        };
        let Some(iss) = token.claims.text("iss") else { return done(Err(TokenError::Claim("iss"))) };
        let Some((issuer, tenant)) = self.issuers.iter().find_map(|issuer| Some((issuer, issuer.accepts(iss)?))) else {
            return done(Err(TokenError::UnknownIssuer(shown(iss))));
        };
        let keys = match issuer.keys.lookup() {
            Lookup::Keys(keys) => keys,
            Lookup::Fetch => return Step::Fetch(issuer, Why::Needed),
            Lookup::Unavailable(error) => return done(Err(issuer.unavailable(Some(error)))),
        };
        match issuer.check(&token, &keys, tenant.as_deref(), iss, now) {
            Err(TokenError::UnknownKey { .. }) if may_fetch && issuer.keys.may_ask_for_unknown() => {
                Step::Fetch(issuer, Why::UnknownKey)
            }
            result => done(result),
        }
    }

    /// Fetches every issuer's keys now.
    pub async fn refresh_all(&self) {
        for issuer in &self.issuers {
            issuer.refresh(&self.http).await;
        }
    }

    /// Fetches the keys of those issuers for which it is time: never fetched, an hour old, or failed a minute ago.
    pub async fn refresh_due(&self) {
        for issuer in self.issuers.iter().filter(|issuer| issuer.keys.is_due()) {
            issuer.refresh(&self.http).await;
        }
    }

    /// How every issuer's keys stand.
    #[must_use]
    pub fn key_status(&self) -> Vec<KeyStatus> {
        self.issuers.iter().map(|issuer| issuer.keys.status(&issuer.config.name)).collect()
    }

    /// Keeps the keys fresh until `shutdown` completes: at once, then hourly; files every 30 seconds. An issuer
    /// that does not answer is asked again every minute.
    pub async fn run_refresh(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        loop {
            let round = async {
                self.refresh_due().await;
                tokio::time::sleep(REFRESH_ROUND).await;
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = round => {}
            }
        }
    }
}

impl Issuer {
    /// Whether `iss` is one of this issuer's, and which tenant it stands for.
    #[expect(clippy::option_option, reason = "an accepted iss may stand for no tenant")]
    fn accepts(&self, iss: &str) -> Option<Option<String>> {
        self.names.accepted.iter().find(|(own, _)| own == iss).map(|(_, tenant)| tenant.clone())
    }

    fn unavailable(&self, cause: Option<FetchError>) -> TokenError {
        let cause = cause.map_or_else(|| "they are too old".to_owned(), |error| error.to_string());
        TokenError::KeysUnavailable { issuer: self.config.name.clone(), cause }
    }

    async fn refresh(&self, http: &HttpClient) {
        let failing = self.keys.status(&self.config.name).error.is_some();
        match self.keys.fetch(http, &self.names, Why::Due).await {
            Ok(()) if failing => tracing::info!(issuer = self.config.name, "the issuer's keys could be fetched again"),
            Ok(()) => tracing::debug!(issuer = self.config.name, "the issuer's keys were refreshed"),
            Err(error) => tracing::warn!(issuer = self.config.name, %error, "the issuer's keys could not be refreshed"),
        }
    }

    fn check(
        &self,
        token: &Unverified<'_>,
        keys: &KeySet,
        tenant: Option<&str>,
        iss: &str,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        let issuer = || self.config.name.clone();
        let kid = || token.key_id.as_deref().map(shown);
        let key = keys.find(token.key_id.as_deref(), token.algorithm).map_err(|error| match error {
            NoKey::Unknown => TokenError::UnknownKey { issuer: issuer(), kid: kid() },
            NoKey::OtherAlgorithm => {
                TokenError::KeyMismatch { issuer: issuer(), kid: kid(), algorithm: token.algorithm_name.clone() }
            }
        })?;
        let verified = jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), &key.decoding, token.algorithm);
        if !matches!(verified, Ok(true)) {
            return Err(TokenError::BadSignature(issuer()));
        }
        if self.config.kind == IssuerKind::Entra {
            self.check_key_issuer(key, tenant, iss)?;
        }
        claims::check_use(&self.config, &token.claims)?;
        claims::check_audience(&self.config, &token.claims)?;
        let expires = claims::check_times(&self.config, &token.claims, now)?;
        claims::principal(&self.config, &token.claims, tenant, expires)
    }

    /// Entra's shared key set names for each key the issuer that it signs for, in the form of version 2, whatever
    /// the token's version. A key that signs for one tenant must not make tokens of another.
    fn check_key_issuer(&self, key: &Key, tenant: Option<&str>, iss: &str) -> Result<(), TokenError> {
        let Some(signs_for) = &key.issuer else {
            return if self.names.several_tenants { Err(TokenError::KeyOfOtherIssuer(String::new())) } else { Ok(()) };
        };
        let tenant = tenant.unwrap_or_default();
        let signs_for = signs_for.replace(TENANT_TEMPLATE, tenant);
        let version_2 = self.names.accepted.iter().find(|(_, own)| own.as_deref() == Some(tenant)).map(|(iss, _)| iss.as_str());
        if signs_for == iss || Some(signs_for.as_str()) == version_2 {
            Ok(())
        } else {
            Err(TokenError::KeyOfOtherIssuer(shown(&signs_for)))
        }
    }
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
