"""psycopg 3 (libpq): text and binary results, server-side prepare, pipeline mode, COPY."""

import datetime
import decimal
import sys
import uuid

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")

import psycopg
from psycopg.types.json import Jsonb
from suite import *


def connect(**options):
    arguments = dict(
        host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DB,
        sslmode="verify-full", sslrootcert=ROOTCERT, connect_timeout=20,
    )
    arguments.update(options)
    arguments.setdefault("autocommit", True)
    autocommit = arguments.pop("autocommit")
    return psycopg.connect(autocommit=autocommit, **arguments)


def denied(call):
    try:
        call()
    except psycopg.errors.InsufficientPrivilege as error:
        same(error.sqlstate, "42501")
        return error
    raise AssertionError("not denied")


@behaviour
def connect_tls():
    with connect() as c:
        same(c.pgconn.ssl_in_use, True)
        same(c.execute("SELECT 1").fetchone(), (1,))
        assert c.info.server_version >= 150000
        same(c.info.parameter_status("client_encoding"), "UTF8")


@behaviour
def simple_query():
    with connect() as c:
        rows = c.execute("SELECT id, name FROM products ORDER BY id LIMIT 3").fetchall()
        same([row[0] for row in rows], [1, 2, 3])


@behaviour
def parameters():
    with connect() as c:
        row = c.execute("SELECT name FROM customers WHERE id = %s AND country = %s", (1, "GB")).fetchone()
        same(row, (NAME,))


@behaviour
def prepared_reexecution():
    with connect() as c:
        for wanted in (1, 2, 3, 2):
            row = c.execute("SELECT id FROM products WHERE id = %s", (wanted,), prepare=True).fetchone()
            same(row, (wanted,))


VALUES = [
    ("int2", 32767), ("int4", -2147483648), ("int8", 9223372036854775807), ("float8", 1.5e300), ("float4", 0.5),
    ("numeric", decimal.Decimal("12345678901234567890.123456789")), ("text", "grüße, \U0001f980, 'quoted' \\ back"),
    ("varchar", ""), ("bytea", bytes(range(256))), ("bool", True), ("date", datetime.date(2024, 2, 29)),
    ("timestamp", datetime.datetime(1999, 12, 31, 23, 59, 59, 999999)),
    ("timestamptz", datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.timezone.utc)),
    ("time", datetime.time(23, 59, 59)), ("interval", datetime.timedelta(days=3, seconds=7)),
    ("uuid", uuid.UUID("0f8fad5b-d9cb-469f-a165-70867728950e")), ("int4[]", [1, 2, 3]), ("text[]", ["a", "b,c", 'd"e']),
]


@behaviour
def types_round_trip():
    with connect() as c:
        for binary in (False, True):
            for kind, value in VALUES:
                got = c.execute(f"SELECT %s::{kind}", (value,), binary=binary).fetchone()[0]
                same((kind, binary, got), (kind, binary, value))
            got = c.execute("SELECT %s::jsonb", (Jsonb({"a": [1, None, "x"]}),), binary=binary).fetchone()[0]
            same(got, {"a": [1, None, "x"]})


@behaviour
def nulls():
    with connect() as c:
        for binary in (False, True):
            same(c.execute("SELECT %s::int, NULL::text, ''", (None,), binary=binary).fetchone(), (None, None, ""))


@behaviour
def transaction_commit():
    with connect() as c:
        c.execute("CREATE TEMP TABLE t (n int)")
        with c.transaction():
            c.execute("INSERT INTO t VALUES (1)")
        same(c.execute("SELECT n FROM t").fetchall(), [(1,)])


@behaviour
def transaction_rollback():
    with connect() as c:
        c.execute("CREATE TEMP TABLE t (n int)")
        with c.transaction(force_rollback=True):
            c.execute("INSERT INTO t VALUES (1)")
        same(c.execute("SELECT n FROM t").fetchall(), [])


@behaviour
def savepoint():
    with connect() as c:
        c.execute("CREATE TEMP TABLE t (n int)")
        with c.transaction():
            c.execute("INSERT INTO t VALUES (1)")
            try:
                with c.transaction():
                    c.execute("INSERT INTO t VALUES (2)")
                    c.execute("SELECT 1/0")
            except psycopg.errors.DivisionByZero:
                pass
            c.execute("INSERT INTO t VALUES (3)")
        same(c.execute("SELECT n FROM t ORDER BY n").fetchall(), [(1,), (3,)])


@behaviour
def error_keeps_session():
    with connect() as c:
        try:
            c.execute("SELECT * FROM no_such_table_here")
        except psycopg.Error as error:
            same(error.sqlstate in ("42P01", "42501"), True)
        try:
            c.execute("SELECT 1/0")
        except psycopg.errors.DivisionByZero:
            pass
        same(c.execute("SELECT 2").fetchone(), (2,))


