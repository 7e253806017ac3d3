//! One login: evidence in, principal out.

use crate::error::{TokenError, shown};
use crate::keys::{KeyError, KeyExchange, MachineKeys, is_secret};
use crate::revocations::Revocations;
use crate::scram::ScramError;
use crate::store::StoreFileError;
use crate::verifier::{REFRESH_ROUND, Verifier};
use parking_lot::RwLock;
use proxy_core::session::{EndReason, Evidence, LoginRefusal};
use proxy_core::{Principal, Timestamp};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How often machine keys and kill list are looked at for changes (500 ms): a revocation ends sessions within
/// a second.
const FILES_ROUND: Duration = Duration::from_millis(500);

/// Checks callers: tokens by the [`Verifier`], machine keys by [`MachineKeys`], both against [`Revocations`].
/// Share it by `Arc`.
#[derive(Debug)]
pub struct Authenticator {
    verifier: RwLock<Arc<Verifier>>,
    keys: Arc<MachineKeys>,
    revocations: Arc<Revocations>,
}

/// A refused login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFailure {
    /// Which sort.
    pub kind: LoginRefusal,
    /// What the client may see.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// The whole reason, for the record. No secret is in it.
    pub reason: String,
    /// A short fixed word: a metric's label.
    pub label: &'static str,
}

/// A login's next step.
#[derive(Debug)]
pub enum LoginOutcome {
    /// Send this to the client, and pass on what it answers.
    Challenge(Vec<u8>),
    /// The caller is known.
    Accepted {
        /// Who.
        principal: Box<Principal>,
        /// The mechanism's closing message, to be sent before the login is confirmed.
        last: Option<Vec<u8>>,
    },
    /// The caller is refused. The login is over.
    Refused(LoginFailure),
}

/// One login attempt of one session.
pub struct Login {
    authenticator: Arc<Authenticator>,
    state: State,
}

enum State {
    Initial,
    Exchange { exchange: Box<KeyExchange>, label: String },
    Over,
}

/// What is known about one step of a login.
#[derive(Debug, Clone, Copy)]
pub struct LoginContext<'a> {
    /// What the caller calls itself.
    pub label: &'a str,
    /// The connection that it asks for, as resolved; `None`: not known yet, and then
    /// [`MachineKeys::allows`] must be asked later.
    pub connection: Option<&'a str>,
    /// `tls-server-end-point` of our certificate, if SCRAM-SHA-256-PLUS was offered on this connection.
    pub server_end_point: Option<&'a [u8]>,
    /// Now.
    pub now: Timestamp,
}

