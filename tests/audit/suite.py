"""The log as evidence: published, verified by tools that others wrote, tampered with, proven, copied, kept and destroyed.

`run` needs ROOT, SCRATCH and SALLYPORT (see scratch.py), and TLOG_GO: the verifier of tests/tlog/go, built.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
sys.path.insert(0, str(ROOT / "tests/clients/lib"))

import psycopg
from scratch import PG, SCRATCH, Gateway, call, gateway, until
from suite import behaviour, run, same
from verifiers import go, node, sallyport

QUICK = "\n[audit]\ncheckpoint = \"1s\"\n"


def traffic(g, count=120, subject="ci"):
    """A session with short and long statements; how many entries that are at least."""
    with g.connect(user=subject, token=g.token(subject)) as c:
        for number in range(count):
            letters = "x" * (3000 if number % 40 == 0 else 10)
            c.execute(f"SELECT {number}, '{letters}'")
    return 2 * count


def published(g, at_least=0):
    """The size of the published checkpoint, once it is at least that."""
    def size():
        file = g.dir / "data/export/checkpoint"
        return file.exists() and int(file.read_text().split("\n")[1])

    return until("the log is published", lambda: (size() or 0) > at_least and size(), 30)


def settled(g):
    """Waits until what was recorded before is published."""
    entries = json.loads(g.cli("audit", "tail", "--json", "-n", "1").splitlines()[-1])["index"]
    return published(g, entries)


def key(g):
    return g.cli("audit", "key").strip()


def published_copy(g, name):
    copy = SCRATCH / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(g.dir / "data/export", copy)
    return copy


@behaviour
def verifiers_of_others_agree_also_over_http():
    with gateway("others", QUICK) as g:
        traffic(g, 150)
        settled(g)
        earlier = SCRATCH / "others.checkpoint"
        earlier.write_text(g.cli("audit", "checkpoint"))
        traffic(g, 150)
        size = settled(g)
        assert size > 600, size
        known, folder = key(g), published_copy(g, "others.copy")
        for name, (status, said) in {
            "ours": sallyport("audit", "verify", folder, "--key", known, "--checkpoint", earlier),
            "go": go(folder, known, earlier),
            "node": node(folder, "--key", known, "--earlier", earlier),
            "live": sallyport("audit", "verify", "--key", known, "--checkpoint", earlier, config=g.dir / "sallyport.toml"),
        }.items():
            assert status == 0, f"{name}: {said}"
        assert f"{size} entries" in go(folder, known)[1]

        # By HTTP, every file is the same.
        auditor = g.token("ann", "auditor")
        status, note = g.get("/log/checkpoint")
        same(status, 200)
        fetched = SCRATCH / "others.http"
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "checkpoint"):
            path = file.relative_to(folder)
            status, content = g.get(f"/log/{path}", auditor)
            assert (status, content) == (200, file.read_bytes()), path
            (fetched / path).parent.mkdir(parents=True, exist_ok=True)
            (fetched / path).write_bytes(content)
        (fetched / "checkpoint").write_bytes((folder / "checkpoint").read_bytes())
        same(go(fetched, known)[0], 0)
        readings = [json.loads(line) for line in g.cli("audit", "tail", "--kind", "log_read", "--json", "-n", "1000").splitlines()]
        files = [entry for entry in readings if entry["by"] == "dev/ann"]
        assert len(files) == 1 and "files of the published log" in files[0]["query"], files

        # Who may not read the log does not read it here either.
        same(g.get("/log/tile/entries/000")[0], 401)
        same(g.get("/log/tile/entries/000", g.token("bob", "app"))[0], 403)
        for path in ["tile/entries/999", "tile/0/000.p/0", "tile/0/%2e%2e/000", "tile/entries/../../../audit/CURRENT", "payload/x", "checkpoint/"]:
            assert g.get(f"/log/{path}", auditor)[0] in (400, 404), path


@behaviour
def what_is_tampered_with_is_found_by_every_verifier():
    with gateway("tampered", QUICK) as g:
        traffic(g, 300)
        settled(g)
        known = key(g)
        whole = published_copy(g, "tampered.whole")
    bundle = (whole / "tile/entries/000").read_bytes()
    places, at = [], 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at:at + 2], "big")
        places.append((at, at + 2 + length))
        at += 2 + length

    def flip(content, at):
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]

    (a, b), (c, d) = places[20], places[21]
    size = int((whole / "checkpoint").read_text().split("\n")[1])
    last = f"tile/entries/{(size - 1) // 256:03}" + (f".p/{size % 256}" if size % 256 else "")
    payload = next(path for path in sorted((whole / "payload").rglob("*")) if path.is_file())
    changes = {
        "a bit of an entry": ("tile/entries/000", lambda content: flip(content, a + 9), "20"),
        "a bit of a hash": ("tile/0/000", lambda content: flip(content, 32 * 20), "20"),
        "two entries swapped": ("tile/entries/000", lambda content: content[:a] + content[c:d] + content[a:b] + content[d:], "20"),
        "the tail dropped": (last, lambda content: None, str((size - 1) // 256 * 256)),
        "another root": ("checkpoint", lambda content: content.replace(content.split(b"\n")[2], b"A" * 43 + b"="), ""),
        "a shorter log": ("checkpoint", lambda content: content.replace(f"\n{size}\n".encode(), f"\n{size - 1}\n".encode()), ""),
        "another signature": ("checkpoint", lambda content: content[:-8] + b"AAAAAAA\n"[-8:], ""),
    }
    for name, (path, change, place) in changes.items():
        copy = SCRATCH / "tampered.copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        changed = change((copy / path).read_bytes())
        (copy / path).unlink() if changed is None else (copy / path).write_bytes(changed)
        for verifier, (status, said) in {
            "ours": sallyport("audit", "verify", copy, "--key", known), "go": go(copy, known), "node": node(copy, "--key", known),
        }.items():
            assert status == 1 and said, f"{name} is not found by {verifier}: {status} {said}"
            assert verifier != "ours" or f"entry {place}" in said, f"{name}: {said}"
    # Payloads are no part of tlog-tiles: Go does not know them.
    copy = SCRATCH / "tampered.copy"
    shutil.rmtree(copy)
    shutil.copytree(whole, copy)
    (copy / payload.relative_to(whole)).write_bytes(flip(payload.read_bytes(), 60))
    for status, said in [sallyport("audit", "verify", copy), node(copy)]:
        assert status == 1 and "entry" in said, said
    (copy / payload.relative_to(whole)).unlink()
    status, said = sallyport("audit", "verify", copy)
    assert status == 1 and "no entry says that it was destroyed" in said, said
    status, said = sallyport("audit", "verify", whole, "--key", "x+00000000+AAAA")
    same(status, 2)


@behaviour
def a_session_is_proven_to_somebody_without_the_log():
    with gateway("proven", QUICK) as g:
        traffic(g, 60)
        known = key(g)
        g.cli("audit", "key", "rotate")
        sessions = json.loads(g.cli("sessions", "list", "--json"))
        session = next(one for one in sessions if one["requests"] >= 60)["id"]
        proof = SCRATCH / "proven.proof"
        g.cli("audit", "prove", session, "--out", proof)
        assert key(g) != known
        one = SCRATCH / "proven.entry"
        g.cli("audit", "prove", "3", "--out", one)
    elsewhere = dict(cwd="/", env={"PATH": os.environ["PATH"]})
    # The key from before the rotation is enough.
    status, said = sallyport("audit", "verify", proof, "--key", known, "--json", **elsewhere)
    shown = json.loads(said)
    assert status == 0 and shown["holds"] and shown["proof"]["key_known"], said
    same(shown["proof"]["whole_sessions"], [session])
    statements = [entry["statement"] for entry in shown["proof"]["entries"] if entry["event"] == "request"]
    assert any(len(statement) > 3000 for statement in statements), "long statements are in the proof"
    status, said = sallyport("audit", "verify", one, "--key", known, **elsewhere)
    assert status == 0 and "the proof holds" in said, said
    leaf = sorted(proof.glob("*.leaf"), key=lambda file: file.stat().st_size)[-1]
    content = leaf.read_bytes()
    leaf.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    status, said = sallyport("audit", "verify", proof, **elsewhere)
    assert status == 1 and f"entry {leaf.stem}" in said, said


@behaviour
def the_key_is_sealed_and_rotated():
    secret = "s" * 32
    with gateway("sealed", QUICK + 'key = "env:LOG_KEY"\n', LOG_KEY=secret) as g:
        traffic(g, 20)
        settled(g)
        earlier = SCRATCH / "sealed.checkpoint"
        earlier.write_text(g.cli("audit", "checkpoint"))
        first, content = key(g), (g.dir / "data/control/log-key.json").read_text()
        assert '"sealed"' in content and '"seed"' not in content, content
        second = g.cli("audit", "key", "rotate").strip()
        same(key(g), second)
        assert second != first
        traffic(g, 20)
        settled(g)
        for known in (first, second):
            status, said = sallyport("audit", "verify", g.dir / "data/export", "--key", known, "--checkpoint", earlier)
            assert status == 0 and f"signed by {second}" in said, said
        same(node(g.dir / "data/export", "--key", first, "--earlier", earlier)[0], 0)
        same(go(g.dir / "data/export", second)[0], 0)
    for wrong, words in [({"LOG_KEY": "t" * 32}, "another secret"), ({"LOG_KEY": "short"}, "openssl rand"), ({}, "LOG_KEY is not set")]:
        env = {name: value for name, value in os.environ.items() if name != "LOG_KEY"} | wrong
        status, said = sallyport("serve", config=g.dir / "sallyport.toml", env=env)
        assert status == 1 and words in said, said


@behaviour
def a_log_that_would_fork_is_refused_until_an_operator_decides():
    g = Gateway("forked", QUICK)
    g.start()
    traffic(g, 30)
    settled(g)
    g.stop()
    config, data = g.dir / "sallyport.toml", g.dir / "data"
    before = SCRATCH / "forked.before"
    shutil.copytree(data / "audit", before)
    g.start()
    traffic(g, 30)
    settled(g)
    checkpoint = SCRATCH / "forked.checkpoint"
    checkpoint.write_text(g.cli("audit", "checkpoint"))
    g.stop()

    # The whole folder was copied: to another disk, say.
    copy = SCRATCH / "forked.copy"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*.sock*"))
    shutil.move(data, SCRATCH / "forked.original")
    shutil.move(copy, data)
    status, said = sallyport("serve", config=config)
    assert status == 1 and "was copied or restored" in said and "audit continue" in said, said
    status, said = sallyport("keys", "create", "--subject", "x", config=config)
    assert status == 1 and "was copied or restored" in said, "nothing else writes to it either"
    same(sallyport("audit", "continue", config=config)[0], 2)
    g.cli("audit", "continue", "--reason", "moved to a larger disk")
    g.start()
    g.alive()
    g.cli("audit", "verify", "--checkpoint", checkpoint)
    g.stop()

    # Only the log was put back to an earlier state.
    shutil.rmtree(data / "audit")
    shutil.move(before, data / "audit")
    status, said = sallyport("audit", "continue", "--reason", "restored", config=config)
    assert status == 1 and "restored from a backup" in said and "new-log" in said, said
    status, said = sallyport("audit", "verify", "--checkpoint", checkpoint, config=config)
    assert status == 1 and "were removed" in said, said
    begun = json.loads(g.cli("audit", "new-log", "--reason", "the backup of Tuesday", "--json"))
    g.start()
    g.alive()
    entry = next(entry for entry in map(json.loads, g.entries()) if entry["event"] == "administration")
    same((entry["action"], entry["details"]["reason"]), ("log begun", "the backup of Tuesday"))
    old = checkpoint.read_text().split("\n")
    same(entry["details"]["old origin"], old[0])
    assert int(entry["details"]["old size"]) >= int(old[1]) and begun["origin"] != old[0]
    running = sallyport("audit", "new-log", "--reason", "again", config=config)
    assert running[0] == 2 and "stop it first" in running[1], running
    g.cli("audit", "verify")
    settled(g)
    same(go(data / "export", begun["key"])[0], 0)
    g.stop()


@behaviour
def kills_leave_a_published_log_that_holds():
    g = Gateway("killed", QUICK)
    g.start()
    known, seen = None, []
    for turn in range(5):
        stop = threading.Event()

        def work():
            while not stop.is_set():
                try:
                    with g.connect() as c:
                        for number in range(400):
                            c.execute(f"SELECT {number}")
                except psycopg.Error:
                    time.sleep(0.05)

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(1.3 + 0.4 * turn)
        os.kill(g.pid, signal.SIGKILL)
        stop.set()
        worker.join(30)
        g.crash()
        known = known or key(g)
        export = g.dir / "data/export"
        if (export / "checkpoint").exists():
            given = [part for file in seen for part in ("--checkpoint", file)]
            status, said = sallyport("audit", "verify", export, "--key", known, *given)
            assert status == 0, said
            same(go(export, known, *seen[-1:])[0], 0)
            seen.append(SCRATCH / f"killed.{turn}")
            seen[-1].write_bytes((export / "checkpoint").read_bytes())
        status, said = sallyport("audit", "verify", "--key", known, config=g.dir / "sallyport.toml")
        assert status == 0, said
        g.start()
    assert seen, "it was never published"
    given = [part for file in seen for part in ("--checkpoint", file)]
    g.cli("audit", "verify", *given)
    g.stop()


@behaviour
def contents_are_kept_held_and_destroyed():
    rules = QUICK + '\n[[retention]]\nkeep = "2s"\nconnection = "shop"\nfields = ["statement"]\n'
    with gateway("kept", rules) as g:
        with g.connect(user="held", token=g.token("held")) as c:
            c.execute(f"SELECT 'held {'h' * 3000}'")
        traffic(g, 81)
        sessions = json.loads(g.cli("sessions", "list", "--json"))
        held = next(one["id"] for one in sessions if one["principal"] == "dev/held")
        hold = json.loads(g.cli("audit", "hold", "create", "--session", held, "--reason", "case 4711", "--json"))["id"]
        settled(g)
        earlier = SCRATCH / "kept.checkpoint"
        earlier.write_text(g.cli("audit", "checkpoint"))
        time.sleep(2.5)
        done = json.loads(g.cli("audit", "retain", "--json"))
        assert [one["destroyed" if "destroyed" in one else "contents"] for one in done] == [3], done
        shown = json.dumps(json.loads(g.cli("sessions", "show", held, "--json")))
        assert "h" * 3000 in shown, "what is held is kept"
        config = g.dir / "sallyport.toml"
        status, said = sallyport("audit", "redact", "--session", held, "--field", "statement", "--reason", "asked", config=config)
        assert status == 1 and hold in said, said
        g.cli("audit", "hold", "release", hold, "--reason", "closed")
        # A person's data in a short statement goes with its entry alone.
        with g.connect(user="person", token=g.token("person")) as c:
            c.execute("SELECT 'Ada Lovelace lives here'")
        entry = next(entry for entry in map(json.loads, g.entries()) if "Ada Lovelace" in str(entry.get("statement")))["index"]
        status, said = sallyport("audit", "redact", entry, "--field", "statement", "--reason", "asked", config=config)
        assert status == 1 and "--whole" in said, said
        settled(g)
        g.cli("audit", "redact", entry, "--whole", "--reason", "erasure request 12")
        g.cli("audit", "redact", "--session", held, "--field", "statement", "--reason", "erasure request 13")
        everything = "\n".join(g.entries())
        assert "Ada Lovelace" not in everything and "h" * 3000 not in everything
        assert "erasure request 12" in everything and '"rule":"redaction"' in everything.replace('": "', '":"')
        settled(g)
        g.cli("audit", "verify", "--checkpoint", earlier)
        export, known = g.dir / "data/export", key(g)
        for status, said in [sallyport("audit", "verify", export, "--key", known, "--checkpoint", earlier), node(export, "--key", known)]:
            assert status == 0, said
        files = b"".join(path.read_bytes() for path in export.rglob("*") if path.is_file())
        assert b"Ada Lovelace" not in files and b"h" * 3000 not in files
    # Nor is it anywhere else on the disk, once what was written was flushed.
    remains = [path for path in (g.dir / "data").rglob("*") if path.is_file() and b"Ada Lovelace" in path.read_bytes()]
    assert not remains, remains


@contextlib.contextmanager
def witness(name, log):
    """`sallyport witness` for a log's key: its URL, its key, and how it is stopped."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [os.environ["SALLYPORT"], "witness", "--dir", SCRATCH / name, "--name", name, "--address", f"127.0.0.1:{port}", "--log", log]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield f"http://127.0.0.1:{port}", process.stdout.readline().strip(), process
    finally:
        process.terminate()
        process.wait(20)


