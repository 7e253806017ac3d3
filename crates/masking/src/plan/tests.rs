use super::*;
use crate::shop;

fn mark(plan: &MaskPlan, oid: u32, column: i16) -> (Vec<String>, bool) {
    match plan.mark(oid, column) {
        None => (Vec::new(), false),
        Some(mark) => {
            let anything = mark.classes().meets(ClassSet::ANYTHING);
            let mut names = plan.class_names(mark.classes());
            names.extend(anything.then(|| "anything".to_owned()));
            (names, matches!(mark, Mark::Opaque(..)))
        }
    }
}

#[test]
fn tables_partitions_and_generated_columns() {
    let plan = shop::plan();
    let email = || vec!["email".to_owned()];
    assert_eq!(mark(&plan, shop::CUSTOMERS, 2), (email(), false));
    assert_eq!(mark(&plan, shop::CUSTOMERS, 4), (vec!["card".to_owned()], false));
    assert_eq!(mark(&plan, shop::CUSTOMERS, 1), (vec![], false));
    assert_eq!(mark(&plan, shop::ORDERS, 3), (vec![], false), "the same name in another table");
    assert_eq!(mark(&plan, shop::PART, 1), (email(), false), "a partition's column, at another place");
    assert_eq!(mark(&plan, shop::PART, 2), (vec![], false));
    let both = vec!["email".to_owned(), "card".to_owned()];
    assert_eq!(mark(&plan, shop::CUSTOMERS, 6), (both.clone(), true), "generated from who knows what");
    assert_eq!(mark(&plan, shop::PART, 6), (both, true));
    assert_eq!(plan.classes(), ["email", "card", "lead"]);
}

#[test]
fn a_partition_that_is_classified_classifies_its_parent() {
    let list = [crate::Classify { class: "x".to_owned(), columns: vec!["*/*.customers_2024.name".to_owned()], detect: None }];
    let rules = MaskRules::new(&list, &[], &[], &proxy_core::SecretBytes::new(vec![1; 32])).unwrap();
    let plan = MaskPlan::build(&rules, "any", &shop::catalog());
    assert_eq!(mark(&plan, shop::CUSTOMERS, 3), (vec!["x".to_owned()], false));
    assert_eq!(mark(&plan, shop::PART, 3), (vec!["x".to_owned()], false));
}

#[test]
fn views_through_their_definitions() {
    let plan = shop::plan();
    let email = || vec!["email".to_owned()];
    assert_eq!(mark(&plan, shop::V_DIRECT, 1), (vec![], false));
    assert_eq!(mark(&plan, shop::V_DIRECT, 2), (email(), false));
    assert_eq!(mark(&plan, shop::V_UPPER, 1), (vec![], false));
    assert_eq!(mark(&plan, shop::V_UPPER, 2), (email(), true));
    assert_eq!(mark(&plan, shop::V_ON_V, 1), (email(), false), "a view on a view");
    assert_eq!(mark(&plan, shop::V_ON_UPPER, 1), (email(), true), "a view on a computed column");
    assert_eq!(mark(&plan, shop::V_CLEAN, 1), (vec![], false));
    assert_eq!(mark(&plan, shop::V_CLEAN, 2), (vec![], false), "how many is not which");
    assert_eq!(mark(&plan, shop::V_UNION, 1), (email(), true));
    let anything = || vec!["anything".to_owned()];
    assert_eq!(mark(&plan, shop::V_BROKEN, 1), (anything(), true), "what cannot be parsed could be anything");
    assert_eq!(mark(&plan, shop::V_FUNCTION, 1), (vec![], false));
    assert_eq!(mark(&plan, shop::V_FUNCTION, 2), (anything(), true), "a function that is not declared safe");
    assert_eq!(mark(&plan, shop::V_DECLARED, 1), (email(), false), "a pattern says what it holds");
}

#[test]
fn another_connection_has_an_empty_plan() {
    let plan = MaskPlan::build(&shop::rules(), "other", &shop::catalog());
    assert!(plan.is_empty() && plan.classes().is_empty());
    assert!(crate::flows(&shop::parse("SELECT email FROM customers"), &plan, &shop_resolver(&plan)).is_harmless());
}

fn shop_resolver(plan: &MaskPlan) -> crate::CatalogResolver<'_> {
    crate::CatalogResolver { catalog: plan.catalog(), search_path: None, temporary: &[] }
}

#[test]
fn which_functions_are_safe() {
    let plan = shop::plan();
    for (schema, name, callee) in [
        (None, "lower", Callee::Safe),
        (Some("pg_catalog"), "lower", Callee::Safe),
        (Some("pg_catalog"), "query_to_xml", Callee::Unsafe),
        (None, "query_to_xml", Callee::Unsafe),
        (None, "similarity", Callee::Safe),
        (Some("public"), "similarity", Callee::Safe),
        (None, "dblink", Callee::Unsafe),
        (None, "get_email", Callee::Unsafe),
        (Some("public"), "fine", Callee::Safe),
        (None, "fine", Callee::Safe),
        (Some("crm"), "fine", Callee::Unsafe),
        (None, "never_heard_of", Callee::Unsafe),
        (Some("public"), "lower", Callee::Unsafe),
        (Some("pg_temp"), "lower", Callee::Unsafe),
    ] {
        assert_eq!(plan.callee(schema, name), callee, "{schema:?} {name}");
    }
}