impl Authenticator {
    /// Of these parts.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, keys: Arc<MachineKeys>, revocations: Arc<Revocations>) -> Self {
        Self { verifier: RwLock::new(verifier), keys, revocations }
    }

    /// The verifier in use.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read())
    }

    /// Uses another verifier from now on: after a reload of the configuration. It takes over the known keys.
    pub fn replace_verifier(&self, verifier: Arc<Verifier>) {
        let mut current = self.verifier.write();
        verifier.adopt_keys(&current);
        *current = verifier;
    }

    /// The machine keys.
    #[must_use]
    pub fn keys(&self) -> &Arc<MachineKeys> {
        &self.keys
    }

    /// The kill list.
    #[must_use]
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Begins a login.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Login {
        Login { authenticator: Arc::clone(self), state: State::Initial }
    }

    /// Whether a session's caller may go on: the credential has not expired, and neither it nor the principal is
    /// revoked. Cheap enough for every session, every second.
    ///
    /// # Errors
    /// Why the session must end.
    pub fn still_valid(&self, principal: &Principal, now: Timestamp) -> Result<(), EndReason> {
        if principal.expires.is_some_and(|expires| expires <= now) {
            return Err(EndReason::Expired);
        }
        self.not_revoked(principal, now)
    }

    /// The same without the expiry: for a connection whose sessions may outlive their token.
    ///
    /// # Errors
    /// Why the session must end.
    pub fn not_revoked(&self, principal: &Principal, now: Timestamp) -> Result<(), EndReason> {
        self.keys.still_valid(principal, now)?;
        if self.revocations.against(principal, now).is_some() { Err(EndReason::Revoked) } else { Ok(()) }
    }

    /// What must be done in the background, until `shutdown` completes: keeps the issuers' keys fresh, whichever
    /// verifier is in use, and reads machine keys and kill list again, twice a second, when they have changed; then it
    /// calls `changed`, so that live sessions are checked. Run it once, on any runtime.
    pub async fn run(&self, shutdown: impl Future<Output = ()>, changed: impl Fn()) {
        let refresh = async {
            loop {
                self.verifier().refresh_due().await;
                tokio::time::sleep(REFRESH_ROUND).await;
            }
        };
        let reload = async {
            let mut problem = None;
            loop {
                let (any, read) = self.reload_files();
                if any {
                    changed();
                }
                let now = read.err().map(|error| error.to_string());
                // Once for each problem, not each second.
                if let Some(error) = now.as_ref().filter(|_| now != problem) {
                    tracing::error!(%error, "machine keys or revocations cannot be read again: what was known stays in force");
                }
                problem = now;
                tokio::time::sleep(FILES_ROUND).await;
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = async { tokio::join!(refresh, reload); } => {}
        }
    }

    /// Reads machine keys and kill list again if they have changed; both, even if one fails: whether one had,
    /// and the first problem.
    pub fn reload_files(&self) -> (bool, Result<(), StoreFileError>) {
        let keys = self.keys.reload_if_changed();
        let revocations = self.revocations.reload_if_changed();
        let any = matches!(keys, Ok(true)) || matches!(revocations, Ok(true));
        (any, keys.and(revocations).map(|_| ()))
    }

    /// Verifies a token or a machine key's secret outside a protocol's login: for the admin API. The label is
    /// not checked.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn verify_bearer(&self, credential: &[u8], now: Timestamp) -> Result<Principal, LoginFailure> {
        let principal = if is_secret(credential) {
            self.keys.verify_secret(credential, now).map_err(|error| LoginFailure::key(&error))?
        } else {
            let verifier = self.verifier();
            let at_once = verifier.try_verify(credential, now);
            let verified = match at_once {
                Some(result) => result,
                None => verifier.verify(credential, now).await,
            };
            verified.map_err(|error| LoginFailure::token(&error))?
        };
        match self.revocations.against(&principal, now) {
            None => Ok(principal),
            Some(entry) => Err(LoginFailure {
                kind: LoginRefusal::NotAllowed,
                message: "this identity has been revoked".to_owned(),
                hint: "ask the gateway's administrator".to_owned(),
                reason: format!("{} is on the kill list: {}, by {}", principal.id(), shown(&entry.reason), shown(&entry.by)),
                label: "revoked",
            }),
        }
    }
}

impl Login {
    /// Takes what the client shows. Fetching an issuer's keys can take 10 seconds; everything else is at once.
    pub async fn step(&mut self, evidence: &Evidence, context: LoginContext<'_>) -> LoginOutcome {
        match self.try_step(evidence, context).await {
            Ok(outcome) => outcome,
            Err(failure) => LoginOutcome::Refused(failure),
        }
    }

    async fn try_step(&mut self, evidence: &Evidence, context: LoginContext<'_>) -> Result<LoginOutcome, LoginFailure> {
        match (evidence, std::mem::replace(&mut self.state, State::Over)) {
            (Evidence::Password(password), State::Initial) => {
                if password.expose().is_empty() {
                    return Err(LoginFailure::no_password());
                }
                let principal = self.authenticator.verify_bearer(password.expose(), context.now).await?;
                self.accept(principal, None, context)
            }
            (Evidence::SaslInitial { mechanism, data }, State::Initial) => {
                let binding = context.server_end_point.map(<[u8]>::to_vec);
                let mut exchange = Box::new(self.authenticator.keys.exchange(context.label, binding));
                let challenge = exchange.scram.first(mechanism, data).map_err(LoginFailure::scram)?;
                self.state = State::Exchange { exchange, label: context.label.to_owned() };
                Ok(LoginOutcome::Challenge(challenge))
            }
            (Evidence::SaslResponse(data), State::Exchange { mut exchange, label }) if label == context.label => {
                let last = exchange.scram.last(data).map_err(LoginFailure::scram)?;
                let keys = &self.authenticator.keys;
                let principal = keys.principal_for(&exchange, context.now).map_err(|error| LoginFailure::key(&error))?;
                let revoked = self.authenticator.revocations.against(&principal, context.now).is_some();
                if revoked {
                    return Err(LoginFailure::revoked(&principal));
                }
                self.accept(principal, Some(last), context)
            }
            _ => Err(LoginFailure::scram(ScramError::Sequence)),
        }
    }

