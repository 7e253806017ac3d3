"""What goes wrong in the world: servers that die, clients that vanish, full disks, kill -9, clocks that jump.

Each fault gets a gateway of its own in front of one scratch PostgreSQL. `run` needs ROOT (the repository), SCRATCH (an
empty folder), SALLYPORT and LOADGEN (the programs).
"""

import contextlib
import hashlib
import json
import os
import random
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
sys.path.insert(0, str(ROOT / "tests/clients/lib"))

import psycopg
from collector import Collector
from scratch import PG, SCRATCH, Gateway, call, direct, gateway, read_env, until
from suite import Skip, behaviour, nothing_clear, run, same


def fails(action, *words):
    """It must fail, with one of the words in what it says."""
    try:
        action()
    except psycopg.Error as error:
        text = f"{error.sqlstate or ''} {error}"
        assert not words or any(word in text for word in words), text
        return error
    raise AssertionError("no error")


@behaviour
def upstream_dies_in_the_middle_of_a_result():
    with gateway("dies") as g:
        c = g.connect()
        cursor = c.cursor()
        seen = 0
        started = None

        def read():
            nonlocal seen, started
            for _ in cursor.stream("SELECT n, repeat('x', 1000) FROM generate_series(1, 2000000) n"):
                seen += 1
                if seen == 1000:
                    call(ROOT / "scripts/pg", "crash", PG)
                    started = time.monotonic()

        try:
            error = fails(read)
            assert seen >= 1000, seen
            assert time.monotonic() - started < 20, "the client waited for long"
            assert c.closed or c.broken, f"the session seems to live: {error}"
            fails(g.alive)
        finally:
            call(ROOT / "scripts/pg", "again", PG)
        until("a new session works", lambda: not isinstance(attempt(g.alive), Exception))
        assert "server is not" not in str(error)


def attempt(action):
    try:
        return action()
    except Exception as error:
        return error


def waiting(g):
    return json.loads(g.cli("approvals", "list", "--json"))


@behaviour
def held_statement_is_approved_and_delays_nobody():
    with gateway("held") as g:
        notices, c, done = [], g.connect(), {}
        c.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
        with direct() as d:
            product = d.execute("INSERT INTO products (sku, name, price) VALUES ('held', 'held', 1) RETURNING id").fetchone()[0]

        def delete():
            done["status"] = c.execute("DELETE FROM products WHERE id = %s", (product,)).statusmessage

        thread = threading.Thread(target=delete)
        thread.start()
        one = until("it waits", lambda: waiting(g))[0]
        started = time.monotonic()
        for _ in range(20):
            g.alive()
        assert time.monotonic() - started < 10
        assert "DELETE" in g.cli("approvals", "show", one["id"])
        g.cli("approvals", "approve", one["id"])
        thread.join(10)
        same(done.get("status"), "DELETE 1")
        assert notices, "no NOTICE told the client"
        same(waiting(g), [])


@behaviour
def client_vanishes_while_held():
    with gateway("vanishes") as g:
        c = g.connect()
        thread = threading.Thread(target=lambda: attempt(lambda: c.execute("DELETE FROM products WHERE id = 2")), daemon=True)
        thread.start()
        one = until("it waits", lambda: waiting(g))[0]
        socket.socket(fileno=os.dup(c.fileno())).shutdown(socket.SHUT_RDWR)
        until("nothing waits any more", lambda: waiting(g) == [], 15)
        late = subprocess.run([os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", "approvals", "approve", one["id"]],
                              capture_output=True, text=True)
        assert late.returncode != 0, "an approval of what is gone was accepted"
        with direct() as d:
            same(d.execute("SELECT count(*) FROM products WHERE id = 2").fetchone(), (1,))
        g.alive()


@behaviour
def held_statement_is_cancelled():
    with gateway("cancelled") as g:
        c = g.connect()
        threading.Timer(1.5, c.cancel).start()
        fails(lambda: c.execute("DELETE FROM products WHERE id = 3"), "57014", "42501")
        same(c.execute("SELECT count(*) FROM products WHERE id = 3").fetchone(), (1,))
        same(waiting(g), [])


@behaviour
def kill_by_an_administrator():
    with gateway("kill") as g:
        c = g.connect()
        result = {}
        thread = threading.Thread(target=lambda: result.update(error=attempt(lambda: c.execute("SELECT pg_sleep(60) /* killme */"))))
        thread.start()
        with direct() as d:
            running = lambda: d.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%killme%' AND pid <> pg_backend_pid()").fetchone()[0]
            until("it runs", lambda: running() == 1)
            session = json.loads(g.cli("sessions", "list", "--open", "--json"))[0]
            started = time.monotonic()
            g.cli("sessions", "kill", session["id"])
            thread.join(10)
            took = time.monotonic() - started
            assert isinstance(result.get("error"), psycopg.Error), result
            assert took < 2, f"it took {took:.1f} s"
            until("what ran upstream is cancelled", lambda: running() == 0, 5)
        g.alive()


def running(d, mark):
    """How many statements with this mark run on the server."""
    return d.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()",
                     (f"%{mark}%",)).fetchone()[0]


def in_background(action):
    """Runs it in a thread; the thread, and where what came of it will be."""
    result = {}
    thread = threading.Thread(target=lambda: result.update(outcome=attempt(action)), daemon=True)
    thread.start()
    return thread, result


