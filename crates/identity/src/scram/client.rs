//! The client's side: the gateway logs in to a target with the target's own credential.

use super::{
    HASH_LEN, Hash, NoRandomness, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, client_key, equal, hmac_sha256, is_nonce, nonce, random,
    salted_password, server_key, sha256, xor,
};
use crate::limits::{ITERATIONS_MAX, ITERATIONS_MIN, PASSWORD_MAX, SALT_MAX, SALTED_MAX, SASL_MESSAGE_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use proxy_core::SecretBytes;
use proxy_core::session::{UpstreamChallenge, UpstreamFailure};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// Salted passwords, so that a login does not cost 4,096 hash rounds. Shared by all logins of the gateway.
///
/// An entry is found by an HMAC, under a key of this process, over password, salt and iterations: a rotated
/// password finds nothing, and the memory holds no password. The oldest entry makes room.
pub struct SaltedPasswords {
    key: Hash,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    salted: HashMap<Hash, Zeroizing<Hash>>,
    order: VecDeque<Hash>,
}

impl SaltedPasswords {
    /// An empty one.
    ///
    /// # Errors
    /// No random bytes.
    pub fn new() -> Result<Self, NoRandomness> {
        let mut key = [0; HASH_LEN];
        random(&mut key)?;
        Ok(Self { key, entries: Mutex::default() })
    }

    fn name(&self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Hash {
        let mut input = Zeroizing::new(Vec::with_capacity(password.len() + salt.len() + 12));
        input.extend_from_slice(&iterations.get().to_be_bytes());
        input.extend_from_slice(&(salt.len() as u64).to_be_bytes());
        input.extend_from_slice(salt);
        input.extend_from_slice(password);
        hmac_sha256(&self.key, &input)
    }

    fn salted(&self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Zeroizing<Hash> {
        let name = self.name(password, salt, iterations);
        if let Some(found) = self.entries.lock().salted.get(&name) {
            return found.clone();
        }
        let salted = salted_password(password, salt, iterations);
        let mut entries = self.entries.lock();
        if entries.salted.insert(name, salted.clone()).is_none() {
            entries.order.push_back(name);
        }
        if entries.order.len() > SALTED_MAX
            && let Some(oldest) = entries.order.pop_front()
        {
            entries.salted.remove(&oldest);
        }
        salted
    }
}

impl fmt::Debug for SaltedPasswords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaltedPasswords({} entries)", self.entries.lock().order.len())
    }
}

impl Drop for SaltedPasswords {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Why the upstream's login fails, in full: for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamAuthError {
    /// It asks for the password itself, which is sent only where that was allowed.
    #[error("the server asks for the password in clear, which is not allowed for this connection")]
    Cleartext,
    /// None of its mechanisms is supported.
    #[error("the server offers no supported mechanism: {0:?}")]
    Mechanisms(Vec<String>),
    /// Channel binding is required and not offered, or the server asks for something without it.
    #[error("the server does not offer channel binding, which is required")]
    BindingRequired,
    /// The stored password is longer than the limit, or empty, or has a zero byte.
    #[error("the password for the upstream is empty, longer than {PASSWORD_MAX} bytes, or contains a zero byte")]
    Password,
    /// A message that does not follow RFC 5802.
    #[error("the server's SASL message is malformed: {0}")]
    Malformed(&'static str),
    /// A challenge out of turn.
    #[error("the server's challenge came out of turn")]
    Sequence,
    /// Too few or too many iterations.
    #[error("the server asks for {0} iterations; from {ITERATIONS_MIN} to {ITERATIONS_MAX} are accepted")]
    Iterations(u64),
    /// The server refuses the proof: the password is wrong.
    #[error("the server refuses the login: {0}")]
    Refused(String),
    /// The server does not know the password's verifier: it is not the target.
    #[error("the server does not prove that it knows the password: it is not the target")]
    ServerProof,
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl UpstreamAuthError {
    fn failure(&self) -> UpstreamFailure {
        match self {
            Self::Malformed(_) | Self::Sequence | Self::Iterations(_) | Self::ServerProof => UpstreamFailure::Protocol,
            Self::Cleartext
            | Self::Mechanisms(_)
            | Self::BindingRequired
            | Self::Password
            | Self::Refused(_)
            | Self::NoRandomness(_) => UpstreamFailure::Credential,
        }
    }
}

enum State {
    Initial,
    Begun { header: &'static str, nonce: String, bound: bool },
    Proved { server_signature: Zeroizing<Hash> },
    Finished,
    Failed,
}

/// One login to a target. It holds the credential and answers challenges; it never hands it out, except as a
/// cleartext answer where that was allowed.
pub struct UpstreamAuth {
    user: String,
    password: SecretBytes,
    cache: Arc<SaltedPasswords>,
    binding: Option<Vec<u8>>,
    binding_required: bool,
    cleartext_allowed: bool,
    state: State,
    error: Option<UpstreamAuthError>,
}

impl fmt::Debug for UpstreamAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamAuth").field("user", &self.user).finish_non_exhaustive()
    }
}

impl UpstreamAuth {
    /// `binding`: `tls-server-end-point` of the upstream's certificate, where there is TLS.
    #[must_use]
    pub fn new(user: &str, password: SecretBytes, cache: Arc<SaltedPasswords>, binding: Option<Vec<u8>>) -> Self {
        Self {
            user: user.to_owned(),
            password,
            cache,
            binding,
            binding_required: false,
            cleartext_allowed: false,
            state: State::Initial,
            error: None,
        }
    }

    /// Whether the password itself may be sent. Allow it only where the upstream is known by its certificate, or
    /// is on this host: whoever answers gets the password. Without this call: no.
    #[must_use]
    pub fn allow_cleartext(mut self, allowed: bool) -> Self {
        self.cleartext_allowed = allowed;
        self
    }

    /// Whether the login fails without channel binding. Without this call: no.
    #[must_use]
    pub fn require_binding(mut self, required: bool) -> Self {
        self.binding_required = required;
        self
    }

    /// Answers one challenge.
    ///
    /// # Errors
    /// The login has failed; [`Self::error`] says why.
    pub fn answer(&mut self, challenge: UpstreamChallenge) -> Result<SecretBytes, UpstreamFailure> {
        let answer = self.answer_or_error(challenge);
        answer.map_err(|error| {
            let failure = error.failure();
            self.state = State::Failed;
            self.error = Some(error);
            failure
        })
    }

    /// Why the login failed.
    #[must_use]
    pub fn error(&self) -> Option<&UpstreamAuthError> {
        self.error.as_ref()
    }

    /// Whether the upstream may say now that the login is complete: it has proved that it knows the password
    /// wherever the mechanism has such a proof. A server that says so earlier is not the target.
    #[must_use]
    pub fn may_complete(&self) -> bool {
        match self.state {
            State::Initial => !self.binding_required,
            State::Finished => true,
            State::Begun { .. } | State::Proved { .. } | State::Failed => false,
        }
    }

    fn answer_or_error(&mut self, challenge: UpstreamChallenge) -> Result<SecretBytes, UpstreamAuthError> {
        let secret = self.password.expose();
        if secret.is_empty() || secret.len() > PASSWORD_MAX || secret.contains(&0) {
            return Err(UpstreamAuthError::Password);
        }
        let state = std::mem::replace(&mut self.state, State::Failed);
        match (challenge, state) {
            (UpstreamChallenge::Cleartext | UpstreamChallenge::Md5(_), State::Initial) if self.binding_required => {
                Err(UpstreamAuthError::BindingRequired)
            }
            (UpstreamChallenge::Cleartext, State::Initial) if self.cleartext_allowed => {
                self.state = State::Finished;
                Ok(self.password.clone())
            }
            (UpstreamChallenge::Cleartext, State::Initial) => Err(UpstreamAuthError::Cleartext),
            (UpstreamChallenge::Md5(salt), State::Initial) => {
                self.state = State::Finished;
                let hashed = postgres_protocol::authentication::md5_hash(self.user.as_bytes(), self.password.expose(), salt);
                Ok(SecretBytes::new(hashed.into_bytes()))
            }
            (UpstreamChallenge::SaslStart(mechanisms), State::Initial) => self.begin(mechanisms, nonce()?),
            (UpstreamChallenge::SaslContinue(message), State::Begun { header, nonce, bound }) => {
                self.prove(&message, header, &nonce, bound)
            }
            (UpstreamChallenge::SaslFinal(message), State::Proved { server_signature }) => {
                check_final(&message, &server_signature)?;
                self.state = State::Finished;
                Ok(SecretBytes::new(Vec::new()))
            }
            _ => Err(UpstreamAuthError::Sequence),
        }
    }

    fn begin(&mut self, mechanisms: Vec<String>, own_nonce: String) -> Result<SecretBytes, UpstreamAuthError> {
        let offers = |name: &str| mechanisms.iter().any(|offered| offered == name);
        let bound = self.binding.is_some() && offers(SCRAM_SHA_256_PLUS);
        if self.binding_required && !bound {
            return Err(UpstreamAuthError::BindingRequired);
        }
        let (mechanism, header) = if bound {
            (SCRAM_SHA_256_PLUS, "p=tls-server-end-point,,")
        } else if offers(SCRAM_SHA_256) {
            // `y`: we could, but were not offered it. The server notices if somebody removed the offer.
            (SCRAM_SHA_256, if self.binding.is_some() { "y,," } else { "n,," })
        } else {
            let shown = mechanisms.iter().take(8).map(|name| crate::error::shown(name)).collect();
            return Err(UpstreamAuthError::Mechanisms(shown));
        };
        let answer = format!("{mechanism}\0{header}n=,r={own_nonce}");
        self.state = State::Begun { header, nonce: own_nonce, bound };
        Ok(SecretBytes::new(answer.into_bytes()))
    }

    fn prove(&mut self, message: &[u8], header: &str, own_nonce: &str, bound: bool) -> Result<SecretBytes, UpstreamAuthError> {
        let server_first = text(message)?;
        let first = ServerFirst::parse(server_first)?;
        // RFC 5802 §5.1: it continues our nonce, and adds to it.
        if first.nonce.len() <= own_nonce.len() || !first.nonce.starts_with(own_nonce) {
            return Err(UpstreamAuthError::Malformed("the nonce does not continue ours"));
        }
        let salted = self.cache.salted(self.password.expose(), &first.salt, first.iterations);
        let mut binding = header.as_bytes().to_vec();
        if bound {
            binding.extend_from_slice(self.binding.as_deref().unwrap_or_default());
        }
        let without_proof = format!("c={},r={}", STANDARD.encode(binding), first.nonce);
        let auth_message = format!("n=,r={own_nonce},{server_first},{without_proof}");
        let client_key = client_key(&salted);
        let signature = hmac_sha256(&sha256(&*client_key), auth_message.as_bytes());
        let proof = xor(&client_key, &signature);
        let answer = format!("{without_proof},p={}", STANDARD.encode(proof.as_slice()));
        let server_signature = Zeroizing::new(hmac_sha256(&*server_key(&salted), auth_message.as_bytes()));
        self.state = State::Proved { server_signature };
        Ok(SecretBytes::new(answer.into_bytes()))
    }
}

/// `server-first-message`.
#[derive(Debug)]
struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a str) -> Result<Self, UpstreamAuthError> {
        let malformed = UpstreamAuthError::Malformed;
        let mut attributes = message.split(',');
        let mut next =
            |prefix: &str, missing| attributes.next().and_then(|text| text.strip_prefix(prefix)).ok_or(malformed(missing));
        let nonce = next("r=", "there is no nonce")?;
        let salt = next("s=", "there is no salt")?;
        let iterations = next("i=", "there is no iteration count")?;
        if !is_nonce(nonce) {
            return Err(malformed("the nonce has characters that are not allowed"));
        }
        let salt = STANDARD.decode(salt).map_err(|_| malformed("the salt is not base64"))?;
        if salt.is_empty() || salt.len() > SALT_MAX {
            return Err(malformed("the salt is empty or too long"));
        }
        // `parse` would accept a plus sign.
        let digits = !iterations.is_empty() && iterations.len() <= 18 && iterations.bytes().all(|byte| byte.is_ascii_digit());
        let count =
            digits.then(|| iterations.parse::<u64>().ok()).flatten().ok_or(malformed("the iteration count is not a number"))?;
        let accepted = u32::try_from(count).ok().filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(count));
        let iterations = accepted.and_then(NonZeroU32::new).ok_or(UpstreamAuthError::Iterations(count))?;
        Ok(Self { nonce, salt, iterations })
    }
}

fn check_final(message: &[u8], expected: &Hash) -> Result<(), UpstreamAuthError> {
    let message = text(message)?;
    if let Some(refusal) = message.strip_prefix("e=") {
        return Err(UpstreamAuthError::Refused(crate::error::shown(refusal)));
    }
    let signature = message.split(',').next().and_then(|first| first.strip_prefix("v="));
    let signature = signature.and_then(|text| STANDARD.decode(text).ok());
    let signature = signature.ok_or(UpstreamAuthError::Malformed("there is no signature"))?;
    if equal(&signature, expected) { Ok(()) } else { Err(UpstreamAuthError::ServerProof) }
}

fn text(message: &[u8]) -> Result<&str, UpstreamAuthError> {
    if message.len() > SASL_MESSAGE_MAX {
        return Err(UpstreamAuthError::Malformed("it is too long"));
    }
    std::str::from_utf8(message).map_err(|_| UpstreamAuthError::Malformed("it is not UTF-8"))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
