//! From TOML to the typed model, section by section.

use super::model::{
    Address, Audit, Classify, Config, Connection, Databases, Durability, Issuer, IssuerKind, KeySource, Limits, Listener,
    ListenerProtocol, LogFormat, Login, MaskConfig, MaskWith, Notify, TargetAddress, TargetProtocol, Telemetry, TlsFiles,
    UpstreamTls, WitnessConfig, folder_of,
};
use super::problem::{Problem, Problems};
use super::reader::{Section, Source};
use super::secret::{FORMS, InvalidRef, Secret};
use super::shipping::{Shipping, shipping};
use super::streams::{Stream, stream};
use super::vaults::{Fetching, KeyVaultConfig, VaultConfig, WrapSource};
use super::{canonical, login, notify, rules, vaults, witness};
use audit_store::EventKind;
use control_plane::keeping::Retention;
use proxy_core::limits::SessionLimits;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toml::de::DeTable;

/// Longest configuration file (4 MiB): a larger one is not a configuration.
const FILE_MAX: u64 = 4 << 20;
/// Longest duration that a key takes (a year): beyond, it is a mistake.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
const SECOND: Duration = Duration::from_secs(1);

/// A parsed entry and the line where it stands, for the rules that look across entries.
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// Reads and checks a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(file: &Path) -> Result<Config, Problems> {
    let whole = |what: String, remedy: &str| Problems {
        file: file.to_owned(),
        list: vec![Problem { line: 0, what, remedy: remedy.to_owned() }],
    };
    let cannot = |error: std::io::Error| {
        whole(format!("cannot be read: {error}"), "`sallyport init DIR` makes one; `-c FILE` names another")
    };
    if std::fs::metadata(file).map_err(cannot)?.len() > FILE_MAX {
        return Err(whole("is larger than 4 MiB".to_owned(), "name the configuration file with `-c FILE`"));
    }
    let bytes = std::fs::read(file).map_err(cannot)?;
    let text = String::from_utf8(bytes).map_err(|_| whole("is not UTF-8 text".to_owned(), "save it as UTF-8"))?;
    parse(&text, file)
}

/// Reads and checks a file's text. Paths in it are relative to the folder of `file`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, file: &Path) -> Result<Config, Problems> {
    let source = Source::new(text, folder_of(file));
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(0, |span| source.line(span.start));
        source.problem(line, format!("is not TOML: {}", error.message().trim()), "");
    }
    if !errors.is_empty() {
        return Err(Problems { file: file.to_owned(), list: source.into_problems() });
    }
    let top = Section::open(&source, "", root.get_ref(), 0..0);
    let parts = Parts::read(&source, &top);
    let warnings = rules::check(&source, &top, &parts);
    let lines = canonical::lines(root.get_ref());
    let config = parts.finish(&source, &top, file, lines, warnings);
    let list = source.into_problems();
    if list.is_empty() { Ok(config) } else { Err(Problems { file: file.to_owned(), list }) }
}

/// The sections as read, before the rules across them were checked.
pub(super) struct Parts {
    pub(super) tls: Option<TlsFiles>,
    pub(super) listeners: Vec<At<Listener>>,
    pub(super) issuers: Vec<At<Issuer>>,
    pub(super) login: Option<At<Login>>,
    pub(super) connections: Vec<At<Connection>>,
    pub(super) classify: Vec<At<Classify>>,
    pub(super) masks: Vec<At<MaskConfig>>,
    pub(super) retention: Vec<At<Retention>>,
    /// With the line of `witnesses_min`.
    pub(super) audit: At<Audit>,
    pub(super) witnesses: Vec<At<WitnessConfig>>,
    pub(super) streams: Vec<At<Stream>>,
    pub(super) vault: Option<VaultConfig>,
    /// Whether there is a `[vault]`, right or wrong.
    pub(super) vault_written: bool,
    pub(super) keyvault: KeyVaultConfig,
    pub(super) fetching: Fetching,
    pub(super) shipping: Vec<At<Shipping>>,
    pub(super) notify: Vec<At<Notify>>,
}

