//! Connections: a name is resolved once, its addresses are checked, and one of those is connected to. There is no second look-up
//! that could be answered otherwise (DNS rebinding), no proxy and no pool.

use crate::config::Reach;
use crate::error::{ConfigError, SendError};
use crate::guard::{AddressClass, is_loopback, refused};
use crate::limits::{ADDRESSES_MAX, CONNECT_TIMEOUT};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Addresses that are being looked up.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds the addresses of a name. What it answers is checked.
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, with `port`.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// Makes connections for one channel.
#[derive(Clone)]
pub(crate) struct Dialer {
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    reach: Reach,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Dialer {
    /// Trusts the system's CAs, and those of the PEM file `ca`.
    pub(crate) fn new(reach: Reach, ca: Option<&Path>, resolver: Arc<dyn Resolve>) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        // What of the system's cannot be read is missing: connections that need it fail, and say why.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca {
            let refuse = || ConfigError::Ca(path.to_owned());
            let read = CertificateDer::pem_file_iter(path).map_err(|_| refuse())?;
            let (added, _) = roots.add_parsable_certificates(read.collect::<Result<Vec<_>, _>>().map_err(|_| refuse())?);
            if added == 0 {
                return Err(refuse());
            }
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| ConfigError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { resolver, tls: TlsConnector::from(Arc::new(tls)), reach })
    }

    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// Connects. `plain`: there will be no TLS, so to this host alone.
    pub(crate) async fn tcp(&self, host: &str, port: u16, plain: bool) -> Result<TcpStream, SendError> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.resolver.resolve(host, port).await.map_err(|_| SendError::NotResolved)?,
        };
        for address in &addresses {
            if let Some(class) = refused(address.ip(), self.reach) {
                return Err(SendError::Address(class));
            }
            if plain && !is_loopback(address.ip()) {
                return Err(SendError::Address(AddressClass::Reserved));
            }
        }
        let mut failure = SendError::NotResolved;
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small messages; if it cannot be set, they are a little later.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => failure = error.into(),
                Err(_) => failure = SendError::TimedOut,
            }
        }
        Err(failure)
    }

    /// TLS with whoever proves to be `host`.
    pub(crate) async fn tls<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| SendError::NotResolved)?;
        Ok(self.tls.connect(name, stream).await?)
    }
}
