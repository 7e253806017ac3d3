"""asyncpg: its own protocol code, binary format, prepared statements, pipelined COPY."""

import asyncio
import datetime
import decimal
import io
import ssl
import sys
import uuid

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")

import asyncpg
from suite import *

LOOP = asyncio.new_event_loop()


def connect(**options):
    arguments = dict(
        host=HOST, port=PORT, user=USER, password=PASSWORD, database=DB, timeout=20,
        ssl=ssl.create_default_context(cafile=ROOTCERT),
    )
    arguments.update(options)
    return asyncpg.connect(**arguments)


def connected(function):
    """Gives the behaviour a connection of its own."""
    async def wrapped():
        c = await connect()
        try:
            await function(c)
        finally:
            await asyncio.wait_for(c.close(), 10)
    wrapped.__name__ = function.__name__
    return wrapped


async def denied(waiting):
    try:
        await waiting
    except asyncpg.InsufficientPrivilegeError as error:
        same(error.sqlstate, "42501")
        return
    raise AssertionError("not denied")


@behaviour
@connected
async def connect_tls(c):
    same(await c.fetchval("SELECT 1"), 1)
    assert c._transport.get_extra_info("ssl_object") is not None


@behaviour
@connected
async def simple_query(c):
    same(await c.execute("SELECT 1"), "SELECT 1")
    same([row["id"] for row in await c.fetch("SELECT id, name FROM products ORDER BY id LIMIT 3")], [1, 2, 3])


@behaviour
@connected
async def parameters(c):
    same(await c.fetchval("SELECT name FROM customers WHERE id = $1 AND country = $2", 1, "GB"), NAME)


@behaviour
@connected
async def prepared_reexecution(c):
    statement = await c.prepare("SELECT id FROM products WHERE id = $1")
    for wanted in (1, 2, 3, 2):
        same(await statement.fetchval(wanted), wanted)


@behaviour
@connected
async def types_round_trip(c):
    for kind, value in [
        ("int2", 32767), ("int4", -2147483648), ("int8", 9223372036854775807), ("float8", 1.5e300), ("float4", 0.5),
        ("numeric", decimal.Decimal("12345678901234567890.123456789")), ("text", "grüße, \U0001f980 \\ back"),
        ("bytea", bytes(range(256))), ("bool", True), ("date", datetime.date(2024, 2, 29)),
        ("timestamp", datetime.datetime(1999, 12, 31, 23, 59, 59, 999999)),
        ("timestamptz", datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.timezone.utc)),
        ("time", datetime.time(23, 59, 59)), ("interval", datetime.timedelta(days=3, seconds=7)),
        ("uuid", uuid.UUID("0f8fad5b-d9cb-469f-a165-70867728950e")), ("jsonb", '{"a": [1, null]}'),
        ("int4[]", [1, 2, 3]), ("text[]", ["a", "b,c", 'd"e']), ("int4range", asyncpg.Range(1, 5)),
    ]:
        same((kind, await c.fetchval(f"SELECT $1::{kind}", value)), (kind, value))


@behaviour
@connected
async def nulls(c):
    same(tuple(await c.fetchrow("SELECT $1::int, NULL::text, ''::text", None)), (None, None, ""))


@behaviour
@connected
async def transaction_commit(c):
    await c.execute("CREATE TEMP TABLE t (n int)")
    async with c.transaction():
        await c.execute("INSERT INTO t VALUES ($1)", 1)
    same(await c.fetchval("SELECT count(*) FROM t"), 1)


@behaviour
@connected
async def transaction_rollback(c):
    await c.execute("CREATE TEMP TABLE t (n int)")
    transaction = c.transaction()
    await transaction.start()
    await c.execute("INSERT INTO t VALUES (1)")
    await transaction.rollback()
    same(await c.fetchval("SELECT count(*) FROM t"), 0)


