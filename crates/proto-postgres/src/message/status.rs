//! What the upstream says about itself: errors and notices, settings, keys, transaction status.

use crate::error::Malformed;
use crate::frame::{Reader, put_cstr, write};
use crate::types::{ProtocolVersion, UpstreamTag};
use bytes::{BufMut, BytesMut};

/// The fields of an ErrorResponse or NoticeResponse, in order.
///
/// <https://www.postgresql.org/docs/current/protocol-error-fields.html>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// Type byte and text of each.
    pub fields: Vec<(u8, &'a [u8])>,
}

impl<'a> ErrorFields<'a> {
    /// Most fields that are read: the protocol defines 18.
    const FIELDS_MAX: usize = 64;

    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let mut fields = Vec::new();
        loop {
            match reader.u8()? {
                0 => break,
                _ if fields.len() >= Self::FIELDS_MAX => return Err(Malformed::Value),
                kind => fields.push((kind, reader.cstr()?)),
            }
        }
        reader.end()?;
        Ok(Self { fields })
    }

    /// The first field of this type.
    #[must_use]
    pub fn get(&self, kind: u8) -> Option<&'a [u8]> {
        self.fields.iter().find(|(k, _)| *k == kind).map(|(_, text)| *text)
    }

    /// The SQLSTATE, empty if there is none.
    #[must_use]
    pub fn code(&self) -> &'a [u8] {
        self.get(b'C').unwrap_or_default()
    }

    /// Whether the connection ends with it. `V` is not translated; `S` serves servers before 9.6.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        let severity = self.get(b'V').or_else(|| self.get(b'S')).unwrap_or_default();
        severity == b"FATAL" || severity == b"PANIC"
    }

    /// Appends the frame.
    pub fn encode(&self, tag: UpstreamTag, out: &mut BytesMut) {
        write(out, tag.0, |out| {
            for (kind, text) in &self.fields {
                out.put_u8(*kind);
                put_cstr(out, text);
            }
            out.put_u8(0);
        });
    }
}

/// A setting that the server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let name = reader.cstr()?;
        let value = reader.cstr()?;
        reader.end()?;
        Ok(Self { name, value })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, UpstreamTag::PARAMETER_STATUS.0, |out| {
            put_cstr(out, self.name);
            put_cstr(out, self.value);
        });
    }
}

/// The key that cancels a session's request: four bytes in protocol 3.0, 4 to 256 in 3.2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    /// The server process.
    pub process: u32,
    /// The secret.
    pub secret: &'a [u8],
}

impl std::fmt::Debug for BackendKeyData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackendKeyData {{ process: {}, secret: [redacted] }}", self.process)
    }
}

impl<'a> BackendKeyData<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let process = reader.u32()?;
        let secret = reader.rest();
        if (4..=crate::limits::CANCEL_SECRET_MAX).contains(&secret.len()) {
            Ok(Self { process, secret })
        } else {
            Err(Malformed::Length)
        }
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, UpstreamTag::BACKEND_KEY_DATA.0, |out| {
            out.put_u32(self.process);
            out.extend_from_slice(self.secret);
        });
    }
}

/// What ReadyForQuery says of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// None is open (`I`).
    Idle,
    /// One is open (`T`).
    Open,
    /// One is open and has failed (`E`).
    Failed,
}

impl TransactionStatus {
    /// Parses ReadyForQuery's body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        match body {
            b"I" => Ok(Self::Idle),
            b"T" => Ok(Self::Open),
            b"E" => Ok(Self::Failed),
            [_] => Err(Malformed::Value),
            _ => Err(Malformed::Length),
        }
    }

    /// Appends ReadyForQuery's frame.
    pub fn encode(self, out: &mut BytesMut) {
        write(out, UpstreamTag::READY_FOR_QUERY.0, |out| {
            out.put_u8(match self {
                Self::Idle => b'I',
                Self::Open => b'T',
                Self::Failed => b'E',
            });
        });
    }
}

/// A NOTIFY that another session sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// The sender's process.
    pub process: u32,
    /// The channel.
    pub channel: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Notification<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let process = reader.u32()?;
        let channel = reader.cstr()?;
        let payload = reader.cstr()?;
        reader.end()?;
        Ok(Self { process, channel, payload })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, UpstreamTag::NOTIFICATION_RESPONSE.0, |out| {
            out.put_u32(self.process);
            put_cstr(out, self.channel);
            put_cstr(out, self.payload);
        });
    }
}

/// The newest version and the options that a server does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The version that is used. PostgreSQL 18 sends it whole (`0x00030002`).
    pub version: ProtocolVersion,
    /// `_pq_.` options that are not recognised.
    pub unrecognized: Vec<&'a [u8]>,
}

impl<'a> NegotiateProtocolVersion<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let version = ProtocolVersion(reader.u32()?);
        let count = usize::try_from(reader.i32()?).map_err(|_| Malformed::Negative)?;
        if reader.rest().len() < count {
            return Err(Malformed::Truncated);
        }
        let mut unrecognized = Vec::with_capacity(count);
        for _ in 0..count {
            unrecognized.push(reader.cstr()?);
        }
        reader.end()?;
        Ok(Self { version, unrecognized })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, UpstreamTag::NEGOTIATE_PROTOCOL_VERSION.0, |out| {
            out.put_u32(self.version.0);
            out.put_u32(u32::try_from(self.unrecognized.len()).unwrap_or(u32::MAX));
            for name in &self.unrecognized {
                put_cstr(out, name);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_fields_end_with_a_terminator_and_nothing_after() {
        let fields = ErrorFields::parse(b"SERROR\0VERROR\0C42501\0Mno\0\0").unwrap();
        assert_eq!(fields.code(), b"42501");
        assert!(!fields.is_fatal());
        assert!(ErrorFields::parse(b"SFATAL\0\0").unwrap().is_fatal());
        assert_eq!(ErrorFields::parse(b"C42501\0"), Err(Malformed::Truncated));
        assert_eq!(ErrorFields::parse(b"C42501"), Err(Malformed::MissingNul));
        assert_eq!(ErrorFields::parse(b"\0x"), Err(Malformed::Trailing));
    }

    #[test]
    fn a_cancel_key_is_never_printed() {
        let key = BackendKeyData { process: 7, secret: b"\x01\x02\x03\x04" };
        assert_eq!(format!("{key:?}"), "BackendKeyData { process: 7, secret: [redacted] }");
    }

    #[test]
    fn transaction_status_is_one_of_three() {
        assert_eq!(TransactionStatus::parse(b"X"), Err(Malformed::Value));
        assert_eq!(TransactionStatus::parse(b""), Err(Malformed::Length));
    }
}
