use super::*;
use crate::shop;
use proxy_core::results::CopyFormat;

fn rules(sql: &str) -> Arc<dyn ResultRules> {
    let plan = shop::plan();
    shop::shown(&plan, sql).expect("allowed").rules.expect("something is masked")
}

fn kind(rule: &ColumnRule) -> String {
    match rule {
        ColumnRule::Pass => "pass".to_owned(),
        ColumnRule::Mask(mask) => format!("mask {}", mask.class()),
        ColumnRule::Refuse(text) => format!("refuse {text}"),
    }
}

fn column(rules: &Arc<dyn ResultRules>, table: u32, column: i16) -> String {
    kind(&rules.column(Origin { table, column, type_id: 25 }))
}

#[test]
fn columns_go_by_their_origin() {
    let rules = rules("SELECT * FROM customers");
    assert_eq!(column(&rules, shop::CUSTOMERS, 1), "pass");
    assert_eq!(column(&rules, shop::CUSTOMERS, 2), "mask email");
    assert_eq!(column(&rules, shop::CUSTOMERS, 4), "mask card");
    assert_eq!(column(&rules, shop::PART, 1), "mask email");
    assert_eq!(column(&rules, shop::V_DIRECT, 2), "mask email");
    assert_eq!(column(&rules, shop::ORDERS, 3), "pass");
    assert_eq!(column(&rules, 0, 0), "pass", "expressions were looked at before");
    assert_eq!(column(&rules, 1259, 2), "pass");
    assert_eq!(column(&rules, 11_111, 2), "pass", "a system catalogue");
    assert_eq!(column(&rules, shop::CUSTOMERS, -6), "pass", "a system column");
    assert_eq!(column(&rules, 20_051, 2), "pass", "a class that is not hidden");
    for (table, number, text) in [
        (shop::CUSTOMERS, 0, "whole row"),
        (shop::CUSTOMERS, 6, "generated"),
        (shop::V_UPPER, 2, "computed in a view"),
        (shop::V_BROKEN, 1, "computed in a view"),
        (shop::V_FUNCTION, 2, "computed in a view"),
        (99_999, 1, "catalogue has changed"),
        (shop::ORDERS, 77, "catalogue has changed"),
        (shop::CUSTOMERS, 77, "catalogue has changed"),
    ] {
        let rule = column(&rules, table, number);
        assert!(rule.starts_with("refuse") && rule.contains(text), "{table}.{number}: {rule}");
    }
}

#[test]
fn a_temporary_tables_columns_pass() {
    let rules = rules("SELECT * FROM customers, scratch");
    assert_eq!(column(&rules, 99_999, 1), "pass");
    assert_eq!(column(&rules, shop::CUSTOMERS, 2), "mask email");
}

#[test]
fn hiding_nothing_or_another_class_discloses_all() {
    let plan = shop::plan();
    let flows = shop::flows_of(&plan, "SELECT upper(email) FROM customers");
    for hidden in [&[][..], &["lead"], &["nobody-knows"]] {
        let shown = disclose(&plan, &shop::names(hidden), &flows, &Circumstances::default()).expect("allowed");
        assert!(shown.rules.is_none() && !shown.withhold_messages, "{hidden:?}");
    }
    let refusal = disclose(&plan, &shop::names(&["email"]), &flows, &Circumstances::default()).unwrap_err();
    assert_eq!(
        refusal.message,
        "public.customers.email (class \"email\") is masked, and is used in an expression here, whose value cannot be masked"
    );
    assert_eq!(
        refusal.remedy,
        "select the column as it is (it comes back masked), or ask for the action unmask on DataClass::\"email\""
    );
}

#[test]
fn a_column_of_two_classes_is_masked_while_one_is_hidden() {
    let classify = |class: &str, column: &str| crate::Classify {
        class: class.to_owned(),
        columns: vec![format!("shop/public.customers.{column}")],
        detect: None,
    };
    let list = [classify("a", "email"), classify("b", "*mail")];
    let rules = crate::MaskRules::new(&list, &[], &[], &proxy_core::SecretBytes::new(vec![1; 32])).unwrap();
    let plan = Arc::new(MaskPlan::build(&rules, "shop", &shop::catalog()));
    let flows = shop::flows_of(&plan, "SELECT email FROM customers");
    for (hidden, expected) in [(&["a", "b"][..], "mask a"), (&["b"], "mask b"), (&["a"], "mask a")] {
        let shown = disclose(&plan, &shop::names(hidden), &flows, &Circumstances::default()).unwrap();
        assert_eq!(column(&shown.rules.unwrap(), shop::CUSTOMERS, 2), expected);
    }
}

