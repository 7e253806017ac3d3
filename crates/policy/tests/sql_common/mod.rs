//! A small shop's catalogue, and facts in one line.

#![allow(dead_code, reason = "each test binary uses a part")]

use policy::sql::{Analysis, SqlState, analyze};
use proxy_core::Catalog;
use proxy_core::catalog::{Column, Function, Relation, RelationKind};

fn relation(oid: u32, schema: &str, name: &str, columns: &[&str]) -> Relation {
    let column = |(at, name): (usize, &&str)| Column {
        number: i16::try_from(at + 1).unwrap(),
        name: (*name).to_owned(),
        type_id: 25,
        generated: false,
    };
    Relation {
        oid,
        schema: schema.to_owned(),
        name: name.to_owned(),
        kind: RelationKind::Table,
        columns: columns.iter().enumerate().map(column).collect(),
        definition: None,
        parents: Vec::new(),
    }
}

fn function(oid: u32, schema: &str, name: &str, language: &str, from_extension: bool) -> Function {
    Function { oid, schema: schema.to_owned(), name: name.to_owned(), from_extension, language: language.to_owned() }
}

/// customers, orders and t in public; orders and audit in app; salaries in hr.
pub(crate) fn shop() -> Catalog {
    let relations = vec![
        relation(1, "public", "customers", &["id", "name", "email"]),
        relation(2, "public", "orders", &["id", "customer_id", "total"]),
        relation(3, "public", "t", &["id", "a", "b"]),
        relation(4, "public", "u", &["id", "x"]),
        relation(5, "app", "orders", &["id", "note"]),
        relation(6, "app", "audit", &["id"]),
        relation(7, "hr", "salaries", &["id", "amount"]),
        relation(8, "pg_catalog", "pg_class", &["oid", "relname"]),
        relation(9, "pg_catalog", "pg_statistic", &["starelid"]),
        relation(10, "pg_catalog", "pg_settings", &["name", "setting"]),
        relation(11, "information_schema", "tables", &["table_name"]),
    ];
    let functions = vec![
        function(101, "public", "refund", "plpgsql", false),
        function(102, "public", "fullname", "sql", false),
        function(103, "public", "uuid_generate_v4", "c", true),
        function(104, "app", "abs", "sql", false),
        function(105, "public", "dblink", "c", true),
        function(106, "public", "email", "sql", false),
    ];
    Catalog::new(1, 150_018, vec!["public".to_owned()], relations, functions)
}

/// A new session's analysis.
pub(crate) fn analysis(sql: &str) -> Analysis {
    let catalog = shop();
    analyze(sql, Some(&catalog), &SqlState::new(&[], Some(&catalog)))
}

/// `delete table public.t without WHERE; unknown: …`.
pub(crate) fn line(analysis: &Analysis) -> String {
    let operations = analysis.facts.operations.iter().map(|operation| {
        let condition = match operation.has_where {
            None | Some(true) => "",
            Some(false) => " without WHERE",
        };
        format!("{} {}{condition}", operation.action, operation.object)
    });
    let unknown = analysis.facts.unknown.iter().map(|unknown| format!("unknown: {}", unknown.what));
    operations.chain(unknown).collect::<Vec<_>>().join("; ")
}

/// A new session's facts in one line.
pub(crate) fn facts(sql: &str) -> String {
    line(&analysis(sql))
}

/// A session that runs one statement after the other.
pub(crate) struct Session {
    pub(crate) catalog: Catalog,
    pub(crate) state: SqlState,
}

impl Session {
    pub(crate) fn new(settings: &[(&str, &str)]) -> Self {
        let catalog = shop();
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let state = SqlState::new(&settings, Some(&catalog));
        Self { catalog, state }
    }

    /// Runs it; its facts.
    pub(crate) fn run(&mut self, sql: &str) -> String {
        let analysis = analyze(sql, Some(&self.catalog), &self.state);
        self.state.apply(&analysis);
        line(&analysis)
    }
}
