//! The running gateway: everything put together, in the order in which it starts and stops.
//!
//! ```text
//!  config ─▶ store ─▶ policies, masks ─▶ issuers, keys ─▶ admin sockets ─▶ workers ─▶ (reloads) ─▶ drain
//! ```

mod adapters;
mod authenticate;
mod catalogs;
mod credential;
mod notices;
pub mod parts;
mod reload;
mod restart;
pub(crate) mod tls;

use crate::cli::Failure;
use crate::cli::control::{locked, private_folders, services};
use crate::config::{self, Address, Config, ListenerProtocol};
use crate::evidence::{self, PayloadKeyError, PayloadKeyFile, Publisher, change_payload_keys};
use crate::metrics::{MeteredStore, Metrics, family};
use crate::secrets::{Active, Refresher, SecretServices, prepare};
use crate::shipping::{Rewrites, Shippers};
use crate::streams::Streams;
use crate::telemetry;
use crate::traces::TracedStore;
use crate::witness::Witnesses;
use adapters::{Board, Counters};
use authenticate::Gate;
use catalogs::Catalogs;
use control_plane::api::{self, ApiState};
use control_plane::approvals::ApprovalBoard;
use control_plane::keeping::Keeper;
use control_plane::notices::Notices;
use opentelemetry_sdk::trace::SdkTracer;
use parking_lot::RwLock;
use parts::{masks, policies, verifier};
use policy::PolicyEngine;
use proto_postgres::{ClientTls, PostgresSession, SessionConfig};
use proxy_core::record::{Entry, Event};
use proxy_core::session::EndReason;
use proxy_core::{Ledger, Principal, Store};
use proxy_io::clock::now;
use proxy_io::worker::ListenAddress;
use proxy_io::{Control, ListenerSpec, Registry, Services, SessionSeed, Workers};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tls::Certificates;
use tokio_util::sync::CancellationToken;

/// How long a session that was told to end may take before the gateway goes without it.
const END_GRACE: Duration = Duration::from_secs(5);

/// What lives as long as the gateway and is shared by its parts.
struct Gateway {
    /// The configuration that is active.
    config: RwLock<Arc<Config>>,
    /// Where its secrets are that are on other machines.
    services: RwLock<Arc<SecretServices>>,
    /// The keys that the log's payloads are sealed with.
    payload_keys: Arc<tokio::sync::Mutex<Option<PayloadKeyFile>>>,
    /// The one that it was started with: some settings stay as they were until the next start.
    started_with: Arc<Config>,
    store: Arc<audit_store::AuditStore>,
    publisher: Arc<Publisher>,
    rewrites: Arc<Rewrites>,
    keeper: Arc<Keeper>,
    ledger: Ledger,
    engine: PolicyEngine,
    gate: Arc<Gate>,
    catalogs: Arc<Catalogs>,
    registry: Arc<Registry>,
    certificates: Arc<Certificates>,
    metrics: Arc<Metrics>,
    started: std::time::Instant,
    stopping: CancellationToken,
}

impl Gateway {
    fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    /// Records an event of the gateway itself.
    fn record(&self, event: Event) -> Result<(), proxy_core::StoreError> {
        let entry = Entry { time: now(), session: None, event };
        self.ledger.commit(&[entry], &mut Vec::new())
    }

    /// Records what must not stop the gateway if the store refuses; the refusal is logged.
    fn record_or_log(&self, event: Event) {
        if let Err(error) = self.record(event) {
            tracing::error!(%error, "an event of the gateway could not be recorded");
        }
    }

