//! What a session did before changes what its statements mean.

mod sql_common;

use policy::sql::{SAME_NAME_MAX, SqlState, analyze, renewed};
use sql_common::{Session, line, shop};
use std::sync::Arc;

#[test]
fn a_search_path_that_was_touched_is_uncertain_for_good() {
    let all = "select table app.orders; select table public.orders";
    for change in [
        "SET search_path = app",
        "SET LOCAL search_path TO app, public",
        "SELECT set_config('search_path', 'app', false)",
        "SELECT set_config('SEARCH_PATH', (SELECT 'app'), false)",
        "SELECT refund(1)",
        "CALL refund(1)",
        "DO $$ BEGIN SET search_path = app; END $$",
        "SET ROLE x",
        "BEGIN; SET search_path = app; ROLLBACK",
        "UPDATE pg_settings SET setting = 'app' WHERE name = 'search_path'",
        "WITH x AS (SELECT set_config('search_path', 'app', false)) SELECT * FROM x",
        "EXPLAIN ANALYZE SELECT set_config('search_path', 'app', false)",
        "PREPARE p AS SELECT set_config('search_path', 'app', false); EXECUTE p",
    ] {
        let mut session = Session::new(&[]);
        assert_eq!(session.run("SELECT * FROM orders"), "select table public.orders");
        let before = session.state.generation();
        session.run(change);
        assert_ne!(session.state.generation(), before, "{change}");
        assert_eq!(session.run("SELECT * FROM orders"), all, "{change}");
        session.run("RESET ALL; DISCARD ALL; SET search_path = public");
        assert_eq!(session.run("SELECT * FROM orders"), all, "{change}");
        assert_eq!(session.run("SELECT * FROM app.orders"), "select table app.orders", "{change}");
        let nowhere = session.run("SELECT * FROM nowhere");
        assert!(nowhere.starts_with("unknown: which relation \"nowhere\" is"), "{nowhere}");
    }
}

#[test]
fn what_leaves_names_alone_leaves_the_generation() {
    let mut session = Session::new(&[]);
    for statement in [
        "SELECT * FROM t",
        "SELECT uuid_generate_v4(), lower('x')",
        "SET statement_timeout = 1",
        "RESET ALL",
        "DISCARD ALL",
        "PREPARE p AS SELECT 1",
        "DECLARE c CURSOR FOR SELECT 1",
        "BEGIN; COMMIT",
        "CREATE TABLE x (id int)",
    ] {
        let before = session.state.generation();
        session.run(statement);
        assert_eq!(session.state.generation(), before, "{statement}");
    }
}

#[test]
fn a_text_changes_names_for_its_own_later_statements() {
    let mut session = Session::new(&[]);
    let expected = "select table app.orders; select table public.orders";
    assert_eq!(session.run("SET search_path = app; SELECT * FROM orders"), expected);
}

#[test]
fn temporary_tables_are_added_to_what_a_name_may_mean() {
    for statement in [
        "CREATE TEMP TABLE customers (id int)",
        "CREATE TEMPORARY TABLE customers AS SELECT 1",
        "SELECT 1 INTO TEMP customers",
        "CREATE TABLE pg_temp.customers (id int)",
        "CREATE TEMP VIEW customers AS SELECT 1",
        "CREATE LOCAL TEMP SEQUENCE customers",
    ] {
        let mut session = Session::new(&[]);
        assert_eq!(session.run(statement), "ddl table pg_temp.customers", "{statement}");
        // It may have been rolled back.
        let both = "select table pg_temp.customers; select table public.customers";
        assert_eq!(session.run("SELECT * FROM customers"), both, "{statement}");
        assert_eq!(session.run("SELECT * FROM public.customers"), "select table public.customers");
        assert_eq!(session.run("SELECT * FROM pg_temp.customers"), "select table pg_temp.customers");
        assert_eq!(session.run("SELECT * FROM pg_temp_3.customers"), "select table pg_temp.customers");
    }
    let mut session = Session::new(&[]);
    let text = "CREATE TEMP TABLE mine (id int); INSERT INTO mine VALUES (1); SELECT * FROM mine";
    assert_eq!(session.run(text), "ddl table pg_temp.mine; insert table pg_temp.mine; select table pg_temp.mine");
    let analysis = analyze("CREATE TEMP TABLE mine (id int)", None, &SqlState::new(&[], None));
    assert!(!analysis.changes_catalog, "temporary tables are not in the catalogue");
}

#[test]
fn a_renamed_table_is_what_it_was() {
    let mut session = Session::new(&[]);
    session.run("ALTER TABLE t RENAME TO old; ALTER TABLE hr.salaries SET SCHEMA public");
    session.run("ALTER TABLE hr.salaries RENAME TO t");
    assert_eq!(session.run("SELECT * FROM t"), "select table hr.salaries; select table public.t");
    assert_eq!(session.run("SELECT * FROM public.t"), "select table hr.salaries; select table public.t");
    assert_eq!(session.run("SELECT * FROM public.salaries"), "select table hr.salaries; select table public.salaries");
    let mut session = Session::new(&[]);
    session.run("ALTER SCHEMA app RENAME TO old; ALTER SCHEMA hr RENAME TO app");
    assert_eq!(session.run("SELECT * FROM app.salaries"), "select table app.salaries; select table hr.salaries");
    let mut session = Session::new(&[]);
    let text = "BEGIN; ALTER TABLE customers RENAME TO c2; ALTER TABLE hr.salaries RENAME TO customers; SELECT * FROM customers";
    assert!(session.run(text).contains("select table hr.salaries"));
}

