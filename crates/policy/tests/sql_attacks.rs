//! Ways to get round a gateway's reading of SQL, each by its name.

mod sql_common;

use policy::sql::fingerprint;
use sql_common::{Session, analysis, facts};

/// The key, and whether the text itself is the key.
fn key(sql: &str) -> (Vec<u8>, bool) {
    let mut key = Vec::new();
    let lexed = fingerprint(sql.as_bytes(), &mut key).unwrap();
    (key, lexed.literals_matter)
}

/// Whether a decision on one would be taken for the other.
fn confused(one: &str, other: &str) -> bool {
    let ((a, by_text), (b, other_by_text)) = (key(one), key(other));
    a == b && !by_text && !other_by_text
}

#[test]
fn the_key_tells_apart_what_pg_querys_fingerprint_confuses() {
    let pairs = [
        ("SET ROLE x", "SET ROLE y"),
        ("EXECUTE p", "EXECUTE q"),
        ("DO $$ BEGIN DELETE FROM t; END $$", "DO $$ BEGIN NULL; END $$"),
        ("SELECT a, b FROM t", "SELECT b, a FROM t"),
        ("SELECT * FROM orders_2024_01", "SELECT * FROM orders_2024_02"),
        ("GRANT SELECT ON t TO a", "GRANT SELECT ON t TO b"),
        ("SELECT query_to_xml('select 1', true, true, '')", "SELECT query_to_xml('select * from hr.salaries', true, true, '')"),
        ("SELECT * FROM dblink('', 'select 1')", "SELECT * FROM dblink('', 'delete from t')"),
        ("SELECT set_config('role', 'x', false)", "SELECT set_config('work_mem', 'x', false)"),
        ("SELECT 'a'::regclass", "SELECT 'b'::regclass"),
        ("SELECT regclass 'a'", "SELECT regclass 'b'"),
        ("SELECT CAST('a' AS regproc)", "SELECT CAST('b' AS regproc)"),
        ("SELECT \"query_to_xml\"('a', true, true, '')", "SELECT \"query_to_xml\"('b', true, true, '')"),
        // What its authors changed for version 18: schemas are ignored, aliases stand for tables.
        ("SELECT * FROM app.orders", "SELECT * FROM hr.orders"),
        ("SELECT c.id FROM customers c", "SELECT c.id FROM hr.salaries c"),
    ];
    for (one, other) in pairs {
        assert!(!confused(one, other), "{one} | {other}");
    }
}

#[test]
fn the_key_tells_apart_what_differs_by_a_token() {
    let pairs = [
        ("SELECT 'a' 'b'", "SELECT 'a''b'"),
        ("SELECT \"a\" \"b\"", "SELECT \"a\"\"b\""),
        ("SELECT n 'x'", "SELECT n'x'"),
        ("SELECT e 'x'", "SELECT e'x'"),
        ("SELECT b '1'", "SELECT b'1'"),
        ("SELECT x '1'", "SELECT x'1'"),
        ("SELECT u & 'x'", "SELECT u&'x'"),
        ("SELECT u & \"x\"", "SELECT u&\"x\""),
        ("SELECT a - -1", "SELECT a"),
        ("SELECT + 1", "SELECT +1 + 1"),
        ("SELECT 1 + + 1", "SELECT 1 ++ 1"),
        ("SELECT a.b", "SELECT a b"),
        ("SELECT $1", "SELECT $2"),
        ("SELECT $1", "SELECT 1"),
        ("SELECT 1", "SELECT 1.0"),
        ("SELECT 1", "SELECT 99999999999"),
        ("SELECT ab", "SELECT a b"),
        ("SELECT a", "SELECT \"a\""),
        ("SELECT \"A\"", "SELECT \"a\""),
        ("SELECT * FROM t WHERE true", "SELECT * FROM t WHERE false"),
        ("SELECT * FROM t LIMIT 1", "SELECT * FROM t"),
        ("SELECT 1; DELETE FROM t", "SELECT 1"),
        ("SELECT 1 -- ; DELETE FROM t", "SELECT 1; DELETE FROM t"),
        ("SELECT 1 /* /* */ ; DELETE FROM t; */", "SELECT 1 ; DELETE FROM t;"),
        ("SELECT $$a$$ FROM t", "SELECT $$a$$ FROM u"),
        ("SELECT U&\"d!0061t\" UESCAPE '!'", "SELECT U&\"d!0061t\" UESCAPE '?'"),
    ];
    for (one, other) in pairs {
        assert!(!confused(one, other), "{one} | {other}");
    }
}