@behaviour
def error_fields():
    with connect() as c:
        try:
            c.execute("INSERT INTO products (sku, name, price) VALUES ('SKU-00001', 'x', 1)")
        except psycopg.errors.UniqueViolation as error:
            same(error.diag.constraint_name, "products_sku_key")
            same((error.diag.schema_name, error.diag.table_name), ("public", "products"))
            return
        raise AssertionError("no error")


@policy
def denied_outside_transaction():
    with connect() as c:
        error = denied(lambda: c.execute("SELECT * FROM secrets"))
        assert "no-secrets" in str(error) or "no-secrets" in (error.diag.message_detail or ""), str(error)
        denied(lambda: c.execute("SELECT * FROM secrets WHERE id = %s", (1,)))
        denied(lambda: c.execute("DELETE FROM products"))
        same(c.execute("SELECT 3").fetchone(), (3,))


@policy
def denied_inside_transaction():
    with connect(autocommit=False) as c:
        c.execute("CREATE TEMP TABLE t (n int)")
        c.commit()
        for parameters in (None, (1,)):
            c.execute("INSERT INTO t VALUES (1)")
            denied(lambda: c.execute("SELECT * FROM secrets WHERE id = " + ("1" if parameters is None else "%s"), parameters))
            same(c.info.transaction_status, psycopg.pq.TransactionStatus.INERROR)
            try:
                c.execute("SELECT 1")
                raise AssertionError("the transaction went on")
            except psycopg.errors.InFailedSqlTransaction:
                pass
            c.rollback()
            same(c.execute("SELECT count(*) FROM t").fetchone(), (0,))
            c.commit()


@policy
def denied_in_pipeline():
    with connect() as c:
        with c.pipeline() as p:
            first = c.execute("SELECT 1")
            same(first.fetchone(), (1,))
            second = c.execute("SELECT * FROM secrets WHERE id = %s", (1,))
            denied(second.fetchone)
            p.sync()
            same(c.execute("SELECT 4").fetchone(), (4,))
        try:
            with c.pipeline():
                c.execute("SELECT * FROM secrets WHERE id = %s", (1,))
                c.execute("SELECT 6")
        except psycopg.errors.InsufficientPrivilege:
            pass
        else:
            raise AssertionError("the pipeline's end kept the denial to itself")
        same(c.execute("SELECT 5").fetchone(), (5,))


@policy
def masked_text():
    with connect() as c:
        masked(*c.execute("SELECT email, card_number FROM customers WHERE id = 1").fetchone())
        masked(*c.execute("SELECT email AS name, card_number AS id FROM customers c WHERE c.id = 1").fetchone())
        rows = c.execute("SELECT * FROM customers ORDER BY id LIMIT 100").fetchall()
        nothing_clear(repr(rows))
        same(rows[0][1], NAME)


@policy
def masked_binary():
    with connect() as c:
        masked(*c.execute("SELECT email, card_number FROM customers WHERE id = 1", binary=True).fetchone())
        masked(*c.execute("SELECT email, card_number FROM customers WHERE id = %b", (1,), binary=True).fetchone())


@policy
def masked_prepared():
    with connect() as c:
        for binary in (False, True, False):
            row = c.execute("SELECT email, card_number FROM customers WHERE id = %s", (1,), prepare=True, binary=binary).fetchone()
            masked(*row)


@policy
def masked_cursor():
    with connect() as c, c.transaction():
        with c.cursor("named") as cursor:
            cursor.execute("SELECT email, card_number FROM customers ORDER BY id")
            masked(*cursor.fetchone())
            nothing_clear(repr(cursor.fetchmany(10)))
        c.execute("DECLARE other CURSOR FOR SELECT email, card_number FROM customers ORDER BY id")
        masked(*c.execute("FETCH 1 FROM other").fetchone())


@policy
def masked_returning():
    with connect() as c:
        row = c.execute("UPDATE customers SET balance = balance WHERE id = 1 RETURNING email, card_number").fetchone()
        masked(*row)


@policy
def masked_copy_out():
    with connect() as c:
        for statement in (
            "COPY customers (email, card_number) TO STDOUT",
            "COPY customers (email, card_number) TO STDOUT (FORMAT csv, HEADER)",
            "COPY (SELECT email, card_number FROM customers ORDER BY id) TO STDOUT",
            "COPY customers (email, card_number) TO STDOUT (FORMAT binary)",
        ):
            try:
                with c.cursor().copy(statement) as copy:
                    data = b"".join(bytes(block) for block in copy)
            except psycopg.errors.InsufficientPrivilege:
                if "binary" in statement:
                    continue  # refused is as good
                raise
            nothing_clear(data)
            assert b"***@e***.com" in data, statement