def actions(g):
    """The administrative actions in the log."""
    lines = g.cli("audit", "tail", "--kind", "administration", "-n", "1000", "--json").splitlines()
    return [f"{entry['action']}: {entry['object']}" for entry in map(json.loads, lines)]


class Relay:
    """Between the gateway and the server: passes everything, and keeps what the gateway sent on each connection."""

    def __enter__(self):
        self.sent, self.server = [], int(read_env(PG / "env")["PG_PORT"])
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.server))
                sent = bytearray()
                self.sent.append(sent)
                threading.Thread(target=self.copy, args=(near, far, sent), daemon=True).start()
                threading.Thread(target=self.copy, args=(far, near, bytearray()), daemon=True).start()

    def copy(self, source, sink, kept):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def __exit__(self, *_):
        self.listener.close()


@behaviour
def cancel_request_goes_over_tls():
    with Relay() as relay, gateway("cancel-tls", UPSTREAM_PORT=str(relay.port)) as g:
        c = g.connect()
        before = len(relay.sent)
        threading.Timer(1, c.cancel).start()
        started = time.monotonic()
        fails(lambda: c.execute("SELECT pg_sleep(30)"), "57014")
        assert time.monotonic() - started < 10
        same(c.execute("SELECT 1").fetchone(), (1,))
        assert len(relay.sent) > before, "no connection for the cancel request"
        # SSLRequest, then nothing but TLS: a cancel request in the clear has the code 80877102.
        for sent in relay.sent:
            same((bytes(sent[:8]).hex(), sent[8]), ("0000000804d2162f", 0x16))
            assert b"\x04\xd2\x16\x2e" not in sent, "a cancel request in the clear"


@behaviour
def kill_of_all_sessions_of_a_principal():
    with gateway("kill-all") as g:
        first, second, other = g.connect(), g.connect(), g.connect(user="bystander")
        thread, result = in_background(lambda: first.execute("SELECT pg_sleep(60) /* killall */"))
        with direct() as d:
            until("it runs", lambda: running(d, "killall") == 1)
            started = time.monotonic()
            assert len(json.loads(g.cli("sessions", "kill", "--principal", "dev/fault", "--json"))["killed"]) == 2
            thread.join(10)
            assert isinstance(result.get("outcome"), psycopg.Error), result
            fails(lambda: second.execute("SELECT 1"))
            took = time.monotonic() - started
            assert took < 1.5, f"it took {took:.1f} s"
            until("what ran upstream is cancelled", lambda: running(d, "killall") == 0, 2)
        same(other.execute("SELECT 1").fetchone(), (1,))
        same(len([action for action in actions(g) if action.startswith("session killed")]), 2)
        other.close()


@behaviour
def revoked_principal_is_out_until_it_is_lifted():
    with gateway("revoked-principal") as g:
        token = g.token()
        c, other = g.connect(token), g.connect(user="bystander")
        thread, result = in_background(lambda: c.execute("SELECT pg_sleep(60) /* revokeme */"))
        with direct() as d:
            until("it runs", lambda: running(d, "revokeme") == 1)
            started = time.monotonic()
            g.cli("revocations", "create", "--principal", "dev/fault", "--reason", "stolen laptop")
            thread.join(10)
            took = time.monotonic() - started
            assert isinstance(result.get("outcome"), psycopg.Error), result
            assert took < 1.5, f"it took {took:.1f} s"
            until("what ran upstream is cancelled", lambda: running(d, "revokeme") == 0, 2)
        same(other.execute("SELECT 1").fetchone(), (1,))
        other.close()
        fails(lambda: g.connect(token), "revoked")
        fails(lambda: g.connect(g.token()), "revoked")
        g.stop()
        g.start()
        fails(lambda: g.connect(token), "revoked")
        same([entry["principal"] for entry in json.loads(g.cli("revocations", "list", "--json"))], ["dev/fault"])
        g.cli("revocations", "lift", "--principal", "dev/fault")
        g.connect(token).close()
        same(actions(g), ["revoked: principal dev/fault", "revocation lifted: principal dev/fault"])


@behaviour
def revoked_token_ends_its_sessions_alone():
    with gateway("revoked-token") as g:
        first, second = g.token(), g.token()
        c, other = g.connect(first), g.connect(second)
        opened = json.loads(g.cli("sessions", "list", "--open", "--json"))
        mine = json.loads(g.cli("sessions", "show", opened[-1]["id"], "--json"))["started"]["principal"]["credential_id"]
        g.cli("revocations", "create", "--token", f"dev/{mine}")
        until("its session ends", lambda: isinstance(attempt(lambda: c.execute("SELECT 1")), psycopg.Error), 2)
        same(other.execute("SELECT 1").fetchone(), (1,))
        other.close()
        fails(lambda: g.connect(first), "revoked")
        g.connect(second).close()
        # Without a gateway: in the files, and in the log.
        g.stop()
        g.cli("revocations", "lift", "--token", f"dev/{mine}")
        g.cli("revocations", "create", "--token", "dev/another", "--lifetime", "1h")
        g.start()
        g.connect(first).close()
        same([entry["token"] for entry in json.loads(g.cli("revocations", "list", "--json"))], ["dev/another"])
        same(actions(g), [f"revoked: token dev/{mine}", f"revocation lifted: token dev/{mine}", "revoked: token dev/another"])