#[test]
fn texts_that_differ_by_literals_and_space_alone_share_a_key() {
    let pairs = [
        ("SELECT abalance FROM pgbench_accounts WHERE aid = 1;", "SELECT abalance FROM pgbench_accounts WHERE aid = 99999;"),
        ("SELECT * FROM t WHERE a = 'x'", "select *\n  from T where A = 'it''s; DELETE FROM t'"),
        ("SELECT 1.5e3", "SELECT .7"),
        ("SELECT 'a'", "SELECT 'a'\n  'b'"),
        ("SELECT/**/1", "SELECT -- x\n 1"),
        ("INSERT INTO t VALUES (1, 'a', NULL)", "INSERT INTO t VALUES (2, 'b', NULL)"),
        ("SELECT -1", "SELECT -2"),
    ];
    for (one, other) in pairs {
        assert_eq!(key(one), key(other));
        assert!(!key(one).1, "{one}");
    }
}

#[test]
fn a_string_that_looks_like_its_end_does_not_hide_a_statement() {
    // Backslashes are letters in a plain string, and escape in E'…'.
    assert!(facts(r"SELECT '\'; DELETE FROM t; --'").contains("delete table public.t without WHERE"));
    assert_eq!(facts(r"SELECT E'\'; DELETE FROM t; --'"), "");
    assert_eq!(facts("SELECT $a$ $$; DELETE FROM t; $$ $a$"), "");
    assert!(facts("SELECT 1 /* /* */ */; DELETE FROM t").contains("delete"));
    assert_eq!(facts("SELECT 1 /* /* */; DELETE FROM t */"), "");
    assert_eq!(facts("SELECT 'a'\n'; DELETE FROM t; '"), "");
}

#[test]
fn a_do_block_does_not_hide_its_delete() {
    assert_eq!(facts("DO $$ BEGIN DELETE FROM t; END $$"), "delete table public.t without WHERE");
    assert!(facts("DO $$ BEGIN EXECUTE 'DEL' || 'ETE FROM t'; END $$").contains("unknown"));
    assert!(facts("DO 'BEGIN DELETE FROM t; END' LANGUAGE 'plpgsql'").contains("delete table public.t without WHERE"));
    assert!(facts("DO LANGUAGE plpython3u $$ plpy.execute('x') $$").contains("unknown"));
}

#[test]
fn a_cte_does_not_hide_a_change_or_a_table() {
    assert!(facts("WITH x AS (DELETE FROM t RETURNING 1) SELECT 1").contains("delete table public.t without WHERE"));
    assert!(facts("SELECT * FROM (WITH hr AS (SELECT 1) SELECT * FROM hr.salaries) x").contains("select table hr.salaries"));
    assert!(facts("WITH salaries AS (SELECT * FROM hr.salaries) TABLE salaries").contains("select table hr.salaries"));
}

