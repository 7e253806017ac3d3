//! Which actions on which objects each kind of statement is.

mod sql_common;

use sql_common::{Session, analysis, facts};

/// Each line is a statement, and what it is.
fn check(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter(|(sql, expected)| facts(sql) != *expected)
        .map(|(sql, expected)| format!("{sql}\n    is       {}\n    expected {expected}\n", facts(sql)))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn queries_read_what_they_name_anywhere() {
    check(&[
        ("SELECT 1", ""),
        ("SELECT * FROM customers", "select table public.customers"),
        ("SELECT * FROM app.orders", "select table app.orders"),
        ("SELECT * FROM shop.app.orders", "select table app.orders"),
        ("TABLE t", "select table public.t"),
        ("VALUES (1), ((SELECT max(id) FROM t))", "select table public.t"),
        ("SELECT (SELECT name FROM customers LIMIT 1)", "select table public.customers"),
        ("SELECT 1 WHERE EXISTS (SELECT FROM customers)", "select table public.customers"),
        ("SELECT 1 ORDER BY (SELECT id FROM t)", "select table public.t"),
        ("SELECT 1 LIMIT (SELECT id FROM t)", "select table public.t"),
        ("SELECT 1 OFFSET (SELECT id FROM t)", "select table public.t"),
        ("SELECT count(*) FILTER (WHERE EXISTS (SELECT FROM t)) FROM u", "select table public.t; select table public.u"),
        ("SELECT sum(x) OVER (ORDER BY (SELECT id FROM t)) FROM u", "select table public.t; select table public.u"),
        (
            "SELECT sum(x) OVER w FROM u WINDOW w AS (PARTITION BY (SELECT id FROM t))",
            "select table public.t; select table public.u",
        ),
        ("SELECT x FROM u GROUP BY x HAVING x > (SELECT id FROM t)", "select table public.t; select table public.u"),
        ("SELECT x FROM u GROUP BY GROUPING SETS ((x), ((SELECT id FROM t)))", "select table public.t; select table public.u"),
        ("SELECT DISTINCT ON ((SELECT id FROM t)) x FROM u", "select table public.t; select table public.u"),
        ("SELECT ARRAY(SELECT id FROM t), ARRAY[(SELECT x FROM u)]", "select table public.t; select table public.u"),
        (
            "SELECT CASE WHEN true THEN (SELECT id FROM t) ELSE (SELECT x FROM u) END",
            "select table public.t; select table public.u",
        ),
        ("SELECT COALESCE((SELECT id FROM t), GREATEST((SELECT x FROM u), 1))", "select table public.t; select table public.u"),
        ("SELECT (ARRAY[1])[(SELECT id FROM t)]", "select table public.t"),
        ("SELECT ROW((SELECT id FROM t))", "select table public.t"),
        ("SELECT (SELECT t FROM t) IS NULL, (SELECT true FROM u) IS TRUE", "select table public.t; select table public.u"),
        ("SELECT 1 = ANY (SELECT id FROM t), 1 IN (SELECT x FROM u)", "select table public.t; select table public.u"),
        ("SELECT 1 IN ((SELECT id FROM t), 2)", "select table public.t"),
        ("SELECT (SELECT id FROM t)::text COLLATE \"C\"", "select table public.t"),
        ("SELECT xmlelement(name a, (SELECT id FROM t))", "select table public.t"),
        ("SELECT json_object('a' VALUE (SELECT id FROM t))", "select table public.t"),
        ("SELECT json_array(SELECT id FROM t)", "select table public.t"),
        ("SELECT json_arrayagg((SELECT id FROM t))", "select table public.t"),
        ("SELECT * FROM JSON_TABLE((SELECT a FROM t), '$' COLUMNS (x int PATH '$'))", "select table public.t"),
        ("SELECT * FROM XMLTABLE('/a' PASSING (SELECT a FROM t) COLUMNS x int)", "select table public.t"),
        (
            "SELECT * FROM t JOIN u ON t.id = (SELECT max(id) FROM orders)",
            "select table public.orders; select table public.t; select table public.u",
        ),
        ("SELECT * FROM t, LATERAL (SELECT * FROM u WHERE u.x = t.id) l", "select table public.t; select table public.u"),
        ("SELECT * FROM t NATURAL JOIN u", "select table public.t; select table public.u"),
        ("SELECT * FROM generate_series(1, (SELECT max(id) FROM t))", "select table public.t"),
        (
            "SELECT * FROM ROWS FROM (generate_series(1, (SELECT max(id) FROM t)), unnest(ARRAY(SELECT x FROM u)))",
            "select table public.t; select table public.u",
        ),
        ("SELECT * FROM t TABLESAMPLE system ((SELECT x FROM u))", "select table public.t; select table public.u"),
        (
            "SELECT id FROM t UNION SELECT x FROM u EXCEPT (SELECT id FROM orders INTERSECT SELECT id FROM customers)",
            "select table public.customers; select table public.orders; select table public.t; select table public.u",
        ),
        ("SELECT * FROM ONLY t", "select table public.t"),
        ("SELECT * FROM \"customers\"", "select table public.customers"),
        ("SELECT * FROM CUSTOMERS", "select table public.customers"),
        (
            "SELECT 1; SELECT * FROM t; DELETE FROM u WHERE id = 1",
            "delete table public.u; select table public.t; select table public.u",
        ),
    ]);
}

#[test]
fn locks_need_lock_on_what_they_choose() {
    check(&[
        ("SELECT * FROM t FOR UPDATE", "lock table public.t; select table public.t"),
        ("SELECT * FROM t, u FOR SHARE OF u", "lock table public.u; select table public.t; select table public.u"),
        (
            "SELECT * FROM t a JOIN u b ON true FOR NO KEY UPDATE OF a",
            "lock table public.t; select table public.t; select table public.u",
        ),
        ("SELECT * FROM (SELECT * FROM t) s FOR UPDATE", "lock table public.t; select table public.t"),
        ("WITH c AS (SELECT * FROM t) SELECT * FROM c FOR UPDATE", "select table public.t"),
        ("LOCK TABLE t, app.orders IN EXCLUSIVE MODE", "lock table app.orders; lock table public.t"),
    ]);
}

#[test]
fn changes_tell_whether_they_are_limited() {
    check(&[
        ("DELETE FROM t", "delete table public.t without WHERE"),
        ("DELETE FROM t WHERE id = 1", "delete table public.t; select table public.t"),
        ("DELETE FROM t WHERE id = $1", "delete table public.t; select table public.t"),
        ("UPDATE t SET a = 1", "update table public.t without WHERE"),
        ("UPDATE t SET a = b", "select table public.t; update table public.t without WHERE"),
        (
            "UPDATE t SET a = (SELECT x FROM u) WHERE id = 1",
            "select table public.t; select table public.u; update table public.t",
        ),
        (
            "UPDATE t SET (a, b) = (SELECT x, id FROM u) WHERE t.id = 1",
            "select table public.t; select table public.u; update table public.t",
        ),
        ("UPDATE t SET a = u.x FROM u WHERE u.id = t.id", "select table public.t; select table public.u; update table public.t"),
        ("UPDATE t SET a = 1 RETURNING *", "select table public.t; update table public.t without WHERE"),
        ("UPDATE t SET a = 1 WHERE CURRENT OF c", "select table public.t; update table public.t"),
        ("DELETE FROM t USING u WHERE t.id = u.id", "delete table public.t; select table public.t; select table public.u"),
        ("INSERT INTO t VALUES (1)", "insert table public.t"),
        ("INSERT INTO t SELECT * FROM u", "insert table public.t; select table public.u"),
        (
            "INSERT INTO t (id) VALUES ((SELECT max(x) FROM u)) RETURNING id",
            "insert table public.t; select table public.t; select table public.u",
        ),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "insert table public.t"),
        (
            "INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = excluded.a",
            "insert table public.t; update table public.t",
        ),
        (
            "INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = (SELECT x FROM u)",
            "insert table public.t; select table public.u; update table public.t",
        ),
        ("INSERT INTO t DEFAULT VALUES", "insert table public.t"),
        ("TRUNCATE t, app.orders CASCADE", "truncate table app.orders; truncate table public.t"),
        (
            "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "insert table public.t; select table public.t; select table public.u; update table public.t",
        ),
        (
            "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
            "delete table public.t without WHERE; select table public.t; select table public.u",
        ),
        (
            "MERGE INTO t USING u ON u.x = 1 WHEN MATCHED AND t.a = 2 THEN DELETE WHEN MATCHED THEN DO NOTHING",
            "delete table public.t; select table public.t; select table public.u",
        ),
        (
            "MERGE INTO t USING u ON t.id = u.id WHEN NOT MATCHED BY SOURCE THEN DELETE",
            "delete table public.t without WHERE; select table public.t; select table public.u",
        ),
    ]);
}

