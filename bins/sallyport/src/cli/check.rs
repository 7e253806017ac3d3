//! `sallyport check`: what would be refused, and what is doubtful, before it is served.

use super::control::{fetch, services};
use super::output::Tone;
use super::remote::block_on;
use super::{Failure, Output, load};
use crate::config::{Config, Connection, Secret, TlsFiles};
use crate::evidence::try_source;
use crate::serve::parts::{masks, policies, verifier};
use crate::target::inspect::inspect;
use crate::target::postgres::{connect, load_catalog};
use control_plane::client::Client;
use identity::Verifier;
use masking::MaskRules;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use std::path::Path;
use time::{Duration, OffsetDateTime};

/// A certificate that ends sooner is worth a warning (14 days).
const EXPIRES_SOON: Duration = Duration::days(14);
/// Columns that are named one by one; the rest is counted.
const SUSPICIOUS_SHOWN: usize = 20;

/// `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also log in to each target and fetch each issuer's keys
    #[arg(long)]
    connect: bool,
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// As it should be.
    Ok,
    /// To be looked at.
    Warning,
    /// It will not work.
    Error,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// What it is about: a file and line, a connection, an issuer.
    about: String,
    what: String,
    remedy: String,
}

/// Findings, printed as they come.
struct Report<'o> {
    output: &'o Output,
    list: Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, level: Level, about: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let finding = Finding { level, about: about.to_owned(), what: what.into(), remedy: remedy.into() };
        if !self.output.json() {
            let (label, tone) = match level {
                Level::Ok => ("ok     ", Tone::Good),
                Level::Warning => ("warning", Tone::Doubtful),
                Level::Error => ("error  ", Tone::Bad),
            };
            self.output.line(format!("{} {}: {}", self.output.paint(tone, label), finding.about, finding.what));
            if !finding.remedy.is_empty() {
                self.output.line(format!("        {}", finding.remedy));
            }
        }
        self.list.push(finding);
    }

    fn finish(self, config: &Config) -> Result<(), Failure> {
        let wrong = self.list.iter().any(|finding| finding.level == Level::Error);
        if self.output.json() {
            self.output.value(&serde_json::json!({ "ok": !wrong, "digest": config.digest, "findings": self.list }))?;
        }
        if wrong { Err(Failure::finding("")) } else { Ok(()) }
    }
}

pub(super) fn run(file: &Path, args: &Args, output: &Output) -> Result<(), Failure> {
    let config = load(file)?;
    let shown = file.display().to_string();
    let mut report = Report { output, list: Vec::new() };
    report.add(Level::Ok, &shown, summary(&config), "");
    for warning in &config.warnings {
        let about = if warning.line > 0 { format!("{shown}:{}", warning.line) } else { shown.clone() };
        report.add(Level::Warning, &about, &warning.what, &warning.remedy);
    }
    if let Some(files) = &config.tls {
        certificate(files, &mut report);
    }
    secrets(&config, args.connect, &mut report)?;
    check_policies(&config, &mut report);
    let rules = masks(&config);
    if let Err(failure) = &rules {
        report.add(Level::Error, "masking", &failure.message, "");
    }
    let verifier = verifier(&config);
    if let Err(failure) = &verifier {
        report.add(Level::Error, &shown, &failure.message, "");
    }
    for stream in &config.streams {
        if let Err(why) = block_on(async { Ok(crate::streams::check(stream, args.connect).await) })? {
            let remedy = "until it works, what it should send waits in the log";
            report.add(Level::Error, &format!("stream {}", stream.name), why, remedy);
        }
    }
    for shipping in &config.shipping {
        let about = format!("shipping {}", shipping.name);
        match block_on(async { Ok(crate::shipping::check(shipping, args.connect).await) })? {
            Ok(()) => report.add(Level::Ok, &about, shipping.to_string(), ""),
            Err(why) => report.add(Level::Error, &about, why, "until it works, what it should have waits in the log"),
        }
    }
    running(&config, &mut report)?;
    if args.connect {
        block_on(async {
            if let Ok(verifier) = &verifier {
                issuers(verifier, &mut report).await;
            }
            for connection in &config.connections {
                target(connection, rules.as_ref().ok(), &mut report).await;
            }
            Ok(())
        })?;
    }
    report.finish(&config)
}

/// Fetches what is on other machines, and unwraps the keys of the log's payloads, if it is to connect.
fn secrets(config: &Config, connect: bool, report: &mut Report<'_>) -> Result<(), Failure> {
    if !connect {
        config.remote_secrets.iter().for_each(Secret::assume);
        return Ok(());
    }
    let failed = fetch(config)?;
    for secret in &config.remote_secrets {
        let about = secret.reference().to_string();
        match failed.iter().find(|(reference, _)| reference == secret.reference()) {
            Some((_, error)) => report.add(Level::Error, &about, error, "what needs it fails until it can be fetched"),
            None => report.add(Level::Ok, &about, "fetched", ""),
        }
    }
    let Some(source) = &config.audit.payload_key else { return Ok(()) };
    let checked = block_on(async { Ok(try_source(config, source, &*services(config)?).await) })?;
    match checked {
        Ok(0) => report.add(Level::Ok, "audit.payload_key", format!("{source} wraps and unwraps"), ""),
        Ok(keys) => report.add(Level::Ok, "audit.payload_key", format!("{source} wraps, and {keys} keys were unwrapped"), ""),
        Err(error) => {
            report.add(Level::Error, "audit.payload_key", error.to_string(), "the gateway does not start without it");
        }
    }
    Ok(())
}

