//! One walk over a statement's tree: what it would do, object by object.

use super::condition::compares_alike;
use super::functions::hidden;
use super::resolve::{is_system_schema, is_temp_schema};
use super::state::{Effect, SqlState};
use super::system::sensitive;
use super::tree::{Fields, Visit};
use super::{Analysis, CopyStatement, FunctionUse, RelationUse};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AExpr, AIndirection, Alias, ColumnRef, FuncCall, LockingClause, Node, RangeTableSample, RangeVar, SortBy, SubLink,
};
use proxy_core::{Catalog, Facts, Object, ObjectKind, Operation};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Statements within statements: EXECUTE of what is an EXECUTE, PREPARE of what declares a cursor …
pub(super) const NESTED_MAX: usize = 8;

/// What a relation that is named in passing stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is read; a common table expression may have that name.
    Read,
    /// It is the object of this action.
    Act(&'static str),
}

/// What was found, as it is found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) facts: Facts,
    pub(super) effects: Vec<Effect>,
    pub(super) relations: BTreeSet<RelationUse>,
    pub(super) functions: BTreeSet<FunctionUse>,
    pub(super) copy: Option<CopyStatement>,
    pub(super) literals_matter: bool,
    pub(super) depends_on_state: bool,
    pub(super) depends_on_statements: bool,
    pub(super) changes_catalog: bool,
    pub(super) unresolved: bool,
    pub(super) sensitive: BTreeSet<String>,
}

/// A walk. Names mean what they mean after the statements before it, in the session and in the same text.
pub(super) struct Walker<'a> {
    pub(super) catalog: Option<&'a Catalog>,
    pub(super) state: Cow<'a, SqlState>,
    /// The text that the tree was made of, if it is known: COPY's query is cut from it.
    pub(super) text: Option<&'a str>,
    pub(super) found: Found,
    pub(super) meaning: Meaning,
    pub(super) nested: usize,
    /// Names of common table expressions, innermost last.
    scopes: Vec<BTreeSet<String>>,
    /// What the names in FROM stand for, for `alias.name` that may call a function.
    aliases: BTreeMap<String, Vec<Option<u32>>>,
    /// `qualifier.name` and `(expression).name`: columns, or functions of one row.
    attributes: BTreeSet<(Option<String>, String)>,
    /// Columns that are named, if somebody asks for them.
    columns: Option<Vec<ColumnRef>>,
}

/// The text of a name.
pub(super) fn string(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::String(string) => Some(&string.sval),
        _ => None,
    }
}

/// The texts of a list of names.
pub(super) fn strings(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter_map(string).collect()
}

/// Schema and name. The server refuses another database's name, so a first part of three says nothing.
pub(super) fn qualified<'n>(parts: &[&'n str]) -> Option<(Option<&'n str>, &'n str)> {
    match *parts {
        [name] => Some((None, name)),
        [schema, name] | [_, schema, name] => Some((Some(schema), name)),
        _ => None,
    }
}

pub(super) fn database() -> Object {
    Object::new(ObjectKind::Database, Vec::<String>::new())
}

pub(super) fn connection() -> Object {
    Object::new(ObjectKind::Connection, Vec::<String>::new())
}

/// The text between quotes of a name in an explanation, cut short.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

impl<'a> Walker<'a> {
    pub(super) fn new(catalog: Option<&'a Catalog>, state: Cow<'a, SqlState>, text: Option<&'a str>, nested: usize) -> Self {
        Self {
            catalog,
            state,
            text,
            found: Found::default(),
            meaning: Meaning::Read,
            nested,
            scopes: Vec::new(),
            aliases: BTreeMap::new(),
            attributes: BTreeSet::new(),
            columns: None,
        }
    }

    // ---- Findings -----------------------------------------------------------------------------------

    pub(super) fn unknown(&mut self, what: impl Into<String>) {
        self.found.facts.add_unknown(what);
    }

    /// A node that the grammar does not make here.
    pub(super) fn unexpected(&mut self, node: &str) {
        self.unknown(format!("a part of the statement ({node}) that the gateway does not know"));
    }

    pub(super) fn act(&mut self, action: &str, object: Object, has_where: Option<bool>) {
        self.found.facts.add(Operation { action: action.to_owned(), object, has_where });
    }

