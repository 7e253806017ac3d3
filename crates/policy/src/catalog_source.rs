//! Where the catalogues of targets come from. The binary loads them through the gateway's own connections.

use proxy_core::{Catalog, Target};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The catalogues of all targets.
pub trait CatalogSource: Send + Sync {
    /// Grows whenever [`CatalogSource::current`] would answer differently for any target. Sessions ask it
    /// before each decision, so it must be cheap: one atomic load.
    fn generation(&self) -> u64;

    /// The newest catalogue of the target's database; `None`: none was loaded yet, or the target has none.
    fn current(&self, target: &Target) -> Option<Arc<Catalog>>;

    /// Loads the target's catalogue anew. The future resolves when a load that *began after this call* has
    /// ended, well or not, and must not wait for ever: a decision waits for it. Loads may be shared.
    fn refresh(&self, target: &Target) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// How many loads of the target's catalogue succeeded so far, whether or not they found a difference.
    /// `None`: the source does not count, and every refresh that ended is taken for a success.
    fn successes(&self, target: &Target) -> Option<u64> {
        let _ = target;
        None
    }
}

/// No catalogues: for protocols without any, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCatalog;

impl CatalogSource for NoCatalog {
    fn generation(&self) -> u64 {
        0
    }

    fn current(&self, _: &Target) -> Option<Arc<Catalog>> {
        None
    }

    fn refresh(&self, _: &Target) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}
