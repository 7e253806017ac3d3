//! The server's side of one exchange.
//!
//! ```text
//!  client                                      gateway
//!    │ n,,n=,r=CLIENT_NONCE                       │  first()
//!    │──────────────────────────────────────────▶│
//!    │ r=CLIENT_NONCE SERVER_NONCE,s=SALT,i=4096  │
//!    │◀──────────────────────────────────────────│
//!    │ c=BINDING,r=…,p=PROOF                      │  last()
//!    │──────────────────────────────────────────▶│
//!    │ v=SIGNATURE                                │
//!    │◀──────────────────────────────────────────│
//! ```

use super::{
    HASH_LEN, NoRandomness, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramVerifier, equal, hmac_sha256, is_nonce, nonce, sha256, xor,
};
use crate::limits::SASL_MESSAGE_MAX;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Why an exchange is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A mechanism that was not offered.
    #[error("the mechanism was not offered")]
    Mechanism,
    /// A message is longer than the limit.
    #[error("a SASL message is longer than {SASL_MESSAGE_MAX} bytes")]
    TooLong,
    /// A message does not follow RFC 5802 §7.
    #[error("a SASL message is malformed: {0}")]
    Malformed(&'static str),
    /// The client says that the server offered no channel binding, but it did: somebody removed the offer.
    #[error("the client was not told that channel binding is offered: somebody between changed the offer")]
    Downgrade,
    /// The client is on another TLS connection than the gateway: somebody is between.
    #[error("the channel binding does not match: the client's TLS connection does not end at this gateway")]
    Binding,
    /// The client answers another challenge.
    #[error("the nonce is not the one that was sent")]
    Nonce,
    /// The proof does not hold: the client does not know the secret.
    #[error("the proof does not hold")]
    Proof,
    /// A message that was not expected.
    #[error("the exchange is over, or has not begun")]
    Sequence,
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// What the client said about channel binding (RFC 5802 §7, `gs2-cbind-flag`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    /// `n`: it cannot.
    No,
    /// `y`: it could, but thinks that the server cannot.
    Could,
    /// `p=tls-server-end-point`: it does.
    Bound,
}

impl Flag {
    fn header(self) -> &'static str {
        match self {
            Self::No => "n,,",
            Self::Could => "y,,",
            Self::Bound => "p=tls-server-end-point,,",
        }
    }
}

enum State {
    Initial,
    Challenged { flag: Flag, client_first_bare: String, server_first: String, nonce: String },
    Over,
}

/// One exchange, from the server's side.
pub struct ScramServer {
    verifier: ScramVerifier,
    /// Nobody is known by this name: the exchange goes on, and fails at its end.
    doomed: bool,
    /// `tls-server-end-point` of our certificate; `None`: PLUS is not offered.
    binding: Option<Vec<u8>>,
    state: State,
}

impl ScramServer {
    /// `binding`: the channel binding of our certificate on this connection, if PLUS was offered on it.
    #[must_use]
    pub fn new(verifier: ScramVerifier, binding: Option<Vec<u8>>) -> Self {
        Self { verifier, doomed: false, binding, state: State::Initial }
    }

    /// The same for somebody unknown: it fails at the end, whatever the client answers.
    pub(crate) fn doomed(mock: ScramVerifier, binding: Option<Vec<u8>>) -> Self {
        Self { verifier: mock, doomed: true, binding, state: State::Initial }
    }

    /// Takes the client's first message; the answer is the challenge.
    ///
    /// # Errors
    /// The exchange is refused, and over.
    pub fn first(&mut self, mechanism: &str, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let own_nonce = nonce()?;
        self.first_with_nonce(mechanism, message, &own_nonce)
    }

