//! `sallyport.toml`, typed. Every path is absolute or relative to the process, never to the file.

use super::problem::Problem;
use super::secret::Secret;
use super::shipping::Shipping;
use super::streams::Stream;
use super::vaults::{Fetching, KeyVaultConfig, VaultConfig, WrapSource};
use control_plane::keeping::Retention;
use proxy_core::limits::SessionLimits;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A configuration that is complete and consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that it came from.
    pub file: PathBuf,
    /// Where the gateway keeps its state.
    pub data_dir: PathBuf,
    /// Event loops; `None`: one for every two cores.
    pub threads: Option<usize>,
    /// What clients see; always there when a listener may do TLS.
    pub tls: Option<TlsFiles>,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// Who may vouch for callers.
    pub issuers: Vec<Issuer>,
    /// How people log in to the pages; `None`: by the development issuer's tokens at most.
    pub login: Option<Login>,
    /// The targets.
    pub connections: Vec<Arc<Connection>>,
    /// Which data is what.
    pub classify: Vec<Classify>,
    /// What classes look like masked.
    pub masks: Vec<MaskConfig>,
    /// Where the policies are.
    pub policy_dir: PathBuf,
    /// Limits.
    pub limits: Limits,
    /// The audit log.
    pub audit: Audit,
    /// How long contents of the log are kept; what no rule is for is kept for ever.
    pub retention: Vec<Retention>,
    /// Who cosigns its checkpoints; at least [`Audit::witnesses_min`].
    pub witnesses: Vec<WitnessConfig>,
    /// Where the audit log is sent.
    pub streams: Vec<Stream>,
    /// Vault, if there is one.
    pub vault: Option<VaultConfig>,
    /// How Azure Key Vaults are asked.
    pub keyvault: KeyVaultConfig,
    /// How often secrets of other machines are fetched.
    pub fetching: Fetching,
    /// The secrets of other machines that the file names, each once.
    pub remote_secrets: Vec<Secret>,
    /// Object storage that it is shipped to.
    pub shipping: Vec<Shipping>,
    /// Who is told of what waits.
    pub notify: Vec<Notify>,
    /// Logs and traces.
    pub telemetry: Telemetry,
    /// What is doubtful, but not wrong.
    pub warnings: Vec<Problem>,
    /// SHA-256 over [`Self::lines`], hexadecimal.
    pub digest: String,
    /// Every value of the file, one `path = value` line each, sorted. References to secrets are in it, secrets are not.
    pub lines: Vec<String>,
}

impl Config {
    /// The connection of that name.
    #[must_use]
    pub fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        self.connections.iter().find(|connection| connection.name == name)
    }

    /// The admin API's Unix socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// The audit store's folder.
    #[must_use]
    pub fn audit_dir(&self) -> PathBuf {
        self.data_dir.join("audit")
    }

    /// The folder that the log is published in.
    #[must_use]
    pub fn export_dir(&self) -> PathBuf {
        self.data_dir.join("export")
    }

    /// How far a stream of the audit log has come.
    #[must_use]
    pub fn stream_cursor(&self, name: &str) -> PathBuf {
        self.control_dir().join("streams").join(format!("{name}.json"))
    }

    /// What is to be known of a place that the log is shipped to, and is not configuration: `KIND` is what it is.
    #[must_use]
    pub fn shipping_file(&self, name: &str, kind: &str) -> PathBuf {
        self.control_dir().join("shipping").join(format!("{name}.{kind}.json"))
    }

    /// The folder for machine keys, the dev issuer's key and other state that is not configuration.
    #[must_use]
    pub fn control_dir(&self) -> PathBuf {
        self.data_dir.join("control")
    }
}

/// Certificate and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key.
    pub private_key: PathBuf,
}

/// Protocols of listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerProtocol {
    /// PostgreSQL.
    Postgres,
    /// REST API, metrics, health.
    Admin,
}

impl ListenerProtocol {
    /// Its word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Admin => "admin",
        }
    }
}

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether only processes of this host can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[[listener]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What is spoken.
    pub protocol: ListenerProtocol,
    /// Where.
    pub address: Address,
    /// The one connection that it serves, if it is tied.
    pub connection: Option<String>,
    /// Whether clients may come without TLS. Only ever true on a local address.
    pub tls_optional: bool,
}

