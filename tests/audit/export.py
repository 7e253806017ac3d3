"""Exports of the audit log, read back by others' readers, and streams to receivers that go away.

Needs ROOT (the repository), SCRATCH (an empty folder), SALLYPORT and LOADGEN (the programs), as tests/faults/suite.py,
from which the gateway comes; `pyarrow` for Parquet. Arguments: names of behaviours, none: all.
"""

import collections
import contextlib
import csv
import hashlib
import http.server
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
sys.path.insert(0, str(ROOT / "tests/faults"))
sys.path.insert(0, str(ROOT / "tests/clients/lib"))

import collector
import psycopg
from scratch import PG, SCRATCH, Gateway, call, gateway, running, until
from suite import Skip, behaviour, run, same

HOSTILE = "SELECT '=1+1', 'a\"b,c|d\\e', $q$\r\nline\ttab \u2028 \x1b[2J é $q$"


def work(g, statements=40):
    """Sessions with statements of all sorts; waits until they are in the log."""
    with g.connect() as c:
        for number in range(statements):
            c.execute(f"SELECT {number}, email FROM customers WHERE id = 1")
        c.execute(HOSTILE)
        c.execute("SELECT %s", ("x" * 300_000,))
        with contextlib.suppress(psycopg.Error):
            c.execute("SELECT nothing FROM nowhere")
    with contextlib.suppress(psycopg.Error):
        g.connect(token="wrong")


def entries(g):
    """The log. A line ends at a line feed, not at whatever else Unicode has for it."""
    return [json.loads(line) for line in g.cli("audit", "tail", "--json", "-n", "10000000").split("\n") if line]


