//! What of the classified columns a statement could show, or copy, in a way that the server does not tell.
//!
//! The server names the origin (table and column number) of every result column that is a plain column. This
//! was checked on PostgreSQL 15 with a client that prints it (`tests/origins.py` repeats it): the origin
//! survives sub-queries (LATERAL too), CTEs (materialized or not, data-modifying too), joins (with aliases, inner
//! and outer), DISTINCT, GROUP BY with grouping sets, ORDER BY, RETURNING, cursors (FETCH, WITH HOLD after commit),
//! EXECUTE and views (as the view's own column). It is 0 for expressions, set operations, the merged column of a FULL
//! JOIN, most merged columns whose types differ (or it is the other side's), VALUES, functions in FROM, and whole rows
//! of sub-queries; a whole row of a table has the table and column number 0.
//!
//! So a plain column is masked when it arrives ([`crate::disclose`]); every *other* way is what [`flows`] looks for, in
//! the grammar's own tree. It errs on the side of finding one: names that cannot be placed carry everything in scope,
//! and node kinds that it does not know carry anything. `tests/fuzz.py` runs random statements that it lets through.
//!
//! What is looked for, besides output: copies into other tables, functions that keep or send what they are given
//! (`set_config`, `pg_notify`), functions that run a query in a string (`query_to_xml`), functions that are not
//! built in and not declared safe, files on the server, statistics, code (DO), renaming, new views, and what new tables,
//! columns and domains compute, check and refer to.
//!
//! What is *not* found here: inference (WHERE, ORDER BY, `count`, `IS NULL` may ask about hidden values; so may a foreign
//! key to a primary key that holds them); triggers and defaults that are there already; user-defined operators, casts
//! and types whose functions read tables; error details of *other* tables that a foreign
//! key's action writes to; statements of other sessions in `pg_stat_activity`.

mod definition;
mod expr;
mod functions;
mod names;
mod query;
mod scope;
mod statement;
mod tables;
mod write;

pub use functions::is_built_in;
pub(crate) use functions::{Callee, reads_by_itself};
pub use scope::Why;
pub(crate) use scope::{Columns, Taint};

use crate::class::ClassSet;
use crate::plan::{Mark, MaskPlan};
use pg_query::protobuf::ParseResult;
use std::sync::Arc;

/// Most findings that are kept apart for one request; those beyond are taken together.
const FINDINGS_MAX: usize = 64;
/// Most work for one request: nodes visited and columns looked at. Some ten milliseconds; what is not done by then
/// counts as not understood. Statements of a few hundred bytes can be made that need for ever (nested recursive
/// CTEs, `SELECT *, *` on one another).
const WORK_MAX: usize = 5_000_000;

/// What a relation's name could mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// Relations of the catalogue, by object id.
    pub known: Vec<u32>,
    /// A temporary table of this session.
    pub temporary: bool,
    /// Something that is not in the catalogue.
    pub unknown: bool,
}

/// What names mean in a session.
pub trait Resolve {
    /// Every relation that `[schema.]name` could mean here; common table expressions were tried already.
    fn relation(&self, schema: Option<&str>, name: &str) -> Candidates;

    /// The trees of every statement that may be prepared under `name`; `None`: not known.
    fn prepared(&self, name: &str) -> Option<Vec<Arc<ParseResult>>> {
        let _ = name;
        None
    }

    /// The trees of every query that a cursor (or portal) `name` may be of; `None`: not known.
    fn cursor(&self, name: &str) -> Option<Vec<Arc<ParseResult>>> {
        let _ = name;
        None
    }
}

/// Names by the catalogue alone: a session whose search path is known, with temporary tables by name.
#[derive(Debug, Clone, Copy)]
pub struct CatalogResolver<'c> {
    /// The catalogue.
    pub catalog: &'c proxy_core::Catalog,
    /// Schemas that are searched, in order; `None`: not known, so every schema.
    pub search_path: Option<&'c [String]>,
    /// Names of temporary tables that the session may have.
    pub temporary: &'c [String],
}

impl Resolve for CatalogResolver<'_> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Candidates {
        let mut found = Candidates::default();
        let is_temporary = self.temporary.iter().any(|temporary| temporary == name);
        match schema {
            Some(schema) if schema.starts_with("pg_temp") => found.temporary = is_temporary,
            Some(schema) => found.known.extend(self.catalog.find(schema, name).map(|relation| relation.oid)),
            None => {
                found.temporary = is_temporary;
                // The server looks into pg_catalog first, unless the path names it later: both are possible then.
                found.known.extend(self.catalog.find("pg_catalog", name).map(|relation| relation.oid));
                match self.search_path {
                    Some(path) => {
                        let named_later = path.iter().any(|schema| schema == "pg_catalog");
                        if found.known.is_empty() || named_later {
                            let first = path.iter().filter(|schema| *schema != "pg_catalog");
                            found.known.extend(first.filter_map(|schema| self.catalog.find(schema, name)).map(|r| r.oid).next());
                        }
                    }
                    None => found.known.extend(self.catalog.relations_named(name).map(|relation| relation.oid)),
                }
            }
        }
        found.unknown = found.known.is_empty() && !found.temporary;
        found
    }
}

/// One way in which classes could leave, other than as a column whose origin the server names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untraced {
    /// Which classes.
    pub(crate) classes: ClassSet,
    /// How.
    pub why: Why,
    /// The column, function or relation that it is about.
    pub what: String,
}

