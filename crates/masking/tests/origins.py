#!/usr/bin/env python3
"""Prints which origin (table, column) PostgreSQL names for result columns, the ground that lineage stands on.

Usage: origins.py DSN     needs psycopg2 (2.8 or later); makes and drops tables of its own in a schema `origins`.
Exit status 1: some origin is not as src/lineage/mod.rs says.
"""
import sys

import psycopg2

SETUP = """
DROP SCHEMA IF EXISTS origins CASCADE; CREATE SCHEMA origins; SET search_path = origins;
CREATE TABLE customers (id int, email text, name varchar(20), region int);
CREATE TABLE orders (id int, customer int, email text, name varchar(40), region int8);
CREATE TABLE child () INHERITS (customers);
INSERT INTO customers VALUES (1, 'a@b.c', 'A', 1), (2, 'd@e.f', 'D', 2);
INSERT INTO orders VALUES (1, 1, 'a@b.c', 'A', 1);
CREATE VIEW v AS SELECT id, email AS e FROM customers;
CREATE MATERIALIZED VIEW mv AS SELECT email FROM customers;
"""

C, O, V, MV = "customers", "orders", "v", "mv"
# (statements before, statement, expected origins: (table, column) or None for 0). psycopg2 shows the numbers of system
# columns, which are negative, as 0.
CASES = [
    ("", "SELECT email AS x FROM customers", [(C, 2)]),
    ("", "SELECT upper(email) FROM customers", [None]),
    ("", "SELECT email::text, email::varchar, email COLLATE \"C\" FROM customers", [(C, 2), None, None]),
    ("", "SELECT name::varchar, name::text FROM customers", [None, None]),
    ("", "SELECT (email) FROM customers", [(C, 2)]),
    ("", "SELECT e FROM (SELECT email AS e FROM customers) s", [(C, 2)]),
    ("", "SELECT e FROM (SELECT email FROM customers) s(e)", [(C, 2)]),
    ("", "SELECT x FROM customers AS c(w, x)", [(C, 2)]),
    ("", "WITH t AS (SELECT email FROM customers) SELECT * FROM t", [(C, 2)]),
    ("", "WITH t AS MATERIALIZED (SELECT email FROM customers), u AS (SELECT email e FROM t) SELECT e FROM u", [(C, 2)]),
    ("", "WITH t(z) AS (SELECT email FROM customers) SELECT z FROM t", [(C, 2)]),
    ("", "WITH t AS (UPDATE customers SET id = id RETURNING email) SELECT * FROM t", [(C, 2)]),
    ("", "WITH RECURSIVE t AS (SELECT email FROM customers) SELECT * FROM t", [(C, 2)]),
    ("", "WITH RECURSIVE u AS (SELECT email FROM t), t AS (SELECT email FROM customers) SELECT * FROM u", [(C, 2)]),
    ("", "WITH RECURSIVE t AS (SELECT email FROM customers UNION SELECT email FROM t) SELECT * FROM t", [None]),
    ("", "SELECT c.email FROM customers c LEFT JOIN orders o ON o.customer = c.id", [(C, 2)]),
    ("", "SELECT c.email FROM orders o LEFT JOIN customers c ON o.customer = c.id", [(C, 2)]),
    ("", "SELECT c.email FROM orders o FULL JOIN customers c ON o.customer = c.id", [(C, 2)]),
    ("", "SELECT x FROM (customers c JOIN orders o ON true) AS j(a, x)", [(C, 2)]),
    ("", "SELECT * FROM customers c JOIN orders o USING (email)", [(C, 2), (C, 1), (C, 3), (C, 4), (O, 1), (O, 2), (O, 4), (O, 5)]),
    ("", "SELECT email FROM customers c JOIN orders o USING (email)", [(C, 2)]),
    ("", "SELECT email FROM orders o RIGHT JOIN customers c USING (email)", [(C, 2)]),
    ("", "SELECT email FROM orders o LEFT JOIN customers c USING (email)", [(O, 3)]),
    ("", "SELECT email FROM orders o FULL JOIN customers c USING (email)", [None]),
    ("", "SELECT name FROM customers JOIN orders USING (name)", [None]),
    ("", "SELECT region FROM customers JOIN orders USING (region)", [(O, 5)]),
    ("", "SELECT email FROM customers c NATURAL FULL JOIN orders o", [None]),
    ("", "SELECT j.email FROM customers JOIN orders USING (email) AS j", [(C, 2)]),
    ("", "SELECT email FROM customers UNION SELECT email FROM customers", [None]),
    ("", "SELECT email FROM customers UNION ALL SELECT email FROM customers", [None]),
    ("", "SELECT email FROM customers EXCEPT SELECT ''", [None]),
    ("", "SELECT DISTINCT email FROM customers", [(C, 2)]),
    ("", "SELECT DISTINCT ON (id) email FROM customers", [(C, 2)]),
    ("", "SELECT email FROM customers GROUP BY email", [(C, 2)]),
    ("", "SELECT email, count(*) FROM customers GROUP BY ROLLUP (email)", [(C, 2), None]),
    ("", "SELECT e FROM (SELECT email e FROM customers GROUP BY GROUPING SETS ((email), ())) s", [(C, 2)]),
    ("", "SELECT email FROM customers ORDER BY email LIMIT 1", [(C, 2)]),
    ("", "SELECT max(email), first_value(email) OVER () FROM customers GROUP BY email", [None, None]),
    ("", "SELECT email, row_number() OVER (ORDER BY email) FROM customers", [(C, 2), None]),
    ("", "SELECT (SELECT email FROM customers LIMIT 1)", [None]),
    ("", "SELECT l.e FROM customers c, LATERAL (SELECT c.email AS e) l", [(C, 2)]),
    ("", "SELECT v.x FROM customers c, LATERAL (VALUES (c.email)) v(x)", [None]),
    ("", "SELECT c FROM customers c", [(C, 0)]),
    ("", "SELECT s FROM (SELECT email FROM customers) s", [None]),
    ("", "SELECT (c).email FROM customers c", [(C, 2)]),
    ("", "SELECT (c).* FROM customers c", [(C, 1), (C, 2), (C, 3), (C, 4)]),
    ("", "SELECT c.row_to_json FROM customers c", [None]),
    ("", "SELECT tableoid, ctid FROM customers", [(C, 0), (C, 0)]),
    ("", "SELECT e FROM v", [(V, 2)]),
    ("", "SELECT email FROM mv", [(MV, 1)]),
    ("", "TABLE customers", [(C, 1), (C, 2), (C, 3), (C, 4)]),
    ("", "VALUES ((SELECT email FROM customers LIMIT 1))", [None]),
    ("", "INSERT INTO customers VALUES (3, 'x') RETURNING email", [(C, 2)]),
    ("", "UPDATE customers SET id = id RETURNING email AS y", [(C, 2)]),
    ("", "UPDATE orders o SET id = o.id FROM customers c WHERE c.id = o.customer RETURNING c.email", [(C, 2)]),
    ("", "DELETE FROM orders o USING customers c WHERE c.id = o.customer RETURNING c.email", [(C, 2)]),
    ("", "INSERT INTO v VALUES (9, 'y') RETURNING e", [(V, 2)]),
    ("PREPARE p AS SELECT email FROM customers", "EXECUTE p", [(C, 2)]),
    ("PREPARE q AS SELECT email || 'x' FROM customers", "EXECUTE q", [None]),
    ("BEGIN; DECLARE k CURSOR FOR SELECT email FROM customers", "FETCH ALL FROM k", [(C, 2)]),
    ("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT email FROM customers; COMMIT", "FETCH ALL FROM h", [(C, 2)]),
    ("BEGIN; DECLARE s SCROLL CURSOR WITH HOLD FOR SELECT email FROM customers ORDER BY 1; COMMIT", "FETCH LAST FROM s", [(C, 2)]),
    ("", "SELECT email FROM customers TABLESAMPLE BERNOULLI (100)", [(C, 2)]),
    ("", "SELECT email FROM child", [("child", 2)]),
    ("", "SELECT email FROM customers FOR UPDATE", [(C, 2)]),
    ("", "SELECT x FROM ROWS FROM (unnest(ARRAY[1])) AS t(x)", [None]),
]
CASES_17 = [
    ("", "MERGE INTO orders o USING customers c ON c.id = o.customer WHEN MATCHED THEN UPDATE SET id = o.id RETURNING c.email", [(C, 2)]),
]
CASES_18 = [("", "UPDATE customers SET id = id RETURNING old.email, new.email", [(C, 2), (C, 2)])]


def main() -> int:
    connection = psycopg2.connect(sys.argv[1])
    connection.autocommit = True
    cases = CASES + (CASES_17 if connection.server_version >= 170000 else []) + (CASES_18 if connection.server_version >= 180000 else [])
    wrong = 0
    for before, statement, expected in cases:
        cursor = connection.cursor()
        cursor.execute(SETUP)
        cursor.execute("SELECT oid, relname FROM pg_class WHERE relnamespace = 'origins'::regnamespace")
        names = dict(cursor.fetchall())
        for part in filter(None, before.split("; ")):
            cursor.execute(part)
        cursor.execute(statement)
        got = [None if not c.table_oid else (names.get(c.table_oid), c.table_column or 0) for c in cursor.description]
        cursor.execute("ROLLBACK; CLOSE ALL; DEALLOCATE ALL")
        ok = got == expected
        wrong += not ok
        print("ok  " if ok else "DIFF", statement, got if ok else f"{got} expected {expected}")
    cursor = connection.cursor()
    cursor.execute("DROP SCHEMA origins CASCADE")
    print(f"{len(cases)} statements on {connection.server_version}, {wrong} not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
