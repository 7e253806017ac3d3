//! Statements that write: what they return, and what they copy.
//!
//! A classified value may be written into a column of the same class (`SET email = lower(email)`), and nowhere else.

use super::names::strings;
use super::scope::{Col, Columns, From, Rel, Scope, Taint, Why};
use super::tables::target_names;
use super::{Analyzer, Candidates};
use crate::ClassSet;
use pg_query::NodeEnum;
use pg_query::protobuf::{
    DeleteStmt, InsertStmt, MergeStmt, MergeWhenClause, Node, OnConflictClause, RangeVar, ReturningClause, ReturningOptionKind,
    UpdateStmt,
};

/// The table that a statement writes to.
pub(super) struct Target<'a> {
    name: &'a str,
    candidates: Candidates,
    columns: Columns<'a>,
}

impl<'a> Target<'a> {
    /// What it could be.
    pub(super) fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Its columns, for expressions over its rows.
    pub(super) fn from(&self) -> From<'a> {
        From::one(self.name, self.columns.clone())
    }

    /// [`Self::from`], at the end.
    pub(super) fn into_from(self) -> From<'a> {
        From::one(self.name, self.columns)
    }
}

impl<'a> Analyzer<'a> {
    /// The target. `reads`: its rows are looked at, so it must be known.
    pub(super) fn target(&mut self, relation: Option<&'a RangeVar>, reads: bool) -> Target<'a> {
        self.flows.acts = true;
        let Some(relation) = relation else {
            self.suspect(Why::UnknownKind, "a statement without a target");
            return Target { name: "", candidates: Candidates::default(), columns: Columns::default() };
        };
        let candidates = self.candidates(relation);
        if candidates.unknown && reads {
            self.suspect(Why::UnknownRelation, &relation.relname);
        }
        // An error may show the whole row: "Failing row contains (…)".
        for oid in &candidates.known {
            self.flows.quoted |= self.plan.relation_classes(*oid);
        }
        let columns = if candidates.unknown && !reads {
            // A table that is not known yet: what is inserted is what comes back.
            Columns::unknown(Taint::CLEAN)
        } else {
            self.columns_of(&candidates)
        };
        let name = relation.alias.as_ref().map_or(&*relation.relname, |alias| &alias.aliasname);
        Target { name, candidates, columns }
    }

    /// What a column of the target may hold.
    fn holds(&self, target: &Target<'a>, column: &str) -> ClassSet {
        self.held(&target.candidates, column)
    }

    /// What a column of the relation may hold.
    pub(super) fn held(&self, relation: &Candidates, column: &str) -> ClassSet {
        match *relation {
            Candidates { ref known, temporary: false, unknown: false } if known.len() == 1 => {
                known.first().map_or(ClassSet::EMPTY, |oid| self.plan.declared(*oid, column))
            }
            _ => ClassSet::EMPTY,
        }
    }

    fn write(&mut self, target: &Target<'a>, column: Option<&str>, taint: Taint) {
        let allowed = column.map_or(ClassSet::EMPTY, |column| self.holds(target, column));
        let beyond = Taint { direct: taint.direct.without(allowed), computed: taint.computed.without(allowed), ..taint };
        if !beyond.is_clean() {
            self.leak(beyond, Why::Written);
        }
    }

    /// Columns of a query go into a table of which nothing is known.
    pub(super) fn write_all(&mut self, columns: &Columns<'a>, why: Why) {
        let all = columns.all();
        if !all.is_clean() {
            self.leak(all, why);
        }
    }

    /// `SET column = value, …`
    fn assign(&mut self, target: &Target<'a>, list: &'a [Node], scope: &Scope<'_, 'a>) {
        for item in list {
            let Some(NodeEnum::ResTarget(assignment)) = &item.node else {
                self.suspect(Why::UnknownKind, "an assignment");
                continue;
            };
            self.filter_all(&assignment.indirection, scope);
            if let Some(value) = assignment.val.as_deref() {
                let taint = self.expr(value, scope);
                self.write(target, Some(&assignment.name), taint);
            }
        }
    }

    fn returning(
        &mut self,
        clause: Option<&'a ReturningClause>,
        target: &Target<'a>,
        mut from: From<'a>,
        outer: &Scope<'_, 'a>,
    ) -> Columns<'a> {
        let Some(clause) = clause else { return Columns::default() };
        // PostgreSQL 18: the row as it was and as it is, under names that may be changed.
        let mut rows = vec!["old", "new"];
        for option in &clause.options {
            match &option.node {
                Some(NodeEnum::ReturningOption(option)) if option.option() != ReturningOptionKind::Undefined => {
                    rows.push(&option.value)
                }
                _ => self.suspect(Why::UnknownKind, "RETURNING"),
            }
        }
        let rows = rows.into_iter().map(|name| Rel { name, columns: target.columns.clone() });
        from.relations.extend(rows);
        self.targets(&clause.exprs, &Scope { parent: Some(outer), ctes: &[], from: &from })
    }

