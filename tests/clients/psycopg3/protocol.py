"""What libpq 18 adds: protocol 3.2 with longer cancel keys, and direct TLS. The gateway speaks 3.2 to its clients whatever
the server speaks; directly, the version is negotiated down where the server has 3.0 alone."""

import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")

import psycopg
from suite import *

ARGUMENTS = dict(host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DB, sslmode="verify-full",
                 sslrootcert=ROOTCERT, connect_timeout=20, autocommit=True)


def connect(**options):
    if psycopg.pq.version() < 180000:
        raise Skip(f"libpq is {psycopg.pq.version()}, not 18")
    return psycopg.connect(**ARGUMENTS, **options)


def cancels(c):
    cancelled(c.cancel_safe, c.execute, psycopg.errors.QueryCanceled)
    same(c.execute("SELECT 1").fetchone(), (1,))


def newest(c):
    """What the other side speaks."""
    return 30002 if not DIRECT or c.info.server_version >= 180000 else 30000


@behaviour
def version_3_0_is_the_default():
    with connect() as c:
        same(c.info.full_protocol_version, 30000)
        cancels(c)


@behaviour
def the_newest_version_that_both_speak():
    for asked in ("latest", "3.2"):
        with connect(max_protocol_version=asked) as c:
            same(c.info.full_protocol_version, newest(c))
            same(c.execute("SELECT count(*) FROM products WHERE id = %s", (1,)).fetchone(), (1,))


@behaviour
def a_minimum_of_3_2():
    with connect() as c:
        expected = newest(c)
    try:
        with connect(min_protocol_version="3.2", max_protocol_version="latest") as c:
            same((c.info.full_protocol_version, expected), (30002, 30002))
    except psycopg.OperationalError as error:
        same(expected, 30000)
        assert "protocol version" in str(error), str(error)


@behaviour
def cancel_in_the_newest_version():
    with connect(max_protocol_version="latest") as c:
        cancels(c)


@behaviour
def direct_tls():
    if DIRECT:
        with connect() as c:
            if c.info.server_version < 170000:
                raise Skip("the server has no direct TLS")
    with connect(sslnegotiation="direct", max_protocol_version="latest") as c:
        same(c.pgconn.ssl_in_use, True)
        same(c.execute("SELECT 1").fetchone(), (1,))
        cancels(c)


@policy
def masked_in_the_newest_version():
    with connect(max_protocol_version="latest") as c:
        masked(*c.execute("SELECT email, card_number FROM customers WHERE id = %s", (1,), binary=True).fetchone())


run(lambda function: function())
