//! Payloads as ciphertext: what is kept beside an entry, sealed before anything of it gets to a disk.
//!
//! ```text
//! form      1 byte    01
//! key id    8 bytes   which data key
//! random    16 bytes  of this payload alone
//! sealed    n bytes   AES-256-GCM of: packing (1), salt (16), content; then the tag (16)
//! ```
//!
//! Packing `00`: the content as it is; `01`: one zstd frame of it. The salt is within: whoever had it and the commitment
//! could try likely contents.
//!
//! Each payload has a key of its own, by HKDF-SHA-256: `PRK = Extract("sallyport payload key", data key)`, and
//! `Expand(PRK, "payload" ‖ random, 32)`. It seals one message, so the nonce is zero, and no data key wears out. The data key's id is
//! `Expand(PRK, "id", 8)`: it cannot be another key's. What is authenticated besides: form (1), field (1), length of the
//! content (8, big-endian) and the commitment (32), all as the leaf has them. So a payload opens for its own leaf alone.

use crate::decode::{self, Commitment};
use crate::encode::{NoRandomness, SALT_LENGTH};
use crate::wire::DecodeError;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Prk};
use parking_lot::RwLock;
use proxy_core::SecretBytes;
use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::Zeroize;
use zstd_safe::{CCtx, DCtx};

/// Bytes of a data key.
pub const KEY_LENGTH: usize = 32;

/// Set in a field's number where its payload is stored or published: it is sealed.
pub(crate) const SEALED: u32 = 0x80;

const FORM: u8 = 1;
const ID: usize = 8;
const RANDOM: usize = 16;
const HEAD: usize = 1 + ID + RANDOM;
const TAG: usize = 16;
/// Packing and salt.
const FRONT: usize = 1 + SALT_LENGTH;
const AS_IT_IS: u8 = 0;
const ZSTD: u8 = 1;
/// Texts of statements shrink to a third at the fastest level; the next ones gain little for twice the time.
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    /// Contexts are larger than what they compress: they are used again.
    static CONTEXT: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static UNPACKING: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Names a data key. It follows from the key, and says nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID]);

impl KeyId {
    /// The id of a data key.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn of(key: &SecretBytes) -> Result<Self, BadKey> {
        DataKey::new(key).map(|key| key.id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let digits = text.len() == 2 * ID && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(|number| Self(number.to_be_bytes())).ok_or(BadKey)
    }
}

/// What should be a data key, or its id, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a data key has 32 bytes, and its id 16 hexadecimal digits")]
pub struct BadKey;

struct DataKey {
    id: KeyId,
    prk: Prk,
}

impl DataKey {
    fn new(key: &SecretBytes) -> Result<Self, BadKey> {
        if key.expose().len() != KEY_LENGTH {
            return Err(BadKey);
        }
        let prk = hkdf::Salt::new(HKDF_SHA256, b"sallyport payload key").extract(key.expose());
        let mut id = [0; ID];
        prk.expand(&[b"id"], Length(ID)).and_then(|okm| okm.fill(&mut id)).map_err(|_| BadKey)?;
        Ok(Self { id: KeyId(id), prk })
    }

    /// The key of one payload.
    fn of_payload(&self, random: &[u8]) -> Option<LessSafeKey> {
        let mut key = [0; KEY_LENGTH];
        self.prk.expand(&[b"payload", random], HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).ok()?;
        let made = UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new);
        key.zeroize();
        made
    }
}

/// Bytes that are wanted of HKDF.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The data keys of a log: the newest seals, each opens what it has sealed. Clones share them.
#[derive(Clone)]
pub struct PayloadKeys {
    /// The newest last; never empty.
    ring: Arc<RwLock<Vec<DataKey>>>,
}

