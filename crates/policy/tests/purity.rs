//! A decision is a function of what went in: whatever was remembered, by whichever session, changes nothing.

mod common;

use common::{Caller, Catalogs, service, session, set, table, target};
use masking::{Classify, MaskRules, MaskSpec, MaskWith};
use policy::PolicyEngine;
use proptest::prelude::*;
use proxy_core::pipeline::SessionFacts;
use proxy_core::{Decision, RequestKind, SecretBytes, Statement};

const STATEMENTS: [&str; 30] = [
    "SELECT total FROM orders WHERE id = 1",
    "SELECT total FROM orders WHERE id = 2",
    "SELECT total FROM archive.orders",
    "SELECT email FROM customers",
    "SELECT upper(email) FROM customers",
    "SELECT name FROM customers WHERE email = 'a@example.com'",
    "UPDATE orders SET total = 1 WHERE id = 2",
    "UPDATE orders SET total = 1",
    "DELETE FROM orders",
    "DELETE FROM orders WHERE id = 3",
    "INSERT INTO orders (id) VALUES (4)",
    "SET search_path = archive, public",
    "SET search_path = public",
    "SELECT set_config('search_path', 'archive', false)",
    "SELECT set_config('search_path', 'public', false)",
    "RESET ALL",
    "CREATE TEMP TABLE orders (id int)",
    "DROP TABLE orders",
    "PREPARE p AS SELECT total FROM orders",
    "PREPARE p AS SELECT email FROM customers",
    "EXECUTE p",
    "DEALLOCATE p",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "DECLARE c CURSOR FOR SELECT email FROM customers",
    "FETCH ALL FROM c",
    "SET ROLE admin",
    "SELECT 'archive.orders'::regclass",
    "ALTER TABLE orders ADD COLUMN note text",
];

const POLICIES: [&str; 3] = [
    "permit (principal, action, resource) unless { resource is DataClass || resource in Schema::\"orders-prod/orders/archive\" };",
    "permit (principal, action, resource);
     @id(\"hold\") @approval(\"dba\") forbid (principal, action == Action::\"update\", resource) unless { context.approved };
     @id(\"where\") forbid (principal, action in [Action::\"update\", Action::\"delete\"], resource) unless { context.has_where };",
    "permit (principal in Role::\"writer\", action in [Action::\"read\", Action::\"connect\"], resource);
     forbid (principal, action, resource) when { context.statement like \"*2*\" };",
];

fn rules() -> MaskRules {
    let classify = [Classify { class: "email".into(), columns: vec!["orders-prod/public.customers.email".into()], detect: None }];
    let masks = [MaskSpec { class: "email".into(), with: MaskWith::Redact }];
    MaskRules::new(&classify, &masks, &[], &SecretBytes::new(vec![7; 32])).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn engine(policies: usize) -> PolicyEngine {
    let relations = vec![
        table(20_001, "public", "customers", &["id", "name", "email"]),
        table(20_002, "public", "orders", &["id", "total"]),
        table(20_003, "archive", "orders", &["id", "total"]),
    ];
    PolicyEngine::new(set(POLICIES[policies % POLICIES.len()]), rules(), Catalogs::with(relations))
}

fn who(number: usize) -> SessionFacts {
    let roles: &[&str] = if number.is_multiple_of(2) { &["writer"] } else { &[] };
    session(service(["a", "b"][number / 2 % 2], roles), target(&[("env", "prod")]))
}

/// What can be seen of a decision.
fn seen(decision: &Decision) -> String {
    let Decision { verdict, policies, policy_version, facts, disclosure } = decision;
    let masks = (disclosure.rules.is_some(), disclosure.withhold_messages, format!("{:?}", disclosure.copy));
    format!("{verdict:?} {policies:?} {policy_version} {facts:?} {masks:?}")
}

fn decide(caller: &mut Caller, step: (usize, bool)) -> String {
    let (number, prepare) = step;
    let text = STATEMENTS[number % STATEMENTS.len()];
    if prepare {
        let mut request = caller.request(RequestKind::Prepare, Statement::Sql(text.into()));
        request.prepared_as = Some("p".into());
        return seen(&caller.decide(&request, None));
    }
    seen(&caller.sql(text))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Many sessions take turns on one engine and share what is remembered. Each one's last decision is the
    /// same as on an engine that knows nothing but that session's own requests.
    #[test]
    fn nothing_that_was_remembered_changes_an_answer(
        policies in 0usize..3,
        turns in prop::collection::vec((0usize..4, 0usize..STATEMENTS.len(), prop::bool::weighted(0.15)), 1..40),
    ) {
        let shared = engine(policies);
        let mut callers: Vec<Caller> = (0..4).map(|number| Caller::new(&shared, &who(number))).collect();
        let mut histories: Vec<Vec<(usize, bool)>> = vec![Vec::new(); 4];
        let mut answers: Vec<Vec<String>> = vec![Vec::new(); 4];
        for (number, statement, prepare) in turns {
            histories[number].push((statement, prepare));
            answers[number].push(decide(&mut callers[number], (statement, prepare)));
        }
        for number in 0..4 {
            let alone = engine(policies);
            let mut caller = Caller::new(&alone, &who(number));
            for (step, answer) in histories[number].iter().zip(&answers[number]) {
                prop_assert_eq!(&decide(&mut caller, *step), answer, "{}", STATEMENTS[step.0]);
            }
        }
    }
}
