//! Shipping: the published log goes to object storage, where it outlives the gateway.
//!
//! ```text
//!  log ──published checkpoint──▶ plan: which files ──▶ place: made where they are not there ──▶ cursor, on the disk
//!                                                            │ last of all
//!                                                            └▶ checkpoints/SIZE ──▶ latest, outside, replaced
//! ```
//!
//! - One task for each `[[shipping]]`. It reads the log as anybody does: what cannot be shipped waits in the log, not in
//!   memory, so that sessions never wait for it.
//! - Full files go in order, in steps, and the cursor is on the disk after each. A step that a kill has cut off goes again:
//!   what is there already is compared, and never written twice. Without its cursor, a task finds out from a listing.
//! - A checkpoint goes after everything that it needs, so that whatever is there can be verified at any time.
//! - At the start, the newest checkpoint that is there must be one of this log. If it commits to entries that the log does
//!   not have, the log was restored or forked, and nothing is shipped there.
//!
//! Start at `plan.rs`, then `shipper.rs`; `remote.rs` is the way back, for `audit verify`.

mod connect;
mod cursor;
mod http;
mod place;
mod plan;
mod remote;
mod rewrites;
mod same;
mod shipper;
#[cfg(test)]
mod tests;

use crate::cli::Failure;
use crate::config::{Config, ObjectUrl, Shipping};
use crate::evidence::Publisher;
use crate::metrics::Metrics;
use audit_store::Reader;
use control_plane::published::PublishedLog;
use proxy_core::StoreError;
use proxy_core::record::Event;
pub(crate) use remote::Remote;
pub use rewrites::Rewrites;
use shipper::{Meters, Shipper, Source};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Bundles of 256 entries in one step: at most so much is sent again after a kill.
const STEP: u64 = 64;
/// Bundles that are on their way at once.
const CONCURRENT: usize = 8;
/// Bytes that are on their way at once (32 MiB); a single bundle may have more.
const IN_FLIGHT: usize = 32 << 20;
/// How often the lag is looked at.
const POLL: Duration = Duration::from_secs(1);
/// The first wait after a failure, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Longest that a stopping gateway ships what it recorded last.
const LAST: Duration = Duration::from_secs(10);

/// Whether a destination can work as it is configured: CA file and secrets are read; with `ask`, it is asked what it has. (To
/// write something would leave it there for ever.)
///
/// # Errors
/// What is wrong, in a sentence.
pub(crate) async fn check(shipping: &Shipping, ask: bool) -> Result<(), String> {
    if let ObjectUrl::Folder { path } = &shipping.to
        && !path.exists()
    {
        // It is made when it is needed.
        return Ok(());
    }
    let place = connect::open(&shipping.to, &shipping.reach, false)?;
    if let Some(latest) = &shipping.latest {
        let (latest, name) = connect::open_object(latest, &shipping.reach, false)?;
        if ask {
            latest.get(&name, place::CHECKPOINT_MAX).await.map_err(|error| error.to_string())?;
        }
    }
    if ask {
        place.folders().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Destinations that are ready to start.
pub(crate) struct Shippers(Vec<Shipper>);

impl Shippers {
    /// Finds out how far each destination has come, as far as this machine knows, and records that each reads the log.
    ///
    /// # Errors
    /// A cursor's folder cannot be made, or the log does not accept the record.
    pub(crate) fn open(
        config: &Config,
        publisher: &Arc<Publisher>,
        reader: &Reader,
        rewrites: &Arc<Rewrites>,
        record: impl Fn(Event) -> Result<(), StoreError>,
    ) -> Result<Self, Failure> {
        let mut shippers = Vec::new();
        for shipping in &config.shipping {
            let failed = |why: String| Failure::finding(format!("shipping {:?}: {why}", shipping.name));
            let query = format!("the published log, to {}", shipping.to);
            record(Event::LogRead { by: format!("shipping {}", shipping.name), query }).map_err(|e| failed(e.to_string()))?;
            let (published, keys) = (Arc::clone(publisher), Arc::clone(publisher));
            let source = Source {
                reader: reader.clone(),
                published: Box::new(move || published.published()),
                keys: Box::new(move || keys.notary().public().verifiers),
            };
            let settings = shipping.clone();
            let connect = move || {
                let place = connect::open(&settings.to, &settings.reach, true)?;
                let latest = settings.latest.as_ref().map(|url| connect::open_object(url, &settings.reach, true)).transpose()?;
                Ok((place, latest))
            };
            let file = config.shipping_file(&shipping.name, "cursor");
            let shipper = Shipper::new(shipping, file, source, Arc::clone(rewrites), Box::new(connect));
            shippers.push(shipper.map_err(|error| failed(error.to_string()))?);
        }
        Ok(Self(shippers))
    }

    /// Starts them.
    pub(crate) fn start(self, metrics: &Arc<Metrics>) -> Shipped {
        let stop = CancellationToken::new();
        let start = |shipper: Shipper| {
            let meters = Meters::new(metrics, shipper.name());
            tokio::spawn(shipper.run(meters, stop.clone()))
        };
        Shipped { tasks: self.0.into_iter().map(start).collect(), stop: stop.clone() }
    }
}

/// Destinations that are shipped to.
pub(crate) struct Shipped {
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Shipped {
    /// Ships what was published last, for a short while, and ends.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "shipping the audit log ended badly");
            }
        }
    }
}
