//! What the end-to-end tests share: where the server is, as `scripts/test` says it in the environment.
//!
//! The variables are those of every suite in `tests/clients` (see its README). Without them the tests say
//! `skipped: …` and pass; in CI that is a failure.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where to connect, and as whom.
#[derive(Debug, Clone)]
pub struct Server {
    /// Host name, as the certificate has it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User: the caller's label.
    pub user: String,
    /// Password: its token.
    pub password: String,
    /// Database: the connection's name.
    pub database: String,
    /// CA file, PEM.
    pub ca: String,
    /// Whether this is the server itself, without a gateway.
    pub direct: bool,
}

impl Server {
    /// From the environment. `None`: there is none, and the test is skipped.
    ///
    /// # Panics
    /// In CI: there, a server must be there.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let get = |name: &str| std::env::var(name).ok();
        let found = || {
            Some(Self {
                host: get("SP_HOST")?,
                port: get("SP_PORT")?.parse().ok()?,
                user: get("SP_USER")?,
                password: get("SP_PASSWORD")?,
                database: get("SP_DB")?,
                ca: get("SP_SSLROOTCERT")?,
                direct: get("DIRECT").as_deref() == Some("1"),
            })
        };
        let server = found();
        if server.is_none() {
            assert!(get("CI").is_none(), "no server: run this as `scripts/test clients:tokio-postgres`");
            eprintln!("skipped: no server; run this as `scripts/test clients:tokio-postgres`");
        }
        server
    }

    /// A TLS connection to it, past the SSLRequest.
    ///
    /// # Errors
    /// Certificate, socket, handshake, or a server that refuses TLS.
    pub async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.write_all(&SSL_REQUEST).await?;
        if tcp.read_u8().await? != b'S' {
            return Err(io::Error::other("the server refuses TLS"));
        }
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    /// A session of tokio-postgres with this password. Its connection runs until the client is dropped.
    ///
    /// # Errors
    /// What the server or the driver says.
    pub async fn connect_with(&self, password: &str) -> Result<Client, tokio_postgres::Error> {
        let stream = self.tls().await.expect("TLS works");
        let mut config = tokio_postgres::Config::new();
        config.user(&self.user).password(password).dbname(&self.database);
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A session.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn connect(&self) -> Client {
        self.connect_with(&self.password).await.expect("a session")
    }
}
