//! Logins: who is calling, which connection they want, and whether there is room.

use super::credential::Credential;
use super::parts::{keys_file, revocations_file};
use crate::config::{Config, Connection, TargetAddress, UpstreamTls};
use crate::target::tls::client_config;
use identity::login::LoginContext;
use identity::{Authenticator, Login, LoginOutcome, MachineKeys, Revocations, SaltedPasswords, Verifier};
use parking_lot::{Mutex, RwLock};
use proxy_core::session::{EndReason, LoginAttempt, LoginRefusal, TlsInfo};
use proxy_core::{Principal, SecretBytes, Timestamp};
use proxy_io::services::BoxFuture;
use proxy_io::{LoginConversation, LoginStep, Opened, PeerInfo, UpstreamEndpoint};
use rustls::pki_types::ServerName;
use std::any::Any;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;

/// Counts by key, each with a guard that counts down.
struct Places<K: Eq + Hash + Clone + Send + 'static>(Arc<Mutex<HashMap<K, usize>>>);

impl<K: Eq + Hash + Clone + Send + 'static> Default for Places<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

struct Place<K: Eq + Hash + Clone + Send + 'static> {
    places: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Eq + Hash + Clone + Send + 'static> Places<K> {
    fn take(&self, key: K, max: usize) -> Option<Place<K>> {
        let mut places = self.0.lock();
        let taken = places.entry(key.clone()).or_default();
        if *taken >= max {
            return None;
        }
        *taken += 1;
        Some(Place { places: self.0.clone(), key })
    }
}

impl<K: Eq + Hash + Clone + Send + 'static> Drop for Place<K> {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        if let Some(taken) = places.get_mut(&self.key) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.key);
            }
        }
    }
}

/// The gate: identities, connections, limits.
pub(super) struct Gate {
    /// For logins under way.
    this: Weak<Self>,
    config: RwLock<Arc<Config>>,
    authenticator: Arc<Authenticator>,
    salted: Arc<SaltedPasswords>,
    all: Places<()>,
    principals: Places<String>,
    addresses: Places<Option<IpAddr>>,
}

impl Gate {
    pub(super) fn new(config: &Arc<Config>, verifier: Verifier) -> Result<Arc<Self>, String> {
        let keys = MachineKeys::open(&keys_file(config)).map_err(|error| error.to_string())?;
        let revocations = Revocations::open(&revocations_file(config)).map_err(|error| error.to_string())?;
        let salted = SaltedPasswords::new().map_err(|error| error.to_string())?;
        Ok(Arc::new_cyclic(|this| Self {
            this: this.clone(),
            config: RwLock::new(config.clone()),
            authenticator: Arc::new(Authenticator::new(Arc::new(verifier), Arc::new(keys), Arc::new(revocations))),
            salted: Arc::new(salted),
            all: Places::default(),
            principals: Places::default(),
            addresses: Places::default(),
        }))
    }

    /// Uses another configuration from now on.
    pub(super) fn configure(&self, config: Arc<Config>, verifier: Verifier) {
        self.authenticator.replace_verifier(Arc::new(verifier));
        *self.config.write() = config;
    }

    /// Keeps issuers' keys, machine keys and kill list fresh until `stop`; `changed`: sessions should be checked.
    pub(super) async fn keep_fresh(&self, stop: CancellationToken, changed: impl Fn()) {
        self.authenticator.run(stop.cancelled(), changed).await;
    }

    /// The machine keys.
    pub(super) fn keys(&self) -> Arc<MachineKeys> {
        self.authenticator.keys().clone()
    }

    /// The kill list.
    pub(super) fn revocations(&self) -> Arc<Revocations> {
        self.authenticator.revocations().clone()
    }

    /// For the admin API.
    pub(super) async fn verify(&self, credential: &SecretBytes) -> Result<Principal, String> {
        self.authenticator.verify_bearer(credential.expose(), proxy_io::clock::now()).await.map_err(|failure| failure.reason)
    }

    fn open(
        &self,
        connection: &Connection,
        database: &str,
        principal: Principal,
        last: Option<Vec<u8>>,
    ) -> Result<Opened, LoginStep> {
        let config = self.config.read().clone();
        let full = |what: &str| {
            refused(LoginRefusal::TooMany, format!("too many connections {what}"), "Close some, or ask for a higher limit.")
        };
        let one = self.all.take((), config.limits.connections_max).ok_or_else(|| full("to the gateway"))?;
        let mine = self
            .principals
            .take(principal.id(), config.limits.connections_per_principal_max)
            .ok_or_else(|| full("of this principal"))?;
        let unavailable = |why: String| {
            tracing::error!(connection = connection.name, why, "a target cannot be used");
            refused(LoginRefusal::Unavailable, "the target cannot be used now".to_owned(), "The gateway's log says why.")
        };
        let tls = client_config(connection).map_err(|error| unavailable(error.to_string()))?;
        let (host, port) = match &connection.address {
            TargetAddress::Tcp { host, port } => (host.clone(), *port),
            TargetAddress::Unix { folder, port } => (folder.display().to_string(), *port),
        };
        let tls = match tls {
            None => None,
            Some(config) => {
                let server_name = ServerName::try_from(host.clone()).map_err(|error| unavailable(error.to_string()))?;
                Some(proxy_io::UpstreamTls { config, server_name })
            }
        };
        let credential = Credential {
            user: connection.user.clone(),
            password: connection.password.clone(),
            cache: self.salted.clone(),
            cleartext: connection.tls == UpstreamTls::VerifyFull || matches!(connection.address, TargetAddress::Unix { .. }),
        };
        Ok(Opened {
            expires: if connection.outlive_token { None } else { principal.expires },
            principal: Arc::new(principal),
            target: Arc::new(connection.target(database)),
            upstream: UpstreamEndpoint { host, port, tls, credential: Arc::new(credential) },
            last,
            slot: Box::new((one, mine)),
        })
    }
}