#[test]
fn conditions_that_are_true_of_every_row_are_none() {
    let none = [
        "true",
        "1 = 1",
        "'x' = 'x'",
        "NOT false",
        "id = id",
        "t.id = id",
        "id = 5 OR true",
        "$1",
        "$1 = $2",
        "1 = 2 OR 1 < 2",
        "id <> id OR 1 = 1",
        "NOT (id <> id)",
        "id::text = id::text",
        "id IS NOT DISTINCT FROM id",
        "EXISTS (SELECT 1)",
        "EXISTS (SELECT * FROM u)",
        "(SELECT true)",
        "now() > '2000-01-01'",
        "true AND 1 = 1",
        "a = a AND b = b",
        "EXISTS (SELECT FROM u WHERE u.x = 1)",
        "EXISTS (SELECT FROM u WHERE x = 1)",
        "length('abc') = 3",
        "NULL IS NULL",
        "id >= id",
        "random() < 2",
        "CASE WHEN true THEN true END",
    ];
    for condition in none {
        let facts = facts(&format!("DELETE FROM t WHERE {condition}"));
        assert!(facts.contains("delete table public.t without WHERE"), "{condition}: {facts}");
    }
    let some = [
        "id = 1",
        "id = 1 AND true",
        "NOT id = 1",
        "id IN (1, 2)",
        "id = ANY ($1)",
        "id IN (SELECT x FROM u)",
        "EXISTS (SELECT FROM u WHERE u.x = t.id)",
        "EXISTS (SELECT FROM u WHERE u.x = a)",
        "a = b",
        "id = id AND a = 1",
        "lower(a) = 'x'",
        "t IS NOT NULL",
        "ctid = '(0,1)'",
        "id BETWEEN 1 AND 2",
        "a LIKE 'x%'",
        "id = 1 OR a = 2",
        "CASE WHEN id = 1 THEN true END",
        "id IS NULL",
        "t.id = 5",
        "(id, a) = (1, 2)",
        "current_date > a::date",
    ];
    for condition in some {
        let facts = facts(&format!("DELETE FROM t WHERE {condition}"));
        assert!(!facts.contains("without WHERE"), "{condition}: {facts}");
    }
    // The other relation's columns do not limit the target's rows.
    assert!(facts("DELETE FROM t USING u WHERE u.x = 1").contains("without WHERE"));
    assert!(facts("DELETE FROM t USING u WHERE x = 1").contains("without WHERE"));
    assert!(facts("UPDATE t AS c SET a = 1 FROM t WHERE t.id = 1").contains("without WHERE"));
}

