"""The table of docs/performance.md. Run by scripts/bench."""

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import audit
import measure
from plot import bars
from servers import ROOT, Servers


@dataclass
class Scale:
    """How long and how much."""
    # Of transfers and logins.
    rounds: int
    seconds: int
    # Of pgbench: more and shorter, since ratios are taken within a round.
    turns: int
    slice: int
    rows: int
    sessions: int
    # Of the log.
    entries: int


FULL = Scale(rounds=5, seconds=6, turns=16, slice=2, rows=1_000_000, sessions=5000, entries=10_000_000)
QUICK = Scale(rounds=1, seconds=3, turns=3, slice=1, rows=250_000, sessions=1000, entries=1_000_000)

PARTS = {
    "pgbench": lambda s, scale: measure.pgbench(s, scale) + measure.pgbench(s, scale, tls=True),
    "rows": measure.rows,
    "logins": measure.logins,
    "idle": measure.idle,
    "recording": measure.recording,
    "appends": audit.appends,
    "log": audit.log,
    "find": audit.find,
}

# Names of several parts.
GROUPS = {"audit": ["appends", "log", "find"]}

# Columns of each part: key, heading, format.
COLUMNS = {
    "pgbench": [("cpu_us", "CPU µs/tx", ".1f"), ("ratio", "× PgBouncer", ".2f"), ("error", "±", ".2f"), ("tps", "tx/s", ".0f"), ("p50_us", "p50 µs", ".0f"), ("p99_us", "p99 µs", ".0f")],
    "rows": [("mb", "MB", ".0f"), ("cpu_s", "CPU s", ".2f"), ("ratio", "× PgBouncer", ".2f"), ("ns_per_row", "ns/row", ".0f"), ("mb_per_core_s", "MB/s per core", ".0f"), ("seconds", "s", ".2f")],
    "logins": [("per_second", "logins/s", ".0f"), ("cpu_us", "CPU µs/login", ".0f"), ("ratio", "× PgBouncer", ".2f"), ("p50_ms", "p50 ms", ".1f"), ("p99_ms", "p99 ms", ".1f")],
    "idle": [("sessions", "sessions", ".0f"), ("kib_each", "KiB each", ".1f"), ("mib", "MiB in all", ".0f"), ("idle_cpu_share", "CPU share idle", ".3f"), ("alive", "alive", "")],
    "recording": [("cpu_us", "CPU µs/tx", ".1f"), ("ratio", "× write", ".2f"), ("error", "±", ".2f"), ("tps", "tx/s", ".0f"), ("p50_us", "p50 µs", ".0f"), ("p99_us", "p99 µs", ".0f")],
    "appends": [("per_second", "entries/s", ".0f"), ("append_cpu_us", "CPU µs, callers", ".1f"), ("cpu_us", "CPU µs, all in", ".1f"), ("ratio", "× bare RocksDB", ".2f"), ("per_fsync", "entries/fsync", ".1f")],
    "log": [("value", "", ".2f"), ("unit", "", "")],
    "find": [("found", "found", ".0f"), ("cold_ms", "cold ms", ".1f"), ("cold_cpu_ms", "CPU ms", ".1f"), ("warm_ms", "warm ms", ".1f"), ("warm_cpu_ms", "CPU ms", ".1f")],
}


def show(value, form):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return format(value, form)


def foot(scale):
    return f"{machine()}; medians of {scale.rounds} rounds, {scale.turns} of pgbench; ratios are taken within a round, ± is their standard error"


def table(part, lines):
    """Markdown: for people, and for docs/performance.md as it is."""
    columns = COLUMNS[part]
    cells = [["", ""] + [heading for _, heading, _ in columns]]
    last = None
    for line in lines:
        cells.append([line["what"] if line["what"] != last else "", line["way"]] + [show(line.get(key), form) for key, _, form in columns])
        last = line["what"]
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    pad = lambda row: "| " + " | ".join(c.ljust(w) if at < 2 else c.rjust(w) for at, (c, w) in enumerate(zip(row, widths))) + " |"
    rule = "|" + "|".join("-" * (w + 1) + ("-" if at < 2 else ":") for at, w in enumerate(widths)) + "|"
    return "\n".join([pad(cells[0]), rule] + [pad(row) for row in cells[1:]])


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} × {model}, Linux {platform.release().split('-')[0]}"


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    wanted = [part for name in arguments.only.split(",") for part in GROUPS.get(name, [name])]
    for part in wanted:
        if part not in PARTS:
            parser.error(f"no part is called {part}; there are: {', '.join([*PARTS, *GROUPS])}")
    servers = Servers(scale.rows)
    results = {}
    for part in wanted:
        results[part] = PARTS[part](servers, scale)
        if not arguments.json:
            print(f"\n{table(part, results[part])}", flush=True)
    if arguments.json:
        json.dump({"machine": machine(), "scale": vars(scale), "results": results}, sys.stdout, indent=2)
        print()
    else:
        print(f"\n{foot(scale)}")
    out = Path(ROOT) / "benches/results"
    if not arguments.quick:
        out.mkdir(exist_ok=True)
    if "log" in results and not arguments.quick:
        (out / "audit.md").write_text("\n\n".join(table(part, results[part]) for part in GROUPS["audit"] if part in results)
                                      + f"\n\n{machine()}\n")
    if "pgbench" in results and not arguments.quick:
        (out / "cpu.svg").write_text(bars("CPU of the proxy per transaction, µs (pgbench -S -c 8)", results["pgbench"], "cpu_us"))
        (out / "table.md").write_text("\n\n".join(table(part, lines) for part, lines in results.items())
                                      + f"\n\n{foot(scale)}\n")


main()