    pub(super) fn kind(&mut self, kind: &str) {
        self.found.facts.kinds.push(kind.to_owned());
    }

    /// Takes up a change of what names mean: for this walk, and for the session's later statements.
    pub(super) fn effect(&mut self, effect: Effect) {
        self.state.to_mut().take_up(&effect);
        self.found.effects.push(effect);
    }

    // ---- Relations ----------------------------------------------------------------------------------

    /// `action` on every relation that `var` may be. Not a common table expression.
    pub(super) fn relation(&mut self, var: &RangeVar, action: &str, has_where: Option<bool>) -> Vec<RelationUse> {
        let schema = (!var.schemaname.is_empty()).then_some(var.schemaname.as_str());
        let uses = self.named_relation(schema, &var.relname, action, has_where);
        let alias = var.alias.as_ref().map_or(&var.relname, |alias| &alias.aliasname);
        self.aliases.entry(alias.clone()).or_default().extend(uses.iter().map(|one| one.oid));
        uses
    }

    /// `action` on every relation that `[schema.]name` may be.
    pub(super) fn named_relation(
        &mut self,
        schema: Option<&str>,
        name: &str,
        action: &str,
        has_where: Option<bool>,
    ) -> Vec<RelationUse> {
        let meant = self.state.relations(self.catalog, schema, name);
        self.found.depends_on_state = true;
        self.found.unresolved |= meant.unresolved;
        if meant.uncertain {
            let name = shown(name);
            self.unknown(format!("which relation \"{name}\" is, since the session changed its search path: name its schema"));
        }
        for one in &meant.uses {
            self.act(action, Object::new(ObjectKind::Table, [one.schema.as_str(), one.name.as_str()]), has_where);
            if sensitive(&one.schema, &one.name) {
                self.found.sensitive.insert(one.name.clone());
            }
            self.found.relations.insert(one.clone());
        }
        meant.uses
    }

    /// Makes a relation: `ddl` on what it will be. Returns its schema and whether it is temporary.
    pub(super) fn creates(&mut self, var: &RangeVar) {
        let schema = (!var.schemaname.is_empty()).then_some(var.schemaname.as_str());
        if var.relpersistence == "t" || schema.is_some_and(is_temp_schema) {
            self.act("ddl", Object::new(ObjectKind::Table, [super::resolve::TEMP_SCHEMA, var.relname.as_str()]), None);
            self.effect(Effect::MakesTemp(var.relname.clone()));
            return;
        }
        self.found.changes_catalog = true;
        let schema = match schema {
            Some(schema) => Some(schema.to_owned()),
            None => {
                self.found.depends_on_state = true;
                self.state.creation_schema(self.catalog)
            }
        };
        match schema {
            Some(schema) => {
                self.act("ddl", Object::new(ObjectKind::Table, [schema.as_str(), var.relname.as_str()]), None);
                // Where it is already, it is replaced (a view) or left as it is.
                let oid = self.catalog.and_then(|catalog| catalog.find(&schema, &var.relname)).map(|known| known.oid);
                let made = RelationUse { schema, name: var.relname.clone(), oid, temporary: false };
                self.found.relations.insert(made);
            }
            // In whichever schema comes first.
            None => self.act("ddl", database(), None),
        }
    }

    /// `action` on the schema that an object of another kind is in.
    pub(super) fn in_schema(&mut self, names: &[&str], action: &str) {
        let schema = match qualified(names) {
            Some((Some(schema), _)) => Some(schema.to_owned()),
            _ => {
                self.found.depends_on_state = true;
                self.state.creation_schema(self.catalog)
            }
        };
        match schema {
            Some(schema) => self.act(action, Object::new(ObjectKind::Schema, [schema]), None),
            None => self.act(action, database(), None),
        }
    }

    // ---- Scopes -------------------------------------------------------------------------------------

    pub(super) fn push_scope(&mut self, names: BTreeSet<String>) {
        self.scopes.push(names);
    }

    pub(super) fn pop_scope(&mut self) {
        self.scopes.pop();
    }

