//! Tables, types and indexes as they are made or changed: what they compute, check and refer to.
//!
//! - A *default* is given to whoever inserts: it must not call what could read a classified column.
//! - A *generated column* copies: what is classified may go into a column of the same class, and nowhere else.
//! - A *check* decides, and gives its value to nobody; but it runs, so it must not keep what it is given.
//! - A *foreign key* says that one column holds the values of another, and `ON UPDATE CASCADE` copies them.
//! - A table that gets a parent shows its rows under the parent's name.

use super::names::strings;
use super::scope::{Col, Columns, From, Scope, Taint, Why};
use super::write::Target;
use super::{Analyzer, Candidates};
use crate::ClassSet;
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterTableCmd, AlterTableStmt, AlterTableType, ConstrType, Constraint, CreateStmt, IndexStmt, Node, PartitionBoundSpec,
    RangeVar,
};

/// `ON UPDATE CASCADE`, in the grammar's tree (`FKCONSTR_ACTION_CASCADE`).
const CASCADE: &str = "c";

impl<'a> Analyzer<'a> {
    pub(super) fn create_table(&mut self, create: &'a CreateStmt) {
        // A temporary table of its own columns hides a name and shows nothing. What it hides stays a candidate for
        // that name, so dropping it again uncovers nothing either.
        self.flows.redefines |= !is_plain_temporary(create);
        // Only code could give the names of functions another meaning, and that is refused: a table may be made
        // after others in a transaction.
        let depends = self.flows.depends_on_catalog;
        let constraints = constraints(create.table_elts.iter().chain(&create.constraints));
        if constraints.iter().any(|(_, constraint)| constraint.raw_expr.is_some()) {
            let mut from = From::default();
            for parent in create.inh_relations.iter().filter_map(relation) {
                let candidates = self.candidates(parent);
                from.add(From::one(&parent.relname, self.columns_of(&candidates)));
            }
            let scope = Scope { parent: None, ctes: &[], from: &from };
            constraints.iter().for_each(|(_, constraint)| self.constraint(constraint, &scope));
            self.flows.depends_on_catalog = depends || !create.inh_relations.is_empty();
        }
        let parts = create.partspec.iter().flat_map(|partitions| &partitions.part_params);
        let nothing = From::default();
        let scope = Scope { parent: None, ctes: &[], from: &nothing };
        for part in parts {
            if let Some(NodeEnum::PartitionElem(part)) = &part.node {
                self.filter(part.expr.as_deref(), &scope);
            }
        }
        self.partition_bound(create.partbound.as_ref());
        for (column, constraint) in &constraints {
            self.foreign_key(constraint, *column, &Candidates::default());
        }
    }

    /// What the commands of an ALTER TABLE compute, check and refer to.
    pub(super) fn altered(&mut self, alter: &'a AlterTableStmt, target: &Target<'a>) {
        let from = target.from();
        let scope = Scope { parent: None, ctes: &[], from: &from };
        for command in &alter.cmds {
            if let Some(NodeEnum::AlterTableCmd(command)) = &command.node {
                self.altered_by(command, target, &scope);
            }
        }
    }

    fn altered_by(&mut self, command: &'a AlterTableCmd, target: &Target<'a>, scope: &Scope<'_, 'a>) {
        let definition = command.def.as_deref();
        match command.subtype() {
            AlterTableType::AtColumnDefault => self.default_value(definition),
            AlterTableType::AtSetExpression => {
                let allowed = self.held(target.candidates(), &command.name);
                self.generated(definition, allowed, scope);
            }
            AlterTableType::AtAddColumn | AlterTableType::AtAddConstraint => {
                for (column, constraint) in constraints(definition) {
                    self.constraint(constraint, scope);
                    self.foreign_key(constraint, column, target.candidates());
                }
            }
            AlterTableType::AtAddInherit => {
                let parent = definition.and_then(relation).map(|parent| self.candidates(parent)).unwrap_or_default();
                self.shown_by(target.candidates(), &parent);
            }
            AlterTableType::AtAttachPartition => {
                if let Some(NodeEnum::PartitionCmd(part)) = definition.and_then(|definition| definition.node.as_ref()) {
                    let child = part.name.as_ref().map(|child| self.candidates(child)).unwrap_or_default();
                    self.shown_by(&child, target.candidates());
                    self.partition_bound(part.bound.as_ref());
                }
            }
            _ => {}
        }
    }

