//! What changes while the gateway runs: files that are read again, the clock, the silence.

use super::Gateway;
use super::parts::{masks, policies, verifier};
use super::restart::waiting_for_restart;
use crate::cli::control::services;
use crate::config::{self, Config};
use crate::metrics::family;
use crate::secrets::prepare;
use proxy_core::record::Event;
use proxy_core::session::EndReason;
use proxy_io::Control;
use proxy_io::clock::now;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How often configuration, policies and certificate are looked at (500 ms).
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A difference between the two clocks that counts as a jump (2 s).
const JUMP: Duration = Duration::from_secs(2);

type Stamp = BTreeMap<PathBuf, Option<SystemTime>>;

fn stamp(config: &Config) -> Stamp {
    let mut stamp = Stamp::new();
    let mut add = |path: &Path| {
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        stamp.insert(path.to_owned(), modified);
    };
    add(&config.file);
    add(&config.policy_dir);
    if let Ok(entries) = std::fs::read_dir(&config.policy_dir) {
        for entry in entries.flatten() {
            add(&entry.path());
        }
    }
    stamp
}

/// Looks at the files, and listens for SIGHUP, until `stop`.
pub(super) async fn watch(gateway: Arc<Gateway>, stop: CancellationToken) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let mut seen = stamp(&gateway.config());
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        let forced = tokio::select! {
            _ = tick.tick() => false,
            _ = hangup.recv() => true,
            () = stop.cancelled() => return,
        };
        let fresh = stamp(&gateway.config());
        if forced || fresh != seen {
            let gateway = gateway.clone();
            let _ = tokio::task::spawn_blocking(move || reload(&gateway)).await;
            seen = fresh;
        }
        if let Some(result) = gateway.certificates.reload_if_changed() {
            match result {
                Ok(()) => tracing::info!("the certificate was reloaded"),
                Err(error) => tracing::error!(error, "the new certificate cannot be used; the old one stays"),
            }
        }
    }
}

/// Reads configuration and policies again; what is bad stays out.
fn reload(gateway: &Gateway) {
    let old = gateway.config();
    let refused = |what: &str, error: String| {
        tracing::error!(what, error, "the reload was refused; what was active stays");
        gateway.metrics.counter(&family::RELOADS, &[what, "refused"]).inc();
        gateway.record_or_log(Event::ReloadRefused { what: what.to_owned(), error });
    };
    let config = match config::load(&old.file) {
        Ok(config) => Arc::new(config),
        Err(problems) => {
            refused("configuration", problems.to_string());
            old.clone()
        }
    };
    if config.digest != old.digest {
        let fetched = services(&config).inspect(|services| {
            let failed = tokio::runtime::Handle::current().block_on(prepare(&config, services, Some(&old)));
            for (reference, error) in failed {
                tracing::error!(%reference, error, "a secret cannot be fetched: what needs it fails until it can be");
            }
        });
        match (verifier(&config), masks(&config), fetched) {
            (Ok(verifier), Ok(masks), Ok(services)) => {
                let activated = Event::Activated {
                    what: "configuration".to_owned(),
                    digest: config.digest.clone(),
                    previous: Some(old.digest.clone()),
                    difference: config::difference(&old.lines, &config.lines),
                    author: owner(&config.file),
                };
                // What is not recorded does not become active.
                if let Err(error) = gateway.record(activated) {
                    refused("configuration", error.to_string());
                    return;
                }
                gateway.gate.configure(config.clone(), verifier);
                gateway.catalogs.configure(config.clone());
                gateway.engine.set_masks(masks);
                *gateway.config.write() = config.clone();
                *gateway.services.write() = services;
                gateway.metrics.counter(&family::RELOADS, &["configuration", "activated"]).inc();
                end_orphans(gateway, &config);
                tracing::info!(digest = config.digest, "the configuration was reloaded");
                let waiting = waiting_for_restart(&gateway.started_with, &config);
                if !waiting.is_empty() {
                    tracing::warn!(settings = waiting.join(", "), "these settings take effect at the next start");
                }
            }
            (Err(failure), _, _) | (_, Err(failure), _) | (_, _, Err(failure)) => refused("configuration", failure.to_string()),
        }
    }
    let set = match policies(&gateway.config()) {
        Ok(set) => set,
        Err(failure) => return refused("policy", failure.to_string()),
    };
    let before = gateway.engine.policies();
    if set.digest() == before.digest() {
        return;
    }
    let activated = Event::Activated {
        what: "policy".to_owned(),
        digest: set.digest().to_owned(),
        previous: Some(before.digest().to_owned()),
        difference: set.difference(&before),
        author: owner(&gateway.config().policy_dir),
    };
    if let Err(error) = gateway.record(activated) {
        return refused("policy", error.to_string());
    }
    let activation = gateway.engine.activate(set);
    gateway.metrics.counter(&family::RELOADS, &["policy", "activated"]).inc();
    gateway.registry.broadcast(&Control::Recheck);
    tracing::info!(digest = activation.digest, "the policies were reloaded");
}

/// Sessions whose connection is gone end.
fn end_orphans(gateway: &Gateway, config: &Config) {
    for live in gateway.registry.live() {
        if config.connection(&live.target.connection).is_none() {
            gateway.registry.send(live.id, Control::End(EndReason::PolicyChanged));
        }
    }
}

/// The file's owner, by name where it has one.
fn owner(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = std::fs::metadata(path).ok()?.uid();
    Some(control_plane::machine::user_name(uid))
}

/// Records a heartbeat in quiet periods, and jumps of the clock, until `stop`.
pub(super) async fn heartbeat(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut entries = gateway.store.health().entries;
    let mut quiet = Instant::now();
    let (mut wall, mut steady) = (now(), Instant::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return,
        }
        let passed = i64::try_from(steady.elapsed().as_micros()).unwrap_or(i64::MAX);
        let jump = now().0.saturating_sub(wall.0).saturating_sub(passed);
        (wall, steady) = (now(), Instant::now());
        if jump.unsigned_abs() > JUMP.as_micros() as u64 {
            tracing::warn!(micros = jump, "the clock jumped");
            gateway.record_or_log(Event::ClockJump { micros: jump });
            gateway.registry.broadcast(&Control::Recheck);
        }
        let newest = gateway.store.health().entries;
        if newest != entries {
            (entries, quiet) = (newest, Instant::now());
        } else if quiet.elapsed() >= gateway.config().audit.heartbeat {
            gateway.record_or_log(Event::Heartbeat);
        }
    }
}
