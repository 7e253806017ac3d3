//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), as PostgreSQL speaks them.
//!
//! - [`ScramServer`]: the gateway checks a client's machine key.
//! - [`UpstreamAuth`]: the gateway logs in to a target.
//! - [`ScramVerifier`]: what is stored instead of the secret.
//!
//! PostgreSQL's departures from the RFCs, which are kept: the user name in the exchange is ignored (the protocol's
//! own login name counts), and a password that SASLprep refuses is used as it is.

mod client;
mod server;

pub use client::{SaltedPasswords, UpstreamAuth, UpstreamAuthError};
pub use server::{ScramError, ScramServer};

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use zeroize::Zeroizing;

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding (`tls-server-end-point`, RFC 5929 §4).
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The iterations of our own verifiers: PostgreSQL's default, and RFC 7677's least. The secrets have 256 bits, so
/// that more would slow logins and nothing else.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("it is not zero");
const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;

type Hash = [u8; HASH_LEN];

/// No random bytes could be had from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness;

/// Fills `bytes` from the operating system's generator.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    rand::fill(bytes).map_err(|_| NoRandomness)
}

/// A nonce: 18 random bytes, base64, as PostgreSQL makes them.
fn nonce() -> Result<String, NoRandomness> {
    let mut bytes = [0; 18];
    random(&mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

/// What a server keeps of a password: it can check a proof of it, and nobody can log in with it.
///
/// Its text is PostgreSQL's: `SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY`, each in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Hash,
    server_key: Hash,
}

impl ScramVerifier {
    /// For a new secret, with a random salt.
    ///
    /// # Errors
    /// No random bytes.
    pub fn for_password(password: &[u8]) -> Result<Self, NoRandomness> {
        let mut salt = [0; SALT_LEN];
        random(&mut salt)?;
        Ok(Self::derive(password, &salt, ITERATIONS))
    }

    fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let salted = salted_password(password, salt, iterations);
        Self { iterations, salt: salt.to_vec(), stored_key: sha256(&*client_key(&salted)), server_key: *server_key(&salted) }
    }

    /// A verifier that no password satisfies, always the same for the same secret and name: an exchange about
    /// somebody unknown looks like any other.
    pub(crate) fn mock(secret: &[u8], name: &str) -> Self {
        let part = |which: &str| hmac_sha256(secret, format!("{which}\0{name}").as_bytes());
        let salt = part("salt").get(..SALT_LEN).unwrap_or_default().to_vec();
        Self { iterations: ITERATIONS, salt, stored_key: part("stored key"), server_key: part("server key") }
    }

    /// Whether this is the password, in constant time.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        let presented = Self::derive(password, &self.salt, self.iterations);
        equal(&presented.stored_key, &self.stored_key)
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramVerifier({} iterations, [redacted])", self.iterations)
    }
}

impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        let (salt, stored, server) = (encode(&self.salt), encode(&self.stored_key), encode(&self.server_key));
        write!(f, "{SCRAM_SHA_256}${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// Not a verifier's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY")]
pub struct InvalidVerifier;

impl FromStr for ScramVerifier {
    type Err = InvalidVerifier;

    fn from_str(text: &str) -> Result<Self, InvalidVerifier> {
        let parse = || {
            let rest = text.strip_prefix(SCRAM_SHA_256)?.strip_prefix('$')?;
            let (head, keys) = rest.split_once('$')?;
            let (iterations, salt) = head.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            let decode = |text: &str| STANDARD.decode(text).ok();
            let iterations =
                iterations.parse::<NonZeroU32>().ok().filter(|count| count.get() <= crate::limits::ITERATIONS_MAX)?;
            let salt = decode(salt).filter(|salt| !salt.is_empty())?;
            Some(Self {
                iterations,
                salt,
                stored_key: decode(stored)?.try_into().ok()?,
                server_key: decode(server)?.try_into().ok()?,
            })
        };
        parse().ok_or(InvalidVerifier)
    }
}

