//! The grammar, called safely.

use super::lex::Lexer;
use parking_lot::Mutex;
use pg_query::ParserOptions;
use pg_query::protobuf::ParseResult;

/// libpg_query turns the process's standard error into a pipe while it parses, and back. Two threads that do so at
/// once can leave it turned for good, so one at a time. A parse takes microseconds, and only what was not seen
/// before is parsed.
static TURN: Mutex<()> = Mutex::new(());

/// The tree of `text`.
///
/// # Errors
/// Why there is none, in the grammar's words.
pub(super) fn parse(text: &str, mode: ParserOptions) -> Result<ParseResult, String> {
    // What our lexer refuses is an error to the server as well, or takes its scanner too long.
    Lexer::check(text).map_err(|error| error.to_string())?;
    let _turn = TURN.lock();
    match pg_query::parse(text, mode) {
        Ok(parsed) => Ok(parsed.protobuf),
        Err(error) => Err(error.to_string()),
    }
}

/// The parts of a PL/pgSQL block, as libpg_query shows them.
///
/// # Errors
/// It is none.
pub(super) fn parse_block(text: &str) -> Result<serde_json::Value, String> {
    let _turn = TURN.lock();
    pg_query::parse_plpgsql(text).map_err(|error| error.to_string())
}

/// The server's tokens of `text`: where each begins and ends, and whether it is a comment.
#[cfg(test)]
pub(super) fn scan(text: &str) -> Option<Vec<(usize, usize, bool)>> {
    use pg_query::protobuf::Token;
    let _turn = TURN.lock();
    let scanned = pg_query::scan(text).ok()?;
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