impl Parts {
    fn read(source: &Source<'_>, top: &Section<'_, '_>) -> Self {
        Self {
            tls: top.table("tls", "tls").and_then(|section| tls(&section)),
            listeners: all(top, "listener", |section| listener(section, source)),
            issuers: all(top, "issuer", |section| issuer(section, source)),
            login: top
                .table("login", "login")
                .and_then(|section| login::login(&section, source).map(|value| At { line: section.line, value })),
            connections: all(top, "connection", |section| connection(section, source)),
            classify: all(top, "classify", classify),
            masks: all(top, "mask", |section| mask(section, source)),
            retention: all(top, "retention", retention),
            audit: top
                .table("audit", "audit")
                .map_or_else(|| At { line: 0, value: Audit::default() }, |section| audit(&section, source)),
            witnesses: all(top, "witness", witness::witness),
            streams: all(top, "stream", |section| stream(section, source)),
            vault: top.table("vault", "vault").and_then(|section| vaults::vault(&section, source)),
            vault_written: top.has("vault"),
            keyvault: top
                .table("keyvault", "keyvault")
                .and_then(|section| vaults::keyvault(&section, source))
                .unwrap_or_default(),
            fetching: top.table("secrets", "secrets").map_or_else(Fetching::default, |section| vaults::fetching(&section)),
            shipping: all(top, "shipping", |section| shipping(section, source)),
            notify: all(top, "notify", |section| notify::notify(section, source)),
        }
    }

    fn finish(
        self,
        source: &Source<'_>,
        top: &Section<'_, '_>,
        file: &Path,
        lines: Vec<String>,
        warnings: Vec<Problem>,
    ) -> Config {
        let policy_dir = top.table("policy", "policy").and_then(|section| section.path("dir"));
        Config {
            file: file.to_owned(),
            data_dir: top.path("data_dir").unwrap_or_else(|| source.folder.join("data")),
            threads: top.count("threads", 1..=1024),
            tls: self.tls,
            listeners: values(self.listeners),
            issuers: values(self.issuers),
            login: self.login.map(|at| at.value),
            connections: values(self.connections).into_iter().map(Arc::new).collect(),
            classify: values(self.classify),
            masks: values(self.masks),
            streams: values(self.streams),
            shipping: values(self.shipping),
            notify: values(self.notify),
            policy_dir: policy_dir.unwrap_or_else(|| source.folder.join("policies")),
            limits: limits(top),
            audit: self.audit.value,
            retention: values(self.retention),
            witnesses: values(self.witnesses),
            vault: self.vault,
            keyvault: self.keyvault,
            fetching: self.fetching,
            remote_secrets: source.remote(),
            telemetry: top.table("telemetry", "telemetry").map_or_else(Telemetry::default, |section| telemetry(&section)),
            warnings,
            digest: canonical::digest_of(&lines),
            lines,
        }
    }
}

fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}

fn all<'s, 'a, T>(top: &Section<'s, 'a>, name: &'static str, read: impl Fn(&Section<'s, 'a>) -> Option<T>) -> Vec<At<T>> {
    let sections = top.tables(name, name);
    sections.iter().filter_map(|section| read(section).map(|value| At { line: section.line, value })).collect()
}

fn tls(section: &Section<'_, '_>) -> Option<TlsFiles> {
    let (certificate, private_key) = (section.required("certificate"), section.required("private_key"));
    let (Some(_), Some(_)) = (certificate, private_key) else { return None };
    Some(TlsFiles { certificate: section.path("certificate")?, private_key: section.path("private_key")? })
}

/// Protocols of the blueprint that this version does not speak yet.
const LATER: [&str; 4] = ["mssql", "mysql", "kubernetes", "ssh"];

fn protocol<T: Copy>(section: &Section<'_, '_>, words: &[(&str, T)]) -> Option<T> {
    if let Some(text) = section.required("protocol").filter(|text| LATER.contains(&text.as_str())) {
        section.problem("protocol", format!("`{text}` is not supported by this version"), "this version speaks postgres");
        return None;
    }
    section.one_of("protocol", words)
}

