//! A client of the PostgreSQL protocol that can log in and read frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest frame that is read whole, in bytes (64 MiB): a defence against nonsense, not a limit of the protocol.
const FRAME_MAX: usize = 64 << 20;
const SSL_REQUEST: i32 = 80_877_103;
const PROTOCOL_3_0: i32 = 196_608;

/// Why a session did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An ErrorResponse, in the server's words.
    #[error("the server says: {0}")]
    Server(String),
    /// Something that this client does not know.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

/// Where to connect, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// IP address
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// TCP port
    #[arg(long)]
    port: u16,
    /// User name
    #[arg(long, default_value = "bench")]
    user: String,
    /// Database
    #[arg(long, default_value = "shop")]
    database: String,
    /// The environment variable that holds the password
    #[arg(long, default_value = "PGPASSWORD")]
    password_env: String,
    /// Connect with TLS, trusting this CA (PEM); the certificate must be for `localhost`
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// A [`Target`] made ready: certificates parsed, password read.
#[derive(Clone)]
pub(crate) struct Ready {
    address: (String, u16),
    startup: Bytes,
    password: Arc<str>,
    tls: Option<TlsConnector>,
}

impl Target {
    /// Reads certificate and password.
    pub(crate) fn ready(self) -> Result<Ready, Error> {
        let password = std::env::var(&self.password_env).unwrap_or_default();
        let tls = self.ca.as_ref().map(connector).transpose()?;
        let mut startup = BytesMut::new();
        startup.put_i32(0);
        startup.put_i32(PROTOCOL_3_0);
        for text in ["user", &self.user, "database", &self.database, "application_name", "loadgen"] {
            startup.put_slice(text.as_bytes());
            startup.put_u8(0);
        }
        startup.put_u8(0);
        let length = i32::try_from(startup.len()).map_err(|_| Error::Unexpected("startup too long".to_owned()))?;
        startup[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Ready { address: (self.host, self.port), startup: startup.freeze(), password: password.into(), tls })
    }
}

fn connector(file: &PathBuf) -> Result<TlsConnector, Error> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // New sessions each time: what is measured is the full handshake, as from clients that just started.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A logged-in session.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
}

impl Ready {
    /// Connects and logs in, until ReadyForQuery.
    pub(crate) async fn login(&self) -> Result<Client, Error> {
        let mut tcp = TcpStream::connect((self.address.0.as_str(), self.address.1)).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let mut request = [0u8; 8];
                request[..4].copy_from_slice(&8i32.to_be_bytes());
                request[4..].copy_from_slice(&SSL_REQUEST.to_be_bytes());
                tcp.write_all(&request).await?;
                if tcp.read_u8().await? != b'S' {
                    return Err(Error::Unexpected("no TLS here".to_owned()));
                }
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Box::new(tls.connect(name, tcp).await?)
            }
        };
        let mut client = Client { stream, buffer: BytesMut::with_capacity(1024) };
        client.stream.write_all(&self.startup).await?;
        client.stream.flush().await?;
        client.authenticate(&self.password).await?;
        Ok(client)
    }
}

impl Client {
    async fn authenticate(&mut self, password: &str) -> Result<(), Error> {
        let mut scram = None;
        loop {
            let (tag, mut body) = self.frame().await?;
            match tag {
                b'R' if body.len() >= 4 => match body.get_i32() {
                    0 => {}
                    3 => self.send(b'p', &[password.as_bytes(), b"\0"]).await?,
                    10 => {
                        let start = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                        let first = start.message().to_vec();
                        let length = u32::try_from(first.len()).map_err(io::Error::other)?.to_be_bytes();
                        self.send(b'p', &[b"SCRAM-SHA-256\0", &length, &first]).await?;
                        scram = Some(start);
                    }
                    11 => {
                        let scram = scram.as_mut().ok_or_else(|| Error::Unexpected("SASL out of order".to_owned()))?;
                        scram.update(&body)?;
                        let message = scram.message().to_vec();
                        self.send(b'p', &[&message]).await?;
                    }
                    12 => scram.as_mut().ok_or_else(|| Error::Unexpected("SASL out of order".to_owned()))?.finish(&body)?,
                    other => return Err(Error::Unexpected(format!("authentication method {other}"))),
                },
                b'Z' => return Ok(()),
                b'E' => return Err(server_error(&body)),
                _ => {}
            }
        }
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, tag: u8, parts: &[&[u8]]) -> Result<(), Error> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + 4;
        let mut message = BytesMut::with_capacity(length + 1);
        message.put_u8(tag);
        message.put_u32(u32::try_from(length).map_err(io::Error::other)?);
        parts.iter().for_each(|part| message.put_slice(part));
        self.stream.write_all(&message).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next frame: tag and body.
    pub(crate) async fn frame(&mut self) -> Result<(u8, Bytes), Error> {
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]]) as usize;
                if !(4..=FRAME_MAX).contains(&length) {
                    return Err(Error::Unexpected(format!("a frame of {length} bytes")));
                }
                if self.buffer.len() > length {
                    let tag = self.buffer[0];
                    let body = self.buffer.split_to(length + 1).freeze().slice(5..);
                    return Ok((tag, body));
                }
                self.buffer.reserve(length + 1 - self.buffer.len());
            }
            self.more().await?;
        }
    }

    /// Skips over frames until ReadyForQuery, without keeping any: rows (DataRow or CopyData) and bytes read.
    pub(crate) async fn drain(&mut self) -> Result<(u64, u64), Error> {
        let (mut rows, mut bytes, mut skip) = (0u64, 0u64, 0usize);
        let mut chunk = vec![0u8; 256 << 10];
        loop {
            while self.buffer.len() >= 5 && skip == 0 {
                let length = u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]]) as usize;
                match self.buffer[0] {
                    b'Z' => return Ok((rows, bytes)),
                    b'E' => {
                        let (_, body) = self.frame().await?;
                        return Err(server_error(&body));
                    }
                    b'D' | b'd' => rows += 1,
                    _ => {}
                }
                bytes += length as u64 + 1;
                let here = self.buffer.len().min(length + 1);
                self.buffer.advance(here);
                skip = length + 1 - here;
            }
            let read = self.stream.read(&mut chunk).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let skipped = skip.min(read);
            skip -= skipped;
            self.buffer.extend_from_slice(&chunk[skipped..read]);
        }
    }

    async fn more(&mut self) -> Result<(), Error> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }

    /// Says goodbye.
    pub(crate) async fn terminate(mut self) -> Result<(), Error> {
        self.send(b'X', &[]).await?;
        self.stream.shutdown().await?;
        Ok(())
    }
}

/// The message and SQLSTATE of an ErrorResponse.
pub(crate) fn server_error(body: &[u8]) -> Error {
    let mut message = String::new();
    for field in body.split(|byte| *byte == 0) {
        if let Some((b'M' | b'C', text)) = field.split_first() {
            if !message.is_empty() {
                message.push(' ');
            }
            message.push_str(&String::from_utf8_lossy(text));
        }
    }
    Error::Server(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_becomes_its_code_and_message() {
        let error = server_error(b"SERROR\0C42501\0Mno\0\0");
        assert_eq!(error.to_string(), "the server says: 42501 no");
    }
}
