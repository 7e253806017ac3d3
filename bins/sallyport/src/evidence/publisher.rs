//! Signs the log every few seconds, and publishes what was signed.
//!
//! Nothing here is on the way of a request, and nothing that fails here stops one: what could not be published is, a moment
//! later.

use crate::metrics::{Metrics, family};
use crate::shipping::Rewrites;
use crate::witness::Witnesses;
use audit_store::{AuditStore, Export, Notary, NotaryError, Signed};
use control_plane::published::{PublishedLog, Round};
use parking_lot::{Mutex, RwLock};
use proxy_core::StoreError;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tlog::Note;
use tokio_util::sync::CancellationToken;

/// How often what is whole is written between two rounds (1 s): most of it is in memory then, and the hashes of its leaves.
const AHEAD_INTERVAL: Duration = Duration::from_secs(1);

/// The log's published form, and who keeps it.
pub struct Publisher {
    store: Arc<AuditStore>,
    notary: Notary,
    export: Option<Mutex<Export>>,
    witnesses: Witnesses,
    /// A round at a time: witnesses see sizes that rise.
    turn: tokio::sync::Mutex<()>,
    published: RwLock<Option<Arc<Signed>>>,
    /// Where it is shipped to, what was destroyed is destroyed as well.
    shipped: Arc<Rewrites>,
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
    /// Too few witnesses have cosigned it.
    #[error("the audit log is not published: {0}")]
    Witnesses(String),
    /// A witness has seen another log.
    #[error(
        "the witness {witness} has cosigned {size} entries that this log does not have: it was restored from a backup, or forked. Nothing is recorded any more. Put the whole log back, or begin a new one with `sallyport audit new-log`"
    )]
    Forked {
        /// Which.
        witness: String,
        /// How many entries it has seen.
        size: u64,
    },
    /// The work did not come to its end.
    #[error("a round of publishing ended badly: {0}")]
    Failed(String),
}

impl Publisher {
    /// Publishes the log of `store`, into `export` as well where there is one. `shipped`: what is to be written again elsewhere.
    #[must_use]
    pub fn new(
        store: Arc<AuditStore>,
        notary: Notary,
        export: Option<Export>,
        witnesses: Witnesses,
        shipped: Arc<Rewrites>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let published = published_before(&notary, export.as_ref(), &witnesses);
        let size = published.as_ref().map_or(0, |published| published.size);
        metrics.gauge(&family::AUDIT_PUBLISHED, &[]).set(i64::try_from(size).unwrap_or(i64::MAX));
        metrics.gauge(&family::AUDIT_PUBLISHING, &[]).set(1);
        let published = RwLock::new(published.map(Arc::new));
        Arc::new(Self {
            store,
            notary,
            export: export.map(Mutex::new),
            witnesses,
            turn: tokio::sync::Mutex::default(),
            published,
            shipped,
            metrics,
        })
    }

    /// Signs the log as it is, has it cosigned, and publishes it.
    ///
    /// # Errors
    /// [`RoundError`]. After [`RoundError::Forked`], the store takes no more entries.
    pub async fn round(self: &Arc<Self>) -> Result<(), RoundError> {
        let _turn = self.turn.lock().await;
        let signed = self.blocking(|publisher| {
            publisher.notary.sign()?;
            Ok(publisher.notary.last())
        });
        let Some(signed) = signed.await? else { return Ok(()) };
        if self.published().is_some_and(|published| published.size == signed.size && published.root == signed.root) {
            return Ok(());
        }
        let note = self.cosigned(&signed).await?;
        let signed = Signed { note, ..signed };
        self.blocking(move |publisher| {
            if let Some(export) = &publisher.export {
                let published = export.lock().publish(&publisher.store.reader(), signed.size, &signed.note);
                published.map_err(RoundError::Export)?;
            }
            publisher.metrics.gauge(&family::AUDIT_PUBLISHED, &[]).set(i64::try_from(signed.size).unwrap_or(i64::MAX));
            *publisher.published.write() = Some(Arc::new(signed));
            Ok(())
        })
        .await
    }

