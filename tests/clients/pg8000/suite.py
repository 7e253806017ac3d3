"""pg8000: pure Python, the extended protocol in text format, named prepared statements."""

import datetime
import decimal
import io
import ssl
import sys
import uuid

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")

import pg8000.native
from pg8000.exceptions import DatabaseError, InterfaceError
from suite import *


def connect(**options):
    arguments = dict(
        user=USER, password=PASSWORD, host=HOST, port=PORT, database=DB, timeout=120,
        ssl_context=ssl.create_default_context(cafile=ROOTCERT),
    )
    arguments.update(options)
    return pg8000.native.Connection(**arguments)


def state(error):
    return error.args[0].get("C") if isinstance(error.args[0], dict) else None


def denied(c, statement, **parameters):
    try:
        c.run(statement, **parameters)
    except DatabaseError as error:
        same(state(error), "42501")
        return
    raise AssertionError("not denied")


@behaviour
def connect_tls():
    c = connect()
    same(c.run("SELECT 1"), [[1]])
    assert isinstance(c._usock, ssl.SSLSocket)
    c.close()


@behaviour
def simple_query():
    same([row[0] for row in connect().run("SELECT id, name FROM products ORDER BY id LIMIT 3")], [1, 2, 3])


@behaviour
def parameters():
    same(connect().run("SELECT name FROM customers WHERE id = :id AND country = :c", id=1, c="GB"), [[NAME]])


@behaviour
def prepared_reexecution():
    statement = connect().prepare("SELECT id FROM products WHERE id = :id")
    for wanted in (1, 2, 3, 2):
        same(statement.run(id=wanted), [[wanted]])
    statement.close()


@behaviour
def types_round_trip():
    c = connect()
    for kind, value in [
        ("int2", 32767), ("int8", 9223372036854775807), ("float8", 1.5e300),
        ("numeric", decimal.Decimal("12345678901234567890.123456789")), ("text", "grüße, \U0001f980 \\ back"),
        ("bytea", bytes(range(256))), ("bool", True), ("date", datetime.date(2024, 2, 29)),
        ("timestamp", datetime.datetime(1999, 12, 31, 23, 59, 59, 999999)),
        ("uuid", uuid.UUID("0f8fad5b-d9cb-469f-a165-70867728950e")), ("jsonb", {"a": [1, None]}),
        ("int4[]", [1, 2, 3]), ("text[]", ["a", "b,c", 'd"e']),
    ]:
        same((kind, c.run(f"SELECT CAST(:v AS {kind})", v=value)), (kind, [[value]]))


@behaviour
def nulls():
    same(connect().run("SELECT CAST(:v AS int), NULL, CAST('' AS text)", v=None), [[None, None, ""]])


@behaviour
def transaction_commit():
    c = connect()
    c.run("CREATE TEMP TABLE t (n int)")
    c.run("START TRANSACTION")
    c.run("INSERT INTO t VALUES (:n)", n=1)
    c.run("COMMIT")
    same(c.run("SELECT n FROM t"), [[1]])


@behaviour
def transaction_rollback():
    c = connect()
    c.run("CREATE TEMP TABLE t (n int)")
    c.run("START TRANSACTION")
    c.run("INSERT INTO t VALUES (:n)", n=1)
    c.run("ROLLBACK")
    same(c.run("SELECT n FROM t"), [])


@behaviour
def savepoint():
    c = connect()
    c.run("CREATE TEMP TABLE t (n int)")
    c.run("BEGIN")
    c.run("SAVEPOINT a")
    c.run("INSERT INTO t VALUES (1)")
    c.run("ROLLBACK TO a")
    c.run("INSERT INTO t VALUES (2)")
    c.run("COMMIT")
    same(c.run("SELECT n FROM t"), [[2]])


@behaviour
def error_keeps_session():
    c = connect()
    try:
        c.run("SELECT 1 / CAST(:n AS int)", n=0)
        raise AssertionError("no error")
    except DatabaseError as error:
        same(state(error), "22012")
    same(c.run("SELECT 2"), [[2]])


@behaviour
def error_fields():
    try:
        connect().run("INSERT INTO products (sku, name, price) VALUES ('SKU-00001', 'x', 1)")
    except DatabaseError as error:
        fields = error.args[0]
        same((fields["n"], fields["t"], fields["s"]), ("products_sku_key", "products", "public"))
        return
    raise AssertionError("no error")


