"""Payloads that are sealed, and secrets that are in Vault and Key Vault.

Needs ROOT (the repository), SCRATCH (an empty folder), SALLYPORT (the program), and TLOG_GO: the verifier of tests/tlog/go.
Vault and Key Vault are stand-ins (vaults.py), as strict as their documentation. Arguments: names of behaviours, none: all.
"""

import contextlib
import json
import os
import secrets
import shutil
import sys
import threading
import time
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
sys.path.insert(0, str(ROOT / "tests/clients/lib"))

import psycopg
from scratch import PG, SCRATCH, Gateway, call, direct, gateway, read_env, until
from suite import behaviour, run, same
from vaults import KeyVault, Tokens, Vault
from verifiers import go, node, sallyport

QUICK = "checkpoint = \"1s\"\n"
MARKER = "wombat-" + secrets.token_hex(6)


def key_file(name):
    file = SCRATCH / f"{name}.key"
    file.write_text(secrets.token_hex(32))
    file.chmod(0o600)
    return file


def long(number=0):
    """A statement that is kept beside its entry, and says the marker."""
    noise = " ".join(secrets.token_hex(3) for _ in range(300))
    return f"SELECT '{MARKER}-{number}', '{noise}'"


def work(g, count=30):
    with g.connect() as c:
        for number in range(count):
            c.execute(long(number))
            c.execute("SELECT %s", (f"{MARKER} as a parameter " * 80,))
            c.execute("SELECT 1")


def lies_open(folder, text=None):
    """Files that have the marker, in either case, or as UTF-16."""
    forms = [form for word in [text or MARKER] for form in (word.encode(), word.upper().encode(), word.encode("utf-16-le"))]
    return [str(file) for file in Path(folder).rglob("*") if file.is_file() and any(form in file.read_bytes() for form in forms)]


def entries(g):
    return [json.loads(line) for line in g.cli("audit", "tail", "--json", "-n", "1000000").split("\n") if line]


def requests(g):
    return [entry for entry in entries(g) if entry["event"] == "request" and MARKER in str(entry["statement"])]


def settled(g):
    """Waits until what was recorded before is published."""
    last = entries(g)[-1]["index"]
    size = lambda: int((g.dir / "data/export/checkpoint").read_text().split("\n")[1])
    until("the log is published", lambda: (g.dir / "data/export/checkpoint").exists() and size() > last, 30)


def edit(g, *changes):
    """Changes the configuration file."""
    file = g.dir / "sallyport.toml"
    text = file.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    file.write_text(text)


def refuses(g, *words):
    """The gateway does not start, and says why."""
    status, said = sallyport("serve", config=g.dir / "sallyport.toml", env=g.env)
    assert status == 1 and all(word in said for word in words), said
    return said


@contextlib.contextmanager
def services():
    """Vault and Key Vault. What was asked of them in a wrong way fails the test."""
    tls = SCRATCH / "vaults.tls"
    call("bash", "-c", f'. "{ROOT}/scripts/lib.sh"; make_certificate "{tls}"', env={**os.environ, "SCRATCH": str(SCRATCH)})
    vault, tokens = Vault(), Tokens()
    keyvault = KeyVault(tokens, tls, SCRATCH / "vaults.keys")
    secret_id = SCRATCH / "vaults.secret-id"
    secret_id.write_text(vault.secret_id)
    vault.config = (f'[vault]\naddress = "{vault.address}"\nnamespace = "{vault.namespace}"\nauth = "approle"\nmount = "machines"\n'
                    f'role_id = "env:VAULT_ROLE_ID"\nsecret_id = "file:{secret_id}"\n')
    keyvault.config = f'[keyvault]\nca = "{tls / "ca.pem"}"\nmetadata = "{tokens.address}"\n'
    try:
        yield vault, keyvault, tokens
    finally:
        for service in (vault, keyvault, tokens):
            service.stop()
    for service in (vault, keyvault, tokens):
        assert not service.wrong, service.wrong


ENV = {"VAULT_ROLE_ID": "role-1"}