/// What a COPY … TO STDOUT writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopyFlow {
    /// A relation's columns, by name; empty: all that are not generated.
    Relation { candidates: Candidates, columns: Vec<String> },
    /// A query's.
    Query,
}

/// What of the classified columns one request could show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flows {
    /// Classes in the relations that it names.
    pub(crate) touched: ClassSet,
    /// Classes of which the server's messages may quote values.
    pub(crate) quoted: ClassSet,
    /// Ways that the server does not tell.
    pub(crate) untraced: Vec<Untraced>,
    /// Columns that it returns as such and that cannot be masked: their result is refused.
    pub(crate) opaque: Vec<Untraced>,
    /// Whether it does more than read: a result that is refused does not undo it.
    pub(crate) acts: bool,
    /// What it copies to the client.
    pub(crate) copies: Vec<CopyFlow>,
    /// Whether it reads temporary tables of the session.
    pub(crate) temporary: bool,
    /// Whether it reads or calls anything whose meaning the catalogue gives.
    pub(crate) depends_on_catalog: bool,
    /// Whether it changes what names mean: views, rules, functions, renaming. Until that is committed *and* the
    /// catalogue was loaded again, the plan may be wrong for this session.
    pub redefines: bool,
}

impl Flows {
    /// Takes up what another part of the same request could show.
    pub fn merge(&mut self, other: Self) {
        self.touched |= other.touched;
        self.quoted |= other.quoted;
        for finding in other.untraced {
            self.find(finding);
        }
        for finding in other.opaque {
            note(&mut self.opaque, finding);
        }
        self.acts |= other.acts;
        self.copies.extend(other.copies);
        self.temporary |= other.temporary;
        self.depends_on_catalog |= other.depends_on_catalog;
        self.redefines |= other.redefines;
    }

    /// Ways other than as a column whose origin the server names.
    #[must_use]
    pub fn untraced(&self) -> &[Untraced] {
        &self.untraced
    }

    /// Whether it has nothing to do with any class.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        self.touched.is_empty() && self.quoted.is_empty() && self.untraced.is_empty()
    }

    fn find(&mut self, finding: Untraced) {
        note(&mut self.untraced, finding);
    }
}

/// Adds a finding to those that there are.
fn note(findings: &mut Vec<Untraced>, finding: Untraced) {
    if finding.classes.is_empty() || findings.contains(&finding) {
        return;
    }
    if findings.len() >= FINDINGS_MAX
        && let Some(last) = findings.last_mut()
    {
        last.classes |= finding.classes;
        return;
    }
    findings.push(finding);
}

/// What `tree`, a batch of statements, could show of the columns that `plan` classifies.
///
/// It does not depend on the values of literals. Costs a few microseconds; remember it with the statement's analysis
/// for as long as the plan and the meaning of names are the same.
#[must_use]
pub fn flows(tree: &ParseResult, plan: &MaskPlan, resolve: &dyn Resolve) -> Flows {
    if plan.is_empty() {
        return Flows::default();
    }
    let mut analyzer = Analyzer::new(plan, resolve);
    analyzer.batch(tree);
    analyzer.flows
}

/// Walks one tree.
pub(crate) struct Analyzer<'a> {
    plan: &'a MaskPlan,
    resolve: &'a dyn Resolve,
    pub(crate) flows: Flows,
    /// How many filters (WHERE, ORDER BY …) we are in: results of expressions go nowhere.
    filters: u32,
    /// Within EXPLAIN: a filter's constants are shown.
    explaining: bool,
    /// Some SELECT … INTO was met.
    into: bool,
    /// How many EXECUTEs deep we are.
    depth: u8,
    /// What was done, up to [`WORK_MAX`].
    work: usize,
}

impl<'a> Analyzer<'a> {
    pub(crate) fn new(plan: &'a MaskPlan, resolve: &'a dyn Resolve) -> Self {
        Self { plan, resolve, flows: Flows::default(), filters: 0, explaining: false, into: false, depth: 0, work: 0 }
    }

    /// Counts work. `false`: there was too much, and nothing more is to be looked at.
    fn spend(&mut self, work: usize) -> bool {
        self.work = self.work.saturating_add(work);
        let enough = self.work <= WORK_MAX;
        if !enough {
            self.suspect(Why::TooComplex, "");
        }
        enough
    }

    /// Notes that `taint` leaves as `why`.
    fn leak(&mut self, taint: Taint, why: Why) {
        let what = taint.source.and_then(|source| self.plan.column_name(source)).unwrap_or_default();
        self.flows.find(Untraced { classes: taint.classes(), why, what });
    }

    /// Notes that something could show anything.
    fn suspect(&mut self, why: Why, what: impl Into<String>) {
        self.flows.find(Untraced { classes: ClassSet::ANYTHING, why, what: what.into() });
    }

    /// Columns go to the client: what was computed leaves untraced.
    fn returned(&mut self, columns: &Columns<'_>) {
        for taint in columns.list.iter().map(|column| column.taint).chain(columns.rest) {
            if let Some(source) = taint.source.filter(|_| !taint.direct.is_empty())
                && let Some(Mark::Opaque(classes, why)) = self.plan.mark(source.0, source.1)
            {
                let what = self.plan.column_name(source).unwrap_or_default();
                note(&mut self.flows.opaque, Untraced { classes, why, what });
            }
            if !taint.computed.is_empty() {
                let computed = Taint { direct: ClassSet::EMPTY, ..taint };
                self.leak(computed, taint.why.unwrap_or(Why::Expression));
            }
        }
    }
}

#[cfg(test)]
mod tests;
