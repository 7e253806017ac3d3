//! Fetching at the start, and again while the gateway runs.

use super::SecretServices;
use crate::config::{Config, Fetching, Secret, SecretRef};
use crate::metrics::{Metrics, family};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Fetches at once: a service that does not answer holds up one of them for 5 s.
const AT_ONCE: usize = 8;
/// How soon what failed is tried again; no later than `refresh`.
const RETRY: Duration = Duration::from_secs(10);
/// Least time between two fetches that were asked for.
const ASKED_PAUSE: Duration = Duration::from_secs(3);

/// Fetches the secrets of a configuration, each for the first time, or takes them from the one before. What cannot be fetched
/// is an error where it is used, not here. Returns what could not be, for the log or the terminal.
pub async fn prepare(config: &Config, services: &SecretServices, before: Option<&Config>) -> Vec<(SecretRef, String)> {
    let mut wanted = Vec::new();
    for secret in &config.remote_secrets {
        let known = before.and_then(|before| before.remote_secrets.iter().find(|known| *known == secret));
        match known {
            Some(known) => {
                secret.take_over(known);
                if secret.get().is_err() {
                    wanted.push(secret.clone());
                }
            }
            None => wanted.push(secret.clone()),
        }
    }
    let failed = each(wanted, services, config.fetching).await;
    failed.into_iter().filter_map(|(secret, outcome)| Some((secret.reference().clone(), outcome.err()?))).collect()
}

/// Fetches each. The outcome: whether it is new, or why it could not be.
async fn each(secrets: Vec<Secret>, services: &SecretServices, fetching: Fetching) -> Vec<(Secret, Result<bool, String>)> {
    let fetches = secrets.into_iter().map(|secret| async move {
        let outcome = match services.fetch(secret.reference()).await {
            Ok(value) => Ok(secret.put(value, Instant::now() + fetching.refresh + fetching.stale_max)),
            Err(error) => {
                let text = error.to_string();
                secret.put_error(text.clone());
                Err(text)
            }
        };
        (secret, outcome)
    });
    futures_util::stream::iter(fetches).buffer_unordered(AT_ONCE).collect().await
}

/// What is to be kept fresh, and how.
pub struct Active {
    /// The secrets of the active configuration, and those that something which runs has from the one at the start.
    pub secrets: Vec<Secret>,
    /// How often.
    pub fetching: Fetching,
    /// Where they are.
    pub services: Arc<SecretServices>,
}

/// Keeps the secrets of the active configuration fresh.
#[derive(Debug, Default)]
pub struct Refresher {
    asked: Arc<Notify>,
}

impl Refresher {
    /// One that waits for [`Refresher::run`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// To be told when there is reason to think that a secret is out of date.
    #[must_use]
    pub fn asked(&self) -> Arc<Notify> {
        self.asked.clone()
    }

    /// Fetches all again every `refresh`, or when asked, and sooner what failed, until `stop`.
    pub async fn run(self, metrics: Arc<Metrics>, active: impl Fn() -> Active + Send, stop: CancellationToken) {
        for (source, result) in ["vault", "keyvault"].into_iter().flat_map(|source| [(source, "fetched"), (source, "failed")]) {
            let _ = metrics.counter(&family::SECRET_FETCHES, &[source, result]);
        }
        let (mut last, mut last_all) = (Instant::now(), Instant::now());
        loop {
            let now = active();
            let stale = now.secrets.iter().filter(|secret| secret.is_stale()).count();
            metrics.gauge(&family::SECRETS_STALE, &[]).set(i64::try_from(stale).unwrap_or(i64::MAX));
            let refresh = now.fetching.refresh;
            let due = (last_all + refresh).min(if stale > 0 { last + RETRY.min(refresh) } else { last_all + refresh });
            let asked = tokio::select! {
                () = tokio::time::sleep_until(due.into()) => false,
                () = self.asked.notified() => true,
                () = stop.cancelled() => return,
            };
            if asked {
                // Callers can cause this: not more often than that.
                tokio::select! {
                    () = tokio::time::sleep_until((last_all + ASKED_PAUSE).into()) => {}
                    () = stop.cancelled() => return,
                }
            }
            let all = asked || last_all.elapsed() >= refresh;
            refresh_now(&metrics, &active(), all).await;
            last = Instant::now();
            if all {
                last_all = last;
            }
        }
    }
}

async fn refresh_now(metrics: &Metrics, active: &Active, all: bool) {
    let wanted: Vec<Secret> = active.secrets.iter().filter(|secret| all || secret.is_stale()).cloned().collect();
    let stale: Vec<SecretRef> =
        wanted.iter().filter(|secret| secret.is_stale()).map(|secret| secret.reference().clone()).collect();
    for (secret, outcome) in each(wanted, &active.services, active.fetching).await {
        let reference = secret.reference();
        let was_stale = stale.contains(reference);
        let source = match reference {
            SecretRef::Vault { .. } => "vault",
            _ => "keyvault",
        };
        let result = if outcome.is_ok() { "fetched" } else { "failed" };
        metrics.counter(&family::SECRET_FETCHES, &[source, result]).inc();
        match outcome {
            Ok(true) => tracing::info!(%reference, "a secret has changed: the new one is used from now on"),
            Ok(false) if was_stale => tracing::info!(%reference, "a secret can be fetched again"),
            Ok(false) => {}
            // The same trouble is said once.
            Err(error) if !was_stale => {
                let for_seconds = active.fetching.stale_max.as_secs();
                tracing::error!(%reference, error, for_seconds, "a secret cannot be fetched: its last value is used for a while");
            }
            Err(_) => {}
        }
    }
}