    fn health(&self) -> api::Health {
        let mut not_ready = Vec::new();
        let store = self.store.health();
        if !store.accepting {
            let reason = store.reason.unwrap_or_else(|| "unknown".to_owned());
            not_ready.push(format!("the audit store does not accept entries: {reason}"));
        }
        if self.stopping.is_cancelled() {
            not_ready.push("the gateway is stopping".to_owned());
        }
        api::Health {
            not_ready,
            configuration: self.config().digest.clone(),
            waiting_for_restart: restart::waiting_for_restart(&self.started_with, &self.config()),
            policy: self.engine.policies().version().to_string(),
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }
}

/// Now, by the wall clock.
/// Runs the gateway of the configuration in `file` until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// It cannot start: the message says what and where.
pub fn run(file: &Path) -> Result<(), Failure> {
    let config = Arc::new(config::load(file)?);
    // The allocator's huge pages, of which thousands of idle sessions each use a part, would more than double their memory.
    // A kernel that cannot leave them off has none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::finding(format!("the event loop cannot be started: {error}")))?;
    let telemetry =
        runtime.block_on(async { telemetry::init(&config.telemetry) }).map_err(|error| Failure::finding(error.to_string()))?;
    for warning in &config.warnings {
        tracing::warn!(line = warning.line, remedy = warning.remedy, "{}", warning.what);
    }
    runtime.block_on(serve(config, telemetry.tracer()))
}

async fn serve(config: Arc<Config>, tracer: Option<SdkTracer>) -> Result<(), Failure> {
    let services = services(&config)?;
    for (reference, error) in prepare(&config, &services, None).await {
        tracing::error!(%reference, error, "a secret cannot be fetched: what needs it fails until it can be");
    }
    private_folders(&config)?;
    let payload_keys = PayloadKeyFile::open(&config, &services, "gateway").await.map_err(locked)?;
    let refresher = Refresher::new();
    let gateway = start(config.clone(), tracer, services, payload_keys)?;
    let revocations = gateway.gate.revocations();
    let counts = move |reviewer: &Principal| revocations.against(reviewer, now()).is_none();
    let notices = notices::open(&config, &gateway.metrics)?;
    let told = notices.clone().map(|notices| notices as Arc<dyn control_plane::approvals::Told>);
    let board = ApprovalBoard::telling(config.limits.held_max, Box::new(counts), told);
    let stop = CancellationToken::new();
    start_admin(&gateway, &board, notices.clone(), &stop)?;
    let streams = Streams::open(&config, &gateway.store, |event| gateway.record(event))?;
    let reader = gateway.store.reader();
    let shippers = Shippers::open(&config, &gateway.publisher, &reader, &gateway.rewrites, |event| gateway.record(event))?;
    let workers = start_workers(&gateway, &board, &refresher)?;
    for (listener, address) in postgres_listeners(&config).zip(&workers.addresses) {
        let shown = match address {
            ListenAddress::Tcp(address) => address.to_string(),
            ListenAddress::Unix(path) => path.display().to_string(),
        };
        tracing::info!(protocol = listener.protocol.as_str(), address = shown, "listening");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    let mut background = vec![
        tokio::spawn(reload::watch(gateway.clone(), stop.clone())),
        tokio::spawn(catalogs::keep_fresh(gateway.catalogs.clone(), stop.clone())),
        tokio::spawn(keep_identities_fresh(gateway.clone(), stop.clone())),
        tokio::spawn(reload::heartbeat(gateway.clone(), stop.clone())),
        tokio::spawn(gateway.publisher.clone().run(checkpoint_interval(&gateway), stop.clone())),
        tokio::spawn(retain(gateway.clone(), stop.clone())),
        tokio::spawn(refresher.run(gateway.metrics.clone(), active_secrets(&gateway), stop.clone())),
    ];
    background.extend(streams.start(&gateway.metrics, &stop));
    let shipped = shippers.start(&gateway.metrics);
    wait_for_stop().await;
    drain(&gateway, &config, &workers).await;
    stop.cancel();
    for task in background {
        let _ = task.await;
    }
    let joined = tokio::task::spawn_blocking(move || workers.join()).await;
    if joined.is_err() {
        tracing::error!("the workers did not end well");
    }
    gateway.record_or_log(Event::GatewayStopped { reason: "told to stop".to_owned() });
    if let Err(error) = gateway.publisher.round().await {
        tracing::error!("{error}");
    }
    if let Some(notices) = notices {
        notices.close().await;
    }
    shipped.finish().await;
    if let Err(error) = gateway.store.close() {
        tracing::error!(%error, "the audit store did not close well");
    }
    tracing::info!("stopped");
    Ok(())
}

/// The secrets that are active. What runs as it was started, streams say, goes on with those of then.
fn active_secrets(gateway: &Arc<Gateway>) -> impl Fn() -> Active + Send + use<> {
    let gateway = gateway.clone();
    move || {
        let config = gateway.config();
        let mut secrets = config.remote_secrets.clone();
        let older = gateway.started_with.remote_secrets.iter().filter(|secret| !config.remote_secrets.contains(secret));
        secrets.extend(older.cloned());
        Active { secrets, fetching: config.fetching, services: gateway.services.read().clone() }
    }
}

/// Applies the rules of retention soon after the start, and every hour.
async fn retain(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut pause = Duration::from_secs(60);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = Duration::from_secs(3_600);
        let gateway = gateway.clone();
        let rules = gateway.config().retention.clone();
        let done = tokio::task::spawn_blocking(move || gateway.keeper.retain(&rules, now())).await;
        match done {
            Ok(Ok(done)) => {
                for (rule, contents) in done.iter().filter(|(_, contents)| *contents > 0) {
                    tracing::info!(rule, contents, "contents of the audit log were destroyed");
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "the rules of retention could not be applied"),
            Err(error) => tracing::error!(%error, "applying the rules of retention ended badly"),
        }
    }
}

/// How often the log is signed, by the configuration that is active.
fn checkpoint_interval(gateway: &Arc<Gateway>) -> impl Fn() -> Duration + use<> {
    let gateway = gateway.clone();
    move || gateway.config().audit.checkpoint
}

async fn keep_identities_fresh(gateway: Arc<Gateway>, stop: CancellationToken) {
    let recheck = || gateway.registry.broadcast(&Control::Recheck);
    gateway.gate.keep_fresh(stop, recheck).await;
}

fn finding(what: &str) -> impl Fn(String) -> Failure + '_ {
    move |why| Failure::finding(format!("{what}: {why}"))
}

/// Opens the store and makes every part that needs no socket.
fn start(
    config: Arc<Config>,
    tracer: Option<SdkTracer>,
    services: Arc<SecretServices>,
    mut payload_keys: Option<PayloadKeyFile>,
) -> Result<Arc<Gateway>, Failure> {
    let set = policies(&config)?;
    let rules = masks(&config)?;
    let verifier = verifier(&config)?;
    let (store, notary) = evidence::open(&config, "gateway", payload_keys.as_mut(), false)?;
    let export = config.audit.export.then(|| audit_store::Export::open(&config.export_dir())).transpose();
    let export = export.map_err(|error| Failure::finding(format!("the log cannot be published: {error}")))?;
    let catalogs = Catalogs::new(config.clone());
    let engine = PolicyEngine::new(set, rules, catalogs.clone());
    let gate = Gate::new(&config, verifier).map_err(finding("logins cannot be set up"))?;
    let certificates = Certificates::load(config.tls.as_ref()).map_err(finding("the certificate cannot be used"))?;
    let metrics = Metrics::new();
    let metered: Arc<dyn Store> = Arc::new(MeteredStore::new(store.clone(), &metrics));
    let witnesses = Witnesses::new(&config.witnesses, config.audit.witnesses_min)
        .map_err(|error| Failure::finding(format!("the witnesses cannot be asked: {error}")))?;
    let log = format!("{:032x}", u128::from_be_bytes(store.log_id()));
    let rewrites = Rewrites::open(&config, &log).map_err(|error| Failure::finding(error.to_string()))?;
    let rewrites = Arc::new(rewrites);
    let publisher = Publisher::new(store.clone(), notary, export, witnesses, Arc::clone(&rewrites), metrics.clone());
    let keeper = Keeper::open(&config.control_dir(), store.clone(), publisher.clone());
    let keeper = keeper.map_err(|error| Failure::finding(format!("the log's holds cannot be read: {error}")))?;
    let recorded = match tracer {
        Some(tracer) => Arc::new(TracedStore::new(metered, tracer)),
        None => metered,
    };
    let gateway = Arc::new(Gateway {
        ledger: Ledger::new(recorded),
        store,
        publisher,
        rewrites,
        keeper: Arc::new(keeper),
        engine,
        gate,
        catalogs,
        registry: Arc::new(Registry::new()),
        certificates: Arc::new(certificates),
        metrics,
        started: std::time::Instant::now(),
        stopping: CancellationToken::new(),
        services: RwLock::new(services),
        payload_keys: Arc::new(tokio::sync::Mutex::new(payload_keys)),
        config: RwLock::new(config.clone()),
        started_with: config.clone(),
    });
    let host = control_plane::machine::host_name().unwrap_or_else(|| "unknown".to_owned());
    let started = Event::GatewayStarted { version: env!("CARGO_PKG_VERSION").to_owned(), host };
    gateway.record(started).map_err(|error| Failure::finding(error.to_string()))?;
    let policies = gateway.engine.policies();
    for (what, digest, difference) in [
        ("configuration", config.digest.clone(), config.lines.iter().map(|line| format!("+ {line}")).collect()),
        ("policy", policies.digest().to_owned(), Vec::new()),
    ] {
        let event = Event::Activated { what: what.to_owned(), digest, previous: None, difference, author: None };
        gateway.record(event).map_err(|error| Failure::finding(error.to_string()))?;
    }
    Ok(gateway)
}

/// For the API: a new key for payloads, or all of them wrapped anew.
fn payload_key_change(gateway: &Arc<Gateway>) -> api::PayloadKeyChange {
    let gateway = gateway.clone();
    Box::new(move |by, rewrap| {
        let gateway = gateway.clone();
        Box::pin(async move {
            let (config, services) = (gateway.config(), gateway.services.read().clone());
            let mut keys = gateway.payload_keys.lock().await;
            let keys = keys.as_mut().ok_or_else(|| PayloadKeyError::None.to_string())?;
            change_payload_keys(&config, &services, keys, &gateway.store, &by, rewrap).await
        })
    })
}

/// What `/metrics` answers.
fn scrape(gateway: &Arc<Gateway>, board: &Arc<ApprovalBoard>) -> Box<dyn Fn() -> String + Send + Sync> {
    let (gateway, board) = (gateway.clone(), board.clone());
    Box::new(move || {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let metrics = &gateway.metrics;
        metrics.gauge(&family::SESSIONS_OPEN, &[]).set(count(gateway.registry.live().len()));
        metrics.gauge(&family::HELD, &[]).set(count(board.len()));
        metrics.gauge(&family::WAITING, &[]).set(count(gateway.health().waiting_for_restart.len()));
        metrics.render()
    })
}

fn start_admin(
    gateway: &Arc<Gateway>,
    board: &Arc<ApprovalBoard>,
    notices: Option<Arc<Notices>>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let config = gateway.config();
    let gate = gateway.gate.clone();
    let health = gateway.clone();
    let retention = gateway.clone();
    let state = Arc::new(ApiState {
        live: gateway.registry.clone(),
        keys: gateway.gate.keys(),
        revocations: gateway.gate.revocations(),
        log: gateway.store.reader(),
        publisher: gateway.publisher.clone(),
        keeper: gateway.keeper.clone(),
        retention: Box::new(move || retention.config().retention.clone()),
        payload_keys: payload_key_change(gateway),
        readings: api::Readings::default(),
        approvals: board.clone(),
        ledger: gateway.ledger.clone(),
        verify: Arc::new(move |credential| {
            let gate = gate.clone();
            Box::pin(async move { gate.verify(&credential).await })
        }),
        login: parts::login(&config, gateway.gate.revocations())?,
        notices,
        watchers: control_plane::pages::Watchers::default(),
        metrics: scrape(gateway, board),
        health: Box::new(move || health.health()),
    });
    let socket = api::server::bind_socket(&config.admin_socket())
        .map_err(|error| Failure::finding(format!("{}: {error}", config.admin_socket().display())))?;
    tokio::spawn(api::server::serve_socket(state.clone(), socket, stop.clone()));
    for listener in config.listeners.iter().filter(|listener| listener.protocol == ListenerProtocol::Admin) {
        let Address::Tcp(address) = &listener.address else { continue };
        let bound = std::net::TcpListener::bind(address)
            .and_then(|bound| bound.set_nonblocking(true).map(|()| bound))
            .and_then(tokio::net::TcpListener::from_std)
            .map_err(|error| Failure::finding(format!("cannot listen on {address}: {error}")))?;
        let certificates = gateway.certificates.clone();
        let tls = certificates.admin().map(|first| {
            let config: Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync> =
                Arc::new(move || certificates.admin().unwrap_or_else(|| first.clone()));
            api::server::Tls { config, optional: listener.tls_optional }
        });
        tracing::info!(protocol = "admin", %address, "listening");
        tokio::spawn(api::server::serve_listener(state.clone(), bound, tls, stop.clone()));
    }
    Ok(())
}

fn postgres_listeners(config: &Config) -> impl Iterator<Item = &config::Listener> {
    config.listeners.iter().filter(|listener| listener.protocol == ListenerProtocol::Postgres)
}

fn start_workers(gateway: &Arc<Gateway>, board: &Arc<ApprovalBoard>, refresher: &Refresher) -> Result<Workers, Failure> {
    let config = gateway.config();
    let services = Arc::new(Services {
        authenticate: gateway.gate.clone(),
        authorizer: Arc::new(gateway.engine.clone()),
        ledger: gateway.ledger.clone(),
        approvals: Arc::new(Board { board: board.clone(), timeout: config.limits.session.hold_timeout }),
        registry: gateway.registry.clone(),
        metrics: Arc::new(Counters::new(&gateway.metrics, refresher.asked())),
    });
    let listeners = postgres_listeners(&config)
        .map(|listener| {
            let limits = config.limits.session.clone();
            let has_certificate = config.tls.is_some();
            let client_tls = match (has_certificate, listener.tls_optional) {
                (true, true) => ClientTls::Optional,
                (true, false) => ClientTls::Required,
                (false, _) => ClientTls::Off,
            };
            let certificates = gateway.certificates.clone();
            ListenerSpec {
                protocol: "postgres",
                address: match &listener.address {
                    Address::Tcp(address) => ListenAddress::Tcp(*address),
                    Address::Unix(path) => ListenAddress::Unix(path.clone()),
                },
                connection: listener.connection.clone(),
                login_timeout: limits.login_timeout,
                hold_timeout: limits.hold_timeout,
                message_max: limits.message_max,
                session: Arc::new(move |seed: SessionSeed| {
                    Box::new(PostgresSession::new(SessionConfig {
                        id: seed.id,
                        limits: limits.clone(),
                        client_tls,
                        cancel_key: seed.cancel_key,
                    }))
                }),
                tls: Arc::new(move || certificates.postgres()),
            }
        })
        .collect();
    // Half of the cores: sessions that share a loop are found ready together, and what the log, long statements and
    // the admin listener do in the background needs the rest.
    let threads =
        config.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)));
    Workers::start(threads, listeners, &services).map_err(|error| Failure::finding(error.to_string()))
}

pub(crate) async fn wait_for_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Ends idle sessions at once, lets the others finish what runs for a while, then ends them.
async fn drain(gateway: &Gateway, config: &Config, workers: &Workers) {
    gateway.stopping.cancel();
    workers.stop_accepting();
    let open = gateway.registry.len();
    if open > 0 {
        tracing::info!(
            sessions = open,
            seconds = config.limits.drain_timeout.as_secs(),
            "stopping: waiting for running requests"
        );
    }
    gateway.registry.broadcast(&Control::Drain);
    let drained = async {
        while !gateway.registry.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::pin!(drained);
    tokio::select! {
        () = &mut drained => return,
        () = tokio::time::sleep(config.limits.drain_timeout) => {}
        // A second signal: at once.
        () = wait_for_stop() => {}
    }
    gateway.registry.broadcast(&Control::End(EndReason::Shutdown));
    if tokio::time::timeout(END_GRACE, drained).await.is_err() {
        tracing::warn!(sessions = gateway.registry.len(), "sessions did not end in time");
    }
}
