//! What names mean: every relation and every function that a name may stand for.

use super::functions::is_built_in;
use super::state::{Path, SqlState};
use super::{FunctionUse, RelationUse};
use masking::Candidates;
use pg_query::protobuf::ParseResult;
use proxy_core::Catalog;
use proxy_core::catalog::Relation;
use std::sync::Arc;

/// Where a session's temporary relations are, under whatever name the server gives their schema.
pub(super) const TEMP_SCHEMA: &str = "pg_temp";

/// What a relation's name may mean.
#[derive(Debug, Default)]
pub(super) struct Relations {
    /// At least one, if `certain`.
    pub(super) uses: Vec<RelationUse>,
    /// Nothing of that name is known: a newer catalogue may have it.
    pub(super) unresolved: bool,
    /// Whether it can mean anything else than `uses`.
    pub(super) uncertain: bool,
}

/// Whether a schema belongs to the server.
pub(super) fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}

pub(super) fn is_temp_schema(schema: &str) -> bool {
    schema == TEMP_SCHEMA || schema.starts_with("pg_temp_")
}

fn found(relation: &Relation) -> RelationUse {
    RelationUse { schema: relation.schema.clone(), name: relation.name.clone(), oid: Some(relation.oid), temporary: false }
}

fn named(schema: &str, name: &str) -> RelationUse {
    RelationUse { schema: schema.to_owned(), name: name.to_owned(), oid: None, temporary: false }
}

fn temporary(name: &str) -> RelationUse {
    RelationUse { schema: TEMP_SCHEMA.to_owned(), name: name.to_owned(), oid: None, temporary: true }
}

impl SqlState {
    /// Schemas in which an unqualified name may be, in order; `None`: in any.
    fn searched<'s>(&'s self, catalog: Option<&'s Catalog>) -> Option<&'s [String]> {
        match &self.path {
            Path::Default => Some(catalog.map_or(&[], |catalog| &catalog.search_path)),
            Path::Startup(schemas) => Some(schemas),
            Path::Uncertain => None,
        }
    }

    /// The schema in which an unqualified new relation is made; `None`: not known.
    pub(super) fn creation_schema(&self, catalog: Option<&Catalog>) -> Option<String> {
        match &self.path {
            Path::Default => {
                let first = catalog.and_then(|catalog| catalog.search_path.first());
                Some(first.map_or("public", String::as_str).to_owned())
            }
            Path::Startup(schemas) => match schemas.as_slice() {
                [one] => Some(one.clone()),
                _ => None,
            },
            Path::Uncertain => None,
        }
    }

    /// Every relation that `[schema.]name` may be. Common table expressions were tried before.
    pub(super) fn relations(&self, catalog: Option<&Catalog>, schema: Option<&str>, name: &str) -> Relations {
        let mut result = match schema {
            Some(schema) => self.qualified(catalog, schema, name),
            None => self.unqualified(catalog, name),
        };
        if let Some(renamed) = self.renamed.get(name) {
            result.uses.extend(renamed.iter().cloned());
        }
        if !self.renamed_schemas.is_empty() {
            let meant: Vec<RelationUse> = result.uses.iter().flat_map(|one| self.before_renaming(catalog, one)).collect();
            result.uses.extend(meant);
        }
        result.uncertain |= self.overflowed;
        result.uses.sort();
        result.uses.dedup();
        result
    }

    /// What `one` may have been before its schema was renamed.
    fn before_renaming(&self, catalog: Option<&Catalog>, one: &RelationUse) -> Vec<RelationUse> {
        let Some(schemas) = self.renamed_schemas.get(&one.schema) else { return Vec::new() };
        let earlier = schemas.iter().map(|schema| {
            let known = catalog.and_then(|catalog| catalog.find(schema, &one.name));
            known.map_or_else(|| named(schema, &one.name), found)
        });
        earlier.collect()
    }

    fn qualified(&self, catalog: Option<&Catalog>, schema: &str, name: &str) -> Relations {
        if is_temp_schema(schema) {
            return Relations { uses: vec![temporary(name)], ..Relations::default() };
        }
        let known = catalog.and_then(|catalog| catalog.find(schema, name));
        let unresolved = known.is_none() && !is_system_schema(schema);
        Relations { uses: vec![known.map_or_else(|| named(schema, name), found)], unresolved, ..Relations::default() }
    }

