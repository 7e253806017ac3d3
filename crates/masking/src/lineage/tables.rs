//! What stands in FROM: tables, sub-queries, joins, functions.

use super::names::{alias_columns, string, strings};
use super::scope::{Col, Columns, From, Rel, Scope, Taint, Why};
use super::{Analyzer, Candidates};
use pg_query::NodeEnum;
use pg_query::protobuf::{Alias, JoinExpr, JoinType, JsonTable, Node, RangeFunction, RangeTableFunc, RangeVar};

/// Types whose columns are of one type exactly when their numbers are equal: they have no modifier (length,
/// precision), so that a join that merges two such columns converts neither.
const WITHOUT_MODIFIER: [u32; 11] = [16, 19, 20, 21, 23, 25, 26, 700, 701, 1082, 2950];

impl<'a> Analyzer<'a> {
    /// A FROM list. Each item sees those before it if it is LATERAL.
    pub(super) fn sources(&mut self, items: &'a [Node], outer: &Scope<'_, 'a>) -> From<'a> {
        let mut all = From::default();
        for item in items {
            let piece = self.source(item, outer, &Scope { parent: Some(outer), ctes: &[], from: &all });
            all.add(piece);
        }
        all
    }

    /// One item of FROM. `outer` is what any sub-query sees, `lateral` what a LATERAL one does.
    pub(super) fn source(&mut self, item: &'a Node, outer: &Scope<'_, 'a>, lateral: &Scope<'_, 'a>) -> From<'a> {
        match &item.node {
            Some(NodeEnum::RangeVar(table)) => self.table(table, outer),
            Some(NodeEnum::RangeSubselect(sub)) => {
                let scope = if sub.lateral { lateral } else { outer };
                let columns = sub.subquery.as_deref().map(|query| self.query(query, Some(scope))).unwrap_or_default();
                let Some(alias) = &sub.alias else { return From { columns, relations: Vec::new() } };
                From::one(&alias.aliasname, columns.renamed(&alias_columns(alias)))
            }
            Some(NodeEnum::JoinExpr(join)) => self.join(join, outer, lateral),
            Some(NodeEnum::RangeFunction(function)) => self.function_source(function, lateral),
            Some(NodeEnum::RangeTableFunc(table)) => self.xml_table(table, lateral),
            Some(NodeEnum::JsonTable(table)) => self.json_table(table, lateral),
            Some(NodeEnum::RangeTableSample(sample)) => {
                self.filter_all(&sample.args, lateral);
                self.filter(sample.repeatable.as_deref(), lateral);
                let relation = sample.relation.as_deref();
                relation.map(|relation| self.source(relation, outer, lateral)).unwrap_or_default()
            }
            _ => {
                self.suspect(Why::UnknownKind, "an item of FROM");
                From { columns: Columns::unknown(Taint::anything(Why::UnknownKind)), relations: Vec::new() }
            }
        }
    }

    fn table(&mut self, table: &'a RangeVar, outer: &Scope<'_, 'a>) -> From<'a> {
        if !self.spend(1) {
            return From { columns: Columns::unknown(Taint::anything(Why::TooComplex)), relations: Vec::new() };
        }
        let name = table.alias.as_ref().map_or(&*table.relname, |alias| &alias.aliasname);
        let aliases = table.alias.as_ref().map(alias_columns).unwrap_or_default();
        let cte = if table.schemaname.is_empty() { outer.cte(&table.relname) } else { None };
        let columns = match cte {
            Some(cte) => cte.columns.clone(),
            None => {
                let candidates = self.candidates(table);
                if candidates.unknown {
                    self.suspect(Why::UnknownRelation, &table.relname);
                }
                self.columns_of(&candidates)
            }
        };
        self.spend(columns.list.len());
        From::one(name, columns.renamed(&aliases))
    }

    /// What a table's name could mean, by the catalogue.
    pub(super) fn candidates(&mut self, table: &RangeVar) -> Candidates {
        let schema = Some(&*table.schemaname).filter(|schema| !schema.is_empty());
        let candidates = self.resolve.relation(schema, &table.relname);
        self.flows.temporary |= candidates.temporary;
        self.flows.depends_on_catalog = true;
        for oid in &candidates.known {
            self.flows.touched |= self.plan.relation_classes(*oid);
        }
        candidates
    }

    /// The columns that a relation of that name has.
    pub(super) fn columns_of(&mut self, candidates: &Candidates) -> Columns<'a> {
        let mut all = Columns::default();
        for oid in &candidates.known {
            let plan: &'a crate::MaskPlan = self.plan;
            let Some(relation) = plan.catalog().relation(*oid) else {
                all.rest = Some(Taint::anything(Why::UnknownRelation));
                continue;
            };
            if relation.schema == "pg_catalog" && super::functions::STATISTICS.contains(&&*relation.name) {
                self.suspect(Why::Statistics, &relation.name);
            }
            all.list.extend(relation.columns.iter().map(|column| Col {
                name: Some(&column.name),
                taint: plan.taint(*oid, column.number),
                type_id: column.type_id,
            }));
        }
        if candidates.unknown {
            all.rest = Some(Taint::anything(Why::UnknownRelation));
        } else if candidates.temporary || candidates.known.len() > 1 {
            // Which of several it is, and so the place of a column, is not known.
            all.rest = Some(all.rest.unwrap_or_default());
        }
        all
    }

    fn function_source(&mut self, function: &'a RangeFunction, lateral: &Scope<'_, 'a>) -> From<'a> {
        let mut taint = Taint::CLEAN;
        let mut named: Vec<&'a str> = Vec::new();
        for item in &function.functions {
            // Each is a list of the call and its column definitions.
            let Some(NodeEnum::List(parts)) = &item.node else {
                taint = taint.or(self.expr(item, lateral));
                continue;
            };
            if let Some(call) = parts.items.first() {
                taint = taint.or(self.expr(call, lateral));
            }
        }
        for column in &function.coldeflist {
            if let Some(NodeEnum::ColumnDef(definition)) = &column.node {
                named.push(&definition.colname);
            }
        }
        self.produced(taint.through(Why::FromFunction), function.alias.as_ref(), &named)
    }

    /// An item whose columns are made by a function. Some have names that we know.
    fn produced(&self, taint: Taint, alias: Option<&'a Alias>, named: &[&'a str]) -> From<'a> {
        let aliases = alias.map(alias_columns).unwrap_or_default();
        let list = aliases.iter().chain(named).map(|name| Col::new(Some(name), taint)).collect();
        let columns = Columns { list, rest: Some(taint) };
        match alias {
            Some(alias) => From::one(&alias.aliasname, columns),
            None => From { columns, relations: Vec::new() },
        }
    }

    fn xml_table(&mut self, table: &'a RangeTableFunc, lateral: &Scope<'_, 'a>) -> From<'a> {
        let mut taint = Taint::CLEAN;
        for part in [&table.docexpr, &table.rowexpr].into_iter().flatten() {
            taint = taint.or(self.expr(part, lateral));
        }
        taint = taint.or(self.exprs(&table.namespaces, lateral));
        let mut named: Vec<&'a str> = Vec::new();
        for column in &table.columns {
            let Some(NodeEnum::RangeTableFuncCol(column)) = &column.node else {
                taint = taint.or(self.expr(column, lateral));
                continue;
            };
            named.push(&column.colname);
            for part in [&column.colexpr, &column.coldefexpr].into_iter().flatten() {
                taint = taint.or(self.expr(part, lateral));
            }
        }
        self.produced(taint.through(Why::FromFunction), table.alias.as_ref(), &named)
    }

    fn json_table(&mut self, table: &'a JsonTable, lateral: &Scope<'_, 'a>) -> From<'a> {
        let mut taint = self.json_value(table.context_item.as_deref(), lateral);
        taint = taint.or(self.exprs(&table.passing, lateral));
        taint = taint.or(self.json_behavior(table.on_error.as_deref(), lateral));
        let mut named: Vec<&'a str> = Vec::new();
        let mut columns: Vec<&'a Node> = table.columns.iter().collect();
        while let Some(column) = columns.pop() {
            let Some(NodeEnum::JsonTableColumn(column)) = &column.node else {
                taint = taint.or(Taint::anything(Why::UnknownKind));
                continue;
            };
            named.push(&column.name);
            for behavior in [&column.on_empty, &column.on_error] {
                taint = taint.or(self.json_behavior(behavior.as_deref(), lateral));
            }
            columns.extend(&column.columns);
        }
        self.produced(taint.through(Why::FromFunction), table.alias.as_ref(), &named)
    }

    fn join(&mut self, join: &'a JoinExpr, outer: &Scope<'_, 'a>, lateral: &Scope<'_, 'a>) -> From<'a> {
        let left = join.larg.as_deref().map(|item| self.source(item, outer, lateral)).unwrap_or_default();
        let right = {
            let inner = Scope { parent: Some(lateral), ctes: &[], from: &left };
            join.rarg.as_deref().map(|item| self.source(item, outer, &inner)).unwrap_or_default()
        };
        let sizes = (left.columns.list.len(), right.columns.list.len());
        let merging = if join.is_natural { sizes.0 } else { join.using_clause.len() };
        if !self.spend((sizes.0 + sizes.1).saturating_mul(merging + 1)) {
            return From { columns: Columns::unknown(Taint::anything(Why::TooComplex)), relations: Vec::new() };
        }
        let merged = if join.is_natural { shared(&left.columns, &right.columns) } else { strings(&join.using_clause) };
        let mut columns = Columns::default();
        for name in &merged {
            columns.list.push(merge(name, &left.columns, &right.columns, join.jointype()));
        }
        let using_alias = join.join_using_alias.as_ref().map(|alias| Rel { name: &alias.aliasname, columns: columns.clone() });
        // What a natural join merges is not known when the columns are not.
        let uncertain = join.is_natural && (left.columns.rest.is_some() || right.columns.rest.is_some());
        for mut side in [left.columns, right.columns] {
            side.list.retain(|column| !column.name.is_some_and(|name| merged.contains(&name)));
            columns.add(if uncertain { side.through(Why::MergedColumn) } else { side });
        }
        let mut from = From { columns, relations: left.relations };
        from.relations.extend(right.relations);
        from.relations.extend(using_alias);
        self.filter(join.quals.as_deref(), &Scope { parent: Some(lateral), ctes: &[], from: &from });
        match &join.alias {
            // The alias hides what it joins.
            Some(alias) => From::one(&alias.aliasname, from.columns.renamed(&alias_columns(alias))),
            None => from,
        }
    }
}

/// The names that both sides have.
fn shared<'a>(left: &Columns<'a>, right: &Columns<'a>) -> Vec<&'a str> {
    let mut names: Vec<&'a str> = Vec::new();
    for name in left.list.iter().filter_map(|column| column.name) {
        if right.has(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A merged join column: the server takes the left one, the right one for a right join, whichever needs no
/// conversion for an inner join, and COALESCE of both for a full one (`buildMergedJoinVar`).
fn merge<'a>(name: &'a str, left: &Columns<'a>, right: &Columns<'a>, kind: JoinType) -> Col<'a> {
    let side = |columns: &Columns<'a>| {
        let mut found = columns.list.iter().filter(|column| column.name == Some(name));
        let first = found.next().copied();
        let rest = columns.rest.unwrap_or_default();
        let taint = found.fold(first.map_or(rest, |column| column.taint), |all, column| all.or(column.taint));
        Col { name: Some(name), taint, type_id: first.map_or(0, |column| column.type_id) }
    };
    let (left, right) = (side(left), side(right));
    let both = left.taint.or(right.taint);
    let alike = left.type_id == right.type_id && WITHOUT_MODIFIER.contains(&left.type_id);
    let taint = match kind {
        _ if both.is_clean() => Taint::CLEAN,
        JoinType::JoinInner | JoinType::JoinLeft if alike => left.taint,
        JoinType::JoinRight if alike => right.taint,
        _ => both.through(Why::MergedColumn),
    };
    Col { name: Some(name), taint, type_id: if alike { left.type_id } else { 0 } }
}

/// The names in a list of targets, as `(name)` lists of INSERT have them.
pub(super) fn target_names(targets: &[Node]) -> Vec<&str> {
    targets
        .iter()
        .filter_map(|node| match node.node.as_ref()? {
            NodeEnum::ResTarget(target) => Some(&*target.name),
            _ => string(node),
        })
        .collect()
}
