//! `loadgen upstream`: a server that accepts every login and has nothing to say. A real PostgreSQL would need a process
//! for each of thousands of sessions, and what is measured is the gateway.
//!
//! The gateway's own connection (its `application_name` is `sallyport`: it reads the catalogue) goes to a real server,
//! byte for byte.

use crate::client::Error;
use crate::until_told;
use bytes::{BufMut, BytesMut};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// PostgreSQL's own limit of a startup packet, in bytes.
const STARTUP_MAX: usize = 10_000;
/// Longest message that is read (1 MiB).
const MESSAGE_MAX: usize = 1 << 20;
const SSL_REQUEST: u32 = 80_877_103;
const CANCEL_REQUEST: u32 = 80_877_102;

/// `upstream`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Port to listen on, on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// Certificate chain, PEM, for TLS
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// Port of the real server, for the gateway's own connection
    #[arg(long)]
    real: u16,
}

struct Server {
    tls: Option<TlsAcceptor>,
    real: u16,
}

/// Serves until the end of standard input; prints `{"listening": PORT}` first.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let tls = match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        (None, _) | (_, None) => None,
    };
    let server = Arc::new(Server { tls, real: args.real });
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    println!("{}", serde_json::json!({ "listening": args.port }));
    tokio::select! {
        () = until_told() => Ok(()),
        failed = accept(listener, server) => failed,
    }
}

async fn accept(listener: TcpListener, server: Arc<Server>) -> Result<(), Error> {
    loop {
        let (stream, _) = listener.accept().await?;
        let server = server.clone();
        // A peer that goes away is no news here.
        tokio::spawn(async move { serve(stream, &server).await.ok() });
    }
}

fn acceptor(certificate: &PathBuf, key: &PathBuf) -> Result<TlsAcceptor, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)?.collect();
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.map_err(io::Error::other)?, key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(mut stream: TcpStream, server: &Server) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let startup = startup(&mut stream).await?;
    match startup.get(4..8).map(|code| u32::from_be_bytes([code[0], code[1], code[2], code[3]])) {
        Some(CANCEL_REQUEST) | None => Ok(()),
        Some(SSL_REQUEST) => match &server.tls {
            Some(tls) => {
                stream.write_all(b"S").await?;
                let mut stream = tls.accept(stream).await?;
                let startup = self::startup(&mut stream).await?;
                session(stream, &startup, server).await
            }
            None => {
                stream.write_all(b"N").await?;
                let startup = self::startup(&mut stream).await?;
                session(stream, &startup, server).await
            }
        },
        Some(_) => session(stream, &startup, server).await,
    }
}

async fn startup(stream: &mut (impl AsyncRead + Unpin)) -> Result<BytesMut, Error> {
    let length = stream.read_u32().await? as usize;
    if !(8..=STARTUP_MAX).contains(&length) {
        return Err(Error::Unexpected(format!("a startup packet of {length} bytes")));
    }
    let mut packet = BytesMut::with_capacity(length);
    packet.put_u32(length as u32);
    packet.resize(length, 0);
    stream.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

async fn session(mut stream: impl AsyncRead + AsyncWrite + Unpin, startup: &[u8], server: &Server) -> Result<(), Error> {
    let own = startup.split(|byte| *byte == 0).collect::<Vec<_>>();
    if own.windows(2).any(|pair| pair == [b"application_name".as_slice(), b"sallyport"]) {
        let mut real = TcpStream::connect(("127.0.0.1", server.real)).await?;
        real.set_nodelay(true)?;
        real.write_all(startup).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut real).await?;
        return Ok(());
    }
    let mut hello = BytesMut::new();
    message(&mut hello, b'R', &[&0u32.to_be_bytes()]);
    for (name, value) in [("server_version", "15.18"), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on")] {
        message(&mut hello, b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
    }
    message(&mut hello, b'K', &[&1u32.to_be_bytes(), &2u32.to_be_bytes()]);
    message(&mut hello, b'Z', &[b"I"]);
    stream.write_all(&hello).await?;
    stream.flush().await?;
    drop(hello);
    answer(stream).await
}

/// Every query is an empty one.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Error> {
    loop {
        let tag = stream.read_u8().await?;
        let length = stream.read_u32().await? as usize;
        if !(4..=MESSAGE_MAX).contains(&length) {
            return Err(Error::Unexpected(format!("a message of {length} bytes")));
        }
        let mut body = vec![0u8; length - 4];
        stream.read_exact(&mut body).await?;
        let mut reply = BytesMut::new();
        match tag {
            b'Q' => {
                message(&mut reply, b'C', &[b"SELECT 0\0"]);
                message(&mut reply, b'Z', &[b"I"]);
            }
            b'P' => message(&mut reply, b'1', &[]),
            b'B' => message(&mut reply, b'2', &[]),
            b'D' => message(&mut reply, b'n', &[]),
            b'C' => message(&mut reply, b'3', &[]),
            b'E' => message(&mut reply, b'C', &[b"SELECT 0\0"]),
            b'S' => message(&mut reply, b'Z', &[b"I"]),
            b'X' => return Ok(()),
            _ => {}
        }
        stream.write_all(&reply).await?;
        stream.flush().await?;
    }
}

fn message(out: &mut BytesMut, tag: u8, parts: &[&[u8]]) {
    out.put_u8(tag);
    out.put_u32(parts.iter().map(|part| part.len() as u32).sum::<u32>() + 4);
    parts.iter().for_each(|part| out.put_slice(part));
}