fn listener(section: &Section<'_, '_>, source: &Source<'_>) -> Option<Listener> {
    let words = [("postgres", ListenerProtocol::Postgres), ("admin", ListenerProtocol::Admin)];
    let protocol = protocol(section, &words);
    let address = section.required("address").and_then(|text| {
        let address = listen_address(&text, source.folder);
        if address.is_none() {
            let remedy = "write IP:PORT (\"0.0.0.0:5432\", \"[::1]:5432\"), \"localhost:5432\" or \"unix:PATH\"";
            section.problem("address", format!("`address` is not an address to listen on: {text:?}"), remedy);
        }
        address
    });
    let tls_optional = section.one_of("tls", &[("required", false), ("optional", true)]).unwrap_or(false);
    let connection = section.string("connection");
    Some(Listener { protocol: protocol?, address: address?, connection, tls_optional })
}

fn listen_address(text: &str, folder: &Path) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| Address::Unix(folder.join(path)));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?)));
    }
    text.parse().ok().map(Address::Tcp)
}

fn issuer(section: &Section<'_, '_>, source: &Source<'_>) -> Option<Issuer> {
    let name = section.required("name");
    let words = [("oidc", IssuerKind::Oidc), ("entra", IssuerKind::Entra), ("dev", IssuerKind::Dev)];
    let kind = if section.has("kind") { section.one_of("kind", &words)? } else { IssuerKind::Oidc };
    let roles_claim = section.string("roles").unwrap_or_else(|| "roles".to_owned());
    let tenants = section.strings("tenants").unwrap_or_default();
    if !tenants.is_empty() && kind != IssuerKind::Entra {
        section.problem("tenants", "`tenants` is for kind = \"entra\" alone", "remove it, or set kind = \"entra\"");
    }
    if kind == IssuerKind::Dev {
        for key in ["issuer", "jwks"] {
            if section.has(key) {
                section.problem(
                    key,
                    format!("`{key}` makes no sense for kind = \"dev\""),
                    "remove it: the gateway makes its own key",
                );
            }
        }
        let audiences = section.strings("audience").unwrap_or_else(|| vec!["sallyport".to_owned()]);
        let name = name?;
        return Some(Issuer {
            issuer: format!("sallyport:{name}"),
            name,
            kind,
            audiences,
            keys: KeySource::Own,
            roles_claim,
            tenants,
        });
    }
    let issuer = section.required("issuer").filter(|url| web_address(section, "issuer", url, KEYS_IN_THE_CLEAR));
    if !section.has("audience") {
        section.missing("audience");
    }
    let audiences = section.strings("audience");
    let keys = match section.string("jwks") {
        None => KeySource::Discovery,
        Some(text) => match text.strip_prefix("file:") {
            Some(path) => KeySource::File(source.folder.join(path)),
            None => {
                web_address(section, "jwks", &text, KEYS_IN_THE_CLEAR);
                KeySource::Url(text)
            }
        },
    };
    let audiences = audiences.filter(|list| {
        if list.is_empty() {
            section.problem("audience", "`audience` is an empty list", "name the audience that tokens for the gateway have");
        }
        !list.is_empty()
    });
    Some(Issuer { name: name?, kind, issuer: issuer?, audiences: audiences?, keys, roles_claim, tenants })
}

const KEYS_IN_THE_CLEAR: &str = "http:// is accepted on this host alone: keys fetched in the clear could be anybody's";

