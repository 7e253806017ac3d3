//! Authentication… of the server, SASLInitialResponse of the client.

use crate::error::Malformed;
use crate::frame::{Reader, put_cstr, write};
use crate::message::extended::put_value;
use crate::types::{ClientTag, UpstreamTag};
use bytes::{BufMut, BytesMut};

/// Most SASL mechanisms that are read from a server.
const MECHANISMS_MAX: usize = 16;

/// What the server asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing more: logged in.
    Ok,
    /// The password itself.
    CleartextPassword,
    /// The password hashed with MD5 and this salt.
    Md5Password([u8; 4]),
    /// One of these mechanisms.
    Sasl(Vec<&'a [u8]>),
    /// The mechanism's next message.
    SaslContinue(&'a [u8]),
    /// The mechanism's last message.
    SaslFinal(&'a [u8]),
    /// Kerberos, GSSAPI, SSPI and whatever else.
    Other(u32, &'a [u8]),
}

impl<'a> Authentication<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let kind = reader.u32()?;
        let message = match kind {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => {
                let salt = reader.take(4)?;
                Self::Md5Password(salt.try_into().map_err(|_| Malformed::Length)?)
            }
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    match reader.cstr()? {
                        b"" => break,
                        _ if mechanisms.len() >= MECHANISMS_MAX => return Err(Malformed::Value),
                        name => mechanisms.push(name),
                    }
                }
                Self::Sasl(mechanisms)
            }
            11 => return Ok(Self::SaslContinue(reader.rest())),
            12 => return Ok(Self::SaslFinal(reader.rest())),
            other => return Ok(Self::Other(other, reader.rest())),
        };
        reader.end()?;
        Ok(message)
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, UpstreamTag::AUTHENTICATION.0, |out| match self {
            Self::Ok => out.put_u32(0),
            Self::CleartextPassword => out.put_u32(3),
            Self::Md5Password(salt) => {
                out.put_u32(5);
                out.extend_from_slice(salt);
            }
            Self::Sasl(mechanisms) => {
                out.put_u32(10);
                for name in mechanisms {
                    put_cstr(out, name);
                }
                out.put_u8(0);
            }
            Self::SaslContinue(data) => {
                out.put_u32(11);
                out.extend_from_slice(data);
            }
            Self::SaslFinal(data) => {
                out.put_u32(12);
                out.extend_from_slice(data);
            }
            Self::Other(kind, data) => {
                out.put_u32(*kind);
                out.extend_from_slice(data);
            }
        });
    }
}

/// The client's choice of a mechanism, with its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism.
    pub mechanism: &'a [u8],
    /// Its first message; `None`: the client waits for the server to begin.
    pub data: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let mechanism = reader.cstr()?;
        let data = reader.value()?;
        reader.end()?;
        Ok(Self { mechanism, data })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        write(out, ClientTag::PASSWORD.0, |out| {
            put_cstr(out, self.mechanism);
            put_value(out, self.data);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_mechanisms_are_bounded_and_terminated() {
        assert_eq!(Authentication::parse(b"\0\0\0\x0aA\0"), Err(Malformed::MissingNul));
        assert_eq!(Authentication::parse(b"\0\0\0\x0aA\0B\0\0"), Ok(Authentication::Sasl(vec![b"A", b"B"])));
        let mut many = b"\0\0\0\x0a".to_vec();
        many.extend(b"A\0".repeat(17));
        many.push(0);
        assert_eq!(Authentication::parse(&many), Err(Malformed::Value));
    }

    #[test]
    fn unknown_methods_are_kept_as_they_are() {
        assert_eq!(Authentication::parse(b"\0\0\0\x07"), Ok(Authentication::Other(7, b"")));
        assert_eq!(Authentication::parse(b"\0\0\0\x00x"), Err(Malformed::Trailing));
    }
}
