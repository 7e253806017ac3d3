//! PostgreSQL's grammar, one caller at a time.
//!
//! libpg_query can be built to turn the process's standard error into a pipe while it parses, and back (ours, 18.1, is
//! not). Two threads that do so at once can leave it turned for good. So everything in the process that parses does
//! it here, however it was built.

use parking_lot::Mutex;
use pg_query::ParserOptions;
use pg_query::protobuf::{ParseResult, ScanResult};

static TURN: Mutex<()> = Mutex::new(());

/// The tree of `text`. The caller has bounded its length and depth: a parse cannot be interrupted.
///
/// # Errors
/// Why there is none, in the grammar's words.
pub fn parse(text: &str, mode: impl Into<ParserOptions>) -> Result<ParseResult, pg_query::Error> {
    let _turn = TURN.lock();
    pg_query::parse(text, mode).map(|parsed| parsed.protobuf)
}

/// The parts of a PL/pgSQL block, as libpg_query shows them.
///
/// # Errors
/// It is none.
pub fn parse_block(text: &str) -> Result<serde_json::Value, pg_query::Error> {
    let _turn = TURN.lock();
    pg_query::parse_plpgsql(text)
}

/// The server's tokens of `text`.
///
/// # Errors
/// It cannot be cut into tokens.
pub fn scan(text: &str) -> Result<ScanResult, pg_query::Error> {
    let _turn = TURN.lock();
    pg_query::scan(text)
}
