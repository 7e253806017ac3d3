# shellcheck shell=bash
# pgtools: PostgreSQL's own programs: pg_dump, pg_restore, pgbench.

part_pgtools() {
  servers
  check pgtools:pgbench run_pgbench
  check pgtools:pg_dump run_pg_dump
}

use_target() { # ROLE CONNECTION
  target "tool-${1//,/-}" "$1" "$2" || return 1
  export PGHOST=$SP_HOST PGPORT=$SP_PORT PGUSER=$SP_USER PGPASSWORD=$SP_PASSWORD PGDATABASE=$SP_DB
  export PGSSLMODE=verify-full PGSSLROOTCERT=$SP_SSLROOTCERT
}

one() { # NAME COMMAND…: a line for each
  local name=$1 out; shift
  if out=$("$@" 2>&1); then echo "ok $name"; else echo "FAIL $name: $(tail -3 <<<"$out" | tr '\n' ' ')"; fi
}

run_pgbench() {
  local mode bin
  bin=$(pg_bin)
  use_target admin shop || return 1
  for mode in simple extended prepared; do
    one "pgbench_select_$mode" failed_none "$bin/pgbench" -n -S -c 4 -j 2 -t 500 -M "$mode"
    one "pgbench_tpcb_$mode" failed_none "$bin/pgbench" -n -c 4 -j 2 -t 100 -M "$mode"
  done
  one pgbench_pipeline failed_none "$bin/pgbench" -n -c 4 -t 100 -M extended -f "$ROOT/tests/pgtools/pipeline.sql"
  one pgbench_initialize "$bin/pgbench" -i -q -s 1 -I dtgvp
}

# pgbench says how many transactions were processed; none may have failed.
failed_none() {
  local out
  out=$("$@" 2>&1) || { echo "$out"; return 1; }
  grep -q 'number of failed transactions: 0 ' <<<"$out" || { echo "$out"; return 1; }
}

run_pg_dump() {
  local bin work=$SCRATCH/dump
  bin=$(pg_bin)
  mkdir -p "$work"
  use_target admin shop || return 1
  one pg_dump_custom "$bin/pg_dump" -Fc -f "$work/custom"
  one pg_dump_directory_parallel "$bin/pg_dump" -Fd -j 2 -f "$work/directory"
  one pg_dump_inserts "$bin/pg_dump" --inserts -t products -f "$work/inserts.sql"
  one pg_dump_plain "$bin/pg_dump" -f "$work/plain.sql"
  one pg_dump_same_as_direct dump_compare "$work"
  # Restored through the gateway, into a database of its own, then compared with a dump of it.
  (. "$AT/pg/env"
    export PGPORT=$PG_PORT PGUSER=$PG_SUPERUSER PGPASSWORD=$PG_SUPERPASSWORD PGSSLROOTCERT=$PG_CA
    psql -X -q -d postgres -c 'CREATE DATABASE restored OWNER gateway')
  one pg_restore "$bin/pg_restore" -d "$(restored)" -j 2 "$work/custom"
  one pg_restore_same restore_compare "$work"
  if [ "${DIRECT:-0}" != 1 ]; then
    use_target app,dumper shop
    one pg_dump_is_masked dump_masked "$work"
  fi
}

restored() { if [ "${DIRECT:-0}" = 1 ]; then echo restored; else echo shop/restored; fi; }

dump_compare() { # the same bytes as a direct dump
  . "$AT/pg/env"
  PGPORT=$PG_PORT PGUSER=$PG_LOGIN PGPASSWORD=$PG_PASSWORD PGDATABASE=shop PGSSLROOTCERT=$PG_CA "$(pg_bin)/pg_dump" -f "$1/direct.sql" &&
    diff <(grep -v '^\\\(un\)\?restrict' "$1/direct.sql") <(grep -v '^\\\(un\)\?restrict' "$1/plain.sql")
}

restore_compare() {
  "$(pg_bin)/pg_dump" -d "$(restored)" -f "$1/restored.sql" &&
    diff <(grep -v '^\\\(un\)\?restrict' "$1/plain.sql") <(grep -v '^\\\(un\)\?restrict' "$1/restored.sql")
}

# A caller who may not see the classes gets a dump without them.
dump_masked() {
  "$(pg_bin)/pg_dump" -t customers -f "$1/masked.sql" || return 1
  if grep -c 'ada.lovelace@example.com\|4111111111111111' "$1/masked.sql"; then echo "clear values in the dump"; return 1; fi
  grep -q '\*\*\*@e\*\*\*.com' "$1/masked.sql"
}
