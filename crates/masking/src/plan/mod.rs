//! [`MaskPlan`]: the mask rules applied to one connection's catalogue.
//!
//! Besides the columns that patterns name, it knows
//! - partitions and inheriting tables: a column is classified with the columns of the same name of its parents and
//!   children;
//! - generated columns of tables with classified columns: what they are made of is not known, so they are refused;
//! - views and materialized views: an output column that is a plain column has its class, one that is computed from
//!   classified columns is refused, views on views to any depth. A definition that cannot be followed makes all
//!   columns of the view refused. A pattern that names the view's column says what it holds instead.

mod views;

use crate::class::ClassSet;
use crate::lineage::{Callee, Taint, Why, is_built_in, reads_by_itself};
use crate::pattern::{FunctionPattern, fits};
use crate::rules::{Class, MaskRules};
use hashbrown::HashMap;
use proxy_core::catalog::{Column, Relation};
use proxy_core::{Catalog, Mask};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is known of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It holds values of these classes.
    Class(ClassSet),
    /// It holds something made of values of these classes: it cannot be masked, so it is refused.
    Opaque(ClassSet, Why),
}

impl Mark {
    pub(crate) fn classes(self) -> ClassSet {
        match self {
            Self::Class(classes) | Self::Opaque(classes, _) => classes,
        }
    }
}

/// The mask rules of one connection's database. Cheap to share; valid for one catalogue.
#[derive(Debug)]
pub struct MaskPlan {
    connection: String,
    catalog: Arc<Catalog>,
    classes: Arc<Vec<Class>>,
    safe_functions: Arc<Vec<FunctionPattern>>,
    marks: HashMap<(u32, i16), Mark>,
    relations: HashMap<u32, ClassSet>,
}

impl MaskPlan {
    /// Applies `rules` to `connection`, whose catalogue is `catalog`.
    ///
    /// Costs a pass over the columns for each pattern, and a parse for each view; nothing when no pattern fits.
    #[must_use]
    pub fn build(rules: &MaskRules, connection: &str, catalog: &Arc<Catalog>) -> Self {
        let mut plan = Self {
            connection: connection.to_owned(),
            catalog: catalog.clone(),
            classes: rules.classes.clone(),
            safe_functions: rules.safe_functions.clone(),
            marks: HashMap::new(),
            relations: HashMap::new(),
        };
        plan.classify();
        if plan.marks.is_empty() {
            return plan;
        }
        let declared = plan.marks.clone();
        plan.inherit();
        plan.mark_generated(&declared);
        plan.index();
        views::mark(&mut plan, &declared);
        plan
    }

    /// Whether nothing of this connection is classified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The names of the classes that some column holds, in the order of the configuration.
    #[must_use]
    pub fn classes(&self) -> Vec<String> {
        let all = self.marks.values().fold(ClassSet::EMPTY, |all, mark| all | mark.classes());
        self.class_names(all)
    }

    /// The catalogue that it was built from.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The classified columns: `SCHEMA.TABLE.COLUMN` with its classes, and whether it is refused instead of masked.
    #[must_use]
    pub fn columns(&self) -> Vec<(String, Vec<String>, bool)> {
        let mut list = Vec::new();
        for (key, mark) in &self.marks {
            let Some(name) = self.column_name(*key) else { continue };
            list.push((name, self.class_names(mark.classes()), matches!(mark, Mark::Opaque(..))));
        }
        list.sort();
        list
    }

    // ---- Asked by lineage ---------------------------------------------------------------------------

    pub(crate) fn mark(&self, oid: u32, column: i16) -> Option<Mark> {
        self.marks.get(&(oid, column)).copied()
    }

    /// What a reference to the column carries.
    pub(crate) fn taint(&self, oid: u32, column: i16) -> Taint {
        // A column that is refused is a plain column too: the server names it, and the rules refuse it there.
        let direct = self.mark(oid, column).map_or(ClassSet::EMPTY, Mark::classes);
        let source = (!direct.is_empty()).then_some((oid, column));
        Taint { direct, source, ..Taint::CLEAN }
    }

    pub(crate) fn relation_classes(&self, oid: u32) -> ClassSet {
        self.relations.get(&oid).copied().unwrap_or_default()
    }

    /// Classes that the column holds as such.
    pub(crate) fn declared(&self, oid: u32, column: &str) -> ClassSet {
        let number = self.catalog.relation(oid).and_then(|relation| number(relation, column));
        match number.and_then(|number| self.mark(oid, number)) {
            Some(Mark::Class(classes)) => classes,
            Some(Mark::Opaque(..)) | None => ClassSet::EMPTY,
        }
    }

    pub(crate) fn column_classes(&self, oid: u32, column: &str) -> ClassSet {
        let number = self.catalog.relation(oid).and_then(|relation| number(relation, column));
        number.and_then(|number| self.mark(oid, number)).map_or(ClassSet::EMPTY, Mark::classes)
    }

    pub(crate) fn schema_classes(&self, schema: &str) -> ClassSet {
        let within = self.catalog.relations().iter().filter(|relation| relation.schema == schema);
        within.fold(ClassSet::EMPTY, |all, relation| all | self.relation_classes(relation.oid))
    }

    /// `SCHEMA.TABLE.COLUMN`.
    pub(crate) fn column_name(&self, (oid, column): (u32, i16)) -> Option<String> {
        let relation = self.catalog.relation(oid)?;
        let name = relation.columns.iter().find(|one| one.number == column).map_or("*", |one| &one.name);
        Some(format!("{}.{}.{name}", relation.schema, relation.name))
    }