    pub(super) fn insert(&mut self, insert: &'a InsertStmt, outer: Option<&Scope<'_, 'a>>) -> Columns<'a> {
        let nothing = From::default();
        let ctes = self.ctes(insert.with_clause.as_ref(), outer);
        let outer = Scope { parent: outer, ctes: &ctes, from: &nothing };
        // ON CONFLICT meets rows that are there already.
        let target = self.target(insert.relation.as_ref(), insert.on_conflict_clause.is_some());
        let given =
            insert.select_stmt.as_deref().map(|source| self.inserted(insert, source, &target, &outer)).unwrap_or_default();
        let from = From::one(target.name, target.columns.clone());
        if let Some(conflict) = insert.on_conflict_clause.as_deref() {
            self.on_conflict(conflict, &target, given, from.clone(), &outer);
        }
        self.returning(insert.returning_clause.as_ref(), &target, from, &outer)
    }

    /// Writes what a query gives into the target; the row to insert, as `excluded` shows it.
    fn inserted(&mut self, insert: &'a InsertStmt, source: &'a Node, target: &Target<'a>, outer: &Scope<'_, 'a>) -> Columns<'a> {
        let columns = self.query(source, Some(outer));
        let names: Vec<&str> = if insert.cols.is_empty() {
            target.columns.list.iter().filter_map(|column| column.name).collect()
        } else {
            target_names(&insert.cols)
        };
        let certain = columns.rest.is_none() && target.columns.rest.is_none();
        for (at, column) in columns.list.iter().enumerate() {
            let into = names.get(at).copied().filter(|_| certain);
            self.write(target, into, column.taint);
        }
        if let Some(rest) = columns.rest {
            self.write(target, None, rest);
        }
        let all = columns.all().through(Why::Written);
        let row = target.columns.list.iter().map(|column| {
            let at = names.iter().position(|name| column.name == Some(name));
            let taint = at.and_then(|at| columns.list.get(at)).map_or(Taint::CLEAN, |given| given.taint.through(Why::Written));
            Col { taint: if certain { taint } else { all }, ..*column }
        });
        Columns { list: row.collect(), rest: (!certain).then_some(all) }
    }

    fn on_conflict(
        &mut self,
        conflict: &'a OnConflictClause,
        target: &Target<'a>,
        given: Columns<'a>,
        mut from: From<'a>,
        outer: &Scope<'_, 'a>,
    ) {
        from.relations.push(Rel { name: "excluded", columns: given });
        let scope = Scope { parent: Some(outer), ctes: &[], from: &from };
        if let Some(infer) = conflict.infer.as_deref() {
            for element in &infer.index_elems {
                if let Some(NodeEnum::IndexElem(element)) = &element.node {
                    self.filter(element.expr.as_deref(), &scope);
                }
            }
            self.filter(infer.where_clause.as_deref(), &scope);
        }
        self.assign(target, &conflict.target_list, &scope);
        self.filter(conflict.where_clause.as_deref(), &scope);
    }

    pub(super) fn update(&mut self, update: &'a UpdateStmt, outer: Option<&Scope<'_, 'a>>) -> Columns<'a> {
        let nothing = From::default();
        let ctes = self.ctes(update.with_clause.as_ref(), outer);
        let outer = Scope { parent: outer, ctes: &ctes, from: &nothing };
        let target = self.target(update.relation.as_ref(), true);
        let mut from = From::one(target.name, target.columns.clone());
        from.add(self.sources(&update.from_clause, &outer));
        {
            let scope = Scope { parent: Some(&outer), ctes: &[], from: &from };
            self.assign(&target, &update.target_list, &scope);
            self.filter(update.where_clause.as_deref(), &scope);
        }
        self.returning(update.returning_clause.as_ref(), &target, from, &outer)
    }

    pub(super) fn delete(&mut self, delete: &'a DeleteStmt, outer: Option<&Scope<'_, 'a>>) -> Columns<'a> {
        let nothing = From::default();
        let ctes = self.ctes(delete.with_clause.as_ref(), outer);
        let outer = Scope { parent: outer, ctes: &ctes, from: &nothing };
        let target = self.target(delete.relation.as_ref(), true);
        let mut from = From::one(target.name, target.columns.clone());
        from.add(self.sources(&delete.using_clause, &outer));
        self.filter(delete.where_clause.as_deref(), &Scope { parent: Some(&outer), ctes: &[], from: &from });
        self.returning(delete.returning_clause.as_ref(), &target, from, &outer)
    }

    pub(super) fn merge(&mut self, merge: &'a MergeStmt, outer: Option<&Scope<'_, 'a>>) -> Columns<'a> {
        let nothing = From::default();
        let ctes = self.ctes(merge.with_clause.as_ref(), outer);
        let outer = Scope { parent: outer, ctes: &ctes, from: &nothing };
        let target = self.target(merge.relation.as_ref(), true);
        let mut from = From::one(target.name, target.columns.clone());
        if let Some(source) = merge.source_relation.as_deref() {
            from.add(self.source(source, &outer, &outer));
        }
        {
            let scope = Scope { parent: Some(&outer), ctes: &[], from: &from };
            self.filter(merge.join_condition.as_deref(), &scope);
            for clause in &merge.merge_when_clauses {
                match &clause.node {
                    Some(NodeEnum::MergeWhenClause(when)) => self.merge_when(when, &target, &scope),
                    _ => self.suspect(Why::UnknownKind, "MERGE"),
                }
            }
        }
        self.returning(merge.returning_clause.as_ref(), &target, from, &outer)
    }

    fn merge_when(&mut self, when: &'a MergeWhenClause, target: &Target<'a>, scope: &Scope<'_, 'a>) {
        self.filter(when.condition.as_deref(), scope);
        if when.values.is_empty() {
            self.assign(target, &when.target_list, scope);
            return;
        }
        let named = target_names(&when.target_list);
        let all = target.columns.list.iter().filter_map(|column| column.name);
        let names: Vec<&str> = if named.is_empty() && target.columns.rest.is_none() { all.collect() } else { named };
        for (at, value) in when.values.iter().enumerate() {
            let taint = self.expr(value, scope);
            self.write(target, names.get(at).copied(), taint);
        }
    }

    // ---- COPY ---------------------------------------------------------------------------------------

    /// `COPY table (columns)`: the names; `COPY (query)` has none.
    pub(super) fn copied_columns(attributes: &[Node]) -> Vec<String> {
        strings(attributes).into_iter().map(str::to_owned).collect()
    }
}
