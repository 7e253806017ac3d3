//! PostgreSQL's lexical rules, byte for byte (`src/backend/parser/scan.l` of PostgreSQL 18, with
//! `standard_conforming_strings` on, which proto-postgres sees to).
//!
//! Where the server would report a lexical error, so does this. Older servers differ in what they refuse
//! (`1_000`, `0x1F` are junk to 15), never in where a quote or a comment ends.

/// Kinds of tokens, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or an identifier without quotes.
    Word,
    /// `"…"`.
    Quoted,
    /// `U&"…"`: what it is depends on a literal that may follow (UESCAPE).
    UnicodeQuoted,
    /// `$1`.
    Parameter,
    /// A number that the grammar takes for an integer (it fits in 32 bits).
    Integer,
    /// Any other number.
    Number,
    /// `'…'` and its continuations on further lines.
    String,
    /// `E'…'`.
    EscapeString,
    /// `U&'…'`.
    UnicodeString,
    /// `N'…'`.
    NationalString,
    /// `B'…'`.
    BitString,
    /// `X'…'`.
    HexString,
    /// `$tag$…$tag$`.
    DollarString,
    /// One of `,()[];`.
    Separator,
    /// A run of operator characters, dots or colons. The server may make several tokens of it; what they are
    /// depends on these bytes alone.
    Symbols,
}

/// A token's place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether white space or a comment stands before it.
    pub(crate) spaced: bool,
}

/// Why a text has no tokens: to the server, it is an error as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LexError {
    /// Neither UTF-8 nor ASCII.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// A byte that starts no token: NUL, a control character, a backslash, a lone dollar.
    #[error("a character that has no meaning there")]
    Stray,
    /// A quoted string or identifier does not end.
    #[error("a quote is not closed")]
    UnclosedQuote,
    /// A comment does not end.
    #[error("a comment is not closed")]
    UnclosedComment,
    /// Letters right behind a number or a parameter: `1a`, `$1a`.
    #[error("a number runs into a word")]
    Junk,
    /// Comments nested more than [`COMMENT_DEPTH_MAX`] deep, or an operator longer than [`SYMBOLS_MAX`].
    #[error("comments nested too deeply, or a run of operators that is too long")]
    TooLong,
}

/// Deepest nesting of comments. The server's scanner looks at all that is behind `/*` for each of them: a megabyte
/// of `/*/*/*` would keep it busy for minutes.
pub const COMMENT_DEPTH_MAX: usize = 64;

/// Longest run of operator characters, in bytes. Of `+++…` the server's scanner takes one at a time, and looks at
/// all of the rest each time.
pub const SYMBOLS_MAX: usize = 1_024;

/// Classes of bytes.
const OTHER: u8 = 0;
const SPACE: u8 = 1;
const WORD: u8 = 2;
const DIGIT: u8 = 3;
const SEPARATOR: u8 = 4;
/// Operator characters, and `.` and `:`.
const SYMBOL: u8 = 5;
const QUOTE: u8 = 6;
const DOUBLE: u8 = 7;
const DOLLAR: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut classes = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => WORD,
            b'0'..=b'9' => DIGIT,
            b',' | b'(' | b')' | b'[' | b']' | b';' => SEPARATOR,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>'
            | b'=' | b'.' | b':' => SYMBOL,
            b'\'' => QUOTE,
            b'"' => DOUBLE,
            b'$' => DOLLAR,
            _ => OTHER,
        };
        byte += 1;
    }
    classes
};

/// Whether an identifier goes on with a byte.
const CONTINUES: [bool; 256] = {
    let mut continues = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        continues[byte] = matches!(CLASSES[byte], WORD | DIGIT | DOLLAR);
        byte += 1;
    }
    continues
};

#[inline]
fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

/// Whether an identifier goes on with this byte.
#[inline]
pub(crate) fn continues_word(byte: u8) -> bool {
    CONTINUES[usize::from(byte)]
}