#[test]
fn functions_that_run_a_text_are_unknown() {
    let calls = [
        "query_to_xml('select * from hr.salaries', true, true, '')",
        "pg_catalog.query_to_xml_and_xmlschema('x', true, true, '')",
        "table_to_xml('hr.salaries', true, true, '')",
        "schema_to_xml('hr', true, true, '')",
        "database_to_xml(true, true, '')",
        "cursor_to_xml('c', 1, true, true, '')",
        "ts_stat('select 1')",
        "ts_rewrite('a'::tsquery, 'select 1')",
        "xpath_table('a', 'b', 'c', 'd', 'e')",
        "dblink('x', 'y')",
        "public.dblink_exec('x', 'y')",
        "lo_import('/etc/passwd')",
        "lo_export(1, '/tmp/x')",
        "lo_get(1)",
        "loread(1, 2)",
        "pg_read_file('x')",
        "pg_read_binary_file('x')",
        "pg_ls_dir('.')",
        "pg_stat_file('x')",
        "pg_terminate_backend(1)",
        "pg_cancel_backend(1)",
        "pg_reload_conf()",
        "pg_rotate_logfile()",
        "pg_switch_wal()",
        "pg_create_logical_replication_slot('a', 'b')",
        "pg_drop_replication_slot('a')",
        "pg_logical_slot_get_changes('a', null, null)",
        "pg_logical_emit_message(true, 'a', 'b')",
        "pg_replication_origin_create('a')",
        "pg_file_write('a', 'b', true)",
        "get_raw_page('t', 0)",
        "crosstab('select 1')",
        "cron.schedule('* * * * *', 'x')",
        "\"query_to_xml\"('a', true, true, '')",
        "U&\"query\\005fto\\005fxml\"('a', true, true, '')",
    ];
    for call in calls {
        let facts = facts(&format!("SELECT {call}"));
        assert!(facts.contains("unknown: function "), "{call}: {facts}");
        assert!(sql_common::facts(&format!("SELECT * FROM {call} AS x")).contains("unknown"), "{call}");
        let from = format!("INSERT INTO t SELECT 1 WHERE {call} IS NOT NULL");
        assert!(sql_common::facts(&from).contains("unknown"), "{call}");
    }
}

#[test]
fn a_function_that_is_called_like_a_column_is_seen() {
    // The server takes `(value).f` for `f(value)`, whatever the value's type.
    assert!(facts("SELECT ('pg_hba.conf'::text).pg_read_file").contains("unknown: function pg_read_file"));
    assert!(facts("SELECT (s.x).lo_import FROM (SELECT 'x'::text AS x) s").contains("unknown: function lo_import"));
    assert!(facts("SELECT s.pg_ls_dir FROM (SELECT 'x'::text AS x) s").contains("unknown: function pg_ls_dir"));
    assert_eq!(facts("SELECT (5).refund"), "call function public.refund");
    assert!(facts("SELECT c.id.refund FROM customers c").contains("call function public.refund"));
    assert!(facts("SELECT (c.*).refund FROM customers c").contains("call function public.refund"));
    assert!(facts("DELETE FROM t WHERE (t).refund").contains("call function public.refund"));
}

#[test]
fn a_function_in_a_default_or_an_index_is_seen() {
    assert!(facts("CREATE TABLE x (a text DEFAULT pg_read_file('x'))").contains("unknown"));
    assert!(facts("CREATE INDEX ON t (refund(id))").contains("call function public.refund"));
    assert!(facts("ALTER TABLE t ADD COLUMN x xml DEFAULT query_to_xml('a', true, true, '')").contains("unknown"));
    assert!(facts("ALTER TABLE t ALTER COLUMN a TYPE text USING refund(a)").contains("call function public.refund"));
    assert!(facts("ALTER TABLE t ADD CHECK (refund(a))").contains("call function public.refund"));
    assert!(facts("CREATE TABLE x (a int GENERATED ALWAYS AS (refund(1)) STORED)").contains("call function public.refund"));
    assert!(facts("COPY t FROM STDIN WHERE refund(id)").contains("call function public.refund"));
    assert!(facts("EXPLAIN SELECT refund(1)").contains("call function public.refund"));
    assert!(facts("EXECUTE p(refund(1))").contains("call function public.refund"));
    assert!(facts("SET statement_timeout = 1; SELECT 1 LIMIT refund(1)").contains("call function public.refund"));
}

