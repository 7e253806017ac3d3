//! Syslog: RFC 5424 messages over TLS (RFC 5425) or TCP (RFC 6587), each after its length in octets.
//!
//! Syslog has no acknowledgement. A batch counts as delivered when it has been written and flushed; what the
//! connection's buffers held when it broke may be lost. Therefore the send buffer is small ([`SEND_BUFFER`]), and a new
//! connection begins [`RESEND_BYTES`] before the point that was reached. The structured data of each message has the
//! log's id and the entry's index, by which a receiver drops what it has.

use super::batch::{Batch, Item, Weight};
use super::sink::{SinkError, Taken};
use crate::config::Stream;
use crate::target::tls::verifying;
use audit_export::rfc3339;
use rustls::pki_types::ServerName;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes that were written last and are sent again on a new connection, about (4 MiB): more than this side's buffer and
/// a receiver's together.
pub(super) const RESEND_BYTES: usize = 4 << 20;
/// This side's buffer (256 KiB; the system doubles it).
const SEND_BUFFER: usize = 256 << 10;
/// RFC 5424, 6.2.1: facility 13, log audit.
const FACILITY: u8 = 13;
/// The structured data's id. 32473 is the number that RFC 5612 sets aside for those without one of their own.
const SD_ID: &str = "sallyport@32473";

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A receiver of syslog.
pub(super) struct Syslog {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connection: Option<Box<dyn Duplex>>,
    own_name: String,
    log_id: String,
}

fn broken(error: io::Error) -> SinkError {
    SinkError::Unreachable(error.to_string())
}

impl Syslog {
    pub(super) fn new(stream: &Stream, host: &str, port: u16, tls: bool) -> Result<Self, String> {
        let tls = if tls {
            let config = verifying(stream.ca.as_deref()).map_err(|error| error.to_string())?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        let own_name = control_plane::machine::host_name().unwrap_or_else(|| "-".to_owned());
        Ok(Self { host: host.to_owned(), port, tls, connection: None, own_name, log_id: String::new() })
    }

    /// The log that the messages are of.
    pub(super) fn of_log(&mut self, id: &str) {
        id.clone_into(&mut self.log_id);
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Whether the receiver has closed: it sends nothing, so that anything to read is its end.
    async fn closed(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return true };
        poll_fn(|context| {
            let mut byte = [0; 64];
            let mut buffer = ReadBuf::new(&mut byte);
            match Pin::new(&mut *connection).poll_read(context, &mut buffer) {
                Poll::Pending => Poll::Ready(false),
                Poll::Ready(Ok(())) => Poll::Ready(buffer.filled().is_empty()),
                Poll::Ready(Err(_)) => Poll::Ready(true),
            }
        })
        .await
    }

    pub(super) async fn connect(&mut self) -> Result<bool, SinkError> {
        if !self.closed().await {
            return Ok(false);
        }
        self.connection = None;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(broken)?;
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
        let _ = socket2::SockRef::from(&stream).set_keepalive(true);
        self.connection = Some(match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await.map_err(broken)?),
        });
        Ok(true)
    }

    pub(super) async fn send(&mut self, batch: &Batch) -> Result<Taken, SinkError> {
        let mut bytes = Vec::with_capacity(batch.bytes() * 5 / 4);
        for item in &batch.items {
            let message = self.message(item);
            bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
            bytes.extend_from_slice(&message);
        }
        let closed = || SinkError::Unreachable("the receiver closed the connection".to_owned());
        let connection = self.connection.as_mut().ok_or_else(closed)?;
        connection.write_all(&bytes).await.map_err(broken)?;
        connection.flush().await.map_err(broken)?;
        // One that closed before it read this is asked again, not believed.
        if self.closed().await { Err(closed()) } else { Ok(Taken::default()) }
    }

    /// One message, RFC 5424 section 6.
    fn message(&self, item: &Item) -> Vec<u8> {
        let severity = match item.weight {
            Weight::Warning => 4,
            Weight::Notice => 5,
            Weight::Information => 6,
        };
        let mut out = format!(
            "<{}>1 {} {} sallyport {} {} [{SD_ID} index=\"{}\" log=\"{}\"",
            FACILITY * 8 + severity,
            rfc3339(item.time),
            self.own_name,
            std::process::id(),
            item.kind.as_str(),
            item.index,
            parameter(&self.log_id),
        );
        if let Some(session) = &item.session {
            out.push_str(&format!(" session=\"{}\"", parameter(session)));
        }
        out.push_str("] ");
        let mut out = out.into_bytes();
        out.extend_from_slice(&item.line);
        out
    }
}

/// RFC 5424, 6.3.3: `"`, `\` and `]` are escaped.
fn parameter(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Destination;
    use audit_export::Format;
    use audit_store::EventKind;
    use proxy_core::Timestamp;
    use std::collections::BTreeMap;
    use tokio::io::AsyncReadExt;

    fn syslog(port: u16) -> Syslog {
        let to = Destination::Syslog { host: "127.0.0.1".into(), port, tls: false };
        let (headers, kinds) = (BTreeMap::new(), vec![]);
        let stream = Stream { name: "siem".into(), to, format: Format::Jsonl, ca: None, headers, kinds, from_start: true };
        let mut syslog = Syslog::new(&stream, "127.0.0.1", port, false).unwrap();
        syslog.own_name = "gw1".into();
        syslog.of_log("ab");
        syslog
    }

    fn item(line: &[u8]) -> Item {
        let session = Some("s]\"\\".to_owned());
        Item { index: 7, time: Timestamp(1), kind: EventKind::Request, session, weight: Weight::Warning, line: line.to_vec() }
    }

    #[test]
    fn a_message_is_as_rfc_5424_has_it() {
        let expected = format!(
            "<108>1 1970-01-01T00:00:00.000001Z gw1 sallyport {} request [sallyport@32473 index=\"7\" log=\"ab\" session=\"s\\]\\\"\\\\\"] {{}}",
            std::process::id()
        );
        assert_eq!(String::from_utf8(syslog(1).message(&item(b"{}"))).unwrap(), expected);
    }

    #[tokio::test]
    async fn messages_are_counted_and_a_closed_connection_is_seen() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sink = syslog(listener.local_addr().unwrap().port());
        assert!(sink.connect().await.unwrap(), "a new one");
        let (mut peer, _) = listener.accept().await.unwrap();
        assert!(!sink.connect().await.unwrap(), "still there");
        let batch = Batch { items: vec![item(b"a\nb"), item("é".as_bytes())], next: 8, missing: 0, withheld: 0 };
        sink.send(&batch).await.unwrap();
        let mut bytes = vec![0; 1 << 16];
        let read = peer.read(&mut bytes).await.unwrap();
        let (length, rest) = std::str::from_utf8(&bytes[..read]).unwrap().split_once(' ').unwrap();
        let first = rest.get(..length.parse().unwrap()).unwrap();
        assert!(first.ends_with("] a\nb"), "{first}");
        let second = &rest[first.len()..];
        assert_eq!(second.split_once(' ').unwrap().0.parse::<usize>().unwrap(), second.split_once(' ').unwrap().1.len());
        drop(peer);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(sink.send(&batch).await.is_err(), "what nobody reads was not delivered");
    }
}
