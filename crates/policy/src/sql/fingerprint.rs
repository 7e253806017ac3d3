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
    key.reserve(sql.len());
    let mut lexer = Lexer::new(sql);
    let mut lexed = Lexed { literals_matter: false, statements_hint: 0 };
    let mut at_first_word = true;
    let mut before = Joins::Nothing;
    while let Some(token) = lexer.next_token()? {
        let text = sql.get(token.start..token.end).unwrap_or_default();
        let joins = joins(token.kind);
        if token.spaced && joins == before && joins != Joins::Nothing {
            key.push(b' ');
        }
        before = joins;
        if at_first_word && text != b"(" && text != b";" {
            at_first_word = false;
            lexed.statements_hint += 1;
            lexed.literals_matter |= token.kind != Kind::Word || !is_first_word(text);
        }
        match token.kind {
            Kind::Word => {
                let start = key.len();
                key.extend_from_slice(text);
                let word = key.get_mut(start..).unwrap_or_default();
                word.make_ascii_lowercase();
                lexed.literals_matter |= is_watched(word);
            }
            Kind::Quoted => {
                key.extend_from_slice(text);
                lexed.literals_matter |= is_watched(text.get(1..text.len() - 1).unwrap_or_default());
            }
            Kind::UnicodeQuoted => {
                // Escapes, and a literal behind UESCAPE, make the name.
                lexed.literals_matter = true;
                key.push(UNICODE_QUOTED);
                key.extend_from_slice(text.get(2..).unwrap_or_default());
            }
            Kind::Separator => {
                at_first_word |= text == b";";
                key.extend_from_slice(text);
            }
            Kind::Parameter | Kind::Symbols => key.extend_from_slice(text),
            Kind::Integer => key.push(1),
            Kind::Number => key.push(2),
            Kind::String => key.push(3),
            Kind::EscapeString => key.push(4),
            Kind::UnicodeString => key.push(5),
            Kind::NationalString => key.push(6),
            Kind::BitString => key.push(7),
            Kind::HexString => key.push(8),
            Kind::DollarString => key.push(9),
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