fn copy(sql: &str, query: Option<&str>) -> Result<CopyShape, Refusal> {
    let plan = shop::plan();
    let out = CopyOut { format: CopyFormat::Binary, query: query.map(|query| Bytes::copy_from_slice(query.as_bytes())) };
    let circumstances = Circumstances { copy: Some(out), catalog_stale: false };
    disclose(&plan, &shop::names(&["email"]), &shop::flows_of(&plan, sql), &circumstances).map(|shown| shown.copy)
}

#[test]
fn copy_of_a_table_knows_its_columns() {
    let Ok(CopyShape::Columns { rules, types, .. }) = copy("COPY customers TO STDOUT", None) else { panic!("columns") };
    assert_eq!(
        rules.iter().map(kind).collect::<Vec<_>>(),
        ["pass", "mask email", "pass", "pass", "pass"],
        "without the generated one"
    );
    assert_eq!(types, [23, 25, 1043, 25, 23]);
    let Ok(CopyShape::Columns { rules, types, .. }) = copy("COPY customers (name, email) TO STDOUT", None) else {
        panic!("columns")
    };
    assert_eq!(rules.iter().map(kind).collect::<Vec<_>>(), ["pass", "mask email"]);
    assert_eq!(types, [1043, 25]);
    assert!(matches!(copy("COPY orders TO STDOUT", None), Ok(CopyShape::Pass)));
    assert!(copy("COPY customers (nope) TO STDOUT", None).is_err());
}

#[test]
fn copy_of_a_query_is_described() {
    let sql = "COPY (SELECT email FROM customers) TO STDOUT";
    let Ok(CopyShape::Describe { query, .. }) = copy(sql, Some("SELECT email FROM customers")) else { panic!("describe") };
    assert_eq!(&query[..], b"SELECT email FROM customers");
    assert!(copy(sql, None).is_err(), "without the query's text it cannot be described");
    assert!(matches!(copy("COPY (SELECT note FROM orders) TO STDOUT", None), Ok(CopyShape::Pass)));
    assert!(copy("COPY customers TO STDOUT; COPY archive TO STDOUT", None).is_err(), "two in one batch");
    let plan = shop::plan();
    let flows = shop::flows_of(&plan, sql);
    let unknown = disclose(&plan, &shop::names(&["email"]), &flows, &Circumstances::default());
    assert!(unknown.is_err(), "without its form");
}

#[test]
fn what_acts_is_refused_before_it_runs_where_its_result_would_be() {
    let plan = shop::plan();
    for sql in [
        "INSERT INTO customers (email) VALUES ('a') RETURNING gen_search",
        "UPDATE customers SET region = 1 RETURNING *",
        "DELETE FROM customers c WHERE id = 1 RETURNING c.gen_search AS x",
        "MERGE INTO customers c USING orders o ON c.id = o.customer WHEN MATCHED THEN DELETE RETURNING c.gen_search",
        "WITH w AS (UPDATE orders SET note = '' RETURNING id) SELECT u FROM v_upper JOIN w USING (id)",
        "WITH w AS (UPDATE customers SET region = 1 RETURNING gen_search) SELECT gen_search FROM w",
        "SELECT u FROM v_upper; TRUNCATE orders",
        "INSERT INTO orders (note) VALUES (''); SELECT u FROM v_upper",
    ] {
        let refusal = shop::shown(&plan, sql).expect_err(sql);
        let said = ["is generated from", "is computed in a view"].iter().any(|words| refusal.message.contains(words));
        assert!(said, "{sql}: {}", refusal.message);
    }
    for sql in [
        "SELECT u FROM v_upper",
        "SELECT gen_search FROM customers",
        "INSERT INTO customers (email) VALUES ('a') RETURNING id, email",
        "UPDATE customers SET region = 1 WHERE gen_search IS NOT NULL RETURNING id",
        "WITH w AS (UPDATE customers SET region = 1 RETURNING id, gen_search) SELECT id FROM w",
    ] {
        assert!(shop::shown(&plan, sql).is_ok(), "{sql}");
    }
}

#[test]
fn a_stale_catalogue_refuses_what_depends_on_it() {
    let plan = shop::plan();
    let stale = Circumstances { copy: None, catalog_stale: true };
    let shown = |sql: &str| disclose(&plan, &shop::names(&["email"]), &shop::flows_of(&plan, sql), &stale);
    assert!(shown("SELECT note FROM orders").is_err());
    assert!(shown("SELECT now()").is_err());
    assert!(shown("SELECT note FROM orders; SELECT 1").is_err(), "every statement of a batch counts");
    assert!(shown("SELECT 1").is_ok());
    assert!(shown("SELECT 1; SELECT 2").is_ok());
    assert!(shown("COMMIT").is_ok());
    assert!(shop::flows_of(&plan, "CREATE TABLE t (id int)").redefines);
    assert!(!shop::flows_of(&plan, "SELECT 1").redefines);
}
