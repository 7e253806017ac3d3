//! Expressions: what their value carries.

use super::Analyzer;
use super::functions::{Callee, keeps};
use super::names::{is_star, qualified, strings};
use super::scope::{Scope, Taint, Why};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    FuncCall, JsonAggConstructor, JsonBehavior, JsonFuncExpr, JsonKeyValue, JsonValueExpr, Node, SubLink, SubLinkType, WindowDef,
};

type Part<'a> = Option<&'a Node>;

impl<'a> Analyzer<'a> {
    /// What an expression carries: directly if it is a plain column, else as a computed value.
    pub(super) fn expr(&mut self, node: &'a Node, scope: &Scope<'_, 'a>) -> Taint {
        let Some(node) = &node.node else { return Taint::CLEAN };
        if !self.spend(1) {
            return Taint::anything(Why::TooComplex);
        }
        match node {
            NodeEnum::ColumnRef(reference) if is_star(reference) => self.row(&reference.fields, scope),
            NodeEnum::ColumnRef(reference) => self.column(&reference.fields, scope).0,
            NodeEnum::AConst(_)
            | NodeEnum::ParamRef(_)
            | NodeEnum::SetToDefault(_)
            | NodeEnum::SqlvalueFunction(_)
            | NodeEnum::CurrentOfExpr(_)
            | NodeEnum::MergeSupportFunc(_)
            | NodeEnum::TypeName(_)
            | NodeEnum::AStar(_)
            | NodeEnum::Integer(_)
            | NodeEnum::Float(_)
            | NodeEnum::Boolean(_)
            | NodeEnum::String(_)
            | NodeEnum::BitString(_)
            | NodeEnum::JsonFormat(_)
            | NodeEnum::JsonReturning(_)
            | NodeEnum::JsonOutput(_) => Taint::CLEAN,
            // Whether something is NULL, or which columns are grouped, is not its value.
            NodeEnum::NullTest(test) => self.unseen(test.arg.as_deref(), scope),
            NodeEnum::GroupingFunc(grouping) => {
                self.filter_all(&grouping.args, scope);
                Taint::CLEAN
            }
            NodeEnum::FuncCall(call) => self.call(call, scope),
            NodeEnum::SubLink(link) => self.sub_link(link, scope),
            other => self.composed(other, scope).through(Why::Expression),
        }
    }

