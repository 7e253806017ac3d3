//! A statement's key: its tokens without the values of its literals.
//!
//! ```text
//!  SELECT name FROM t WHERE id = 17 -- mine     →  select name from t where id=⟨integer⟩
//! ```
//!
//! Two texts with the same key have the same tokens but for the values of literals, so the grammar makes the same
//! tree of them but for those values. What depends on a value is told by [`Lexed::literals_matter`], or by
//! [`super::Analysis::literals_matter`]: then the text itself is the key.
//!
//! A literal is written as one byte below 32, by its kind. Such bytes begin no token (a lexical error), and a
//! quoted identifier, which may hold them, is written with its quotes: so a key is read in one way only.

use super::functions::is_watched;
use super::lex::{Kind, LexError, Lexer};

/// What [`fingerprint`] found besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexed {
    /// What the statement does may depend on the values of its literals: it is known by its exact text alone.
    pub literals_matter: bool,
    /// How many statements there are, as counted by semicolons.
    pub statements_hint: usize,
}

/// Statements whose facts do not depend on literals: by their first word, as folded.
const FIRST_WORDS: [&[u8]; 16] = [
    b"select",
    b"insert",
    b"update",
    b"delete",
    b"values",
    b"with",
    b"table",
    b"merge",
    b"begin",
    b"start",
    b"commit",
    b"end",
    b"rollback",
    b"abort",
    b"savepoint",
    b"release",
];

/// Which tokens would run into one another without white space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joins {
    Words,
    Symbols,
    Nothing,
}

/// Appends the key of `sql` to `key`.
///
/// # Errors
/// [`LexError`]: the server cannot read it either. What was appended means nothing then.
pub fn fingerprint(sql: &[u8], key: &mut Vec<u8>) -> Result<Lexed, LexError> {
    if !sql.is_ascii() && std::str::from_utf8(sql).is_err() {
        return Err(LexError::NotUtf8);
    }
    let before = key.len();
    // No token is written longer than it is, and a space stands for at least one.
    key.resize(before + sql.len(), 0);
    let mut out = Out { bytes: key.get_mut(before..).unwrap_or_default(), length: 0 };
    let lexed = write(sql, &mut out);
    let length = out.length;
    key.truncate(before + length);
    lexed
}

/// The key as far as it is written.
struct Out<'k> {
    bytes: &'k mut [u8],
    length: usize,
}

impl Out<'_> {
    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    /// Appends `text`.
    #[inline]
    fn extend(&mut self, text: &[u8]) {
        let end = self.length + text.len();
        if let Some(slots) = self.bytes.get_mut(self.length..end) {
            slots.copy_from_slice(text);
            self.length = end;
        }
    }

    /// Appends `word` in small letters, and returns it.
    #[inline]
    fn extend_folded(&mut self, word: &[u8]) -> &[u8] {
        let end = self.length + word.len();
        let Some(slots) = self.bytes.get_mut(self.length..end) else { return &[] };
        for (slot, byte) in slots.iter_mut().zip(word) {
            *slot = byte.to_ascii_lowercase();
        }
        self.length = end;
        slots
    }
}

fn write(sql: &[u8], out: &mut Out<'_>) -> Result<Lexed, LexError> {
    let mut lexer = Lexer::new(sql);
    let mut lexed = Lexed { literals_matter: false, statements_hint: 0 };
    let mut at_first_word = true;
    let mut before = Joins::Nothing;
    while let Some(token) = lexer.next_token()? {
        let text = sql.get(token.start..token.end).unwrap_or_default();
        let joins = joins(token.kind);
        if token.spaced && joins == before && joins != Joins::Nothing {
            out.push(b' ');
        }
        before = joins;
        if at_first_word && text != b"(" && text != b";" {
            at_first_word = false;
            lexed.statements_hint += 1;
            lexed.literals_matter |= token.kind != Kind::Word || !is_first_word(text);
        }
        match token.kind {
            Kind::Word => lexed.literals_matter |= is_watched(out.extend_folded(text)),
            Kind::Quoted => {
                out.extend(text);
                lexed.literals_matter |= is_watched(text.get(1..text.len() - 1).unwrap_or_default());
            }
            Kind::UnicodeQuoted => {
                // Escapes, and a literal behind UESCAPE, make the name.
                lexed.literals_matter = true;
                out.push(UNICODE_QUOTED);
                out.extend(text.get(2..).unwrap_or_default());
            }
            Kind::Separator => {
                let byte = text.first().copied().unwrap_or_default();
                at_first_word |= byte == b';';
                out.push(byte);
            }
            Kind::Symbols => match text {
                [byte] => out.push(*byte),
                text => out.extend(text),
            },
            Kind::Parameter => out.extend(text),
            Kind::Integer => out.push(1),
            Kind::Number => out.push(2),
            Kind::String => out.push(3),
            Kind::EscapeString => out.push(4),
            Kind::UnicodeString => out.push(5),
            Kind::NationalString => out.push(6),
            Kind::BitString => out.push(7),
            Kind::HexString => out.push(8),
            Kind::DollarString => out.push(9),
        }
    }
    Ok(lexed)
}

/// Stands for the `U&` of an identifier: without it, `u & "a"` would have the same key.
const UNICODE_QUOTED: u8 = 10;

#[inline]
fn joins(kind: Kind) -> Joins {
    match kind {
        Kind::Word | Kind::Quoted | Kind::Parameter => Joins::Words,
        Kind::Symbols => Joins::Symbols,
        _ => Joins::Nothing,
    }
}

fn is_first_word(word: &[u8]) -> bool {
    FIRST_WORDS.iter().any(|first| first.eq_ignore_ascii_case(word))
}
