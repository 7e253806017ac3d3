"""Held statements and the people who decide: who may, how many, how long, and what the log says of it.

Needs ROOT (the repository), SCRATCH (an empty folder) and SALLYPORT (the program). Arguments: names of behaviours, none: all.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import os
import shutil
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
sys.path.insert(0, str(ROOT / "tests/clients/lib"))

import psycopg
from scratch import PG, SCRATCH, call, direct, gateway, until
from suite import behaviour, run, same


@contextlib.contextmanager
def approving(name, extra=""):
    """A gateway with policies of both folders."""
    folder = SCRATCH / f"{name}-policies"
    shutil.copytree(ROOT / "tests/policies", folder)
    shutil.copy(ROOT / "tests/approvals/policies.cedar", folder / "approvals.cedar")
    with gateway(name, extra, POLICIES=str(folder)) as g:
        yield g


def ask(g, token, method, path, body=None):
    """Asks the API as whoever has that token: the status, and the answer."""
    url = f"https://localhost:{g.known['GW_ADMIN_PORT']}/api/v1/{path}"
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {token}"})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=g.known["GW_CA"])) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class Reviewer:
    """Somebody with a token for the API."""

    def __init__(self, g, name, *groups, more=()):
        self.g = g
        roles = [part for group in groups for part in ("--role", group)]
        self.token = g.token(name, "reviewer", *roles, "--kind", "human", *more)

    def waiting(self):
        return ask(self.g, self.token, "GET", "approvals")[1]["approvals"]

    def approve(self, one, reason=None, width=None):
        return ask(self.g, self.token, "POST", f"approvals/{one['id']}/approve", {"reason": reason, "width": width})

    def deny(self, one, reason=None):
        return ask(self.g, self.token, "POST", f"approvals/{one['id']}/deny", {"reason": reason})


class Held:
    """A statement that waits, on a connection of its own."""

    def __init__(self, g, reviewer, statement, parameters=None, token=None, user="fault"):
        self.start(g.connect(token=token, user=user), reviewer, statement, parameters)

    def start(self, c, reviewer, statement, parameters):
        self.c, self.status, self.error = c, None, None
        known = {one["id"] for one in reviewer.waiting()}

        def work():
            try:
                self.status = c.execute(statement, parameters).statusmessage
            except psycopg.Error as error:
                self.error = error

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        self.request = until("it waits", lambda: [one for one in reviewer.waiting() if one["id"] not in known])[0]

    def ended(self):
        self.thread.join(15)
        assert not self.thread.is_alive(), "it still waits"
        return self.status, self.error and self.error.sqlstate


def customer():
    with direct() as d:
        return d.execute("INSERT INTO customers (name, email) VALUES ('held', gen_random_uuid() || '@example.com') RETURNING id").fetchone()[0]


def count(number):
    with direct() as d:
        return d.execute("SELECT count(*) FROM customers WHERE id = %s", (number,)).fetchone()[0]


def steps(g, request):
    """What the log says of a request that has ended: each step, by whom, with its digest."""
    return until("its end is in the log", lambda: (found := so_far(g, request)) and len(found[0]) > 1 and found)


def so_far(g, request):
    lines = g.cli("audit", "tail", "--session", request["session"], "--json", "-n", "1000").splitlines()
    found = [entry for entry in map(json.loads, lines) if entry["event"] == "approval" and entry["request"] == request["request"]]
    return [(entry["step"], entry.get("by")) for entry in found], {entry["digest"] for entry in found}


@behaviour
def two_people_of_a_group_and_never_one_twice():
    with approving("quorum") as g:
        ann, bob = Reviewer(g, "ann", "keeper"), Reviewer(g, "bob", "keeper")
        number = customer()
        held = Held(g, ann, "DELETE FROM customers WHERE id = %s", (number,))
        same([(group["name"], group["quorum"], group["approvals"]) for group in held.request["groups"]], [("keeper", 2, 0)])
        same(ann.approve(held.request, "ticket 7")[1], {"id": held.request["id"], "approved": False, "missing": ["keeper"]})
        assert "keeper (1 of 2; lead as well from " in g.cli("approvals", "show", held.request["id"])
        status, said = ann.approve(held.request)
        same(status, 409)
        assert "approved it already" in said["error"], said
        same(count(number), 1)
        same(bob.approve(held.request)[1]["approved"], True)
        same(held.ended(), ("DELETE 1", None))
        same(steps(g, held.request), ([("requested", None), ("approved", "dev/ann, dev/bob")], {held.request["digest"]}))


@behaviour
def of_two_groups_each_and_one_word_denies():
    with approving("groups") as g:
        ann, cleo, stranger = Reviewer(g, "ann", "keeper"), Reviewer(g, "cleo", "controller"), Reviewer(g, "sue", "sales")
        number = customer()
        held = Held(g, ann, "UPDATE customers SET name = 'x' WHERE id = %s", (number,))
        same(stranger.approve(held.request)[0], 403)
        same(stranger.deny(held.request)[0], 403)
        same(ann.approve(held.request)[1]["missing"], ["controller"])
        same(cleo.deny(held.request, "not today")[0], 200)
        same(held.ended(), (None, "42501"))
        assert "denied by dev/cleo: not today" in str(held.error), held.error
        # The session goes on.
        same(held.c.execute("SELECT name FROM customers WHERE id = %s", (number,)).fetchone(), ("held",))
        same(ann.approve(held.request)[0], 409)


@behaviour
def a_lead_speaks_for_the_group_after_a_while():
    with approving("escalates") as g:
        ann, lee = Reviewer(g, "ann", "keeper"), Reviewer(g, "lee", "lead")
        number = customer()
        held = Held(g, ann, "DELETE FROM customers WHERE id = %s", (number,))
        ann.approve(held.request)
        same(lee.approve(held.request)[0], 403)
        same(until("it has escalated", lambda: lee.approve(held.request)[0] == 200), True)
        same(held.ended(), ("DELETE 1", None))
        same(steps(g, held.request)[0][-1], ("approved", "dev/ann, dev/lee"))


@behaviour
def a_policy_lets_it_wait_for_less_than_the_gateway():
    with approving("expires") as g:
        ann = Reviewer(g, "ann", "keeper")
        started = time.monotonic()
        held = Held(g, ann, "UPDATE orders SET id = id WHERE id = 1")
        same(held.ended(), (None, "42501"))
        assert 1.5 < time.monotonic() - started < 8
        assert "nobody approved it in time" in str(held.error), held.error
        same(steps(g, held.request)[0], [("requested", None), ("expired", None)])
        same(held.c.execute("SELECT 1").fetchone(), (1,))


@behaviour
def nobody_decides_on_what_they_ask_own_or_sponsor():
    with approving("own") as g:
        ann, bob, eve = (Reviewer(g, name, "keeper", "controller") for name in ("ann", "bob", "eve"))
        number = customer()
        # The machine's token names who answers for it.
        token = g.token("agent", "app", "--claim", "sponsor=ann", "--claim", "owners=bob, carl")
        held = Held(g, eve, "UPDATE customers SET name = 'x' WHERE id = %s", (number,), token=token, user="agent")
        for reviewer, claim in ((ann, "sponsor"), (bob, "owners")):
            for status, said in (reviewer.approve(held.request), reviewer.deny(held.request)):
                same(status, 403)
                assert f"the claim {claim} of dev/agent names" in said["error"], said
        same(eve.approve(held.request)[1]["approved"], True)
        same(held.ended(), ("UPDATE 1", None))
        # A person who asks, by a token that could approve as well.
        token = g.token("eve", "app", "--role", "keeper", "--role", "controller", "--kind", "human")
        held = Held(g, eve, "UPDATE customers SET name = 'y' WHERE id = %s", (number,), token=token, user="eve")
        same(eve.approve(held.request)[0], 403)
        same(ann.approve(held.request)[1]["approved"], True)
        same(held.ended(), ("UPDATE 1", None))
        # Whoever made a machine's key.
        made = json.loads(g.cli("keys", "create", "--subject", "robot", "--role", "app", "--json"))
        held = Held(g, ann, "UPDATE customers SET name = 'z' WHERE id = %s", (number,), token=made["secret"], user=made["login"])
        refused = call(os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", "approvals", "approve", held.request["id"],
                       check=False)
        same(refused, "")
        same(ann.approve(held.request)[1]["approved"], True)
        same(held.ended(), ("UPDATE 1", None))


@behaviour
def who_was_locked_out_before_the_decision_does_not_count():
    with approving("counted") as g:
        ann, bob, eve = (Reviewer(g, name, "keeper") for name in ("ann", "bob", "eve"))
        number = customer()
        held = Held(g, eve, "DELETE FROM customers WHERE id = %s", (number,))
        same(ann.approve(held.request)[0], 200)
        g.cli("revocations", "create", "--principal", "dev/ann", "--reason", "left")
        same(bob.approve(held.request)[1], {"id": held.request["id"], "approved": False, "missing": ["keeper"]})
        same(count(number), 1)
        same(eve.approve(held.request)[1]["approved"], True)
        same(held.ended(), ("DELETE 1", None))
        same(steps(g, held.request)[0][-1], ("approved", "dev/bob, dev/eve"))


PRICE = "UPDATE products SET price = price WHERE id = %s"


@behaviour
def an_approval_for_the_session_is_for_that_shape_in_that_session():
    with approving("session") as g:
        ann = Reviewer(g, "ann", "keeper")
        same(ann.approve({"id": "000000"})[0], 404)
        held = Held(g, ann, PRICE, (1,))
        same(held.request["widths"], ["once", "session", "1h"])
        same(ann.approve(held.request, "sale", "session")[0], 200)
        same(held.ended(), ("UPDATE 1", None))
        # The same with other values, prepared or not, waits for nobody.
        same(held.c.execute(PRICE, (2,)).statusmessage, "UPDATE 1")
        same(held.c.execute(PRICE, (3,), prepare=True).statusmessage, "UPDATE 1")
        found = steps(g, {**held.request, "request": last_request(g, held.request["session"])})[0]
        same(found, [("requested", None), ("approved", "dev/ann")])
        assert f"under approval {held.request['id']} (session): sale" in g.cli(
            "audit", "tail", "--session", held.request["session"], "--json", "-n", "1000")
        # Another shape waits, and so does another session.
        c = held.c
        wider = again(g, ann, c, "UPDATE products SET price = price WHERE id >= 1 AND id <= 2")
        same(ann.deny(wider.request)[0], 200)
        same(wider.ended(), (None, "42501"))
        other = Held(g, ann, PRICE, (4,))
        same(ann.deny(other.request)[0], 200)
        same(other.ended(), (None, "42501"))
        # It ends with its session.
        same([one["id"] for one in json.loads(g.cli("approvals", "standing", "--json"))], [held.request["id"]])
        c.close()
        until("it is over", lambda: json.loads(g.cli("approvals", "standing", "--json")) == [])


def last_request(g, session):
    lines = g.cli("audit", "tail", "--session", session, "--kind", "request", "--json", "-n", "1000").splitlines()
    return max(json.loads(line)["request"] for line in lines)


def again(g, reviewer, c, statement):
    """Another statement that waits, on a connection that is there."""
    one = Held.__new__(Held)
    one.start(c, reviewer, statement, None)
    return one


@behaviour
def an_approval_for_a_time_is_for_the_target_until_it_is_taken_back():
    with approving("window") as g:
        ann = Reviewer(g, "ann", "keeper")
        held = Held(g, ann, PRICE, (1,))
        status, said = ann.approve(held.request, None, "2h")
        same(status, 400)
        assert "the policies allow no approval for 2h: once, session, a time up to 1h" in said["error"], said
        same(ann.approve(held.request, None, "for ever")[0], 400)
        g.cli("approvals", "deny", held.request["id"])
        same(held.ended(), (None, "42501"))
        held = Held(g, ann, PRICE, (1,))
        same(ann.approve(held.request, None, "30m")[0], 200)
        same(held.ended(), ("UPDATE 1", None))
        with g.connect() as c:
            same(c.execute("UPDATE products SET price = price WHERE id < 3 AND id > 0").statusmessage, "UPDATE 2")
        # Another principal is asked about.
        other = Held(g, ann, PRICE, (2,), user="other")
        same(ann.deny(other.request)[0], 200)
        same(other.ended(), (None, "42501"))
        with g.connect() as c:
            same(c.execute(PRICE, (1,)).statusmessage, "UPDATE 1")
            assert held.request["id"] in g.cli("approvals", "standing")
            g.cli("approvals", "revoke", held.request["id"])
            late = again(g, ann, c, "UPDATE products SET price = price WHERE id = 1")
            same(ann.deny(late.request)[0], 200)
            same(late.ended(), (None, "42501"))
        actions = [entry["action"] for entry in map(json.loads, g.entries()) if entry["event"] == "administration"]
        same(actions.count("approval revoked"), 1)


@behaviour
def killed_in_any_step_nothing_runs_that_was_not_approved():
    """Before the word, within it, between the record and the target, after it: by the time between the two."""
    with approving("killed") as g:
        ann = Reviewer(g, "ann", "keeper")
        ran = []
        for number, delay in enumerate((None, 0, 0.002, 0.004, 0.006, 0.01, 0.015, 0.03, 0.1), 5000):
            held = Held(g, ann, f"UPDATE products SET price = {number} WHERE id = 7")
            word = threading.Thread(target=attempt, args=(ann, held))
            if delay is not None:
                word.start()
                time.sleep(delay)
            g.crash()
            held.ended()
            if delay is not None:
                word.join(15)
            with direct() as d:
                done = d.execute("SELECT price = %s FROM products WHERE id = 7", (number,)).fetchone()[0]
            g.start()
            found, digests = so_far(g, held.request)
            same(found[0], ("requested", None))
            assert len(found) <= 2, found
            if done:
                same((found[1:], digests), ([("approved", "dev/ann")], {held.request["digest"]}))
            same(ann.waiting(), [])
            ran.append(done)
        same(ran[0], False)
        same(ran[-1], True)
        g.cli("audit", "verify")


def attempt(reviewer, held):
    """Somebody's word, to a gateway that may not live to answer."""
    try:
        reviewer.approve(held.request)
    except (OSError, ValueError, http.client.HTTPException):
        pass