    /// A constraint's expressions. What a new column may hold is not known.
    fn constraint(&mut self, constraint: &'a Constraint, scope: &Scope<'_, 'a>) {
        let expression = constraint.raw_expr.as_deref();
        match constraint.contype() {
            ConstrType::ConstrCheck => self.filter(expression, scope),
            ConstrType::ConstrDefault => self.default_value(expression),
            _ => self.generated(expression, ClassSet::EMPTY, scope),
        }
        for exclusion in &constraint.exclusions {
            if let Some(NodeEnum::List(exclusion)) = &exclusion.node {
                self.indexed(&exclusion.items, scope);
            }
        }
        self.filter(constraint.where_clause.as_deref(), scope);
    }

    /// DEFAULT: it cannot name columns. What is found in it is a function that could return anything.
    fn default_value(&mut self, expression: Option<&'a Node>) {
        let nothing = From::default();
        self.generated(expression, ClassSet::EMPTY, &Scope { parent: None, ctes: &[], from: &nothing });
    }

    /// What is computed and stored.
    fn generated(&mut self, expression: Option<&'a Node>, allowed: ClassSet, scope: &Scope<'_, 'a>) {
        let Some(expression) = expression else { return };
        let taint = self.expr(expression, scope);
        let beyond = Taint { direct: taint.direct.without(allowed), computed: taint.computed.without(allowed), ..taint };
        if !beyond.is_clean() {
            self.leak(beyond, Why::Written);
        }
    }

    /// The bounds of a partition are computed once, and shown by the server's own catalogue.
    fn partition_bound(&mut self, bound: Option<&'a PartitionBoundSpec>) {
        let Some(bound) = bound else { return };
        let values = bound.listdatums.iter().chain(&bound.lowerdatums).chain(&bound.upperdatums);
        values.for_each(|value| {
            // MINVALUE and MAXVALUE look like columns.
            if !matches!(value.node, Some(NodeEnum::ColumnRef(_))) {
                self.default_value(Some(value));
            }
        });
    }

    /// The referring column holds what the referenced one holds. `column`: the one that the constraint stands behind.
    ///
    /// A key that names no columns is the primary key, which the catalogue does not tell: only where changes are
    /// copied are all columns meant. Without CASCADE nothing is copied, and whether a value exists could be asked in
    /// WHERE as well.
    fn foreign_key(&mut self, key: &'a Constraint, column: Option<&str>, of: &Candidates) {
        let Some(referenced) = key.pktable.as_ref() else { return };
        let cascades = key.fk_upd_action == CASCADE;
        let depends = self.flows.depends_on_catalog;
        let candidates = self.candidates(referenced);
        self.flows.depends_on_catalog = depends || cascades;
        if candidates.unknown && cascades {
            self.suspect(Why::UnknownRelation, &referenced.relname);
        }
        let named = strings(&key.pk_attrs);
        let referring: Vec<&str> = column.into_iter().chain(strings(&key.fk_attrs)).collect();
        let catalog = self.plan.catalog().clone();
        for relation in candidates.known.iter().filter_map(|oid| catalog.relation(*oid)) {
            for known in &relation.columns {
                let at = named.iter().position(|name| *name == known.name);
                if at.is_none() && !(named.is_empty() && cascades) {
                    continue;
                }
                let allowed = at.and_then(|at| referring.get(at)).map_or(ClassSet::EMPTY, |name| self.held(of, name));
                let taint = self.plan.taint(relation.oid, known.number);
                let beyond = Taint { direct: taint.direct.without(allowed), ..taint };
                if !beyond.is_clean() {
                    self.leak(beyond, Why::Written);
                }
            }
        }
    }