@behaviour
def token_expires_in_the_middle_of_a_statement():
    with gateway("expires") as g:
        c = g.connect(g.token("fault", "app", "--lifetime", "4s"))
        same(c.execute("SELECT 1").fetchone(), (1,))
        started = time.monotonic()
        error = fails(lambda: c.execute("SELECT pg_sleep(60)"), "expire")
        assert time.monotonic() - started < 15
        assert c.closed or c.broken, str(error)
        g.alive()


@behaviour
def stalled_logins_are_dropped():
    with gateway("stalled", '\n[limits]\nlogin_timeout = "3s"\nlogins_per_address_max = 8\n') as g:
        address = ("127.0.0.1", int(g.known["GW_PORT"]))
        request = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
        started = time.monotonic()

        def stall(*parts):
            one = socket.create_connection(address, timeout=20)
            for part in parts:
                one.sendall(part)
            return one

        def ended(one):
            with one, contextlib.suppress(ConnectionError):
                while one.recv(4096):
                    pass
            return time.monotonic() - started

        # Nothing; a part of a request; no handshake; a part of a handshake, asked for and direct.
        hello = bytes.fromhex("16030102000100")
        asked = stall(request)
        same(asked.recv(1), b"S")
        asked.sendall(hello)
        stalled = [stall(), stall(request[:5]), stall(request), asked, stall(hello)]
        g.alive()
        assert time.monotonic() - started < 3, "a login waits for those that stall"
        for one in stalled:
            assert 2 < (took := ended(one)) < 6, f"not dropped at its deadline but after {took:.1f} s"
        # No more than eight at a time from one address.
        stalled = [stall() for _ in range(12)]
        time.sleep(1)
        turned_away, _, _ = select.select(stalled, [], [], 0)
        same(len(turned_away), 4)
        until("logins work again", lambda: not isinstance(attempt(g.alive), Exception))


@behaviour
def forwarded_headers_are_not_believed():
    with gateway("forwarded") as g:
        headers = ("X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1;proto=https", "X-Forwarded-User: root", "X-Real-IP: 127.0.0.1",
                   "Remote-User: root", "X-Forwarded-Host: localhost", "X-Original-URL: /healthz", "X-Rewrite-URL: /healthz")
        for path in ("/api/v1/status", "/api/v1/sessions/live", "/api/v1/approvals"):
            trusted = ssl.create_default_context(cafile=g.known["GW_CA"])
            with socket.create_connection(("localhost", int(g.known["GW_ADMIN_PORT"])), timeout=10) as plain, \
                    trusted.wrap_socket(plain, server_hostname="localhost") as tls:
                lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
                tls.sendall("\r\n".join(lines).encode())
                answer = tls.recv(65536).decode()
            same(answer.split(" ")[1], "401")


def on_record(g, error):
    """The entry of the request that a denial names: "Session ID, request NUMBER." """
    session, request = re.search(r"Session ([0-9a-f-]+), request (\d+)\.", str(error)).groups()
    lines = g.cli("audit", "tail", "--session", session, "--kind", "request", "-n", "100", "--json").splitlines()
    return next(entry for entry in map(json.loads, lines) if entry["request"] == int(request))


PEOPLE = """
[[classify]]
class   = "person"
columns = ["shop/public.people.email"]

[[mask]]
class = "person"
with  = "redact"
"""


@behaviour
def what_acts_is_denied_before_it_runs():
    """What writes and would return a column that cannot be masked is denied, and has written nothing."""
    with direct() as d:
        d.execute("DROP TABLE IF EXISTS people")
        d.execute("CREATE TABLE people (id int, email text, initial text GENERATED ALWAYS AS (left(email, 1)) STORED)")
        d.execute("INSERT INTO people VALUES (1, 'ada@example.com')")
        d.execute("ALTER TABLE people OWNER TO gateway")
        before = d.execute("SELECT * FROM people").fetchall()
        with gateway("acts", PEOPLE) as g, g.connect() as c:
            for statement in ("INSERT INTO people (id, email) VALUES (2, 'b@example.com') RETURNING initial",
                              "UPDATE people SET id = 2 WHERE id = 1 RETURNING id, initial",
                              "UPDATE people SET id = 2 WHERE id = 1 RETURNING *",
                              "DELETE FROM people WHERE id = 1 RETURNING people.initial",
                              "WITH gone AS (DELETE FROM people WHERE id = 1 RETURNING initial) SELECT * FROM gone"):
                for parameters in (None, ()):
                    error = fails(lambda: c.execute(statement, parameters, prepare=parameters is not None), "42501")
                    same(on_record(g, error)["verdict"], "deny")
                    same(d.execute("SELECT * FROM people").fetchall(), before)
            # What is only read is refused as it arrives; the rest of the row can be had.
            fails(lambda: c.execute("SELECT initial FROM people"), "42501")
            same(c.execute("UPDATE people SET id = 3 WHERE id = 1 RETURNING id").fetchone(), (3,))
        d.execute("DROP TABLE people")