class Receiver:
    """Takes webhooks, and believes none that is not signed (Standard Webhooks)."""

    def __init__(self, secret):
        self.key = base64.b64decode(secret.removeprefix("whsec_"))
        self.got, self.status = [], 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                name, at = self.headers["webhook-id"], self.headers["webhook-timestamp"]
                mac = hmac.new(outer.key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
                signed = self.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
                fresh = abs(time.time() - int(at)) < 300
                if outer.status == 200:
                    outer.got.append(json.loads(body) if signed and fresh else "forged")
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=hunter2"

    def of(self, request):
        return [one["type"] for one in self.got if one["data"]["request"] == request["id"]]


def secret_file(name, text):
    file = SCRATCH / name
    file.write_text(text)
    file.chmod(0o600)
    return f"file:{file}"


SIGNED = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
SLACK = "8f742231b10e8888abcd99yyyzzz85a5"


def channel(name, receiver, more=""):
    return f"""
[[notify]]
name = "{name}"
kind = "webhook"
url = "{secret_file(name + '.url', receiver.url)}"
secrets = "{secret_file(name + '.secret', SIGNED)}"
loopback = true
{more}
"""


@behaviour
def programs_are_told_of_what_waits_and_of_what_was_decided():
    all_of_it, keepers = Receiver(SIGNED), Receiver(SIGNED)
    extra = channel("all", all_of_it) + channel("keepers", keepers, 'groups = ["nobody"]\nstatement = true')
    extra += channel("text", keepers, 'kinds = ["approval.requested"]\nstatement = true')
    with approving("told", extra) as g:
        ann, cleo = Reviewer(g, "ann", "keeper"), Reviewer(g, "cleo", "controller")
        number = customer()
        held = Held(g, ann, "UPDATE customers SET name = 'told' WHERE id = %s", (number,))
        ann.approve(held.request, "half")
        cleo.approve(held.request, "the other half")
        same(held.ended(), ("UPDATE 1", None))
        until("it was told", lambda: len(all_of_it.of(held.request)) == 2)
        same(all_of_it.of(held.request), ["approval.requested", "approval.approved"])
        asked, approved = all_of_it.got
        same(asked["data"]["groups"], [{"name": "controller", "missing": 1}, {"name": "keeper", "missing": 1}])
        same(asked["data"]["statement_digest"].split(":")[-1], held.request["digest"])
        same((approved["data"]["decided_by"], approved["data"]["reason"]), ("dev/ann, dev/cleo", "half, the other half"))
        # The text is where it was asked for, and nowhere else.
        assert "told" not in json.dumps(all_of_it.got), all_of_it.got
        until("the other was told", lambda: keepers.got)
        assert "SET name = 'told'" in keepers.got[0]["data"]["statement"], keepers.got
        same(len(keepers.got), 1)
        for decide, word in ((lambda one: ann.deny(one, "no"), "approval.denied"), (lambda _: None, "approval.withdrawn")):
            held = Held(g, ann, "UPDATE customers SET name = 'x' WHERE id = %s", (number,))
            decide(held.request)
            if word == "approval.withdrawn":
                held.c.cancel()
            held.ended()
            until(word, lambda: all_of_it.of(held.request)[-1:] == [word])
        assert g.metrics()['sallyport_notices_total{channel="all",outcome="sent"}'] == "6", g.scrape()
        log = (g.dir / "log/gateway.log").read_text()
        assert "hunter2" not in log and "whsec" not in log


@behaviour
def what_cannot_be_delivered_is_kept_and_sent_again():
    receiver = Receiver(SIGNED)
    receiver.status = 410
    with approving("dead", channel("all", receiver)) as g:
        ann = Reviewer(g, "ann", "keeper")
        held = Held(g, ann, PRICE, (1,))
        same(ann.deny(held.request)[0], 200)
        held.ended()
        letters = until("both are given up", lambda: (found := json.loads(g.cli("notices", "list", "--json"))) and len(found) == 2 and found)
        same([one["kind"] for one in letters], ["approval.requested", "approval.denied"])
        assert "hunter2" not in json.dumps(letters), letters
        receiver.status = 200
        assert "2 wait to be sent again" in g.cli("notices", "resend")
        until("they are here", lambda: receiver.of(held.request) == ["approval.requested", "approval.denied"])
        same(json.loads(g.cli("notices", "list", "--json")), [])
        actions = [entry["action"] for entry in map(json.loads, g.entries()) if entry["event"] == "administration"]
        assert "messages sent again" in actions, actions


@behaviour
def what_was_not_delivered_is_after_a_restart():
    receiver = Receiver(SIGNED)
    receiver.status = 503
    with approving("spooled", channel("all", receiver)) as g:
        ann = Reviewer(g, "ann", "keeper")
        held = Held(g, ann, PRICE, (1,))
        until("it was tried", lambda: g.metrics()['sallyport_notices_total{channel="all",outcome="retried"}'] != "0")
        g.crash()
        held.thread.join(15)
        receiver.status = 200
        g.start()
        until("it is here", lambda: receiver.of(held.request)[:1] == ["approval.requested"], 20)


def slack(g, body, at=None, secret=SLACK):
    at = str(int(at or time.time()))
    mac = hmac.new(secret.encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
    url = f"https://localhost:{g.known['GW_ADMIN_PORT']}/integrations/slack"
    headers = {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={mac}", "Content-Type": "application/x-www-form-urlencoded"}
    request = urllib.request.Request(url, data=body, method="POST", headers=headers)
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=g.known["GW_CA"])) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@behaviour
def a_button_in_slack_is_signed_and_decides_nothing():
    extra = f"""
[[notify]]
name = "chat"
kind = "slack"
url = "{secret_file('slack.url', 'https://127.0.0.1:1/services/hunter2')}"
signing_secret = "{secret_file('slack.secret', SLACK)}"
"""
    with approving("slack", extra) as g:
        ann = Reviewer(g, "ann", "keeper")
        held = Held(g, ann, PRICE, (1,))

        def pressed(action, request=held.request["id"]):
            payload = {"type": "block_actions", "user": {"id": "U1", "username": "ann"}, "team": {"id": "T1"},
                       "actions": [{"action_id": action, "value": request}], "response_url": "https://169.254.169.254/x"}
            return b"payload=" + urllib.parse.quote(json.dumps(payload)).encode()

        body = pressed("sallyport.approve")
        same(slack(g, body, secret="another"), 401)
        same(slack(g, body, at=time.time() - 400), 401)
        at = time.time()
        same(slack(g, body, at), 200)
        same(slack(g, body, at), 401)
        same(slack(g, b"payload=x"), 400)
        same(slack(g, pressed("sallyport.approve", "../../logout")), 200)
        same([one["id"] for one in ann.waiting()], [held.request["id"]])
        same(ann.deny(held.request)[0], 200)
        held.ended()


if __name__ == "__main__":
    call(ROOT / "scripts/pg", "start", PG)
    try:
        run(lambda function: function())
    finally:
        call(ROOT / "scripts/pg", "stop", PG)