@behaviour
@connected
async def savepoint(c):
    await c.execute("CREATE TEMP TABLE t (n int)")
    async with c.transaction():
        try:
            async with c.transaction():
                await c.execute("INSERT INTO t VALUES (1)")
                await c.fetch("SELECT 1/0")
        except asyncpg.DivisionByZeroError:
            pass
        await c.execute("INSERT INTO t VALUES (2)")
    same(await c.fetchval("SELECT sum(n) FROM t"), 2)


@behaviour
@connected
async def error_keeps_session(c):
    try:
        await c.fetch("SELECT 1/$1::int", 0)
        raise AssertionError("no error")
    except asyncpg.DivisionByZeroError as error:
        same(error.sqlstate, "22012")
    same(await c.fetchval("SELECT 2"), 2)


@behaviour
@connected
async def error_fields(c):
    try:
        await c.execute("INSERT INTO products (sku, name, price) VALUES ($1, 'x', 1)", "SKU-00001")
    except asyncpg.UniqueViolationError as error:
        same((error.constraint_name, error.table_name, error.schema_name), ("products_sku_key", "products", "public"))
        return
    raise AssertionError("no error")


@policy
@connected
async def denied_outside_transaction(c):
    await denied(c.execute("SELECT * FROM secrets"))
    await denied(c.fetch("SELECT * FROM secrets WHERE id = $1", 1))
    await denied(c.prepare("SELECT value FROM secrets WHERE id = $1"))
    await denied(c.execute("DELETE FROM products"))
    same(await c.fetchval("SELECT 3"), 3)


@policy
@connected
async def denied_inside_transaction(c):
    await c.execute("CREATE TEMP TABLE t (n int)")
    for parameters in ((), (1,)):
        transaction = c.transaction()
        await transaction.start()
        await c.execute("INSERT INTO t VALUES (1)")
        await denied(c.fetch("SELECT * FROM secrets WHERE id = " + ("$1" if parameters else "1"), *parameters))
        try:
            await c.fetchval("SELECT 1")
            raise AssertionError("the transaction went on")
        except asyncpg.InFailedSQLTransactionError:
            pass
        await transaction.rollback()
        same(await c.fetchval("SELECT count(*) FROM t"), 0)


@policy
@connected
async def masked_text(c):
    # The simple protocol is text; asyncpg shows its rows only through COPY and cursors, so: COPY.
    out = io.BytesIO()
    await c.copy_from_query("SELECT email, card_number FROM customers WHERE id = $1", 1, output=out, format="text")
    masked(*out.getvalue().decode().rstrip("\n").split("\t"))


@policy
@connected
async def masked_binary(c):
    masked(*await c.fetchrow("SELECT email, card_number FROM customers WHERE id = $1", 1))
    masked(*await c.fetchrow("SELECT email AS name, card_number AS id FROM customers c WHERE c.id = 1"))
    nothing_clear(repr(await c.fetch("SELECT * FROM customers ORDER BY id LIMIT 100")))


@policy
@connected
async def masked_prepared(c):
    statement = await c.prepare("SELECT email, card_number FROM customers WHERE id = $1")
    for _ in range(3):
        masked(*await statement.fetchrow(1))


@policy
@connected
async def masked_cursor(c):
    async with c.transaction():
        cursor = await c.cursor("SELECT email, card_number FROM customers ORDER BY id")
        masked(*await cursor.fetchrow())
        nothing_clear(repr(await cursor.fetch(10)))
        count = 0
        async for row in c.cursor("SELECT email FROM customers ORDER BY id", prefetch=50):
            nothing_clear(row[0])
            count += 1
        same(count, await c.fetchval("SELECT count(*) FROM customers"))


@policy
@connected
async def masked_returning(c):
    masked(*await c.fetchrow("UPDATE customers SET balance = balance WHERE id = $1 RETURNING email, card_number", 1))


@policy
@connected
async def masked_copy_out(c):
    for options in ({"format": "text"}, {"format": "csv", "header": True}, {"format": "binary"}):
        out = io.BytesIO()
        try:
            await c.copy_from_table("customers", columns=["email", "card_number"], output=out, **options)
        except asyncpg.InsufficientPrivilegeError:
            if options["format"] == "binary":
                continue  # refused is as good
            raise
        nothing_clear(out.getvalue())
        assert b"***@e***.com" in out.getvalue(), options