/// Takes tokens off a text.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Of a text that is UTF-8.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Whether the whole text has tokens.
    ///
    /// # Errors
    /// It has not.
    pub(crate) fn check(text: &str) -> Result<(), LexError> {
        let mut lexer = Lexer::new(text.as_bytes());
        while lexer.next_token()?.is_some() {}
        Ok(())
    }

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        // NUL never stands in a text that has tokens, so it can mean "the end" here.
        self.text.get(at).copied().unwrap_or(0)
    }

    /// The next token; `None`: there is no more.
    #[inline]
    pub(crate) fn next_token(&mut self) -> Result<Option<Token>, LexError> {
        let before = self.at;
        self.skip_space()?;
        let start = self.at;
        let Some(&first) = self.text.get(start) else { return Ok(None) };
        let kind = match class(first) {
            WORD => self.word(first)?,
            DIGIT => self.number()?,
            SEPARATOR => {
                self.at += 1;
                Kind::Separator
            }
            SYMBOL => self.symbols(first)?,
            QUOTE => {
                self.quoted(start + 1, false, true)?;
                Kind::String
            }
            DOUBLE => {
                self.identifier(start + 1)?;
                Kind::Quoted
            }
            DOLLAR => self.dollar()?,
            _ => return Err(LexError::Stray),
        };
        Ok(Some(Token { kind, start, end: self.at, spaced: start != before }))
    }

    /// White space and comments.
    #[inline]
    fn skip_space(&mut self) -> Result<(), LexError> {
        loop {
            match self.byte(self.at) {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.byte(self.at + 1) == b'-' => self.line_comment(),
                b'/' if self.byte(self.at + 1) == b'*' => self.block_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn line_comment(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        self.at += length;
    }

    /// Comments nest.
    fn block_comment(&mut self) -> Result<(), LexError> {
        let mut depth = 0usize;
        while self.at < self.text.len() {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'/', b'*') => {
                    depth += 1;
                    if depth > COMMENT_DEPTH_MAX {
                        return Err(LexError::TooLong);
                    }
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => self.at += 1,
            }
        }
        Err(LexError::UnclosedComment)
    }

    #[inline]
    fn word(&mut self, first: u8) -> Result<Kind, LexError> {
        let start = self.at;
        let next = self.byte(start + 1);
        if next == b'\'' {
            let kind = match first {
                b'e' | b'E' => Some((Kind::EscapeString, true, true)),
                b'b' | b'B' => Some((Kind::BitString, false, false)),
                b'x' | b'X' => Some((Kind::HexString, false, false)),
                b'n' | b'N' => Some((Kind::NationalString, false, true)),
                _ => None,
            };
            if let Some((kind, escapes, doubles)) = kind {
                self.quoted(start + 2, escapes, doubles)?;
                return Ok(kind);
            }
        }
        if next == b'&' && matches!(first, b'u' | b'U') {
            match self.byte(start + 2) {
                b'\'' => {
                    self.quoted(start + 3, false, true)?;
                    return Ok(Kind::UnicodeString);
                }
                b'"' => {
                    self.identifier(start + 3)?;
                    return Ok(Kind::UnicodeQuoted);
                }
                _ => {}
            }
        }
        let rest = self.text.get(start..).unwrap_or_default();
        self.at = start + rest.iter().position(|byte| !continues_word(*byte)).unwrap_or(rest.len());
        Ok(Kind::Word)
    }

    /// The inside of a string, from `at`, and what continues it.
    fn quoted(&mut self, mut at: usize, escapes: bool, doubles: bool) -> Result<(), LexError> {
        loop {
            match self.text.get(at) {
                None => return Err(LexError::UnclosedQuote),
                Some(b'\\') if escapes => {
                    if self.text.get(at + 1).is_none() {
                        return Err(LexError::UnclosedQuote);
                    }
                    at += 2;
                }
                Some(0) => return Err(LexError::Stray),
                Some(b'\'') => {
                    if doubles && self.byte(at + 1) == b'\'' {
                        at += 2;
                        continue;
                    }
                    match self.continuation(at + 1) {
                        Some(inside) => at = inside,
                        None => {
                            self.at = at + 1;
                            return Ok(());
                        }
                    }
                }
                Some(_) => at += 1,
            }
        }
    }

    /// The server's `quotecontinue`: white space (and `--` comments) with a line's end in it, and a quote.
    /// Returns where the string goes on.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut has_line_end = false;
        loop {
            match self.text.get(at)? {
                b'\n' | b'\r' => {
                    has_line_end = true;
                    at += 1;
                }
                b' ' | b'\t' | 0x0b | 0x0c => at += 1,
                b'-' if self.byte(at + 1) == b'-' => {
                    let rest = self.text.get(at..)?;
                    // A comment counts only if its line ends.
                    at += rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
                }
                b'\'' if has_line_end => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// The inside of a quoted identifier, from `at`.
    fn identifier(&mut self, mut at: usize) -> Result<(), LexError> {
        loop {
            match self.text.get(at) {
                None => return Err(LexError::UnclosedQuote),
                Some(0) => return Err(LexError::Stray),
                Some(b'"') if self.byte(at + 1) == b'"' => at += 2,
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(());
                }
                Some(_) => at += 1,
            }
        }
    }

    /// `$1`, or `$tag$…$tag$`.
    fn dollar(&mut self) -> Result<Kind, LexError> {
        let start = self.at;
        let mut at = start + 1;
        if class(self.byte(at)) == DIGIT {
            while class(self.byte(at)) == DIGIT {
                at += 1;
            }
            if class(self.byte(at)) == WORD {
                return Err(LexError::Junk);
            }
            self.at = at;
            return Ok(Kind::Parameter);
        }
        if class(self.byte(at)) == WORD {
            while matches!(class(self.byte(at)), WORD | DIGIT) {
                at += 1;
            }
        }
        if self.byte(at) != b'$' {
            return Err(LexError::Stray);
        }
        at += 1;
        let tag = self.text.get(start..at).unwrap_or_default();
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let Some(found) = rest.iter().position(|byte| matches!(byte, b'$' | 0)) else {
                return Err(LexError::UnclosedQuote);
            };
            at += found;
            if self.byte(at) == 0 {
                return Err(LexError::Stray);
            }
            if self.text.get(at..).is_some_and(|rest| rest.starts_with(tag)) {
                self.at = at + tag.len();
                return Ok(Kind::DollarString);
            }
            at += 1;
        }
    }

    /// Operator characters, up to a comment. A dot before a digit is a number.
    fn symbols(&mut self, first: u8) -> Result<Kind, LexError> {
        if first == b'.' && class(self.byte(self.at + 1)) == DIGIT {
            return self.number();
        }
        let mut at = self.at;
        loop {
            let byte = self.byte(at);
            let next = self.byte(at + 1);
            match (byte, next) {
                (b'-', b'-') | (b'/', b'*') => break,
                (b'.', next) if class(next) == DIGIT => break,
                // Two dots are a token of their own (`1..2`): the second does not begin a number.
                (b'.', b'.') => at += 2,
                _ if class(byte) == SYMBOL => at += 1,
                _ => break,
            }
        }
        if at - self.at > SYMBOLS_MAX {
            return Err(LexError::TooLong);
        }
        self.at = at;
        Ok(Kind::Symbols)
    }

    /// The end of the digits at `at`, which underscores may join.
    #[inline]
    fn digits(&self, mut at: usize, of: impl Fn(&u8) -> bool) -> usize {
        while self.text.get(at).is_some_and(&of) || (self.byte(at) == b'_' && self.text.get(at + 1).is_some_and(&of)) {
            at += 1;
        }
        at
    }

    fn number(&mut self) -> Result<Kind, LexError> {
        let start = self.at;
        let base = match (self.byte(start), self.byte(start + 1)) {
            (b'0', b'x' | b'X') => Some((16, u8::is_ascii_hexdigit as fn(&u8) -> bool)),
            (b'0', b'o' | b'O') => Some((8, (|byte: &u8| matches!(byte, b'0'..=b'7')) as fn(&u8) -> bool)),
            (b'0', b'b' | b'B') => Some((2, (|byte: &u8| matches!(byte, b'0' | b'1')) as fn(&u8) -> bool)),
            _ => None,
        };
        if let Some((radix, of)) = base {
            let end = self.digits(start + 2, of);
            if end == start + 2 || continues_number(self.byte(end)) {
                return Err(LexError::Junk);
            }
            self.at = end;
            return Ok(self.integer(start + 2, end, radix));
        }
        let mut at = self.digits(start, u8::is_ascii_digit);
        let mut whole = true;
        // `1..2` is `1`, `..`, `2`.
        if self.byte(at) == b'.' && (at == start || self.byte(at + 1) != b'.') {
            whole = false;
            at += 1;
            if class(self.byte(at)) == DIGIT {
                at = self.digits(at, u8::is_ascii_digit);
            }
        }
        if matches!(self.byte(at), b'e' | b'E') {
            let sign = usize::from(matches!(self.byte(at + 1), b'+' | b'-'));
            if class(self.byte(at + 1 + sign)) == DIGIT {
                whole = false;
                at = self.digits(at + 1 + sign, u8::is_ascii_digit);
            }
        }
        if continues_number(self.byte(at)) {
            return Err(LexError::Junk);
        }
        self.at = at;
        Ok(if whole { self.integer(start, at, 10) } else { Kind::Number })
    }

    /// Whether the digits `start..end` fit in the grammar's integers.
    fn integer(&self, start: usize, end: usize, radix: u32) -> Kind {
        let mut value = 0u64;
        for byte in self.text.get(start..end).unwrap_or_default() {
            let Some(digit) = char::from(*byte).to_digit(radix) else { continue };
            value = value.saturating_mul(u64::from(radix)).saturating_add(u64::from(digit));
        }
        if value <= i32::MAX as u64 { Kind::Integer } else { Kind::Number }
    }
}

/// Letters right behind a number are junk; so is an underscore.
fn continues_number(byte: u8) -> bool {
    class(byte) == WORD
}
