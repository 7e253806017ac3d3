"""A scratch gateway in front of a scratch PostgreSQL, for suites that stop, kill and damage it.

`ROOT` (the repository), `SCRATCH` (an empty folder) and `SALLYPORT` (the program) must be in the environment.
"""

import contextlib
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
SCRATCH = Path(os.environ["SCRATCH"])
for name, value in {"SP_PORT": "0", "SP_PASSWORD": "", "SP_USER": "", "SP_SSLROOTCERT": ""}.items():
    os.environ.setdefault(name, value)

import psycopg
from suite import same

PG = SCRATCH / "pg"


def call(*command, check=True, **options):
    """Runs a program to its end; what it printed."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    done = subprocess.run([str(part) for part in command], text=True, timeout=120, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.stdout[-500:]}{(done.stderr or '')[-500:]}")
    return done.stdout


def read_env(file):
    return dict(line.split("=", 1) for line in Path(file).read_text().splitlines() if "=" in line)


class Gateway:
    """One, with its folder."""

    def __init__(self, name, extra="", **env):
        self.dir = SCRATCH / name
        self.env = {**os.environ, **env}
        if extra:
            file = SCRATCH / f"{name}.extra"
            file.write_text(extra)
            self.env["EXTRA"] = str(file)
        self.script("config", self.dir, PG)
        self.known = read_env(self.dir / "env")

    def script(self, *arguments, **options):
        return call(ROOT / "scripts/gateway", *arguments, env=self.env, **options)

    def start(self):
        self.script("serve", self.dir)

    def stop(self):
        self.script("stop", self.dir)

    def crash(self):
        self.script("crash", self.dir)

    @property
    def pid(self):
        return int((self.dir / "pid").read_text())

    def token(self, subject="fault", role="app", *more):
        return self.script("token", self.dir, subject, "--role", role, *more).strip()

    def cli(self, *arguments, check=True):
        return call(os.environ["SALLYPORT"], "-c", self.dir / "sallyport.toml", *arguments, check=check)

    def connect(self, token=None, user="fault", **options):
        return psycopg.connect(
            host="localhost", port=int(self.known["GW_PORT"]), user=user, password=token or self.token(user),
            dbname="shop", sslmode="verify-full", sslrootcert=self.known["GW_CA"], connect_timeout=20,
            **{"autocommit": True, **options})

    def alive(self):
        """Serves, with a new session."""
        with self.connect() as c:
            same(c.execute("SELECT 1").fetchone(), (1,))

    def entries(self):
        """All log entries, as they are printed."""
        return self.cli("audit", "tail", "--json", "-n", "10000000").splitlines()

    def get(self, path, token=None):
        """What the admin listener answers: the status, and the content."""
        context = ssl.create_default_context(cafile=self.known["GW_CA"])
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"https://localhost:{self.known['GW_ADMIN_PORT']}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def scrape(self):
        """What /metrics says."""
        status, said = self.get("/metrics")
        same(status, 200)
        return said.decode()

    def metrics(self):
        """Each series, with its value."""
        return dict(line.rsplit(" ", 1) for line in self.scrape().splitlines() if not line.startswith("#"))

    def rss(self):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
        return 0


@contextlib.contextmanager
def running(one):
    """Starts a gateway that is there already, and stops it. It must not have panicked."""
    one.start()
    try:
        yield one
    finally:
        one.stop()
    log = (one.dir / "log/gateway.log").read_text(errors="replace")
    assert "panicked" not in log, log[log.index("panicked") - 200:][:600]


def gateway(name, extra="", **env):
    return running(Gateway(name, extra, **env))


def direct():
    known = read_env(PG / "env")
    return psycopg.connect(host="127.0.0.1", port=int(known["PG_PORT"]), user=known["PG_SUPERUSER"],
                           password=known["PG_SUPERPASSWORD"], dbname="shop", autocommit=True)


def until(what, condition, seconds=10):
    """Waits for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")