    fn unqualified(&self, catalog: Option<&Catalog>, name: &str) -> Relations {
        let mut result = Relations::default();
        if self.temps.contains(name) {
            result.uses.push(temporary(name));
        }
        let system = catalog.and_then(|catalog| catalog.find("pg_catalog", name));
        match self.searched(catalog) {
            Some(schemas) => {
                if let Some(system) = system {
                    result.uses.push(found(system));
                    return result;
                }
                let in_path = schemas.iter().filter_map(|schema| catalog?.find(schema, name)).map(found);
                match self.path {
                    Path::Default => result.uses.extend(in_path.take(1)),
                    Path::Startup(_) | Path::Uncertain => result.uses.extend(in_path),
                }
            }
            None => {
                let all = catalog.into_iter().flat_map(|catalog| catalog.relations_named(name));
                result.uses.extend(all.map(found));
            }
        }
        // Names that begin so are the server's own, unless the catalogue knows better.
        if name.starts_with("pg_") && system.is_none() {
            result.uses.push(named("pg_catalog", name));
        }
        if result.uses.is_empty() {
            result.unresolved = true;
            match self.creation_schema(catalog) {
                Some(schema) => result.uses.push(named(&schema, name)),
                None => result.uncertain = true,
            }
        }
        result
    }

    /// Every function that is not built in and that `[schema.]name` may be.
    pub(super) fn functions(&self, catalog: Option<&Catalog>, schema: Option<&str>, name: &str) -> Functions {
        let mut result = Functions::default();
        let made = self.made_functions.get(name).into_iter().flatten();
        match schema {
            Some(schema) if is_system_schema(schema) => {}
            Some(schema) => {
                let known = catalog.into_iter().flat_map(|catalog| catalog.functions_named(name));
                let mut same = known.filter(|function| function.schema == schema).peekable();
                let found = same.peek().is_some();
                let trusted = found && same.all(|function| function.from_extension) && self.made_functions.is_empty();
                if !trusted {
                    result.uses.push(FunctionUse { schema: schema.to_owned(), name: name.to_owned() });
                }
                result.unresolved = !found && !is_temp_schema(schema);
            }
            None => {
                // Any schema: which ones are searched may depend on privileges, and overloads are chosen by
                // argument types across all of them.
                let known = catalog.into_iter().flat_map(|catalog| catalog.functions_named(name));
                let mut found = is_built_in(name);
                for function in known {
                    found = true;
                    if !function.from_extension {
                        result.uses.push(FunctionUse { schema: function.schema.clone(), name: name.to_owned() });
                    }
                }
                if !found {
                    result.unresolved = true;
                    let schema = self.creation_schema(catalog).unwrap_or_else(|| "public".to_owned());
                    result.uses.push(FunctionUse { schema, name: name.to_owned() });
                }
                result.uses.extend(made.map(|schema| FunctionUse { schema: schema.clone(), name: name.to_owned() }));
            }
        }
        result.uses.sort();
        result.uses.dedup();
        result
    }

    /// What names mean to `masking`.
    #[must_use]
    pub fn names<'s>(&'s self, catalog: &'s Catalog) -> SessionNames<'s> {
        SessionNames { state: self, catalog }
    }
}

/// What a function's name may mean.
#[derive(Debug, Default)]
pub(super) struct Functions {
    /// Functions that are not built in.
    pub(super) uses: Vec<FunctionUse>,
    /// Nothing of that name is known.
    pub(super) unresolved: bool,
}

/// The names of one session, with one catalogue.
#[derive(Debug, Clone, Copy)]
pub struct SessionNames<'s> {
    state: &'s SqlState,
    catalog: &'s Catalog,
}

impl masking::Resolve for SessionNames<'_> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Candidates {
        let meant = self.state.relations(Some(self.catalog), schema, name);
        let mut candidates = Candidates { unknown: meant.uncertain, ..Candidates::default() };
        for one in meant.uses {
            match one.oid {
                Some(oid) => candidates.known.push(oid),
                None if one.temporary => candidates.temporary = true,
                None => candidates.unknown = true,
            }
        }
        candidates
    }

    fn prepared(&self, name: &str) -> Option<Vec<Arc<ParseResult>>> {
        self.state.prepared(name)?.iter().map(|analysis| analysis.tree.clone()).collect()
    }

    fn cursor(&self, name: &str) -> Option<Vec<Arc<ParseResult>>> {
        self.state.cursor(name)?.iter().map(|analysis| analysis.tree.clone()).collect()
    }
}