    fn accept(
        &self,
        principal: Principal,
        last: Option<Vec<u8>>,
        context: LoginContext<'_>,
    ) -> Result<LoginOutcome, LoginFailure> {
        if !principal.answers_to(context.label) {
            return Err(LoginFailure::label(&principal, context.label));
        }
        if let Some(connection) = context.connection
            && !self.authenticator.keys.allows(&principal, connection)
        {
            return Err(LoginFailure::connection(&principal, connection));
        }
        Ok(LoginOutcome::Accepted { principal: Box::new(principal), last })
    }
}

impl LoginFailure {
    fn token(error: &TokenError) -> Self {
        let (message, hint) = error.public();
        Self { kind: error.refusal(), message, hint: hint.to_owned(), reason: error.to_string(), label: error.label() }
    }

    fn key(error: &KeyError) -> Self {
        let (message, hint) = error.public();
        let label = match error {
            KeyError::Mistyped => "key_mistyped",
            KeyError::Wrong => "key_wrong",
            KeyError::Expired { .. } => "expired",
            KeyError::Revoked { .. } => "revoked",
        };
        Self { kind: LoginRefusal::Credential, message, hint: hint.to_owned(), reason: error.to_string(), label }
    }

    /// A wrong proof says what a wrong key says.
    fn scram(error: ScramError) -> Self {
        match error {
            ScramError::Proof => Self::key(&KeyError::Wrong),
            ScramError::NoRandomness(_) => Self {
                kind: LoginRefusal::Unavailable,
                message: "the gateway cannot check logins now".to_owned(),
                hint: "try again".to_owned(),
                reason: error.to_string(),
                label: "unavailable",
            },
            ScramError::Mechanism
            | ScramError::TooLong
            | ScramError::Malformed(_)
            | ScramError::Downgrade
            | ScramError::Binding
            | ScramError::Nonce
            | ScramError::Sequence => Self {
                kind: LoginRefusal::Credential,
                message: error.to_string(),
                hint: "use a driver that supports SCRAM-SHA-256, or send the machine key as the password".to_owned(),
                reason: error.to_string(),
                label: "sasl",
            },
        }
    }

    fn no_password() -> Self {
        Self {
            kind: LoginRefusal::Credential,
            message: "the password is empty".to_owned(),
            hint: "send the access token, or a machine key, as the password".to_owned(),
            reason: "the password is empty".to_owned(),
            label: "empty",
        }
    }

    fn revoked(principal: &Principal) -> Self {
        Self {
            kind: LoginRefusal::NotAllowed,
            message: "this identity has been revoked".to_owned(),
            hint: "ask the gateway's administrator".to_owned(),
            reason: format!("{} is on the kill list", principal.id()),
            label: "revoked",
        }
    }

    fn label(principal: &Principal, label: &str) -> Self {
        let label = shown(label);
        let subject = shown(&principal.subject);
        let what = if principal.issuer == crate::keys::KEY_ISSUER { "key" } else { "token" };
        Self {
            kind: LoginRefusal::Credential,
            message: format!("user \"{label}\" is not the {what}'s subject"),
            hint: format!("connect as user \"{subject}\""),
            reason: format!(
                "{} called itself {label:?}; it may call itself {subject:?} or {:?}",
                principal.id(),
                principal.aliases
            ),
            label: "label",
        }
    }

    fn connection(principal: &Principal, connection: &str) -> Self {
        let connection = shown(connection);
        Self {
            kind: LoginRefusal::NotAllowed,
            message: format!("this machine key is not for the connection \"{connection}\""),
            hint: "ask the gateway's administrator for a key that is".to_owned(),
            reason: format!("the key of {} is not for the connection {connection:?}", principal.id()),
            label: "key_connection",
        }
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
