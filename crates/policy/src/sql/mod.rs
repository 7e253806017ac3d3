//! What a SQL statement would do: PostgreSQL's own grammar, and names as the server looks them up.
//!
//! ```text
//!  text ─fingerprint─▶ key ─▶ (remembered?) ─▶ decision
//!    └────analyze────▶ tree ─walk─▶ Facts, effects, relations, functions
//!                        names ◀── Catalog, SqlState (what the session did before)
//! ```
//!
//! - [`fingerprint`]: the key under which decisions are remembered; the server's lexical rules byte for byte.
//! - [`analyze`]: a text's [`Analysis`]. Every node of the tree is visited, and every kind of node is listed, so
//!   that what the grammar adds does not pass unseen.
//! - [`SqlState`]: search path, temporary tables, prepared statements and cursors of one session.
//!
//! # What is what
//!
//! | statement | actions |
//! | --- | --- |
//! | SELECT, VALUES, TABLE, and every sub-query anywhere | `select` on what is read; FOR UPDATE …: `lock` |
//! | INSERT, UPDATE, DELETE, MERGE, in CTEs as well | `insert`, `update`, `delete`; `select` on the target where its columns are read |
//! | TRUNCATE, LOCK | `truncate`, `lock` |
//! | COPY TO STDOUT, FROM STDIN | `copy_out` and `select`, `copy_in` and `insert`; files and programs: unknown |
//! | functions that are not built in, CALL, `OPERATOR(schema.op)` | `call` |
//! | CREATE, ALTER, DROP, COMMENT | `ddl` on the object; what a view or a new table reads is `select` |
//! | GRANT, REVOKE, roles | `grant` |
//! | VACUUM, ANALYZE, CLUSTER, REINDEX, REFRESH, CHECKPOINT | `maintain` |
//! | SET ROLE, SET SESSION AUTHORIZATION | `set_role`; settings that are not harmless: `set` |
//! | EXPLAIN, PREPARE, DECLARE, EXECUTE, FETCH, DO | what the statement inside does |
//! | LISTEN, NOTIFY; publications and subscriptions | `listen`, `notify`; `replicate` |
//! | transactions, SHOW, harmless SET, DISCARD, DEALLOCATE, CLOSE, UNLISTEN | nothing beyond `connect` |
//!
//! # How one would get round it
//!
//! What this does not see, and why that is so:
//! - Triggers, rules, views' own queries, defaults, generated columns, policies, casts, operators without a schema
//!   and functions' bodies do what whoever made them wrote. Making them is `ddl`, and a function's call is `call`.
//! - What the server does to relations that are not named: foreign keys and CASCADE reach further tables, a table
//!   includes its partitions and children.
//! - A condition can be true of all rows without looking so (`id > -1`): see `condition.rs`.
//! - The catalogue is a snapshot. A relation that another session makes, renames or puts in front of another in
//!   the search path afterwards is met with the next load.
//! - Functions in C of extensions are trusted, but for those known to run SQL (`functions.rs`).
//! - The server can be told to read text otherwise (`standard_conforming_strings`, `client_encoding`): setting that is
//!   unknown here, and proto-postgres refuses statements as long as the server says that it does.

mod block;
mod condition;
mod copy;
mod ddl;
mod dml;
mod fingerprint;
mod functions;
mod known;
mod lex;
#[cfg(test)]
mod lex_tests;
mod parser;
mod resolve;
mod settings;
mod state;
mod statement;
mod system;
mod tree;
mod walk;

pub use copy::CopyStatement;
pub use fingerprint::{Lexed, fingerprint};
pub(crate) use known::known_fingerprint;
pub use lex::{COMMENT_DEPTH_MAX, LexError, SYMBOLS_MAX};
pub use resolve::SessionNames;
pub use state::{Effect, NAMES_MAX, SAME_NAME_MAX, SqlState};

use pg_query::ParserOptions;
use pg_query::protobuf::ParseResult;
use proxy_core::{Catalog, Facts};
use std::borrow::Cow;
use std::sync::Arc;
use walk::{Found, Walker};

/// The attribute of [`Facts`] that lists the server's own relations that a statement reads and that show more than
/// names, joined by commas.
pub const SENSITIVE: &str = "sensitive_catalog";

/// The attribute of [`Facts`] that counts a text's statements.
pub const STATEMENT_COUNT: &str = "statement_count";

