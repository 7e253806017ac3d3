//! DO: what a block of PL/pgSQL does, if all of its SQL is there to read.
//!
//! The grammar of PL/pgSQL is the server's own, too. Its statements and expressions come as texts, each of which
//! is parsed and walked like any other. A block is `unknown` besides if a part of it runs a text (EXECUTE, FOR …
//! IN EXECUTE, OPEN … FOR EXECUTE, RETURN QUERY EXECUTE), if it is in another language, or if any part is of a
//! kind that is not listed here.

use super::lex::{Kind, Lexer};
use super::parser;
use super::state::{Effect, Path};
use super::tree::Visit;
use super::walk::{Meaning, Walker};
use pg_query::ParserOptions;
use pg_query::protobuf::Node;
use serde_json::Value;

/// Longest block that is looked into, in bytes. Longer ones are unknown.
const BLOCK_MAX: usize = 64 << 10;

/// Deepest nesting of a block's parts.
const DEPTH_MAX: usize = 100;

/// Parts whose own fields are names and numbers, or further parts.
const PARTS: [&str; 39] = [
    "PLpgSQL_case_when",
    "PLpgSQL_condition",
    "PLpgSQL_diag_item",
    "PLpgSQL_exception",
    "PLpgSQL_exception_block",
    "PLpgSQL_expr",
    "PLpgSQL_function",
    "PLpgSQL_if_elsif",
    "PLpgSQL_raise_option",
    "PLpgSQL_rec",
    "PLpgSQL_recfield",
    "PLpgSQL_row",
    "PLpgSQL_stmt_assert",
    "PLpgSQL_stmt_assign",
    "PLpgSQL_stmt_block",
    "PLpgSQL_stmt_call",
    "PLpgSQL_stmt_case",
    "PLpgSQL_stmt_close",
    "PLpgSQL_stmt_commit",
    "PLpgSQL_stmt_execsql",
    "PLpgSQL_stmt_exit",
    "PLpgSQL_stmt_fetch",
    "PLpgSQL_stmt_forc",
    "PLpgSQL_stmt_foreach_a",
    "PLpgSQL_stmt_fori",
    "PLpgSQL_stmt_fors",
    "PLpgSQL_stmt_getdiag",
    "PLpgSQL_stmt_if",
    "PLpgSQL_stmt_loop",
    "PLpgSQL_stmt_open",
    "PLpgSQL_stmt_perform",
    "PLpgSQL_stmt_raise",
    "PLpgSQL_stmt_return",
    "PLpgSQL_stmt_return_next",
    "PLpgSQL_stmt_return_query",
    "PLpgSQL_stmt_rollback",
    "PLpgSQL_stmt_while",
    "PLpgSQL_type",
    "PLpgSQL_var",
];

