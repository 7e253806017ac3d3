//! Signed notes and checkpoints: C2SP signed-note, tlog-checkpoint and tlog-cosignature, with Ed25519.
//!
//! ```text
//! note       = text, an empty line, signature lines
//! text       = lines of UTF-8 without control characters
//! signature  = "— NAME BASE64\n": the first four bytes of the key's id, then the signature
//! key id     = SHA-256 of NAME, a newline, the kind (1 byte), the public key (32 bytes)
//! checkpoint = a note whose text begins with: the log's origin, its size in decimal digits, its root in base64
//! cosignature: kind 4; 8 bytes of seconds since 1970 before the signature, which is over
//!              "cosignature/v1\n", "time SECONDS\n", the text
//! ```
//!
//! <https://c2sp.org/signed-note>, <https://c2sp.org/tlog-checkpoint>, <https://c2sp.org/tlog-cosignature>

use crate::merkle::Hash;
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt;

/// Longest note that is read (1 MiB).
pub const NOTE_MAX: usize = 1 << 20;
/// Most signature lines that are read.
pub const SIGNATURES_MAX: usize = 100;

const PUBLIC_KEY: usize = 32;

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// A note's text: the log's own key.
    Log,
    /// A checkpoint at a time: a witness's key.
    Witness,
}

impl KeyKind {
    /// The byte that names it.
    fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Witness => 4,
        }
    }
}

/// Why a note is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is no note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// A key's text cannot be read.
    #[error("not a verifier key: {0}")]
    Key(&'static str),
    /// A key that is known has not made the signature that bears its name.
    #[error("the signature of {0} does not verify")]
    Forged(String),
    /// None of the keys has signed it.
    #[error("no key that is known has signed it")]
    Unsigned,
}

/// A public key with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    kind: KeyKind,
    key: [u8; PUBLIC_KEY],
    id: [u8; 4],
}

/// Names are a word without `+`, as they stand in signature lines and in key texts.
fn check_name(name: &str) -> Result<(), NoteError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(bad) { Err(NoteError::Key("its name is empty, or has spaces or a plus")) } else { Ok(()) }
}

impl Verifier {
    /// The key of `name`.
    ///
    /// # Errors
    /// [`NoteError::Key`]: the name cannot stand in a note.
    pub fn new(name: &str, kind: KeyKind, key: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        let mut context = Context::new(&SHA256);
        for part in [name.as_bytes(), b"\n", &[kind.byte()], &key] {
            context.update(part);
        }
        let mut id = [0; 4];
        id.copy_from_slice(&context.finish().as_ref()[..4]);
        Ok(Self { name: name.to_owned(), kind, key, id })
    }

    /// Reads a key as [`Verifier`]'s `Display` writes it: `NAME+ID+BASE64`.
    ///
    /// # Errors
    /// [`NoteError::Key`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("it is not NAME+ID+KEY"));
        };
        let bytes = BASE64.decode(encoded).map_err(|_| NoteError::Key("the key is not base64"))?;
        let Some((kind, key)) = bytes.split_first() else { return Err(NoteError::Key("the key is empty")) };
        let kind = [KeyKind::Log, KeyKind::Witness].into_iter().find(|known| known.byte() == *kind);
        let kind = kind.ok_or(NoteError::Key("it is of a kind that is not known"))?;
        let key = key.try_into().map_err(|_| NoteError::Key("the key has not 32 bytes"))?;
        let verifier = Self::new(name, kind, key)?;
        if format!("{:08x}", u32::from_be_bytes(verifier.id)) != id {
            return Err(NoteError::Key("its id is not that of its name and key"));
        }
        Ok(verifier)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the log's or a witness's.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// When `signature` was made over `text`, if it was: a log's signature says no time.
    fn verify(&self, text: &str, signature: &[u8]) -> Option<Option<u64>> {
        let key = UnparsedPublicKey::new(&ED25519, self.key);
        match self.kind {
            KeyKind::Log => key.verify(text.as_bytes(), signature).ok().map(|()| None),
            KeyKind::Witness => {
                let (seconds, signature) = signature.split_first_chunk::<8>()?;
                let seconds = u64::from_be_bytes(*seconds);
                key.verify(cosigned(seconds, text).as_bytes(), signature).ok().map(|()| Some(seconds))
            }
        }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = BASE64.encode([&[self.kind.byte()][..], &self.key].concat());
        write!(f, "{}+{:08x}+{encoded}", self.name, u32::from_be_bytes(self.id))
    }
}