#[test]
fn another_name_for_a_table_is_that_table() {
    for name in [
        "customers",
        "CUSTOMERS",
        "\"customers\"",
        "public.customers",
        "shop.public.customers",
        "ONLY customers",
        "U&\"\\0063ustomers\"",
        "customers *",
    ] {
        assert_eq!(facts(&format!("SELECT * FROM {name}")), "select table public.customers", "{name}");
    }
    // Longer names are cut to 63 bytes by the server.
    let long = "a".repeat(70);
    assert_eq!(facts(&format!("SELECT * FROM {long}")), format!("select table public.{}", "a".repeat(63)));
}

#[test]
fn roles_are_not_changed_by_another_door() {
    for statement in [
        "SET ROLE x",
        "SET \"role\" = x",
        "SET SESSION \"ROLE\" TO x",
        "SET SESSION AUTHORIZATION x",
        "SELECT set_config('role', 'x', false)",
        "SELECT pg_catalog.set_config('Role', 'x', false)",
        "SELECT * FROM set_config('role', 'x', false)",
        "SELECT set_config(setting_name => 'role', new_value => 'x', is_local => false)",
        "SELECT set_config(is_local => false, new_value => 'x', setting_name => 'role')",
        "DO $$ BEGIN SET ROLE x; END $$",
        "DO $$ BEGIN PERFORM set_config('role', 'x', false); END $$",
        "UPDATE pg_settings SET setting = 'x' WHERE name = 'role'",
        "UPDATE pg_catalog.pg_settings SET setting = 'x' WHERE name = 'role'",
    ] {
        let facts = facts(statement);
        assert!(facts.contains("set_role connection") || facts.contains("unknown"), "{statement}: {facts}");
    }
}

#[test]
fn statistics_that_hold_values_are_marked() {
    for relation in [
        "pg_statistic",
        "pg_catalog.pg_stats",
        "pg_stats_ext",
        "pg_statistic_ext_data",
        "pg_authid",
        "pg_shadow",
        "pg_largeobject",
        "pg_user_mapping",
        "information_schema.user_mapping_options",
        "pg_stat_activity",
    ] {
        let analysis = analysis(&format!("SELECT * FROM {relation}"));
        assert!(analysis.facts.attributes.contains_key("sensitive_catalog"), "{relation}");
    }
}

#[test]
fn a_cursor_or_a_prepared_statement_does_not_launder() {
    let mut session = Session::new(&[]);
    session.run("PREPARE harmless AS SELECT 1");
    session.run("DEALLOCATE ALL");
    session.run("PREPARE harmless AS DELETE FROM t");
    assert!(session.run("EXECUTE harmless").contains("delete"));
    assert!(session.run("EXECUTE other").contains("unknown"));
    assert!(session.run("FETCH ALL FROM \"<unnamed portal 1>\"").contains("unknown"));
    assert!(session.run("DECLARE c CURSOR FOR SELECT * FROM hr.salaries").contains("hr.salaries"));
    assert!(session.run("CREATE TABLE x AS EXECUTE harmless").contains("delete"));
}

#[test]
fn a_view_made_now_shows_what_it_reads() {
    assert!(facts("CREATE OR REPLACE VIEW app.audit AS SELECT * FROM hr.salaries").contains("select table hr.salaries"));
    assert!(facts("CREATE TABLE x AS TABLE hr.salaries").contains("select table hr.salaries"));
    assert!(
        facts("CREATE RULE \"_RETURN\" AS ON SELECT TO t DO INSTEAD SELECT * FROM hr.salaries")
            .contains("select table hr.salaries")
    );
}

#[test]
fn what_cannot_be_lexed_has_no_key() {
    let texts: [&[u8]; 14] = [
        b"SELECT 'a",
        b"SELECT \"a",
        b"SELECT $a$ $b$",
        b"SELECT /* /* */",
        b"SELECT 1a",
        b"SELECT $1a",
        b"SELECT \\x",
        b"SELECT \x01",
        b"SELECT 'a\0'",
        b"SELECT \0",
        b"SELECT '\xff'",
        b"SELECT $",
        b"SELECT 0x",
        b"SELECT E'a\\",
    ];
    for text in texts {
        assert!(fingerprint(text, &mut Vec::new()).is_err(), "{}", String::from_utf8_lossy(text));
    }
}
