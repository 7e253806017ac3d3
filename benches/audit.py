"""The log by itself: what an entry costs beside others' ways to keep it, its size, and how soon it is found.

The programs are examples of crates/audit-store: $EXAMPLES/append_cost and $EXAMPLES/scale."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

from measure import pgbench_once, progress
from servers import SCRATCH, run, script


def lines(program, *arguments, may_die=False):
    """What an example prints: a JSON object in each line."""
    done = subprocess.run([Path(os.environ["EXAMPLES"]) / program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0 and not may_die:
        raise SystemExit(f"bench: {program} {' '.join(map(str, arguments))} failed:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def process_cpu(work):
    """CPU seconds and wall seconds."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return time.process_time() - cpu, time.monotonic() - wall


def sqlite(durability, threads, entries):
    """A row of 300 bytes in a transaction of its own, WAL mode, through Python's module. The share of Python, taken from
    statements that store nothing, is left out."""
    file, content = SCRATCH / "sqlite.db", bytes(300)
    sync = "NORMAL" if durability == "write" else "FULL"

    def connect():
        db = sqlite3.connect(file, isolation_level=None, timeout=60)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {sync}")
        return db

    def on_threads(statement):
        def work():
            db = connect()
            for number in range(entries // threads):
                db.execute(statement, (content,))
        pool = [threading.Thread(target=work) for _ in range(threads)]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()

    db = connect()
    db.execute("CREATE TABLE log (number INTEGER PRIMARY KEY, leaf BLOB)")
    python, _ = process_cpu(lambda: on_threads("SELECT ?"))
    cpu, wall = process_cpu(lambda: on_threads("INSERT INTO log (leaf) VALUES (?)"))
    stored = db.execute("SELECT count(*) FROM log").fetchone()[0]
    db.close()
    for name in SCRATCH.glob("sqlite.db*"):
        name.unlink()
    return {"way": "SQLite, WAL", "durability": durability, "threads": threads, "per_second": stored / wall,
            "cpu_us": (cpu - python) * 1e6 / stored}


def appends(servers, scale):
    """Appends per second, and CPU of each, with 1, 8 and 64 threads."""
    progress("appends")
    folder = SCRATCH / "appends"
    found = lines("append_cost", folder)
    shutil.rmtree(folder, ignore_errors=True)
    table = []
    for durability, entries in (("write", 40_000), ("sync", 4_000)):
        for threads in (1, 8, 64):
            mine = [line for line in found if line["durability"] == durability and line["threads"] == threads]
            mine.append(sqlite(durability, threads, entries))
            bare = next(line["cpu_us"] for line in mine if line["way"] == "bare RocksDB")
            for line in mine:
                table.append({**line, "what": f"{durability}, {threads} sessions", "ratio": line["cpu_us"] / bare if bare else None})
    return table


def log(servers, scale):
    """A log of 10 million entries: filled once, killed, opened; and what a statement of a real gateway takes."""
    progress(f"a log of {scale.entries} entries")
    folder = SCRATCH / "scale"
    shutil.rmtree(folder, ignore_errors=True)
    fill = lines("scale", "fill", folder, scale.entries, may_die=True)[0]
    restart, disk = lines("scale", "restart", folder)
    verify = lines("scale", "verify", folder)[0]
    reindex = lines("scale", "reindex", folder)[0]
    entries = fill["entries"]
    table = [
        {"what": "filled", "way": "CPU of an entry, all in", "value": fill["all_cpu_us"], "unit": "µs"},
        {"what": "", "way": "of that the index thread", "value": fill["index_cpu_us"], "unit": "µs"},
        {"what": "restarted after kill -9", "way": "accepts entries after", "value": restart["accepting_s"], "unit": "s"},
        {"what": "", "way": "most memory of opening and indexing", "value": restart["rss_kib"] / 1024, "unit": "MiB"},
        {"what": "size", "way": "each statement with its outcome, all in", "value": disk["bytes"] * 2 / entries, "unit": "bytes"},
    ]
    table += [{"what": "", "way": f"of that {family['name']}", "value": family["bytes"] * 2 / entries, "unit": "bytes"}
              for family in disk["families"] if family["bytes"] > 10_000]
    table += [
        {"what": "read whole", "way": "verified in", "value": verify["seconds"], "unit": "s"},
        {"what": "", "way": "most memory", "value": verify["most_kib"] / 1024, "unit": "MiB"},
        {"what": "index made anew", "way": "in", "value": reindex["seconds"], "unit": "s"},
        {"what": "", "way": "most memory", "value": reindex["most_kib"] / 1024, "unit": "MiB"},
        real(servers, scale),
    ]
    return table


def real(servers, scale):
    """Bytes that the log of a real gateway takes for each statement of pgbench."""
    progress("a log of a real gateway")
    way = servers.gateway("gateway-log")
    folder = SCRATCH / "gateway-log"
    done = 0
    for mode in ("simple", "extended", "prepared"):
        done += pgbench_once(way, mode, scale.seconds * 2)["done"]
    script("gateway", "stop", folder)
    servers.gateways.pop("gateway-log")
    size = sum(file.stat().st_size for file in (folder / "data/audit").iterdir() if file.suffix in (".sst", ".blob"))
    return {"what": "a real gateway's log", "way": f"each of {done} statements of pgbench -S", "value": size / done, "unit": "bytes"}


def find(servers, scale):
    """The first page of every filter, over the log of `log`."""
    folder = SCRATCH / "scale"
    if not folder.exists():
        log(servers, scale)
    progress("first pages of every filter")
    # Once more, cold: what the page cache of the kernel has not got is another disk's matter.
    found = lines("scale", "find", folder)
    shutil.rmtree(folder, ignore_errors=True)
    table = []
    for what in ("entries", "sessions", "story"):
        names = dict.fromkeys(line["filter"] for line in found if line["what"] == what)
        for name in names:
            rounds = [line for line in found if line["what"] == what and line["filter"] == name]
            cold = next(line for line in rounds if line["round"] == "cold")
            warm = min((line for line in rounds if line["round"] == "warm"), key=lambda line: line["cpu_ms"])
            table.append({"what": what, "way": name, "found": cold["found"], "cold_ms": cold["ms"], "cold_cpu_ms": cold["cpu_ms"],
                          "warm_ms": warm["ms"], "warm_cpu_ms": warm["cpu_ms"]})
    memory = next(line for line in found if line["what"] == "memory")
    table.append({"what": "memory", "way": "most of all that, MiB", "found": memory["most_kib"] / 1024})
    return table
