"""psycopg2 (libpq): simple queries with client-side parameters, SQL-level PREPARE, COPY."""

import datetime
import decimal
import io
import select
import sys
import uuid

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")

import psycopg2
import psycopg2.errors
import psycopg2.extras
from suite import *

psycopg2.extras.register_uuid()


def connect(autocommit=True, **options):
    arguments = dict(
        host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DB,
        sslmode="verify-full", sslrootcert=ROOTCERT, connect_timeout=20,
    )
    arguments.update(options)
    connection = psycopg2.connect(**arguments)
    connection.autocommit = autocommit
    return connection


def ask(c, statement, parameters=None):
    with c.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else None


def denied(c, statement, parameters=None):
    try:
        ask(c, statement, parameters)
    except psycopg2.errors.InsufficientPrivilege as error:
        same(error.pgcode, "42501")
        return
    raise AssertionError("not denied")


@behaviour
def connect_tls():
    c = connect()
    same(c.info.ssl_in_use, True)
    same(ask(c, "SELECT 1"), [(1,)])


@behaviour
def simple_query():
    same([row[0] for row in ask(connect(), "SELECT id, name FROM products ORDER BY id LIMIT 3")], [1, 2, 3])


@behaviour
def parameters():
    same(ask(connect(), "SELECT name FROM customers WHERE id = %s AND country = %s", (1, "GB")), [(NAME,)])


@behaviour
def prepared_reexecution():
    c = connect()
    ask(c, "PREPARE pick (int) AS SELECT id FROM products WHERE id = $1")
    for wanted in (1, 2, 1):
        same(ask(c, "EXECUTE pick (%s)", (wanted,)), [(wanted,)])
    ask(c, "DEALLOCATE pick")


@behaviour
def types_round_trip():
    c = connect()
    for kind, value in [
        ("int2", 32767), ("int8", 9223372036854775807), ("float8", 1.5e300),
        ("numeric", decimal.Decimal("12345678901234567890.123456789")), ("text", "grüße, \U0001f980, 'quoted' \\ back"),
        ("varchar", ""), ("bool", True), ("date", datetime.date(2024, 2, 29)),
        ("timestamp", datetime.datetime(1999, 12, 31, 23, 59, 59, 999999)),
        ("timestamptz", datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.timezone.utc)),
        ("interval", datetime.timedelta(days=3, seconds=7)), ("uuid", uuid.UUID("0f8fad5b-d9cb-469f-a165-70867728950e")),
        ("int4[]", [1, 2, 3]), ("text[]", ["a", "b,c", 'd"e']),
    ]:
        same((kind, ask(c, f"SELECT %s::{kind}", (value,))), (kind, [(value,)]))
    same(bytes(ask(c, "SELECT %s::bytea", (psycopg2.Binary(bytes(range(256))),))[0][0]), bytes(range(256)))
    same(ask(c, "SELECT %s::jsonb", (psycopg2.extras.Json({"a": [1, None]}),)), [({"a": [1, None]},)])


@behaviour
def nulls():
    same(ask(connect(), "SELECT %s::int, NULL::text, ''", (None,)), [(None, None, "")])


@behaviour
def transaction_commit():
    c = connect(autocommit=False)
    ask(c, "CREATE TEMP TABLE t (n int)")
    ask(c, "INSERT INTO t VALUES (1)")
    c.commit()
    same(ask(c, "SELECT n FROM t"), [(1,)])


@behaviour
def transaction_rollback():
    c = connect(autocommit=False)
    ask(c, "CREATE TEMP TABLE t (n int)")
    c.commit()
    ask(c, "INSERT INTO t VALUES (1)")
    c.rollback()
    same(ask(c, "SELECT n FROM t"), [])


@behaviour
def savepoint():
    c = connect(autocommit=False)
    ask(c, "CREATE TEMP TABLE t (n int)")
    ask(c, "SAVEPOINT a")
    ask(c, "INSERT INTO t VALUES (1)")
    ask(c, "ROLLBACK TO a")
    ask(c, "INSERT INTO t VALUES (2)")
    ask(c, "RELEASE a")
    c.commit()
    same(ask(c, "SELECT n FROM t"), [(2,)])


@behaviour
def error_keeps_session():
    c = connect()
    try:
        ask(c, "SELECT 1/0")
        raise AssertionError("no error")
    except psycopg2.errors.DivisionByZero as error:
        same(error.pgcode, "22012")
    same(ask(c, "SELECT 2"), [(2,)])


@behaviour
def error_fields():
    try:
        ask(connect(), "INSERT INTO products (sku, name, price) VALUES ('SKU-00001', 'x', 1)")
    except psycopg2.errors.UniqueViolation as error:
        same((error.diag.constraint_name, error.diag.table_name), ("products_sku_key", "products"))
        return
    raise AssertionError("no error")


@policy
def denied_outside_transaction():
    c = connect()
    denied(c, "SELECT * FROM secrets")
    denied(c, "SELECT 1; SELECT * FROM secrets")
    denied(c, "DO $$ BEGIN DELETE FROM products; END $$")
    same(ask(c, "SELECT 3"), [(3,)])


