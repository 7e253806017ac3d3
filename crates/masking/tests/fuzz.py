#!/usr/bin/env python3
"""Random statements: what masking lets through must not show, keep or copy a hidden value.

Usage: fuzz.py VERDICTS DSN SEED COUNT      VERDICTS is the example `verdicts`; needs psycopg2 and a scratch database.

Hidden values are made of the letter Z (upper case) alone, and no other value, name or message has one. A statement that is allowed
is run: a Z in a column that is not masked by its origin, in a message that is not withheld, in a table where it was
not, or in a setting, is a hole.
"""
import random
import re
import subprocess
import sys

import psycopg2

SETUP = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
CREATE TABLE customers (id int PRIMARY KEY, email text, name varchar(20), card text);
CREATE TABLE orders (id int, customer int, email text, note text);
CREATE TABLE vault (id int PRIMARY KEY, email text, note text);
INSERT INTO customers VALUES (1, 'ZZZ', 'ann', 'ZZ'), (2, 'ZZZZ', 'bob', 'ZZZZZ');
INSERT INTO vault VALUES (1, 'ZZ', 'n');
INSERT INTO orders VALUES (1, 1, 'ann', 'x'), (2, 2, 'bob', 'y');
CREATE VIEW v_direct AS SELECT id, email AS e FROM customers;
CREATE VIEW v_mixed AS SELECT c.id, upper(c.email) AS u, o.note, c.name FROM customers c JOIN orders o ON o.customer = c.id;
CREATE VIEW v_on AS SELECT d.e AS x, m.u AS y, m.note AS w1 FROM v_direct d JOIN v_mixed m USING (id);
CREATE VIEW v_cte AS WITH t AS (SELECT email, name FROM customers) SELECT t.name, (SELECT max(email) FROM t) AS m FROM t;
CREATE VIEW v_union AS SELECT name AS w FROM customers UNION SELECT note FROM orders;
CREATE FUNCTION steal() RETURNS text LANGUAGE sql STABLE AS 'SELECT max(email) FROM customers';
CREATE FUNCTION steal(int) RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT email FROM customers';
"""
TABLES = {
    "customers": ["id", "email", "name", "card"],
    "orders": ["id", "customer", "email", "note"],
    "vault": ["id", "email", "note"],
    "v_direct": ["id", "e"],
    "v_mixed": ["id", "u", "note", "name"],
    "v_on": ["x", "y", "w1"],
    "v_cte": ["name", "m"],
    "v_union": ["w"],
}
CLASSIFIED = ["c/public.customers.email", "c/public.customers.card", "c/public.vault.email"]
NAMES = ["a", "b", "c", "d", "e", "email", "id", "name", "note", "t", "u", "x", "card", "customers", "orders"]


class Generator:
    def __init__(self, rng):
        self.rng = rng
        self.depth = 0

    def pick(self, *options):
        return self.rng.choice(options)

    def name(self):
        return self.rng.choice(NAMES)

    # scopes: list (innermost first) of lists of (alias, columns)
    def reference(self, scopes):
        levels = [level for level in scopes if level]
        if not levels or self.rng.random() < 0.05:
            return self.name()
        level = levels[0] if self.rng.random() < 0.75 else self.rng.choice(levels)
        alias, columns = self.rng.choice(level)
        column = self.rng.choice(columns) if columns and self.rng.random() < 0.95 else self.name()
        shape = self.rng.random()
        if shape < 0.45:
            return column
        if shape < 0.9:
            return f"{alias}.{column}"
        return self.pick(alias, f"({alias}).{column}", f"{alias}.row_to_json", f"{alias}.to_jsonb", f"public.{alias}.{column}")

    def text(self, scopes):
        self.depth += 1
        try:
            if self.depth > 6 or self.rng.random() < 0.3:
                return self.pick("'k'", "'q'", "id::text", self.reference(scopes), self.reference(scopes), self.reference(scopes))
            r = lambda: self.text(scopes)
            return self.pick(
                lambda: self.reference(scopes),
                lambda: self.reference(scopes),
                lambda: f"upper({r()}::text)",
                lambda: f"{r()} || {r()}",
                lambda: f"coalesce({r()}::text, {r()}::text)",
                lambda: f"nullif({r()}::text, {r()}::text)",
                lambda: f"CASE WHEN {self.condition(scopes)} THEN {r()}::text ELSE {r()}::text END",
                lambda: f"({r()})::text",
                lambda: f"max({r()}::text)",
                lambda: f"count({r()})",
                lambda: f"string_agg({r()}::text, ',' ORDER BY {r()})",
                lambda: f"(array_agg({r()}))[1]",
                lambda: f"ARRAY[{r()}::text]",
                lambda: f"ROW({r()}, {r()})",
                lambda: f"to_json({r()})",
                lambda: f"json_build_object('k', {r()})",
                lambda: f"first_value({r()}) OVER (ORDER BY {r()})",
                lambda: f"(SELECT {r()} LIMIT 1)",
                lambda: f"({self.select(scopes, 1)} LIMIT 1)",
                lambda: f"ARRAY({self.select(scopes, 1)})",
                lambda: f"({r()} IS NULL)",
                lambda: f"EXISTS ({self.select(scopes, 1)})",
                lambda: f"format('%s', {r()})",
                lambda: f"concat({r()}, {r()})",
                lambda: f"set_config('my.v', {r()}::text, false)",
                lambda: f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {r()})",
                lambda: f"greatest({r()}::text, {r()}::text)",
                lambda: f"{r()} COLLATE \"C\"",
                lambda: self.pick("steal()", "public.steal()"),
                lambda: f"xmlelement(name k, {r()})",
                lambda: f"regexp_replace({r()}::text, 'k', 'q')",
            )()
        finally:
            self.depth -= 1

    def condition(self, scopes):
        return self.pick(
            lambda: f"{self.text(scopes)}::text = {self.text(scopes)}::text",
            lambda: f"{self.text(scopes)} IS NOT NULL",
            lambda: "true",
            lambda: f"EXISTS ({self.select(scopes, 1)})",
            lambda: f"{self.reference(scopes)}::text IN ({self.select(scopes, 1)})",
            lambda: f"{self.reference(scopes)}::int > 0",
        )()

    def source(self, scopes, ctes, siblings):
        """One FROM item: its text, and [(alias, columns)]."""
        self.depth += 1
        try:
            kind = self.rng.random()
            if self.depth > 6 or kind < 0.45:
                table = self.rng.choice(list(TABLES) + [name for name, _ in ctes] * 3)
                columns = dict(ctes).get(table) or TABLES[table]
                if self.rng.random() < 0.3:
                    return table, [(table, columns)]
                alias = self.name()
                if self.rng.random() < 0.3:
                    names = [self.name() for _ in columns[: self.rng.randint(1, len(columns))]]
                    return f"{table} AS {alias}({', '.join(names)})", [(alias, names + columns[len(names):])]
                return f"{table} AS {alias}", [(alias, columns)]
            if kind < 0.65:
                lateral = self.rng.random() < 0.5
                inner = [siblings] + scopes if lateral else scopes
                width = self.rng.randint(1, 3)
                query = self.query(inner, width, ctes)
                names = [self.name() for _ in range(width)]
                alias = self.name()
                prefix = "LATERAL " if lateral else ""
                if self.rng.random() < 0.5:
                    return f"{prefix}({query}) AS {alias}({', '.join(names)})", [(alias, names)]
                return f"{prefix}({query}) AS {alias}", [(alias, self.columns or names)]
            if kind < 0.9:
                left, ours = self.source(scopes, ctes, siblings)
                right, theirs = self.source(scopes, ctes, siblings + ours)
                how = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
                both = ours + theirs
                common = [c for c in {c for _, cs in ours for c in cs} if any(c in cs for _, cs in theirs)]
                if common and self.rng.random() < 0.7:
                    if self.rng.random() < 0.3:
                        text = f"{left} NATURAL {how} {right}"
                    else:
                        text = f"{left} {how} {right} USING ({self.rng.choice(sorted(common))})"
                else:
                    text = f"{left} {how} {right} ON {'true' if how != 'FULL JOIN' else 'false'}"
                if self.rng.random() < 0.25:
                    alias = self.name()
                    columns = [c for _, cs in both for c in cs]
                    return f"({text}) AS {alias}", [(alias, columns)]
                return text, both
            alias = self.name()
            inner = [siblings] + scopes
            return self.pick(
                (f"unnest(ARRAY[{self.text(inner)}::text]) AS {alias}", [(alias, [alias])]),
                (f"LATERAL (VALUES ({self.text(inner)}, {self.text(inner)})) AS {alias}(a, b)", [(alias, ["a", "b"])]),
                (f"jsonb_each_text(to_jsonb({self.reference(inner)})) AS {alias}", [(alias, ["key", "value"])]),
                (f"steal(1) AS {alias}", [(alias, [alias])]),
                (f"generate_series(1, 2) AS {alias}", [(alias, [alias])]),
            )
        finally:
            self.depth -= 1

    def select(self, scopes, width, ctes=()):
        self.depth += 1
        try:
            ours, texts = [], []
            for _ in range(self.rng.choice([1, 1, 1, 2]) if self.depth < 6 else 1):
                text, items = self.source(scopes, list(ctes), ours)
                texts.append(text)
                ours += items
            inner = [ours] + scopes
            if width == 0:
                targets = [self.pick("*", f"{self.rng.choice(ours)[0]}.*")]
                columns = [c for _, cs in ours for c in cs]
            else:
                targets, columns = [], []
                for _ in range(width):
                    value = self.reference(inner) if self.rng.random() < 0.5 else self.text(inner)
                    if self.rng.random() < 0.5:
                        name = self.name()
                        value = f"{value} AS {name}"
                        columns.append(name)
                    else:
                        columns.append(value.split(".")[-1] if re.fullmatch(r"[\w.]+", value) else self.name())
                    targets.append(value)
            text = f"SELECT {self.pick('', '', 'DISTINCT ')}{', '.join(targets)} FROM {', '.join(texts)}"
            if self.rng.random() < 0.3:
                text += f" WHERE {self.condition(inner)}"
            if self.rng.random() < 0.12:
                text += f" GROUP BY {self.pick('', 'ROLLUP')}({self.reference(inner)})"
            if self.rng.random() < 0.1:
                text += f" ORDER BY {self.text(inner)}"
            self.columns = columns
            return text
        finally:
            self.depth -= 1

    def query(self, scopes, width, ctes=()):
        ctes = list(ctes)
        prefix = ""
        if self.depth < 4 and self.rng.random() < 0.25:
            parts = []
            recursive = self.rng.random() < 0.3
            for _ in range(self.rng.randint(1, 2)):
                inner_width = self.rng.randint(1, 2)
                name = self.name()
                names = [self.name() for _ in range(inner_width)]
                body = self.query(scopes, inner_width, ctes)
                if recursive and self.rng.random() < 0.6:
                    body += f" UNION {self.select(scopes, inner_width, ctes + [(name, names)])}"
                elif self.rng.random() < 0.15:
                    body = f"UPDATE customers SET id = id RETURNING {', '.join(self.text([[('customers', TABLES['customers'])]]) for _ in names)}"
                parts.append(f"{name}({', '.join(names)}) AS ({body})")
                ctes.append((name, names))
            prefix = f"WITH {'RECURSIVE ' if recursive else ''}{', '.join(parts)} "
        text = self.select(scopes, width, ctes)
        if width and self.rng.random() < 0.12:
            columns = self.columns
            text += f" {self.pick('UNION', 'UNION ALL', 'EXCEPT', 'INTERSECT')} {self.select(scopes, width, ctes)}"
            self.columns = columns
        return prefix + text

    def statement(self):
        target = [("orders", TABLES["orders"])]
        vault = [("vault", TABLES["vault"])]
        kind = self.rng.random()
        if kind < 0.75:
            return self.query([], self.rng.choice([0, 1, 1, 2, 3]))
        return self.pick(
            lambda: f"INSERT INTO orders (note, email) {self.query([], 2)} RETURNING {self.text([target])}",
            lambda: f"INSERT INTO vault (email) {self.query([], 1)} RETURNING {self.text([vault])}",
            lambda: f"INSERT INTO vault {self.query([], 2)}",
            lambda: f"INSERT INTO vault (id, email) {self.query([], 2)} ON CONFLICT (id) DO UPDATE SET note = {self.text([[('excluded', TABLES['vault'])], vault])}::text RETURNING {self.text([vault])}",
            lambda: f"INSERT INTO vault (id, email, note) SELECT id, email, name FROM customers ON CONFLICT (id) DO UPDATE SET note = {self.text([[('excluded', TABLES['vault'])]])}::text",
            lambda: f"UPDATE orders SET note = {self.text([target])} RETURNING *",
            lambda: f"UPDATE vault SET email = {self.text([vault])} RETURNING note",
            lambda: f"UPDATE customers c SET name = {self.text([[('c', TABLES['customers'])]])} FROM orders o RETURNING {self.reference([[('c', TABLES['customers']), ('o', TABLES['orders'])]])}",
            lambda: f"DELETE FROM orders o USING customers c RETURNING {self.text([[('c', TABLES['customers']), ('o', TABLES['orders'])]])}",
            lambda: f"MERGE INTO orders o USING customers c ON o.customer = c.id WHEN MATCHED THEN UPDATE SET note = {self.text([[('c', TABLES['customers']), ('o', TABLES['orders'])]])}",
            lambda: f"CREATE TABLE made AS {self.query([], 2)}",
            lambda: f"EXPLAIN VERBOSE {self.query([], 2)}",
        )()


class Verdicts:
    def __init__(self, path, cursor):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cursor.execute(
            "SELECT c.oid, n.nspname, c.relname, c.relkind, CASE WHEN c.relkind IN ('v','m') AND n.nspname = 'public' THEN pg_get_viewdef(c.oid) END "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r','v','m') AND n.nspname IN ('public','pg_catalog')"
        )
        relations = cursor.fetchall()
        for oid, schema, name, kind, definition in relations:
            self.send("R", oid, schema, name, kind, (definition or "").replace("\n", "\\n"))
        cursor.execute(
            "SELECT attrelid, attnum, attname, atttypid FROM pg_attribute WHERE attnum > 0 AND attrelid = ANY(%s) ORDER BY 1, 2",
            ([r[0] for r in relations],),
        )
        columns = cursor.fetchall()
        for row in columns:
            self.send("C", *row)
        cursor.execute("SELECT p.oid, proname FROM pg_proc p WHERE pronamespace = 'public'::regnamespace")
        for oid, name in cursor.fetchall():
            self.send("F", oid, "public", name, "sql")
        for pattern in CLASSIFIED:
            self.send("K", pattern)
        self.send("P")
        numbers = {(f"{s}.{n}", c): (o, a) for o, s, n, _, _ in relations for o2, a, c, _ in columns if o == o2}
        self.marks = {}
        for item in self.process.stdout.readline().split():
            name, mark = item.split("=")
            table, column = name.rsplit(".", 1)
            self.marks[numbers[(table, column)]] = mark

    def send(self, *parts):
        self.process.stdin.write("\t".join(map(str, parts)) + "\n")
        self.process.stdin.flush()

    def ask(self, sql):
        self.send("S", sql)
        return self.process.stdout.readline().strip()


def holes(cursor, verdicts, sql, verdict):
    """What a statement that was allowed shows."""
    withheld = verdict.endswith("true")
    cursor.execute("SAVEPOINT s")
    try:
        cursor.execute(sql)
    except psycopg2.Error as error:
        cursor.execute("ROLLBACK TO s")
        text = f"{error} {error.diag.message_detail} {error.diag.context}"
        # The statement itself is the caller's.
        return "error", ["message"] if not withheld and re.search("Z", text.replace(sql, "")) else []
    found = []
    if cursor.description:
        rows = cursor.fetchall()
        for at, column in enumerate(cursor.description):
            origin = (column.table_oid, column.table_column)
            if column.table_oid and (origin in verdicts.marks or column.table_column is None) and verdict.startswith("mask"):
                continue
            if any("Z" in str(row[at]) for row in rows):
                found.append(f"column {at + 1} ({column.name}) from {origin}")
    for table, columns in (("orders", "id, customer, email, note"), ("vault", "id, note"), ("customers", "id, name")):
        cursor.execute(f"SELECT {columns} FROM {table}")
        if "Z" in str(cursor.fetchall()):
            found.append(f"table {table}")
    cursor.execute("SELECT current_setting('my.v', true), to_regclass('made')")
    setting, made = cursor.fetchone()
    if "Z" in str(setting):
        found.append("setting")
    if made:
        cursor.execute("SELECT * FROM made")
        if "Z" in str(cursor.fetchall()):
            found.append("table made")
    return "ran", found


def main():
    verdict_path, dsn, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    connection = psycopg2.connect(dsn)
    cursor = connection.cursor()
    cursor.execute(SETUP)
    connection.commit()
    verdicts = Verdicts(verdict_path, cursor)
    connection.rollback()
    tally, bad, needless = {}, 0, 0
    for number in range(count):
        sql = Generator(random.Random(f"{seed}/{number}")).statement()
        verdict = verdicts.ask(sql)
        cursor.execute("SET LOCAL statement_timeout = '2s'")
        if verdict.startswith("refuse"):
            tally["refused"] = tally.get("refused", 0) + 1
            connection.rollback()
            continue
        outcome, found = holes(cursor, verdicts, sql, verdict)
        tally[outcome] = tally.get(outcome, 0) + 1
        connection.rollback()
        if found:
            bad += 1
            print(f"HOLE {found} [{verdict}]\n     {sql}")
            if bad >= 10:
                break
    print(f"seed {seed}: {tally}, {bad} holes")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