@behaviour
def what_a_definition_copies_is_denied():
    """Neither defaults nor foreign keys nor checks carry what is hidden to where it is not."""
    with direct() as d:
        d.execute("DROP TABLE IF EXISTS people, copies")
        d.execute("CREATE TABLE people (id int, email text UNIQUE)")
        d.execute("INSERT INTO people VALUES (1, 'ada@example.com')")
        d.execute("CREATE TABLE copies (id int, e text)")
        d.execute("CREATE OR REPLACE FUNCTION first_email() RETURNS text LANGUAGE sql AS 'SELECT email FROM people LIMIT 1'")
        for table in ("people", "copies"):
            d.execute(f"ALTER TABLE {table} OWNER TO gateway")
        with gateway("copies", PEOPLE) as g, g.connect() as c:
            for statement in ("ALTER TABLE copies ALTER COLUMN e SET DEFAULT first_email()",
                              "ALTER TABLE copies ADD COLUMN f text DEFAULT first_email()",
                              "CREATE TABLE more (id int, e text DEFAULT first_email())",
                              "ALTER TABLE people ADD COLUMN g text GENERATED ALWAYS AS (lower(email)) STORED",
                              "ALTER TABLE copies ADD FOREIGN KEY (e) REFERENCES people (email) ON UPDATE CASCADE",
                              "CREATE TABLE more (e text REFERENCES people (email) ON UPDATE CASCADE)",
                              "ALTER TABLE people ADD CHECK (set_config('a.b', email, false) IS NOT NULL)"):
                same(on_record(g, fails(lambda: c.execute(statement), "42501"))["verdict"], "deny")
            c.execute("INSERT INTO copies (id) VALUES (1)")
            same(c.execute("INSERT INTO copies DEFAULT VALUES RETURNING *").fetchone(), (None, None))
            same(c.execute("SELECT current_setting('a.b', true)").fetchone(), (None,))
            # What carries nothing hidden is made.
            c.execute("ALTER TABLE copies ALTER COLUMN id SET DEFAULT 7, ADD CHECK (e <> ''), ADD UNIQUE (id)")
            c.execute("CREATE TABLE more (id int REFERENCES copies (id) ON UPDATE CASCADE, at timestamptz DEFAULT now())")
        d.execute("DROP TABLE more, copies, people")
        d.execute("DROP FUNCTION first_email")


@behaviour
def what_is_refused_unread_is_on_record():
    """Too long, or not readable as the server would read it: a denial with the statement's beginning."""
    with gateway("unread", '\n[limits]\nstatement_max = "4KiB"\n') as g:
        long = "SELECT 'over the limit" + "x" * 100_000 + "'"
        with g.connect(g.token("root", "admin"), user="root") as c:
            for parameters in (None, ()):
                entry = on_record(g, fails(lambda: c.execute(long, parameters), "54000"))
                same((entry["verdict"], entry["statement"]), ("deny", long[:len(entry["statement"])]))
                digest = hashlib.sha256(long.encode()).hexdigest()
                assert len(entry["statement"]) >= 100, entry
                assert "longer than the gateway's limit" in entry["reason"] and f"of {len(long)} bytes" in entry["reason"], entry
                assert digest in entry["reason"], entry
            same(c.execute("SELECT 1").fetchone(), (1,))
            c.execute("SET standard_conforming_strings = off")
            for statement in ("SELECT 'x\\', ' ; DELETE FROM customers; --'", "SET standard_conforming_strings = on"):
                entry = on_record(g, fails(lambda: c.execute(statement)))
                same((entry["verdict"], entry["statement"]), ("deny", statement))
                assert "standard_conforming_strings is off" in entry["reason"], entry
        # Who may connect may not replicate by that: neither by the login nor by a command.
        fails(lambda: g.connect(replication="database"), "permission denied")
        failed = until("it is on record", lambda: g.cli("audit", "tail", "--kind", "login_failed", "-n", "9", "--json").splitlines())
        same([json.loads(line)["reason"] for line in failed], ["policy: replicate on connection shop"])
        with g.connect() as c:
            statement = "START_REPLICATION SLOT s LOGICAL 0/0"
            entry = on_record(g, fails(lambda: c.execute(statement), "42501"))
            same((entry["verdict"], entry["statement"]), ("deny", statement))


@behaviour
def machine_key_is_revoked():
    with gateway("revoked") as g:
        made = json.loads(g.cli("keys", "create", "--subject", "robot", "--role", "app", "--json"))
        secret = next(value for value in made.values() if isinstance(value, str) and value.startswith("sp_"))
        login = made.get("user") or made.get("login") or "robot"
        c = g.connect(secret, user=login)
        same(c.execute("SELECT 1").fetchone(), (1,))
        g.cli("keys", "revoke", made["id"])
        until("its session ends", lambda: isinstance(attempt(lambda: c.execute("SELECT 1")), Exception), 5)
        fails(lambda: g.connect(secret, user=login))


@behaviour
def certificate_is_rotated():
    with gateway("rotated") as g:
        old = g.connect()

        def serial():
            context = ssl.create_default_context(cafile=g.known["GW_CA"])
            context.set_alpn_protocols(["postgresql"])
            with socket.create_connection(("127.0.0.1", int(g.known["GW_PORT"]))) as plain:
                with context.wrap_socket(plain, server_hostname="localhost") as inside:
                    return inside.getpeercert()["serialNumber"]

        before = serial()
        call("bash", "-c", f'. "{ROOT}/scripts/lib.sh"; make_leaf "{g.dir}/tls"')
        os.kill(g.pid, signal.SIGHUP)
        until("the new certificate is shown", lambda: serial() != before, 15)
        same(old.execute("SELECT 1").fetchone(), (1,))
        g.alive()