fn refused(kind: LoginRefusal, message: String, hint: &str) -> LoginStep {
    LoginStep::Refused { kind, reason: message.clone(), message, hint: hint.to_owned() }
}

impl proxy_io::Authenticate for Gate {
    fn admit(&self, address: Option<IpAddr>) -> Option<Box<dyn Any + Send>> {
        let max = self.config.read().limits.logins_per_address_max;
        let place = self.addresses.take(address, max)?;
        Some(Box::new(place))
    }

    fn begin(&self, peer: PeerInfo) -> Box<dyn LoginConversation> {
        Box::new(Conversation { gate: self.this.clone(), login: self.authenticator.begin(), peer })
    }

    fn still_valid(&self, principal: &Principal, now: Timestamp) -> Result<(), EndReason> {
        // What is revoked ends at once; what merely expired may be outlived where the connection says so.
        self.authenticator.not_revoked(principal, now)?;
        self.authenticator.still_valid(principal, now)
    }
}

struct Conversation {
    gate: Weak<Gate>,
    login: Login,
    peer: PeerInfo,
}

impl LoginConversation for Conversation {
    fn step<'a>(&'a mut self, now: Timestamp, attempt: LoginAttempt, tls: Option<&'a TlsInfo>) -> BoxFuture<'a, LoginStep> {
        Box::pin(async move {
            let Some(gate) = self.gate.upgrade() else {
                return refused(LoginRefusal::Unavailable, "the gateway is stopping".to_owned(), "Try again.");
            };
            let config = gate.config.read().clone();
            let resolved = resolve(&config, &self.peer, &attempt, tls);
            let context = LoginContext {
                label: &attempt.label,
                connection: resolved.as_ref().ok().map(|(connection, _)| connection.name.as_str()),
                server_end_point: tls.and_then(|tls| tls.server_end_point.as_deref()),
                now,
            };
            match self.login.step(&attempt.evidence, context).await {
                LoginOutcome::Challenge(challenge) => LoginStep::Challenge(challenge),
                LoginOutcome::Refused(failure) => LoginStep::Refused {
                    kind: failure.kind,
                    message: failure.message,
                    hint: failure.hint,
                    reason: failure.reason,
                },
                // Only who is known learns whether a connection exists.
                LoginOutcome::Accepted { principal, last } => match resolved {
                    Err(step) => step,
                    Ok((connection, database)) => match gate.open(&connection, &database, *principal, last) {
                        Ok(opened) => LoginStep::Accepted(Box::new(opened)),
                        Err(step) => step,
                    },
                },
            }
        })
    }
}

/// The connection and database that a login names: by its listener, by `CONNECTION[/DATABASE]`, or by TLS server name.
fn resolve(
    config: &Config,
    peer: &PeerInfo,
    attempt: &LoginAttempt,
    tls: Option<&TlsInfo>,
) -> Result<(Arc<Connection>, String), LoginStep> {
    let named = attempt.database.as_str();
    let unknown = |name: &str| {
        refused(
            LoginRefusal::NotAllowed,
            format!("connection \"{name}\" is not known to the gateway"),
            "Name CONNECTION or CONNECTION/DATABASE as the database.",
        )
    };
    let (connection, database) = if let Some(tied) = &peer.listener_connection {
        let connection = config.connection(tied).ok_or_else(|| unknown(tied))?;
        // Drivers name the user's own database when none is given, and the connection's name is understood too.
        let database = match named {
            "" => None,
            name if name == tied || name == attempt.label => None,
            name => Some(name.strip_prefix(&format!("{tied}/")).unwrap_or(name)),
        };
        (connection, database)
    } else if let Some((name, database)) = named.split_once('/') {
        (config.connection(name).ok_or_else(|| unknown(name))?, Some(database))
    } else if let Some(connection) = config.connection(named) {
        (connection, None)
    } else {
        let by_name = tls.and_then(|tls| tls.server_name.as_deref()).and_then(|name| name.split('.').next());
        let connection = by_name.and_then(|name| config.connection(name)).ok_or_else(|| unknown(named))?;
        (connection, (!named.is_empty() && named != attempt.label).then_some(named))
    };
    let database = database.filter(|database| !database.is_empty()).unwrap_or(&connection.database);
    if !connection.allows_database(database) {
        return Err(refused(
            LoginRefusal::NotAllowed,
            format!("database \"{database}\" is not allowed on connection \"{}\"", connection.name),
            "Leave the database out, or have it added to the connection's `databases`.",
        ));
    }
    Ok((connection.clone(), database.to_owned()))
}
