//! Who is calling.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Names one session. Sixteen bytes, time-ordered (UUID version 7), made by the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    /// The UUID's canonical form, 36 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    /// Reads the canonical form; hyphens are optional.
    fn from_str(text: &str) -> Result<Self, InvalidSessionId> {
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        if digits.len() != 32 {
            return Err(InvalidSessionId);
        }
        let mut id = [0u8; 16];
        for (slot, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidSessionId)?;
            *slot = u8::from_str_radix(pair, 16).map_err(|_| InvalidSessionId)?;
        }
        Ok(Self(id))
    }
}

/// Not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 32 hexadecimal digits, such as 01937f5e-7a10-7c3e-8d2b-0a1b2c3d4e5f")]
pub struct InvalidSessionId;

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What kind of identity it is: the Cedar entity type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A program: service principal, managed identity, CI job, container.
    Service,
    /// An AI agent (marked as such by its token).
    Agent,
    /// A person.
    Human,
}

impl PrincipalKind {
    /// The Cedar entity type's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Agent => "Agent",
            Self::Human => "Human",
        }
    }
}

/// A verified identity. Built by the `identity` crate alone, after a token or a key has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Service, agent or human.
    pub kind: PrincipalKind,
    /// The configured issuer's name (`[[issuer]] name`), or `key` for a machine key.
    pub issuer: String,
    /// Stable subject: the token's `sub`; under Entra `TID/OID`; a machine key's subject.
    pub subject: String,
    /// Tenant (Entra's `tid`), where there is one.
    pub tenant: Option<String>,
    /// Application id (Entra's `azp` or `appid`; OAuth's `client_id`), where there is one.
    pub application: Option<String>,
    /// The token's own id (`jti`, Entra's `uti`, or `key:ID`): joins with the issuer's logs.
    pub credential_id: Option<String>,
    /// Names by which the caller may call itself besides the subject (`preferred_username`, application name …).
    pub aliases: Vec<String>,
    /// Roles from the token's claim, sorted.
    pub roles: Vec<String>,
    /// Scalar claims of the token, as text: attributes for policies. Never the token itself.
    pub claims: BTreeMap<String, String>,
    /// When the credential expires; `None` for a key without an expiry.
    pub expires: Option<Timestamp>,
}

impl Principal {
    /// A unique text for the identity: `ISSUER/SUBJECT`. Cedar's entity id, and the filter in listings.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.issuer, self.subject)
    }

    /// Whether the caller may call itself `label` (the native protocol's user name).
    #[must_use]
    pub fn answers_to(&self, label: &str) -> bool {
        self.subject == label || self.aliases.iter().any(|alias| alias == label)
    }
}

#[cfg(test)]
mod tests {
    use super::SessionId;

    #[test]
    fn session_id_round_trips_through_its_text() {
        let id = SessionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255]);
        assert_eq!(id.to_string(), "01020304-0506-0708-090a-0b0c0d0e0fff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0102".parse::<SessionId>().is_err());
        assert!("zz020304-0506-0708-090a-0b0c0d0e0fff".parse::<SessionId>().is_err());
    }
}
