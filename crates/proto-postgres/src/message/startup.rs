//! The start-up packet: the only one without a type byte.

use crate::error::Malformed;
use crate::frame::{Reader, patch_length, put_cstr};
use crate::limits::{CANCEL_SECRET_MAX, STARTUP_MAX};
use crate::types::ProtocolVersion;
use bytes::{BufMut, BytesMut};

/// A start-up parameter: name and value.
pub type Parameter<'a> = (&'a [u8], &'a [u8]);

/// What a client may say first.
#[derive(Clone, PartialEq, Eq)]
pub enum StartupPacket<'a> {
    /// Asks for TLS.
    SslRequest,
    /// Asks for GSSAPI encryption.
    GssEncRequest,
    /// Cancels another session's request.
    CancelRequest {
        /// The session's number.
        process: u32,
        /// Its secret.
        secret: &'a [u8],
    },
    /// Starts a session. The parameters are unread: see [`StartupPacket::parameters`].
    Startup {
        /// The protocol.
        version: ProtocolVersion,
        /// Names and values.
        rest: &'a [u8],
    },
}

impl std::fmt::Debug for StartupPacket<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SslRequest => f.write_str("SSLRequest"),
            Self::GssEncRequest => f.write_str("GSSENCRequest"),
            Self::CancelRequest { process, .. } => write!(f, "CancelRequest({process}, [redacted])"),
            Self::Startup { version, rest } => write!(f, "StartupMessage({version:?}, {} bytes)", rest.len()),
        }
    }
}

impl<'a> StartupPacket<'a> {
    /// Size of the packet at the front of `bytes`; `None`: its length is not there yet.
    ///
    /// # Errors
    /// [`Malformed::Length`], as the server: `ProcessStartupPacket` in src/backend/tcop/backend_startup.c.
    pub fn peek(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let &[a, b, c, d, ..] = bytes else { return Ok(None) };
        let total = u32::from_be_bytes([a, b, c, d]) as usize;
        if (8..=STARTUP_MAX.saturating_add(4)).contains(&total) { Ok(Some(total)) } else { Err(Malformed::Length) }
    }

    /// Parses a whole packet, length included.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(packet);
        if reader.u32()? as usize != packet.len() {
            return Err(Malformed::Length);
        }
        let version = ProtocolVersion(reader.u32()?);
        Ok(match version {
            ProtocolVersion::SSL => super::empty(reader.rest(), Self::SslRequest)?,
            ProtocolVersion::GSSENC => super::empty(reader.rest(), Self::GssEncRequest)?,
            ProtocolVersion::CANCEL => {
                let process = reader.u32()?;
                let secret = reader.rest();
                if !(4..=CANCEL_SECRET_MAX).contains(&secret.len()) {
                    return Err(Malformed::Length);
                }
                Self::CancelRequest { process, secret }
            }
            version => Self::Startup { version, rest: reader.rest() },
        })
    }

    /// Reads the parameters of a `Startup`: names and values, then a terminator as the last byte.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parameters(rest: &'a [u8]) -> Result<Vec<Parameter<'a>>, Malformed> {
        let mut reader = Reader::new(rest);
        let mut parameters = Vec::new();
        loop {
            match reader.cstr()? {
                b"" => break,
                name => parameters.push((name, reader.cstr()?)),
            }
        }
        reader.end()?;
        Ok(parameters)
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut BytesMut) {
        let at = out.len();
        out.put_u32(0);
        match self {
            Self::SslRequest => out.put_u32(ProtocolVersion::SSL.0),
            Self::GssEncRequest => out.put_u32(ProtocolVersion::GSSENC.0),
            Self::CancelRequest { process, secret } => {
                out.put_u32(ProtocolVersion::CANCEL.0);
                out.put_u32(*process);
                out.extend_from_slice(secret);
            }
            Self::Startup { version, rest } => {
                out.put_u32(version.0);
                out.extend_from_slice(rest);
            }
        }
        patch_length(out, at, at);
    }

    /// Appends a StartupMessage with these parameters.
    pub fn encode_startup<'p>(
        version: ProtocolVersion,
        parameters: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        out: &mut BytesMut,
    ) {
        let at = out.len();
        out.put_u32(0);
        out.put_u32(version.0);
        for (name, value) in parameters {
            put_cstr(out, name);
            put_cstr(out, value);
        }
        out.put_u8(0);
        patch_length(out, at, at);
    }
}

/// Splits the `options` parameter as the server does (`pg_split_opts` in src/backend/utils/init/postinit.c):
/// at white space, a backslash takes the next byte as it is.
#[must_use]
pub fn split_options(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = options.chars().peekable();
    loop {
        while chars.next_if(|c| is_space(*c)).is_some() {}
        if chars.peek().is_none() {
            return words;
        }
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| !is_space(*c)) {
            if c == '\\' {
                word.extend(chars.next());
            } else {
                word.push(c);
            }
        }
        words.push(word);
    }
}

/// C's `isspace` in the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_limit_holds_before_anything_is_buffered() {
        assert_eq!(StartupPacket::peek(&[0, 0, 0x27, 0x14]), Ok(Some(10_004)));
        assert_eq!(StartupPacket::peek(&[0, 0, 0x27, 0x15]), Err(Malformed::Length));
        assert_eq!(StartupPacket::peek(&[0, 0, 0, 7]), Err(Malformed::Length));
        assert_eq!(StartupPacket::peek(&[0x80, 0, 0, 8]), Err(Malformed::Length));
        assert_eq!(StartupPacket::peek(&[0, 0, 0]), Ok(None));
    }

    #[test]
    fn the_terminator_is_the_last_byte() {
        assert_eq!(StartupPacket::parameters(b"user\0x\0\0"), Ok(vec![(&b"user"[..], &b"x"[..])]));
        assert_eq!(StartupPacket::parameters(b"user\0x\0"), Err(Malformed::MissingNul));
        assert_eq!(StartupPacket::parameters(b"user\0x\0\0role\0y\0"), Err(Malformed::Trailing));
        assert_eq!(StartupPacket::parameters(b"user\0x"), Err(Malformed::MissingNul));
    }

    #[test]
    fn options_split_as_the_server_splits_them() {
        assert_eq!(split_options("-c a=b  --c-d=e"), ["-c", "a=b", "--c-d=e"]);
        assert_eq!(split_options(r"-c search_path=a\ b"), ["-c", "search_path=a b"]);
        assert_eq!(split_options(r" a\\b \"), [r"a\b", ""]);
        assert!(split_options(" \t").is_empty());
    }

    #[test]
    fn a_cancel_secret_has_a_limit() {
        let mut packet = BytesMut::new();
        StartupPacket::CancelRequest { process: 1, secret: &[0; 256] }.encode(&mut packet);
        assert!(StartupPacket::parse(&packet).is_ok());
        packet.clear();
        StartupPacket::CancelRequest { process: 1, secret: &[0; 257] }.encode(&mut packet);
        assert_eq!(StartupPacket::parse(&packet), Err(Malformed::Length));
    }
}
