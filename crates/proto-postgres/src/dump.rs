//! One line for each frame, for `sallyport inspect`. Never a password, a token, a key or a bound value.

use crate::error::Malformed;
use crate::frame::{HEADER, peek};
use crate::message::{Authentication, ClientMessage, ErrorFields, StartupPacket, UpstreamMessage};
use crate::types::{ClientTag, UpstreamTag};
use proxy_core::Peer;
use std::fmt::Write;

/// Longest text of a statement that a line shows, in bytes.
const TEXT_MAX: usize = 200;

/// Describes the frames in `bytes`, all that one peer sent, from its first byte. Ends at the first thing that
/// cannot be read.
#[must_use]
pub fn dump(from: Peer, bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    match from {
        Peer::Client => startup_packets(&mut rest, &mut lines),
        Peer::Upstream => tls_answers(&mut rest, &mut lines),
    }
    frames(from, rest, &mut lines);
    lines
}

/// Describes frames after the start: from the middle of a recording.
pub fn frames(from: Peer, mut rest: &[u8], lines: &mut Vec<String>) {
    let arrow = arrow(from);
    while !rest.is_empty() {
        let header = match peek(rest) {
            Ok(Some(header)) => header,
            Ok(None) => return lines.push(format!("{arrow} … {} bytes of a header", rest.len())),
            Err(error) => return lines.push(format!("{arrow} ! {error}: {:#04x}", rest.first().copied().unwrap_or(0))),
        };
        let Some(frame) = rest.get(..header.total) else {
            return lines.push(format!("{arrow} … {} of {} bytes of {}", rest.len(), header.total, name(from, header.tag)));
        };
        rest = rest.get(header.total..).unwrap_or_default();
        let described = describe(from, header.tag, frame.get(HEADER..).unwrap_or_default());
        let text = described.unwrap_or_else(|error| format!("! {error}"));
        lines.push(format!("{arrow} {} {} {text}", name(from, header.tag), header.total).trim_end().to_owned());
    }
}

fn arrow(from: Peer) -> &'static str {
    match from {
        Peer::Client => ">",
        Peer::Upstream => "<",
    }
}

fn name(from: Peer, tag: u8) -> String {
    let known = match from {
        Peer::Client => ClientTag(tag).name(),
        Peer::Upstream => UpstreamTag(tag).name(),
    };
    known.map_or_else(|| format!("{tag:#04x}"), str::to_owned)
}

fn startup_packets(rest: &mut &[u8], lines: &mut Vec<String>) {
    while let Ok(Some(total)) = StartupPacket::peek(rest) {
        let Some(packet) = rest.get(..total) else { return };
        let Ok(parsed) = StartupPacket::parse(packet) else { return };
        *rest = rest.get(total..).unwrap_or_default();
        let StartupPacket::Startup { version, rest: parameters } = parsed else {
            lines.push(format!("> {parsed:?} {total}"));
            continue;
        };
        let mut line = format!("> StartupMessage {total} {version:?}");
        match StartupPacket::parameters(parameters) {
            Ok(parameters) => {
                for (name, value) in parameters {
                    let _ = write!(line, " {}={}", text(name), text(value));
                }
            }
            Err(error) => {
                let _ = write!(line, " ! {error}");
            }
        }
        return lines.push(line);
    }
}

/// The single bytes that answer SSLRequest and GSSENCRequest, before the first frame.
fn tls_answers(rest: &mut &[u8], lines: &mut Vec<String>) {
    while let Some((first, after)) = rest.split_first() {
        // A frame's second byte is the top of its length: never one of these letters for a sane message.
        let single = matches!(first, b'N' | b'S' | b'G') && after.first().is_none_or(|next| *next >= b'A');
        if !single {
            return;
        }
        lines.push(format!("< {} 1", char::from(*first)));
        *rest = after;
    }
}

fn describe(from: Peer, tag: u8, body: &[u8]) -> Result<String, Malformed> {
    match from {
        Peer::Client => client(tag, body),
        Peer::Upstream => upstream(tag, body),
    }
}

fn client(tag: u8, body: &[u8]) -> Result<String, Malformed> {
    Ok(match ClientMessage::parse(tag, body)? {
        ClientMessage::Bind(m) => format!(
            "portal={} statement={} parameters={} results={}",
            text(m.portal),
            text(m.statement),
            m.parameters.len(),
            m.result_formats.len()
        ),
        ClientMessage::Close(m) => format!("{:?} {}", m.target, text(m.name)),
        ClientMessage::Describe(m) => format!("{:?} {}", m.target, text(m.name)),
        ClientMessage::Execute(m) => format!("portal={} max_rows={}", text(m.portal), m.max_rows),
        ClientMessage::FunctionCall(m) => format!("function={} arguments={}", m.function, m.arguments.len()),
        ClientMessage::Parse(m) => format!("statement={} types={:?} {}", text(m.name), m.types, text(m.query)),
        ClientMessage::Password(_) => "[redacted]".to_owned(),
        ClientMessage::Query(m) => text(m.text),
        ClientMessage::CopyFail(reason) => text(reason),
        ClientMessage::CopyData(_)
        | ClientMessage::CopyDone
        | ClientMessage::Flush
        | ClientMessage::Sync
        | ClientMessage::Terminate => String::new(),
    })
}

