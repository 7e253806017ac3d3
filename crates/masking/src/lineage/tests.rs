//! Ways around masking, each with what must become of it, for somebody from whom `email` and `card` are hidden.

use super::*;
use crate::shop;
use crate::{Circumstances, disclose};
use Expected::{Mask, Pass, Refuse};

#[derive(Debug, PartialEq)]
enum Expected {
    /// Nothing hidden is touched: results pass unread.
    Pass,
    /// Forwarded; columns are masked by their origin.
    Mask,
    /// Refused before it is forwarded.
    Refuse(Why),
}

fn outcome(plan: &Arc<MaskPlan>, sql: &str) -> Expected {
    let flows = shop::flows_of(plan, sql);
    match disclose(plan, &shop::names(&["email", "card"]), &flows, &with_copy(sql)) {
        Ok(disclosure) if disclosure.rules.is_some() => Mask,
        Ok(_) => Pass,
        Err(refusal) => {
            assert!(!refusal.message.is_empty() && refusal.remedy.contains("unmask"), "{sql}: {refusal:?}");
            let hidden = plan.class_set(&shop::names(&["email", "card"])) | ClassSet::ANYTHING;
            let found = flows.untraced().iter().find(|found| found.classes.meets(hidden));
            Refuse(found.unwrap_or_else(|| panic!("{sql}: {refusal:?}")).why)
        }
    }
}

fn with_copy(sql: &str) -> Circumstances {
    let format = proxy_core::results::CopyFormat::Binary;
    let copy = sql.contains("COPY").then(|| crate::CopyOut { format, query: Some("SELECT 1".into()) });
    Circumstances { copy, catalog_stale: false }
}

