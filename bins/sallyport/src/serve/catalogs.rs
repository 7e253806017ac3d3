//! The targets' catalogues: loaded through the gateway's own connections, kept, loaded again when they changed.

use crate::config::Config;
use crate::target::postgres::{connect, load_catalog};
use parking_lot::{Mutex, RwLock};
use policy::CatalogSource;
use proxy_core::{Catalog, Target};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often catalogues in use are loaded again, so that changes that did not come through the gateway are seen (30 s).
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// Longest that one load may take (20 s): a decision waits for it.
const LOAD_TIMEOUT: Duration = Duration::from_secs(20);

/// Most databases whose catalogues are kept (256).
const CATALOGS_MAX: usize = 256;

type Key = (String, String);

/// One database's catalogue and the loads of it.
#[derive(Default)]
struct Slot {
    current: RwLock<Option<Arc<Catalog>>>,
    /// Loads begun and loads ended.
    begun: Mutex<u64>,
    ended: watch::Sender<u64>,
    /// Loads that succeeded.
    succeeded: AtomicU64,
    lock: tokio::sync::Mutex<()>,
}

/// All catalogues.
pub(super) struct Catalogs {
    /// For the tasks that load.
    this: Weak<Self>,
    config: RwLock<Arc<Config>>,
    runtime: tokio::runtime::Handle,
    slots: RwLock<HashMap<Key, Arc<Slot>>>,
    generation: AtomicU64,
}

impl Catalogs {
    /// None yet. Must be called on the control runtime, which does the loading.
    pub(super) fn new(config: Arc<Config>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            config: RwLock::new(config),
            runtime: tokio::runtime::Handle::current(),
            slots: RwLock::default(),
            generation: AtomicU64::new(0),
        })
    }

    /// Uses another configuration from now on.
    pub(super) fn configure(&self, config: Arc<Config>) {
        *self.config.write() = config;
    }

    fn slot(&self, key: &Key) -> Option<Arc<Slot>> {
        if let Some(slot) = self.slots.read().get(key) {
            return Some(slot.clone());
        }
        let mut slots = self.slots.write();
        if slots.len() >= CATALOGS_MAX && !slots.contains_key(key) {
            return None;
        }
        Some(slots.entry(key.clone()).or_default().clone())
    }

    async fn load(&self, key: &Key, slot: &Slot) {
        let _one = slot.lock.lock().await;
        let number = *slot.begun.lock();
        let config = self.config.read().clone();
        let Some(connection) = config.connection(&key.0).cloned() else {
            slot.ended.send_replace(number);
            return;
        };
        let version = self.generation.load(Ordering::Relaxed) + 1;
        let loaded = tokio::time::timeout(LOAD_TIMEOUT, async {
            let password =
                connection.password.as_ref().map(crate::config::Secret::get).transpose().map_err(|error| error.to_string())?;
            let link = connect(&connection, &key.1, password.as_ref()).await.map_err(|error| error.to_string())?;
            load_catalog(link.client(), version).await.map_err(|error| error.to_string())
        })
        .await
        .unwrap_or_else(|_| Err("it took too long".to_owned()));
        match loaded {
            Ok(catalog) => {
                slot.succeeded.fetch_add(1, Ordering::Release);
                let mut current = slot.current.write();
                if current.as_ref().is_none_or(|known| !known.same_as(&catalog)) {
                    *current = Some(Arc::new(catalog));
                    drop(current);
                    self.generation.fetch_add(1, Ordering::Release);
                }
            }
            Err(error) => {
                tracing::warn!(connection = key.0, database = key.1, error, "the target's catalogue could not be loaded")
            }
        }
        slot.ended.send_replace(number);
    }
}

impl CatalogSource for Catalogs {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn current(&self, target: &Target) -> Option<Arc<Catalog>> {
        let key = (target.connection.clone(), target.database.clone());
        self.slots.read().get(&key)?.current.read().clone()
    }

    fn successes(&self, target: &Target) -> Option<u64> {
        let key = (target.connection.clone(), target.database.clone());
        Some(self.slots.read().get(&key).map_or(0, |slot| slot.succeeded.load(Ordering::Acquire)))
    }

    fn refresh(&self, target: &Target) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let key = (target.connection.clone(), target.database.clone());
        let Some(slot) = self.slot(&key) else { return Box::pin(std::future::ready(())) };
        // This call's load: one that begins after now.
        let mine = {
            let mut begun = slot.begun.lock();
            *begun += 1;
            *begun
        };
        let mut ended = slot.ended.subscribe();
        let this = self.this.clone();
        self.runtime.spawn(async move {
            let Some(this) = this.upgrade() else { return };
            if *slot.ended.borrow() < mine {
                this.load(&key, &slot).await;
            }
        });
        Box::pin(async move {
            let done = ended.wait_for(|ended| *ended >= mine);
            let _ = tokio::time::timeout(LOAD_TIMEOUT, done).await;
        })
    }
}

/// Loads every catalogue in use again from time to time, until `stop`.
pub(super) async fn keep_fresh(catalogs: Arc<Catalogs>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(REFRESH_EVERY) => {}
            () = stop.cancelled() => return,
        }
        let slots: Vec<_> = catalogs.slots.read().iter().map(|(key, slot)| (key.clone(), slot.clone())).collect();
        for (key, slot) in slots {
            *slot.begun.lock() += 1;
            catalogs.load(&key, &slot).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Catalogs;
    use crate::config;
    use policy::CatalogSource;
    use std::sync::Arc;

    const FILE: &str = r#"
data_dir = "data"
[[listener]]
protocol = "postgres"
address = "127.0.0.1:0"
tls = "optional"
[[issuer]]
name = "dev"
kind = "dev"
[[connection]]
name = "gone"
protocol = "postgres"
address = "127.0.0.1:1"
database = "shop"
tls = "disable"
credential = { user = "gateway" }
"#;

    #[tokio::test]
    async fn a_load_that_fails_ends_and_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sallyport.toml");
        std::fs::write(&file, FILE).unwrap();
        let config = Arc::new(config::load(&file).unwrap());
        let target = config.connection("gone").unwrap().target("shop");
        let catalogs = Catalogs::new(config);
        let before = catalogs.successes(&target);
        catalogs.refresh(&target).await;
        assert_eq!(before, Some(0));
        assert_eq!(catalogs.successes(&target), Some(0), "masking must not go on with what was known before");
        assert!(catalogs.current(&target).is_none());
    }
}