    /// Rows of `child` are shown by `parent`, under the names of its columns.
    fn shown_by(&mut self, child: &Candidates, parent: &Candidates) {
        let catalog = self.plan.catalog().clone();
        for relation in child.known.iter().filter_map(|oid| catalog.relation(*oid)) {
            for column in &relation.columns {
                let taint = self.plan.taint(relation.oid, column.number);
                let beyond = Taint { direct: taint.direct.without(self.held(parent, &column.name)), ..taint };
                if !beyond.is_clean() {
                    self.leak(beyond, Why::NewName);
                }
            }
        }
    }

    /// A domain's default or check: its VALUE could be anybody's.
    pub(super) fn of_domain(&mut self, definition: &'a Node) {
        let depends = self.flows.depends_on_catalog;
        let value = Columns { list: vec![Col::new(Some("value"), Taint::anything(Why::Kept))], rest: None };
        let from = From { columns: value, relations: Vec::new() };
        let scope = Scope { parent: None, ctes: &[], from: &from };
        match &definition.node {
            Some(NodeEnum::Constraint(constraint)) => self.constraint(constraint, &scope),
            Some(_) => self.default_value(Some(definition)),
            None => {}
        }
        self.flows.depends_on_catalog = depends;
    }

    /// CREATE or ALTER POLICY: a filter for whoever reads or writes the table.
    pub(super) fn row_policy(&mut self, table: Option<&'a RangeVar>, filters: [Option<&'a Node>; 2]) {
        let from = self.target(table, false).into_from();
        let scope = Scope { parent: None, ctes: &[], from: &from };
        filters.into_iter().for_each(|filter| self.filter(filter, &scope));
    }

    /// What an index computes stays in it; its errors may quote ("Key (email)=(…) is duplicated.").
    pub(super) fn index(&mut self, index: &'a IndexStmt) {
        let from = self.target(index.relation.as_ref(), false).into_from();
        let scope = Scope { parent: None, ctes: &[], from: &from };
        self.indexed(&index.index_params, &scope);
        self.filter(index.where_clause.as_deref(), &scope);
    }

    fn indexed(&mut self, elements: &'a [Node], scope: &Scope<'_, 'a>) {
        for element in elements {
            if let Some(NodeEnum::IndexElem(element)) = &element.node {
                self.filter(element.expr.as_deref(), scope);
            }
        }
    }
}

/// The constraints of columns and tables, with the column that each stands behind.
fn constraints<'a>(elements: impl IntoIterator<Item = &'a Node>) -> Vec<(Option<&'a str>, &'a Constraint)> {
    let mut all = Vec::new();
    for element in elements {
        match &element.node {
            Some(NodeEnum::ColumnDef(column)) => {
                let own = column.constraints.iter().filter_map(|one| match &one.node {
                    Some(NodeEnum::Constraint(constraint)) => Some((Some(&*column.colname), &**constraint)),
                    _ => None,
                });
                all.extend(own);
            }
            Some(NodeEnum::Constraint(constraint)) => all.push((None, &**constraint)),
            Some(_) | None => {}
        }
    }
    all
}

fn relation(node: &Node) -> Option<&RangeVar> {
    match &node.node {
        Some(NodeEnum::RangeVar(relation)) => Some(relation),
        _ => None,
    }
}

/// `CREATE TEMPORARY TABLE` with columns of its own alone: no parent, partition or type.
fn is_plain_temporary(create: &CreateStmt) -> bool {
    create.relation.as_ref().is_some_and(|relation| relation.relpersistence == "t")
        && create.inh_relations.is_empty()
        && create.partbound.is_none()
        && create.of_typename.is_none()
}