fn check(list: &[(&str, Expected)]) {
    let plan = shop::plan();
    let wrong = list.iter().filter_map(|(sql, expected)| {
        let got = outcome(&plan, sql);
        (got != *expected).then(|| format!("{sql}\n    is {got:?}, should be {expected:?}"))
    });
    let wrong = wrong.collect::<Vec<_>>();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn plain_columns_are_masked_where_they_arrive() {
    check(&[
        ("SELECT email FROM customers", Mask),
        ("SELECT email AS id FROM customers", Mask),
        ("SELECT * FROM customers", Mask),
        ("TABLE customers", Mask),
        ("SELECT c.* FROM customers c", Mask),
        ("SELECT e FROM (SELECT email AS e FROM customers) s", Mask),
        ("SELECT e FROM (SELECT email FROM customers) s(e)", Mask),
        ("SELECT x FROM customers AS c(w, x)", Mask),
        ("WITH t AS (SELECT email FROM customers) SELECT * FROM t", Mask),
        ("WITH t(z) AS (SELECT email FROM customers) SELECT z FROM t", Mask),
        ("WITH t AS (UPDATE customers SET id = id RETURNING email) SELECT * FROM t", Mask),
        ("SELECT c.email FROM orders o LEFT JOIN customers c ON o.customer = c.id", Mask),
        ("SELECT c.email FROM orders o FULL JOIN customers c ON o.customer = c.id", Mask),
        ("SELECT j.x FROM (customers c JOIN orders o ON true) AS j(a, x)", Mask),
        ("SELECT email FROM customers c JOIN orders o USING (email)", Mask),
        ("SELECT l.e FROM customers c, LATERAL (SELECT c.email AS e) l", Mask),
        ("SELECT DISTINCT email FROM customers ORDER BY email LIMIT 3", Mask),
        ("SELECT email, count(*) FROM customers GROUP BY ROLLUP (email)", Mask),
        ("SELECT id FROM customers WHERE email = $1", Mask),
        ("SELECT id FROM customers WHERE email LIKE 'a%' ORDER BY lower(email)", Mask),
        ("SELECT count(email), count(DISTINCT email), email IS NULL FROM customers", Mask),
        ("SELECT EXISTS (SELECT 1 FROM customers WHERE email = 'a')", Mask),
        ("INSERT INTO customers (email) VALUES ('x') RETURNING email, id", Mask),
        (
            "INSERT INTO customers (id, email) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.email",
            Mask,
        ),
        ("UPDATE customers SET email = lower(email) WHERE id = 1", Mask),
        ("UPDATE orders o SET id = c.id FROM customers c WHERE c.id = o.customer RETURNING c.email", Mask),
        ("DELETE FROM orders USING customers c WHERE c.id = customer RETURNING c.email", Mask),
        ("INSERT INTO archive (id, email) SELECT id, email FROM customers", Mask),
        ("INSERT INTO archive SELECT id, email FROM customers", Mask),
        (
            "MERGE INTO archive a USING customers c ON a.id = c.id WHEN MATCHED THEN UPDATE SET email = c.email WHEN NOT MATCHED THEN INSERT (id, email) VALUES (c.id, c.email)",
            Mask,
        ),
        ("SELECT e FROM v_direct", Mask),
        ("SELECT x FROM v_on_v", Mask),
        ("SELECT email FROM customers_2024", Mask),
        ("SELECT u FROM v_upper", Mask),                // its rule refuses the column
        ("SELECT id, gen_search FROM customers", Mask), // likewise
        ("DECLARE k CURSOR FOR SELECT email FROM customers", Mask),
        ("PREPARE p AS SELECT email FROM customers", Mask),
        ("COPY customers TO STDOUT", Mask),
        ("COPY (SELECT email FROM customers) TO STDOUT", Mask),
        ("EXPLAIN ANALYZE SELECT upper(email) FROM customers", Mask),
        ("SELECT email FROM customers TABLESAMPLE BERNOULLI (10)", Mask),
        ("SELECT email FROM ONLY customers FOR UPDATE", Mask),
        ("SELECT row_number() OVER (PARTITION BY email ORDER BY card) FROM customers", Mask),
        ("SELECT grouping(email) FROM customers GROUP BY email", Mask),
        ("SELECT (SELECT count(*) FROM customers WHERE email = o.email) FROM orders o", Mask),
    ]);
}

#[test]
fn what_has_nothing_to_do_with_it_passes() {
    check(&[
        ("SELECT 1", Pass),
        ("SELECT upper(email) FROM orders", Pass),
        ("SELECT o FROM orders o", Pass),
        ("SELECT email FROM crm.customers", Pass),
        ("SELECT email || 'x' FROM crm.customers", Pass),
        ("SELECT relname FROM pg_class", Pass),
        ("WITH customers AS (SELECT id, email FROM orders) SELECT upper(email) FROM customers", Pass),
        ("SELECT upper(x) FROM scratch", Pass),
        ("INSERT INTO orders (note) VALUES (upper('x')) RETURNING note || 'y'", Pass),
        ("SELECT similarity(note, 'x'), fine(1) FROM orders", Pass),
        ("SELECT n + 1 FROM v_clean WHERE false OR EXISTS (SELECT 1 FROM orders)", Pass),
        ("SELECT secret FROM crm.leads", Pass), // another class, not hidden here
        ("SELECT upper(secret) FROM crm.leads", Pass),
        ("SELECT * FROM generate_series(1, 3) g, unnest(ARRAY[1]) WITH ORDINALITY AS u(a, b)", Pass),
        ("SELECT id, key, value FROM orders, json_each_text('{}') AS j", Pass),
        ("CREATE TABLE t (id int); INSERT INTO t VALUES (1)", Refuse(Why::ChangedBefore)),
        ("CREATE TABLE t (id int DEFAULT 1)", Pass),
        ("INSERT INTO not_there VALUES (1)", Pass),
        ("SET search_path = public; SHOW search_path", Pass),
        ("BEGIN; SELECT 1; COMMIT", Pass),
        ("TRUNCATE orders", Pass),
        ("CREATE VIEW fresh AS SELECT id, note FROM orders", Pass),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT sum(n) FROM t", Pass),
        ("SELECT id FROM orders WHERE get_email(id) = 'x'", Pass), // a filter: its messages are withheld
    ]);
}

#[test]
fn computed_values_are_refused() {
    use Why::{Expression, FromFunction, MergedColumn, SetOperation, UnknownName, Values, WholeRow};
    check(&[
        ("SELECT upper(email) FROM customers", Refuse(Expression)),
        ("SELECT email || '' FROM customers", Refuse(Expression)),
        ("SELECT email::text FROM customers", Refuse(Expression)),
        ("SELECT CAST(email AS varchar(90)) FROM customers", Refuse(Expression)),
        ("SELECT email COLLATE \"C\" FROM customers", Refuse(Expression)),
        ("SELECT email = 'a@b.c' FROM customers", Refuse(Expression)),
        ("SELECT CASE WHEN email LIKE 'a%' THEN 1 END FROM customers", Refuse(Expression)),
        ("SELECT coalesce(email, '') FROM customers", Refuse(Expression)),
        ("SELECT nullif(email, '') FROM customers", Refuse(Expression)),
        ("SELECT greatest(email, '') FROM customers", Refuse(Expression)),
        ("SELECT ARRAY[email] FROM customers", Refuse(Expression)),
        ("SELECT ARRAY(SELECT email FROM customers)", Refuse(Expression)),
        ("SELECT (SELECT email FROM customers LIMIT 1)", Refuse(Expression)),
        ("SELECT 'a' IN (SELECT email FROM customers)", Refuse(Expression)),
        ("SELECT ROW(email, id) FROM customers", Refuse(Expression)),
        ("SELECT max(email) FROM customers", Refuse(Expression)),
        ("SELECT string_agg(email, ',') FROM customers", Refuse(Expression)),
        ("SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY email) FROM customers", Refuse(Expression)),
        ("SELECT first_value(email) OVER () FROM customers", Refuse(Expression)),
        ("SELECT xmlelement(name x, email) FROM customers", Refuse(Expression)),
        ("SELECT xmlforest(email) FROM customers", Refuse(Expression)),
        ("SELECT json_build_object('e', email) FROM customers", Refuse(Expression)),
        ("SELECT JSON_OBJECT('e' : email) FROM customers", Refuse(Expression)),
        ("SELECT JSON_ARRAYAGG(email) FROM customers", Refuse(Expression)),
        ("SELECT (email)[1] FROM customers", Refuse(Expression)),
        ("SELECT (email).upper FROM customers", Refuse(Expression)),
        ("SELECT length(email) FROM customers", Refuse(Expression)),
        ("SELECT upper(e) FROM (SELECT email AS e FROM customers) s", Refuse(Expression)),
        ("SELECT upper(x) FROM customers AS c(w, x)", Refuse(Expression)),
        ("SELECT u FROM (SELECT upper(email) AS u FROM customers) s", Refuse(Expression)),
        ("WITH t(z) AS (SELECT email FROM customers) SELECT z || '' FROM t", Refuse(Expression)),
        ("SELECT upper(e) FROM v_direct", Refuse(Expression)),
        ("SELECT upper(u) FROM v_upper", Refuse(Expression)),
        ("SELECT lower(email) FROM customers_2024", Refuse(Expression)),
        ("SELECT gen_search::text FROM customers", Refuse(Expression)),
        ("DELETE FROM customers RETURNING upper(email)", Refuse(Expression)),
        ("SELECT (SELECT x FROM orders, (SELECT card AS x) s) FROM customers", Refuse(Expression)),
        ("SELECT (SELECT upper(email)) FROM customers", Refuse(Expression)),
        ("SELECT c FROM customers c", Refuse(WholeRow)),
        ("SELECT customers FROM customers", Refuse(WholeRow)),
        ("SELECT row_to_json(c) FROM customers c", Refuse(WholeRow)),
        ("SELECT c.row_to_json FROM customers c", Refuse(WholeRow)),
        ("SELECT c::text FROM customers c", Refuse(WholeRow)),
        ("SELECT (c).email FROM customers c", Refuse(WholeRow)),
        ("SELECT (c).* FROM customers c", Refuse(WholeRow)),
        ("SELECT email(c) FROM customers c", Refuse(Why::UnsafeFunction)),
        ("SELECT ROW(c.*) FROM customers c", Refuse(WholeRow)),
        ("SELECT json_agg(s) FROM (SELECT * FROM customers) s", Refuse(WholeRow)),
        ("SELECT to_jsonb(t) FROM v_direct t", Refuse(WholeRow)),
        ("DELETE FROM customers c RETURNING c", Refuse(WholeRow)),
        ("SELECT email FROM customers UNION SELECT note FROM orders", Refuse(SetOperation)),
        ("SELECT note FROM orders UNION ALL SELECT email FROM customers", Refuse(SetOperation)),
        ("SELECT note FROM orders EXCEPT SELECT email FROM customers", Refuse(SetOperation)),
        ("SELECT note FROM orders INTERSECT SELECT email FROM customers", Refuse(SetOperation)),
        ("SELECT id, x FROM (SELECT id, note AS x FROM orders UNION SELECT id, email FROM customers) s", Refuse(SetOperation)),
        (
            "WITH RECURSIVE t AS (SELECT id, email FROM customers UNION SELECT id, email FROM t) SELECT * FROM t",
            Refuse(SetOperation),
        ),
        (
            "WITH RECURSIVE t(a, b) AS (SELECT 'x', email FROM customers UNION ALL SELECT b, a FROM t) SELECT a FROM t",
            Refuse(SetOperation),
        ),
        (
            "WITH RECURSIVE t AS (SELECT id, email FROM customers UNION ALL SELECT t.id, t.email FROM t) SEARCH DEPTH FIRST BY email SET o SELECT o FROM t",
            Refuse(SetOperation),
        ),
        ("SELECT email FROM orders o FULL JOIN customers c USING (email)", Refuse(MergedColumn)),
        ("SELECT email FROM customers NATURAL FULL JOIN orders", Refuse(MergedColumn)),
        ("SELECT v.x FROM customers c, LATERAL (VALUES (c.email)) v(x)", Refuse(Values)),
        ("VALUES ((SELECT email FROM customers LIMIT 1))", Refuse(Expression)),
        ("SELECT * FROM customers c, unnest(ARRAY[c.email]) u", Refuse(Expression)),
        ("SELECT u FROM customers c, regexp_split_to_table(c.email, '@') u", Refuse(Expression)),
        ("SELECT j.value FROM customers c, jsonb_each_text(to_jsonb(c)) j", Refuse(WholeRow)),
        ("SELECT x FROM customers c, XMLTABLE('/a' PASSING (c.email::xml) COLUMNS x text) t", Refuse(Expression)),
        ("SELECT x FROM customers c, JSON_TABLE(c.email::jsonb, '$' COLUMNS (x text PATH '$')) t", Refuse(Expression)),
        ("SELECT x FROM customers c, ROWS FROM (unnest(string_to_array(c.email, '@'))) AS t(x)", Refuse(Expression)),
        ("SELECT upper(emial) FROM customers", Refuse(Expression)),
        ("SELECT emial FROM customers", Mask), // the server's own error, or refused by its rule
        ("SELECT e.emial FROM customers", Refuse(UnknownName)),
        ("SELECT crm.customers.nope FROM customers", Refuse(WholeRow)),
    ]);
    let _ = FromFunction;
}

#[test]
fn copies_are_refused() {
    use Why::{ServerFile, Written};
    check(&[
        ("INSERT INTO orders (note) SELECT email FROM customers", Refuse(Written)),
        ("INSERT INTO orders (note) VALUES ((SELECT email FROM customers LIMIT 1))", Refuse(Written)),
        (
            "INSERT INTO archive (note, email) SELECT email, note FROM (SELECT email, name AS note FROM customers) s",
            Refuse(Written),
        ),
        ("INSERT INTO archive SELECT id, card FROM customers", Refuse(Written)),
        ("INSERT INTO not_there SELECT * FROM customers", Refuse(Written)),
        ("INSERT INTO scratch SELECT email FROM customers", Refuse(Written)),
        ("UPDATE customers SET name = email", Refuse(Written)),
        ("UPDATE customers SET (name, region) = (SELECT email, 1)", Refuse(Written)),
        ("UPDATE orders SET note = c.email FROM customers c WHERE c.id = customer", Refuse(Written)),
        ("INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = customers.email", Refuse(Written)),
        (
            "MERGE INTO orders o USING customers c ON o.customer = c.id WHEN MATCHED THEN UPDATE SET note = c.email",
            Refuse(Written),
        ),
        ("MERGE INTO orders o USING customers c ON false WHEN NOT MATCHED THEN INSERT (note) VALUES (c.email)", Refuse(Written)),
        (
            "INSERT INTO archive (id, email) SELECT id, email FROM customers ON CONFLICT (id) DO UPDATE SET note = excluded.email",
            Refuse(Written),
        ),
        ("INSERT INTO archive SELECT id, email FROM customers ON CONFLICT (id) DO UPDATE SET email = excluded.email", Mask),
        (
            "INSERT INTO not_there VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 2 RETURNING x || ''",
            Refuse(Why::UnknownRelation),
        ),
        ("CREATE TABLE t AS SELECT email FROM customers", Refuse(Written)),
        ("SELECT email INTO t FROM customers", Refuse(Written)),
        ("SELECT email INTO TEMP t FROM customers UNION SELECT 'x'", Refuse(Written)),
        ("CREATE MATERIALIZED VIEW m AS SELECT * FROM customers", Refuse(Written)),
        ("WITH w AS (INSERT INTO orders (note) SELECT email FROM customers RETURNING id) SELECT 1", Refuse(Written)),
        ("EXPLAIN ANALYZE INSERT INTO orders (note) SELECT email FROM customers", Refuse(Written)),
        ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT email FROM customers", Refuse(Written)),
        ("ALTER TABLE customers ALTER COLUMN name TYPE text USING email", Refuse(Written)),
        ("COPY customers TO '/tmp/x'", Refuse(ServerFile)),
        ("COPY (SELECT email FROM customers) TO PROGRAM 'cat'", Refuse(ServerFile)),
        ("COPY (SELECT upper(email) FROM customers) TO STDOUT", Refuse(Why::Expression)),
        ("SELECT set_config('a.b', email, false) IS NULL FROM customers", Refuse(Why::Kept)),
        ("SELECT 1 FROM customers WHERE set_config('a.b', email, false) = ''", Refuse(Why::Kept)),
        ("SELECT 1 FROM (SELECT pg_notify('c', email) FROM customers) s", Refuse(Why::Kept)),
        ("SELECT 1 FROM customers ORDER BY pg_advisory_lock(hashtext(email))", Refuse(Why::Kept)),
        ("SELECT 1 FROM customers WHERE get_email(email) = ''", Refuse(Why::Kept)),
    ]);
}

#[test]
fn other_ways_round_are_refused() {
    use Why::{ChangedBefore, Code, NewName, OtherWay, Statistics, UnknownRelation, UnknownStored, UnsafeFunction};
    check(&[
        ("SELECT get_email(1)", Refuse(UnsafeFunction)),
        ("SELECT * FROM get_email(1)", Refuse(UnsafeFunction)),
        ("SELECT public.get_email(1)", Refuse(UnsafeFunction)),
        ("CALL move_rows(1)", Refuse(UnsafeFunction)),
        ("SELECT pg_temp.f()", Refuse(UnsafeFunction)),
        ("SELECT query_to_xml('SELECT email FROM customers', true, true, '')", Refuse(UnsafeFunction)),
        ("SELECT table_to_xml('customers', true, true, '')", Refuse(UnsafeFunction)),
        ("SELECT * FROM ts_stat('SELECT to_tsvector(email) FROM customers')", Refuse(UnsafeFunction)),
        ("SELECT * FROM dblink('', 'SELECT email FROM customers') AS t(e text)", Refuse(UnsafeFunction)),
        ("SELECT pg_read_file('base/1/1')", Refuse(UnsafeFunction)),
        ("SELECT f FROM orders, LATERAL (SELECT get_email(id) AS f) s", Refuse(UnsafeFunction)),
        ("EXPLAIN SELECT 1 FROM orders WHERE note = get_email(1)", Refuse(UnsafeFunction)),
        ("SELECT * FROM pg_stats", Refuse(Statistics)),
        ("SELECT most_common_vals FROM pg_catalog.pg_stats WHERE tablename = 'customers'", Refuse(Statistics)),
        ("SELECT * FROM not_there", Refuse(UnknownRelation)),
        ("SELECT upper(x) FROM public.not_there", Refuse(UnknownRelation)),
        ("UPDATE not_there SET x = y RETURNING x || ''", Refuse(UnknownRelation)),
        ("COPY not_there TO STDOUT", Refuse(UnknownRelation)),
        ("DO $$ BEGIN PERFORM 1; END $$", Refuse(Code)),
        ("CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT email FROM customers'", Refuse(Code)),
        ("CREATE RULE r AS ON SELECT TO orders DO INSTEAD SELECT * FROM customers", Refuse(Code)),
        ("CREATE TRIGGER t BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION f()", Refuse(Code)),
        ("CREATE VIEW w AS SELECT email FROM customers", Refuse(NewName)),
        ("CREATE OR REPLACE VIEW v_clean AS SELECT id, upper(email) FROM customers", Refuse(NewName)),
        ("ALTER TABLE customers RENAME COLUMN email TO e", Refuse(NewName)),
        ("ALTER TABLE customers RENAME COLUMN name TO n", Mask),
        ("ALTER TABLE customers RENAME TO c", Refuse(NewName)),
        ("ALTER VIEW v_direct RENAME TO w", Refuse(NewName)),
        ("ALTER TABLE customers SET SCHEMA crm", Refuse(NewName)),
        ("ALTER SCHEMA public RENAME TO p", Refuse(NewName)),
        ("ALTER TABLE customers DETACH PARTITION customers_2024", Refuse(NewName)),
        ("ALTER TABLE customers_2024 NO INHERIT customers", Refuse(NewName)),
        ("ALTER TABLE customers ALTER COLUMN gen_search DROP EXPRESSION", Refuse(NewName)),
        ("ALTER TABLE orders ALTER COLUMN region DROP EXPRESSION", Pass),
        ("ALTER TABLE customers ADD COLUMN x int", Mask),
        ("CREATE FOREIGN TABLE f (email text) SERVER s", Refuse(OtherWay)),
        ("IMPORT FOREIGN SCHEMA public FROM SERVER s INTO x", Refuse(OtherWay)),
        ("EXECUTE p", Refuse(UnknownStored)),
        ("FETCH ALL FROM k", Refuse(UnknownStored)),
        ("CREATE TABLE t AS EXECUTE p", Refuse(UnknownStored)),
        ("EXPLAIN ANALYZE EXECUTE p", Refuse(UnknownStored)),
        ("MOVE ALL FROM k", Pass),
        ("CREATE OR REPLACE VIEW v_clean AS SELECT 1; SELECT * FROM v_clean", Refuse(ChangedBefore)),
        ("ALTER TABLE orders RENAME TO o2; SELECT 1 FROM o2", Refuse(UnknownRelation)),
        ("SELECT v_broken.x FROM v_broken", Mask), // its rule refuses it
        ("SELECT upper(x) FROM v_broken", Refuse(Why::Expression)),
        ("SELECT v_function.f || '' FROM v_function", Refuse(Why::Expression)),
    ]);
}

#[test]
fn what_definitions_compute_does_not_copy() {
    use Why::{Kept, UnsafeFunction, Written};
    check(&[
        // Defaults.
        ("CREATE TABLE t (a int DEFAULT 1, b timestamptz DEFAULT now(), c text DEFAULT fine(1))", Pass),
        ("CREATE TABLE t (x text DEFAULT get_email(1))", Refuse(UnsafeFunction)),
        ("CREATE TEMP TABLE t (x text DEFAULT get_email(1))", Refuse(UnsafeFunction)),
        ("CREATE SCHEMA s CREATE TABLE t (x text DEFAULT public.get_email(1))", Refuse(UnsafeFunction)),
        ("ALTER TABLE orders ADD COLUMN x text DEFAULT get_email(1)", Refuse(UnsafeFunction)),
        ("ALTER TABLE orders ALTER COLUMN note SET DEFAULT get_email(1)", Refuse(UnsafeFunction)),
        ("ALTER TABLE orders ALTER COLUMN note SET DEFAULT lower('X')", Pass),
        ("ALTER TABLE orders ALTER COLUMN note DROP DEFAULT", Pass),
        ("ALTER VIEW v_clean ALTER COLUMN n SET DEFAULT get_email(1)", Refuse(UnsafeFunction)),
        ("CREATE DOMAIN d AS text DEFAULT get_email(1)", Refuse(UnsafeFunction)),
        ("ALTER DOMAIN d SET DEFAULT get_email(1)", Refuse(UnsafeFunction)),
        ("ALTER DOMAIN d DROP DEFAULT", Pass),
        ("CREATE TABLE t PARTITION OF orders FOR VALUES IN (get_email(1))", Refuse(UnsafeFunction)),
        ("CREATE TABLE t PARTITION OF orders FOR VALUES FROM (MINVALUE) TO (1)", Pass),
        // Generated columns.
        ("CREATE TABLE t (a text, b text GENERATED ALWAYS AS (lower(a)) STORED)", Pass),
        ("CREATE TABLE t (a int, b text GENERATED ALWAYS AS (get_email(a)) STORED)", Refuse(UnsafeFunction)),
        ("CREATE TABLE t (b text GENERATED ALWAYS AS (email) STORED) INHERITS (customers)", Refuse(Written)),
        ("ALTER TABLE customers ADD COLUMN n text GENERATED ALWAYS AS (lower(name)) STORED", Mask),
        ("ALTER TABLE customers ADD COLUMN g text GENERATED ALWAYS AS (email || '') STORED", Refuse(Written)),
        ("ALTER TABLE customers ALTER COLUMN gen_search SET EXPRESSION AS (to_tsvector(card))", Refuse(Written)),
        ("ALTER TABLE archive ALTER COLUMN email SET EXPRESSION AS (lower(email))", Mask),
        ("ALTER TABLE orders ALTER COLUMN note SET EXPRESSION AS (get_email(id))", Refuse(UnsafeFunction)),
        // Checks, policies and indexes run what they are made of.
        ("ALTER TABLE customers ADD CHECK (length(email) > 3)", Mask),
        ("ALTER TABLE customers ADD CHECK (set_config('a.b', email, false) IS NOT NULL)", Refuse(Kept)),
        ("CREATE TABLE t (CHECK (set_config('a.b', email, false) <> '')) INHERITS (customers)", Refuse(Kept)),
        ("ALTER TABLE customers ADD EXCLUDE USING gist ((get_email(email)) WITH =)", Refuse(Kept)),
        ("CREATE DOMAIN d AS text CHECK (length(VALUE) > 3)", Pass),
        ("CREATE DOMAIN d AS text CHECK (set_config('a.b', VALUE, false) IS NOT NULL)", Refuse(Kept)),
        ("ALTER DOMAIN d ADD CHECK (pg_notify('c', VALUE) IS NULL)", Refuse(Kept)),
        ("CREATE POLICY p ON customers USING (id = 1)", Mask),
        ("CREATE POLICY p ON customers USING (set_config('a.b', email, false) IS NOT NULL)", Refuse(Kept)),
        ("ALTER POLICY p ON customers WITH CHECK (set_config('a.b', email, false) IS NOT NULL)", Refuse(Kept)),
        ("CREATE INDEX ON customers (lower(email))", Mask),
        ("CREATE INDEX ON customers (get_email(email))", Refuse(Kept)),
        ("CREATE INDEX ON customers (id) WHERE get_email(email) = ''", Refuse(Kept)),
    ]);
}

#[test]
fn foreign_keys_do_not_copy() {
    use Why::{UnknownRelation, Written};
    check(&[
        ("CREATE TABLE t (c int REFERENCES customers (id) ON UPDATE CASCADE ON DELETE SET DEFAULT)", Mask),
        ("CREATE TABLE t (c int REFERENCES customers)", Mask),
        ("CREATE TABLE t (c int REFERENCES not_there)", Pass),
        ("CREATE TABLE t (c int REFERENCES orders ON UPDATE CASCADE)", Pass),
        ("CREATE TABLE t (c int REFERENCES not_there ON UPDATE CASCADE)", Refuse(UnknownRelation)),
        ("CREATE TABLE t (e text REFERENCES customers (email) ON UPDATE CASCADE)", Refuse(Written)),
        ("CREATE TABLE t (e text REFERENCES customers ON UPDATE CASCADE)", Refuse(Written)),
        ("CREATE TABLE t (e text REFERENCES customers (email))", Refuse(Written)),
        ("CREATE TEMP TABLE t (e text REFERENCES customers (email))", Refuse(Written)),
        ("CREATE TABLE t (i int, e text, FOREIGN KEY (i, e) REFERENCES customers (id, email))", Refuse(Written)),
        ("ALTER TABLE orders ADD FOREIGN KEY (email) REFERENCES customers (email) ON UPDATE CASCADE", Refuse(Written)),
        ("ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES customers (id) ON UPDATE CASCADE", Mask),
        ("ALTER TABLE orders ADD COLUMN e text REFERENCES customers (email) ON DELETE SET DEFAULT", Refuse(Written)),
        ("ALTER TABLE archive ADD FOREIGN KEY (email) REFERENCES customers (email) ON UPDATE CASCADE", Mask),
        ("ALTER TABLE archive ADD FOREIGN KEY (note, email) REFERENCES customers (email, name)", Refuse(Written)),
        ("ALTER TABLE archive ADD FOREIGN KEY (email) REFERENCES orders (note) ON UPDATE CASCADE", Mask),
    ]);
}

#[test]
fn rows_do_not_get_another_name() {
    use Why::{Code, NewName, OtherWay};
    check(&[
        ("ALTER TABLE customers INHERIT orders", Refuse(NewName)),
        ("ALTER TABLE customers INHERIT not_there", Refuse(NewName)),
        ("ALTER TABLE orders INHERIT customers", Mask),
        ("ALTER TABLE orders ATTACH PARTITION customers DEFAULT", Refuse(NewName)),
        ("ALTER TABLE not_there ATTACH PARTITION archive DEFAULT", Refuse(NewName)),
        ("ALTER TABLE customers ATTACH PARTITION archive DEFAULT", Mask),
        ("ALTER TABLE customers ATTACH PARTITION not_there FOR VALUES IN (1)", Mask),
        ("ALTER FOREIGN TABLE orders OPTIONS (SET table_name 'customers')", Refuse(OtherWay)),
        ("CREATE SCHEMA s CREATE VIEW w AS SELECT email FROM public.customers", Refuse(NewName)),
        ("ALTER FUNCTION get_email(int) RENAME TO fine", Refuse(Code)),
        ("ALTER PROCEDURE move_rows(int) SET SCHEMA crm", Refuse(Code)),
        ("CREATE OPERATOR @@@ (FUNCTION = pg_notify, LEFTARG = text, RIGHTARG = text)", Refuse(Code)),
        ("CREATE CAST (text AS int) WITH FUNCTION get_email(text)", Refuse(Code)),
        ("CREATE CAST (text AS int) WITH INOUT", Pass),
    ]);
}

#[test]
fn tables_are_made_after_others_in_a_transaction() {
    let plan = shop::plan();
    for (sql, allowed) in [
        ("CREATE TABLE t (a timestamptz DEFAULT now(), b int REFERENCES customers CHECK (b > abs(1)))", true),
        ("CREATE TABLE t PARTITION OF customers FOR VALUES IN (1)", true),
        ("CREATE DOMAIN d AS text CHECK (lower(VALUE) <> '')", true),
        // Which table is meant decides what is copied.
        ("CREATE TABLE t (b int REFERENCES orders ON UPDATE CASCADE)", false),
        ("CREATE TABLE t (CHECK (id > 0)) INHERITS (orders)", false),
    ] {
        let stale = Circumstances { catalog_stale: true, ..Circumstances::default() };
        let shown = disclose(&plan, &shop::names(&["email", "card"]), &shop::flows_of(&plan, sql), &stale);
        assert_eq!(shown.is_ok(), allowed, "{sql}: {shown:?}");
    }
}

/// The lines under PostgreSQL in the checked facts that are about masking and are decided here.
#[test]
fn mistakes_seen_elsewhere() {
    check(&[
        ("COPY customers (email) TO STDOUT", Mask),
        ("SELECT email AS harmless FROM customers", Mask),
        ("SELECT row_to_json(customers) FROM customers", Refuse(Why::WholeRow)),
        ("SELECT row_to_json(r) FROM (SELECT email FROM customers) r", Refuse(Why::WholeRow)),
        ("DO $$ BEGIN DELETE FROM customers; END $$", Refuse(Why::Code)),
        ("SELECT customers.email AS note FROM customers", Mask),
    ]);
}

struct Stored(&'static str);

impl Resolve for Stored {
    fn relation(&self, schema: Option<&str>, name: &str) -> Candidates {
        let catalog = shop::catalog();
        CatalogResolver { catalog: &catalog, search_path: None, temporary: &[] }.relation(schema, name)
    }

    fn prepared(&self, name: &str) -> Option<Vec<Arc<ParseResult>>> {
        (name == "p").then(|| vec![Arc::new(shop::parse(self.0))])
    }

    fn cursor(&self, name: &str) -> Option<Vec<Arc<ParseResult>>> {
        self.prepared(name)
    }
}

#[test]
fn what_is_stored_shows_what_it_was_made_of() {
    let plan = shop::plan();
    for (stored, sql, expected) in [
        ("PREPARE p AS SELECT email FROM customers", "EXECUTE p", None),
        ("PREPARE p AS SELECT upper(email) FROM customers", "EXECUTE p(1)", Some(Why::Expression)),
        ("SELECT upper(email) FROM customers", "FETCH 1 FROM p", Some(Why::Expression)),
        ("SELECT email FROM customers", "FETCH 1 FROM p", None),
        ("PREPARE p AS SELECT email FROM customers", "CREATE TABLE t AS EXECUTE p", Some(Why::Written)),
        ("PREPARE p AS SELECT note FROM orders", "CREATE TABLE t AS EXECUTE p", None),
        ("PREPARE p AS SELECT upper(email) FROM customers", "EXPLAIN EXECUTE p", Some(Why::Expression)),
        ("PREPARE p AS INSERT INTO orders (note) SELECT email FROM customers", "EXECUTE p", Some(Why::Written)),
        ("SELECT 1", "EXECUTE other", Some(Why::UnknownStored)),
        // One that runs itself ends.
        ("EXECUTE p", "EXECUTE p", Some(Why::UnknownStored)),
    ] {
        let found = flows(&shop::parse(sql), &plan, &Stored(stored));
        assert_eq!(found.untraced().first().map(|untraced| untraced.why), expected, "{stored}; {sql}");
    }
}

#[test]
fn names_that_could_be_several_relations_are_all_of_them() {
    let plan = shop::plan();
    let resolver = CatalogResolver { catalog: plan.catalog(), search_path: None, temporary: &[] };
    let all = |sql: &str| flows(&shop::parse(sql), &plan, &resolver);
    // crm.customers or public.customers: the path is not known.
    assert_eq!(all("SELECT upper(email) FROM customers").untraced().len(), 1);
    assert!(all("SELECT email FROM customers").untraced().is_empty());
    assert_eq!(all("INSERT INTO archive SELECT * FROM customers").untraced()[0].why, Why::Written);
    assert!(all("SELECT upper(id::text) FROM customers").untraced().is_empty());
    // A temporary table may have been made under the name, or not.
    let temporary = ["customers".to_owned()];
    let path = ["public".to_owned()];
    let resolver = CatalogResolver { catalog: plan.catalog(), search_path: Some(&path), temporary: &temporary };
    let found = flows(&shop::parse("SELECT upper(email) FROM customers"), &plan, &resolver);
    assert_eq!(found.untraced().len(), 1);
    assert!(found.temporary);
    let found = flows(&shop::parse("SELECT upper(email) FROM pg_temp.customers"), &plan, &resolver);
    assert!(found.is_harmless());
}

#[test]
fn messages_are_withheld_when_they_may_quote() {
    let plan = shop::plan();
    for (sql, withheld) in [
        ("SELECT nme FROM customers", true), // it could be a column that the catalogue does not have yet
        ("SELECT id FROM customers", false),
        ("SELECT id FROM customers WHERE email = 'x'", true),
        ("SELECT email FROM customers", true),
        ("SELECT * FROM customers", true),
        ("UPDATE customers SET name = NULL WHERE id = 1", true),
        ("INSERT INTO customers (id) VALUES (1)", true),
        ("COPY customers FROM STDIN", true),
        ("CREATE UNIQUE INDEX ON customers (email)", true),
        ("ALTER TABLE customers ALTER email TYPE int USING email::int", true),
        ("SELECT 1 FROM orders WHERE get_email(id) = ''", true),
        ("SELECT note::int FROM orders", false),
    ] {
        match shop::shown(&plan, sql) {
            Ok(disclosure) => assert_eq!(disclosure.withhold_messages, withheld, "{sql}"),
            Err(refusal) => assert!(withheld, "{sql}: {refusal}"),
        }
    }
}

#[test]
fn work_is_bounded() {
    let plan = shop::plan();
    let started = std::time::Instant::now();
    // Each level of recursive CTEs is worked out several times for each round of the one around it.
    let nested = (0..9)
        .fold("SELECT 1 FROM t".to_owned(), |inner, _| format!("WITH RECURSIVE t AS (SELECT 1 UNION ({inner})) SELECT 1 FROM t"));
    shop::flows_of(&plan, &nested);
    // Each has twice the columns of the one before.
    let doubling = (1..60).map(|n| format!("t{n} AS (SELECT *, * FROM t{})", n - 1)).collect::<Vec<_>>().join(", ");
    let doubling = format!("WITH t0 AS (SELECT * FROM customers), {doubling} SELECT * FROM t59");
    assert!(!shop::flows_of(&plan, &doubling).untraced().is_empty());
    let joined = (0..20_000).map(|n| format!("customers c{n}")).collect::<Vec<_>>().join(", ");
    let wide = format!("SELECT {} FROM {joined}", vec!["id"; 20_000].join(", "));
    let found = shop::flows_of(&plan, &wide);
    assert!(found.untraced().iter().any(|untraced| untraced.why == Why::TooComplex));
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn findings_are_bounded() {
    let plan = shop::plan();
    let columns = (0..500).map(|n| format!("upper(email || '{n}') AS c{n}, pg_notify('x{n}', card)")).collect::<Vec<_>>();
    let found = shop::flows_of(&plan, &format!("SELECT {} FROM customers", columns.join(", ")));
    assert!(!found.untraced().is_empty() && found.untraced().len() <= FINDINGS_MAX);
}

#[test]
#[ignore = "a measurement"]
fn speed_of_flows() {
    let plan = shop::plan();
    let path = ["public".to_owned()];
    let resolver = CatalogResolver { catalog: plan.catalog(), search_path: Some(&path), temporary: &[] };
    for sql in [
        "SELECT id, email FROM customers WHERE id = $1",
        "WITH t AS (SELECT * FROM customers) SELECT t.email, o.note FROM t JOIN orders o ON o.customer = t.id WHERE o.id = $1 ORDER BY 1",
    ] {
        let tree = shop::parse(sql);
        let start = std::time::Instant::now();
        for _ in 0..100_000 {
            std::hint::black_box(flows(&tree, &plan, &resolver));
        }
        println!("{:6.2} µs {sql}", start.elapsed().as_secs_f64() * 10.0);
    }
}