impl PayloadKeys {
    /// These keys, the newest last; `None`: there are none.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k SecretBytes>) -> Result<Option<Self>, BadKey> {
        let ring = keys.into_iter().map(DataKey::new).collect::<Result<Vec<_>, _>>()?;
        Ok((!ring.is_empty()).then(|| Self { ring: Arc::new(RwLock::new(ring)) }))
    }

    /// Seals with `key` from now on.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn add(&self, key: &SecretBytes) -> Result<KeyId, BadKey> {
        let key = DataKey::new(key)?;
        let id = key.id;
        let mut ring = self.ring.write();
        ring.retain(|known| known.id != id);
        ring.push(key);
        Ok(id)
    }

    /// Their ids, the newest last.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        self.ring.read().iter().map(|key| key.id).collect()
    }

    /// Seals `payload`, salt and content, for the leaf that commits to it.
    pub(crate) fn seal(&self, commitment: &Commitment, payload: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let (salt, content) = payload.split_at_checked(SALT_LENGTH).ok_or(NoRandomness)?;
        let ring = self.ring.read();
        let data_key = ring.last().ok_or(NoRandomness)?;
        let bound = zstd_safe::compress_bound(content.len());
        let mut sealed = Vec::with_capacity(HEAD + FRONT + bound + TAG);
        sealed.push(FORM);
        sealed.extend_from_slice(&data_key.id.0);
        sealed.resize(HEAD, 0);
        aws_lc_rs::rand::fill(&mut sealed[1 + ID..]).map_err(|_| NoRandomness)?;
        let key = data_key.of_payload(&sealed[1 + ID..]).ok_or(NoRandomness)?;
        sealed.push(ZSTD);
        sealed.extend_from_slice(salt);
        sealed.resize(HEAD + FRONT + bound, 0);
        let packed = CONTEXT.with_borrow_mut(|context| context.compress(&mut sealed[HEAD + FRONT..], content, ZSTD_LEVEL));
        match packed {
            Ok(length) if length < content.len() => sealed.truncate(HEAD + FRONT + length),
            Ok(_) | Err(_) => {
                sealed[HEAD] = AS_IT_IS;
                sealed.truncate(HEAD + FRONT);
                sealed.extend_from_slice(content);
            }
        }
        let aad = Aad::from(authenticated(commitment));
        let tag = key.seal_in_place_separate_tag(zero_nonce(), aad, &mut sealed[HEAD..]).map_err(|_| NoRandomness)?;
        sealed.extend_from_slice(Tag::as_ref(&tag));
        Ok(sealed)
    }

    /// Opens what was sealed for the leaf that has this commitment: salt and content, as committed to. `None`: the data key is
    /// not one of these.
    ///
    /// # Errors
    /// [`DecodeError::Commitment`]: it was altered, or sealed for another leaf.
    pub(crate) fn open(&self, commitment: &Commitment, sealed: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
        let failed = DecodeError::Commitment(commitment.field);
        let id = key_of(sealed).ok_or(failed)?;
        let (head, body) = sealed.split_at_checked(HEAD).ok_or(failed)?;
        let key = {
            let ring = self.ring.read();
            let Some(data_key) = ring.iter().find(|key| key.id == id) else { return Ok(None) };
            data_key.of_payload(&head[1 + ID..]).ok_or(failed)?
        };
        let mut body = body.to_vec();
        let aad = Aad::from(authenticated(commitment));
        let opened = key.open_in_place(zero_nonce(), aad, &mut body).map_err(|_| failed)?;
        let (packing, rest) = opened.split_first().ok_or(failed)?;
        let payload = match *packing {
            AS_IT_IS => rest.to_vec(),
            ZSTD => {
                let (salt, frame) = rest.split_at_checked(SALT_LENGTH).ok_or(failed)?;
                // It is authenticated: our own writer has said how long it is.
                let length = u32::try_from(commitment.length).map_err(|_| failed)? as usize;
                let mut payload = vec![0; SALT_LENGTH + length];
                payload[..SALT_LENGTH].copy_from_slice(salt);
                let room = &mut payload[SALT_LENGTH..];
                let unpacked = UNPACKING.with_borrow_mut(|context| context.decompress(room, frame)).map_err(|_| failed)?;
                payload.truncate(SALT_LENGTH + unpacked);
                payload
            }
            _ => return Err(failed),
        };
        decode::open_payload(commitment, &payload)?;
        Ok(Some(payload))
    }
}

impl fmt::Debug for PayloadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PayloadKeys").field(&self.ids()).finish()
    }
}

impl PartialEq for PayloadKeys {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ring, &other.ring) || self.ids() == other.ids()
    }
}

impl Eq for PayloadKeys {}

/// Which key a payload was sealed with; `None`: it is cut off, or of another form.
pub(crate) fn key_of(sealed: &[u8]) -> Option<KeyId> {
    let (form, rest) = sealed.split_first()?;
    let (id, rest) = rest.split_first_chunk::<ID>()?;
    (*form == FORM && rest.len() >= RANDOM + FRONT + TAG).then_some(KeyId(*id))
}