@policy
def denied_outside_transaction():
    c = connect()
    denied(c, "SELECT * FROM secrets")
    denied(c, "SELECT * FROM secrets WHERE id = :id", id=1)
    same(c.run("SELECT 3"), [[3]])


@policy
def denied_inside_transaction():
    c = connect()
    c.run("CREATE TEMP TABLE t (n int)")
    for parameters in ({}, {"id": 1}):
        c.run("BEGIN")
        c.run("INSERT INTO t VALUES (1)")
        denied(c, "SELECT * FROM secrets WHERE id = " + (":id" if parameters else "1"), **parameters)
        try:
            c.run("SELECT 1")
            raise AssertionError("the transaction went on")
        except DatabaseError as error:
            same(state(error), "25P02")
        c.run("ROLLBACK")
        same(c.run("SELECT count(*) FROM t"), [[0]])


@policy
def masked_text():
    c = connect()
    masked(*c.run("SELECT email, card_number FROM customers WHERE id = 1")[0])
    masked(*c.run("SELECT email AS name, card_number AS id FROM customers c WHERE c.id = :id", id=1)[0])
    nothing_clear(repr(c.run("SELECT * FROM customers ORDER BY id LIMIT 100")))


@policy
def masked_prepared():
    statement = connect().prepare("SELECT email, card_number FROM customers WHERE id = :id")
    for _ in range(3):
        masked(*statement.run(id=1)[0])


@policy
def masked_cursor():
    c = connect()
    c.run("BEGIN")
    c.run("DECLARE x CURSOR FOR SELECT email, card_number FROM customers ORDER BY id")
    masked(*c.run("FETCH 1 FROM x")[0])
    nothing_clear(repr(c.run("FETCH 10 FROM x")))
    c.run("ROLLBACK")


@policy
def masked_returning():
    row = connect().run("UPDATE customers SET balance = balance WHERE id = :id RETURNING email, card_number", id=1)[0]
    masked(*row)


@policy
def masked_copy_out():
    out = io.BytesIO()
    connect().run("COPY customers (email, card_number) TO STDOUT", stream=out)
    nothing_clear(out.getvalue())
    assert b"***@e***.com" in out.getvalue()


@policy
def masked_expression():
    c = connect()
    for expression in ("lower(email)", "email || ''", "row_to_json(customers)"):
        try:
            nothing_clear(repr(c.run(f"SELECT {expression} FROM customers WHERE id = 1")))
        except DatabaseError as error:
            same(state(error), "42501")


@policy
def masked_in_errors():
    c = connect()
    for code, statement in failures():
        try:
            c.run(statement)
        except DatabaseError as error:
            quotes_nothing(code, state(error), repr(error.args))
        else:
            raise AssertionError(f"no error: {statement}")


@behaviour
def large_result():
    rows = connect().run("SELECT n, repeat('x', 50) FROM generate_series(1, 200000) n")
    same((len(rows), rows[-1][0]), (200000, 200000))


@behaviour
def copy_in_out():
    c = connect()
    c.run("CREATE TEMP TABLE t (n int, s text)")
    data = b"".join(b"%d\tline %d\n" % (n, n) for n in range(10000))
    c.run("COPY t FROM STDIN", stream=io.BytesIO(data))
    out = io.BytesIO()
    c.run("COPY t TO STDOUT", stream=out)
    assert out.getvalue() == data


@behaviour
def listen_notify():
    listener, speaker = connect(), connect()
    listener.run("LISTEN news")
    speaker.run("NOTIFY news, 'hello'")
    listener.run("SELECT 1")
    same([(channel, payload) for _pid, channel, payload in listener.notifications], [("news", "hello")])


@behaviour
def multiple_results():
    c = connect()
    same(c.run("CREATE TEMP TABLE t (n int); INSERT INTO t VALUES (1), (2); SELECT sum(n) FROM t"), [[3]])


@behaviour
def long_value():
    c = connect()
    value = "y" * TEN_MB
    row = c.run("SELECT CAST(:v AS text), length(:v)", v=value)[0]
    same(row[1], TEN_MB)
    assert row[0] == value


@behaviour
def wrong_token():
    try:
        connect(password="wrong")
    except DatabaseError as error:
        assert state(error) in ("28P01", "28000"), str(error)
        return
    raise AssertionError("logged in with a wrong password")


@policy
def plain_refused():
    try:
        connect(ssl_context=False)
    except (DatabaseError, InterfaceError) as error:
        assert "TLS" in str(error) or "SSL" in str(error), str(error)
        return
    raise AssertionError("a plain connection was accepted")


run(lambda function: function())
