//! A SQL target's catalogue, as loaded through the gateway's own connection: what names mean.
//!
//! Policy resolves names with it, masking finds columns with it. It is a snapshot: see [`Catalog::version`].

use std::collections::HashMap;

/// Kinds of relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// An ordinary or partitioned table.
    Table,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    ForeignTable,
    /// A sequence.
    Sequence,
    /// A composite type.
    Composite,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its number, from 1.
    pub number: i16,
    /// Its name, as stored.
    pub name: String,
    /// Its type's number.
    pub type_id: u32,
    /// Whether it is generated from others (`GENERATED ALWAYS AS (expression)`).
    pub generated: bool,
}

/// A table, view, sequence …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its object id.
    pub oid: u32,
    /// Its schema's name, as stored.
    pub schema: String,
    /// Its name, as stored.
    pub name: String,
    /// Its kind.
    pub kind: RelationKind,
    /// Its columns that were not dropped, in order.
    pub columns: Vec<Column>,
    /// For a view: the query that defines it, with every name qualified.
    pub definition: Option<String>,
    /// Parents: for a partition or an inheriting table.
    pub parents: Vec<u32>,
}

/// A function or procedure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its object id.
    pub oid: u32,
    /// Its schema's name.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether it belongs to an extension and is written in C or as internal: it cannot read tables but by
    /// means that are listed as dangerous by name.
    pub from_extension: bool,
    /// Language: `internal`, `c`, `sql`, `plpgsql` …
    pub language: String,
}

/// A snapshot of one database's catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Grows with every load that found a difference.
    pub version: u64,
    /// The server's version number: 150018.
    pub server_version: u32,
    /// The schemas that a new session of the gateway's login searches, in order (`$user` resolved),
    /// without `pg_catalog`.
    pub search_path: Vec<String>,
    relations: Vec<Relation>,
    functions: Vec<Function>,
    by_oid: HashMap<u32, usize>,
    by_name: HashMap<String, Vec<usize>>,
    functions_by_name: HashMap<String, Vec<usize>>,
    functions_by_oid: HashMap<u32, usize>,
}

impl Catalog {
    /// A snapshot with its indices.
    #[must_use]
    pub fn new(
        version: u64,
        server_version: u32,
        search_path: Vec<String>,
        relations: Vec<Relation>,
        functions: Vec<Function>,
    ) -> Self {
        let mut catalog = Self { version, server_version, search_path, ..Self::default() };
        for (at, relation) in relations.iter().enumerate() {
            catalog.by_oid.insert(relation.oid, at);
            catalog.by_name.entry(relation.name.clone()).or_default().push(at);
        }
        for (at, function) in functions.iter().enumerate() {
            catalog.functions_by_oid.insert(function.oid, at);
            catalog.functions_by_name.entry(function.name.clone()).or_default().push(at);
        }
        catalog.relations = relations;
        catalog.functions = functions;
        catalog
    }

    /// All relations.
    #[must_use]
    pub fn relations(&self) -> &[Relation] {
        &self.relations
    }

    /// All functions that are not built in (those of `pg_catalog` are not loaded, save by object id).
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The relation with this object id.
    #[must_use]
    pub fn relation(&self, oid: u32) -> Option<&Relation> {
        self.by_oid.get(&oid).and_then(|at| self.relations.get(*at))
    }

    /// The function with this object id.
    #[must_use]
    pub fn function(&self, oid: u32) -> Option<&Function> {
        self.functions_by_oid.get(&oid).and_then(|at| self.functions.get(*at))
    }

    /// Every relation of that name, in whatever schema.
    pub fn relations_named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Relation> + use<'a> {
        self.by_name.get(name).into_iter().flatten().filter_map(|at| self.relations.get(*at))
    }

    /// Every function of that name, in whatever schema.
    pub fn functions_named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Function> + use<'a> {
        self.functions_by_name.get(name).into_iter().flatten().filter_map(|at| self.functions.get(*at))
    }

    /// The relation `schema.name`.
    #[must_use]
    pub fn find(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relations_named(name).find(|relation| relation.schema == schema)
    }

    /// Whether two snapshots say the same, apart from their version.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.server_version == other.server_version
            && self.search_path == other.search_path
            && self.relations == other.relations
            && self.functions == other.functions
    }
}
