"""What a profile of the gateway is taken of: the work that scripts/bench measures, each kind for a few seconds.

Needs ROOT, SCRATCH, PG_BIN and SALLYPORT, as bench.py; SALLYPORT was compiled to count (see scripts/dist).
"""

import os

from servers import SCRATCH, Servers, read_env, run, script

SECONDS = 5


def pgbench(way, *arguments):
    run("pgbench", "-n", "-c", "8", "-j", "2", "-T", str(SECONDS), *arguments, env=way.libpq())


def main():
    all_servers = Servers(100_000)
    plain, tls = all_servers.gateway(), all_servers.gateway(tls=True)
    for way in (plain, tls):
        for protocol in ("simple", "extended", "prepared"):
            pgbench(way, "-S", "-M", protocol)
        for rows in ("SELECT * FROM bench_clear", "SELECT * FROM bench_masked", "COPY bench_clear TO STDOUT",
                     "COPY bench_masked TO STDOUT"):
            run("psql", "-X", "-q", "-o", "/dev/null", "-c", rows, env=way.libpq())
    # Statements that write, transactions, and a login for each.
    pgbench(plain, "-M", "prepared")
    pgbench(plain, "-M", "simple")
    pgbench(tls, "-S", "-C")
    config = read_env(SCRATCH / "gateway/env")["GW_CONFIG"]
    run(os.environ["SALLYPORT"], "-c", config, "audit", "verify", "--json")
    # Counts are written when it ends well.
    script("gateway", "stop", SCRATCH / "gateway")


if __name__ == "__main__":
    main()
