"""The servers of a benchmark run: PostgreSQL, and in front of it the gateway, PgBouncer and HAProxy."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
SCRATCH = Path(os.environ["SCRATCH"])
TICK = os.sysconf("SC_CLK_TCK")


def read_env(file):
    """KEY=VALUE lines."""
    return dict(line.split("=", 1) for line in Path(file).read_text().splitlines() if "=" in line)


def run(*command, **options):
    """Runs to the end; what it printed. A failure shows what it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def script(name, *arguments, **env):
    """One of scripts/."""
    return run(ROOT / "scripts" / name, *arguments, env={**os.environ, **env})


def free_port():
    """Below the range of ephemeral ports."""
    return int(run("bash", "-c", f". {ROOT}/scripts/lib.sh; free_port").strip())


def cpu(pid):
    """CPU seconds of a process, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid):
    """Resident memory, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@dataclass
class Way:
    """One way to the server."""
    name: str
    port: int
    user: str
    password: str
    pid: int | None  # the proxy's process; None: direct
    ca: str | None = None  # TLS, trusting this

    def libpq(self):
        """For pgbench and psql."""
        env = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": self.user,
               "PGPASSWORD": self.password, "PGDATABASE": "shop", "PGSSLMODE": "disable", "PGOPTIONS": ""}
        if self.ca:
            env.update(PGHOST="localhost", PGHOSTADDR="127.0.0.1", PGSSLMODE="verify-full", PGSSLROOTCERT=self.ca)
        return env

    def loadgen(self, command, *arguments):
        """A loadgen command line, and its environment."""
        line = [os.environ["LOADGEN"], command, "--port", str(self.port), "--user", self.user, *map(str, arguments)]
        if self.ca:
            line += ["--ca", self.ca]
        return line, {**os.environ, "PGPASSWORD": self.password}


class Servers:
    """All of them, on loopback, with the shop and pgbench's tables."""

    def __init__(self, rows):
        script("pg", "start", SCRATCH / "pg", "max_connections=300", PGBENCH_SCALE="10")
        self.pg = read_env(SCRATCH / "pg/env")
        self.tables(rows)
        self.gateways = {}

    def direct(self, tls=False):
        return Way("direct", int(self.pg["PG_PORT"]), self.pg["PG_LOGIN"], self.pg["PG_PASSWORD"], None,
                   self.pg["PG_CA"] if tls else None)

    def sql(self, *statements):
        run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *[part for s in statements for part in ("-c", s)], env=self.direct().libpq())

    def tables(self, rows):
        """The same rows twice: in one table two columns are classified."""
        self.sql(
            f"""CREATE TABLE bench_clear AS SELECT n AS id, 'customer ' || n AS name,
                'customer' || n || '@example.com' AS email, lpad(n::text, 16, '4') AS card_number,
                repeat('x', 30) AS note FROM generate_series(1, {rows}) n""",
            "CREATE TABLE bench_masked AS SELECT * FROM bench_clear",
            "VACUUM ANALYZE bench_clear", "VACUUM ANALYZE bench_masked")

    def gateway(self, name="gateway", tls=False, extra="", **env):
        """A gateway of that name, started once: policy on (10 policies), recording on, masking rules on."""
        folder = SCRATCH / name
        if name not in self.gateways:
            more = SCRATCH / f"{name}.toml"
            more.write_text('[[classify]]\nclass = "email"\ncolumns = ["shop/public.bench_masked.email"]\n'
                            '[[classify]]\nclass = "card"\ncolumns = ["shop/public.bench_masked.card_number"]\n' + extra)
            script("gateway", "start", folder, SCRATCH / "pg", EXTRA=str(more), **{"UPSTREAM_TLS": "disable", **env})
            token = script("gateway", "token", folder, "bench", "--role", "app").strip()
            self.gateways[name] = (read_env(folder / "env"), token)
        known, token = self.gateways[name]
        pid = int((folder / "pid").read_text())
        if tls:
            return Way("gateway", int(known["GW_PORT"]), "bench", token, pid, known["GW_CA"])
        return Way("gateway", int(known["GW_PLAIN_PORT"]), "bench", token, pid)

    def pgbouncer(self, tls=False):
        """Session mode: as the gateway, a server connection for each client's."""
        name = "pgbouncer-tls" if tls else "pgbouncer"
        pid_file = SCRATCH / f"{name}.pid"
        port_file = SCRATCH / f"{name}.port"
        if not pid_file.exists():
            port = free_port()
            folder = SCRATCH / name
            folder.mkdir()
            (folder / "users").write_text(f'"gateway" "{self.pg["PG_PASSWORD"]}"\n')
            lines = [
                "[databases]", f"shop = host=127.0.0.1 port={self.pg['PG_PORT']} dbname=shop",
                "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir =",
                # `plain`: the password in clear text, as a token travels; scram would cost 4,096 hash rounds a login.
                "auth_type = plain", f"auth_file = {folder}/users", "pool_mode = session", "max_client_conn = 6000",
                "default_pool_size = 100", "server_tls_sslmode = disable", "log_connections = 0", "log_disconnections = 0",
                f"logfile = {folder}/log", "ignore_startup_parameters = extra_float_digits,options",
            ]
            if tls:
                lines += ["client_tls_sslmode = require", f"client_tls_key_file = {folder}/server.key",
                          f"client_tls_cert_file = {folder}/server.pem"]
                for file in ("server.key", "server.pem"):
                    (folder / file).write_bytes((SCRATCH / "pg/tls" / file).read_bytes())
                    (folder / file).chmod(0o600)
            (folder / "ini").write_text("\n".join(lines) + "\n")
            if os.getuid() == 0:
                run("chown", "-R", "postgres", folder)
            self.start(name, self.as_postgres("pgbouncer", folder / "ini"), port)
            port_file.write_text(str(port))
        return Way("PgBouncer", int(port_file.read_text()), "gateway", self.pg["PG_PASSWORD"], int(pid_file.read_text()),
                   self.pg["PG_CA"] if tls else None)

    def haproxy(self):
        """TCP mode: no idea of the protocol."""
        pid_file, port_file = SCRATCH / "haproxy.pid", SCRATCH / "haproxy.port"
        if not pid_file.exists():
            port = free_port()
            file = SCRATCH / "haproxy.cfg"
            file.write_text(f"""global
  nbthread 1
  maxconn 2000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen pg
  bind 127.0.0.1:{port}
  server pg 127.0.0.1:{self.pg['PG_PORT']}
""")
            self.start("haproxy", ["haproxy", "-db", "-f", str(file)], port)
            port_file.write_text(str(port))
        return Way("HAProxy", int(port_file.read_text()), self.pg["PG_LOGIN"], self.pg["PG_PASSWORD"], int(pid_file.read_text()))

    @staticmethod
    def as_postgres(program, *arguments):
        """PgBouncer refuses root, too. setpriv replaces itself: the process that we know is the proxy's."""
        line = [program, *map(str, arguments)]
        if os.getuid() == 0:
            line = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *line]
        return line

    @staticmethod
    def start(name, line, port):
        """In the background; its id goes to a file, so that benches/stop finds it."""
        env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"}
        with open(SCRATCH / f"{name}.log", "w") as log:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd="/")
        (SCRATCH / f"{name}.pid").write_text(str(process.pid))
        for _ in range(100):
            if subprocess.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"], stderr=subprocess.DEVNULL).returncode == 0:
                return
            if process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"bench: {name} did not start:\n" + (SCRATCH / f"{name}.log").read_text()[-2000:])