#[test]
fn common_table_expressions_hide_tables_in_their_scope_alone() {
    check(&[
        ("WITH c AS (SELECT * FROM t) SELECT * FROM c", "select table public.t"),
        ("WITH customers AS (SELECT 1) SELECT * FROM customers", ""),
        ("WITH customers AS (SELECT 1) SELECT * FROM public.customers", "select table public.customers"),
        // Without RECURSIVE, it does not see itself, nor those behind it.
        ("WITH customers AS (SELECT * FROM customers) SELECT * FROM customers", "select table public.customers"),
        ("WITH a AS (SELECT * FROM customers), customers AS (SELECT 1) SELECT * FROM a", "select table public.customers"),
        ("WITH customers AS (SELECT 1), a AS (SELECT * FROM customers) SELECT * FROM a", ""),
        ("WITH RECURSIVE customers AS (SELECT 1 UNION ALL SELECT * FROM customers) SELECT * FROM customers", ""),
        ("WITH RECURSIVE a AS (SELECT * FROM customers), customers AS (SELECT 1) SELECT * FROM a", ""),
        // An inner one does not reach out.
        ("SELECT * FROM (WITH customers AS (SELECT 1) SELECT * FROM customers) s, customers", "select table public.customers"),
        (
            "(WITH customers AS (SELECT 1) SELECT * FROM customers) UNION ALL SELECT id FROM customers",
            "select table public.customers",
        ),
        ("SELECT (WITH customers AS (SELECT 1) TABLE customers), (SELECT id FROM customers)", "select table public.customers"),
        ("WITH customers AS (SELECT 1) SELECT (SELECT * FROM customers)", ""),
        // The target of a change is a table, whatever is called like it.
        ("WITH t AS (SELECT 1) DELETE FROM t", "delete table public.t without WHERE"),
        ("WITH t AS (SELECT 1) UPDATE t SET a = 1", "update table public.t without WHERE"),
        ("WITH t AS (SELECT 1) INSERT INTO t SELECT * FROM t", "insert table public.t"),
        (
            "WITH t AS (SELECT 1) MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE",
            "delete table public.t; select table public.t; select table public.u",
        ),
        // Changes within.
        ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "delete table public.t without WHERE; select table public.t"),
        (
            "WITH i AS (INSERT INTO t VALUES (1) RETURNING id) UPDATE u SET x = 1 WHERE id IN (SELECT id FROM i)",
            "insert table public.t; select table public.t; select table public.u; update table public.u",
        ),
        (
            "WITH a AS (WITH b AS (DELETE FROM t RETURNING 1) SELECT * FROM b) SELECT * FROM a",
            "delete table public.t without WHERE; select table public.t",
        ),
    ]);
}