@behaviour
def witnesses_cosign_and_a_fork_ends_the_recording():
    g = Gateway("witnessed", QUICK)
    g.start()
    traffic(g, 20)
    settled(g)
    g.stop()
    config, data = g.dir / "sallyport.toml", g.dir / "data"
    log = key(g)
    with witness("one.example", log) as (one, one_key, _), witness("two.example", log) as (two, two_key, second):
        text = config.read_text().replace("[audit]", "[audit]\nwitnesses_min = 2")
        config.write_text(text + "".join(f'\n[[witness]]\nkey = "{k}"\nurl = "{url}"\n' for k, url in [(one_key, one), (two_key, two)]))
        g.start()
        traffic(g, 20)
        size = settled(g)
        trusted = ["--witness", one_key, "--witness", two_key]
        for target in [[data / "export"], []]:
            status, said = sallyport("audit", "verify", *target, "--key", log, *trusted, config=config)
            assert status == 0 and "cosigned by one.example" in said and "cosigned by two.example" in said, said
        same(go(data / "export", log)[0], 0)
        # Without enough of them, nothing is published, and everything else goes on.
        second.send_signal(signal.SIGSTOP)
        traffic(g, 20)
        until("the metric says so", lambda: g.metrics().get("sallyport_audit_publishing") == "0", 60)
        same(published(g), size)
        second.send_signal(signal.SIGCONT)
        until("it is published again", lambda: published(g) > size, 60)
        # The whole machine is put back to an earlier state: nothing on it can tell.
        g.stop()
        kept = SCRATCH / "witnessed.kept"
        subprocess.run(["cp", "-a", str(data), str(kept)], check=True)
        g.start()
        traffic(g, 20)
        settled(g)
        g.stop()
        # In place: the folder is still the one that it was.
        for folder in ("audit", "control", "export"):
            subprocess.run(["bash", "-c", 'rm -rf "$1"/* && cp -a "$2"/. "$1"', "-", str(data / folder), str(kept / folder)], check=True)
        g.start()
        until("the gateway stops recording", lambda: g.metrics().get("sallyport_audit_healthy") == "0" or refused(g), 60)
        error = refused(g)
        assert error and "cannot record" in error, error
        status, said = g.get("/readyz")
        same(status, 503)
        assert "new-log" in said.decode()
        g.crash()
        g.cli("audit", "new-log", "--reason", "restored from a snapshot")


def refused(g):
    """What a session is told; `None`: it goes on."""
    try:
        with g.connect() as c:
            c.execute("SELECT 1")
    except psycopg.Error as error:
        return str(error)
    return None


call(ROOT / "scripts/pg", "start", PG, "max_connections=100")
try:
    run(lambda function: function())
finally:
    call(ROOT / "scripts/pg", "stop", PG, check=False)