@behaviour
def bad_policy_keeps_the_last_good_set():
    with gateway("reload") as g:
        c = g.connect()
        policies = g.dir / "policies/tests.cedar"
        good = policies.read_text()
        policies.write_text("permit (principal, action,")
        os.kill(g.pid, signal.SIGHUP)
        time.sleep(2)
        same(c.execute("SELECT count(*) > 0 FROM products").fetchone(), (True,))
        fails(lambda: c.execute("SELECT * FROM secrets"), "42501")
        policies.write_text(good + '\n@id("no-products") forbid (principal, action == Action::"select", resource == Table::"shop/shop/public.products");\n')
        os.kill(g.pid, signal.SIGHUP)
        until("the live session meets the new set", lambda: isinstance(attempt(lambda: c.execute("SELECT count(*) FROM products")), psycopg.Error))
        g.alive()


@behaviour
def changed_listeners_take_effect_at_the_next_start_and_that_is_said():
    with gateway("listeners") as g:
        file, log = g.dir / "sallyport.toml", g.dir / "log/gateway.log"
        assert "next start" not in g.cli("check")
        port = call("bash", "-c", f'. "{ROOT}/scripts/lib.sh"; free_port').strip()
        old = g.known["GW_PORT"]
        file.write_text(file.read_text().replace(f"127.0.0.1:{old}", f"127.0.0.1:{port}"))
        until("the log says so", lambda: "these settings take effect at the next start" in log.read_text(), 10)
        assert "[[listener]]" in log.read_text()
        g.alive()
        assert "a change of [[listener]] takes effect at its next start" in g.cli("check")
        same(g.metrics()["sallyport_waiting_for_restart"], "1")
        g.stop()
        g.known["GW_PORT"] = port
        (g.dir / "env").write_text((g.dir / "env").read_text().replace(f"GW_PORT={old}", f"GW_PORT={port}"))
        g.start()
        g.alive()
        assert "next start" not in g.cli("check")
        same(g.metrics()["sallyport_waiting_for_restart"], "0")


@behaviour
def killed_under_load_loses_no_statement():
    with direct() as d:
        d.execute("CREATE TABLE IF NOT EXISTS seen (token text NOT NULL)")
        d.execute("ALTER TABLE seen OWNER TO gateway")
    g = Gateway("killed")
    stop, sent = threading.Event(), []

    def load(worker, token):
        number = 0
        while not stop.is_set():
            try:
                with g.connect(token) as c:
                    while not stop.is_set():
                        number += 1
                        name = f"t-{worker}-{number}-{random.getrandbits(40):x}"
                        sent.append(name)
                        if number % 2:
                            c.execute("INSERT INTO seen VALUES (%s)", (name,))
                        else:
                            c.execute(f"INSERT INTO seen VALUES ('{name}')")
            except psycopg.Error:
                time.sleep(0.05)

    g.start()
    token = g.token()
    threads = [threading.Thread(target=load, args=(worker, token)) for worker in range(4)]
    for thread in threads:
        thread.start()
    rounds = int(os.environ.get("KILLS", "12"))
    for _ in range(rounds):
        time.sleep(random.uniform(0.3, 1.2))
        g.crash()
        g.start()
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join(30)
    g.stop()
    with direct() as d:
        seen = {row[0] for row in d.execute("SELECT token FROM seen")}
    recorded = set(re.findall(r"t-\d+-\d+-[0-9a-f]+", "\n".join(g.entries())))
    missing = sorted(seen - recorded)
    assert len(seen) > rounds * 10, f"only {len(seen)} statements ran"
    assert not missing, f"{len(missing)} of {len(seen)} statements that ran are not in the log, such as {missing[:3]}"
    g.cli("audit", "verify")


@behaviour
def disk_is_full():
    if os.getuid() != 0:
        raise Skip("needs root, for a small file system")
    data = SCRATCH / "small"
    data.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=700", "tmpfs", data], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip("no tmpfs can be mounted here")
    filler = data / "filler"
    try:
        g = Gateway("full", "\n[audit]\nmin_free = \"48 MiB\"\n")
        file = g.dir / "sallyport.toml"
        file.write_text(file.read_text().replace('data_dir = "data"', f'data_dir = "{data}"', 1))
        g.start()
        try:
            c = g.connect()
            same(c.execute("SELECT 1").fetchone(), (1,))
            with open(filler, "wb") as out:
                try:
                    for _ in range(300):
                        out.write(bytes(1 << 20))
                        out.flush()
                except OSError:
                    pass
            error = until("statements are refused", lambda: refused(c), 20)
            assert "53" in (error.sqlstate or "")[:2] or "audit" in str(error) or "record" in str(error), f"{error.sqlstate} {error}"
            # What says so must not fill the disk as well.
            log = g.dir / "log/gateway.log"
            before = log.read_text().count("\n")
            same([refused(c) for _ in range(300)].count(None), 0)
            said = log.read_text().count("\n") - before
            assert said < 30, f"{said} lines about 300 refused statements"
            filler.unlink()
            until("statements run again", lambda: not isinstance(attempt(g.alive), Exception), 20)
        finally:
            g.stop()
        g.cli("audit", "verify")
    finally:
        subprocess.run(["umount", "-l", data], check=False)


def refused(c):
    try:
        c.execute("SELECT 1")
    except psycopg.Error as error:
        return error
    return None