#[test]
fn functions_that_are_not_built_in_are_calls() {
    check(&[
        ("SELECT lower('A'), now(), count(*), pg_sleep(1), nextval('s'), current_setting('x')", ""),
        ("SELECT refund(1)", "call function public.refund"),
        ("SELECT * FROM refund(1)", "call function public.refund"),
        ("SELECT public.refund(1)", "call function public.refund"),
        ("CALL refund(1)", "call function public.refund"),
        ("CALL refund((SELECT id FROM t))", "call function public.refund; select table public.t"),
        ("SELECT * FROM t WHERE refund(id) > 1", "call function public.refund; select table public.t"),
        ("SELECT uuid_generate_v4(), public.uuid_generate_v4()", ""),
        // Overloads in other schemas may be chosen by their argument types.
        ("SELECT abs(1)", "call function app.abs"),
        ("SELECT pg_catalog.abs(1)", ""),
        ("SELECT nowhere(1)", "call function public.nowhere"),
        ("SELECT app.nowhere(1)", "call function app.nowhere"),
        ("SELECT 1 OPERATOR(pg_catalog.+) 2", ""),
        ("SELECT 1 OPERATOR(app.+) 2", "call function app.+"),
        ("SELECT 1 ORDER BY 1 USING OPERATOR(app.<)", "call function app.<"),
        ("SELECT 1 OPERATOR(app.=) ANY (SELECT id FROM t)", "call function app.=; select table public.t"),
        // A row's function is called like a column.
        ("SELECT c.fullname FROM customers c", "call function public.fullname; select table public.customers"),
        ("SELECT (c).fullname FROM customers c", "call function public.fullname; select table public.customers"),
        ("SELECT c.email FROM customers c", "select table public.customers"),
        ("SELECT o.email FROM orders o", "call function public.email; select table public.orders"),
        ("SELECT pg_notify('a', 'b')", "notify database"),
        ("SELECT * FROM t TABLESAMPLE app.mine(1)", "call function app.mine; select table public.t"),
    ]);
}

