"""The measurements. Each returns a list of dicts, one for each line of the table."""

import glob
import json
import math
import os
import re
import statistics
import subprocess
import time

from servers import SCRATCH, cpu, memory, free_port, run


def median(values):
    return statistics.median(values) if values else None


def progress(text):
    import sys
    print(f"  {text}", file=sys.stderr, flush=True)


def pgbench_once(way, mode, seconds, clients=8):
    """One run: transactions, CPU of the proxy, latencies of a sample."""
    for old in glob.glob(str(SCRATCH / "pgbench_log.*")):
        os.unlink(old)
    before = cpu(way.pid) if way.pid else 0.0
    out = run(os.path.join(os.environ["PG_BIN"], "pgbench"), "-n", "-S", "-c", clients, "-j", 2, "-T", seconds, "-M", mode,
              "-l", "--log-prefix", SCRATCH / "pgbench_log", "--sampling-rate", "0.1", env=way.libpq())
    used = cpu(way.pid) - before if way.pid else None
    done = int(re.search(r"transactions actually processed: (\d+)", out).group(1))
    rate = float(re.search(r"tps = ([0-9.]+)", out).group(1))
    times = sorted(int(line.split()[2]) for file in glob.glob(str(SCRATCH / "pgbench_log.*")) for line in open(file))
    return {
        "done": done, "tps": rate, "cpu_us": used / done * 1e6 if used is not None else None,
        "p50_us": times[len(times) // 2] if times else None, "p99_us": times[len(times) * 99 // 100] if times else None,
    }


def in_turns(ways, rounds, measure, ratio_of=None, base="PgBouncer"):
    """Every way once, then every way again: what else the machine does meets all alike. Medians; and of the figure
    `ratio_of` the ratio to that of the way `base`, within each round: their geometric mean, and its standard error."""
    taken = {way.name: [] for way in ways}
    for turn in range(rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            taken[way.name].append(measure(way))
    results = {
        name: {key: median([one[key] for one in runs if one[key] is not None]) for key in runs[0]} for name, runs in taken.items()
    }
    for name, runs in taken.items():
        pairs = [(one[ratio_of], other[ratio_of]) for one, other in zip(runs, taken.get(base, []))] if ratio_of else []
        logs = [math.log(one / other) for one, other in pairs if one and other]
        results[name]["ratio"] = math.exp(statistics.mean(logs)) if logs else None
        several = len(logs) > 1 and name != base
        results[name]["error"] = results[name]["ratio"] * statistics.stdev(logs) / math.sqrt(len(logs)) if several else None
    return results


def pgbench(servers, scale, tls=False):
    """`pgbench -S -c 8` in its three modes."""
    ways = [servers.direct(tls), servers.pgbouncer(tls)] + ([] if tls else [servers.haproxy()]) + [servers.gateway(tls=tls)]
    for way in ways:  # catalogue, caches, pools: everybody warm
        pgbench_once(way, "prepared", 1)
    lines = []
    for mode in ("simple", "extended", "prepared"):
        progress(f"pgbench -S -M {mode}{', TLS' if tls else ''}")
        results = in_turns(ways, scale.turns, lambda way: pgbench_once(way, mode, scale.slice), "cpu_us")
        for name, result in results.items():
            lines.append({"what": f"pgbench -S {mode}" + (", TLS" if tls else ""), "way": name, **result})
    return lines


def rows_once(way, sql, times):
    """Several times: the kernel counts CPU in steps of 10 ms."""
    before = cpu(way.pid) if way.pid else 0.0
    line, env = way.loadgen("rows", "--sql", sql)
    results = [json.loads(run(*line, env=env)) for _ in range(times)]
    used = cpu(way.pid) - before if way.pid else None
    count, megabytes = sum(one["rows"] for one in results), sum(one["bytes"] for one in results) / 1e6
    return {
        "rows": count / times, "mb": megabytes / times, "seconds": median([one["seconds"] for one in results]),
        "cpu_s": used / times if used is not None else None,
        "ns_per_row": used / count * 1e9 if used is not None else None,
        "mb_per_core_s": megabytes / used if used else None,
    }


def rows(servers, scale):
    """A million rows by SELECT and by COPY: nothing to mask; two columns masked."""
    ways = [servers.direct(), servers.pgbouncer(), servers.haproxy(), servers.gateway()]
    lines = []
    for what, sql, among in (
        ("SELECT", "SELECT * FROM bench_clear", ways),
        ("COPY", "COPY bench_clear TO STDOUT", ways),
        ("SELECT, 2 columns masked", "SELECT * FROM bench_masked", ways[3:]),
        ("COPY, 2 columns masked", "COPY bench_masked TO STDOUT", ways[3:]),
    ):
        progress(f"{scale.rows} rows: {what}")
        results = in_turns(among, scale.rounds, lambda way: rows_once(way, sql, 4), "cpu_s")
        lines += [{"what": what, "way": name, **result} for name, result in results.items()]
    return lines


def logins(servers, scale):
    """New connections a second, inside TLS: token through the gateway, password in clear through PgBouncer."""
    ways = [servers.direct(True), servers.pgbouncer(True), servers.gateway(tls=True)]

    def once(way):
        before = cpu(way.pid) if way.pid else 0.0
        line, env = way.loadgen("connect", "--seconds", scale.seconds, "--clients", 4)
        result = json.loads(run(*line, env=env))
        used = cpu(way.pid) - before if way.pid else None
        return {**result, "cpu_us": used / result["logins"] * 1e6 if used is not None and result["logins"] else None}

    progress("logins with TLS")
    results = in_turns(ways, scale.rounds, once, "cpu_us")
    return [{"what": "logins, TLS", "way": name, **result} for name, result in results.items()]


def idle(servers, scale):
    """Memory for each of thousands of idle sessions, TLS on both sides, in front of a server that has nothing to say."""
    progress(f"{scale.sessions} idle sessions")
    port = free_port()
    tls = SCRATCH / "pg/tls"
    upstream = subprocess.Popen(
        [os.environ["LOADGEN"], "upstream", "--port", str(port), "--certificate", str(tls / "server.pem"), "--key", str(tls / "server.key"),
         "--real", servers.pg["PG_PORT"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        upstream.stdout.readline()
        extra = "\n[limits]\nconnections_per_principal_max = 20000\nconnections_max = 20000\n"
        way = servers.gateway("gateway-idle", tls=True, extra=extra, UPSTREAM_TLS="verify-full", UPSTREAM_PORT=str(port))
        line, env = way.loadgen("idle", "--sessions", 100)
        warm = subprocess.Popen(line, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        warm.stdout.readline()
        warm.stdin.close()
        warm.wait(30)
        time.sleep(1)
        before = memory(way.pid)
        line, env = way.loadgen("idle", "--sessions", scale.sessions)
        opened = subprocess.Popen(line, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        count = json.loads(opened.stdout.readline() or '{"sessions": 0}')["sessions"]
        time.sleep(3)
        after, spent = memory(way.pid), cpu(way.pid)
        time.sleep(5)
        spent = (cpu(way.pid) - spent) / 5
        opened.stdin.close()
        alive = opened.wait(60) == 0
    finally:
        upstream.stdin.close()
        upstream.wait(30)
    return [{"what": "idle sessions, TLS on both sides", "way": "gateway", "sessions": count, "alive": alive,
             "kib_each": (after - before) / count if count else None, "mib": after / 1024, "idle_cpu_share": spent}]


def recording(servers, scale):
    """The cost of an entry on the disk before the statement is forwarded."""
    ways = [servers.gateway("gateway"), servers.gateway("gateway-sync", extra='\n[audit]\ndurability = "sync"\n')]
    ways[1].name = "gateway, sync"
    progress("recording: write and sync")
    results = in_turns(ways, scale.turns, lambda way: pgbench_once(way, "prepared", scale.slice), "cpu_us", base="gateway")
    return [{"what": "pgbench -S prepared", "way": "durability = " + ('"sync"' if "sync" in name else '"write"'), **result}
            for name, result in results.items()]