@policy
def denied_inside_transaction():
    c = connect(autocommit=False)
    ask(c, "CREATE TEMP TABLE t (n int)")
    c.commit()
    ask(c, "INSERT INTO t VALUES (1)")
    denied(c, "SELECT * FROM secrets")
    try:
        ask(c, "SELECT 1")
        raise AssertionError("the transaction went on")
    except psycopg2.errors.InFailedSqlTransaction:
        pass
    c.rollback()
    same(ask(c, "SELECT count(*) FROM t"), [(0,)])


@policy
def masked_text():
    c = connect()
    masked(*ask(c, "SELECT email, card_number FROM customers WHERE id = 1")[0])
    masked(*ask(c, "SELECT email AS name, card_number AS id FROM customers c WHERE c.id = 1")[0])
    masked(*ask(c, "WITH x AS (SELECT * FROM customers) SELECT email, card_number FROM x WHERE id = 1")[0])
    nothing_clear(repr(ask(c, "SELECT * FROM customers ORDER BY id LIMIT 100")))


@policy
def masked_prepared():
    c = connect()
    ask(c, "PREPARE pick (int) AS SELECT email, card_number FROM customers WHERE id = $1")
    for _ in range(3):
        masked(*ask(c, "EXECUTE pick (1)")[0])


@policy
def masked_cursor():
    c = connect(autocommit=False)
    with c.cursor("named") as cursor:
        cursor.execute("SELECT email, card_number FROM customers ORDER BY id")
        masked(*cursor.fetchone())
        nothing_clear(repr(cursor.fetchmany(10)))


@policy
def masked_returning():
    masked(*ask(connect(), "UPDATE customers SET balance = balance WHERE id = 1 RETURNING email, card_number")[0])


@policy
def masked_copy_out():
    c = connect()
    for statement in ("COPY customers TO STDOUT", "COPY customers TO STDOUT (FORMAT csv)",
                      "COPY (SELECT email FROM customers) TO STDOUT"):
        out = io.BytesIO()
        with c.cursor() as cursor:
            cursor.copy_expert(statement, out)
        nothing_clear(out.getvalue())
        assert b"***@e***.com" in out.getvalue(), statement


@policy
def masked_expression():
    c = connect()
    for statement in ("SELECT upper(email) FROM customers WHERE id = 1",
                      "SELECT row_to_json(c) FROM customers c WHERE id = 1",
                      "SELECT contact || '' FROM customer_contacts WHERE id = 1",
                      "SELECT query_to_xml('select * from customers where id = 1', true, true, '')"):
        try:
            nothing_clear(repr(ask(c, statement)))
        except psycopg2.errors.InsufficientPrivilege:
            pass


@policy
def masked_in_errors():
    c = connect()
    for code, statement in failures():
        try:
            ask(c, statement)
        except psycopg2.Error as error:
            quotes_nothing(code, error.pgcode, f"{error} {error.diag.message_primary} {error.diag.message_detail} {error.diag.context}")
        else:
            raise AssertionError(f"no error: {statement}")


@behaviour
def large_result():
    rows = ask(connect(), "SELECT n, repeat('x', 50) FROM generate_series(1, 200000) n")
    same((len(rows), rows[-1][0]), (200000, 200000))


@behaviour
def copy_in_out():
    c = connect()
    ask(c, "CREATE TEMP TABLE t (n int, s text)")
    data = b"".join(b"%d\tline %d\n" % (n, n) for n in range(10000))
    with c.cursor() as cursor:
        cursor.copy_expert("COPY t FROM STDIN", io.BytesIO(data))
        out = io.BytesIO()
        cursor.copy_expert("COPY t TO STDOUT", out)
    assert out.getvalue() == data


@behaviour
def listen_notify():
    listener, speaker = connect(), connect()
    ask(listener, "LISTEN news")
    ask(speaker, "NOTIFY news, 'hello'")
    assert select.select([listener], [], [], 10)[0], "nothing came"
    listener.poll()
    same([(n.channel, n.payload) for n in listener.notifies], [("news", "hello")])


@behaviour
def cancel():
    c = connect()
    cancelled(c.cancel, lambda sql: ask(c, sql), psycopg2.errors.QueryCanceled)
    same(ask(c, "SELECT 1"), [(1,)])


@behaviour
def multiple_results():
    c = connect()
    same(ask(c, "CREATE TEMP TABLE t (n int); INSERT INTO t VALUES (1), (2); SELECT sum(n) FROM t"), [(3,)])


@behaviour
def long_value():
    # Client-side parameters make the statement itself long, so the value comes back from the server alone;
    # a statement of 900 kB is within the gateway's limit of 1 MiB.
    c = connect()
    value = "y" * 900_000
    same(ask(c, "SELECT length(%s)", (value,)), [(900_000,)])
    same(len(ask(c, "SELECT repeat('z', %s)", (TEN_MB,))[0][0]), TEN_MB)


@behaviour
def wrong_token():
    try:
        connect(password="wrong")
    except psycopg2.OperationalError as error:
        assert "authentication failed" in str(error) or "refused" in str(error) or "token" in str(error), str(error)
        return
    raise AssertionError("logged in with a wrong password")


@policy
def plain_refused():
    try:
        connect(sslmode="disable")
    except psycopg2.OperationalError as error:
        assert "TLS" in str(error) or "SSL" in str(error), str(error)
        return
    raise AssertionError("a plain connection was accepted")


run(lambda function: function())
