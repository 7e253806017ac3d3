//! Cancel requests to a target: on a connection of their own, within TLS where the session's connection is. The key in
//! one would let whoever sees it cancel the session's statements.

use crate::limits::{CANCEL_TIMEOUT, CLOSE_TIMEOUT};
use crate::socket::{Socket, Stream};
use crate::tls::{self, UpstreamTls};
use proxy_core::session::TlsUpgrade;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// TLS to a target, and how it is asked for.
type Tls = (UpstreamTls, TlsUpgrade);

/// Sends `request` within [`CANCEL_TIMEOUT`], and waits until the target has closed the connection: until then it may
/// not have read it.
///
/// # Errors
/// The target cannot be written to in time, or does not speak TLS where it must: then nothing of `request` was sent.
pub(crate) async fn send(socket: Socket, tls: Option<Tls>, request: &[u8]) -> io::Result<()> {
    let mut stream = deliver(CANCEL_TIMEOUT, socket, tls, request).await?;
    // It answers nothing. A connection that is closed with unread bytes (TLS has some) would be reset, and the request
    // could be lost with it. How it ends does not matter any more.
    let mut rest = [0; 64];
    let closed = async { while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let _ = timeout(CLOSE_TIMEOUT, closed).await;
    Ok(())
}

async fn deliver(within: Duration, socket: Socket, tls: Option<Tls>, request: &[u8]) -> io::Result<Stream> {
    let delivered = async {
        let mut stream = match tls {
            None => Stream::Plain(socket),
            Some(tls) => encrypt(socket, tls).await?,
        };
        stream.write_all(request).await?;
        stream.flush().await?;
        Ok(stream)
    };
    timeout(within, delivered).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Asks for TLS as the session's own connection did, and checks the target as it did.
async fn encrypt(mut socket: Socket, (tls, upgrade): Tls) -> io::Result<Stream> {
    socket.write_all(&upgrade.request).await?;
    let mut answer = vec![0; upgrade.accepted.len()];
    socket.read_exact(&mut answer).await?;
    if answer != upgrade.accepted {
        return Err(io::Error::other("the target does not speak TLS"));
    }
    let (stream, _) = tls::connect(tls, socket).await?;
    Ok(Stream::Client(stream))
}

#[cfg(test)]
mod tests {
    use super::{Tls, deliver, send};
    use crate::socket::Socket;
    use crate::tls::UpstreamTls;
    use proxy_core::session::TlsUpgrade;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use std::io::ErrorKind;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const REQUEST: &[u8] = &[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 7, 1, 2, 3, 4];

    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::Tcp(client), listener.accept().await.unwrap().0)
    }

    /// Both sides of TLS with a certificate for `localhost`; the client expects `name`.
    fn tls(name: &str) -> (Tls, tokio_rustls::TlsAcceptor) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let server_name = ServerName::try_from(name.to_owned()).unwrap();
        let upgrade = TlsUpgrade { request: SSL_REQUEST[..].into(), accepted: b"S" };
        ((UpstreamTls { config: Arc::new(client), server_name }, upgrade), Arc::new(server).into())
    }

    #[tokio::test]
    async fn without_tls_the_request_alone_is_sent() {
        let (client, mut server) = pair().await;
        let sending = tokio::spawn(async move { send(client, None, REQUEST).await });
        let mut got = [0; 16];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, REQUEST);
        assert!(!sending.is_finished(), "it waits for the server to close");
        drop(server);
        sending.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn with_tls_nothing_of_the_request_is_readable_outside() {
        let (client, mut server) = pair().await;
        let (settings, acceptor) = tls("localhost");
        let sending = tokio::spawn(async move { send(client, Some(settings), REQUEST).await });
        let mut first = [0; 8];
        server.read_exact(&mut first).await.unwrap();
        assert_eq!(first, SSL_REQUEST);
        server.write_all(b"S").await.unwrap();
        let mut inside = acceptor.accept(server).await.unwrap();
        let mut got = [0; 16];
        inside.read_exact(&mut got).await.unwrap();
        assert_eq!(got, REQUEST);
        drop(inside);
        sending.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_target_that_refuses_tls_gets_no_request() {
        let (client, mut server) = pair().await;
        let sending = tokio::spawn(async move { send(client, Some(tls("localhost").0), REQUEST).await });
        server.read_exact(&mut [0; 8]).await.unwrap();
        server.write_all(b"N").await.unwrap();
        assert!(sending.await.unwrap().is_err());
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }

    #[tokio::test]
    async fn a_target_with_another_name_gets_no_request() {
        let (client, mut server) = pair().await;
        let (settings, acceptor) = tls("elsewhere.example");
        let sending = tokio::spawn(async move { send(client, Some(settings), REQUEST).await });
        server.read_exact(&mut [0; 8]).await.unwrap();
        server.write_all(b"S").await.unwrap();
        let accepted = acceptor.accept(server).await;
        assert!(sending.await.unwrap().is_err());
        if let Ok(mut inside) = accepted {
            let mut rest = Vec::new();
            let _ = inside.read_to_end(&mut rest).await;
            assert_eq!(rest, b"");
        }
    }

    #[tokio::test]
    async fn a_target_that_never_answers_is_given_up() {
        for answer in [&b""[..], b"S"] {
            let (client, mut server) = pair().await;
            server.write_all(answer).await.unwrap();
            let given_up = deliver(Duration::from_millis(50), client, Some(tls("localhost").0), REQUEST).await;
            assert_eq!(given_up.unwrap_err().kind(), ErrorKind::TimedOut);
        }
    }
}
