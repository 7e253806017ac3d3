//! Queries: what each output column carries.

use super::Analyzer;
use super::names::{is_star, output_name, strings};
use super::scope::{Col, Columns, Cte, From, Scope, Taint, Why};
use pg_query::NodeEnum;
use pg_query::protobuf::{CommonTableExpr, Node, SelectStmt, SetOperation, WithClause};

/// Most columns of a result: `MaxTupleAttributeNumber` of the server, which refuses more.
const COLUMNS_MAX: usize = 1_664;
/// Rounds in which a recursive query must settle. Each adds a class to a column at least; more means that
/// something is not understood.
const ROUNDS_MAX: usize = 32;

impl<'a> Analyzer<'a> {
    /// A query, or a statement with RETURNING: its output columns.
    pub(crate) fn query(&mut self, query: &'a Node, outer: Option<&Scope<'_, 'a>>) -> Columns<'a> {
        if !self.spend(1) {
            return Columns::unknown(Taint::anything(Why::TooComplex));
        }
        match &query.node {
            Some(NodeEnum::SelectStmt(select)) => self.select(select, outer),
            Some(NodeEnum::InsertStmt(insert)) => self.insert(insert, outer),
            Some(NodeEnum::UpdateStmt(update)) => self.update(update, outer),
            Some(NodeEnum::DeleteStmt(delete)) => self.delete(delete, outer),
            Some(NodeEnum::MergeStmt(merge)) => self.merge(merge, outer),
            _ => {
                self.suspect(Why::UnknownKind, "a query");
                Columns::unknown(Taint::anything(Why::UnknownKind))
            }
        }
    }

    pub(super) fn select(&mut self, select: &'a SelectStmt, outer: Option<&Scope<'_, 'a>>) -> Columns<'a> {
        if !self.spend(1) {
            return Columns::unknown(Taint::anything(Why::TooComplex));
        }
        let nothing = From::default();
        let ctes = self.ctes(select.with_clause.as_ref(), outer);
        let outer = Scope { parent: outer, ctes: &ctes, from: &nothing };
        self.into |= select.into_clause.is_some();
        if let (Some(left), Some(right)) = (&select.larg, &select.rarg)
            && select.op() != SetOperation::SetopNone
        {
            let left = self.select(left, Some(&outer));
            let right = self.select(right, Some(&outer));
            let columns = set_operation(left, right);
            let from = From { columns, relations: Vec::new() };
            self.sorted(select, &Scope { parent: Some(&outer), ctes: &[], from: &from });
            return from.columns;
        }
        if !select.values_lists.is_empty() {
            let columns = self.values(&select.values_lists, &outer);
            self.sorted(select, &outer);
            return columns;
        }
        let from = self.sources(&select.from_clause, &outer);
        let scope = Scope { parent: Some(&outer), ctes: &[], from: &from };
        self.filter(select.where_clause.as_deref(), &scope);
        self.filter_all(&select.group_clause, &scope);
        self.filter(select.having_clause.as_deref(), &scope);
        self.filter_all(&select.window_clause, &scope);
        // DISTINCT without ON is a list with one empty node.
        let distinct = select.distinct_clause.iter().filter(|node| node.node.is_some());
        distinct.for_each(|node| self.filter(Some(node), &scope));
        self.sorted(select, &scope);
        self.targets(&select.target_list, &scope)
    }

    /// ORDER BY and LIMIT. An output column's name or number in ORDER BY is a filter whatever it carries.
    fn sorted(&mut self, select: &'a SelectStmt, scope: &Scope<'_, 'a>) {
        self.filter_all(&select.sort_clause, scope);
        self.filter(select.limit_offset.as_deref(), scope);
        self.filter(select.limit_count.as_deref(), scope);
    }

    /// A target list: of SELECT or RETURNING.
    pub(super) fn targets(&mut self, list: &'a [Node], scope: &Scope<'_, 'a>) -> Columns<'a> {
        let mut columns = Columns::default();
        for item in list {
            let Some(NodeEnum::ResTarget(target)) = &item.node else {
                let taint = self.expr(item, scope).through(Why::Expression);
                columns.list.push(Col::new(None, taint));
                continue;
            };
            let Some(value) = target.val.as_deref() else { continue };
            let name = Some(&*target.name).filter(|name| !name.is_empty()).or_else(|| output_name(value));
            match &value.node {
                Some(NodeEnum::ColumnRef(reference)) if is_star(reference) => columns.add(self.star(&reference.fields, scope)),
                Some(NodeEnum::ColumnRef(reference)) => {
                    let (taint, type_id) = self.column(&reference.fields, scope);
                    columns.list.push(Col { name, taint, type_id });
                }
                Some(NodeEnum::AIndirection(indirection))
                    if indirection.indirection.iter().any(|part| matches!(part.node, Some(NodeEnum::AStar(_)))) =>
                {
                    let taint = self.expr(value, scope);
                    columns.add(Columns::unknown(taint));
                }
                _ => {
                    let taint = self.expr(value, scope);
                    columns.list.push(Col::new(name, taint));
                }
            }
            if columns.list.len() > COLUMNS_MAX {
                // Not to be kept one by one: the server will refuse it.
                columns = Columns::unknown(columns.all().through(Why::TooComplex));
            }
        }
        columns
    }

    /// `*` or `relation.*`.
    fn star(&mut self, fields: &[Node], scope: &Scope<'_, 'a>) -> Columns<'a> {
        if !self.spend(scope.width()) {
            return Columns::unknown(Taint::anything(Why::TooComplex));
        }
        let columns = match strings(fields)[..] {
            [] => scope.from.columns.clone(),
            [relation] => scope.star_of(relation, false),
            [.., relation] => scope.star_of(relation, true),
        };
        self.flows.quoted |= columns.all().classes();
        columns
    }

    /// A column reference: what it carries, and its type.
    pub(super) fn column(&mut self, fields: &[Node], scope: &Scope<'_, 'a>) -> (Taint, u32) {
        let names = strings(fields);
        if !self.spend(scope.width()) {
            return (Taint::anything(Why::TooComplex), 0);
        }
        let (taint, type_id) = match names[..] {
            _ if names.len() != fields.len() => (scope.everything().through(Why::WholeRow), 0),
            [name] => scope.column(name),
            [relation, name] => scope.qualified_column(relation, name, false),
            [.., relation, name] => scope.qualified_column(relation, name, true),
            [] => (scope.everything().through(Why::UnknownName), 0),
        };
        self.flows.quoted |= taint.classes();
        (taint, type_id)
    }

    fn values(&mut self, lists: &'a [Node], scope: &Scope<'_, 'a>) -> Columns<'a> {
        const NAMES: [&str; 16] = [
            "column1", "column2", "column3", "column4", "column5", "column6", "column7", "column8", "column9", "column10",
            "column11", "column12", "column13", "column14", "column15", "column16",
        ];
        let mut columns = Columns::default();
        for list in lists {
            let Some(NodeEnum::List(row)) = &list.node else {
                columns.rest = Some(Taint::anything(Why::UnknownKind));
                continue;
            };
            for (at, value) in row.items.iter().enumerate() {
                let taint = self.expr(value, scope).through(Why::Values);
                match columns.list.get_mut(at) {
                    Some(column) => column.taint = column.taint.or(taint),
                    None => columns.list.push(Col::new(NAMES.get(at).copied(), taint)),
                }
            }
        }
        columns
    }

    // ---- WITH ---------------------------------------------------------------------------------------

    /// The common table expressions of a query.
    pub(super) fn ctes(&mut self, with: Option<&'a WithClause>, outer: Option<&Scope<'_, 'a>>) -> Vec<Cte<'a>> {
        let Some(with) = with else { return Vec::new() };
        let expressions = with.ctes.iter().filter_map(|node| match &node.node {
            Some(NodeEnum::CommonTableExpr(cte)) => Some(&**cte),
            _ => None,
        });
        let expressions = expressions.collect::<Vec<_>>();
        if expressions.len() != with.ctes.len() {
            self.suspect(Why::UnknownKind, "WITH");
        }
        if with.recursive {
            return self.recursive_ctes(&expressions, outer);
        }
        let nothing = From::default();
        let mut ctes: Vec<Cte<'a>> = Vec::new();
        for cte in expressions {
            let columns = self.cte(cte, &Scope { parent: outer, ctes: &ctes, from: &nothing });
            ctes.push(Cte { name: &cte.ctename, columns });
        }
        ctes
    }

    /// Each may name itself and the others: all are worked out until nothing changes.
    fn recursive_ctes(&mut self, expressions: &[&'a CommonTableExpr], outer: Option<&Scope<'_, 'a>>) -> Vec<Cte<'a>> {
        let nothing = From::default();
        let start = |cte: &&'a CommonTableExpr| Cte { name: &cte.ctename, columns: Columns::unknown(Taint::CLEAN) };
        let mut ctes = expressions.iter().map(start).collect::<Vec<_>>();
        let before = self.flows.clone();
        for _ in 0..ROUNDS_MAX {
            // Findings of a round that did not settle are of names that were not known yet.
            self.flows = before.clone();
            let mut next = Vec::with_capacity(ctes.len());
            for cte in expressions {
                let columns = self.cte(cte, &Scope { parent: outer, ctes: &ctes, from: &nothing });
                next.push(Cte { name: &cte.ctename, columns });
            }
            if next == ctes {
                return next;
            }
            ctes = next;
        }
        self.suspect(Why::UnknownKind, "WITH RECURSIVE");
        for cte in &mut ctes {
            cte.columns = Columns::unknown(Taint::anything(Why::UnknownKind));
        }
        ctes
    }

    fn cte(&mut self, cte: &'a CommonTableExpr, scope: &Scope<'_, 'a>) -> Columns<'a> {
        let columns = cte.ctequery.as_deref().map(|query| self.query(query, Some(scope))).unwrap_or_default();
        let mut columns = columns.renamed(&strings(&cte.aliascolnames));
        let made = columns.all().through(Why::SetOperation);
        if let Some(search) = &cte.search_clause {
            columns.list.push(Col::new(Some(&search.search_seq_column), made));
        }
        if let Some(cycle) = &cte.cycle_clause {
            self.filter(cycle.cycle_mark_value.as_deref(), scope);
            self.filter(cycle.cycle_mark_default.as_deref(), scope);
            columns.list.push(Col::new(Some(&cycle.cycle_mark_column), made));
            columns.list.push(Col::new(Some(&cycle.cycle_path_column), made));
        }
        columns
    }
}

/// The columns of a set operation: named by the left, carrying what either does, of no origin.
fn set_operation<'a>(left: Columns<'a>, right: Columns<'a>) -> Columns<'a> {
    if left.rest.is_some() || right.rest.is_some() || left.list.len() != right.list.len() {
        let all = left.all().or(right.all()).through(Why::SetOperation);
        let list = left.list.into_iter().map(|column| Col { taint: all, ..column }).collect();
        return Columns { list, rest: Some(all) };
    }
    let pairs = left.list.into_iter().zip(right.list);
    let list = pairs.map(|(left, right)| Col::new(left.name, left.taint.or(right.taint).through(Why::SetOperation)));
    Columns { list: list.collect(), rest: None }
}
