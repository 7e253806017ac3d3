//! Keys of texts that were seen before: a statement that is prepared, or sent again as it was, is not lexed again.
//!
//! A key is a function of the text alone, so the memory of a thread serves all its sessions. A text is kept when
//! it comes for the second time: those that differ by their literals leave no more than a hash.

use super::fingerprint::{Lexed, fingerprint};
use super::lex::LexError;
use std::cell::RefCell;
use std::hash::BuildHasher;

/// Places, each for one text (256).
const PLACES: usize = 256;

/// Longest text that is kept (1 KiB: with its key, half a megabyte for a thread).
const KEPT_MAX: usize = 1 << 10;

#[derive(Default)]
struct Place {
    /// Of the text that was last asked for and is not kept.
    passing: u64,
    text: Vec<u8>,
    key: Vec<u8>,
    lexed: Option<Lexed>,
}

struct Known {
    hasher: hashbrown::DefaultHashBuilder,
    places: Vec<Place>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known {
        hasher: hashbrown::DefaultHashBuilder::default(),
        places: std::iter::repeat_with(Place::default).take(PLACES).collect(),
    });
}

/// [`fingerprint`], from memory where it can.
///
/// # Errors
/// As [`fingerprint`].
pub(crate) fn known_fingerprint(sql: &[u8], key: &mut Vec<u8>) -> Result<Lexed, LexError> {
    if sql.len() > KEPT_MAX {
        return fingerprint(sql, key);
    }
    KNOWN.with_borrow_mut(|known| {
        let hash = known.hasher.hash_one(sql);
        let at = usize::try_from(hash % PLACES as u64).unwrap_or_default();
        let Some(place) = known.places.get_mut(at) else { return fingerprint(sql, key) };
        if let Some(lexed) = place.lexed.filter(|_| place.text == sql) {
            key.extend_from_slice(&place.key);
            return Ok(lexed);
        }
        let before = key.len();
        let lexed = fingerprint(sql, key)?;
        if std::mem::replace(&mut place.passing, hash) == hash {
            place.text.clear();
            place.text.extend_from_slice(sql);
            place.key.clear();
            place.key.extend_from_slice(key.get(before..).unwrap_or_default());
            place.lexed = Some(lexed);
        }
        Ok(lexed)
    })
}

#[cfg(test)]
mod tests {
    use super::{KEPT_MAX, PLACES, fingerprint, known_fingerprint};

    #[test]
    fn memory_answers_as_the_lexer_does() {
        let long = format!("select '{}'", "x".repeat(KEPT_MAX));
        let texts = (0..4 * PLACES).map(|n| format!("SELECT a{n} FROM t WHERE b = {n} -- {n}"));
        let texts: Vec<String> =
            texts.chain([long, String::new(), "select pg_sleep(1)".to_owned(), "select 'open".to_owned()]).collect();
        for turn in 0..4 {
            for text in &texts {
                let (mut fresh, mut known) = (b"n".to_vec(), b"n".to_vec());
                let expected = fingerprint(text.as_bytes(), &mut fresh);
                assert_eq!(known_fingerprint(text.as_bytes(), &mut known), expected, "turn {turn}: {text}");
                if expected.is_ok() {
                    assert_eq!(known, fresh, "turn {turn}: {text}");
                }
            }
        }
    }
}