/// RFC 5802 §2.2, `SaltedPassword := Hi(Normalize(password), salt, i)`.
fn salted_password(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Zeroizing<Hash> {
    let prepared = saslprep(password);
    let mut salted = Zeroizing::new([0; HASH_LEN]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &prepared, &mut *salted);
    salted
}

/// SASLprep (RFC 4013) where it applies; otherwise the bytes themselves, as PostgreSQL does.
fn saslprep(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = std::str::from_utf8(password).ok();
    let prepared = text.and_then(|text| stringprep::saslprep(text).ok());
    Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes()))
}

fn client_key(salted: &Hash) -> Zeroizing<Hash> {
    Zeroizing::new(hmac_sha256(salted, b"Client Key"))
}

fn server_key(salted: &Hash) -> Zeroizing<Hash> {
    Zeroizing::new(hmac_sha256(salted, b"Server Key"))
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> Hash {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    hash_of(tag.as_ref())
}

fn sha256(data: &[u8]) -> Hash {
    hash_of(digest::digest(&digest::SHA256, data).as_ref())
}

/// SHA-256 gives 32 bytes, always.
fn hash_of(bytes: &[u8]) -> Hash {
    let mut hash = [0; HASH_LEN];
    for (slot, byte) in hash.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    hash
}

fn xor(left: &Hash, right: &Hash) -> Zeroizing<Hash> {
    let mut out = Zeroizing::new(*left);
    for (slot, byte) in out.iter_mut().zip(right) {
        *slot ^= *byte;
    }
    out
}

fn equal(left: &[u8], right: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(left, right).is_ok()
}

/// Nonces consist of printable ASCII without the comma (RFC 5802 §7).
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.len() <= crate::limits::NONCE_MAX && text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_in_postgresql_s_form() {
        // From PostgreSQL's src/test/regress/sql/password.sql: the password is not known, the form is.
        let text = "SCRAM-SHA-256$4096:A6xHKoH/494E941doaPOYg==$Ky+A30sewHIH3VHQLRN9vYsuzlgNyGNKCh37dy96Rqw=:COPdlNiIkrsacU5QoxydEuOH6e/KfiipeETb/bPw8ZI=";
        let verifier: ScramVerifier = text.parse().unwrap();
        assert_eq!(verifier.to_string(), text);
        let bad = ["", "SCRAM-SHA-256$", "md5abc", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:$AA==:AA=="];
        for text in bad {
            assert_eq!(text.parse::<ScramVerifier>(), Err(InvalidVerifier), "{text}");
        }
    }

    #[test]
    fn a_verifier_knows_its_password_and_does_not_show_it() {
        let verifier = ScramVerifier::for_password(b"sp_secret").unwrap();
        assert!(verifier.matches(b"sp_secret"));
        assert!(!verifier.matches(b"sp_secret2"));
        assert!(!verifier.matches(b""));
        let shown = format!("{verifier:?}");
        assert!(!shown.contains(&STANDARD.encode(verifier.stored_key)) && !shown.contains("sp_secret"), "{shown}");
    }

    #[test]
    fn passwords_are_normalised_if_they_can_be() {
        assert_eq!(&**saslprep("I\u{ad}X".as_bytes()), b"IX");
        assert_eq!(&**saslprep("\u{aa}".as_bytes()), b"a");
        assert_eq!(&**saslprep("a\u{7}".as_bytes()), b"a\x07", "prohibited: as it is");
        assert_eq!(&**saslprep(&[0xff, 0xfe]), [0xff, 0xfe], "not UTF-8: as it is");
    }

    #[test]
    fn a_mock_is_the_same_for_the_same_name_and_satisfied_by_nothing() {
        let mock = ScramVerifier::mock(b"secret", "kabc");
        assert_eq!(mock, ScramVerifier::mock(b"secret", "kabc"));
        assert_ne!(mock.salt, ScramVerifier::mock(b"secret", "kabd").salt);
        assert_ne!(mock.salt, ScramVerifier::mock(b"other", "kabc").salt);
        assert_eq!(mock.salt.len(), SALT_LEN);
        assert!(!mock.matches(b""));
    }
}
