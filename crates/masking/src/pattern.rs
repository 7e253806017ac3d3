//! `CONNECTION/SCHEMA.TABLE.COLUMN` patterns: `*` stands for any run of characters within a part.

/// Whether `text` fits `pattern`. Case matters; `*` is the only special character.
#[must_use]
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(first) = pieces.next() else { return text.is_empty() };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        // The leftmost place is as good as any: what follows has the most room.
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// A pattern for columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnPattern {
    pub(crate) connection: String,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) column: String,
}

impl ColumnPattern {
    /// Parses `CONNECTION/SCHEMA.TABLE.COLUMN`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (connection, rest) = text.split_once('/')?;
        let mut parts = rest.split('.');
        let (schema, table, column) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = [connection, schema, table, column];
        if parts.next().is_some() || whole.iter().any(|part| part.is_empty()) {
            return None;
        }
        let [connection, schema, table, column] = whole.map(str::to_owned);
        Some(Self { connection, schema, table, column })
    }

    pub(crate) fn fits_table(&self, connection: &str, schema: &str, table: &str) -> bool {
        fits(&self.connection, connection) && fits(&self.schema, schema) && fits(&self.table, table)
    }
}

/// A pattern for functions: `CONNECTION/SCHEMA.NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FunctionPattern {
    pub(crate) connection: String,
    pub(crate) schema: String,
    pub(crate) name: String,
}

impl FunctionPattern {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (connection, rest) = text.split_once('/')?;
        let (schema, name) = rest.split_once('.')?;
        let whole = [connection, schema, name];
        if name.contains('.') || whole.iter().any(|part| part.is_empty()) {
            return None;
        }
        let [connection, schema, name] = whole.map(str::to_owned);
        Some(Self { connection, schema, name })
    }

    pub(crate) fn fits(&self, connection: &str, schema: &str, name: &str) -> bool {
        fits(&self.connection, connection) && fits(&self.schema, schema) && fits(&self.name, name)
    }
}

#[cfg(test)]
mod tests {
    use super::{ColumnPattern, FunctionPattern, fits};

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, text) in [
            ("email", "email"),
            ("*", ""),
            ("*", "x"),
            ("e*l", "email"),
            ("*mail*", "work_email_2"),
            ("a*a", "aa"),
            ("a**b", "ab"),
            ("*ab*ab", "abab"),
            ("*é*", "née"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("email", "Email"), ("a*a", "a"), ("e*l", "emails"), ("*ab*ab", "ab"), ("", "x"), ("a*", "ba")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_column_pattern_has_four_parts() {
        assert!(ColumnPattern::parse("orders-prod/public.customers.email").is_some());
        for bad in ["", "x", "c/a.b", "c/a.b.c.d", "/a.b.c", "c/.b.c", "c/a.b."] {
            assert_eq!(ColumnPattern::parse(bad), None, "{bad}");
        }
        assert!(FunctionPattern::parse("c/public.f").is_some());
        assert_eq!(FunctionPattern::parse("c/public.f.g"), None);
    }
}
