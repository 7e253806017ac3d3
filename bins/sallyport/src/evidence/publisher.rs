//! Signs the log every few seconds, and publishes what was signed.
//!
//! Nothing here is on the way of a request, and nothing that fails here stops one: what could not be published is, a moment
//! later.

use crate::metrics::{Metrics, family};
use audit_store::{AuditStore, Export, Notary, NotaryError, Signed};
use parking_lot::{Mutex, RwLock};
use proxy_core::StoreError;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The log's published form, and who keeps it.
pub struct Publisher {
    store: Arc<AuditStore>,
    notary: Notary,
    export: Option<Mutex<Export>>,
    published: RwLock<Option<Arc<Signed>>>,
    metrics: Arc<Metrics>,
}

/// Why a round did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The log was not signed.
    #[error("the audit log could not be signed: {0}")]
    Notary(#[from] NotaryError),
    /// It was signed, and not published.
    #[error("the audit log could not be published: {0}")]
    Export(StoreError),
}

impl Publisher {
    /// Publishes the log of `store`, into `export` as well where there is one.
    #[must_use]
    pub fn new(store: Arc<AuditStore>, notary: Notary, export: Option<Export>, metrics: Arc<Metrics>) -> Arc<Self> {
        let published = notary.last().filter(|last| export.as_ref().is_none_or(|export| export.published() >= last.size));
        let published = RwLock::new(published.map(Arc::new));
        Arc::new(Self { store, notary, export: export.map(Mutex::new), published, metrics })
    }

    /// The checkpoint that was published last.
    #[must_use]
    pub fn published(&self) -> Option<Arc<Signed>> {
        self.published.read().clone()
    }

    /// Who signs.
    #[must_use]
    pub fn notary(&self) -> &Notary {
        &self.notary
    }

    /// Signs the log as it is, and publishes it. It may wait for the disk.
    ///
    /// # Errors
    /// [`RoundError`].
    pub fn round(&self) -> Result<(), RoundError> {
        self.notary.sign()?;
        let Some(signed) = self.notary.last() else { return Ok(()) };
        if self.published().is_some_and(|published| published.note == signed.note) {
            return Ok(());
        }
        if let Some(export) = &self.export {
            export.lock().publish(&self.store.reader(), signed.size, &signed.note).map_err(RoundError::Export)?;
        }
        self.metrics.gauge(&family::AUDIT_PUBLISHED, &[]).set(i64::try_from(signed.size).unwrap_or(i64::MAX));
        *self.published.write() = Some(Arc::new(signed));
        Ok(())
    }

    /// Removes from what is published what was destroyed of these entries.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rewrite(&self, range: std::ops::Range<u64>) -> Result<(), StoreError> {
        match &self.export {
            Some(export) => export.lock().rewrite(&self.store.reader(), range),
            None => Ok(()),
        }
    }

    /// A round every `interval()`, until `stop`. What is the same trouble as before is said once.
    pub async fn run(self: Arc<Self>, interval: impl Fn() -> Duration, stop: CancellationToken) {
        let mut said = String::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval()) => {}
                () = stop.cancelled() => return,
            }
            let publisher = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || publisher.round()).await;
            let trouble = match done {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => format!("a round of publishing ended badly: {error}"),
            };
            self.metrics.gauge(&family::AUDIT_PUBLISHING, &[]).set(i64::from(trouble.is_empty()));
            if trouble != said {
                if trouble.is_empty() {
                    tracing::info!("the audit log is published again")
                } else {
                    tracing::error!("{trouble}")
                }
                said = trouble;
            }
        }
    }
}
