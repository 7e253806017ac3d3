//! Explanations: what `sallyport policy explain` shows.

mod common;

use common::{Catalogs, NOW, service, set, table, target};
use masking::{Classify, MaskRules, MaskSpec, MaskWith};
use policy::PolicyEngine;
use policy::explain::{Explanation, Question};
use proxy_core::SecretBytes;
use std::sync::Arc;

const POLICIES: &str = "@id(\"open\") permit (principal, action == Action::\"connect\", resource);
@id(\"read\")
@description(\"Readers read.\")
permit (principal in Role::\"reader\", action in Action::\"read\", resource);
@id(\"write\") permit (principal in Role::\"reader\", action in Action::\"write\", resource);
@id(\"hold\") @approval(\"dba\") forbid (principal, action == Action::\"update\", resource) unless { context.approved };
@id(\"where\") @remedy(\"add a WHERE\") forbid (principal, action == Action::\"delete\", resource) unless { context.has_where };";

fn explain(statement: &str, roles: &[&str]) -> Explanation {
    let classify = [Classify { class: "email".into(), columns: vec!["orders-prod/public.customers.email".into()], detect: None }];
    let masks = [MaskSpec { class: "email".into(), with: MaskWith::Redact }];
    let rules =
        MaskRules::new(&classify, &masks, &[], &SecretBytes::new(vec![7; 32])).unwrap_or_else(|problems| panic!("{problems:?}"));
    let relations =
        vec![table(20_001, "public", "customers", &["id", "email"]), table(20_002, "public", "orders", &["id", "total"])];
    let engine = PolicyEngine::new(set(POLICIES), rules, Catalogs::with(relations));
    let question = Question {
        principal: Arc::new(service("ci", roles)),
        target: Arc::new(target(&[])),
        source: "10.0.0.1".into(),
        application: String::new(),
        settings: Vec::new(),
        statement: statement.into(),
        now: NOW,
    };
    engine.explain(&question).expect("the catalogue is there")
}

#[test]
fn an_allowed_statement_names_facts_policies_and_masks() {
    let found = explain("SELECT id, email FROM customers", &["reader"]);
    assert_eq!(found.verdict, "allow");
    assert_eq!(found.policies.iter().map(|policy| policy.id.as_str()).collect::<Vec<_>>(), ["read"]);
    assert_eq!(found.policies[0].place, "test.cedar:2");
    assert!(found.policies[0].text.contains("Role::\"reader\""));
    assert_eq!((found.results.masked_classes.clone(), found.results.checked), (vec!["email".to_owned()], true));
    let page = found.to_string();
    for part in
        ["select on table public.customers", "decision   allow", "permit read, test.cedar:2", "columns of email are masked"]
    {
        assert!(page.contains(part), "{part:?} in\n{page}");
    }
}

#[test]
fn a_denied_statement_says_why_and_what_to_do() {
    let page = explain("DELETE FROM orders", &["reader"]).to_string();
    for part in
        ["decision   deny: delete on table public.orders without WHERE", "remedy     add a WHERE", "forbid where, test.cedar:7"]
    {
        assert!(page.contains(part), "{part:?} in\n{page}");
    }
    let page = explain("SELECT id FROM orders", &[]).to_string();
    assert!(page.contains("policies   none"), "{page}");
}

#[test]
fn a_held_statement_says_for_whom_it_waits() {
    let found = explain("UPDATE orders SET total = 1 WHERE id = 2", &["reader"]);
    assert_eq!((found.verdict.as_str(), found.reviewers.clone()), ("hold", vec!["dba".to_owned()]));
    assert!(found.to_string().contains("update on table public.orders waits for dba"), "{found}");
}

#[test]
fn a_refused_result_says_which_column() {
    let found = explain("SELECT upper(email) FROM customers", &["reader"]);
    assert_eq!(found.verdict, "deny");
    assert!(found.what.as_deref().is_some_and(|what| what.contains("email")), "{found}");
}

#[test]
fn it_can_be_read_by_machines() {
    let json = serde_json::to_value(explain("SELECT id FROM orders", &["reader"])).expect("it is JSON");
    assert_eq!(json["verdict"], "allow");
    assert_eq!(json["facts"]["operations"][0]["action"], "select");
}