    /// The checkpoint with the lines of enough witnesses.
    async fn cosigned(&self, signed: &Signed) -> Result<String, RoundError> {
        if self.witnesses.is_empty() {
            return Ok(signed.note.clone());
        }
        let reader = self.store.reader();
        let cosigned = self.witnesses.cosign(&signed.note, |old, new| reader.consistency_proof(old, new).ok().flatten()).await;
        if let Some((witness, size)) = cosigned.ahead.or(cosigned.forked) {
            let forked = RoundError::Forked { witness, size };
            self.store.refuse(&forked.to_string());
            return Err(forked);
        }
        for (name, error) in &cosigned.missing {
            tracing::debug!(witness = name, %error, "a witness did not cosign");
        }
        self.metrics.gauge(&family::AUDIT_COSIGNED, &[]).set(i64::try_from(cosigned.by.len()).unwrap_or(i64::MAX));
        if cosigned.enough {
            return Ok(cosigned.note);
        }
        let missing = cosigned.missing.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>().join("; ");
        Err(RoundError::Witnesses(format!(
            "{} of {} witnesses have cosigned it ({missing})",
            cosigned.by.len(),
            self.witnesses.min()
        )))
    }

    /// Away from the event loop: it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, RoundError> + Send + 'static,
    ) -> Result<T, RoundError> {
        let publisher = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&publisher)).await.map_err(|error| RoundError::Failed(error.to_string()))?
    }

    /// Writes what is whole and will not change any more: while it is fresh, that is cheap, and a round then takes less time.
    async fn write_ahead(self: &Arc<Self>) {
        if self.export.is_none() {
            return;
        }
        let written = self.blocking(|publisher| {
            let Some(export) = &publisher.export else { return Ok(()) };
            let written = export.lock().write_ahead(&publisher.store.reader(), publisher.store.synced());
            written.map_err(RoundError::Export)
        });
        // The next round does it, or says why it cannot.
        if let Err(error) = written.await {
            tracing::debug!(%error, "nothing was written ahead");
        }
    }

    /// A round every `interval()`, until `stop`. What is the same trouble as before is said once.
    pub async fn run(self: Arc<Self>, interval: impl Fn() -> Duration, stop: CancellationToken) {
        let mut said = String::new();
        loop {
            let due = Instant::now() + interval();
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                tokio::select! {
                    () = tokio::time::sleep(left.min(AHEAD_INTERVAL)) => {}
                    () = stop.cancelled() => return,
                }
                if Instant::now() < due {
                    self.write_ahead().await;
                }
            }
            let trouble = self.round().await.map_or_else(|error| error.to_string(), |()| String::new());
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

impl PublishedLog for Publisher {
    fn published(&self) -> Option<Arc<Signed>> {
        self.published.read().clone()
    }

    fn notary(&self) -> &Notary {
        &self.notary
    }

    fn publish_now(self: Arc<Self>) -> Round {
        Box::pin(async move { self.round().await.map_err(|error| error.to_string()) })
    }

    fn rewrite(&self, range: Range<u64>) -> Result<(), StoreError> {
        self.shipped.add(&range)?;
        match &self.export {
            Some(export) => export.lock().rewrite(&self.store.reader(), range),
            None => Ok(()),
        }
    }
}

/// What was published before this start: of what witnesses have cosigned, the folder alone knows.
fn published_before(notary: &Notary, export: Option<&Export>, witnesses: &Witnesses) -> Option<Signed> {
    let last = notary.last()?;
    match export {
        Some(export) => {
            let note = export.checkpoint().ok().flatten()?;
            let checkpoint = Note::parse(note.as_bytes()).ok()?.checkpoint().ok()?;
            (checkpoint.size <= last.size).then_some(Signed { size: checkpoint.size, root: checkpoint.root, note })
        }
        None => Some(last).filter(|_| witnesses.is_empty()),
    }
}
