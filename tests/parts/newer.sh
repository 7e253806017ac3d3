# shellcheck shell=bash
# newer: servers newer than Debian's, and what a newer libpq says to them and to Debian's: protocol 3.2, direct TLS.

NEWER_SUITES=(psql psycopg3 asyncpg jdbc pgx)

part_newer() {
  local version
  for version in "${NEWER_VERSIONS[@]}"; do
    [ -z "${1:-}" ] || [ "$1" = "${version%%.*}" ] || continue
    if pg_archive "$version" >/dev/null; then newer_server "$version"; else
      check "newer:${version%%.*}" echo "skip newer: PostgreSQL $version is not here; scripts/test setup fetches it"
    fi
  done
  # The same against Debian's server, which knows protocol 3.0 only.
  servers
  [ -n "${1:-}" ] || check newer:protocol run_protocol
}

newer_server() { # VERSION
  local major=${1%%.*} suite
  local AT=$SCRATCH/newer-$major PG_VERSION=$1
  export PG_VERSION
  mkdir -p "$AT"
  servers
  for suite in "${NEWER_SUITES[@]}"; do check "newer-$major:$suite" run_suite "tests/clients/$suite/run" "suite-$suite"; done
  check "newer-$major:pgbench" run_pgbench
  check "newer-$major:protocol" run_protocol
  [ "${DIRECT:-0}" = 1 ] || check "newer-$major:log" no_surprises
  stop_servers "$AT"
}

run_protocol() {
  target suite-protocol app || return 1
  timeout --kill-after=10 300 "$VENV/bin/python" tests/clients/psycopg3/protocol.py
}