@behaviour
def nothing_of_a_payload_lies_open_and_everything_goes_on():
    file = key_file("open")
    with gateway("open", f'\n[audit]\n{QUICK}payload_key = "file:{file}"\n') as g:
        data = g.dir / "data"
        work(g)
        same(lies_open(g.dir), [])
        settled(g)
        same(lies_open(g.dir), [])
        g.crash()
        same(lies_open(g.dir), [])
        g.start()
        work(g, 5)
        same(len(requests(g)), 35)
        # Search, sessions, exports and proofs read what is sealed.
        # What is searched for is in the log's entry of the search: not the whole marker.
        part = MARKER[3:]
        found = [json.loads(line) for line in g.cli("audit", "tail", "--json", "--text", f"{part}-7").split("\n") if line]
        assert any(f"{MARKER}-7'" in str(entry["statement"]) for entry in found if entry["event"] == "request"), found
        session = next(one for one in json.loads(g.cli("sessions", "list", "--json", "--text", part)) if one["requests"] > 50)["id"]
        assert MARKER in g.cli("sessions", "show", session, "--json")
        out = SCRATCH / "open.jsonl"
        g.cli("audit", "export", "--format", "jsonl", "--out", out)
        assert out.read_text().count(f"{MARKER}-") >= 35
        proof = SCRATCH / "open.proof"
        g.cli("audit", "prove", session, "--out", proof)
        assert any(MARKER in content.read_bytes().decode(errors="replace") for content in proof.glob("*.payload"))
        status, said = sallyport("audit", "verify", proof, "--json")
        assert status == 0 and json.loads(said)["holds"], said
        # A payload is destroyed as any other, and a compaction leaves nothing.
        victim = requests(g)[3]["index"]
        g.cli("audit", "redact", str(victim), "--field", "statement", "--reason", "art. 17")
        gone = next(entry for entry in entries(g) if entry["index"] == victim)
        same(gone["withheld"][0]["field"], "statement")
        assert "sealed" not in gone["withheld"][0]
        settled(g)
        same(lies_open(data), [])
        live = json.loads(g.cli("audit", "verify", "--json"))
        assert live["holds"] and live["verification"]["payloads"] >= 69 and live["verification"]["sealed"] == 0, live
        same(live["verification"]["withheld"], 1)
        known = g.cli("audit", "key").strip()
    same(lies_open(data), [])
    made = [entry for entry in map(json.loads, g.cli("audit", "tail", "--json", "-n", "100000").splitlines()) if entry["event"] == "administration"]
    made = [entry for entry in made if entry["action"] == "payload key made"]
    same([entry["details"]["source"] for entry in made], [f"file:{file}"])
    same(len([entry for entry in map(json.loads, g.cli("audit", "tail", "--json", "-n", "100000").splitlines()) if MARKER in str(entry.get("statement"))]), 34)

    export, control = data / "export", data / "control/payload-keys.json"
    same(control.stat().st_mode & 0o777, 0o600)
    assert file.read_text() not in control.read_text()
    elsewhere = dict(cwd="/", env={"PATH": os.environ["PATH"]})
    status, said = sallyport("audit", "verify", export, "--key", known, **elsewhere)
    assert status == 0 and "payloads are sealed and were not checked" in said, said
    status, said = sallyport("audit", "verify", export, "--json", **elsewhere)
    unchecked = json.loads(said)["verification"]
    assert status == 0 and unchecked["sealed"] >= 69 and unchecked["payloads"] == 0, unchecked
    opened = ["audit", "verify", export, "--key", known, "--payload-keys", control, "--json"]
    status, said = sallyport(*opened, **elsewhere)
    checked = json.loads(said)["verification"]
    same((status, checked["sealed"], checked["payloads"]), (0, 0, unchecked["sealed"]))
    status, said = node(export, "--key", known)
    same((status, json.loads(said)["sealed"], json.loads(said)["payloads"]), (0, unchecked["sealed"], 0))
    same(go(export, known)[0], 0)

    copy = SCRATCH / "open.copy"
    shutil.copytree(export, copy)
    # Those of earlier checkpoints are there as well, and no part of the log.
    size = int((copy / "checkpoint").read_text().split("\n")[1])
    payload = copy / "payload" / ("000" if size >= 256 else f"000.p/{size}")
    content = bytearray(payload.read_bytes())
    content[6 + 60] ^= 1
    payload.write_bytes(content)
    status, said = sallyport("audit", "verify", copy, "--payload-keys", control, **elsewhere)
    assert status == 1 and "is not what the entry commits to" in said, said
    status, said = sallyport("audit", "verify", copy, **elsewhere)
    assert status == 0 and "were not checked" in said, said
    content[6 + 60] ^= 1
    content[6] ^= 1
    payload.write_bytes(content)
    for status, said in [sallyport("audit", "verify", copy, **elsewhere), node(copy)]:
        assert status == 1 and "in no form" in said, said