fn upstream(tag: u8, body: &[u8]) -> Result<String, Malformed> {
    Ok(match UpstreamMessage::parse(tag, body)? {
        UpstreamMessage::Authentication(m) => match m {
            Authentication::Ok => "Ok".to_owned(),
            Authentication::CleartextPassword => "CleartextPassword".to_owned(),
            Authentication::Md5Password(_) => "MD5Password".to_owned(),
            Authentication::Sasl(names) => {
                format!("SASL {}", names.iter().map(|name| text(name)).collect::<Vec<_>>().join(","))
            }
            Authentication::SaslContinue(_) => "SASLContinue [redacted]".to_owned(),
            Authentication::SaslFinal(_) => "SASLFinal [redacted]".to_owned(),
            Authentication::Other(kind, _) => format!("method {kind}"),
        },
        UpstreamMessage::BackendKeyData(m) => format!("process={} secret=[{} bytes, redacted]", m.process, m.secret.len()),
        UpstreamMessage::CommandComplete(tag) => text(tag),
        UpstreamMessage::CopyInResponse(m) | UpstreamMessage::CopyOutResponse(m) | UpstreamMessage::CopyBothResponse(m) => {
            format!("binary={} columns={}", m.binary, m.formats.len())
        }
        UpstreamMessage::DataRow(m) => format!("values={}", m.values.len()),
        UpstreamMessage::ErrorResponse(m) | UpstreamMessage::NoticeResponse(m) => error(&m),
        UpstreamMessage::NegotiateProtocolVersion(m) => format!("{:?} unrecognized={}", m.version, m.unrecognized.len()),
        UpstreamMessage::NotificationResponse(m) => format!("process={} channel={}", m.process, text(m.channel)),
        UpstreamMessage::ParameterDescription(types) => format!("types={types:?}"),
        UpstreamMessage::ParameterStatus(m) => format!("{}={}", text(m.name), text(m.value)),
        UpstreamMessage::ReadyForQuery(status) => format!("{status:?}"),
        UpstreamMessage::RowDescription(m) => {
            let columns = m
                .fields
                .iter()
                .map(|f| format!("{}({}.{} type {} format {})", text(f.name), f.table, f.column, f.type_id, f.format.0));
            columns.collect::<Vec<_>>().join(" ")
        }
        UpstreamMessage::BindComplete
        | UpstreamMessage::CloseComplete
        | UpstreamMessage::CopyData(_)
        | UpstreamMessage::CopyDone
        | UpstreamMessage::EmptyQueryResponse
        | UpstreamMessage::FunctionCallResponse(_)
        | UpstreamMessage::NoData
        | UpstreamMessage::ParseComplete
        | UpstreamMessage::PortalSuspended => String::new(),
    })
}

fn error(fields: &ErrorFields<'_>) -> String {
    let field = |kind| text(fields.get(kind).unwrap_or_default());
    format!("{} {} {}", field(b'S'), field(b'C'), field(b'M'))
}

/// Text on one line, shortened; names and values are quoted where they would not stand apart.
fn text(bytes: &[u8]) -> String {
    let shown = bytes.get(..TEXT_MAX).unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(shown).escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    if bytes.is_empty() || text.contains(' ') {
        text = format!("\"{text}\"");
    }
    if shown.len() < bytes.len() {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn passwords_and_keys_are_never_shown() {
        let mut bytes = BytesMut::new();
        StartupPacket::encode_startup(crate::types::ProtocolVersion::V3_0, [(&b"user"[..], &b"ci"[..])].into_iter(), &mut bytes);
        ClientMessage::Password(b"hunter2\0").encode(&mut bytes);
        let lines = dump(Peer::Client, &bytes);
        assert_eq!(lines, ["> StartupMessage 17 3.0 user=ci", "> Password 13 [redacted]"]);
        let mut bytes = BytesMut::from(&b"S"[..]);
        UpstreamMessage::BackendKeyData(crate::message::BackendKeyData { process: 5, secret: b"wxyz" }).encode(&mut bytes);
        assert_eq!(
            dump(Peer::Upstream, &bytes),
            ["< BackendKeyData 13 process=5 secret=[4 bytes, redacted]"].map(str::to_owned).iter().fold(
                vec!["< S 1".to_owned()],
                |mut all, line| {
                    all.push(line.clone());
                    all
                }
            )
        );
    }

    #[test]
    fn what_cannot_be_read_ends_the_lines() {
        assert_eq!(dump(Peer::Upstream, b"Z\0\0\0\x05X"), ["< ReadyForQuery 6 ! invalid value in message"]);
        assert_eq!(dump(Peer::Upstream, b"Z\0\0\0\x03"), ["< ! invalid message length: 0x5a"]);
        assert_eq!(dump(Peer::Upstream, b"D\0\0\0\x10ab"), ["< … 7 of 17 bytes of DataRow"]);
    }
}
