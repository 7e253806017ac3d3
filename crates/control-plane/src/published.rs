//! The log's published form, which the gateway writes and the API shows.

use audit_store::{Notary, Signed};
use proxy_core::StoreError;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

/// The work of one round of publishing; its error says why nothing was published.
pub type Round = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What was published of the log, and who signs it.
pub trait PublishedLog: Send + Sync {
    /// The checkpoint that was published last.
    fn published(&self) -> Option<Arc<Signed>>;

    /// Who signs.
    fn notary(&self) -> &Notary;

    /// Signs the log as it is now, and publishes it.
    fn publish_now(self: Arc<Self>) -> Round;

    /// Removes from what is published what was destroyed of these entries.
    ///
    /// # Errors
    /// [`StoreError`]: what was destroyed may still be published.
    fn rewrite(&self, range: Range<u64>) -> Result<(), StoreError>;
}
