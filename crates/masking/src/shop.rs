//! A small database for tests: its catalogue, rules and plan.

use crate::{CatalogResolver, Circumstances, Classify, Flows, MaskPlan, MaskRules, MaskSpec, MaskWith, Refusal, disclose, flows};
use pg_query::protobuf::ParseResult;
use proxy_core::catalog::{Column, Function, Relation, RelationKind};
use proxy_core::{Catalog, Disclosure, SecretBytes};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) const CUSTOMERS: u32 = 20_001;
pub(crate) const ORDERS: u32 = 20_002;
pub(crate) const ARCHIVE: u32 = 20_003;
pub(crate) const PART: u32 = 20_004;
pub(crate) const V_DIRECT: u32 = 20_011;
pub(crate) const V_UPPER: u32 = 20_012;
pub(crate) const V_ON_V: u32 = 20_013;
pub(crate) const V_CLEAN: u32 = 20_014;
pub(crate) const V_UNION: u32 = 20_015;
pub(crate) const V_BROKEN: u32 = 20_016;
pub(crate) const V_FUNCTION: u32 = 20_017;
pub(crate) const V_ON_UPPER: u32 = 20_018;
pub(crate) const V_DECLARED: u32 = 20_019;

fn relation(oid: u32, schema: &str, name: &str, kind: RelationKind, columns: &[(&str, u32)]) -> Relation {
    let column = |(at, (name, type_id)): (usize, &(&str, u32))| Column {
        number: i16::try_from(at + 1).expect("few"),
        name: (*name).to_owned(),
        type_id: *type_id,
        generated: name.starts_with("gen_"),
    };
    Relation {
        oid,
        schema: schema.to_owned(),
        name: name.to_owned(),
        kind,
        columns: columns.iter().enumerate().map(column).collect(),
        definition: None,
        parents: Vec::new(),
    }
}

fn view(oid: u32, name: &str, columns: &[(&str, u32)], definition: &str) -> Relation {
    let mut view = relation(oid, "public", name, RelationKind::View, columns);
    view.definition = Some(definition.to_owned());
    view
}

fn function(oid: u32, name: &str, language: &str) -> Function {
    let from_extension = language == "c";
    Function { oid, schema: "public".to_owned(), name: name.to_owned(), from_extension, language: language.to_owned() }
}

/// Tables, views and functions of every kind that masking knows.
pub(crate) fn relations() -> Vec<Relation> {
    let table = RelationKind::Table;
    let mut part = relation(
        PART,
        "public",
        "customers_2024",
        table,
        &[("email", 25), ("id", 23), ("name", 1043), ("card", 25), ("region", 23), ("gen_search", 3614)],
    );
    part.parents = vec![CUSTOMERS];
    let customers = [("id", 23), ("email", 25), ("name", 1043), ("card", 25), ("region", 23), ("gen_search", 3614)];
    vec![
        relation(CUSTOMERS, "public", "customers", table, &customers),
        relation(ORDERS, "public", "orders", table, &[("id", 23), ("customer", 23), ("email", 25), ("note", 25), ("region", 20)]),
        relation(ARCHIVE, "public", "archive", table, &[("id", 23), ("email", 25), ("note", 25)]),
        part,
        view(V_DIRECT, "v_direct", &[("id", 23), ("e", 25)], "SELECT customers.id, customers.email AS e FROM public.customers;"),
        view(
            V_UPPER,
            "v_upper",
            &[("id", 23), ("u", 25)],
            "SELECT customers.id, upper(customers.email) AS u FROM public.customers;",
        ),
        view(V_ON_V, "v_on_v", &[("x", 25)], "SELECT v_direct.e AS x FROM public.v_direct;"),
        view(V_CLEAN, "v_clean", &[("id", 23), ("n", 20)], "SELECT id, count(*) AS n FROM public.customers GROUP BY id;"),
        view(
            V_UNION,
            "v_union",
            &[("x", 25)],
            "SELECT customers.email AS x FROM public.customers UNION ALL SELECT orders.note FROM public.orders;",
        ),
        view(V_BROKEN, "v_broken", &[("x", 25)], "SELECT THIS IS NOT SQL"),
        view(V_FUNCTION, "v_function", &[("id", 23), ("f", 25)], "SELECT id, public.get_email(id) AS f FROM public.orders;"),
        view(V_ON_UPPER, "v_on_upper", &[("y", 25)], "SELECT v_upper.u AS y FROM public.v_upper;"),
        view(V_DECLARED, "v_declared", &[("email", 25)], "SELECT lower(customers.email) AS email FROM public.customers;"),
        relation(12_000, "pg_catalog", "pg_stats", RelationKind::View, &[("tablename", 19), ("most_common_vals", 2277)]),
        relation(1259, "pg_catalog", "pg_class", table, &[("oid", 26), ("relname", 19)]),
        relation(20_050, "crm", "customers", table, &[("id", 23), ("email", 25)]),
        relation(20_051, "crm", "leads", table, &[("id", 23), ("secret", 25)]),
    ]
}

pub(crate) fn catalog() -> Arc<Catalog> {
    let functions = vec![
        function(30_001, "get_email", "plpgsql"),
        function(30_002, "similarity", "c"),
        function(30_003, "dblink", "c"),
        function(30_004, "fine", "sql"),
        function(30_005, "move_rows", "plpgsql"),
    ];
    Arc::new(Catalog::new(1, 150_018, vec!["public".to_owned()], relations(), functions))
}

pub(crate) fn rules() -> MaskRules {
    let classify = |class: &str, columns: &[&str]| Classify {
        class: class.to_owned(),
        columns: columns.iter().map(|&text| text.to_owned()).collect(),
        detect: None,
    };
    let list = [
        classify("email", &["shop/public.customers.email", "shop/public.archive.email", "shop/public.v_declared.email"]),
        classify("card", &["shop/public.customers.card"]),
        classify("lead", &["shop/crm.leads.secret"]),
    ];
    let masks = [
        MaskSpec { class: "email".to_owned(), with: MaskWith::Email },
        MaskSpec { class: "card".to_owned(), with: MaskWith::Partial { first: 0, last: 4 } },
    ];
    let safe = ["shop/public.fine".to_owned()];
    MaskRules::new(&list, &masks, &safe, &SecretBytes::new(vec![7; 32])).expect("they are right")
}

pub(crate) fn plan() -> Arc<MaskPlan> {
    Arc::new(MaskPlan::build(&rules(), "shop", &catalog()))
}

pub(crate) fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

pub(crate) fn parse(sql: &str) -> ParseResult {
    crate::grammar::parse(sql, 0).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// What the statement could show, for a session with `public` as its path and the temporary table `scratch`.
pub(crate) fn flows_of(plan: &MaskPlan, sql: &str) -> Flows {
    let path = ["public".to_owned()];
    let temporary = ["scratch".to_owned()];
    let resolver = CatalogResolver { catalog: plan.catalog(), search_path: Some(&path), temporary: &temporary };
    flows(&parse(sql), plan, &resolver)
}

/// What somebody from whom `email` and `card` are hidden is shown.
pub(crate) fn shown(plan: &Arc<MaskPlan>, sql: &str) -> Result<Disclosure, Refusal> {
    disclose(plan, &names(&["email", "card"]), &flows_of(plan, sql), &Circumstances::default())
}