#[test]
fn copies_name_their_direction() {
    check(&[
        ("COPY customers TO STDOUT", "copy_out table public.customers; select table public.customers"),
        (
            "COPY customers (id, name) TO STDOUT WITH (FORMAT csv, HEADER)",
            "copy_out table public.customers; select table public.customers",
        ),
        (
            "COPY (SELECT * FROM t JOIN u ON true) TO STDOUT",
            "copy_out table public.t; copy_out table public.u; select table public.t; select table public.u",
        ),
        ("COPY (SELECT 1) TO STDOUT", "copy_out database"),
        (
            "COPY (DELETE FROM t RETURNING *) TO STDOUT",
            "copy_out table public.t; delete table public.t without WHERE; select table public.t",
        ),
        ("COPY t FROM STDIN", "copy_in table public.t; insert table public.t"),
        (
            "COPY t FROM STDIN WHERE id > (SELECT max(x) FROM u)",
            "copy_in table public.t; insert table public.t; select table public.u",
        ),
        (
            "COPY t TO '/tmp/x'",
            "copy_out table public.t; select table public.t; unknown: COPY with a file or a program on the server",
        ),
        (
            "COPY t FROM PROGRAM 'id'",
            "copy_in table public.t; insert table public.t; unknown: COPY with a file or a program on the server",
        ),
        ("COPY (SELECT 1) TO PROGRAM 'id'", "copy_out database; unknown: COPY with a file or a program on the server"),
        (
            "COPY t TO STDOUT (ENCODING 'SJIS')",
            "copy_out table public.t; select table public.t; unknown: COPY with options that the gateway does not know",
        ),
    ]);
}

#[test]
fn a_copied_query_is_cut_from_the_text() {
    let query = |sql: &str| analysis(sql).copy.unwrap().query.map(|query| String::from_utf8(query.to_vec()).unwrap());
    assert_eq!(query("COPY (SELECT ')' , (1) /* ) */ FROM t) TO STDOUT").as_deref(), Some("SELECT ')' , (1) /* ) */ FROM t"));
    assert_eq!(query(" /* x */ copy(SELECT 1)TO STDOUT").as_deref(), Some("SELECT 1"));
    assert_eq!(query("SELECT 1; COPY (SELECT $$)$$) TO STDOUT; SELECT 2").as_deref(), Some("SELECT $$)$$"));
    assert_eq!(query("COPY t TO STDOUT"), None);
}

#[test]
fn statements_that_run_others_are_what_these_are() {
    check(&[
        ("EXPLAIN DELETE FROM t", "delete table public.t without WHERE"),
        ("EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM t", "select table public.t"),
        ("EXPLAIN CREATE TABLE x AS SELECT * FROM t", "ddl table public.x; select table public.t"),
        ("DECLARE c CURSOR FOR SELECT * FROM t", "select table public.t"),
        ("PREPARE p AS DELETE FROM t", "delete table public.t without WHERE"),
        ("EXECUTE p", "unknown: prepared statement \"p\" is not known to the gateway"),
        ("FETCH 1 FROM c", "unknown: cursor \"c\" is not known to the gateway"),
        ("DECLARE c CURSOR FOR SELECT * FROM t; FETCH ALL FROM c", "select table public.t"),
        ("PREPARE p AS SELECT * FROM t; EXECUTE p((SELECT x FROM u))", "select table public.t; select table public.u"),
        ("CREATE TABLE x AS EXECUTE p", "ddl table public.x; unknown: prepared statement \"p\" is not known to the gateway"),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO DELETE FROM u", "ddl table public.t; delete table public.u without WHERE"),
    ]);
}