@policy
def masked_expression():
    with connect() as c:
        for expression in ("lower(email)", "email || ''", "row_to_json(customers)", "to_jsonb(customers)",
                           "array[email]", "(SELECT email)", "max(email)", "customers"):
            try:
                row = c.execute(f"SELECT {expression} FROM customers WHERE id = 1" +
                                (" GROUP BY email" if expression.startswith("max") else "")).fetchall()
                nothing_clear(repr(row))
            except psycopg.errors.InsufficientPrivilege:
                pass


@policy
def masked_after_another_sessions_change():
    """A name that another session took away means the hidden column further out."""
    with connect() as one, connect() as other:
        one.execute("DROP TABLE IF EXISTS side")
        one.execute("CREATE TABLE side (email text)")
        statement = "SELECT (SELECT email FROM side LIMIT 1) FROM customers WHERE id = 1"
        same(other.execute(statement).fetchone(), (None,))
        one.execute("ALTER TABLE side RENAME COLUMN email TO e")
        denied(lambda: other.execute(statement))
        one.execute("DROP TABLE side")


@policy
def masked_in_errors():
    with connect() as c:
        for code, statement in failures():
            try:
                c.execute(statement)
            except psycopg.Error as error:
                fields = [str(error)] + [getattr(error.diag, name) for name in dir(error.diag) if name.islower() and name[0] != "_"]
                quotes_nothing(code, error.sqlstate, repr(fields))
            else:
                raise AssertionError(f"no error: {statement}")


@behaviour
def large_result():
    with connect() as c:
        total = count = 0
        with c.cursor() as cursor:
            for row in cursor.stream("SELECT n, repeat('x', 50) FROM generate_series(1, 200000) n"):
                total += row[0]
                count += 1
        same((count, total), (200000, 20000100000))


@behaviour
def copy_in_out():
    with connect() as c:
        c.execute("CREATE TEMP TABLE t (n int, s text)")
        with c.cursor().copy("COPY t FROM STDIN") as copy:
            for n in range(10000):
                copy.write_row((n, f"line {n}\twith a tab" if n % 3 else None))
        same(c.execute("SELECT count(*), count(s) FROM t").fetchone(), (10000, 6666))
        with c.cursor().copy("COPY t TO STDOUT (FORMAT binary)") as copy:
            data = b"".join(bytes(block) for block in copy)
        c.execute("CREATE TEMP TABLE again (LIKE t)")
        with c.cursor().copy("COPY again FROM STDIN (FORMAT binary)") as copy:
            copy.write(data)
        same(c.execute("SELECT count(*), count(s), sum(n) FROM again").fetchone(), (10000, 6666, 49995000))
        try:
            with c.cursor().copy("COPY t FROM STDIN") as copy:
                copy.write("not a number\tx\n")
        except psycopg.errors.InvalidTextRepresentation:
            pass
        same(c.execute("SELECT 1").fetchone(), (1,))


@behaviour
def listen_notify():
    with connect() as listener, connect() as speaker:
        listener.execute("LISTEN news")
        speaker.execute("NOTIFY news, 'hello'")
        for notification in listener.notifies(timeout=10, stop_after=1):
            same((notification.channel, notification.payload), ("news", "hello"))
            return
        raise AssertionError("nothing came")


@behaviour
def cancel():
    with connect() as c:
        cancelled(c.cancel, c.execute, psycopg.errors.QueryCanceled)
        same(c.execute("SELECT 1").fetchone(), (1,))


@behaviour
def pipeline():
    with connect() as c:
        with c.pipeline():
            cursors = [c.execute("SELECT %s::int", (n,)) for n in range(500)]
            same([cursor.fetchone()[0] for cursor in cursors], list(range(500)))


@behaviour
def multiple_results():
    with connect() as c:
        cursor = c.execute("SELECT 1; SELECT 'two', 2; SELECT 3")
        results = [cursor.fetchall()]
        while cursor.nextset():
            results.append(cursor.fetchall())
        same(results, [[(1,)], [("two", 2)], [(3,)]])


@behaviour
def long_value():
    with connect() as c:
        value = "y" * TEN_MB
        got = c.execute("SELECT %s::text, length(%s)", (value, value)).fetchone()
        same(got[1], TEN_MB)
        assert got[0] == value
        got = c.execute("SELECT repeat('z', %s)", (TEN_MB,)).fetchone()[0]
        same(len(got), TEN_MB)


@behaviour
def wrong_token():
    for wrong in ("wrong", PASSWORD[:-8] + "AAAAAAAA"):
        try:
            connect(password=wrong)
        except psycopg.OperationalError as error:
            assert "authentication failed" in str(error) or "refused" in str(error) or "token" in str(error), str(error)
            continue
        raise AssertionError("logged in with a wrong password")


@policy
def plain_refused():
    try:
        connect(sslmode="disable")
    except psycopg.OperationalError as error:
        assert "TLS" in str(error) or "SSL" in str(error), str(error)
        return
    raise AssertionError("a plain connection was accepted")


run(lambda function: function())