impl Walker<'_> {
    /// The arguments of DO: the block, and its language.
    pub(super) fn code_block(&mut self, arguments: &[Node]) {
        self.found.literals_matter = true;
        // It may change the catalogue by what it runs.
        self.found.changes_catalog = true;
        let language = Self::option(arguments, "language").unwrap_or("plpgsql");
        if language != "plpgsql" {
            self.effect(Effect::UncertainPath);
            return self.unknown(format!("DO in the language {}", super::walk::shown(language)));
        }
        let Some(body) = Self::option(arguments, "as") else { return self.unexpected("DO") };
        if body.len() > BLOCK_MAX {
            return self.unknown(format!("DO with a block longer than {BLOCK_MAX} bytes"));
        }
        if let Err(error) = Lexer::check(body) {
            return self.unknown(format!("DO with a block that cannot be parsed: {error}"));
        }
        let Some(text) = quoted(body) else { return self.unknown("DO with a block that cannot be quoted") };
        match parser::parse_block(&text) {
            Ok(block) => {
                let mut records = Vec::new();
                let certain = self.state.path != Path::Uncertain;
                self.part(&block, 0, &mut records);
                // Loops and branches run in another order than they stand: once more with what that may mean.
                if certain && self.state.path == Path::Uncertain {
                    self.part(&block, 0, &mut records);
                }
                if hides_defaults(body, &records) {
                    self.unknown("DO with a record variable that has a default, which the gateway cannot read");
                }
            }
            Err(error) => self.unknown(format!("DO with a block that cannot be parsed: {}", super::walk::shown(&error))),
        }
        // Whatever else it does to the session's settings is not followed.
        self.effect(Effect::UncertainPath);
    }

    /// One part of a block, and all that is in it. Collects the names of record variables.
    fn part(&mut self, value: &Value, depth: usize, records: &mut Vec<String>) {
        if depth > DEPTH_MAX {
            return self.unknown("DO with a block that is nested too deeply");
        }
        match value {
            Value::Array(parts) => parts.iter().for_each(|part| self.part(part, depth + 1, records)),
            Value::Object(fields) => {
                for (name, inner) in fields {
                    self.field(name, inner, records);
                    self.part(inner, depth + 1, records);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn field(&mut self, name: &str, inner: &Value, records: &mut Vec<String>) {
        match name {
            "dynquery" | "PLpgSQL_stmt_dynexecute" | "PLpgSQL_stmt_dynfors" => {
                self.unknown("DO with a statement that is made when it runs (EXECUTE)");
            }
            "PLpgSQL_expr" => self.expression(inner),
            "PLpgSQL_rec" => match inner.get("refname").and_then(Value::as_str) {
                Some(record) => records.push(record.to_owned()),
                None => records.push(String::new()),
            },
            other if other.starts_with("PLpgSQL_") && !PARTS.contains(&other) => {
                self.unexpected("DO");
            }
            _ => {}
        }
    }

    fn expression(&mut self, expression: &Value) {
        let query = expression.get("query").and_then(Value::as_str);
        let mode = match expression.get("parseMode").and_then(Value::as_i64) {
            Some(0) => Some(ParserOptions::DEFAULT),
            Some(2) => Some(ParserOptions::PLPGSQL_EXPR),
            Some(3) => Some(ParserOptions::PLPGSQL_ASSIGN1),
            Some(4) => Some(ParserOptions::PLPGSQL_ASSIGN2),
            Some(5) => Some(ParserOptions::PLPGSQL_ASSIGN3),
            _ => None,
        };
        let (Some(query), Some(mode)) = (query, mode) else { return self.unexpected("DO") };
        match parser::parse(query, mode) {
            Ok(tree) if mode == ParserOptions::DEFAULT => {
                self.inner_tree(&tree);
            }
            Ok(tree) => self.meaning(Meaning::Read, |walker| tree.stmts.visit(walker)),
            Err(error) => self.unknown(format!("DO with a statement that cannot be parsed: {}", super::walk::shown(&error))),
        }
    }
}

/// A DO statement with this block, in quotes that it does not end.
fn quoted(body: &str) -> Option<String> {
    let tag = (0..100).map(|number| format!("$q{number}$")).find(|tag| !body.contains(tag.trim_end_matches('$')))?;
    Some(format!("DO {tag}{body}{tag}"))
}

/// Whether a record variable may be declared with a default: libpg_query does not show those. A declaration is
/// the name, a type, and then `:=`, `=` or DEFAULT.
fn hides_defaults(body: &str, records: &[String]) -> bool {
    let bytes = body.as_bytes();
    let mut lexer = Lexer::new(bytes);
    // Tokens since a record's name, if all of them could be its type.
    let mut since: Option<usize> = None;
    loop {
        let token = match lexer.next_token() {
            Ok(Some(token)) => token,
            Ok(None) => return false,
            Err(_) => return !records.is_empty(),
        };
        let text = bytes.get(token.start..token.end).unwrap_or_default();
        let is_record = match token.kind {
            Kind::Word => records.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(text)),
            Kind::Quoted => {
                let name = text.get(1..text.len() - 1).unwrap_or_default();
                records.iter().any(|record| record.as_bytes() == name || record.contains('"'))
            }
            Kind::UnicodeQuoted => !records.is_empty(),
            _ => false,
        };
        let assigns = text.eq_ignore_ascii_case(b"default") || (token.kind == Kind::Symbols && text.contains(&b'='));
        let names_type = matches!(token.kind, Kind::Word | Kind::Quoted | Kind::UnicodeQuoted) && !is_reserved(text);
        let goes_on = names_type
            || matches!(token.kind, Kind::Integer)
            || (matches!(token.kind, Kind::Symbols | Kind::Separator) && text != b";");
        since = match since {
            Some(between) if assigns && between > 0 => return true,
            _ if is_record => Some(0),
            Some(0) => names_type.then_some(1),
            Some(between) => goes_on.then_some(between + 1),
            None => None,
        };
    }
}

/// Words that are never the name of a type, nor a part of one.
fn is_reserved(word: &[u8]) -> bool {
    const RESERVED: [&[u8]; 19] = [
        b"and",
        b"as",
        b"else",
        b"end",
        b"for",
        b"from",
        b"group",
        b"in",
        b"into",
        b"limit",
        b"loop",
        b"on",
        b"or",
        b"order",
        b"returning",
        b"then",
        b"union",
        b"using",
        b"where",
    ];
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::{PARTS, hides_defaults, quoted};

    #[test]
    fn parts_are_sorted() {
        assert!(PARTS.is_sorted());
    }

    #[test]
    fn quotes_do_not_end_early() {
        assert_eq!(quoted("x $q0$ y").as_deref(), Some("DO $q1$x $q0$ y$q1$"));
        assert_eq!(quoted("x $q0").as_deref(), Some("DO $q1$x $q0$q1$"));
    }

    #[test]
    fn defaults_of_records_are_seen() {
        let records = ["r".to_owned()];
        assert!(hides_defaults("DECLARE r record := (SELECT t FROM t); BEGIN END", &records));
        assert!(hides_defaults("DECLARE R public.t DEFAULT row(1); BEGIN END", &records));
        assert!(hides_defaults("DECLARE r CONSTANT app.t%ROWTYPE NOT NULL = x; BEGIN END", &records));
        assert!(hides_defaults("DECLARE \"r\" is := (SELECT 1); BEGIN END", &records));
        assert!(!hides_defaults("DECLARE r record; BEGIN r := 1; r.a := 1; IF r IS NULL THEN x := 1; END IF; END", &records));
        assert!(!hides_defaults(
            "DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP UPDATE t SET a = r.a WHERE r.b = 1; END LOOP; END",
            &records
        ));
        assert!(!hides_defaults("DECLARE r record; BEGIN SELECT 1 INTO r FROM t WHERE a = 1; END", &records));
    }
}