#[test]
fn code_blocks_are_what_is_in_them() {
    check(&[
        ("DO $$ BEGIN DELETE FROM t; END $$", "delete table public.t without WHERE"),
        (
            "DO LANGUAGE plpgsql $$ BEGIN PERFORM refund(1); UPDATE t SET a = 1 WHERE id = 2; END $$",
            "call function public.refund; select table public.t; update table public.t",
        ),
        (
            "DO $$ DECLARE n int := (SELECT count(*) FROM t); BEGIN IF n > (SELECT max(x) FROM u) THEN RAISE NOTICE '%', (SELECT 1 FROM orders); END IF; END $$",
            "select table public.orders; select table public.t; select table public.u",
        ),
        (
            "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM t LOOP DELETE FROM u WHERE id = r.id; END LOOP; END $$",
            "delete table public.u; select table public.t; select table public.u",
        ),
        ("DO $$ DECLARE c CURSOR FOR SELECT * FROM t; BEGIN OPEN c; END $$", "select table public.t"),
        (
            "DO $$ BEGIN TRUNCATE t; EXCEPTION WHEN OTHERS THEN DELETE FROM u; END $$",
            "delete table public.u without WHERE; truncate table public.t",
        ),
        ("DO $$ BEGIN EXECUTE 'DELETE FROM t'; END $$", "unknown: DO with a statement that is made when it runs (EXECUTE)"),
        (
            "DO $$ DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT 1' LOOP END LOOP; END $$",
            "unknown: DO with a statement that is made when it runs (EXECUTE)",
        ),
        (
            "DO $$ DECLARE c refcursor; BEGIN OPEN c FOR EXECUTE 'SELECT 1'; END $$",
            "unknown: DO with a statement that is made when it runs (EXECUTE)",
        ),
        ("DO LANGUAGE plperl $$ spi_exec_query('x') $$", "unknown: DO in the language plperl"),
        (
            "DO $$ DECLARE r record := (SELECT hr.salaries FROM hr.salaries); BEGIN END $$",
            "unknown: DO with a record variable that has a default, which the gateway cannot read",
        ),
    ]);
    assert!(facts("DO $$ this is none $$").contains("unknown: DO with a block that cannot be parsed"));
    assert!(facts("DO $$ BEGIN CALL refund(1); END $$").contains("call function public.refund"));
}

