//! `sallyport witness`: a witness of transparency logs, for a second machine. It reads no configuration file.

use super::{Failure, Output};
use crate::config::{LogFormat, Telemetry, TlsFiles};
use crate::serve::tls::Certificates;
use crate::serve::wait_for_stop;
use crate::telemetry;
use crate::witness::server::{Timeouts, TlsSettings, serve};
use crate::witness::{FolderError, Witness, seconds};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tlog::Verifier;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often the certificate's files are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(60);

/// `witness`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder for its key, and for what it cosigned last; made at the first start
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Whose key it is: a host's name, for example. Needed at the first start
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The verifier key of a log to witness: NAME+ID+KEY, where NAME is the log's origin; may be repeated
    #[arg(long = "log", value_name = "KEY", value_parser = log_key, required_unless_present = "print_key")]
    logs: Vec<Verifier>,
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8444", value_name = "IP:PORT")]
    address: SocketAddr,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "private_key")]
    certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    private_key: Option<PathBuf>,
    /// Speak HTTP without TLS on an address that is not loopback: behind a proxy that speaks TLS
    #[arg(long, conflicts_with = "certificate")]
    plain: bool,
    /// Print its verifier key, and end
    #[arg(long)]
    print_key: bool,
}

fn log_key(text: &str) -> Result<Verifier, String> {
    Verifier::parse(text).map_err(|error| error.to_string())
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::NoKey(_) | FolderError::Name(_) | FolderError::AnotherName { .. } | FolderError::NotALog(_) => {
                Self::usage(error.to_string())
            }
            FolderError::Io { .. } | FolderError::Permissions { .. } | FolderError::InUse(_) | FolderError::Damaged { .. } => {
                Self::finding(error.to_string())
            }
        }
    }
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    if args.print_key {
        let key = Witness::key_in(&args.dir, args.name.as_deref())?;
        return if output.json() { output.value(&serde_json::json!({ "key": key.to_string() })) } else { print(output, &key) };
    }
    if args.certificate.is_none() && !args.plain && !args.address.ip().to_canonical().is_loopback() {
        return Err(Failure::usage(format!(
            "{} can be reached by others, and there is no TLS: give --certificate and --private-key, or --plain behind a proxy \
             that speaks TLS. What is cosigned is signed and needs none; but refusals are not signed, and whoever is on the \
             way could tell a gateway that its log was forked, or keep its checkpoints from the witness",
            args.address
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("witness")
        .enable_all()
        .build()
        .map_err(|error| Failure::finding(format!("the event loop cannot be started: {error}")))?;
    let telemetry = Telemetry { log: LogFormat::Auto, ..Telemetry::default() };
    let _telemetry =
        runtime.block_on(async { telemetry::init(&telemetry) }).map_err(|error| Failure::finding(error.to_string()))?;
    runtime.block_on(witness(args, output))
}

/// The line that others copy.
fn print(output: &Output, key: &Verifier) -> Result<(), Failure> {
    output.line(key.to_string());
    Ok(())
}

async fn witness(args: &Args, output: &Output) -> Result<(), Failure> {
    let files = args.certificate.clone().zip(args.private_key.clone());
    let files = files.map(|(certificate, private_key)| TlsFiles { certificate, private_key });
    let certificates =
        Certificates::load(files.as_ref()).map_err(|why| Failure::finding(format!("the certificate cannot be used: {why}")))?;
    let certificates = Arc::new(certificates);
    let witness = Arc::new(Witness::open(&args.dir, args.name.as_deref(), &args.logs, seconds())?);
    let cannot = |error: std::io::Error| Failure::finding(format!("cannot listen on {}: {error}", args.address));
    let listener = TcpListener::bind(args.address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    print(output, witness.key())?;
    tracing::info!(%address, key = %witness.key(), tls = files.is_some(), "witness is ready");
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(witness, listener, settings(&certificates), Timeouts::default(), stop.clone()));
    let renewed = tokio::spawn(renew(certificates, stop.clone()));
    wait_for_stop().await;
    stop.cancel();
    let _ = tokio::join!(served, renewed);
    tracing::info!("stopped");
    Ok(())
}

fn settings(certificates: &Arc<Certificates>) -> Option<TlsSettings> {
    let first = certificates.admin()?;
    let certificates = Arc::clone(certificates);
    Some(Arc::new(move || certificates.admin().unwrap_or_else(|| Arc::clone(&first))))
}

/// Uses a new certificate once its files are there.
async fn renew(certificates: Arc<Certificates>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_INTERVAL) => {}
        }
        match certificates.reload_if_changed() {
            Some(Ok(())) => tracing::info!("the certificate was renewed"),
            Some(Err(error)) => tracing::error!(error, "the new certificate cannot be used; the old one stays"),
            None => {}
        }
    }
}