    fn first_with_nonce(&mut self, mechanism: &str, message: &[u8], own_nonce: &str) -> Result<Vec<u8>, ScramError> {
        let State::Initial = std::mem::replace(&mut self.state, State::Over) else { return Err(ScramError::Sequence) };
        let message = text(message)?;
        let (flag, bare) = gs2_header(message)?;
        match (mechanism, flag) {
            (SCRAM_SHA_256_PLUS, Flag::Bound) if self.binding.is_some() => {}
            (SCRAM_SHA_256_PLUS, _) if self.binding.is_none() => return Err(ScramError::Mechanism),
            (SCRAM_SHA_256_PLUS, _) => {
                return Err(ScramError::Malformed("the mechanism has channel binding, the message has none"));
            }
            (SCRAM_SHA_256, Flag::No) => {}
            (SCRAM_SHA_256, Flag::Could) if self.binding.is_none() => {}
            // RFC 5802 §6.
            (SCRAM_SHA_256, Flag::Could) => return Err(ScramError::Downgrade),
            (SCRAM_SHA_256, Flag::Bound) => {
                return Err(ScramError::Malformed("the message has channel binding, the mechanism has none"));
            }
            _ => return Err(ScramError::Mechanism),
        }
        let nonce = format!("{}{own_nonce}", client_nonce(bare)?);
        let salt = STANDARD.encode(&self.verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", self.verifier.iterations);
        let challenge = server_first.clone().into_bytes();
        self.state = State::Challenged { flag, client_first_bare: bare.to_owned(), server_first, nonce };
        Ok(challenge)
    }

    /// Takes the client's proof; the answer proves that we know the verifier. The client is who it says.
    ///
    /// # Errors
    /// The exchange is refused, and over.
    pub fn last(&mut self, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        let State::Challenged { flag, client_first_bare, server_first, nonce } = std::mem::replace(&mut self.state, State::Over)
        else {
            return Err(ScramError::Sequence);
        };
        let message = text(message)?;
        let malformed = ScramError::Malformed;
        // The proof is the last attribute; base64 has no comma.
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(malformed("there is no proof"))?;
        let (binding, rest) = without_proof.split_once(',').ok_or(malformed("there is no nonce"))?;
        let binding = binding.strip_prefix("c=").ok_or(malformed("there is no channel binding"))?;
        let (sent_nonce, extensions) = rest.split_once(',').map_or((rest, None), |(nonce, more)| (nonce, Some(more)));
        let sent_nonce = sent_nonce.strip_prefix("r=").ok_or(malformed("there is no nonce"))?;
        check_extensions(extensions)?;
        let proof: [u8; HASH_LEN] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(malformed("the proof is not 32 bytes in base64"))?;
        if !equal(binding.as_bytes(), self.expected_binding(flag).as_bytes()) {
            return Err(ScramError::Binding);
        }
        if !equal(sent_nonce.as_bytes(), nonce.as_bytes()) {
            return Err(ScramError::Nonce);
        }
        let auth_message = format!("{client_first_bare},{server_first},{without_proof}");
        let signature = hmac_sha256(&self.verifier.stored_key, auth_message.as_bytes());
        let client_key = xor(&proof, &signature);
        let knows = equal(&sha256(&*client_key), &self.verifier.stored_key);
        if !knows || self.doomed {
            return Err(ScramError::Proof);
        }
        let own_signature = hmac_sha256(&self.verifier.server_key, auth_message.as_bytes());
        Ok(format!("v={}", STANDARD.encode(own_signature)).into_bytes())
    }

    fn expected_binding(&self, flag: Flag) -> String {
        let mut input = flag.header().as_bytes().to_vec();
        if flag == Flag::Bound {
            input.extend_from_slice(self.binding.as_deref().unwrap_or_default());
        }
        STANDARD.encode(input)
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > SASL_MESSAGE_MAX {
        return Err(ScramError::TooLong);
    }
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is not UTF-8"))?;
    if text.contains('\0') { Err(ScramError::Malformed("it contains a zero byte")) } else { Ok(text) }
}

/// `gs2-header`, and the message after it.
fn gs2_header(message: &str) -> Result<(Flag, &str), ScramError> {
    let mut parts = message.splitn(3, ',');
    let flag = match parts.next() {
        Some("n") => Flag::No,
        Some("y") => Flag::Could,
        Some("p=tls-server-end-point") => Flag::Bound,
        Some(other) if other.starts_with("p=") => {
            return Err(ScramError::Malformed("the type of channel binding is not supported"));
        }
        _ => return Err(ScramError::Malformed("the channel binding flag is not known")),
    };
    match parts.next() {
        Some("") => {}
        Some(_) => return Err(ScramError::Malformed("an authorization identity is not supported")),
        None => return Err(ScramError::Malformed("there is no user name")),
    }
    parts.next().map(|bare| (flag, bare)).ok_or(ScramError::Malformed("there is no user name"))
}

/// `client-first-message-bare`: the nonce in it.
fn client_nonce(bare: &str) -> Result<&str, ScramError> {
    let (name, rest) = bare.split_once(',').ok_or(ScramError::Malformed("there is no nonce"))?;
    if name.starts_with("m=") {
        return Err(ScramError::Malformed("it demands an extension"));
    }
    if !name.starts_with("n=") {
        return Err(ScramError::Malformed("there is no user name"));
    }
    let (nonce, extensions) = rest.split_once(',').map_or((rest, None), |(nonce, more)| (nonce, Some(more)));
    check_extensions(extensions)?;
    let nonce = nonce.strip_prefix("r=").ok_or(ScramError::Malformed("there is no nonce"))?;
    if is_nonce(nonce) { Ok(nonce) } else { Err(ScramError::Malformed("the nonce has characters that are not allowed")) }
}

/// Optional extensions are ignored, but must have the form of attributes.
fn check_extensions(extensions: Option<&str>) -> Result<(), ScramError> {
    let Some(extensions) = extensions else { return Ok(()) };
    let good = |attribute: &str| {
        let bytes = attribute.as_bytes();
        matches!(bytes, [name, b'=', ..] if name.is_ascii_alphabetic() && *name != b'm')
    };
    if extensions.split(',').all(good) { Ok(()) } else { Err(ScramError::Malformed("an extension is malformed or mandatory")) }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