#[test]
fn changes_of_the_catalogue_name_their_objects() {
    check(&[
        ("CREATE TABLE x (id int)", "ddl table public.x"),
        (
            "CREATE TABLE app.x (id int DEFAULT refund(1), c int REFERENCES customers)",
            "call function public.refund; ddl table app.x; ddl table public.customers",
        ),
        ("CREATE TABLE x (LIKE t) INHERITS (u)", "ddl table public.t; ddl table public.u; ddl table public.x"),
        ("CREATE TABLE x PARTITION OF t FOR VALUES IN (1)", "ddl table public.t; ddl table public.x"),
        ("CREATE TABLE x AS SELECT * FROM t", "ddl table public.x; select table public.t"),
        ("SELECT * INTO x FROM t", "ddl table public.x; select table public.t"),
        ("CREATE VIEW v AS SELECT * FROM t", "ddl table public.v; select table public.t"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM t", "ddl table public.v; select table public.t"),
        ("CREATE SEQUENCE app.s", "ddl table app.s"),
        ("CREATE INDEX ON t (lower(a)) WHERE refund(id) > 0", "call function public.refund; ddl table public.t"),
        ("ALTER TABLE t ADD COLUMN x int", "ddl table public.t"),
        ("ALTER TABLE t ATTACH PARTITION u DEFAULT", "ddl table public.t; ddl table public.u"),
        ("ALTER TABLE t RENAME TO x", "ddl table public.t"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "ddl table public.t"),
        ("ALTER TABLE t SET SCHEMA app", "ddl table public.t"),
        ("ALTER TABLE t OWNER TO x", "ddl table public.t"),
        ("DROP TABLE t, app.orders", "ddl table app.orders; ddl table public.t"),
        ("DROP INDEX app.i", "ddl schema app"),
        ("DROP SCHEMA app CASCADE", "ddl schema app"),
        ("DROP FUNCTION refund(int)", "ddl function public.refund"),
        ("DROP TRIGGER g ON t", "ddl table public.t"),
        ("DROP TYPE app.x", "ddl schema app"),
        ("DROP EXTENSION x", "ddl database"),
        ("DROP DATABASE x", "ddl connection"),
        ("CREATE SCHEMA x", "ddl schema x"),
        ("CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "ddl function app.f"),
        ("CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", "ddl table public.t"),
        ("CREATE POLICY p ON t USING (id IN (SELECT x FROM u))", "ddl table public.t; select table public.u"),
        ("CREATE TYPE app.x AS ENUM ('a')", "ddl schema app"),
        ("CREATE TYPE app.x AS (a int)", "ddl table app.x"),
        ("CREATE DOMAIN x AS int CHECK (value > 0)", "ddl schema public"),
        ("CREATE EXTENSION x", "ddl database"),
        ("CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()", "ddl database"),
        ("CREATE DATABASE x", "ddl connection"),
        ("COMMENT ON TABLE t IS 'x'", "ddl table public.t"),
        ("COMMENT ON COLUMN t.a IS 'x'", "ddl table public.t"),
        ("COMMENT ON COLUMN app.orders.id IS 'x'", "ddl table app.orders"),
        ("SECURITY LABEL ON TABLE t IS 'x'", "ddl table public.t"),
        ("IMPORT FOREIGN SCHEMA x FROM SERVER s INTO app", "ddl database"),
        ("CREATE STATISTICS s ON a, b FROM t", "ddl table public.t"),
    ]);
}

#[test]
fn privileges_upkeep_replication_and_signals() {
    check(&[
        ("GRANT SELECT ON t TO x", "grant table public.t"),
        ("REVOKE ALL ON ALL TABLES IN SCHEMA app FROM x", "grant schema app"),
        ("GRANT USAGE ON SCHEMA app TO x", "grant schema app"),
        ("GRANT EXECUTE ON FUNCTION refund TO x", "grant function public.refund"),
        ("GRANT a TO b", "grant connection"),
        ("GRANT CONNECT ON DATABASE shop TO x", "grant connection"),
        ("CREATE ROLE x", "grant connection"),
        ("ALTER ROLE x SET search_path = hr", "grant connection"),
        ("DROP ROLE x", "grant connection"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x", "grant database"),
        ("REASSIGN OWNED BY a TO b", "ddl database; grant connection"),
        ("VACUUM t", "maintain table public.t"),
        ("VACUUM", "maintain database"),
        ("ANALYZE t (a)", "maintain table public.t"),
        ("REINDEX TABLE t", "maintain table public.t"),
        ("REINDEX SCHEMA app", "maintain schema app"),
        ("CLUSTER t USING i", "maintain table public.t"),
        ("REFRESH MATERIALIZED VIEW app.audit", "maintain table app.audit"),
        ("CHECKPOINT", "maintain connection"),
        ("LISTEN x", "listen database"),
        ("UNLISTEN *", ""),
        ("NOTIFY x, 'y'", "notify database"),
        ("CREATE PUBLICATION p FOR TABLE t", "ddl database; ddl table public.t; replicate database"),
        ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "ddl database; replicate database"),
        ("ALTER SYSTEM SET x = 1", "set connection; unknown: ALTER SYSTEM changes the server's configuration"),
        ("LOAD 'x'", "unknown: LOAD loads code into the server"),
    ]);
}

#[test]
fn settings_that_are_harmless_need_nothing() {
    check(&[
        ("SET statement_timeout = 5", ""),
        ("SET TIME ZONE 'UTC'", ""),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", ""),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", ""),
        ("SET client_encoding TO 'UTF8'", ""),
        ("SET NAMES 'latin1'", ""),
        ("SET standard_conforming_strings = on", ""),
        ("RESET ALL", ""),
        ("RESET search_path", ""),
        ("DISCARD ALL", ""),
        ("SHOW search_path", ""),
        ("BEGIN; SAVEPOINT a; RELEASE a; COMMIT", ""),
        ("DEALLOCATE ALL; CLOSE ALL", ""),
        ("SET row_security = off", "set connection"),
        ("SET session_replication_role = replica", "set connection"),
        ("SET log_statement = none", "set connection"),
        ("SET app.user_id = 1", "set connection"),
        ("SET ROLE admin", "set_role connection"),
        ("SET LOCAL ROLE admin", "set_role connection"),
        ("SET SESSION AUTHORIZATION x", "set_role connection"),
        ("RESET ROLE", ""),
        ("SELECT set_config('role', 'admin', false)", "set_role connection"),
        ("SELECT set_config('ROLE'::text, 'admin', false)", "set_role connection"),
        ("SELECT pg_catalog.set_config('session_authorization', 'x', true)", "set_role connection"),
        ("SELECT set_config('statement_timeout', '5', false)", ""),
        ("SELECT set_config('row_security', 'off', false)", "set connection"),
        (
            "SELECT set_config(a, 'x', false) FROM t",
            "select table public.t; unknown: set_config with a name that is not a constant",
        ),
        ("SELECT set_config('ro' || 'le', 'x', false)", "unknown: set_config with a name that is not a constant"),
        ("SET client_encoding = 'SJIS'", "unknown: client_encoding SJIS is not supported: its characters can hide quotes"),
        ("SET NAMES 'gbk'", "unknown: client_encoding gbk is not supported: its characters can hide quotes"),
        (
            "SELECT set_config('client_encoding', 'big5', false)",
            "unknown: client_encoding big5 is not supported: its characters can hide quotes",
        ),
        (
            "SET standard_conforming_strings = off",
            "unknown: standard_conforming_strings must stay on: statements could not be read",
        ),
    ]);
}

#[test]
fn the_servers_own_relations_are_in_their_own_schemas() {
    check(&[
        ("SELECT * FROM pg_class", "select table pg_catalog.pg_class"),
        ("SELECT * FROM pg_catalog.pg_class", "select table pg_catalog.pg_class"),
        ("SELECT * FROM pg_new_view", "select table pg_catalog.pg_new_view"),
        ("SELECT * FROM information_schema.tables", "select table information_schema.tables"),
    ]);
    assert_eq!(analysis("SELECT * FROM pg_statistic, pg_authid").facts.attributes["sensitive_catalog"], "pg_authid,pg_statistic");
    assert_eq!(analysis("SELECT * FROM pg_class").facts.attributes.get("sensitive_catalog"), None);
    assert!(analysis("SELECT * FROM pg_toast.pg_toast_1234").facts.attributes.contains_key("sensitive_catalog"));
}

#[test]
fn every_statement_has_a_kind() {
    let kinds = |sql: &str| analysis(sql).facts.kinds.join(", ");
    assert_eq!(
        kinds("BEGIN; SELECT 1; WITH d AS (DELETE FROM t) INSERT INTO u VALUES (1); COMMIT"),
        "BEGIN, SELECT, INSERT, DELETE, COMMIT"
    );
    assert_eq!(kinds("EXPLAIN ANALYZE UPDATE t SET a = 1"), "EXPLAIN, UPDATE");
    assert_eq!(kinds("COPY (SELECT 1) TO STDOUT"), "COPY TO");
    assert_eq!(kinds("COPY (INSERT INTO t VALUES (1) RETURNING 1) TO STDOUT"), "COPY TO, INSERT");
    assert_eq!(analysis("SELECT 1; SELECT 2").facts.attributes["statement_count"], "2");
    assert_eq!(analysis("").facts.attributes["statement_count"], "0");
}

#[test]
fn what_cannot_be_read_is_unknown() {
    assert!(facts("SELEC 1").starts_with("unknown: not parseable"));
    assert!(facts("SELECT 1\0").starts_with("unknown: not parseable"));
    let deep = format!("SELECT {}1{}", "(SELECT ".repeat(500), ")".repeat(500));
    assert!(facts(&deep).contains("unknown"), "{}", facts(&deep));
    let catalog = sql_common::shop();
    let state = policy::sql::SqlState::new(&[], None);
    let bytes = policy::sql::analyze_bytes(b"SELECT '\xff'", Some(&catalog), &state);
    assert!(sql_common::line(&bytes).starts_with("unknown: the statement is not UTF-8"));
}

#[test]
fn a_session_starts_with_the_path_it_asked_for() {
    let mut session = Session::new(&[("search_path", "app")]);
    assert_eq!(session.run("SELECT * FROM orders"), "select table app.orders");
    let mut several = Session::new(&[("search_path", "app, public")]);
    assert_eq!(several.run("SELECT * FROM orders"), "select table app.orders; select table public.orders");
}
