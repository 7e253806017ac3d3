//! The grammar, for texts of clients: what our lexer refuses does not reach it.

use super::lex::Lexer;
use masking::grammar;
use pg_query::ParserOptions;
use pg_query::protobuf::ParseResult;

/// The tree of `text`.
///
/// # Errors
/// Why there is none, in the grammar's words.
pub(super) fn parse(text: &str, mode: ParserOptions) -> Result<ParseResult, String> {
    // What our lexer refuses is an error to the server as well, or takes its scanner too long.
    Lexer::check(text).map_err(|error| error.to_string())?;
    grammar::parse(text, mode).map_err(|error| error.to_string())
}

/// The parts of a PL/pgSQL block, as libpg_query shows them.
///
/// # Errors
/// It is none.
pub(super) fn parse_block(text: &str) -> Result<serde_json::Value, String> {
    grammar::parse_block(text).map_err(|error| error.to_string())
}

/// The server's tokens of `text`: where each begins and ends, and whether it is a comment.
#[cfg(test)]
pub(super) fn scan(text: &str) -> Option<Vec<(usize, usize, bool)>> {
    use pg_query::protobuf::Token;
    let scanned = grammar::scan(text).ok()?;
    let place = |at: i32| usize::try_from(at).ok();
    scanned
        .tokens
        .iter()
        .map(|token| {
            let comment = token.token == Token::SqlComment as i32 || token.token == Token::CComment as i32;
            Some((place(token.start)?, place(token.end)?, comment))
        })
        .collect()
}
