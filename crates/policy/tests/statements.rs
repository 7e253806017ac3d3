//! Decisions on SQL: what is remembered, when it stops being true, and what waits for a catalogue.

mod common;

use common::{Caller, Catalogs, NOW, denial, service, session, set, table, target, word};
use masking::{Classify, MaskRules, MaskSpec, MaskWith};
use policy::{NoCatalog, PolicyEngine};
use proxy_core::pipeline::{Approval, SessionFacts};
use proxy_core::{Decision, Facts, RequestKind, SecretBytes, Statement, Timestamp, Verdict};
use std::sync::Arc;

const PERMIT_ALL: &str = "@id(\"all\") permit (principal, action, resource) unless { resource is DataClass };";

fn shop() -> Vec<proxy_core::catalog::Relation> {
    vec![
        table(20_001, "public", "customers", &["id", "name", "email"]),
        table(20_002, "public", "orders", &["id", "customer", "total"]),
        table(20_003, "archive", "orders", &["id", "customer", "total"]),
    ]
}

/// `customers.email` is of the class `email`.
fn email_rules() -> MaskRules {
    let classify = [Classify { class: "email".into(), columns: vec!["orders-prod/public.customers.email".into()], detect: None }];
    let masks = [MaskSpec { class: "email".into(), with: MaskWith::Redact }];
    MaskRules::new(&classify, &masks, &[], &SecretBytes::new(vec![7; 32])).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn facts() -> SessionFacts {
    session(service("ci", &["writer"]), target(&[("env", "prod")]))
}

fn on_shop(text: &str) -> (PolicyEngine, Arc<Catalogs>) {
    let catalogs = Catalogs::with(shop());
    (PolicyEngine::new(set(text), MaskRules::default(), catalogs.clone()), catalogs)
}

fn masked(text: &str) -> (PolicyEngine, Arc<Catalogs>) {
    let catalogs = Catalogs::with(shop());
    (PolicyEngine::new(set(text), email_rules(), catalogs.clone()), catalogs)
}

/// Whether the second decision was remembered: it shares the facts with the first.
fn shared(first: &Decision, second: &Decision) -> bool {
    Arc::ptr_eq(&first.facts, &second.facts)
}

fn objects(facts: &Facts) -> Vec<String> {
    facts.operations.iter().map(|operation| format!("{} {}", operation.action, operation.object)).collect()
}

#[test]
fn statements_that_differ_by_literals_share_a_decision() {
    let (engine, _) = on_shop(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    let first = caller.sql("SELECT total FROM orders WHERE id = 1");
    assert!(shared(&first, &caller.sql("SELECT total FROM orders WHERE id = 2")));
    assert!(
        shared(&first, &Caller::new(&engine, &facts()).sql("SELECT total FROM orders WHERE id = 3")),
        "other sessions as well"
    );
    assert!(!shared(&first, &caller.sql("SELECT total FROM customers WHERE id = 1")));
}

#[test]
fn two_principals_do_not_share_decisions() {
    let (engine, _) = on_shop("permit (principal == Service::\"dev/a\", action, resource);");
    let mut a = Caller::new(&engine, &session(service("a", &[]), target(&[])));
    let mut b = Caller::new(&engine, &session(service("b", &[]), target(&[])));
    assert_eq!(word(&a.sql("SELECT total FROM orders")), "allow");
    assert_eq!(word(&b.sql("SELECT total FROM orders")), "deny");
    assert_eq!(word(&a.sql("SELECT total FROM orders")), "allow");
}

#[test]
fn the_same_principal_with_other_roles_or_on_another_target_does_not_share() {
    let (engine, _) = on_shop(
        "permit (principal in Role::\"r\", action, resource) when { resource.hasTag(\"env\") && resource.getTag(\"env\") == \"dev\" };",
    );
    let decide = |roles: &[&str], env: &str| {
        word(&Caller::new(&engine, &session(service("a", roles), target(&[("env", env)]))).sql("SELECT total FROM orders"))
    };
    assert_eq!(decide(&["r"], "dev"), "allow");
    assert_eq!(decide(&[], "dev"), "deny");
    assert_eq!(decide(&["r"], "prod"), "deny");
}

#[test]
fn what_a_policy_reads_of_the_session_keeps_sessions_apart() {
    let (engine, _) = on_shop(
        "permit (principal, action, resource) when { context.application == \"report\" && context.source.isInRange(ip(\"10.0.0.0/8\")) };",
    );
    let decide = |application: &str, source: &str| {
        let facts = SessionFacts { application: application.into(), source: source.into(), ..facts() };
        word(&Caller::new(&engine, &facts).sql("SELECT total FROM orders"))
    };
    assert_eq!(decide("report", "10.0.0.1"), "allow");
    assert_eq!(decide("psql", "10.0.0.1"), "deny");
    assert_eq!(decide("report", "192.168.0.1"), "deny");
}

#[test]
fn a_reload_takes_back_what_was_remembered() {
    let (engine, _) = on_shop(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    assert_eq!(word(&caller.sql("SELECT total FROM orders")), "allow");
    engine.activate(set("permit (principal, action == Action::\"connect\", resource);"));
    assert_eq!(word(&caller.sql("SELECT total FROM orders")), "deny");
    engine.activate(set(PERMIT_ALL));
    assert_eq!(word(&caller.sql("SELECT total FROM orders")), "allow");
}

#[test]
fn the_hour_takes_back_what_was_remembered() {
    let (engine, _) = on_shop("permit (principal, action, resource) when { context.hour == 11 };");
    let mut caller = Caller::new(&engine, &facts());
    assert_eq!(word(&caller.sql("SELECT total FROM orders")), "allow");
    caller.now = Timestamp(NOW.0 + 3_600 * 1_000_000);
    assert_eq!(word(&caller.sql("SELECT total FROM orders")), "deny");
}

#[test]
fn the_search_path_takes_back_what_was_remembered() {
    let (engine, _) =
        on_shop("permit (principal, action, resource) unless { resource in Schema::\"orders-prod/orders/archive\" };");
    let mut caller = Caller::new(&engine, &facts());
    let before = caller.sql("SELECT total FROM orders");
    assert_eq!((word(&before), objects(&before.facts)), ("allow", vec!["select table public.orders".to_owned()]));
    assert_eq!(word(&caller.sql("SET search_path = archive")), "allow");
    let after = caller.sql("SELECT total FROM orders");
    assert_eq!(word(&after), "deny", "{:?}", objects(&after.facts));
    assert_eq!(word(&Caller::new(&engine, &facts()).sql("SELECT total FROM orders")), "allow", "others are not concerned");
}

#[test]
fn a_session_that_starts_with_another_search_path_does_not_share() {
    let (engine, _) = on_shop(PERMIT_ALL);
    let archive = SessionFacts { settings: vec![("search_path".into(), "archive".into())], ..facts() };
    let public = Caller::new(&engine, &facts()).sql("SELECT total FROM orders");
    let other = Caller::new(&engine, &archive).sql("SELECT total FROM orders");
    assert_eq!(objects(&public.facts), ["select table public.orders"]);
    assert!(objects(&other.facts).contains(&"select table archive.orders".to_owned()), "{:?}", objects(&other.facts));
}

#[test]
fn a_temporary_table_takes_back_what_was_remembered() {
    let (engine, _) = on_shop(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    let before = caller.sql("SELECT total FROM orders");
    caller.sql("CREATE TEMP TABLE orders (total int)");
    let after = caller.sql("SELECT total FROM orders");
    assert!(!shared(&before, &after));
    assert_ne!(before.facts, after.facts, "it may be the temporary one now");
}

#[test]
fn a_new_catalogue_takes_back_what_was_remembered() {
    let (engine, catalogs) = masked(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    assert!(caller.sql("SELECT total FROM public.orders").disclosure.rules.is_none());
    let mut relations = shop();
    relations[1] = table(20_002, "public", "orders_old", &["id"]);
    relations.push(table(20_009, "public", "customers_too", &["email"]));
    catalogs.put(relations);
    let decision = caller.sql("SELECT email FROM public.customers");
    assert!(decision.disclosure.rules.is_some());
}

#[test]
fn new_mask_rules_take_back_what_was_remembered() {
    let (engine, _) = on_shop(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    assert!(caller.sql("SELECT email FROM customers").disclosure.rules.is_none());
    engine.set_masks(email_rules());
    assert!(caller.sql("SELECT email FROM customers").disclosure.rules.is_some());
    engine.set_masks(MaskRules::default());
    assert!(caller.sql("SELECT email FROM customers").disclosure.rules.is_none());
}

#[test]
fn words_that_are_not_literals_are_never_mixed_up() {
    let (engine, _) = on_shop(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    for (a, b) in [
        ("SET ROLE reader", "SET ROLE admin"),
        ("SET ROLE 'reader'", "SET ROLE 'admin'"),
        ("SELECT * FROM orders_2024_01", "SELECT * FROM orders_2024_02"),
        ("SELECT id, total FROM orders", "SELECT total, id FROM orders"),
        ("GRANT SELECT ON orders TO a", "GRANT SELECT ON orders TO b"),
        ("EXECUTE p", "EXECUTE q"),
        ("DO 'BEGIN DELETE FROM orders; END'", "DO 'BEGIN NULL; END'"),
        ("SELECT set_config('search_path', 'archive', false)", "SELECT set_config('work_mem', '64MB', false)"),
        ("SELECT 'public.orders'::regclass", "SELECT 'archive.orders'::regclass"),
    ] {
        let (first, second) = (caller.sql(a), caller.sql(b));
        assert!(!shared(&first, &second), "{a} and {b}");
    }
}

#[test]
fn a_policy_that_reads_texts_sees_each_of_them() {
    let (engine, _) = on_shop(&format!(
        "{PERMIT_ALL} @id(\"secret\") forbid (principal, action == Action::\"select\", resource) when {{ context.statement like \"*secret*\" }};"
    ));
    let mut caller = Caller::new(&engine, &facts());
    assert_eq!(word(&caller.sql("SELECT total FROM orders WHERE customer = 'open'")), "allow");
    assert_eq!(word(&caller.sql("SELECT total FROM orders WHERE customer = 'secret'")), "deny");
    assert_eq!(word(&caller.sql("SELECT total FROM orders WHERE customer = 'open'")), "allow");
}

#[test]
fn what_cannot_be_read_is_unknown() {
    let (engine, _) = on_shop("permit (principal, action, resource) unless { action == Action::\"unknown\" };");
    let mut caller = Caller::new(&engine, &facts());
    for text in ["SELEC 1", "SELECT 'open", "DO 'BEGIN EXECUTE chr(68); END'"] {
        let decision = caller.sql(text);
        assert_eq!(word(&decision), "deny", "{text}");
        assert!(!decision.facts.unknown.is_empty(), "{text}");
    }
    let latin = caller.request(RequestKind::Query, Statement::Sql(b"SELECT '\xe9'"[..].into()));
    assert_eq!(word(&caller.decide(&latin, None)), "deny");
}

#[test]
fn a_held_statement_runs_once_approved_and_may_be_prepared() {
    let (engine, _) = on_shop(&format!(
        "{PERMIT_ALL} @id(\"hold\") @approval(\"dba\") forbid (principal, action == Action::\"update\", resource) unless {{ context.approved }};"
    ));
    let mut caller = Caller::new(&engine, &facts());
    let request = caller.request(RequestKind::Query, Statement::Sql("UPDATE orders SET total = 1 WHERE id = 2".into()));
    let held = caller.decide(&request, None);
    let Verdict::Hold(rule) = &held.verdict else { panic!("{:?}", held.verdict) };
    assert_eq!((rule.names().collect::<Vec<_>>(), &*rule.what), (vec!["dba"], "update on table public.orders"));
    let approval = Approval { policy_version: held.policy_version.clone(), reviewers: vec!["dba".into()] };
    assert_eq!(word(&caller.decide(&request, Some(&approval))), "allow");
    assert_eq!(word(&caller.decide(&request, None)), "hold", "an approval is for one request");
}

#[test]
fn masked_columns_are_masked_or_refused() {
    let (engine, _) = masked(&format!(
        "{PERMIT_ALL} permit (principal in Role::\"pii-reader\", action == Action::\"unmask\", resource == DataClass::\"email\");"
    ));
    let mut caller = Caller::new(&engine, &facts());
    let plain = caller.sql("SELECT id, email FROM customers");
    assert_eq!(word(&plain), "allow");
    assert!(plain.disclosure.rules.is_some());
    assert!(caller.sql("SELECT total FROM orders").disclosure.rules.is_none(), "it touches nothing that is masked");
    let expression = caller.sql("SELECT upper(email) FROM customers");
    let (policy, what, remedy) = denial(&expression);
    assert!(policy.is_none() && what.contains("email") && remedy.contains("unmask"), "{what}; {remedy}");
    let mut reader = Caller::new(&engine, &session(service("ci", &["pii-reader"]), target(&[])));
    assert_eq!(word(&reader.sql("SELECT upper(email) FROM customers")), "allow");
    assert!(reader.sql("SELECT id, email FROM customers").disclosure.rules.is_none());
}

#[test]
fn a_copy_of_masked_columns_has_a_shape() {
    let (engine, _) = masked(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    let table = caller.sql("COPY customers TO STDOUT");
    assert!(
        matches!(&table.disclosure.copy, proxy_core::CopyShape::Columns { rules, .. } if rules.len() == 3),
        "{:?}",
        table.disclosure
    );
    let query = caller.sql("COPY (SELECT email FROM customers) TO STDOUT (FORMAT csv)");
    assert!(
        matches!(&query.disclosure.copy, proxy_core::CopyShape::Describe { .. }),
        "{:?} {:?}",
        query.verdict,
        query.disclosure
    );
}

#[test]
fn what_is_refused_for_its_result_is_not_held_for_approval() {
    let (engine, _) = masked(&format!(
        "{PERMIT_ALL} @approval(\"dba\") forbid (principal, action == Action::\"select\", resource) unless {{ context.approved }};"
    ));
    let mut caller = Caller::new(&engine, &facts());
    assert_eq!(word(&caller.sql("SELECT email FROM customers")), "hold");
    assert_eq!(word(&caller.sql("SELECT upper(email) FROM customers")), "deny");
}

#[test]
fn without_a_catalogue_what_may_be_masked_is_refused() {
    let catalogs = Arc::new(Catalogs::default());
    let engine = PolicyEngine::new(set(PERMIT_ALL), email_rules(), catalogs.clone());
    let mut caller = Caller::new(&engine, &facts());
    let decision = caller.sql("SELECT email FROM customers");
    assert_eq!(catalogs.refreshes(), 1, "it asked for one first");
    assert!(denial(&decision).1.contains("catalogue could not be loaded"), "{:?}", decision.verdict);
    assert_eq!(word(&caller.sql("SELECT 1")), "allow");
    caller.sql("SELECT name FROM customers");
    assert_eq!(catalogs.refreshes(), 1, "but not for every statement");
    catalogs.find_at_next_refresh(shop());
    caller.now = Timestamp(NOW.0 + 6_000_000);
    assert_eq!(word(&caller.sql("SELECT email FROM customers")), "allow", "it asks again after a while");
    let elsewhere = PolicyEngine::new(set(PERMIT_ALL), MaskRules::default(), Arc::new(NoCatalog));
    assert_eq!(word(&Caller::new(&elsewhere, &facts()).sql("SELECT email FROM public.customers")), "allow", "no rules, no need");
}

#[test]
fn what_is_not_understood_waits_for_a_catalogue_as_well() {
    let catalogs = Arc::new(Catalogs::default());
    catalogs.find_at_next_refresh(shop());
    let engine = PolicyEngine::new(set("permit (principal, action, resource);"), email_rules(), catalogs.clone());
    let mut caller = Caller::new(&engine, &facts());
    assert_eq!(word(&caller.sql("SET standard_conforming_strings = off")), "allow", "the first statement, of one who sees all");
    assert_eq!(catalogs.refreshes(), 1);
}

#[test]
fn a_name_that_is_not_in_the_catalogue_is_looked_for_once() {
    let (engine, catalogs) = on_shop(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    catalogs.find_at_next_refresh(shop().into_iter().chain([table(20_010, "public", "new", &["id"])]).collect());
    assert_eq!(objects(&caller.sql("SELECT id FROM new").facts), ["select table public.new"]);
    assert_eq!(catalogs.refreshes(), 1);
    caller.sql("SELECT id FROM missing");
    caller.sql("SELECT id FROM missing");
    Caller::new(&engine, &facts()).sql("SELECT id FROM missing");
    assert_eq!(catalogs.refreshes(), 2, "not again within a few seconds, whoever asks");
    caller.now = Timestamp(NOW.0 + 6_000_000);
    caller.sql("SELECT id FROM missing");
    assert_eq!(catalogs.refreshes(), 3);
}

#[test]
fn what_another_session_changed_is_waited_for_as_well() {
    let (engine, catalogs) = masked(PERMIT_ALL);
    let mut one = Caller::new(&engine, &facts());
    let mut other = Caller::new(&engine, &facts());
    assert_eq!(word(&other.sql("SELECT (SELECT total FROM orders LIMIT 1) FROM customers")), "allow");
    assert_eq!(word(&one.sql("ALTER TABLE orders RENAME COLUMN total TO sum")), "allow");
    assert_eq!(catalogs.refreshes(), 0);
    // Remembered as it is, it could mean a column of customers now.
    other.sql("SELECT (SELECT total FROM orders LIMIT 1) FROM customers");
    assert_eq!(catalogs.refreshes(), 1);
    other.sql("SELECT total FROM orders");
    Caller::new(&engine, &facts()).sql("SELECT total FROM orders");
    one.sql("SELECT total FROM orders");
    assert_eq!(catalogs.refreshes(), 1, "one load serves all");
    one.sql("ALTER TABLE orders RENAME COLUMN sum TO total");
    assert_eq!(word(&other.sql("SELECT now()")), "allow", "what needs a catalogue has one loaded");
    assert_eq!(word(&other.sql("SELECT 1")), "allow");
    assert_eq!(catalogs.refreshes(), 2);
}

#[test]
fn after_a_change_of_the_catalogue_names_wait_for_the_new_one() {
    let (engine, catalogs) = on_shop(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    caller.sql("ALTER TABLE orders ADD COLUMN note text");
    assert_eq!(catalogs.refreshes(), 0);
    caller.sql("SELECT 1");
    assert_eq!(catalogs.refreshes(), 0, "this one needs no names");
    caller.sql("SELECT total FROM orders");
    caller.sql("SELECT total FROM orders");
    assert_eq!(catalogs.refreshes(), 1);
}

#[test]
fn a_wait_that_was_dropped_is_waited_for_again() {
    let (engine, catalogs) = on_shop(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    caller.sql("ALTER TABLE orders ADD COLUMN note text");
    let request = caller.request(RequestKind::Query, Statement::Sql("SELECT total FROM orders".into()));
    let dropped = caller.session.decide(NOW, &request, None);
    assert!(dropped.is_err());
    drop(dropped);
    assert!(caller.session.decide(NOW, &request, None).is_err(), "nothing was loaded yet");
    assert_eq!(word(&caller.decide(&request, None)), "allow");
    assert!(catalogs.refreshes() >= 2);
}

#[test]
fn while_a_change_is_under_way_masked_tables_are_not_read() {
    let (engine, _) = masked(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    // Pipelined: the second is decided before the first has completed.
    let rename = caller.request(RequestKind::Query, Statement::Sql("ALTER TABLE orders RENAME TO o2".into()));
    assert_eq!(word(&caller.decide(&rename, None)), "allow");
    let read = caller.request(RequestKind::Query, Statement::Sql("SELECT total FROM public.orders".into()));
    assert_eq!(word(&caller.decide(&read, None)), "deny");
    caller.session.completed(rename.id, true);
    assert_eq!(word(&caller.decide(&read, None)), "allow");
    for (text, expected) in [
        ("BEGIN", "allow"),
        ("ALTER TABLE orders RENAME TO o3", "allow"),
        ("SELECT total FROM public.orders", "deny"),
        ("COMMIT", "allow"),
        ("SELECT total FROM public.orders", "allow"),
    ] {
        assert_eq!(word(&caller.sql(text)), expected, "{text}");
    }
}

#[test]
fn prepared_statements_are_known_by_name() {
    let (engine, _) = masked(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    let named = |caller: &mut Caller, name: &'static str| {
        let request = caller.request(RequestKind::Execute, Statement::Named { cursor: false, name: name.into() });
        caller.decide(&request, None)
    };
    assert!(!named(&mut caller, "p").facts.unknown.is_empty());
    caller.sql("PREPARE p AS SELECT email FROM customers");
    let decision = named(&mut caller, "p");
    assert!(objects(&decision.facts).contains(&"select table public.customers".to_owned()));
    assert!(decision.disclosure.rules.is_some(), "{:?}", decision.verdict);
    let executed = caller.sql("EXECUTE p");
    assert!(objects(&executed.facts).contains(&"select table public.customers".to_owned()));
    assert!(executed.disclosure.rules.is_some());
    caller.sql("BEGIN");
    caller.sql("DECLARE c CURSOR FOR SELECT email FROM customers");
    let request = caller.request(RequestKind::Execute, Statement::Named { cursor: true, name: "c".into() });
    assert!(caller.decide(&request, None).disclosure.rules.is_some());
    assert!(caller.sql("FETCH 10 FROM c").disclosure.rules.is_some());
}

#[test]
fn the_protocols_prepared_statements_can_be_executed_in_sql() {
    let (engine, _) = masked(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    let mut prepare = caller.request(RequestKind::Prepare, Statement::Sql("SELECT email FROM customers".into()));
    prepare.prepared_as = Some("s1".into());
    assert_eq!(word(&caller.decide(&prepare, None)), "allow");
    let executed = caller.sql("EXECUTE s1");
    assert!(executed.disclosure.rules.is_some(), "{:?}", executed.verdict);
}

#[test]
fn functions_that_are_called_by_number_are_decided_as_in_sql() {
    let (engine, _) = on_shop("permit (principal, action == Action::\"connect\", resource);");
    let mut caller = Caller::new(&engine, &facts());
    let call = |caller: &mut Caller, oid: u32| {
        let request = caller.request(RequestKind::Command, Statement::Function(oid));
        caller.decide(&request, None)
    };
    assert_eq!(word(&call(&mut caller, 99_999)), "deny");
    assert_eq!(word(&call(&mut caller, 765)), "deny", "lo_export writes files on the server");
}

#[test]
fn a_replication_stream_cannot_be_masked() {
    let (engine, _) = masked(PERMIT_ALL);
    let mut caller = Caller::new(&engine, &facts());
    let replicate = proxy_core::Operation {
        action: "replicate".into(),
        object: proxy_core::Object { kind: proxy_core::ObjectKind::Connection, path: Vec::new() },
        has_where: None,
    };
    assert_eq!(word(&caller.facts(vec![replicate])), "deny");
}

#[test]
fn the_servers_own_secrets_can_be_forbidden() {
    let (engine, _) = on_shop(&format!(
        "{PERMIT_ALL} @id(\"secrets\") forbid (principal, action, resource) unless {{ context.sensitive_catalog.isEmpty() }};"
    ));
    let mut caller = Caller::new(&engine, &facts());
    assert_eq!(word(&caller.sql("SELECT relname FROM pg_class")), "allow");
    assert_eq!(denial(&caller.sql("SELECT rolpassword FROM pg_authid")).0, Some("secrets"));
    assert_eq!(denial(&caller.sql("SELECT total FROM orders, pg_stat_activity")).0, Some("secrets"));
    assert_eq!(word(&caller.sql("SELECT total FROM orders")), "allow", "the same operation, in another request");
}

#[test]
fn unmasking_may_depend_on_the_request() {
    let (engine, _) = masked(&format!(
        "{PERMIT_ALL} permit (principal, action == Action::\"unmask\", resource) when {{ context.kinds.contains(\"SELECT\") && context.statements == 1 }} unless {{ context.statement like \"*secret*\" }};"
    ));
    let mut caller = Caller::new(&engine, &facts());
    let clear = |decision: &Decision| decision.verdict == Verdict::Allow && decision.disclosure.rules.is_none();
    assert!(clear(&caller.sql("SELECT email FROM customers")));
    assert!(!clear(&caller.sql("SELECT email FROM customers WHERE name = 'secret'")));
    assert!(clear(&caller.sql("SELECT email FROM customers")));
    assert!(!clear(&caller.sql("SELECT email FROM customers; SELECT 1")));
    assert!(!clear(&caller.sql("COPY customers TO STDOUT")));
}

/// Whatever the grammar knows: the schema has an action for it on that kind of object.
#[test]
fn the_schema_has_words_for_what_statements_do() {
    let (engine, _) = on_shop(PERMIT_ALL);
    for text in [
        "SELECT * FROM orders FOR UPDATE",
        "INSERT INTO orders (id) SELECT id FROM archive.orders RETURNING *",
        "UPDATE orders SET total = 1",
        "DELETE FROM orders USING customers",
        "MERGE INTO orders o USING archive.orders a ON o.id = a.id WHEN MATCHED THEN DELETE",
        "TRUNCATE orders, customers CASCADE",
        "LOCK TABLE orders",
        "COPY orders TO STDOUT",
        "COPY orders FROM STDIN",
        "COPY (SELECT 1) TO STDOUT",
        "CREATE TABLE t (id int)",
        "CREATE TABLE elsewhere.t (id int)",
        "CREATE TABLE t AS SELECT * FROM orders",
        "CREATE VIEW v AS SELECT * FROM orders",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM orders",
        "CREATE INDEX ON orders (id)",
        "CREATE SCHEMA s",
        "CREATE DATABASE d",
        "CREATE ROLE r",
        "CREATE EXTENSION pgcrypto",
        "CREATE TYPE t AS ENUM ('a')",
        "CREATE SEQUENCE s",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TRIGGER t AFTER INSERT ON orders EXECUTE FUNCTION f()",
        "CREATE POLICY p ON orders",
        "CREATE PUBLICATION p FOR TABLE orders",
        "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
        "ALTER TABLE orders ADD COLUMN x int",
        "ALTER TABLE orders RENAME TO o",
        "ALTER SCHEMA public RENAME TO p",
        "ALTER DATABASE orders SET work_mem = '1MB'",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "ALTER ROLE r SUPERUSER",
        "ALTER FUNCTION f() OWNER TO r",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO r",
        "DROP TABLE orders",
        "DROP SCHEMA public CASCADE",
        "DROP FUNCTION f()",
        "DROP OWNED BY r",
        "REASSIGN OWNED BY r TO s",
        "COMMENT ON TABLE orders IS 'x'",
        "COMMENT ON SCHEMA public IS 'x'",
        "GRANT SELECT ON orders TO r",
        "GRANT ALL ON SCHEMA public TO r",
        "GRANT ALL ON DATABASE orders TO r",
        "GRANT ALL ON FUNCTION f() TO r",
        "GRANT a TO b",
        "VACUUM",
        "VACUUM orders",
        "ANALYZE orders (id)",
        "CLUSTER orders",
        "REINDEX TABLE orders",
        "REINDEX SCHEMA public",
        "REINDEX DATABASE orders",
        "REFRESH MATERIALIZED VIEW v",
        "CHECKPOINT",
        "SET ROLE r",
        "SET SESSION AUTHORIZATION r",
        "RESET ROLE",
        "SET work_mem = '1MB'",
        "SET session_replication_role = replica",
        "LISTEN c",
        "NOTIFY c, 'x'",
        "UNLISTEN *",
        "BEGIN",
        "PREPARE TRANSACTION 'x'",
        "SAVEPOINT s",
        "SHOW ALL",
        "DISCARD ALL",
        "DEALLOCATE ALL",
        "EXPLAIN ANALYZE DELETE FROM orders WHERE id = 1",
        "CALL public.p(1)",
        "SELECT public.f(1)",
        "SELECT nextval('s')",
        "SELECT pg_notify('a', 'b')",
        "SELECT lo_export(1, '/tmp/x')",
        "SECURITY LABEL ON TABLE orders IS 'x'",
        "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO public",
        "LOAD 'x'",
        "DO 'BEGIN DELETE FROM orders; END'",
    ] {
        let decision = Caller::new(&engine, &facts()).sql(text);
        assert_eq!(decision.verdict, Verdict::Allow, "{text}: {:?}", decision.facts);
    }
}