    /// Whether a called function can show what it is not given.
    pub(crate) fn callee(&self, schema: Option<&str>, name: &str) -> Callee {
        let declared = |schema: &str| self.safe_functions.iter().any(|pattern| pattern.fits(&self.connection, schema, name));
        let by_itself = reads_by_itself(name);
        if matches!(schema, Some("pg_catalog" | "information_schema")) {
            let safe = !by_itself || schema.is_some_and(declared);
            return if safe { Callee::Safe } else { Callee::Unsafe };
        }
        let mut candidates =
            self.catalog.functions_named(name).filter(|f| schema.is_none_or(|schema| f.schema == schema)).peekable();
        if candidates.peek().is_none() {
            let built_in = schema.is_none() && is_built_in(name) && !by_itself;
            return if built_in || schema.is_none() && declared("pg_catalog") { Callee::Safe } else { Callee::Unsafe };
        }
        let safe = candidates.all(|function| (function.from_extension && !by_itself) || declared(&function.schema));
        // An unqualified name may still be the built-in one.
        if safe && (schema.is_some() || !by_itself || !is_built_in(name)) { Callee::Safe } else { Callee::Unsafe }
    }

    // ---- Asked by disclosure ------------------------------------------------------------------------

    /// The set of the classes of these names.
    pub(crate) fn class_set(&self, names: &BTreeSet<String>) -> ClassSet {
        let named = self.classes.iter().enumerate().filter(|(_, class)| names.contains(&*class.name));
        named.fold(ClassSet::EMPTY, |all, (position, _)| all | ClassSet::one(position))
    }

    pub(crate) fn class_names(&self, set: ClassSet) -> Vec<String> {
        let names = set.positions().filter_map(|position| self.classes.get(position));
        names.map(|class| class.name.to_string()).collect()
    }

    /// The mask of the first class of `set`.
    pub(crate) fn mask(&self, set: ClassSet) -> Option<&Arc<dyn Mask>> {
        set.positions().find_map(|position| self.classes.get(position)).map(|class| &class.mask)
    }

    // ---- Building -----------------------------------------------------------------------------------

    fn classify(&mut self) {
        for (position, class) in self.classes.clone().iter().enumerate() {
            let patterns = class.patterns.iter().filter(|pattern| fits(&pattern.connection, &self.connection));
            for pattern in patterns {
                for relation in self.catalog.relations() {
                    if !pattern.fits_table(&self.connection, &relation.schema, &relation.name) || is_system(relation) {
                        continue;
                    }
                    for column in relation.columns.iter().filter(|column| fits(&pattern.column, &column.name)) {
                        let mark = self.marks.entry((relation.oid, column.number)).or_insert(Mark::Class(ClassSet::EMPTY));
                        *mark = Mark::Class(mark.classes() | ClassSet::one(position));
                    }
                }
            }
        }
    }

    /// A column of a parent shows those of its children, and a child holds rows of its parent.
    fn inherit(&mut self) {
        let catalog = self.catalog.clone();
        let edges = catalog.relations().iter().flat_map(|child| child.parents.iter().map(move |parent| (child, *parent)));
        let edges = edges.filter_map(|(child, parent)| Some((child, catalog.relation(parent)?))).collect::<Vec<_>>();
        loop {
            let mut changed = false;
            for (child, parent) in &edges {
                for column in &child.columns {
                    let Some(above) = number(parent, &column.name) else { continue };
                    changed |= self.equal((child.oid, column.number), (parent.oid, above));
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Gives both columns the classes of either; whether something changed.
    fn equal(&mut self, one: (u32, i16), other: (u32, i16)) -> bool {
        let classes = |key| self.marks.get(&key).map_or(ClassSet::EMPTY, |mark: &Mark| mark.classes());
        let (first, second) = (classes(one), classes(other));
        if first == second {
            return false;
        }
        for key in [one, other] {
            self.marks.insert(key, Mark::Class(first | second));
        }
        true
    }

    fn mark_generated(&mut self, declared: &HashMap<(u32, i16), Mark>) {
        for relation in self.catalog.clone().relations() {
            let key = |column: &Column| (relation.oid, column.number);
            let marks = relation.columns.iter().filter_map(|column| self.marks.get(&key(column)));
            let classes = marks.fold(ClassSet::EMPTY, |all, mark| all | mark.classes());
            if classes.is_empty() {
                continue;
            }
            for column in relation.columns.iter().filter(|column| column.generated && !declared.contains_key(&key(column))) {
                self.marks.insert(key(column), Mark::Opaque(classes, Why::Generated));
            }
        }
    }

    /// The classes of each relation.
    fn index(&mut self) {
        self.relations.clear();
        for ((oid, _), mark) in &self.marks {
            *self.relations.entry(*oid).or_default() |= mark.classes();
        }
    }
}

/// The number of a relation's column of that name.
fn number(relation: &Relation, name: &str) -> Option<i16> {
    relation.columns.iter().find(|column| column.name == name).map(|column| column.number)
}

/// Relations that come with the server: their columns mean the same everywhere, and `*` patterns are not for them.
pub(crate) fn is_system(relation: &Relation) -> bool {
    matches!(relation.schema.as_str(), "pg_catalog" | "information_schema" | "pg_toast")
}

#[cfg(test)]
mod tests;