/// What a witness signs.
fn cosigned(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// A private key with its name.
pub struct Signer {
    verifier: Verifier,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.verifier).finish()
    }
}

impl Signer {
    /// The key of `name` that grows from `seed`.
    ///
    /// # Errors
    /// [`NoteError::Key`]: the name cannot stand in a note, or the seed is none.
    pub fn from_seed(name: &str, kind: KeyKind, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Key("the seed is none"))?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| NoteError::Key("the key has not 32 bytes"))?;
        Ok(Self { verifier: Verifier::new(name, kind, key)?, pair })
    }

    /// Its public key.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The signature line for `text`. `seconds` since 1970 is what a witness's says; a log's says no time.
    #[must_use]
    pub fn sign(&self, text: &str, seconds: u64) -> String {
        let mut bytes = self.verifier.id.to_vec();
        match self.verifier.kind {
            KeyKind::Log => bytes.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref()),
            KeyKind::Witness => {
                bytes.extend_from_slice(&seconds.to_be_bytes());
                bytes.extend_from_slice(self.pair.sign(cosigned(seconds, text).as_bytes()).as_ref());
            }
        }
        format!("— {} {}\n", self.verifier.name, BASE64.encode(bytes))
    }
}

/// A note that was taken apart: nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The text, with its last newline.
    pub text: String,
    /// Name, key id, and signature.
    signatures: Vec<(String, [u8; 4], Vec<u8>)>,
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Which of the keys has made it.
    pub key: usize,
    /// When, in seconds since 1970, as a witness says.
    pub seconds: Option<u64>,
}

impl Note {
    /// Takes a note apart.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(note: &[u8]) -> Result<Self, NoteError> {
        if note.len() > NOTE_MAX {
            return Err(NoteError::Malformed("it is too long"));
        }
        let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed("it is not UTF-8"))?;
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return Err(NoteError::Malformed("it has control characters"));
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed("no empty line is before the signatures"))?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("it does not end with a line"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() >= SIGNATURES_MAX {
                return Err(NoteError::Malformed("it has too many signatures"));
            }
            let line = line.strip_prefix("— ").ok_or(NoteError::Malformed("a signature line does not begin with a dash"))?;
            let (name, encoded) = line.split_once(' ').ok_or(NoteError::Malformed("a signature line has no signature"))?;
            check_name(name).map_err(|_| NoteError::Malformed("a signature's name is none"))?;
            let bytes = BASE64.decode(encoded).map_err(|_| NoteError::Malformed("a signature is not base64"))?;
            match bytes.split_first_chunk::<4>() {
                Some((id, signature)) if !signature.is_empty() => signatures.push((name.to_owned(), *id, signature.to_vec())),
                Some(_) | None => return Err(NoteError::Malformed("a signature is too short")),
            }
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The checkpoint that it is.
    ///
    /// # Errors
    /// [`NoteError::Malformed`]: it is another note.
    pub fn checkpoint(&self) -> Result<Checkpoint, NoteError> {
        Checkpoint::parse(&self.text)
    }

    /// The signatures that `keys` have made: one for each key at most. What other keys have signed is ignored.
    ///
    /// # Errors
    /// [`NoteError::Forged`]: a signature bears the name and id of a key, and is not its. [`NoteError::Unsigned`].
    pub fn verify(&self, keys: &[Verifier]) -> Result<Vec<Verified>, NoteError> {
        let mut verified: Vec<Verified> = Vec::new();
        for (name, id, signature) in &self.signatures {
            let Some(key) = keys.iter().position(|key| key.name == *name && key.id == *id) else { continue };
            let seconds = keys[key].verify(&self.text, signature).ok_or_else(|| NoteError::Forged(name.clone()))?;
            if verified.iter().all(|before| before.key != key) {
                verified.push(Verified { key, seconds });
            }
        }
        if verified.is_empty() { Err(NoteError::Unsigned) } else { Ok(verified) }
    }

    /// The first signature line that bears the name and id of `key`, with its newline. It holds if [`Note::verify`] says so.
    #[must_use]
    pub fn line_of(&self, key: &Verifier) -> Option<String> {
        let (name, id, signature) = self.signatures.iter().find(|(name, id, _)| key.name == *name && key.id == *id)?;
        Some(format!("— {name} {}\n", BASE64.encode([&id[..], signature].concat())))
    }
}