/// Kinds of issuers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IssuerKind {
    /// Any OpenID provider.
    Oidc,
    /// Microsoft Entra ID.
    Entra,
    /// A key of the gateway's own.
    Dev,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// OpenID discovery.
    Discovery,
    /// This URL.
    Url(String),
    /// This file.
    File(PathBuf),
    /// The gateway's own key, in the control folder.
    Own,
}

/// `[[issuer]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: IssuerKind,
    /// `iss`.
    pub issuer: String,
    /// Accepted `aud` values; never empty.
    pub audiences: Vec<String>,
    /// Keys.
    pub keys: KeySource,
    /// The claim that holds the roles.
    pub roles_claim: String,
    /// Entra: accepted tenants; empty: the one in `issuer`.
    pub tenants: Vec<String>,
}

/// `[login]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The `[[issuer]]` whose people log in.
    pub issuer: String,
    /// The gateway's name at the provider.
    pub client_id: String,
    /// Its secret; `None`: a public client.
    pub client_secret: Option<super::Secret>,
    /// Where browsers find the admin listener: an origin.
    pub url: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// Longest session.
    pub session: Duration,
    /// Longest time without a request.
    pub idle: Duration,
    /// How long ago a login may have been for changing something; `None`: as long as the session lasts.
    pub fresh: Option<Duration>,
}

/// `[[notify]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Its name.
    pub name: String,
    /// Where messages go.
    pub to: NotifyTo,
    /// Which kinds; empty: all.
    pub kinds: Vec<notify::Kind>,
    /// Those that ask one of these groups; empty: all.
    pub groups: Vec<String>,
    /// Those of these connections; empty: all.
    pub connections: Vec<String>,
    /// Whether the text of statements is in them.
    pub statement: bool,
    /// Whether private networks may be connected to.
    pub private: bool,
    /// Whether this host may be.
    pub loopback: bool,
    /// CAs besides the system's.
    pub ca: Option<PathBuf>,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyTo {
    /// A program.
    Webhook {
        /// Where.
        url: super::Secret,
        /// What messages are signed by.
        secrets: Vec<super::Secret>,
    },
    /// Slack.
    Slack {
        /// An incoming webhook's address, or …
        url: Option<super::Secret>,
        /// … a bot's token, and the channel's id.
        bot: Option<(super::Secret, String)>,
        /// By which Slack signs what comes of buttons; `None`: there are none.
        signing_secret: Option<super::Secret>,
    },
    /// Microsoft Teams.
    Teams {
        /// A workflow's address.
        url: super::Secret,
    },
    /// People's mailboxes.
    Email {
        /// The server's host.
        host: String,
        /// Its port.
        port: u16,
        /// How the connection is protected.
        tls: notify::email::EmailTls,
        /// Name and password.
        login: Option<(String, super::Secret)>,
        /// Who sends.
        sender: String,
        /// Who gets it.
        recipients: Vec<String>,
    },
}

/// Protocols of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetProtocol {
    /// PostgreSQL.
    Postgres,
}

/// TLS towards a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamTls {
    /// None.
    Disable,
    /// Encrypted; the server is not checked.
    Require,
    /// Certificate and name are checked.
    VerifyFull,
}

impl UpstreamTls {
    /// Its word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetAddress {
    /// A name or IP address, without brackets, and a port.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: u16,
    },
    /// A PostgreSQL server's socket folder and port.
    Unix {
        /// The folder.
        folder: PathBuf,
        /// The port: the socket is `.s.PGSQL.PORT`.
        port: u16,
    },
}

impl TargetAddress {
    /// The socket's path, for [`TargetAddress::Unix`].
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix { folder, port } => Some(folder.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { folder, port } => write!(f, "unix:{}:{port}", folder.display()),
        }
    }
}

/// Databases that callers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// These, besides the default.
    Listed(Vec<String>),
    /// Whatever the target has.
    Any,
}