@behaviour
def damaged_log_is_opened_again_when_the_operator_says_so():
    # Nothing is signed meanwhile: a log that lost what was signed is another matter (tests/audit).
    with gateway("damaged", "\n[audit]\ncheckpoint = \"1h\"\n") as g:
        with g.connect() as c:
            for number in range(1500):
                c.execute(f"SELECT {number}")
        g.crash()
        # A bit in the middle of what was on the disk: the half of the journal that is in use begins with a record.
        journal = max((g.dir / "data/audit").glob("journal-*"), key=lambda file: len(file.read_bytes().rstrip(b"\0")))
        content = bytearray(journal.read_bytes())
        content[len(content.rstrip(b"\0")) // 2] ^= 1
        journal.write_bytes(content)
        refused = subprocess.run([os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", "serve"], capture_output=True, text=True, timeout=60)
        assert refused.returncode == 1 and "sallyport audit repair" in refused.stderr, refused

        def look():
            looked = subprocess.run([os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", "audit", "repair", "--json"],
                                    capture_output=True, text=True)
            same((looked.returncode, looked.stderr), (1, ""))
            found = json.loads(looked.stdout)
            assert found["kept"] > 100 and found["set_aside"] is None, found
            # To look changes nothing, and is a finding.
            same(journal.read_bytes(), bytes(content))
            return found

        found = look()
        assert found["dropped"] > 100, found
        same(look(), found)
        done = json.loads(g.cli("audit", "repair", "--drop-damaged-tail", "--json"))
        same((done["kept"], done["dropped"]), (found["kept"], found["dropped"]))
        same((Path(done["set_aside"]) / journal.name).read_bytes(), bytes(content))
        assert "not damaged" in g.cli("audit", "repair")
        g.start()
        g.alive()
        running = subprocess.run([os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", "audit", "repair"], capture_output=True, text=True)
        assert running.returncode == 2 and "stop it first" in running.stderr, running
        same(actions(g), ["log repaired: the audit log"])
        entry = next(entry for entry in map(json.loads, g.entries()) if entry["event"] == "administration")
        same(entry["index"], found["kept"])
        assert entry["details"]["dropped"].startswith(f"{found['dropped']} entries"), entry
        g.cli("audit", "verify")


@behaviour
def verification_shows_how_far_it_is_on_a_terminal_alone():
    def verify(*more):
        """With a terminal for standard error: what was written there."""
        outer, inner = os.openpty()
        try:
            call(os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", "audit", "verify", *more, stderr=inner)
            os.set_blocking(outer, False)
            return attempt_read(outer)
        finally:
            os.close(inner)
            os.close(outer)

    with gateway("verifies") as g:
        g.alive()
        for running in (True, False):
            if not running:
                g.stop()
            assert "100 %" in verify(), "no progress on a terminal"
            same(verify("--json"), "")
            piped = subprocess.run([os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", "audit", "verify"], capture_output=True, text=True)
            same((piped.returncode, piped.stderr), (0, ""))


def attempt_read(descriptor):
    try:
        return os.read(descriptor, 1 << 16).decode()
    except BlockingIOError:
        return ""


def documented(file):
    """The first column of a reference's tables, by the heading above."""
    found, heading = {}, ""
    for line in (ROOT / "docs/reference" / file).read_text().splitlines():
        if line.startswith("#"):
            heading = line.strip("#` ")
        elif line.startswith("| `"):
            found.setdefault(heading, set()).add(line.split("`")[1])
    return found


@behaviour
def spans_arrive_as_documented_and_carry_no_literal():
    secret = "literal-4711"
    with Collector() as collector:
        with gateway("traces", f'\n[telemetry]\notlp = "{collector.url}"\n') as g:
            token = g.token()
            with g.connect(token) as c:
                same(c.execute(f"SELECT '{secret}' /* {secret} */").fetchone(), (secret,))
                c.execute("SELECT email FROM customers WHERE name <> %s", (secret,))
                fails(lambda: c.execute(f"SELECT * FROM secrets WHERE '{secret}' = '{secret}'"), "42501")
                fails(lambda: c.execute(f"SELECT ('{secret}' || 1)::int"), "22P02")
            session = json.loads(g.cli("sessions", "list", "--json"))[0]["id"]
        found = [span for span in collector.spans if span["attributes"]["sallyport.session.id"] == session]
    known = documented("traces.md")
    for span in found:
        assert span["name"] in known and set(span["attributes"]) <= known[span["name"]], span
        same(span["service"], "sallyport")
        assert span["start"] <= span["end"] and abs(span["end"] / 1e9 - time.time()) < 60, span
    whole = [span for span in found if span["name"] == "sallyport.session"]
    same([(span["parent"], span["attributes"]["sallyport.principal"], span["attributes"]["sallyport.requests"]) for span in whole],
         [("", "dev/fault", 4)])
    statements = sorted((span for span in found if span["name"] == "sallyport.statement"), key=lambda span: span["attributes"]["sallyport.request"])
    assert all(span["parent"] == whole[0]["id"] and span["trace"] == whole[0]["trace"] for span in statements), statements
    verdicts = [(span["attributes"]["sallyport.verdict"], span["attributes"].get("sallyport.outcome"), span["error"]) for span in statements
                if span["attributes"]["sallyport.request.kind"] != "prepare"]
    same(verdicts, [("allow", "completed", False), ("allow", "completed", False), ("deny", None, True), ("allow", "failed", True)])
    assert any(span["attributes"].get("sallyport.columns.masked") == 1 for span in statements), statements
    assert any(span["attributes"].get("sallyport.policies") == ["no-secrets"] for span in statements), statements
    assert any(span["attributes"].get("db.response.status_code") == "22P02" for span in statements), statements
    pg = read_env(PG / "env")
    for private in (secret, token, pg["PG_PASSWORD"], pg["PG_SUPERPASSWORD"], "customers", "FROM"):
        assert private.encode() not in collector.bytes, f"{private} is in a trace"
    nothing_clear(collector.bytes)


@behaviour
def span_of_a_held_statement_says_what_came_of_it():
    with Collector() as collector:
        with gateway("traced-hold", f'\n[telemetry]\notlp = "{collector.url}"\n') as g:
            with direct() as d:
                product = d.execute("INSERT INTO products (sku, name, price) VALUES ('trace', 'trace', 1) RETURNING id").fetchone()[0]
            c = g.connect()
            delete = lambda: c.execute("DELETE FROM products WHERE id = %s", (product,))
            threading.Timer(1, c.cancel).start()
            fails(delete, "57014", "42501")
            thread, result = in_background(delete)
            one = until("it waits", lambda: waiting(g))[0]
            time.sleep(0.5)
            g.cli("approvals", "approve", one["id"])
            thread.join(10)
            same(result["outcome"].statusmessage, "DELETE 1")
            c.close()
    held = [span for span in collector.spans if span["attributes"].get("sallyport.verdict") == "hold"
            and span["attributes"]["sallyport.request.kind"] != "prepare"]
    said = [(span["attributes"].get("sallyport.approval"), span["attributes"].get("sallyport.outcome"), span["error"])
            for span in sorted(held, key=lambda span: span["start"])]
    same(said, [("withdrawn", None, True), ("approved", "completed", False)])
    assert all(span["end"] - span["start"] >= 0.5e9 for span in held), held


@behaviour
def a_collector_that_is_away_holds_nothing_up():
    with gateway("no-collector", '\n[telemetry]\notlp = "http://127.0.0.1:9"\n') as g:
        started = time.monotonic()
        for _ in range(50):
            g.alive()
        g.stop()
        assert time.monotonic() - started < 20


@behaviour
def a_collector_that_never_answers_holds_nothing_up():
    with socket.socket() as collector:
        collector.bind(("127.0.0.1", 0))
        collector.listen()
        url = f"http://127.0.0.1:{collector.getsockname()[1]}"
        with gateway("hanging-collector", f'\n[telemetry]\notlp = "{url}"\n') as g:
            # More statements than the queue of spans holds.
            with g.connect() as c:
                started = time.monotonic()
                for number in range(5000):
                    c.execute("SELECT 1")
                    took = time.monotonic() - started
                    assert took < 20, f"{number} statements took {took:.1f} s"
            started = time.monotonic()
            g.stop()
            took = time.monotonic() - started
            assert took < 12, f"the end took {took:.1f} s"


@behaviour
def metrics_are_those_that_are_documented():
    elsewhere = '[[stream]]\nname = "siem"\nto = "http://127.0.0.1:9/"\n[[shipping]]\nname = "shelf"\nurl = "folder:shelf"\n'
    hook = SCRATCH / "metrics.hook"
    hook.write_text("https://teams.example/hook")
    hook.chmod(0o600)
    elsewhere += f'[[notify]]\nname = "chat"\nkind = "teams"\nurl = "file:{hook}"\n'
    with gateway("metrics", elsewhere) as g:
        with g.connect() as c:
            c.execute("SELECT email FROM customers LIMIT 1")
            fails(lambda: c.execute("SELECT * FROM secrets"), "42501")
        fails(lambda: g.connect("wrong"))
        text = g.scrape()
        shown = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
        known = {}
        for line in (ROOT / "docs/reference/metrics.md").read_text().splitlines():
            if line.startswith("| `"):
                name, kind, labels = [cell.strip() for cell in line.split("|")[1:4]]
                known[name.strip("`")] = (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind in shown.items():
            same(kind, known[name][0])
        for line in text.splitlines():
            if not line.startswith("#"):
                name, labels = re.match(r"(\w+)(?:\{(.*)\})?", line).groups()
                base = name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
                same(set(re.findall(r"(\w+)=", labels or "")) - {"le"}, known[base][1])
        # Everything but what this conversation had no occasion for.
        rare = {"sallyport_approvals_total", "sallyport_reloads_total", "sallyport_audit_failures_total", "sallyport_audit_cosigned"}
        assert known.keys() - shown.keys() <= rare, known.keys() - shown.keys()


@behaviour
def clock_jumps():
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if library is None:
        raise Skip("libfaketime is not installed")
    clock = SCRATCH / "clock.offset"
    clock.write_text("+0\n")
    wrapper = SCRATCH / "faketime"
    wrapper.write_text(f"""#!/bin/sh
LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={clock} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 exec "$@"
""")
    wrapper.chmod(0o755)
    with gateway("clock", GATEWAY_WRAPPER=str(wrapper)) as g:
        c = g.connect()
        same(c.execute("SELECT 1").fetchone(), (1,))
        # Backwards: whoever is logged in stays; the log goes on, in order.
        clock.write_text("-30\n")
        same(c.execute("SELECT 2").fetchone(), (2,))
        # Forwards, past the token's end: the session ends, an old token is refused.
        clock.write_text("+2h\n")
        until("the session ends", lambda: isinstance(attempt(lambda: c.execute("SELECT 3")), psycopg.Error), 90)
        fails(g.alive, "expired", "28")
        clock.write_text("+0\n")
        until("sessions work again", lambda: not isinstance(attempt(g.alive), Exception), 20)
        g.cli("audit", "verify")


@behaviour
def a_value_of_a_gigabyte_streams():
    with gateway("big") as g:
        g.alive()
        before = g.rss()
        peak = [0]
        stop = threading.Event()

        def watch():
            while not stop.is_set():
                peak[0] = max(peak[0], g.rss())
                time.sleep(0.02)

        thread = threading.Thread(target=watch)
        thread.start()
        env = {**os.environ, "PGPASSWORD": g.token()}
        out = call(os.environ["LOADGEN"], "rows", "--port", g.known["GW_PORT"], "--user", "fault", "--ca", g.known["GW_CA"],
                   "--sql", "SELECT repeat('x', 1000000000)", env=env)
        assert json.loads(out)["bytes"] > 1_000_000_000, out
        stop.set()
        thread.join()
        assert peak[0] - before < 64, f"resident memory grew by {peak[0] - before} MiB"


@behaviour
def a_slow_client_holds_back_itself_alone():
    with gateway("slow") as g:
        g.alive()
        before = g.rss()
        slow = [g.connect() for _ in range(8)]
        for c in slow:
            c.pgconn.send_query(b"SELECT n, repeat('x', 1000) FROM generate_series(1, 5000000) n")
        time.sleep(3)
        assert g.rss() - before < 64, f"resident memory grew by {g.rss() - before} MiB"
        started = time.monotonic()
        for _ in range(20):
            g.alive()
        assert time.monotonic() - started < 15
        for c in slow:
            c.pgconn.finish()


@behaviour
def five_thousand_idle_sessions():
    sessions = int(os.environ.get("IDLE_SESSIONS", "5000"))
    port = int(call("bash", "-c", f'. "{ROOT}/scripts/lib.sh"; free_port').strip())
    tls = PG / "tls"
    upstream = subprocess.Popen(
        [os.environ["LOADGEN"], "upstream", "--port", str(port), "--certificate", tls / "server.pem", "--key", tls / "server.key",
         "--real", read_env(PG / "env")["PG_PORT"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    upstream.stdout.readline()
    try:
        with gateway("idle", "\n[limits]\nconnections_per_principal_max = 20000\nconnections_max = 20000\n",
                     UPSTREAM_PORT=str(port)) as g:
            env = {**os.environ, "PGPASSWORD": g.token()}
            before = g.rss()
            idle = subprocess.Popen(
                [os.environ["LOADGEN"], "idle", "--port", g.known["GW_PORT"], "--user", "fault", "--ca", g.known["GW_CA"],
                 "--sessions", str(sessions)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            same(json.loads(idle.stdout.readline() or "{}").get("sessions"), sessions)
            each = (g.rss() - before) * 1024 / sessions
            assert each < 192, f"{each:.0f} KiB for each session"
            idle.stdin.close()
            same(idle.wait(60), 0)
            until("all are gone", lambda: json.loads(g.cli("sessions", "list", "--open", "--json")) == [], 60)
    finally:
        upstream.stdin.close()
        upstream.wait(30)


@behaviour
def graceful_stop_lets_a_statement_finish():
    g = Gateway("graceful")
    g.start()
    try:
        c = g.connect()
        result = {}
        thread = threading.Thread(target=lambda: result.update(row=attempt(lambda: c.execute("SELECT pg_sleep(3), 7").fetchone())))
        thread.start()
        time.sleep(1)
        os.kill(g.pid, signal.SIGTERM)
        time.sleep(0.5)
        fails(g.connect)
        thread.join(20)
        assert isinstance(result.get("row"), tuple), result
    finally:
        g.stop()


@behaviour
def killed_while_it_drains_loses_no_statement():
    """A stop that somebody loses patience with: what ran in the meantime is in the log, and the next start goes on from it."""
    g = Gateway("drain-killed")
    g.start()
    busy, pid = g.connect(autocommit=False), g.pid
    same(busy.execute("SELECT 'before the stop'").fetchone(), ("before the stop",))
    os.kill(pid, signal.SIGTERM)
    until("the gateway drains", lambda: isinstance(attempt(lambda: g.connect().close()), Exception))
    same(busy.execute("SELECT 'while it drains'").fetchone(), ("while it drains",))
    os.kill(pid, signal.SIGKILL)
    assert isinstance(attempt(lambda: busy.execute("SELECT 'after the kill'").fetchone()), Exception)
    g.crash()
    g.start()
    try:
        g.alive()
        entries = "\n".join(g.entries())
        assert "before the stop" in entries and "while it drains" in entries
        assert "after the kill" not in entries
        g.cli("audit", "verify")
    finally:
        g.stop()


@behaviour
def graceful_stop_ends_idle_sessions_at_once():
    """An idle pool must not keep the gateway for the whole drain time-out; an open transaction may end."""
    g = Gateway("graceful-idle")
    g.start()
    try:
        idle, busy, pid = g.connect(), g.connect(autocommit=False), g.pid
        same(busy.execute("SELECT 1").fetchone(), (1,))
        os.kill(g.pid, signal.SIGTERM)
        time.sleep(1)
        error = attempt(lambda: idle.execute("SELECT 1"))
        same(getattr(error, "sqlstate", None), "57P01")
        same(busy.execute("SELECT 2").fetchone(), (2,))
        busy.commit()
        until("the gateway has stopped", lambda: not os.path.exists(f"/proc/{pid}"), 10)
    finally:
        g.stop()


call(ROOT / "scripts/pg", "start", PG, "max_connections=300")
try:
    run(lambda function: function())
finally:
    call(ROOT / "scripts/pg", "stop", PG, check=False)