@policy
@connected
async def masked_expression(c):
    for expression in ("lower(email)", "email || ''", "row_to_json(customers)", "array[email]", "customers"):
        try:
            nothing_clear(repr(await c.fetch(f"SELECT {expression} FROM customers WHERE id = 1")))
        except asyncpg.InsufficientPrivilegeError:
            pass


@policy
@connected
async def masked_in_errors(c):
    for code, statement in failures():
        for ask in (c.execute, c.fetch):
            try:
                await ask(statement)
            except asyncpg.PostgresError as error:
                quotes_nothing(code, error.sqlstate, repr((str(error), error.as_dict())))
            else:
                raise AssertionError(f"no error: {statement}")


@behaviour
@connected
async def large_result(c):
    async with c.transaction():
        count = total = 0
        async for row in c.cursor("SELECT n, repeat('x', 50) FROM generate_series(1, 200000) n", prefetch=5000):
            count += 1
            total += row[0]
    same((count, total), (200000, 20000100000))
    same(len(await c.fetch("SELECT n FROM generate_series(1, 200000) n")), 200000)


@behaviour
@connected
async def copy_in_out(c):
    await c.execute("CREATE TEMP TABLE t (n int, s text)")
    records = [(n, f"line {n}" if n % 3 else None) for n in range(10000)]
    same(await c.copy_records_to_table("t", records=records), "COPY 10000")
    out = io.BytesIO()
    await c.copy_from_table("t", output=out, format="csv")
    await c.execute("CREATE TEMP TABLE again (LIKE t)")
    await c.copy_to_table("again", source=io.BytesIO(out.getvalue()), format="csv")
    same(tuple(await c.fetchrow("SELECT count(*), count(s), sum(n) FROM again")), (10000, 6666, 49995000))


@behaviour
async def listen_notify():
    listener, speaker = await connect(), await connect()
    heard = LOOP.create_future()
    await listener.add_listener("news", lambda _c, _pid, channel, payload: heard.set_result((channel, payload)))
    await speaker.execute("SELECT pg_notify($1, $2)" if DIRECT else "NOTIFY news, 'hello'", *(("news", "hello") if DIRECT else ()))
    same(await asyncio.wait_for(heard, 10), ("news", "hello"))
    await listener.close()
    await speaker.close()


@behaviour
@connected
async def cancel(c):
    try:
        await c.execute("SELECT pg_sleep(30)", timeout=0.5)
        raise AssertionError("not cancelled")
    except asyncio.TimeoutError:
        pass
    same(await c.fetchval("SELECT 1"), 1)


@behaviour
@connected
async def pipeline(c):
    await c.execute("CREATE TEMP TABLE t (n int, s text)")
    await c.executemany("INSERT INTO t VALUES ($1, $2)", [(n, str(n)) for n in range(2000)])
    same(await c.fetchval("SELECT sum(n) FROM t"), 1999000)


@behaviour
@connected
async def multiple_results(c):
    same(await c.execute("SELECT 1; CREATE TEMP TABLE t (n int); INSERT INTO t VALUES (1), (2)"), "INSERT 0 2")


@behaviour
@connected
async def long_value(c):
    value = "y" * TEN_MB
    row = await c.fetchrow("SELECT $1::text, length($1)", value)
    same(row[1], TEN_MB)
    assert row[0] == value


@behaviour
async def wrong_token():
    try:
        await connect(password="wrong")
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return
    raise AssertionError("logged in with a wrong password")


@policy
async def plain_refused():
    try:
        await connect(ssl=False)
    except (asyncpg.PostgresError, ConnectionError) as error:
        assert "TLS" in str(error) or "SSL" in str(error), str(error)
        return
    raise AssertionError("a plain connection was accepted")


run(lambda function: LOOP.run_until_complete(asyncio.wait_for(function(), 120)))