    /// Expressions that are made of others: everything in them is in the result.
    fn composed(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Taint {
        match node {
            NodeEnum::AExpr(e) => self.both(e.lexpr.as_deref(), e.rexpr.as_deref(), scope),
            NodeEnum::BoolExpr(e) => self.exprs(&e.args, scope),
            NodeEnum::BooleanTest(e) => self.part(e.arg.as_deref(), scope),
            NodeEnum::TypeCast(e) => self.part(e.arg.as_deref(), scope),
            NodeEnum::CollateClause(e) => self.part(e.arg.as_deref(), scope),
            NodeEnum::NamedArgExpr(e) => self.part(e.arg.as_deref(), scope),
            NodeEnum::CaseExpr(e) => {
                let ends = self.both(e.arg.as_deref(), e.defresult.as_deref(), scope);
                ends.or(self.exprs(&e.args, scope))
            }
            NodeEnum::CaseWhen(e) => self.both(e.expr.as_deref(), e.result.as_deref(), scope),
            NodeEnum::CoalesceExpr(e) => self.exprs(&e.args, scope),
            NodeEnum::MinMaxExpr(e) => self.exprs(&e.args, scope),
            NodeEnum::NullIfExpr(e) => self.exprs(&e.args, scope),
            NodeEnum::RowExpr(e) => self.exprs(&e.args, scope),
            NodeEnum::AArrayExpr(e) => self.exprs(&e.elements, scope),
            NodeEnum::AIndices(e) => self.both(e.lidx.as_deref(), e.uidx.as_deref(), scope),
            NodeEnum::AIndirection(e) => {
                let inner = self.part(e.arg.as_deref(), scope);
                inner.or(self.exprs(&e.indirection, scope))
            }
            NodeEnum::MultiAssignRef(e) => self.part(e.source.as_deref(), scope),
            NodeEnum::List(e) => self.exprs(&e.items, scope),
            NodeEnum::ResTarget(e) => self.part(e.val.as_deref(), scope),
            NodeEnum::SortBy(e) => self.part(e.node.as_deref(), scope),
            NodeEnum::GroupingSet(e) => self.exprs(&e.content, scope),
            NodeEnum::WindowDef(e) => {
                self.window(Some(e), scope);
                Taint::CLEAN
            }
            NodeEnum::XmlExpr(e) => self.exprs(&e.named_args, scope).or(self.exprs(&e.args, scope)),
            NodeEnum::XmlSerialize(e) => self.part(e.expr.as_deref(), scope),
            other => self.json(other, scope),
        }
    }

    /// SQL/JSON expressions.
    fn json(&mut self, node: &'a NodeEnum, scope: &Scope<'_, 'a>) -> Taint {
        match node {
            NodeEnum::JsonValueExpr(e) => self.json_value(Some(e), scope),
            NodeEnum::JsonIsPredicate(e) => self.part(e.expr.as_deref(), scope),
            NodeEnum::JsonBehavior(e) => self.json_behavior(Some(e), scope),
            NodeEnum::JsonArgument(e) => self.json_value(e.val.as_deref(), scope),
            NodeEnum::JsonFuncExpr(e) => self.json_function(e, scope),
            NodeEnum::JsonKeyValue(e) => self.json_pair(Some(e), scope),
            NodeEnum::JsonParseExpr(e) => self.json_value(e.expr.as_deref(), scope),
            NodeEnum::JsonScalarExpr(e) => self.part(e.expr.as_deref(), scope),
            NodeEnum::JsonSerializeExpr(e) => self.json_value(e.expr.as_deref(), scope),
            NodeEnum::JsonObjectConstructor(e) => self.exprs(&e.exprs, scope),
            NodeEnum::JsonArrayConstructor(e) => self.exprs(&e.exprs, scope),
            NodeEnum::JsonArrayQueryConstructor(e) => {
                let query = e.query.as_deref();
                query.map(|query| self.query(query, Some(scope)).all()).unwrap_or_default()
            }
            NodeEnum::JsonObjectAgg(e) => {
                self.json_aggregate(e.constructor.as_deref(), scope);
                self.json_pair(e.arg.as_deref(), scope)
            }
            NodeEnum::JsonArrayAgg(e) => {
                self.json_aggregate(e.constructor.as_deref(), scope);
                self.json_value(e.arg.as_deref(), scope)
            }
            // Kinds that the grammar does not make of a statement, or that are newer than this: anything.
            _ => {
                self.suspect(Why::UnknownKind, "an expression");
                Taint::anything(Why::UnknownKind)
            }
        }
    }

    fn json_function(&mut self, function: &'a JsonFuncExpr, scope: &Scope<'_, 'a>) -> Taint {
        let mut taint = self.json_value(function.context_item.as_deref(), scope);
        taint = taint.or(self.part(function.pathspec.as_deref(), scope));
        taint = taint.or(self.exprs(&function.passing, scope));
        taint = taint.or(self.json_behavior(function.on_empty.as_deref(), scope));
        taint.or(self.json_behavior(function.on_error.as_deref(), scope))
    }

    pub(super) fn json_value(&mut self, value: Option<&'a JsonValueExpr>, scope: &Scope<'_, 'a>) -> Taint {
        value.map(|value| self.both(value.raw_expr.as_deref(), value.formatted_expr.as_deref(), scope)).unwrap_or_default()
    }

    pub(super) fn json_behavior(&mut self, behavior: Option<&'a JsonBehavior>, scope: &Scope<'_, 'a>) -> Taint {
        behavior.map(|behavior| self.part(behavior.expr.as_deref(), scope)).unwrap_or_default()
    }

    fn json_pair(&mut self, pair: Option<&'a JsonKeyValue>, scope: &Scope<'_, 'a>) -> Taint {
        let Some(pair) = pair else { return Taint::CLEAN };
        self.part(pair.key.as_deref(), scope).or(self.json_value(pair.value.as_deref(), scope))
    }

    fn json_aggregate(&mut self, constructor: Option<&'a JsonAggConstructor>, scope: &Scope<'_, 'a>) {
        let Some(constructor) = constructor else { return };
        self.filter(constructor.agg_filter.as_deref(), scope);
        self.filter_all(&constructor.agg_order, scope);
        self.window(constructor.over.as_deref(), scope);
    }

    fn part(&mut self, node: Part<'a>, scope: &Scope<'_, 'a>) -> Taint {
        node.map(|node| self.expr(node, scope)).unwrap_or_default()
    }

    fn both(&mut self, one: Part<'a>, other: Part<'a>, scope: &Scope<'_, 'a>) -> Taint {
        self.part(one, scope).or(self.part(other, scope))
    }

    pub(super) fn exprs(&mut self, nodes: &'a [Node], scope: &Scope<'_, 'a>) -> Taint {
        nodes.iter().fold(Taint::CLEAN, |all, node| all.or(self.expr(node, scope)))
    }

    /// `relation.*` as a value.
    fn row(&mut self, fields: &[Node], scope: &Scope<'_, 'a>) -> Taint {
        if !self.spend(scope.width()) {
            return Taint::anything(Why::TooComplex);
        }
        let columns = match strings(fields)[..] {
            [] => return scope.everything().through(Why::WholeRow),
            [relation] => scope.star_of(relation, false),
            [.., relation] => scope.star_of(relation, true),
        };
        let taint = columns.all().through(Why::WholeRow);
        self.flows.quoted |= taint.classes();
        taint
    }

    // ---- Calls --------------------------------------------------------------------------------------

    fn call(&mut self, call: &'a FuncCall, scope: &Scope<'_, 'a>) -> Taint {
        self.flows.depends_on_catalog = true;
        self.filter(call.agg_filter.as_deref(), scope);
        self.window(call.over.as_deref(), scope);
        let named = qualified(&call.funcname);
        let callee = named.map_or(Callee::Unsafe, |(schema, name)| self.plan.callee(schema, name));
        let name = named.map_or("", |(_, name)| name);
        if callee == Callee::Safe && name == "count" {
            // How many there are is not what they are.
            self.filter_all(&call.args, scope);
            self.filter_all(&call.agg_order, scope);
            return Taint::CLEAN;
        }
        let mut arguments = self.exprs(&call.args, scope);
        if call.agg_within_group {
            arguments = arguments.or(self.exprs(&call.agg_order, scope));
        } else {
            self.filter_all(&call.agg_order, scope);
        }
        match callee {
            Callee::Safe => {
                if keeps(name) && !arguments.is_clean() {
                    self.leak(arguments, Why::Kept);
                }
                arguments.through(Why::Expression)
            }
            Callee::Unsafe => self.unsafe_call(&strings(&call.funcname).join("."), arguments),
        }
    }

    /// A function that could return anything. In a filter its result goes nowhere, but its messages do, and it
    /// could keep what it is given.
    fn unsafe_call(&mut self, name: &str, arguments: Taint) -> Taint {
        self.flows.quoted |= crate::ClassSet::ANYTHING;
        if self.filters == 0 || self.explaining {
            self.suspect(Why::UnsafeFunction, name);
        } else if !arguments.is_clean() {
            self.leak(arguments, Why::Kept);
        }
        Taint::anything(Why::UnsafeFunction).or(arguments)
    }

    fn sub_link(&mut self, link: &'a SubLink, scope: &Scope<'_, 'a>) -> Taint {
        if link.sub_link_type() == SubLinkType::ExistsSublink {
            self.filters += 1;
            link.subselect.as_deref().map(|query| self.query(query, Some(scope)));
            self.filters -= 1;
            return Taint::CLEAN;
        }
        let tested = self.part(link.testexpr.as_deref(), scope);
        let columns = link.subselect.as_deref().map(|query| self.query(query, Some(scope))).unwrap_or_default();
        tested.or(columns.all()).through(Why::Expression)
    }

    pub(super) fn window(&mut self, window: Option<&'a WindowDef>, scope: &Scope<'_, 'a>) {
        let Some(window) = window else { return };
        self.filter_all(&window.partition_clause, scope);
        self.filter_all(&window.order_clause, scope);
        self.filter(window.start_offset.as_deref(), scope);
        self.filter(window.end_offset.as_deref(), scope);
    }

    // ---- Filters ------------------------------------------------------------------------------------

    /// An expression whose value decides, but goes nowhere.
    pub(super) fn filter(&mut self, node: Part<'a>, scope: &Scope<'_, 'a>) {
        self.filters += 1;
        self.part(node, scope);
        self.filters -= 1;
    }

    pub(super) fn filter_all(&mut self, nodes: &'a [Node], scope: &Scope<'_, 'a>) {
        nodes.iter().for_each(|node| self.filter(Some(node), scope));
    }

    fn unseen(&mut self, node: Part<'a>, scope: &Scope<'_, 'a>) -> Taint {
        self.filter(node, scope);
        Taint::CLEAN
    }
}