def sallyport(g, *arguments):
    command = [os.environ["SALLYPORT"], "-c", str(g.dir / "sallyport.toml"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120)


def export(g, kind, *arguments):
    """An export to a file: its bytes, and its manifest, whose digest is checked."""
    file = SCRATCH / f"{g.dir.name}.{time.monotonic_ns()}.{kind}"
    done = sallyport(g, "audit", "export", "--format", kind, "--out", file, "--json", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    manifest = json.loads(Path(f"{file}.manifest.json").read_text())
    same(json.loads(done.stdout), manifest)
    data = file.read_bytes()
    same(manifest["data"], {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    same(file.stat().st_mode & 0o777, 0o600)
    return data, manifest


def indices(kind, data):
    """The index of each row, by a reader that is not ours."""
    if kind == "parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise Skip("pyarrow is not installed")
        return parquet.read_table(io.BytesIO(data)).column("index").to_pylist()
    if kind == "csv":
        csv.field_size_limit(1 << 30)
        return [int(row["index"]) for row in csv.DictReader(io.StringIO(data.decode(), newline=""))]
    lines = data.decode().split("\n")
    same(lines.pop(), "")
    if kind == "cef":
        return [int(line.split(" externalId=")[1].split(" ")[0]) for line in lines]
    documents = [json.loads(line) for line in lines]
    at = {"jsonl": lambda d: d["index"], "ocsf": lambda d: d["metadata"]["sequence"], "ecs": lambda d: d["event"]["sequence"]}
    return list(map(at[kind], documents))


KINDS = ("jsonl", "ocsf", "cef", "ecs", "csv", "parquet")


def check_all(g):
    for kind in KINDS:
        data, manifest = export(g, kind)
        size = manifest["log"]["entries"]
        same(indices(kind, data), list(range(size)))
        same(manifest["looked_at"], {"first": 0, "last": size - 1, "count": size})
        same(manifest["exported"], manifest["looked_at"])
        same((manifest["format"], manifest["query"]), (kind, {}))
        assert manifest["by"].startswith("local:"), manifest
        tail = entries(g)
        log = {entry["index"]: entry for entry in tail}
        # Before its first byte, and after its last.
        begun, ended = log[size - 1], next(entry for entry in tail[size:] if entry["event"] == "administration")
        assert begun["event"] == "log_read" and begun["query"] == f'export {{"format":"{kind}","query":{{}}}}', begun
        assert ended["action"] == "log exported" and ended["details"]["sha256"] == manifest["data"]["sha256"], ended
        if kind == "jsonl":
            lines = [json.loads(line) for line in data.decode().split("\n") if line]
            stripped = [{name: value for name, value in line.items() if name != "session_context"} for line in lines]
            same(stripped, tail[:size])
            outcomes = [line for line in lines if line["event"] == "outcome"]
            assert outcomes and all(line["session_context"]["principal"] == "dev/fault" for line in outcomes)


@behaviour
def every_format_has_every_entry_with_a_gateway_and_without():
    with gateway("formats") as g:
        work(g)
        check_all(g)
        g.stop()
        check_all(g)
        g.start()
        assert json.loads(g.cli("audit", "verify", "--json"))["holds"]


@behaviour
def hostile_statements_come_back_whole():
    with gateway("hostile") as g:
        work(g, 1)
        csv.field_size_limit(1 << 30)
        rows = list(csv.DictReader(io.StringIO(export(g, "csv")[0].decode(), newline="")))
        assert any(row["statement"] == HOSTILE for row in rows)
        assert any("x" * 300_000 in row["details"] for row in rows)
        assert not any(value[:1] in ("=", "+", "-", "@") for row in rows for value in row.values() if value)
        for kind, find in (("ocsf", lambda d: d.get("query_info", {}).get("query_string")), ("ecs", lambda d: d["sallyport"].get("statement"))):
            assert any(find(json.loads(line)) == HOSTILE for line in export(g, kind)[0].decode().split("\n") if line), kind
        data, _ = export(g, "parquet")
        indices("parquet", data)
        import pyarrow.parquet as parquet
        table = parquet.read_table(io.BytesIO(data))
        assert HOSTILE in table.column("statement").to_pylist()
        same((str(table.schema.field("index").type), str(table.schema.field("time").type)), ("uint64", "timestamp[us, tz=UTC]"))


@behaviour
def filters_choose_and_are_in_the_manifest():
    with gateway("filters") as g:
        work(g, 5)
        all_of_them = [json.loads(line) for line in export(g, "jsonl")[0].decode().split("\n") if line]
        session = next(entry["session"] for entry in all_of_them if entry["event"] == "request")
        data, manifest = export(g, "jsonl", "--session", session[:13], "--kind", "request", "--kind", "outcome")
        found = [json.loads(line) for line in data.decode().split("\n") if line]
        wanted = [e["index"] for e in all_of_them if e.get("session") == session and e["event"] in ("request", "outcome")]
        same([entry["index"] for entry in found], wanted)
        same(manifest["query"], {"session": session, "kinds": ["request", "outcome"]})
        same(manifest["exported"], {"first": wanted[0], "last": wanted[-1], "count": len(wanted)})
        assert manifest["looked_at"]["count"] == manifest["log"]["entries"] > len(wanted)
        data, manifest = export(g, "csv", "--principal", "dev/nobody", "--since", "2h")
        same((manifest["exported"], len(data.splitlines())), ({"first": None, "last": None, "count": 0}, 1))
        assert manifest["query"]["since"].endswith("Z"), manifest
        same(sallyport(g, "audit", "export", "--format", "xml").returncode, 2)
        same(sallyport(g, "audit", "export", "--verdict", "perhaps").returncode, 2)


@behaviour
def standard_output_has_the_data_and_standard_error_ends_with_the_manifest():
    with gateway("stdout") as g:
        work(g, 3)
        done = sallyport(g, "audit", "export", "--format", "jsonl")
        manifest = json.loads(done.stderr.decode().splitlines()[-1])
        same((done.returncode, manifest["data"]["sha256"]), (0, hashlib.sha256(done.stdout).hexdigest()))
        file = SCRATCH / "there.jsonl"
        file.write_text("precious")
        same(sallyport(g, "audit", "export", "--out", file).returncode, 2)
        same(file.read_text(), "precious")
        same(sallyport(g, "audit", "export", "--out", file, "--force").returncode, 0)
        assert file.read_text() != "precious"


def filled(g):
    """A log that takes a while to export: statements of 400 KB."""
    with g.connect() as c:
        for number in range(800):
            c.execute(f"SELECT {number} /* {'x' * 400_000} */")


@behaviour
def an_export_that_is_cut_off_leaves_no_file():
    with gateway("cut") as g:
        filled(g)
        folder = SCRATCH / "cut-exports"
        folder.mkdir()
        command = [os.environ["SALLYPORT"], "-c", g.dir / "sallyport.toml", "audit", "export", "--out", folder / "one.jsonl"]

        def half_way(process):
            until("data arrives", lambda: any(file.stat().st_size > 1 << 20 for file in folder.iterdir()) or process.poll() is not None)
            assert process.poll() is None, "it was too quick to be cut off"

        # The command is killed: the gateway says so in the log.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        half_way(process)
        process.kill()
        process.wait()
        names = [file.name for file in folder.iterdir()]
        assert names and all(name.endswith(".partial") for name in names), names
        until("the log says that it broke off", lambda: any(entry.get("action") == "log export broken off" for entry in entries(g)))
        [file.unlink() for file in folder.iterdir()]
        # The gateway is killed: the command fails, and nothing is left.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        half_way(process)
        g.crash()
        same(process.wait(60), 1)
        assert b"cut off" in (said := process.stderr.read()) or b"cannot be read" in said, said
        same(list(folder.iterdir()), [])
        g.start()
        assert json.loads(g.cli("audit", "verify", "--json"))["holds"]
        # Whole, it is long, and memory is not.
        before = g.rss()
        for kind in KINDS:
            done = sallyport(g, "audit", "export", "--format", kind, "--out", folder / kind)
            assert done.returncode == 0, done.stderr
        size, grown = (folder / "jsonl").stat().st_size >> 20, g.rss() - before
        print(f"# {size} MB, {grown} MB more memory", flush=True)
        # The store's 128 MiB fill up; with what lies between its blocks, growth ends under 200.
        assert grown < 256 < size, (size, grown)


@behaviour
def over_http_the_manifest_is_the_second_part():
    with gateway("parts") as g:
        work(g, 3)
        url = f"https://localhost:{g.known['GW_ADMIN_PORT']}/api/v1/audit/export?format=ocsf&kinds=request"
        context = ssl.create_default_context(cafile=g.known["GW_CA"])

        def get(role):
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {g.token('aud', role)}"})
            with urllib.request.urlopen(request, context=context) as answer:
                return answer.headers["Content-Type"], answer.read()

        kind, body = get("auditor")
        assert kind.startswith("multipart/mixed; boundary="), kind
        boundary = kind.split("=")[1].encode()
        before, data, manifest, after = body.split(b"--" + boundary)
        same((before, after), (b"", b"--\r\n"))
        data = data.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        manifest = json.loads(manifest.split(b"\r\n\r\n", 1)[1])
        same(manifest["data"]["sha256"], hashlib.sha256(data).hexdigest())
        same((manifest["by"], manifest["exported"]["count"]), ("dev/aud", len(data.splitlines())))
        try:
            get("app")
            raise AssertionError("an application may export the log")
        except urllib.error.HTTPError as error:
            same(error.code, 403)


class Receiver:
    """Something that listens on a port of its own, and can go away and come back on it."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.seen, self.lock = [], threading.Lock()

    def keep(self, found):
        with self.lock:
            self.seen += found

    def indices(self):
        with self.lock:
            return [index for index, _ in self.seen]


def server_context(g):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(g.dir / "tls/server.pem", g.dir / "tls/server.key")
    return context


class Syslog(Receiver):
    """RFC 5425: TLS, messages after their length."""

    def up(self, g):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.connections = []
        threading.Thread(target=self.accept, args=(server_context(g), self.listener), daemon=True).start()

    def accept(self, context, listener):
        with contextlib.suppress(OSError):
            while True:
                plain = listener.accept()[0]
                self.connections.append(plain)
                threading.Thread(target=self.read, args=(context, plain, self.connections), daemon=True).start()

    deaf = False

    def read(self, context, plain, connections):
        with contextlib.suppress(OSError):
            with context.wrap_socket(plain, server_side=True) as tls:
                connections.append(tls)
                while self.deaf:
                    time.sleep(0.1)
                # What had not been read when the receiver went away is lost with it.
                if connections is not self.connections:
                    return
                held = b""
                while data := tls.recv(65536):
                    held += data
                    while b" " in held[:12]:
                        length, rest = held.split(b" ", 1)
                        if len(rest) < int(length):
                            break
                        held = rest[int(length):]
                        self.message(rest[:int(length)].decode())

    def message(self, text):
        head, rest = text.split(" [", 1)
        structured, message = rest.split("] ", 1)
        priority, at, host, name, process, kind = head.split(" ")
        assert priority in ("<108>1", "<109>1", "<110>1") and name == "sallyport", head
        values = dict(pair.split("=", 1) for pair in structured.split(" ")[1:])
        index = int(values["index"].strip('"'))
        same(json.loads(message)["index"], index)
        self.keep([(index, message)])

    def down(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        gone, self.connections = self.connections, []
        # Whoever reads it closes it: a number that is closed under a reader is soon another file's.
        for connection in gone:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Web(Receiver):
    """HTTP: POST requests, TLS or not, with what a subclass finds in a body."""

    def __init__(self):
        super().__init__()
        self.refusals, self.answer, self.connections = 0, b"", []

    def up(self, g, tls=False):
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.lock:
                    refuse, receiver.refusals = receiver.refusals > 0, max(0, receiver.refusals - 1)
                status = 503 if refuse else receiver.check(self)
                if status == 200:
                    receiver.keep(list(receiver.find(body)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            allow_reuse_address, daemon_threads = True, True

            def process_request(self, request, address):
                receiver.connections.append(request)
                super().process_request(request, address)

        self.server = Server(("127.0.0.1", self.port), Handler)
        if tls:
            self.server.socket = server_context(g).wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def down(self):
        self.server.shutdown()
        self.server.server_close()
        # Those that are kept alive, too: each is closed by whoever serves it.
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()


class Lines(Web):
    """A HEC-like receiver of lines: ECS documents, with an Authorization of its own."""

    def check(self, request):
        good = (request.headers["Authorization"], request.headers["Content-Type"]) == ("Splunk t0ken", "application/x-ndjson")
        return 200 if good and request.path == "/services/collector/raw" else 403

    def find(self, body):
        for line in body.decode().split("\n")[:-1]:
            yield json.loads(line)["event"]["sequence"], line


class Otlp(Web):
    """A collector of OTLP logs."""

    def check(self, request):
        return 200 if (request.path, request.headers["Content-Type"]) == ("/v1/logs", "application/x-protobuf") else 404

    def find(self, body):
        for resource_logs in collector.each(body, 1):
            resource = {collector.one(pair, 1).decode(): collector.text(collector.one(pair, 2)) for pair in collector.each(collector.one(resource_logs, 1), 1)}
            same(resource["service.name"], "sallyport")
            for scope_logs in collector.each(resource_logs, 2):
                for record in collector.each(scope_logs, 2):
                    attributes = {collector.one(pair, 1).decode(): collector.text(collector.one(pair, 2)) for pair in collector.each(record, 6)}
                    index, text = attributes["sallyport.log.index"], collector.text(collector.one(record, 5))
                    event = json.loads(text)
                    same((event["metadata"]["sequence"], attributes["sallyport.log.id"]), (index, event["metadata"]["log_name"]))
                    yield index, text


def streams(name, syslog, lines, otlp):
    """A gateway's configuration with the three; its folder gets the secret and has the CA."""
    return f"""
[[stream]]
name = "syslog"
to   = "syslog+tls://localhost:{syslog.port}"
ca   = "tls/ca.pem"

[[stream]]
name    = "hec"
to      = "https://localhost:{lines.port}/services/collector/raw"
format  = "ecs"
ca      = "tls/ca.pem"
headers = {{ Authorization = "file:hec" }}

[[stream]]
name   = "otlp"
to     = "otlp+http://127.0.0.1:{otlp.port}"
format = "ocsf"
"""


STREAMS = ("syslog", "hec", "otlp")


def metric(g, what, stream):
    return int(g.metrics().get(f'sallyport_stream_{what}{{stream="{stream}"}}', 0))


def everything(g, receivers, seconds=90):
    """Each receiver gets every entry that the log has now; how many came more than once."""
    last = json.loads(g.cli("audit", "tail", "-n", "1", "--json"))["index"]
    repeated = []
    for receiver in receivers:
        name = type(receiver).__name__
        until(f"{name} has all {last + 1}", lambda: len({i for i in receiver.indices() if i <= last}) == last + 1, seconds)
        counts = collections.Counter(receiver.indices())
        same(sorted(i for i in counts if i <= last), list(range(last + 1)))
        repeated.append(sum(counts.values()) - len(counts))
        contents = collections.defaultdict(set)
        for index, text in list(receiver.seen):
            contents[index].add(text)
        assert all(len(texts) == 1 for texts in contents.values()), f"{name}: an index with two contents"
    return repeated


@behaviour
def streams_miss_nothing_when_receivers_and_the_gateway_go_down():
    syslog, lines, otlp = receivers = Syslog(), Lines(), Otlp()
    with prepared("streams", receivers) as g:
        up = lambda: (syslog.up(g), lines.up(g, tls=True), otlp.up(g))
        down = lambda: [receiver.down() for receiver in receivers]
        up()
        work(g)
        everything(g, receivers)
        # All are down, and the gateway goes on; it is killed, and goes on.
        down()
        work(g)
        g.alive()  # "a session waits for a SIEM"
        until("the lag is seen", lambda: all(metric(g, "lag_entries", name) > 20 for name in STREAMS))
        print(f"# lag: {[metric(g, 'lag_entries', name) for name in STREAMS]}", flush=True)
        assert all(metric(g, "failures_total", name) > 0 for name in STREAMS)
        until("it is measured", lambda: all(metric(g, "lag_seconds", name) > 2 for name in STREAMS), 30)
        g.crash()
        g.start()
        work(g)
        g.crash()
        lines.refusals, otlp.refusals = 2, 2
        up()
        g.start()
        work(g)
        repeated = everything(g, receivers)
        print(f"# repeated: {dict(zip(STREAMS, repeated))}", flush=True)
        until("the lag is gone", lambda: all(metric(g, "lag_entries", name) == 0 for name in STREAMS))
        # Killed while it sends.
        for _ in range(3):
            work(g, 200)
            g.crash()
            g.start()
        everything(g, receivers)
        for receiver in (lines, otlp):
            same((type(receiver).__name__, receiver.indices().count(0)), (type(receiver).__name__, 1))
        down()
    log = (g.dir / "log/gateway.log").read_text(errors="replace")
    assert "t0ken" not in log


def prepared(name, receivers):
    """A gateway with the three streams, whose secret is there before it starts."""
    g = Gateway(name, streams(name, *receivers))
    (g.dir / "hec").write_text("Splunk t0ken\n")
    return running(g)


@behaviour
def what_a_syslog_receiver_had_not_read_when_it_died_comes_again():
    syslog = Syslog()
    with gateway("deaf", f'\n[[stream]]\nname = "syslog"\nto = "syslog+tls://localhost:{syslog.port}"\nca = "tls/ca.pem"\n') as g:
        syslog.deaf = True
        syslog.up(g)
        work(g)
        until("the gateway takes it for delivered", lambda: metric(g, "sent_total", "syslog") > 80, 30)
        same(syslog.indices(), [])
        syslog.down()
        syslog.deaf = False
        syslog.up(g)
        work(g, 2)
        everything(g, [syslog])
        syslog.down()


@behaviour
def a_partial_success_is_counted_and_the_stream_goes_on():
    otlp = Otlp()
    # ExportLogsServiceResponse { partial_success { rejected_log_records: 2, error_message: "too old" } }
    message = b"\x08\x02\x12\x07too old"
    otlp.answer = b"\x0a" + bytes([len(message)]) + message
    with gateway("partial", f'\n[[stream]]\nname = "otlp"\nto = "otlp+http://127.0.0.1:{otlp.port}"\nformat = "ocsf"\n') as g:
        otlp.up(g)
        work(g, 3)
        everything(g, [otlp])
        until("it is counted", lambda: int(g.metrics()['sallyport_stream_rejected_total{stream="otlp"}']) >= 2)
        otlp.down()


@behaviour
def a_filtered_stream_and_a_changed_one():
    lines = Lines()
    # A token that is wrong: the receiver refuses, nothing is left out, and it goes on when it is right.
    stream = (f'\n[[stream]]\nname = "only"\nto = "http://127.0.0.1:{lines.port}/services/collector/raw"\nformat = "ecs"\n'
              'kinds = ["request"]\nheaders = { Authorization = "file:hec" }\n')
    g = Gateway("filtered", stream)
    (g.dir / "hec").write_text("Splunk wrong\n")
    g.start()
    try:
        lines.up(g)
        work(g, 5)
        until("it is refused", lambda: int(g.metrics().get('sallyport_stream_failures_total{stream="only"}', 0)) > 0)
        same(lines.indices(), [])
        (g.dir / "hec").write_text("Splunk t0ken\n")
        wanted = [entry["index"] for entry in entries(g) if entry["event"] == "request"]
        until("all requests", lambda: sorted(set(lines.indices())) == wanted, 60)
        config = g.dir / "sallyport.toml"
        config.write_text(config.read_text().replace('kinds = ["request"]', 'kinds = ["outcome"]'))
        until("it says that it waits", lambda: int(g.metrics()["sallyport_waiting_for_restart"]) == 1)
        lines.down()
    finally:
        g.stop()


def main():
    call(ROOT / "scripts/pg", "start", PG)
    try:
        run(lambda function: function())
    finally:
        call(ROOT / "scripts/pg", "stop", PG, check=False)


if __name__ == "__main__":
    main()
