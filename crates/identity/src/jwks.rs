//! Key sets (RFC 7517), and which key may check which token.
//!
//! Keys that cannot be used here — other types, for encryption, too short, private — are skipped: a provider may
//! publish what we do not know.

use crate::limits::JWKS_KEYS_MAX;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// The signature algorithms that are accepted, by their names in `alg` (RFC 7518 §3.1, RFC 8037 §3.1).
pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "RS384" => Some(Algorithm::RS384),
        "RS512" => Some(Algorithm::RS512),
        "PS256" => Some(Algorithm::PS256),
        "ES256" => Some(Algorithm::ES256),
        "ES384" => Some(Algorithm::ES384),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// What a key can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Family {
    /// Whether a key of this family makes signatures of `algorithm`: a key must not be used for another.
    fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 | Algorithm::PS256 => self == Self::Rsa,
            Algorithm::ES256 => self == Self::P256,
            Algorithm::ES384 => self == Self::P384,
            Algorithm::EdDSA => self == Self::Ed25519,
            _ => false,
        }
    }
}

/// One usable key.
#[derive(Debug)]
pub(crate) struct Key {
    id: Option<String>,
    family: Family,
    /// The one algorithm that its `alg` allows.
    algorithm: Option<Algorithm>,
    /// Entra's own member: for which issuer the key signs; `{tenantid}` stands for any tenant.
    pub(crate) issuer: Option<String>,
    pub(crate) decoding: DecodingKey,
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.family.fits(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

/// Why a key set is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or no `keys` array in it.
    #[error("it is not a JSON Web Key Set: an object with an array \"keys\"")]
    NotAKeySet,
    /// More keys than the limit.
    #[error("it holds more than {JWKS_KEYS_MAX} keys")]
    TooMany,
    /// None of its keys can be used.
    #[error("it holds no key that can check signatures here (RSA of 2048 to 8192 bits, P-256, P-384, Ed25519)")]
    NoUsableKey,
}

/// Why no key fits a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// No key has that id, or the token names none and several would fit.
    Unknown,
    /// There is a key of that id, but not for this algorithm.
    OtherAlgorithm,
}

/// The usable keys of an issuer.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// Reads a key set.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        let document: Value = serde_json::from_slice(document).map_err(|_| KeySetError::NotAKeySet)?;
        let listed = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotAKeySet)?;
        if listed.len() > JWKS_KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys = listed.iter().filter_map(parse_key).collect::<Vec<_>>();
        if keys.is_empty() { Err(KeySetError::NoUsableKey) } else { Ok(Self { keys }) }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key for a token's header. A token that names no key is checked with the one that fits, if it is one.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, NoKey> {
        let mut fitting = self.keys.iter().filter(|key| (id.is_none() || key.id.as_deref() == id) && key.fits(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(NoKey::Unknown),
            (None, _) if id.is_some() && self.keys.iter().any(|key| key.id.as_deref() == id) => Err(NoKey::OtherAlgorithm),
            (None, _) => Err(NoKey::Unknown),
        }
    }
}

fn parse_key(key: &Value) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    // A private or symmetric key has no business in a published set; what signed with it may be anybody's.
    if key.get("d").is_some() || key.get("k").is_some() {
        return None;
    }
    if key.get("use").is_some_and(|purpose| purpose.as_str() != Some("sig")) {
        return None;
    }
    let operations = key.get("key_ops").map(|list| list.as_array().is_some_and(|list| list.iter().any(|op| op == "verify")));
    if operations == Some(false) {
        return None;
    }
    let only = match key.get("alg") {
        None => None,
        Some(name) => Some(name.as_str().and_then(algorithm)?),
    };
    let (family, decoding) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (Family::Rsa, rsa(text("n")?, text("e")?)?),
        ("EC", Some("P-256")) => (Family::P256, ec(text("x")?, text("y")?, 32)?),
        ("EC", Some("P-384")) => (Family::P384, ec(text("x")?, text("y")?, 48)?),
        ("OKP", Some("Ed25519")) => (Family::Ed25519, ed25519(text("x")?)?),
        _ => return None,
    };
    if only.is_some_and(|only| !family.fits(only)) {
        return None;
    }
    let id = text("kid").map(str::to_owned);
    Some(Key { id, family, algorithm: only, issuer: text("issuer").map(str::to_owned), decoding })
}

/// Base64url without padding; some providers write the other alphabet, or padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}

fn rsa(modulus: &str, exponent: &str) -> Option<DecodingKey> {
    let modulus = decode(modulus)?;
    let exponent = decode(exponent)?;
    let modulus = strip_zeros(&modulus);
    let exponent = strip_zeros(&exponent);
    let bits = modulus.len().checked_mul(8)?.checked_sub(modulus.first()?.leading_zeros() as usize)?;
    let odd = exponent.last().is_some_and(|last| last & 1 == 1);
    let exponent_usable = odd && exponent.len() <= 4 && exponent != [1];
    ((2048..=8192).contains(&bits) && exponent_usable).then(|| DecodingKey::from_rsa_raw_components(modulus, exponent))
}

fn strip_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn ec(x: &str, y: &str, length: usize) -> Option<DecodingKey> {
    let (x, y) = (decode(x)?, decode(y)?);
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    (x.len() == length && y.len() == length).then(|| DecodingKey::from_ec_der(&point))
}

fn ed25519(x: &str) -> Option<DecodingKey> {
    let x = decode(x)?;
    (x.len() == 32).then(|| DecodingKey::from_ed_der(&x))
}
