//! SELECT, INSERT, UPDATE, DELETE, MERGE, wherever they stand.

use super::condition::Target;
use super::tree::Visit;
use super::walk::{Meaning, Walker};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    CmdType, DeleteStmt, InsertStmt, LockingClause, MergeMatchKind, MergeStmt, MergeWhenClause, Node, OnConflictAction,
    OnConflictClause, RangeVar, SelectStmt, UpdateStmt, WithClause,
};

impl Walker<'_> {
    /// Walks a query in the scope of its common table expressions.
    fn with(&mut self, with: Option<&WithClause>, body: impl FnOnce(&mut Self)) {
        let Some(with) = with else { return self.meaning(Meaning::Read, body) };
        let ctes = || {
            with.ctes.iter().filter_map(|node| match node.node.as_ref()? {
                NodeEnum::CommonTableExpr(cte) => Some(cte),
                _ => None,
            })
        };
        if ctes().count() != with.ctes.len() {
            self.unexpected("WITH");
        }
        // Without RECURSIVE, each sees those before it; with it, all of them see all.
        let all = ctes().filter(|_| with.recursive).map(|cte| cte.ctename.clone());
        self.push_scope(all.collect());
        self.meaning(Meaning::Read, |walker| {
            for cte in ctes() {
                match cte.ctequery.as_ref().and_then(|node| node.node.as_ref()) {
                    Some(NodeEnum::SelectStmt(select)) => select.visit(walker),
                    Some(
                        change @ (NodeEnum::InsertStmt(_)
                        | NodeEnum::UpdateStmt(_)
                        | NodeEnum::DeleteStmt(_)
                        | NodeEnum::MergeStmt(_)),
                    ) => {
                        change.visit(walker);
                    }
                    Some(_) | None => walker.unexpected("WITH"),
                }
                cte.search_clause.visit(walker);
                cte.cycle_clause.visit(walker);
                walker.add_to_scope(&cte.ctename);
            }
            body(walker);
        });
        self.pop_scope();
    }

    fn select(&mut self, select: &SelectStmt) {
        let SelectStmt {
            distinct_clause,
            into_clause,
            target_list,
            from_clause,
            where_clause,
            group_clause,
            group_distinct: _,
            having_clause,
            window_clause,
            values_lists,
            sort_clause,
            limit_offset,
            limit_count,
            limit_option: _,
            locking_clause,
            with_clause,
            op: _,
            all: _,
            larg,
            rarg,
        } = select;
        self.with(with_clause.as_ref(), |walker| {
            from_clause.visit(walker);
            target_list.visit(walker);
            where_clause.visit(walker);
            for nodes in [distinct_clause, group_clause, window_clause, values_lists, sort_clause] {
                nodes.visit(walker);
            }
            for node in [having_clause, limit_offset, limit_count] {
                node.visit(walker);
            }
            larg.visit(walker);
            rarg.visit(walker);
            walker.locks(locking_clause, from_clause);
            if let Some(into) = into_clause {
                walker.into(into);
            }
        });
    }

    /// FOR UPDATE, FOR SHARE …: `lock` on what FROM names, or on what OF chooses of it.
    fn locks(&mut self, clauses: &[Node], from: &[Node]) {
        for clause in clauses.iter().filter_map(|node| node.node.as_ref()) {
            let NodeEnum::LockingClause(LockingClause { locked_rels, .. }) = clause else {
                self.unexpected("FOR UPDATE");
                continue;
            };
            let chosen: Vec<&str> = locked_rels
                .iter()
                .filter_map(|node| match node.node.as_ref()? {
                    NodeEnum::RangeVar(var) => Some(var.relname.as_str()),
                    _ => None,
                })
                .collect();
            for item in from {
                self.lock_item(item, &chosen);
            }
        }
    }

    /// One item of FROM. Nothing chosen: all.
    fn lock_item(&mut self, item: &Node, chosen: &[&str]) {
        let is_chosen = |alias: &str| chosen.is_empty() || chosen.contains(&alias);
        match item.node.as_ref() {
            Some(NodeEnum::JoinExpr(join)) => {
                // A join's own alias may be chosen: then everything in it is.
                let all = join.alias.as_ref().is_some_and(|alias| is_chosen(&alias.aliasname));
                let chosen = if all { &[] } else { chosen };
                for side in [&join.larg, &join.rarg].into_iter().flatten() {
                    self.lock_item(side, chosen);
                }
            }
            Some(NodeEnum::RangeVar(var)) => {
                let alias = var.alias.as_ref().map_or(&var.relname, |alias| &alias.aliasname);
                if is_chosen(alias) {
                    self.meaning(Meaning::Read, |walker| walker.lock_relation(var));
                }
            }
            Some(NodeEnum::RangeTableSample(sample)) => {
                if let Some(inner) = &sample.relation {
                    self.lock_item(inner, chosen);
                }
            }
            Some(NodeEnum::RangeSubselect(sub)) => {
                let alias = sub.alias.as_ref().map_or("", |alias| &alias.aliasname);
                let query = sub.subquery.as_ref().and_then(|node| node.node.as_ref());
                if let (true, Some(NodeEnum::SelectStmt(select))) = (is_chosen(alias), query) {
                    self.lock_query(select);
                }
            }
            Some(_) | None => {}
        }
    }

    /// The server locks the rows of sub-queries in FROM as well.
    fn lock_query(&mut self, select: &SelectStmt) {
        let names = select.with_clause.iter().flat_map(|with| &with.ctes).filter_map(|node| match node.node.as_ref()? {
            NodeEnum::CommonTableExpr(cte) => Some(cte.ctename.clone()),
            _ => None,
        });
        self.push_scope(names.collect());
        for item in &select.from_clause {
            self.lock_item(item, &[]);
        }
        for side in [&select.larg, &select.rarg].into_iter().flatten() {
            self.lock_query(side);
        }
        self.pop_scope();
    }

    fn insert(&mut self, insert: &InsertStmt) {
        let InsertStmt { relation, cols, select_stmt, on_conflict_clause, returning_clause, with_clause, r#override: _ } = insert;
        self.with(with_clause.as_ref(), |walker| {
            let Some(relation) = relation else { return walker.unexpected("INSERT") };
            // The target of a change is never a common table expression, whatever its name.
            walker.relation(relation, "insert", None);
            cols.visit(walker);
            select_stmt.visit(walker);
            if let Some(clause) = on_conflict_clause {
                walker.on_conflict(relation, clause);
            }
            if returning_clause.is_some() {
                walker.relation(relation, "select", None);
                returning_clause.visit(walker);
            }
        });
    }

    fn on_conflict(&mut self, relation: &RangeVar, clause: &OnConflictClause) {
        let OnConflictClause { action, infer, target_list, where_clause, location: _ } = clause;
        match OnConflictAction::try_from(*action) {
            Ok(OnConflictAction::OnconflictNothing) => {}
            // Rows that conflict, and no other: that is a condition.
            Ok(OnConflictAction::OnconflictUpdate) => {
                self.relation(relation, "update", Some(true));
            }
            Ok(OnConflictAction::OnconflictNone | OnConflictAction::Undefined) | Err(_) => self.unexpected("ON CONFLICT"),
        }
        infer.visit(self);
        target_list.visit(self);
        where_clause.visit(self);
    }

    fn update(&mut self, update: &UpdateStmt) {
        let UpdateStmt { relation, target_list, where_clause, from_clause, returning_clause, with_clause } = update;
        self.with(with_clause.as_ref(), |walker| {
            let Some(relation) = relation else { return walker.unexpected("UPDATE") };
            let limited = walker.is_limited(relation, where_clause.as_deref());
            walker.relation(relation, "update", Some(limited));
            walker.settings_row(relation);
            from_clause.visit(walker);
            let reads = walker.reads_columns(target_list) || where_clause.is_some() || returning_clause.is_some();
            if reads {
                walker.relation(relation, "select", None);
            }
            target_list.visit(walker);
            where_clause.visit(walker);
            returning_clause.visit(walker);
        });
    }

    fn delete(&mut self, delete: &DeleteStmt) {
        let DeleteStmt { relation, using_clause, where_clause, returning_clause, with_clause } = delete;
        self.with(with_clause.as_ref(), |walker| {
            let Some(relation) = relation else { return walker.unexpected("DELETE") };
            let limited = walker.is_limited(relation, where_clause.as_deref());
            walker.relation(relation, "delete", Some(limited));
            using_clause.visit(walker);
            if where_clause.is_some() || returning_clause.is_some() {
                walker.relation(relation, "select", None);
            }
            where_clause.visit(walker);
            returning_clause.visit(walker);
        });
    }

    fn merge(&mut self, merge: &MergeStmt) {
        let MergeStmt { relation, source_relation, join_condition, merge_when_clauses, returning_clause, with_clause } = merge;
        self.with(with_clause.as_ref(), |walker| {
            let Some(relation) = relation else { return walker.unexpected("MERGE") };
            walker.relation(relation, "select", None);
            source_relation.visit(walker);
            join_condition.visit(walker);
            for node in merge_when_clauses {
                match node.node.as_ref() {
                    Some(NodeEnum::MergeWhenClause(clause)) => walker.merge_clause(relation, join_condition.as_deref(), clause),
                    Some(_) | None => walker.unexpected("MERGE"),
                }
            }
            returning_clause.visit(walker);
        });
    }

    fn merge_clause(&mut self, relation: &RangeVar, on: Option<&Node>, clause: &MergeWhenClause) {
        let MergeWhenClause { match_kind, command_type, r#override: _, condition, target_list, values } = clause;
        condition.visit(self);
        target_list.visit(self);
        values.visit(self);
        // Rows without a match are all but those that ON names.
        let by_source = matches!(MergeMatchKind::try_from(*match_kind), Ok(MergeMatchKind::MergeWhenNotMatchedBySource));
        let matched = !by_source && self.is_limited(relation, on);
        let limited = matched || self.is_limited(relation, condition.as_deref());
        match CmdType::try_from(*command_type) {
            Ok(CmdType::CmdInsert) => {
                self.relation(relation, "insert", None);
            }
            Ok(CmdType::CmdUpdate) => {
                self.relation(relation, "update", Some(limited));
            }
            Ok(CmdType::CmdDelete) => {
                self.relation(relation, "delete", Some(limited));
            }
            Ok(CmdType::CmdNothing) => {}
            Ok(CmdType::Undefined | CmdType::CmdUnknown | CmdType::CmdSelect | CmdType::CmdMerge | CmdType::CmdUtility)
            | Err(_) => self.unexpected("MERGE"),
        }
    }

    /// Whether the condition of a change limits the rows of its target.
    fn is_limited(&self, relation: &RangeVar, condition: Option<&Node>) -> bool {
        let schema = (!relation.schemaname.is_empty()).then_some(relation.schemaname.as_str());
        let meant = self.state.relations(self.catalog, schema, &relation.relname);
        let oids: Vec<Option<u32>> = meant.uses.iter().map(|one| one.oid).collect();
        Target::new(relation, self.catalog, &oids).is_limited_by(condition, self)
    }

    fn reads_columns(&self, nodes: &[Node]) -> bool {
        nodes.iter().filter_map(|node| node.node.as_ref()).any(|node| !self.columns_of(node).is_empty())
    }

    fn lock_relation(&mut self, var: &RangeVar) {
        if !self.is_common_table(var) {
            self.relation(var, "lock", None);
        }
    }
}

impl Visit for SelectStmt {
    fn visit(&self, walker: &mut Walker<'_>) {
        walker.select(self);
    }
}

impl Visit for InsertStmt {
    fn visit(&self, walker: &mut Walker<'_>) {
        walker.kind("INSERT");
        walker.insert(self);
    }
}

impl Visit for UpdateStmt {
    fn visit(&self, walker: &mut Walker<'_>) {
        walker.kind("UPDATE");
        walker.update(self);
    }
}

impl Visit for DeleteStmt {
    fn visit(&self, walker: &mut Walker<'_>) {
        walker.kind("DELETE");
        walker.delete(self);
    }
}

impl Visit for MergeStmt {
    fn visit(&self, walker: &mut Walker<'_>) {
        walker.kind("MERGE");
        walker.merge(self);
    }
}
