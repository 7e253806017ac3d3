//! The gateway's certificate: loaded, and loaded again when its files change.

use crate::config::TlsFiles;
use parking_lot::RwLock;
use proxy_io::ServerTls;
use proxy_io::tls::server_end_point;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::SystemTime;

struct Loaded {
    postgres: ServerTls,
    admin: Arc<ServerConfig>,
    changed: Vec<Option<SystemTime>>,
}

/// The certificate in use.
pub(crate) struct Certificates {
    files: Option<TlsFiles>,
    loaded: RwLock<Option<Arc<Loaded>>>,
}

fn modified(files: &TlsFiles) -> Vec<Option<SystemTime>> {
    [&files.certificate, &files.private_key]
        .into_iter()
        .map(|file| std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok())
        .collect()
}

fn load(files: &TlsFiles) -> Result<Loaded, String> {
    let changed = modified(files);
    let shown = files.certificate.display();
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(&files.certificate).map_err(|error| format!("{shown}: {error}"))?.collect();
    let chain = chain.map_err(|error| format!("{shown}: {error}"))?;
    let Some(first) = chain.first() else { return Err(format!("{shown}: there is no certificate in it")) };
    let end_point = server_end_point(first);
    let key =
        PrivateKeyDer::from_pem_file(&files.private_key).map_err(|error| format!("{}: {error}", files.private_key.display()))?;
    let make = |alpn: &[u8]| -> Result<Arc<ServerConfig>, String> {
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| format!("{shown} and {}: {error}", files.private_key.display()))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(config))
    };
    Ok(Loaded { postgres: ServerTls { config: make(b"postgresql")?, end_point }, admin: make(b"http/1.1")?, changed })
}

impl Certificates {
    pub(crate) fn load(files: Option<&TlsFiles>) -> Result<Self, String> {
        let loaded = files.map(load).transpose()?.map(Arc::new);
        Ok(Self { files: files.cloned(), loaded: RwLock::new(loaded) })
    }

    pub(super) fn postgres(&self) -> Option<ServerTls> {
        self.loaded.read().as_ref().map(|loaded| loaded.postgres.clone())
    }

    pub(crate) fn admin(&self) -> Option<Arc<ServerConfig>> {
        self.loaded.read().as_ref().map(|loaded| loaded.admin.clone())
    }

    /// Loads the files again if they changed: `Some` says how it went. On an error the old certificate stays.
    pub(crate) fn reload_if_changed(&self) -> Option<Result<(), String>> {
        let files = self.files.as_ref()?;
        let changed = self.loaded.read().as_ref().is_none_or(|loaded| loaded.changed != modified(files));
        changed.then(|| {
            let fresh = load(files)?;
            *self.loaded.write() = Some(Arc::new(fresh));
            Ok(())
        })
    }
}