/// What a log commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of its tree.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads a checkpoint's text. Lines after the third are of extensions, and are left alone.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let body = text.strip_suffix('\n').ok_or(NoteError::Malformed("the checkpoint does not end with a line"))?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoteError::Malformed("the checkpoint has not three lines"));
        };
        if origin.is_empty() || lines.any(str::is_empty) {
            return Err(NoteError::Malformed("the checkpoint has an empty line"));
        }
        let parsed: u64 = size.parse().map_err(|_| NoteError::Malformed("the checkpoint's size is no number"))?;
        // One spelling alone.
        if parsed.to_string() != size {
            return Err(NoteError::Malformed("the checkpoint's size is not written as a number is"));
        }
        let root = BASE64.decode(root).ok().and_then(|root| Hash::try_from(root).ok());
        let root = root.ok_or(NoteError::Malformed("the checkpoint's root is no hash"))?;
        Ok(Self { origin: origin.to_owned(), size: parsed, root })
    }
}

impl fmt::Display for Checkpoint {
    /// The note's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, BASE64.encode(self.root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::EMPTY_ROOT;

    fn signer(name: &str, kind: KeyKind, seed: u8) -> Signer {
        Signer::from_seed(name, kind, &[seed; 32]).expect("a name and a seed")
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "example.com/sallyport".to_owned(), size: 0, root: EMPTY_ROOT }
    }

    /// The key and the note that Go's `golang.org/x/mod/sumdb/note` is documented with.
    #[test]
    fn notes_of_another_implementation_are_verified() {
        let key = Verifier::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").expect("a key");
        assert_eq!(key.to_string(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
        let note = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n\
            \n\
            — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let parsed = Note::parse(note.as_bytes()).expect("a note");
        assert_eq!(parsed.verify(std::slice::from_ref(&key)), Ok(vec![Verified { key: 0, seconds: None }]));
        let changed = Note::parse(note.replace("don't", "do").as_bytes()).expect("a note");
        assert_eq!(changed.verify(std::slice::from_ref(&key)), Err(NoteError::Forged("PeterNeumann".to_owned())));
    }

    #[test]
    fn a_checkpoint_is_signed_by_its_log_and_by_witnesses() {
        let (log, witness) = (signer("example.com/sallyport", KeyKind::Log, 1), signer("witness.example", KeyKind::Witness, 2));
        let text = checkpoint().to_string();
        assert_eq!(text, "example.com/sallyport\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
        let note = format!("{text}\n{}{}", log.sign(&text, 0), witness.sign(&text, 1_700_000_000));
        let note = Note::parse(note.as_bytes()).expect("a note");
        let keys = [witness.verifier().clone(), log.verifier().clone()];
        let verified = note.verify(&keys).expect("both have signed it");
        assert_eq!(verified, [Verified { key: 1, seconds: None }, Verified { key: 0, seconds: Some(1_700_000_000) }]);
        assert_eq!(Checkpoint::parse(&note.text), Ok(checkpoint()));
        // A key of the same name is another key.
        let other = signer("example.com/sallyport", KeyKind::Log, 3);
        assert_eq!(note.verify(std::slice::from_ref(other.verifier())), Err(NoteError::Unsigned));
        for key in keys {
            assert_eq!(Verifier::parse(&key.to_string()), Ok(key));
        }
    }

    #[test]
    fn a_signature_is_for_one_text_one_time_and_one_kind_of_key() {
        let (log, witness) = (signer("name", KeyKind::Log, 1), signer("name", KeyKind::Witness, 1));
        let text = checkpoint().to_string();
        let keys = [log.verifier().clone(), witness.verifier().clone()];
        let note = |line: &str| Note::parse(format!("{text}\n{line}").as_bytes()).expect("a note");
        for (line, by) in [(log.sign(&text, 7), 0), (witness.sign(&text, 7), 1)] {
            assert_eq!(note(&line).verify(&keys).map(|verified| verified[0].key), Ok(by));
            let encoded = line.trim_end().rsplit(' ').next().expect("base64");
            let bytes = BASE64.decode(encoded).expect("base64");
            // Its id says whose it is; all that follows is signed or the signature.
            for at in 4..bytes.len() {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                let changed = note(&format!("— name {}\n", BASE64.encode(bytes)));
                assert_eq!(changed.verify(&keys), Err(NoteError::Forged("name".to_owned())), "byte {at}");
            }
        }
        assert_ne!(log.verifier().to_string(), witness.verifier().to_string());
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let line = signer("name", KeyKind::Log, 1).sign("text\n", 0);
        assert!(Note::parse(format!("text\n\n{line}").as_bytes()).is_ok());
        assert_eq!(Note::parse(format!("a\n\nb\n\n{line}").as_bytes()).expect("a note").text, "a\n\nb\n");
        let many = line.repeat(SIGNATURES_MAX + 1);
        for note in [
            String::new(),
            "text\n".to_owned(),
            format!("text\n{line}"),
            "text\n\n".to_owned(),
            format!("text\r\n\n{line}"),
            format!("text\n\n{}", line.trim_end()),
            format!("text\n\n{line}\n"),
            format!("text\n\n-{line}"),
            "text\n\n— name\n".to_owned(),
            "text\n\n— name !\n".to_owned(),
            "text\n\n— name AAAAAA==\n".to_owned(),
            "text\n\n— na+me AAAAAAAA\n".to_owned(),
            format!("text\n\n{many}"),
        ] {
            assert!(matches!(Note::parse(note.as_bytes()), Err(NoteError::Malformed(_))), "{note:?}");
        }
        assert!(matches!(Note::parse(b"\xff\n\n"), Err(NoteError::Malformed(_))));
    }

    #[test]
    fn what_is_no_checkpoint_or_key_is_refused() {
        let root = BASE64.encode(EMPTY_ROOT);
        assert!(Checkpoint::parse(&format!("origin\n5\n{root}\nextension\n")).is_ok());
        for text in [
            String::new(),
            format!("origin\n5\n{root}"),
            format!("\n5\n{root}\n"),
            "origin\n5\n".to_owned(),
            format!("origin\n05\n{root}\n"),
            format!("origin\n+5\n{root}\n"),
            format!("origin\n18446744073709551616\n{root}\n"),
            format!("origin\n5\n{root}\n\n"),
            "origin\n5\nAAAA\n".to_owned(),
        ] {
            assert!(matches!(Checkpoint::parse(&text), Err(NoteError::Malformed(_))), "{text:?}");
        }
        let key = signer("name", KeyKind::Log, 1).verifier().to_string();
        for text in [
            String::new(),
            key.replacen('+', "-", 1),
            key.replacen("name", "other", 1),
            key.replacen("name", "", 1),
            key[..key.len() - 4].to_owned(),
            "name+00000000+".to_owned(),
            format!("name+00000000+{}", BASE64.encode([9; 33])),
        ] {
            assert!(matches!(Verifier::parse(&text), Err(NoteError::Key(_))), "{text:?}");
        }
        assert!(Signer::from_seed("two words", KeyKind::Log, &[1; 32]).is_err());
    }

    #[test]
    fn a_signers_debug_output_has_no_secret() {
        let signer = signer("name", KeyKind::Log, 0xab);
        assert!(!format!("{signer:?}").contains("171, 171"), "{signer:?}");
    }
}