/// `[[connection]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// What is spoken.
    pub protocol: TargetProtocol,
    /// Where.
    pub address: TargetAddress,
    /// Default database.
    pub database: String,
    /// Further databases.
    pub databases: Databases,
    /// TLS.
    pub tls: UpstreamTls,
    /// CA bundle; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Attributes for policies.
    pub tags: BTreeMap<String, String>,
    /// The gateway's login.
    pub user: String,
    /// Its password, where the target asks for one.
    pub password: Option<Secret>,
    /// Whether sessions may outlive their token.
    pub outlive_token: bool,
    /// Functions declared harmless: `schema.name`.
    pub safe_functions: Vec<String>,
}

impl Connection {
    /// Whether callers may open this database.
    #[must_use]
    pub fn allows_database(&self, database: &str) -> bool {
        database == self.database
            || match &self.databases {
                Databases::Any => true,
                Databases::Listed(list) => list.iter().any(|allowed| allowed == database),
            }
    }

    /// The target of a session on `database`.
    #[must_use]
    pub fn target(&self, database: &str) -> proxy_core::Target {
        proxy_core::Target {
            connection: self.name.clone(),
            address: self.address.to_string(),
            database: database.to_owned(),
            upstream_user: self.user.clone(),
            owner: self.owner.clone(),
            tags: self.tags.clone(),
        }
    }
}

/// `[[classify]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classify {
    /// The class.
    pub class: String,
    /// `CONNECTION/SCHEMA.TABLE.COLUMN` patterns.
    pub columns: Vec<String>,
    /// A detector's name.
    pub detect: Option<String>,
}

/// Ways of masking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskWith {
    /// `a***@example.com`.
    Email,
    /// Some characters stay.
    Partial {
        /// At the start.
        first: usize,
        /// At the end.
        last: usize,
    },
    /// Nothing stays.
    Redact,
    /// A keyed hash; equal values stay equal.
    Hash {
        /// The key; `None`: one under the data folder.
        secret: Option<Secret>,
    },
    /// NULL.
    Null,
    /// This text.
    Fixed(String),
}

/// `[[mask]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskConfig {
    /// The class.
    pub class: String,
    /// How.
    pub with: MaskWith,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Of one session.
    pub session: SessionLimits,
    /// Client connections in all.
    pub connections_max: usize,
    /// Sessions of one principal.
    pub connections_per_principal_max: usize,
    /// Logins in progress from one address.
    pub logins_per_address_max: usize,
    /// Requests that wait for approval at once.
    pub held_max: usize,
    /// For a graceful stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session: SessionLimits::default(),
            connections_max: 10_000,
            connections_per_principal_max: 1_000,
            logins_per_address_max: 64,
            held_max: 1_000,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// When an entry counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Once the operating system has it.
    Write,
    /// Once the disk has it.
    Sync,
}

/// `[audit]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// When an entry counts as kept.
    pub durability: Durability,
    /// Space that must stay free, in bytes.
    pub min_free: u64,
    /// Longest silence.
    pub heartbeat: Duration,
    /// How often the log is signed, while it grows.
    pub checkpoint: Duration,
    /// Whether the log is published in the data folder.
    pub export: bool,
    /// What the log's private key is sealed with; `None`: nothing.
    pub key: Option<Secret>,
    /// What wraps the keys that the log's payloads are sealed with; `None`: payloads are not sealed.
    pub payload_key: Option<WrapSource>,
    /// How many witnesses must have cosigned a checkpoint.
    pub witnesses_min: usize,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            durability: Durability::Write,
            min_free: 1 << 30,
            heartbeat: Duration::from_secs(300),
            checkpoint: Duration::from_secs(5),
            export: true,
            key: None,
            payload_key: None,
            witnesses_min: 0,
        }
    }
}

/// `[[witness]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessConfig {
    /// Its key, of the kind that cosigns.
    pub key: tlog::Verifier,
    /// Where it is asked: what stands before `/add-checkpoint`, without a slash at its end.
    pub url: String,
    /// CA bundle; `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// Forms of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// JSON.
    Json,
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Form of log lines.
    pub log: LogFormat,
    /// Filter.
    pub level: String,
    /// OTLP endpoint.
    pub otlp: Option<String>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: LogFormat::Auto, level: "info".to_owned(), otlp: None }
    }
}

/// The folder of a file; empty, which is the current one, for a bare name.
pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}