/// A relation that a statement names, or may mean.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationUse {
    /// Its schema; `pg_temp` for a temporary one.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its object id, if the catalogue has it.
    pub oid: Option<u32>,
    /// Whether it is temporary.
    pub temporary: bool,
}

/// A function that is not built in and that a statement calls, or may call.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionUse {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// What a text of SQL would do.
#[derive(Debug, Clone, Default)]
pub struct Analysis {
    /// Operations, unknown parts, kinds: for policies.
    pub facts: Facts,
    /// The grammar's tree: for masking. `None`: it cannot be parsed.
    pub tree: Option<Arc<ParseResult>>,
    /// What it changes for later statements of the session.
    pub effects: Vec<Effect>,
    /// The facts depend on the values of literals.
    pub literals_matter: bool,
    /// The facts depend on what the session did before ([`SqlState::generation`]).
    pub depends_on_state: bool,
    /// They depend on which statements and cursors were made under a name. Such an analysis is not to be remembered:
    /// names come and go without a new generation.
    pub depends_on_statements: bool,
    /// It changes the catalogue, or the session's place in it: load it again when the statement has completed.
    pub changes_catalog: bool,
    /// Every relation that it names, or may mean.
    pub relations: Vec<RelationUse>,
    /// Every function that it calls, or may call, and that is not built in.
    pub functions: Vec<FunctionUse>,
    /// Its COPY from or to the client.
    pub copy: Option<CopyStatement>,
    /// Some name is not in the catalogue: a newer one may have it.
    pub unresolved: bool,
}

/// What `sql` would do in a session with this state. The text is as the client sent it, and may have several
/// statements: then it is all that they do.
#[must_use]
pub fn analyze(sql: &str, catalog: Option<&Catalog>, state: &SqlState) -> Analysis {
    let tree = match parser::parse(sql, ParserOptions::DEFAULT) {
        Ok(tree) => tree,
        Err(error) => return unparsed(format!("not parseable: {}", walk::shown(&error))),
    };
    let mut walker = Walker::new(catalog, Cow::Borrowed(state), Some(sql), 0);
    walker.tree(&tree);
    let mut analysis = walker.finish(Some(Arc::new(tree)));
    let count = analysis.tree.as_ref().map_or(0, |tree| tree.stmts.len());
    analysis.facts.attributes.insert(STATEMENT_COUNT.to_owned(), count.to_string());
    analysis
}

/// [`analyze`], of bytes.
#[must_use]
pub fn analyze_bytes(sql: &[u8], catalog: Option<&Catalog>, state: &SqlState) -> Analysis {
    match std::str::from_utf8(sql) {
        Ok(text) => analyze(text, catalog, state),
        Err(_) => unparsed("the statement is not UTF-8: set the client's encoding to UTF8".to_owned()),
    }
}

/// The same statement, after the session or the catalogue has changed. The server looks the names of a prepared
/// statement up again when it runs: this is for statements that were prepared in SQL, by name.
#[must_use]
pub fn renewed(analysis: &Analysis, catalog: Option<&Catalog>, state: &SqlState) -> Analysis {
    let Some(tree) = &analysis.tree else { return analysis.clone() };
    let mut walker = Walker::new(catalog, Cow::Borrowed(state), None, 0);
    walker.tree(tree);
    let mut renewed = walker.finish(Some(tree.clone()));
    renewed.copy = analysis.copy.clone();
    renewed
}

fn unparsed(what: String) -> Analysis {
    let mut analysis = Analysis { literals_matter: true, ..Analysis::default() };
    analysis.facts.add_unknown(what);
    analysis
}

impl Walker<'_> {
    /// What was found, in all.
    fn finish(mut self, tree: Option<Arc<ParseResult>>) -> Analysis {
        self.settle_attributes();
        let Found {
            mut facts,
            effects,
            relations,
            functions,
            copy,
            literals_matter,
            depends_on_state,
            depends_on_statements,
            changes_catalog,
            unresolved,
            sensitive,
        } = self.found;
        if !sensitive.is_empty() {
            facts.attributes.insert(SENSITIVE.to_owned(), Vec::from_iter(sensitive).join(","));
        }
        Analysis {
            facts,
            tree,
            effects,
            literals_matter,
            depends_on_state,
            depends_on_statements,
            changes_catalog,
            relations: relations.into_iter().collect(),
            functions: functions.into_iter().collect(),
            copy,
            unresolved,
        }
    }
}
