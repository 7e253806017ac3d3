//! The connection to the server.
//!
//! The part before TLS is spoken here: what a server, or somebody between, has sent before TLS must not be read as said within
//! it (CVE-2021-38371, CVE-2021-3935). From then on lettre speaks, over our stream.

use super::{EmailConfig, EmailTls};
use crate::connect::Dialer;
use crate::error::SendError;
use crate::limits::{SMTP_LINES_MAX, SMTP_READ_MAX, SMTP_REPLY_MAX};
use crate::secret::Secret;
use lettre::Message;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

#[derive(Debug)]
pub(super) struct Server {
    host: String,
    port: u16,
    tls: EmailTls,
    hello: String,
    login: Option<(String, Secret)>,
}

impl Server {
    pub(super) fn new(config: &EmailConfig) -> Self {
        let EmailConfig { host, port, tls, hello, login, .. } = config.clone();
        Self { host, port, tls, hello, login }
    }

    pub(super) async fn send(&self, dialer: &Dialer, message: &Message) -> Result<(), SendError> {
        let plain = self.tls == EmailTls::None;
        let tcp = dialer.tcp(&self.host, self.port, plain).await?;
        let peer = tcp.peer_addr()?;
        let stream: Box<dyn AsyncTokioStream> = match self.tls {
            EmailTls::None => Box::new(Bounded::said(tcp, peer, b"")),
            EmailTls::Implicit => {
                let stream = dialer.tls(&self.host, Bounded::coded(tcp, peer)).await?;
                Box::new(Bounded::said(stream, peer, b""))
            }
            EmailTls::StartTls => {
                let mut tcp = Bounded::coded(tcp, peer);
                start_tls(&mut tcp, &self.hello).await?;
                let stream = dialer.tls(&self.host, tcp).await?;
                // There is no second greeting after STARTTLS (RFC 3207 §4.2), and lettre waits for one.
                Box::new(Bounded::said(stream, peer, b"220 tls\r\n"))
            }
        };
        self.speak(stream, message).await
    }

    async fn speak(&self, stream: Box<dyn AsyncTokioStream>, message: &Message) -> Result<(), SendError> {
        let hello = ClientId::Domain(self.hello.clone());
        let mut connection = AsyncSmtpConnection::connect_with_transport(stream, &hello).await.map_err(failed)?;
        if let Some((name, password)) = &self.login {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            if connection.server_info().get_auth_mechanism(&mechanisms).is_none() {
                return Err(SendError::NoLogin);
            }
            let credentials = Credentials::new(name.clone(), password.expose().to_owned());
            connection.auth(&mechanisms, &credentials).await.map_err(failed)?;
        }
        connection.send(message.envelope(), &message.formatted()).await.map_err(failed)?;
        // It has the message; how it says goodbye does not matter.
        let _ = connection.quit().await;
        Ok(())
    }
}

/// The code alone: the text may repeat what we said.
fn failed(error: smtp::Error) -> SendError {
    if let Some(code) = error.status() {
        return SendError::Smtp(code.into());
    }
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return SendError::Unreachable(cause.kind());
        }
        source = cause.source();
    }
    SendError::Protocol
}

/// Greeting, EHLO and STARTTLS (RFC 3207 §4), up to where TLS begins.
async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, hello: &str) -> Result<(), SendError> {
    expect(&reply(stream).await?, 220)?;
    stream.write_all(format!("EHLO {hello}\r\n").as_bytes()).await?;
    let offered = reply(stream).await?;
    expect(&offered, 250)?;
    let is_offer = |line: &str| line.get(4..).is_some_and(|name| name.trim().eq_ignore_ascii_case("STARTTLS"));
    if !offered.lines().any(is_offer) {
        return Err(SendError::NoStartTls);
    }
    stream.write_all(b"STARTTLS\r\n").await?;
    expect(&reply(stream).await?, 220)
}

/// One reply (RFC 5321 §4.2), byte by byte: nothing that follows it is taken from the stream.
async fn reply<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, SendError> {
    let (mut text, mut line) = (Vec::new(), 0);
    while text.len() < SMTP_REPLY_MAX {
        let byte = stream.read_u8().await?;
        text.push(byte);
        if byte != b'\n' {
            continue;
        }
        match text.get(line..) {
            Some([b'2'..=b'5', _, _, b'-', ..]) => line = text.len(),
            Some([b'2'..=b'5', _, _, b' ' | b'\r' | b'\n', ..]) => {
                return String::from_utf8(text).map_err(|_| SendError::Protocol);
            }
            _ => return Err(SendError::Protocol),
        }
    }
    Err(SendError::Protocol)
}

fn expect(reply: &str, code: u16) -> Result<(), SendError> {
    match reply.get(..3).and_then(|digits| digits.parse::<u16>().ok()) {
        Some(got) if got == code => Ok(()),
        Some(got) => Err(SendError::Smtp(got)),
        None => Err(SendError::Protocol),
    }
}

/// A stream that says `greeting` first, and from which no more than so many bytes and lines are read.
struct Bounded<S> {
    stream: S,
    peer: SocketAddr,
    greeting: &'static [u8],
    bytes_left: usize,
    lines_left: usize,
}

impl<S> Bounded<S> {
    /// What the server says.
    fn said(stream: S, peer: SocketAddr, greeting: &'static [u8]) -> Self {
        Self { stream, peer, greeting, bytes_left: SMTP_READ_MAX, lines_left: SMTP_LINES_MAX }
    }

    /// What TLS is made of: it has no lines.
    fn coded(stream: S, peer: SocketAddr) -> Self {
        Self { stream, peer, greeting: &[], bytes_left: SMTP_READ_MAX, lines_left: usize::MAX }
    }

    /// Counts what was read; whether it was too much.
    fn count(&mut self, read: &[u8]) -> io::Result<()> {
        let lines = read.iter().filter(|byte| **byte == b'\n').count();
        let left = self.bytes_left.checked_sub(read.len()).zip(self.lines_left.checked_sub(lines));
        (self.bytes_left, self.lines_left) = left.ok_or(io::ErrorKind::InvalidData)?;
        Ok(())
    }
}

impl<S> fmt::Debug for Bounded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bounded({})", self.bytes_left)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> AsyncTokioStream for Bounded<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.greeting.is_empty() {
            let (now, later) = self.greeting.split_at(self.greeting.len().min(buf.remaining()));
            buf.put_slice(now);
            self.greeting = later;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Err(error) = self.count(buf.filled().get(before..).unwrap_or_default()) {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
