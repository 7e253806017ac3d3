//! TLS on both sides: rustls with aws-lc-rs, and channel bindings.

use crate::limits::TLS_TIMEOUT;
use crate::socket::{Replayed, Socket};
use aws_lc_rs::digest;
use bytes::BytesMut;
use proxy_core::session::TlsInfo;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::sync::Arc;
use tokio::time::timeout;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the gateway shows to clients: made anew when the files change.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The rustls configuration.
    pub config: Arc<rustls::ServerConfig>,
    /// `tls-server-end-point` of the certificate.
    pub end_point: Option<Vec<u8>>,
}

/// How to speak TLS to a target.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// The rustls configuration: it verifies the certificate, or (`require`) does not.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the certificate must have.
    pub server_name: ServerName<'static>,
}

/// Channel binding `tls-server-end-point` (RFC 5929 §4.1): the certificate's digest under its own signature's hash,
/// SHA-256 where that is MD5 or SHA-1. `None` where the signature has no single hash (Ed25519).
#[must_use]
pub fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // md5, sha1, sha256 with RSA; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn describe(connection: &rustls::CommonState) -> String {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(_) | None => "TLS",
    };
    match connection.negotiated_cipher_suite() {
        Some(suite) => format!("{version} {:?}", suite.suite()),
        None => version.to_owned(),
    }
}

/// The handshake as the server. `head`: what was read already and belongs to it.
///
/// # Errors
/// The handshake failed or took longer than [`TLS_TIMEOUT`].
pub async fn accept(
    tls: ServerTls,
    head: BytesMut,
    socket: Socket,
) -> io::Result<(Box<tokio_rustls::server::TlsStream<Replayed>>, TlsInfo)> {
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.config);
    let stream = timeout(TLS_TIMEOUT, acceptor.accept(Replayed::new(head, socket)))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let connection = stream.get_ref().1;
    let info = TlsInfo {
        server_name: connection.server_name().map(str::to_owned),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        server_end_point: tls.end_point,
        description: describe(connection),
    };
    Ok((Box::new(stream), info))
}

/// The handshake as the client.
///
/// # Errors
/// The handshake failed, the certificate does not hold, or it took longer than [`TLS_TIMEOUT`].
pub async fn connect(tls: UpstreamTls, socket: Socket) -> io::Result<(Box<tokio_rustls::client::TlsStream<Socket>>, TlsInfo)> {
    let connector = tokio_rustls::TlsConnector::from(tls.config);
    let stream = timeout(TLS_TIMEOUT, connector.connect(tls.server_name, socket))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let connection = stream.get_ref().1;
    let info = TlsInfo {
        server_name: None,
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        server_end_point: connection.peer_certificates().and_then(|chain| chain.first()).and_then(server_end_point),
        description: describe(connection),
    };
    Ok((Box::new(stream), info))
}
