"""What the Python suites share: the environment, and one line for each behaviour."""

import os
import re
import sys
import threading
import traceback

HOST = os.environ.get("SP_HOST", "localhost")
PORT = int(os.environ["SP_PORT"])
USER = os.environ["SP_USER"]
PASSWORD = os.environ["SP_PASSWORD"]
DB = os.environ.get("SP_DB", "shop")
ROOTCERT = os.environ["SP_SSLROOTCERT"]
DIRECT = os.environ.get("DIRECT", "0") == "1"

NAME = "Ada Lovelace"
EMAIL = "ada.lovelace@example.com"
CARD = "4111111111111111"
TEN_MB = 10_000_000

_behaviours = []


class Skip(Exception):
    """The driver has no such thing."""


def behaviour(function):
    """Registers one; its name is the function's. `policy_…` ones need the gateway."""
    _behaviours.append((function.__name__, function, False))
    return function


def policy(function):
    """One that only a gateway has."""
    _behaviours.append((function.__name__, function, True))
    return function


def same(got, expected):
    if got != expected:
        raise AssertionError(f"got {shorten(got)}, expected {shorten(expected)}")


def shorten(value):
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "…"


def masked(email, card):
    """Both masked, as the tests' rules say; for a role that may see the classes (SP_UNMASKED=1), both in clear."""
    if os.environ.get("SP_UNMASKED") == "1":
        same((email, card), ("ada.lovelace@example.com", "4111111111111111"))
        return
    if isinstance(email, (bytes, bytearray, memoryview)):
        email = bytes(email).decode()
    if isinstance(card, (bytes, bytearray, memoryview)):
        card = bytes(card).decode()
    if not re.fullmatch(r"a\*+@e\*+\.com", email or ""):
        raise AssertionError(f"e-mail is {email!r}")
    if not re.fullmatch(r"\D+1111", card or ""):
        raise AssertionError(f"card number is {card!r}")


def cancelled(cancel, sleep, error):
    """`cancel` ends `sleep`, a statement of half a minute, with the driver's own `error`."""
    timer = threading.Timer(0.5, cancel)
    timer.start()
    try:
        sleep("SELECT pg_sleep(30)")
        raise AssertionError("not cancelled")
    except error:
        pass
    finally:
        timer.join()


def nothing_clear(data):
    """No clear value anywhere in the bytes."""
    if isinstance(data, str):
        data = data.encode()
    for clear in (EMAIL.encode(), CARD.encode()):
        if clear in data:
            raise AssertionError(f"{clear!r} is in the clear")


# Statements that fail while they read a classified value, with what the server's own message would quote.
_QUOTING = (
    ("42P01", """SELECT id FROM customers WHERE id = 1 AND ('"' || email || '"')::regclass = 1"""),
    ("42704", """SELECT id FROM customers WHERE id = 1 AND ('"' || email || '"')::regrole = 1"""),
    ("0A000", "SELECT id FROM customers WHERE id = 1 AND email::regclass = 1"),
    ("42601", "SELECT id FROM customers WHERE id = 1 AND to_tsquery('simple', email || ' & &') IS NULL"),
    ("22P02", "SELECT id FROM customers WHERE id = 1 AND email::integer = 1"),
    ("23505", "INSERT INTO customers (name, email) SELECT name, email FROM customers WHERE id = 1"),
)


def failures():
    """Statements that fail, each after its SQLSTATE: what the driver says of it goes to `quotes_nothing`."""
    return _QUOTING + (("42703", "SELECT nme FROM customers"),)


def quotes_nothing(expected, code, text):
    """The error has its own code and no clear value; what speaks of the statement alone can be read."""
    same(code, expected)
    nothing_clear(text)
    assert ("withheld" in text) != ('column "nme" does not exist' in text), text


def run(call):
    """Runs all; `call` runs one function (an event loop does it its own way)."""
    passed = failed = skipped = 0
    only = sys.argv[1:]
    for name, function, needs_gateway in _behaviours:
        if (needs_gateway and DIRECT) or (only and name not in only):
            continue
        try:
            call(function)
            passed += 1
            print(f"ok {name}", flush=True)
        except Skip as why:
            skipped += 1
            print(f"skip {name}: {why}", flush=True)
        except BaseException as why:
            if isinstance(why, KeyboardInterrupt):
                raise
            failed += 1
            message = f"{type(why).__name__}: {why}".strip().replace("\n", " | ")
            print(f"FAIL {name}: {message[:600]}", flush=True)
            if os.environ.get("VERBOSE"):
                traceback.print_exc()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