#[test]
fn a_new_function_may_be_called_in_the_place_of_one_that_is_built_in() {
    let mut session = Session::new(&[]);
    assert_eq!(session.run("SELECT length('x')"), "");
    session.run("CREATE FUNCTION app.length(customers) RETURNS int LANGUAGE sql AS 'SELECT 1'");
    assert_eq!(session.run("SELECT length('x')"), "call function app.length");
    assert_eq!(session.run("SELECT c.length FROM customers c"), "call function app.length; select table public.customers");
}

#[test]
fn execute_is_everything_that_the_name_ever_meant() {
    let mut session = Session::new(&[]);
    session.run("PREPARE p AS SELECT * FROM t");
    assert_eq!(session.run("EXECUTE p"), "select table public.t");
    // The second PREPARE may fail on the server (the name is taken), or DEALLOCATE may.
    session.run("DEALLOCATE p");
    session.run("PREPARE p AS DELETE FROM u");
    assert_eq!(session.run("EXECUTE p"), "delete table public.u without WHERE; select table public.t");
    assert_eq!(session.run("EXPLAIN ANALYZE EXECUTE p"), "delete table public.u without WHERE; select table public.t");
    // Names are looked up when it runs.
    session.run("SET search_path = app");
    session.run("PREPARE q AS SELECT * FROM public.orders");
    assert_eq!(session.run("EXECUTE q"), "select table public.orders");
    for number in 0..=SAME_NAME_MAX {
        session.run(&format!("PREPARE many AS SELECT {number} FROM t"));
    }
    assert!(session.run("EXECUTE many").starts_with("unknown: prepared statement \"many\""));
}

#[test]
fn execute_looks_names_up_again() {
    let mut session = Session::new(&[]);
    session.run("PREPARE p AS SELECT * FROM orders");
    assert_eq!(session.run("EXECUTE p"), "select table public.orders");
    session.run("SET search_path = app");
    assert_eq!(session.run("EXECUTE p"), "select table app.orders; select table public.orders");
    let prepared = session.state.prepared("p").unwrap();
    let again = renewed(&prepared[0], Some(&session.catalog), &session.state);
    assert_eq!(line(&again), "select table app.orders; select table public.orders");
}

#[test]
fn protocol_statements_can_be_executed_by_name() {
    let mut session = Session::new(&[]);
    let analysis = Arc::new(analyze("DELETE FROM t", Some(&session.catalog), &session.state));
    session.state.register_prepared("S_1", analysis.clone());
    assert_eq!(session.run("EXECUTE \"S_1\""), "delete table public.t without WHERE");
    session.state.register_prepared("", analysis);
    assert!(session.state.prepared("").is_none(), "SQL has no way to name it");
    // One that executes itself ends.
    let circle = Arc::new(analyze("EXECUTE circle", Some(&session.catalog), &session.state));
    session.state.register_prepared("circle", circle);
    assert!(session.run("EXECUTE circle").contains("statements within statements"));
}

#[test]
fn fetch_is_what_its_cursor_is() {
    let mut session = Session::new(&[]);
    session.run("BEGIN; DECLARE c CURSOR FOR SELECT * FROM customers");
    assert_eq!(session.run("FETCH 10 FROM c"), "select table public.customers");
    assert_eq!(session.run("MOVE 10 IN c"), "select table public.customers");
    session.run("CLOSE c; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t");
    assert_eq!(session.run("FETCH c"), "select table public.customers; select table public.t");
    let analysis = analyze("FETCH c", Some(&session.catalog), &session.state);
    assert!(analysis.depends_on_statements && analysis.depends_on_state);
}

#[test]
fn names_mean_to_masking_what_they_mean_here() {
    use masking::Resolve;
    let catalog = shop();
    let mut session = Session::new(&[]);
    let names = session.state.names(&catalog);
    assert_eq!(names.relation(None, "orders").known, [2]);
    assert_eq!(names.relation(Some("app"), "orders").known, [5]);
    assert!(names.relation(None, "nowhere").unknown);
    session.run("CREATE TEMP TABLE orders (id int); SET search_path = app; PREPARE p AS SELECT 1; DECLARE c CURSOR FOR SELECT 2");
    let names = session.state.names(&catalog);
    let orders = names.relation(None, "orders");
    assert_eq!((orders.known, orders.temporary), (vec![5, 2], true));
    assert_eq!(names.prepared("p").map(|trees| trees.len()), Some(1));
    assert_eq!(names.cursor("c").map(|trees| trees.len()), Some(1));
    assert_eq!(names.cursor("d").map(|trees| trees.len()), None);
}

#[test]
fn without_a_catalogue_names_are_taken_at_their_word() {
    let state = SqlState::new(&[], None);
    let analysis = analyze("SELECT lower(a), f(b) FROM t, x.y, pg_class", None, &state);
    assert_eq!(
        line(&analysis),
        "call function public.f; select table pg_catalog.pg_class; select table public.t; select table x.y"
    );
    assert!(analysis.unresolved);
    assert!(!analyze("SELECT lower('a') FROM pg_class", None, &state).unresolved);
}
