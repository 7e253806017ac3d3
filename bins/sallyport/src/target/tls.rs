//! TLS towards targets, on rustls, for [`super::postgres`].

use crate::config::{Connection, UpstreamTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

/// Why TLS cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsSetupError {
    /// The CA bundle cannot be read.
    #[error("{file} cannot be read: {why}", file = .0.display(), why = .1)]
    Bundle(PathBuf, String),
    /// There is no certificate in it.
    #[error("{} holds no certificate in PEM form", .0.display())]
    EmptyBundle(PathBuf),
    /// A certificate in it is not one.
    #[error("{file} holds a certificate that cannot be used: {why}", file = .0.display(), why = .1)]
    BadCertificate(PathBuf, String),
    /// The system trusts no CA.
    #[error("the system's CA certificates cannot be found; install ca-certificates, or set `ca`")]
    NoSystemRoots,
}

/// The client side's settings for a connection; `None`: no TLS.
///
/// # Errors
/// [`TlsSetupError`].
pub fn client_config(connection: &Connection) -> Result<Option<Arc<ClientConfig>>, TlsSetupError> {
    let builder = ClientConfig::builder();
    let config = match connection.tls {
        UpstreamTls::Disable => return Ok(None),
        UpstreamTls::Require => {
            let verifier = Arc::new(Unverified::new(builder.crypto_provider().signature_verification_algorithms));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        UpstreamTls::VerifyFull => builder.with_root_certificates(roots(connection.ca.as_deref())?).with_no_client_auth(),
    };
    Ok(Some(Arc::new(config)))
}

/// The certificates of a bundle; without one, the system's.
///
/// # Errors
/// [`TlsSetupError`].
pub(crate) fn roots(bundle: Option<&Path>) -> Result<RootCertStore, TlsSetupError> {
    bundle.map_or_else(system_roots, bundled_roots)
}

/// Settings that check a server's certificate and name against `ca`, or the system's CAs.
///
/// # Errors
/// [`TlsSetupError`].
pub(crate) fn verifying(ca: Option<&Path>) -> Result<ClientConfig, TlsSetupError> {
    Ok(ClientConfig::builder().with_root_certificates(roots(ca)?).with_no_client_auth())
}

/// Settings for HTTP. `plain`: it is only ever asked without TLS; then nothing is to be checked, and without a bundle nothing
/// need be there to check it against.
///
/// # Errors
/// [`TlsSetupError`].
pub(crate) fn outbound(ca: Option<&Path>, plain: bool) -> Result<ClientConfig, TlsSetupError> {
    match ca {
        None if plain => Ok(ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()),
        ca => verifying(ca),
    }
}

fn bundled_roots(file: &Path) -> Result<RootCertStore, TlsSetupError> {
    let unreadable = |error: rustls_pki_types::pem::Error| TlsSetupError::Bundle(file.to_owned(), error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
        let added = roots.add(certificate.map_err(unreadable)?);
        added.map_err(|error| TlsSetupError::BadCertificate(file.to_owned(), error.to_string()))?;
    }
    if roots.is_empty() { Err(TlsSetupError::EmptyBundle(file.to_owned())) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    // Systems carry certificates that rustls does not take; those that it takes are enough.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsSetupError::NoSystemRoots) } else { Ok(roots) }
}

/// `tls = "require"`: encrypted, but to whoever answers, as libpq's `sslmode=require`. The handshake's
/// signature is still checked.
#[derive(Debug)]
struct Unverified {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Unverified {
    fn new(algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { algorithms }
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Makes rustls connections for tokio-postgres, and remembers what was negotiated.
#[derive(Debug, Clone)]
pub struct MakeRustls {
    config: Arc<ClientConfig>,
    negotiated: Arc<OnceLock<String>>,
}

impl MakeRustls {
    /// With these settings.
    #[must_use]
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self { config, negotiated: Arc::default() }
    }

    /// Version and cipher suite, once connected. Clones share it.
    #[must_use]
    pub fn negotiated(&self) -> Option<&str> {
        self.negotiated.get().map(String::as_str)
    }
}

impl<S> MakeTlsConnect<S> for MakeRustls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = RustlsStream<S>;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Connect, io::Error> {
        let name = ServerName::try_from(domain.to_owned()).map_err(io::Error::other)?;
        Ok(Connect { connector: TlsConnector::from(Arc::clone(&self.config)), name, negotiated: Arc::clone(&self.negotiated) })
    }
}

/// One connection to be made.
pub struct Connect {
    connector: TlsConnector,
    name: ServerName<'static>,
    negotiated: Arc<OnceLock<String>>,
}

impl<S> TlsConnect<S> for Connect
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = RustlsStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<RustlsStream<S>, io::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let stream = self.connector.connect(self.name, stream).await?;
            let (_, session) = stream.get_ref();
            let version =
                session.protocol_version().map_or_else(|| "TLS".to_owned(), |version| format!("{version:?}").replace('_', "."));
            let suite = session.negotiated_cipher_suite().map_or_else(String::new, |suite| format!(" {:?}", suite.suite()));
            let _ = self.negotiated.set(format!("{version}{suite}"));
            Ok(RustlsStream(Box::new(stream)))
        })
    }
}

/// A TLS stream that knows its channel binding.
pub struct RustlsStream<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for RustlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        certificate
            .and_then(|certificate| end_point(certificate))
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// `tls-server-end-point` (RFC 5929 §4.1): the certificate's hash under its own signature's hash function,
/// SHA-256 in the place of MD5 and SHA-1; undefined for signatures without one (EdDSA).
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &SHA512,
        _ => return None,
    };
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for RustlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RustlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
