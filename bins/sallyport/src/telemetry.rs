//! Where logs and traces of the gateway itself go. Everything else emits `tracing` events; spans are made by
//! [`crate::traces`].
//!
//! Log lines go to a duplicate of standard error. The SQL grammar's C library may point descriptor 2 elsewhere for the
//! length of a parse (it is a switch in its source), and what another thread wrote there meanwhile would be lost.

use crate::config::{LogFormat, Telemetry};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Longest that one batch of traces may take to be taken: a collector that hangs must not hold up the end.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `SALLYPORT_LOG` is not a filter.
    #[error("SALLYPORT_LOG is not a filter: {0}; write error, warn, info, debug or trace")]
    Filter(String),
    /// The exporter of traces cannot be made.
    #[error("[telemetry] otlp: {0}")]
    Otlp(String),
    /// There is no standard error to write to.
    #[error("standard error cannot be used for the log: {0}")]
    StandardError(std::io::Error),
    /// It was set up already.
    #[error("logging is set up already")]
    Twice,
}

/// Sends what is left of the traces when dropped.
#[derive(Debug)]
#[must_use = "traces that were not sent yet are lost when it is dropped early"]
pub struct Guard(Option<SdkTracerProvider>);

impl Guard {
    /// What makes spans, where they are to be sent somewhere.
    #[must_use]
    pub fn tracer(&self) -> Option<SdkTracer> {
        self.0.as_ref().map(|provider| provider.tracer("sallyport"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            let _ = provider.shutdown_with_timeout(EXPORT_TIMEOUT);
        }
    }
}

/// Standard error as it is now, under a descriptor of its own that no child process inherits. A line is one write, and
/// one thread writes at a time.
fn standard_error() -> std::io::Result<Mutex<File>> {
    Ok(Mutex::new(File::from(std::io::stderr().as_fd().try_clone_to_owned()?)))
}

/// A panic is a line of the log like any other, on whichever thread it happens.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, thread = std::thread::current().name(), "panicked: {}", panic.payload_as_str().unwrap_or("?"));
    }));
}

/// Sets up logs to standard error and traces to the collector. Call it once, before anything is parsed and before any
/// runtime is started: the exporter has threads of its own.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(telemetry: &Telemetry) -> Result<Guard, TelemetryError> {
    let filter = match std::env::var("SALLYPORT_LOG") {
        Ok(text) => text.parse::<EnvFilter>().map_err(|error| TelemetryError::Filter(error.to_string()))?,
        Err(_) => EnvFilter::new(&telemetry.level),
    };
    let human = match telemetry.log {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let writer = standard_error().map_err(TelemetryError::StandardError)?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if human {
        let colour = !no_color && std::io::stderr().is_terminal();
        Box::new(tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour).with_target(false))
    } else {
        Box::new(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer))
    };
    let provider = telemetry.otlp.as_deref().map(tracer).transpose()?;
    Registry::default().with(lines).with(filter).try_init().map_err(|_| TelemetryError::Twice)?;
    log_panics();
    Ok(Guard(provider))
}

fn tracer(endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let base = endpoint.trim_end_matches('/');
    let url = if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(url)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| TelemetryError::Otlp(error.to_string()))?;
    let resource = Resource::builder().with_service_name("sallyport").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

#[cfg(test)]
mod tests;