/// What a gateway that runs here has of this file.
fn running(config: &Config, report: &mut Report<'_>) -> Result<(), Failure> {
    let client = Client::new(&config.admin_socket());
    // None runs, or not for this user: then there is nothing to compare.
    let Ok(status) = block_on(async { Ok(client.get("/api/v1/status").await) })? else { return Ok(()) };
    if status["configuration"] != config.digest.as_str() {
        let remedy = "it has not read it yet, or refused it: its log says why";
        report.add(Level::Warning, "running gateway", "does not run with this file", remedy);
    }
    let waiting = status["waiting_for_restart"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    let waiting = waiting.collect::<Vec<_>>().join(", ");
    if !waiting.is_empty() {
        let what = format!("a change of {waiting} takes effect at its next start");
        report.add(Level::Warning, "running gateway", what, "restart it");
    }
    Ok(())
}

fn summary(config: &Config) -> String {
    let names = |list: Vec<&str>| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let connections = names(config.connections.iter().map(|connection| connection.name.as_str()).collect());
    let issuers = names(config.issuers.iter().map(|issuer| issuer.name.as_str()).collect());
    format!("connections: {connections}; issuers: {issuers}; digest {}", config.digest.get(..12).unwrap_or_default())
}

fn check_policies(config: &Config, report: &mut Report<'_>) {
    let about = config.policy_dir.display().to_string();
    match policies(config) {
        Ok(set) => {
            report.add(Level::Ok, &about, format!("{} policies, set {}", set.policies().len(), set.version()), "");
            for warning in set.warnings() {
                report.add(
                    Level::Warning,
                    &format!("{}:{}", warning.file.display(), warning.line),
                    &warning.message,
                    &warning.remedy,
                );
            }
        }
        Err(failure) => report.add(Level::Error, &about, failure.message, ""),
    }
}

/// The certificate is read, fits its key, and is valid for a while.
fn certificate(files: &TlsFiles, report: &mut Report<'_>) {
    let about = files.certificate.display().to_string();
    match certificate_end(files) {
        Err(why) => report.add(Level::Error, &about, why, "`sallyport init DIR` makes a pair"),
        Ok(end) => {
            let left = end - OffsetDateTime::now_utc();
            let day = end.date();
            if left <= Duration::ZERO {
                report.add(Level::Error, &about, format!("expired on {day}"), "renew it: clients will refuse it");
            } else if left < EXPIRES_SOON {
                report.add(Level::Warning, &about, format!("expires on {day}"), "renew it: a new file is used at once");
            } else {
                report.add(Level::Ok, &about, format!("valid until {day}"), "");
            }
        }
    }
}

fn certificate_end(files: &TlsFiles) -> Result<OffsetDateTime, String> {
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(&files.certificate).map_err(|error| error.to_string())?.collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let first = chain.first().cloned().ok_or("there is no certificate in it")?;
    let key =
        PrivateKeyDer::from_pem_file(&files.private_key).map_err(|error| format!("{}: {error}", files.private_key.display()))?;
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("with {}: {error}", files.private_key.display()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&first).map_err(|error| error.to_string())?;
    Ok(parsed.validity().not_after.to_datetime())
}

async fn issuers(verifier: &Verifier, report: &mut Report<'_>) {
    verifier.refresh_all().await;
    for status in verifier.key_status() {
        let about = format!("issuer {}", status.issuer);
        match status.error {
            Some(error) => report.add(
                Level::Error,
                &about,
                error.to_string(),
                "tokens of this issuer are refused until its keys can be fetched",
            ),
            None => report.add(Level::Ok, &about, format!("{} keys", status.keys), ""),
        }
    }
}

/// Logs in to a target and looks around.
async fn target(connection: &Connection, rules: Option<&MaskRules>, report: &mut Report<'_>) {
    let about = format!("connection {}", connection.name);
    let password = match connection.password.as_ref().map(Secret::get).transpose() {
        Ok(password) => password,
        Err(error) => return report.add(Level::Error, &about, error.to_string(), ""),
    };
    let link = match connect(connection, &connection.database, password.as_ref()).await {
        Ok(link) => link,
        Err(error) => return report.add(Level::Error, &about, error.to_string(), ""),
    };
    match inspect(&link).await {
        Err(error) => return report.add(Level::Error, &about, error.to_string(), ""),
        Ok(found) => {
            let tls = found.tls.as_deref().unwrap_or("no TLS");
            report.add(Level::Ok, &about, format!("PostgreSQL {}, {tls}, logged in as {:?}", found.version, found.user), "");
            for wide in found.too_wide {
                report.add(
                    Level::Warning,
                    &about,
                    format!("{:?} has {}: it is able {}", found.user, wide.privilege, wide.allows),
                    wide.remedy,
                );
            }
        }
    }
    let Some(rules) = rules else { return };
    match load_catalog(link.client(), 1).await {
        Err(error) => report.add(Level::Error, &about, error.to_string(), ""),
        Ok(catalog) => {
            for (class, pattern) in rules.unmatched(&connection.name, &catalog) {
                report.add(
                    Level::Warning,
                    &about,
                    format!("{pattern:?} of class {class:?} fits no column"),
                    "correct it, or remove it",
                );
            }
            let suspicious = rules.suspicious_columns(&connection.name, &catalog);
            for column in suspicious.iter().take(SUSPICIOUS_SHOWN) {
                let remedy =
                    format!("[[classify]] class = \"{}\", columns = [\"{}/{}\"]", column.class, connection.name, column.column);
                report.add(
                    Level::Warning,
                    &about,
                    format!("{} looks like {} and is not classified", column.column, column.class),
                    remedy,
                );
            }
            if suspicious.len() > SUSPICIOUS_SHOWN {
                let more = suspicious.len() - SUSPICIOUS_SHOWN;
                report.add(
                    Level::Warning,
                    &about,
                    format!("{more} more columns look sensitive and are not classified"),
                    "classify by patterns with `*`",
                );
            }
        }
    }
}