    pub(super) fn add_to_scope(&mut self, name: &str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned());
        }
    }

    pub(super) fn is_common_table(&self, var: &RangeVar) -> bool {
        var.schemaname.is_empty() && self.scopes.iter().any(|scope| scope.contains(&var.relname))
    }

    /// Visits with relations standing for something else.
    pub(super) fn meaning(&mut self, meaning: Meaning, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.meaning, meaning);
        visit(self);
        self.meaning = before;
    }

    // ---- Functions ----------------------------------------------------------------------------------

    fn call(&mut self, call: &FuncCall) {
        let names = strings(&call.funcname);
        let Some((schema, name)) = qualified(&names) else {
            return self.unknown("a function whose name is not understood");
        };
        self.called(schema, name);
        let built_in = schema.is_none_or(|schema| schema == "pg_catalog");
        match name {
            "set_config" if built_in => self.set_config(call),
            "pg_notify" if built_in => self.act("notify", database(), None),
            _ => {}
        }
    }

    /// A call of `[schema.]name`, whatever its arguments.
    pub(super) fn called(&mut self, schema: Option<&str>, name: &str) {
        if let Some(hidden) = hidden(schema, name) {
            self.unknown(format!("function {}: {}", shown(name), hidden.reason()));
        }
        let meant = self.state.functions(self.catalog, schema, name);
        self.found.depends_on_state = true;
        self.found.unresolved |= meant.unresolved;
        if !meant.uses.is_empty() {
            // It may set what it likes.
            self.effect(Effect::UncertainPath);
        }
        for one in meant.uses {
            self.act("call", Object::new(ObjectKind::Function, [one.schema.as_str(), one.name.as_str()]), None);
            self.found.functions.insert(one);
        }
    }

    /// An operator that is named with its schema: whoever made it chose its function.
    fn operator(&mut self, names: &[Node]) {
        let names = strings(names);
        if let Some((Some(schema), name)) = qualified(&names)
            && !is_system_schema(schema)
        {
            let one = FunctionUse { schema: schema.to_owned(), name: name.to_owned() };
            self.act("call", Object::new(ObjectKind::Function, [schema, name]), None);
            self.found.functions.insert(one);
            self.effect(Effect::UncertainPath);
        }
    }

    /// `row.name` calls the function `name` where the row has no such column.
    pub(super) fn settle_attributes(&mut self) {
        for (qualifier, name) in std::mem::take(&mut self.attributes) {
            let may_call =
                hidden(None, &name).is_some() || self.is_user_function(&name) || self.state.made_functions.contains_key(&name);
            if may_call && !self.is_column(qualifier.as_deref(), &name) {
                self.called(None, &name);
            }
        }
    }

    fn is_user_function(&self, name: &str) -> bool {
        self.catalog.is_some_and(|catalog| catalog.functions_named(name).next().is_some())
    }

    /// Whether everything that `qualifier` stands for has a column of that name.
    fn is_column(&self, qualifier: Option<&str>, name: &str) -> bool {
        let Some(relations) = qualifier.and_then(|qualifier| self.aliases.get(qualifier)) else { return false };
        !relations.is_empty()
            && relations.iter().all(|oid| {
                let known = oid.and_then(|oid| self.catalog?.relation(oid));
                known.is_some_and(|relation| relation.columns.iter().any(|column| column.name == name))
            })
    }

    /// Every column that is named in `node`, sub-queries included, but in comparisons of a column with itself.
    pub(super) fn columns_of(&self, node: &NodeEnum) -> Vec<ColumnRef> {
        let mut finder = Walker::new(self.catalog, Cow::Borrowed(&*self.state), None, self.nested);
        finder.columns = Some(Vec::new());
        node.visit(&mut finder);
        finder.columns.unwrap_or_default()
    }

    // ---- Statements within ----------------------------------------------------------------------------

    /// Walks `node` as a statement of its own, takes up all that it does, and returns what it alone is.
    pub(super) fn inner(&mut self, node: &Node) -> Analysis {
        let tree = pg_query::protobuf::ParseResult {
            version: 0,
            stmts: vec![pg_query::protobuf::RawStmt { stmt: Some(Box::new(node.clone())), stmt_location: 0, stmt_len: 0 }],
        };
        self.inner_tree(&tree)
    }

    /// The same, of a tree that was made before.
    pub(super) fn inner_tree(&mut self, tree: &pg_query::protobuf::ParseResult) -> Analysis {
        if self.nested >= NESTED_MAX {
            self.unknown(format!("statements within statements, more than {NESTED_MAX} deep"));
            return Analysis::default();
        }
        let mut walker = Walker::new(self.catalog, self.state.clone(), None, self.nested + 1);
        walker.tree(tree);
        let analysis = walker.finish(Some(std::sync::Arc::new(tree.clone())));
        self.absorb(&analysis);
        analysis
    }

    /// Takes up what another statement does as this one's own.
    pub(super) fn absorb(&mut self, other: &Analysis) {
        for operation in &other.facts.operations {
            self.found.facts.add(operation.clone());
        }
        for unknown in &other.facts.unknown {
            self.found.facts.add_unknown(unknown.what.clone());
        }
        self.found.facts.kinds.extend(other.facts.kinds.iter().cloned());
        self.found.sensitive.extend(
            other.facts.attributes.get(super::SENSITIVE).into_iter().flat_map(|names| names.split(',')).map(str::to_owned),
        );
        for effect in &other.effects {
            self.effect(effect.clone());
        }
        self.found.relations.extend(other.relations.iter().cloned());
        self.found.functions.extend(other.functions.iter().cloned());
        self.found.literals_matter |= other.literals_matter;
        self.found.depends_on_state |= other.depends_on_state;
        self.found.depends_on_statements |= other.depends_on_statements;
        self.found.changes_catalog |= other.changes_catalog;
        self.found.unresolved |= other.unresolved;
        if self.found.copy.is_none() {
            self.found.copy = other.copy.clone();
        }
    }
}