/// Whether a URL is one that may be asked for what must not be anybody's: HTTPS, or HTTP on this host.
pub(super) fn web_address(section: &Section<'_, '_>, name: &str, url: &str, why: &str) -> bool {
    let plain = url.strip_prefix("http://").map(|rest| rest.split(['/', '?']).next().unwrap_or_default());
    let local = plain.is_some_and(|authority| {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    let good = local || url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if !good {
        section.problem(name, format!("`{name}` is not an https:// URL: {url:?}"), why);
    }
    good
}

fn connection(section: &Section<'_, '_>, source: &Source<'_>) -> Option<Connection> {
    let name = section.required("name").filter(|name| plain_name(section, name));
    let protocol = protocol(section, &[("postgres", TargetProtocol::Postgres)]);
    let address = section.required("address").and_then(|text| {
        let address = target_address(&text, source.folder);
        if address.is_none() {
            let remedy = "write HOST:PORT, [IPv6]:PORT or unix:FOLDER:PORT";
            section.problem("address", format!("`address` is not a target's address: {text:?}"), remedy);
        }
        address
    });
    let database = section.required("database");
    let words = [("disable", UpstreamTls::Disable), ("require", UpstreamTls::Require), ("verify-full", UpstreamTls::VerifyFull)];
    let tls = section.one_of("tls", &words).unwrap_or(UpstreamTls::VerifyFull);
    let ca = section.path("ca");
    if ca.is_some() && tls != UpstreamTls::VerifyFull {
        section.problem(
            "ca",
            format!("`ca` is not used with tls = \"{}\"", tls.as_str()),
            "set tls = \"verify-full\", or remove `ca`",
        );
    }
    if !section.has("credential") {
        section.missing("credential");
    }
    let (user, password) = section.table("credential", "credential").map_or((None, None), |inner| credential(&inner, source));
    let databases = databases(section);
    let safe_functions = safe_functions(section);
    let (owner, tags) = (section.string("owner"), section.map("tags").unwrap_or_default());
    let outlive_token = section.boolean("outlive_token").unwrap_or(false);
    Some(Connection {
        name: name?,
        protocol: protocol?,
        address: address?,
        database: database?,
        databases,
        tls,
        ca,
        owner,
        tags,
        user: user?,
        password,
        outlive_token,
        safe_functions,
    })
}

/// Names that need no quoting anywhere: in a database name, in a Cedar id, in a URL.
pub(super) fn plain_name(section: &Section<'_, '_>, name: &str) -> bool {
    let good = name.len() <= 63 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !good {
        section.problem("name", format!("`name` is {name:?}"), "use at most 63 letters, digits, `-`, `_` and `.`");
    }
    good
}

fn databases(section: &Section<'_, '_>) -> Databases {
    match section.strings("databases") {
        Some(list) if list == ["any"] => Databases::Any,
        Some(list) => Databases::Listed(list),
        None => Databases::Listed(Vec::new()),
    }
}

fn safe_functions(section: &Section<'_, '_>) -> Vec<String> {
    let functions = section.strings("safe_functions").unwrap_or_default();
    for name in
        functions.iter().filter(|name| name.split_once('.').is_none_or(|(schema, name)| schema.is_empty() || name.is_empty()))
    {
        section.problem(
            "safe_functions",
            format!("`safe_functions` names {name:?} without its schema"),
            format!("write \"public.{name}\""),
        );
    }
    functions
}

fn target_address(text: &str, folder: &Path) -> Option<TargetAddress> {
    if let Some(rest) = text.strip_prefix("unix:") {
        let (path, port) = rest.rsplit_once(':')?;
        return Some(TargetAddress::Unix { folder: folder.join(path), port: port.parse().ok()? }).filter(|_| !path.is_empty());
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            inner
        }
        None => host,
    };
    let named = bare.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let good = !bare.is_empty() && (host.starts_with('[') || named);
    good.then(|| TargetAddress::Tcp { host: bare.to_owned(), port })
}

fn credential(section: &Section<'_, '_>, source: &Source<'_>) -> (Option<String>, Option<Secret>) {
    (section.required("user"), secret(section, "password", source))
}

pub(super) fn secret(section: &Section<'_, '_>, name: &str, source: &Source<'_>) -> Option<Secret> {
    let text = section.string(name)?;
    source.secret(&text).map_err(|invalid| bad_reference(section, name, &invalid, FORMS)).ok()
}

fn key_source(section: &Section<'_, '_>, name: &str, source: &Source<'_>) -> Option<WrapSource> {
    let text = section.string(name)?;
    let forms = "write \"file:PATH\", \"env:NAME\", \"keyvault:VAULT/keys/NAME\" or \"vault:MOUNT/keys/NAME\"";
    WrapSource::parse(&text, source.folder).map_err(|invalid| bad_reference(section, name, &invalid, forms)).ok()
}

pub(super) fn bad_reference(section: &Section<'_, '_>, name: &str, invalid: &InvalidRef, forms: &str) {
    match invalid {
        InvalidRef::Empty => section.problem(name, format!("`{name}` names nothing after its colon"), forms),
        InvalidRef::Form(form) => section.problem(name, format!("`{name}` is not of the form {form}"), forms),
        InvalidRef::NotAReference => section.problem(
            name,
            format!("`{name}` is not a reference to a secret"),
            format!("{forms}; the secret itself does not belong in this file"),
        ),
    }
}

fn classify(section: &Section<'_, '_>) -> Option<Classify> {
    let class = section.required("class");
    if !section.has("columns") {
        section.missing("columns");
    }
    let columns = section.strings("columns");
    for column in columns.iter().flatten().filter(|column| !column_pattern(column)) {
        section.problem(
            "columns",
            format!("`columns` holds {column:?}"),
            "write \"CONNECTION/SCHEMA.TABLE.COLUMN\"; `*` stands for any run of characters",
        );
    }
    let detectors = [("email", "email"), ("card", "card"), ("iban", "iban"), ("phone", "phone"), ("ssn", "ssn"), ("ip", "ip")];
    let detect = section.one_of("detect", &detectors).map(str::to_owned);
    Some(Classify { class: class?, columns: columns?, detect })
}

fn retention(section: &Section<'_, '_>) -> Option<Retention> {
    if !section.has("keep") {
        section.missing("keep");
    }
    let keep = section.duration("keep", SECOND..=Duration::from_secs(100 * 366 * 86_400));
    let mut kinds = Vec::new();
    for name in section.strings("kinds").into_iter().flatten() {
        match name.parse() {
            Ok(kind) => kinds.push(kind),
            Err(error) => {
                let error: audit_store::UnknownKind = error;
                section.problem("kinds", format!("`kinds` holds {name:?}: {error}"), "see the kinds in docs/audit.md");
            }
        }
    }
    let fields = section.strings("fields").unwrap_or_default();
    for field in fields.iter().filter(|field| !EventKind::ALL.iter().any(|kind| kind.fields().contains(&field.as_str()))) {
        section.problem("fields", format!("`fields` holds {field:?}, which no entry has"), "statement, parameters, facts …");
    }
    Some(Retention { keep: keep?, connection: section.string("connection"), kinds, fields })
}

fn column_pattern(text: &str) -> bool {
    let Some((connection, rest)) = text.split_once('/') else { return false };
    let parts = rest.split('.').collect::<Vec<_>>();
    !connection.is_empty() && parts.len() == 3 && parts.iter().all(|part| !part.is_empty())
}

fn mask(section: &Section<'_, '_>, source: &Source<'_>) -> Option<MaskConfig> {
    let class = section.required("class");
    if !section.has("with") {
        section.missing("with");
    }
    let words = ["email", "partial", "redact", "hash", "null", "fixed"].map(|word| (word, word));
    let with = section.one_of("with", &words);
    let (first, last) = (section.count("show_first", 0..=64), section.count("show_last", 0..=64));
    let (value, key) = (section.string("value"), secret(section, "secret", source));
    let belongs = [("show_first", "partial"), ("show_last", "partial"), ("value", "fixed"), ("secret", "hash")];
    for (name, owner) in belongs.iter().filter(|(name, owner)| section.has(name) && with.is_some_and(|with| with != *owner)) {
        section.problem(name, format!("`{name}` is for with = \"{owner}\" alone"), "remove it, or change `with`");
    }
    let with = match with? {
        "email" => MaskWith::Email,
        "partial" => MaskWith::Partial { first: first.unwrap_or(0), last: last.unwrap_or(4) },
        "redact" => MaskWith::Redact,
        "hash" => MaskWith::Hash { secret: key },
        "null" => MaskWith::Null,
        _ => {
            if !section.has("value") {
                section.missing("value");
            }
            MaskWith::Fixed(value?)
        }
    };
    Some(MaskConfig { class: class?, with })
}

fn limits(top: &Section<'_, '_>) -> Limits {
    let mut limits = Limits::default();
    if let Some(section) = top.table("limits", "limits") {
        session_limits(&section, &mut limits.session);
        set(&mut limits.connections_max, section.count("connections_max", 1..=10_000_000));
        set(&mut limits.connections_per_principal_max, section.count("connections_per_principal_max", 1..=10_000_000));
        set(&mut limits.logins_per_address_max, section.count("logins_per_address_max", 1..=1_000_000));
        set(&mut limits.drain_timeout, section.duration("drain_timeout", Duration::ZERO..=LONGEST));
    }
    if let Some(section) = top.table("approvals", "approvals") {
        set(&mut limits.session.hold_timeout, section.duration("timeout", SECOND..=LONGEST));
        set(&mut limits.held_max, section.count("held_max", 0..=1_000_000));
    }
    limits
}

fn session_limits(section: &Section<'_, '_>, limits: &mut SessionLimits) {
    let gibibyte = 1 << 30;
    set(&mut limits.statement_max, bytes(section.size("statement_max", 1_024..=(64 << 20))));
    set(&mut limits.message_max, bytes(section.size("message_max", (64 << 10)..=gibibyte)));
    set(&mut limits.masked_row_max, bytes(section.size("masked_row_max", (64 << 10)..=gibibyte)));
    set(&mut limits.prepared_max, section.count("prepared_max", 1..=1_000_000));
    set(&mut limits.pipeline_max, section.count("pipeline_max", 1..=1_000_000));
    set(&mut limits.login_timeout, section.duration("login_timeout", SECOND..=Duration::from_secs(600)));
    set(&mut limits.idle_timeout, section.duration_or_none("idle_timeout", SECOND..=LONGEST));
    set(&mut limits.statement_timeout, section.duration_or_none("statement_timeout", SECOND..=LONGEST));
}

fn bytes(size: Option<u64>) -> Option<usize> {
    size.and_then(|size| usize::try_from(size).ok())
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn audit(section: &Section<'_, '_>, source: &Source<'_>) -> At<Audit> {
    let mut audit = Audit::default();
    set(&mut audit.durability, section.one_of("durability", &[("write", Durability::Write), ("sync", Durability::Sync)]));
    set(&mut audit.min_free, section.size("min_free", 0..=(1 << 50)));
    set(&mut audit.heartbeat, section.duration("heartbeat", SECOND..=Duration::from_secs(86_400)));
    set(&mut audit.checkpoint, section.duration("checkpoint", SECOND..=Duration::from_secs(3_600)));
    set(&mut audit.export, section.boolean("export"));
    audit.key = secret(section, "key", source);
    audit.payload_key = key_source(section, "payload_key", source);
    set(&mut audit.witnesses_min, section.count("witnesses_min", 0..=100));
    At { line: section.line_of("witnesses_min"), value: audit }
}

fn telemetry(section: &Section<'_, '_>) -> Telemetry {
    let mut telemetry = Telemetry::default();
    let words = [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
    set(&mut telemetry.log, section.one_of("log", &words));
    if let Some(level) = section.string("level") {
        match level.parse::<tracing_subscriber::EnvFilter>() {
            Ok(_) => telemetry.level = level,
            Err(error) => {
                section.problem("level", format!("`level` is not a filter: {error}"), "write error, warn, info, debug or trace")
            }
        }
    }
    telemetry.otlp = section.string("otlp").filter(|url| {
        let good = url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty());
        if !good {
            let remedy = "name a collector by http://HOST:PORT; one on this host can send traces on over TLS";
            section.problem("otlp", format!("`otlp` is not an http:// URL: {url:?}"), remedy);
        }
        good
    });
    telemetry
}

/// For messages: a path as given.
#[must_use]
pub fn default_file() -> PathBuf {
    PathBuf::from("sallyport.toml")
}