@behaviour
def an_existing_log_is_sealed_from_then_on_and_never_again_unsealed():
    file = key_file("begun")
    g = Gateway("begun", "\n[audit]\n" + QUICK)
    g.start()
    work(g, 3)
    g.stop()
    assert lies_open(g.dir / "data")
    (g.dir / "sallyport.toml").write_text((g.dir / "sallyport.toml").read_text() + f'payload_key = "file:{file}"\n')
    g.start()
    work(g, 3)
    same(len(requests(g)), 6)
    same(json.loads(g.cli("audit", "verify", "--json"))["holds"], True)
    g.stop()
    edit(g, (f'payload_key = "file:{file}"', ""))
    refuses(g, "payload-keys.json", "audit.payload_key is not set")
    status, said = sallyport("audit", "reindex", config=g.dir / "sallyport.toml")
    assert status == 1 and "audit.payload_key is not set" in said, said
    # Looking is not writing: what is wrapped by something that is at hand is opened.
    same(len(requests(g)), 6)
    file.rename(file.with_suffix(".away"))
    same(len(requests(g)), 3)
    withheld = [entry for entry in entries(g) if entry.get("withheld")]
    assert withheld and all(one["sealed"] for entry in withheld for one in entry["withheld"]), withheld
    status, said = sallyport("audit", "tail", "-n", "1", config=g.dir / "sallyport.toml")
    assert status == 0 and "withheld" in said and str(file) in said, said