impl Visit for RangeVar {
    fn visit(&self, walker: &mut Walker<'_>) {
        match walker.meaning {
            Meaning::Read if walker.is_common_table(self) => {
                let alias = self.alias.as_ref().map_or(&self.relname, |alias| &alias.aliasname);
                walker.aliases.entry(alias.clone()).or_default().push(None);
            }
            Meaning::Read => {
                walker.relation(self, "select", None);
            }
            Meaning::Act(action) => {
                walker.relation(self, action, None);
            }
        }
    }
}

impl Visit for FuncCall {
    fn visit(&self, walker: &mut Walker<'_>) {
        self.visit_fields(walker);
        walker.call(self);
    }
}

impl Visit for AExpr {
    fn visit(&self, walker: &mut Walker<'_>) {
        if walker.columns.is_some() && compares_alike(self) {
            return;
        }
        self.visit_fields(walker);
        walker.operator(&self.name);
    }
}

impl Visit for SubLink {
    fn visit(&self, walker: &mut Walker<'_>) {
        self.visit_fields(walker);
        walker.operator(&self.oper_name);
    }
}

impl Visit for SortBy {
    fn visit(&self, walker: &mut Walker<'_>) {
        self.visit_fields(walker);
        walker.operator(&self.use_op);
    }
}

impl Visit for ColumnRef {
    fn visit(&self, walker: &mut Walker<'_>) {
        if let Some(columns) = &mut walker.columns {
            columns.push(self.clone());
        }
        let names: Vec<Option<&str>> = self.fields.iter().map(string).collect();
        if let [.., Some(qualifier), Some(name)] = names.as_slice() {
            walker.attributes.insert((Some((*qualifier).to_owned()), (*name).to_owned()));
        }
    }
}

impl Visit for AIndirection {
    fn visit(&self, walker: &mut Walker<'_>) {
        self.visit_fields(walker);
        for name in strings(&self.indirection) {
            walker.attributes.insert((None, name.to_owned()));
        }
    }
}

impl Visit for RangeTableSample {
    fn visit(&self, walker: &mut Walker<'_>) {
        self.visit_fields(walker);
        let names = strings(&self.method);
        match qualified(&names) {
            Some((None | Some("pg_catalog"), "bernoulli" | "system")) => {}
            Some((schema, name)) => walker.called(schema, name),
            None => walker.unknown("a sampling method whose name is not understood"),
        }
    }
}

impl Visit for Alias {
    /// Of anything but a relation: what its columns are is not known.
    fn visit(&self, walker: &mut Walker<'_>) {
        walker.aliases.entry(self.aliasname.clone()).or_default().push(None);
    }
}

impl Visit for LockingClause {
    /// Its names are those of FROM: [`Walker::select`] looks there.
    fn visit(&self, _: &mut Walker<'_>) {}
}