/// The payload's key seals nothing else.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn authenticated(commitment: &Commitment) -> [u8; 42] {
    let mut bytes = [0; 42];
    bytes[0] = FORM;
    // Fields kept beside have numbers up to 14.
    bytes[1] = u8::try_from(commitment.field).unwrap_or(u8::MAX);
    bytes[2..10].copy_from_slice(&commitment.length.to_be_bytes());
    bytes[10..].copy_from_slice(&commitment.sha256);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::digest;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> PayloadKeys {
        let keys: Vec<_> = bytes.iter().map(|byte| SecretBytes::new(vec![*byte; KEY_LENGTH])).collect();
        PayloadKeys::new(&keys).unwrap().unwrap()
    }

    fn committed(field: u32, content: &[u8]) -> (Commitment, Vec<u8>) {
        let payload = [&[7; SALT_LENGTH][..], content].concat();
        let sha256 = digest::digest(&digest::SHA256, &payload).as_ref().try_into().unwrap();
        (Commitment { field, length: content.len() as u64, sha256 }, payload)
    }

    /// Made from docs/audit.md by another program (Node's crypto): data key 00 … 1f, random 40 … 4f, salt 60 … 6f, field 7.
    const OTHERS: [&str; 2] = [
        "013306708156d045a5404142434445464748494a4b4c4d4e4f37cf074491cb220fdf8b25b11bf0f8b2fc86e2717bb2689f0b64b6089295c205f0e1fc86d5ea2b17ea73",
        "013306708156d045a5404142434445464748494a4b4c4d4e4f36cf074491cb220fdf8b25b11bf0f8b2fcfd1212c3d135f63f5687a4a23856bccc2a7c7b09a138913e113c85e3fe80ed493047",
    ];

    #[test]
    fn what_others_seal_by_the_page_is_opened() {
        let ring = PayloadKeys::new([&SecretBytes::new((0..32).collect())]).unwrap().unwrap();
        assert_eq!(ring.ids()[0].to_string(), "3306708156d045a5");
        let payload = [&(0x60..0x70).collect::<Vec<u8>>()[..], b"SELECT 42"].concat();
        let sha256 = digest::digest(&digest::SHA256, &payload).as_ref().try_into().unwrap();
        let commitment = Commitment { field: 7, length: 9, sha256 };
        for hex in OTHERS {
            let sealed: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
            assert_eq!(ring.open(&commitment, &sealed), Ok(Some(payload.clone())));
        }
    }

    #[test]
    fn an_id_is_written_in_one_way() {
        let id = KeyId::of(&SecretBytes::new((0..32).collect())).unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "3306708156D045A5", "3306708156d045a", "+306708156d045a5"] {
            assert_eq!(bad.parse::<KeyId>(), Err(BadKey));
        }
    }

    #[test]
    fn text_is_packed_and_noise_is_not() {
        let keys = keys(&[1]);
        let text = "SELECT * FROM orders WHERE id IN (1, 2, 3) ".repeat(100);
        let (commitment, payload) = committed(7, text.as_bytes());
        let sealed = keys.seal(&commitment, &payload).unwrap();
        assert!(sealed.len() < text.len() / 10, "{}", sealed.len());
        assert_eq!(keys.open(&commitment, &sealed).unwrap().unwrap(), payload);
        let mut noise = vec![0; 5_000];
        aws_lc_rs::rand::fill(&mut noise).unwrap();
        let (commitment, payload) = committed(7, &noise);
        let sealed = keys.seal(&commitment, &payload).unwrap();
        assert_eq!(sealed.len(), HEAD + 1 + payload.len() + TAG);
        assert_eq!(keys.open(&commitment, &sealed).unwrap().unwrap(), payload);
    }

    #[test]
    fn a_payload_opens_for_its_own_leaf_alone() {
        let keys = keys(&[1]);
        let (one, payload) = committed(7, b"DELETE FROM a");
        let (other, _) = committed(7, b"DELETE FROM b");
        let sealed = keys.seal(&one, &payload).unwrap();
        let failed = Err(DecodeError::Commitment(7));
        assert_eq!(keys.open(&other, &sealed), failed);
        assert_eq!(keys.open(&Commitment { field: 8, ..one }, &sealed), Err(DecodeError::Commitment(8)));
        assert_eq!(keys.open(&Commitment { length: one.length + 1, ..one }, &sealed), failed);
        // The same content is never the same ciphertext.
        assert_ne!(keys.seal(&one, &payload).unwrap(), sealed);
    }

    #[test]
    fn older_keys_open_and_others_do_not() {
        let (commitment, payload) = committed(7, b"SELECT 1");
        let ring = keys(&[1]);
        let old = ring.seal(&commitment, &payload).unwrap();
        ring.add(&SecretBytes::new(vec![2; KEY_LENGTH])).unwrap();
        let new = ring.seal(&commitment, &payload).unwrap();
        assert_eq!(key_of(&new), ring.ids().last().copied());
        for sealed in [&old, &new] {
            assert_eq!(ring.open(&commitment, sealed).unwrap().as_ref(), Some(&payload));
        }
        assert_eq!(keys(&[1]).open(&commitment, &new), Ok(None));
        assert_eq!(keys(&[3]).open(&commitment, &old), Ok(None));
        assert!(!format!("{ring:?}").contains("Prk"));
        assert!(PayloadKeys::new([]).unwrap().is_none());
        assert_eq!(PayloadKeys::new([&SecretBytes::new(vec![1; 31])]).unwrap_err(), BadKey);
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_and_every_bit_of_it_counts(
            content in proptest::collection::vec(any::<u8>(), 1..3_000),
            text in any::<bool>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let content = if text { content.iter().map(|byte| b"abcd "[usize::from(*byte) % 5]).collect() } else { content };
            let keys = keys(&[9]);
            let (commitment, payload) = committed(8, &content);
            let sealed = keys.seal(&commitment, &payload).unwrap();
            prop_assert_eq!(keys.open(&commitment, &sealed).unwrap(), Some(payload));
            let mut changed = sealed.clone();
            let place = at.index(changed.len());
            changed[place] ^= 1 << bit;
            match keys.open(&commitment, &changed) {
                // Another key's id.
                Ok(None) => prop_assert!((1..1 + ID).contains(&place)),
                Ok(Some(_)) => prop_assert!(false, "byte {place}"),
                Err(error) => prop_assert_eq!(error, DecodeError::Commitment(8)),
            }
            prop_assert!(keys.open(&commitment, &sealed[..place]).is_err());
        }
    }
}