@behaviour
def keys_are_rotated_and_wrapped_anew_elsewhere():
    file = key_file("rotated")
    with services() as (vault, keyvault, _):
        audit = f'\n[audit]\n{QUICK}payload_key = "file:{file}"\n'
        with gateway("rotated", audit + vault.config + keyvault.config, **ENV) as g:
            keys = lambda: json.loads((g.dir / "data/control/payload-keys.json").read_text())["keys"]
            cli = lambda *arguments: call(os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", *arguments, env=g.env)
            work(g, 2)
            cli("audit", "key", "rotate", "--payload")
            work(g, 2)
            same([key["source"].split(":")[0] for key in keys()], ["file", "file"])
            # The configuration names another source; the running gateway takes it over.
            edit(g, (f'payload_key = "file:{file}"', 'payload_key = "vault:transit/keys/sallyport"'))
            until("the configuration is reloaded", lambda: "the configuration was reloaded" in (g.dir / "log/gateway.log").read_text())
            cli("audit", "key", "rotate", "--payload")
            same([key["source"].split(":")[0] for key in keys()], ["file", "file", "vault"])
            work(g, 2)
            g.stop()
            g.start()
            same(len(requests(g)), 6)
            assert "wrapped by vault:transit/keys/sallyport" in cli("audit", "key", "rewrap")
            file.unlink()
            g.crash()
            g.start()
            work(g, 1)
            same(len(requests(g)), 7)
            # And to Key Vault, without a gateway; a new version of its key does not matter.
            g.stop()
            edit(g, ('payload_key = "vault:transit/keys/sallyport"', f'payload_key = "keyvault:{keyvault.name}/keys/wrapping"'))
            cli("audit", "key", "rewrap")
            same([(key["source"], key["source_version"]) for key in keys()], [(f"keyvault:{keyvault.name}/keys/wrapping", keyvault.versions[0])] * 3)
            keyvault.new_version()
            cli("audit", "key", "rotate", "--payload")
            same([key["source_version"] for key in keys()], [keyvault.versions[0]] * 3 + [keyvault.versions[1]])
            vault.down = True
            said = sallyport("check", "--connect", config=g.dir / "sallyport.toml", env=g.env)[1]
            assert "wraps, and 4 keys were unwrapped" in said, said
            g.start()
            work(g, 1)
            same(len(requests(g)), 8)
            same(lies_open(g.dir), [])
            asked = len(keyvault.asked)
            keyvault.down = True
            work(g, 2)
            same(len(requests(g)), 10)
            same(len(keyvault.asked), asked)
            keyvault.down = False
            recorded = [(entry["action"], entry["details"]["source"].split(":")[0]) for entry in entries(g)
                        if entry["event"] == "administration" and "payload key" in entry["action"]]
            same(recorded, [("payload key made", "file"), ("payload key made", "file"), ("payload key made", "vault"),
                            ("payload keys wrapped anew", "vault"), ("payload keys wrapped anew", "keyvault"), ("payload key made", "keyvault")])
            same(json.loads(cli("audit", "verify", "--json"))["verification"]["sealed"], 0)
            vault.down = False


@behaviour
def without_its_key_source_a_gateway_does_not_start():
    with services() as (vault, keyvault, _):
        g = Gateway("source", f'\n[audit]\n{QUICK}payload_key = "vault:transit/keys/sallyport"\n' + vault.config + keyvault.config, **ENV)
        # Not even the first time, and nothing was recorded.
        vault.sealed = True
        refuses(g, "vault:transit/keys/sallyport", "sealed", "unseal it")
        assert not (g.dir / "data/audit/CURRENT").exists()
        vault.sealed = False
        g.start()
        work(g, 2)
        g.stop()
        size = len(entries(g))
        vault.down = True
        refuses(g, "vault:transit/keys/sallyport", "could not be reached")
        vault.down, vault.policy = False, False
        refuses(g, "403", 'path "transit/decrypt/sallyport" { capabilities = ["update"] }')
        vault.policy, right = True, vault.secret_id
        vault.secret_id = "another"
        refuses(g, "refuses the gateway's login", "invalid role or secret ID")
        vault.secret_id = right
        # What was altered, or belongs to another key, is none.
        file = g.dir / "data/control/payload-keys.json"
        content = file.read_text()
        stored = json.loads(content)
        vault.transit["vault:v1:b3RoZXI="] = "b3RoZXIgMzIgYnl0ZXMgdGhhdCBhcmUgYSBrZXkhISE="
        stored["keys"][0]["wrapped"] = "vault:v1:b3RoZXI="
        file.write_text(json.dumps(stored))
        refuses(g, "is not one that", "altered")
        file.write_text(content.replace('"version": 1', '"version": 2'))
        refuses(g, "payload-keys.json", "another version")
        file.write_text(content)
        g.start()
        same(len(requests(g)), 2)
        assert len(entries(g)) > size
        g.stop()
        edit(g, ('payload_key = "vault:transit/keys/sallyport"', 'payload_key = "env:SHORT"'))
        file.unlink()
        g.env["SHORT"] = "too short"
        refuses(g, "env:SHORT", "openssl rand")
        same(lies_open(g.dir / "data"), [])


@behaviour
def a_targets_password_comes_from_vault_and_is_rotated_there():
    with services() as (vault, keyvault, tokens):
        pg = read_env(PG / "env")
        vault.values["databases/shop"] = {"user": "gateway", "password": pg["PG_PASSWORD"]}
        keyvault.values["super-password"] = pg["PG_SUPERPASSWORD"]
        vault.values["log"] = {"key": secrets.token_hex(32)}
        g = Gateway("passwords", '\n[audit]\nkey = "vault:secret/data/log#key"\n[secrets]\nrefresh = "1h"\nstale_max = "1h"\n' + vault.config + keyvault.config, **ENV)
        edit(g, ('"file:password"', '"vault:secret/data/databases/shop#password"'),
             ('"file:superpassword"', f'"keyvault:{keyvault.name}/secrets/super-password"'))
        config = g.dir / "sallyport.toml"
        # A check of the file asks nobody.
        status, said = sallyport("check", config=config, env=g.env)
        assert status == 0 and not vault.asked and not keyvault.asked, said
        status, said = sallyport("check", "--connect", config=config, env=g.env)
        assert status == 0 and "databases/shop#password" in said and "logged in as" in said, said
        assert pg["PG_PASSWORD"] not in said
        g.start()
        try:
            g.alive()
            assert '"sealed"' in (g.dir / "data/control/log-key.json").read_text()
            asked = len(vault.asked)
            for _ in range(5):
                g.alive()
            same(len(vault.asked), asked)
            # The password is rotated: logins fail with the old one, which makes the gateway look.
            fresh = secrets.token_hex(12)
            with direct() as c:
                c.execute(f"ALTER ROLE gateway PASSWORD '{fresh}'")
            vault.values["databases/shop"]["password"] = fresh
            until("the new password is used", lambda: works(g), 20)
            # The service is down: the last value goes on, and it is said.
            vault.down = True
            with direct() as c:
                c.execute(f"ALTER ROLE gateway PASSWORD '{fresh}x'")
            assert not works(g)
            until("it is noticed", lambda: g.metrics()["sallyport_secrets_stale"] == "2", 20)
            with direct() as c:
                c.execute(f"ALTER ROLE gateway PASSWORD '{fresh}'")
            until("the last value goes on", lambda: works(g), 5)
            until("it is said", lambda: "a secret cannot be fetched" in (g.dir / "log/gateway.log").read_text())
            assert float(g.metrics()['sallyport_secret_fetches_total{source="vault",result="failed"}']) > 0
            vault.down = False
            until("it is fetched again", lambda: g.metrics()["sallyport_secrets_stale"] == "0", 20)
            # Every token is revoked: the gateway logs in again.
            vault.tokens.clear()
            fresh = secrets.token_hex(12)
            with direct() as c:
                c.execute(f"ALTER ROLE gateway PASSWORD '{fresh}'")
            vault.values["databases/shop"]["password"] = fresh
            until("the new password is used", lambda: works(g), 20)
            # Key Vault's.
            same(on_super(g), (1,))
            log = (g.dir / "log/gateway.log").read_text() + "\n".join(json.dumps(entry) for entry in entries(g))
            for secret in (pg["PG_PASSWORD"], fresh, vault.values["log"]["key"], vault.secret_id, pg["PG_SUPERPASSWORD"], *vault.tokens, *tokens.given):
                assert secret not in log
            same(lies_open(g.dir / "data", fresh), [])
        finally:
            g.stop()
            with direct() as c:
                c.execute(f"ALTER ROLE gateway PASSWORD '{pg['PG_PASSWORD']}'")


def on_super(g):
    """A statement on the connection whose password is in Key Vault."""
    with psycopg.connect(host="localhost", port=int(g.known["GW_PORT"]), user="fault", password=g.token("fault"), dbname="super/postgres",
                         sslmode="verify-full", sslrootcert=g.known["GW_CA"]) as c:
        return c.execute("SELECT 1").fetchone()


def works(g):
    try:
        g.alive()
        return True
    except psycopg.Error:
        return False


@behaviour
def what_cannot_be_fetched_says_which_and_what_to_do():
    with services() as (vault, keyvault, tokens):
        pg = read_env(PG / "env")
        vault.values["databases/shop"] = {"password": pg["PG_PASSWORD"], "port": 5432}
        keyvault.values["super-password"] = pg["PG_SUPERPASSWORD"]
        g = Gateway("wrong", vault.config + keyvault.config, **ENV)
        edit(g, ('"file:password"', '"vault:secret/data/databases/shop#password"'),
             ('"file:superpassword"', f'"keyvault:{keyvault.name}/secrets/super-password"'))
        config = g.dir / "sallyport.toml"
        text = config.read_text()

        def says(*words, **changes):
            new = text
            for old, with_this in changes.get("edit", []):
                assert old in new, old
                new = new.replace(old, with_this)
            config.write_text(new)
            status, said = sallyport("check", "--connect", "--json", config=config, env=g.env)
            assert status == changes.get("status", 1) and all(word in said for word in words), said
            assert pg["PG_PASSWORD"] not in said and vault.secret_id not in said
            return said

        says("databases/gone#password", "there is nothing at", "404", edit=[("databases/shop#", "databases/gone#")])
        says("#passwort", 'no field', edit=[("shop#password", "shop#passwort")])
        says("#port", "no text", edit=[("shop#password", "shop#port")])
        says("/secrets/gone", "no such thing", "404", edit=[("secrets/super-password", "secrets/gone")])
        keyvault.allowed = False
        says("403", "Key Vault Secrets User")
        keyvault.allowed, vault.sealed = True, True
        says("databases/shop#password", "is sealed")
        vault.sealed, vault.policy = False, False
        says('path \\"secret/data/databases/shop\\" { capabilities = [\\"read\\"] }')
        vault.policy = True
        # Other logins.
        jwt = SCRATCH / "wrong.jwt"
        jwt.write_text(vault.jwt + "\n")
        token = SCRATCH / "wrong.token"
        vault.tokens.add("hvs.static")
        token.write_text("hvs.static\n")
        approle = vault.config.split("namespace")[1].split("\n", 1)[1]
        says("fetched", status=0, edit=[(approle, f'auth = "kubernetes"\nrole = "sallyport"\njwt = "{jwt}"\n')])
        says("fetched", status=0, edit=[(approle, f'token = "file:{token}"\n')])
        secret = f'authority = "{tokens.address}"\ntenant = "tenant-1"\nclient_id = "app-1"\n'
        g.env["KV_SECRET"] = tokens.secret
        given = [(f'metadata = "{tokens.address}"\n', secret + 'auth = "client_secret"\nclient_secret = "env:KV_SECRET"\n')]
        says("fetched", status=0, edit=given)
        g.env["KV_SECRET"] = "another"
        says("AADSTS7000215", edit=given)
        federated = SCRATCH / "wrong.federated"
        federated.write_text(tokens.assertion)
        g.env.update(AZURE_TENANT_ID="tenant-1", AZURE_CLIENT_ID="app-1", AZURE_FEDERATED_TOKEN_FILE=str(federated))
        says("fetched", status=0, edit=[(f'metadata = "{tokens.address}"\n', f'authority = "{tokens.address}"\nauth = "workload_identity"\n')])
        # The form is checked without asking anybody.
        for old, new, words in [
            ("vault:secret/data/databases/shop#password", "vault:secret/databases/shop#password", "is not of the form vault:MOUNT/data/PATH#FIELD"),
            ("/secrets/super-password", "/keys/super-password", "is not of the form keyvault:VAULT/secrets/NAME"),
            ("file:" + str(SCRATCH / "vaults.secret-id"), "vault:secret/data/x#y", "must be on this machine"),
            ("[vault]\n", "[vault_]\n", "unknown key"),
        ]:
            config.write_text(text.replace(old, new))
            status, said = sallyport("check", config=config, env=g.env)
            assert status == 2 and words in said, said
        # The gateway starts all the same: other targets go on.
        config.write_text(text.replace("databases/shop#", "databases/gone#"))
        g.start()
        assert not works(g)
        same(on_super(g), (1,))
        vault.values["databases/gone"] = vault.values["databases/shop"]
        until("it is there now", lambda: works(g), 20)
        g.stop()


call(ROOT / "scripts/pg", "start", PG, "max_connections=100")
try:
    run(lambda function: function())
finally:
    call(ROOT / "scripts/pg", "stop", PG, check=False)
