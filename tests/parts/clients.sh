# shellcheck shell=bash
# clients: the suites of tests/clients.

# servers: one PostgreSQL and, unless DIRECT=1, one gateway in the folder $AT: the scratch folder, where all parts share
# them, unless a part has its own.
servers() {
  AT=${AT:-$SCRATCH}
  [ ! -e "$AT/pg" ] || return 0
  local name=servers${PG_VERSION:+-${PG_VERSION%%.*}}
  on_exit stop_servers "$AT"
  check "$name:postgresql" start_postgresql
  [ "${DIRECT:-0}" = 1 ] || check "$name:gateway" start_gateway
  # The policies of the suites decide as they are meant to, with the file's tables and with the server's own.
  [ "${DIRECT:-0}" = 1 ] || check "$name:policies" test_policies
}

start_postgresql() { "$ROOT/scripts/pg" start "$AT/pg" max_connections=300; }

start_gateway() { "$ROOT/scripts/gateway" start "$AT/gateway" "$AT/pg"; }

test_policies() {
  "$SALLYPORT" -c "$AT/gateway/sallyport.toml" policy test "$ROOT/tests/policies/policy-tests.toml" &&
    "$SALLYPORT" -c "$AT/gateway/sallyport.toml" policy test "$ROOT/tests/policies/policy-tests.toml" --connect
}

stop_servers() { # FOLDER
  [ ! -e "$1/gateway/pid" ] || "$ROOT/scripts/gateway" stop "$1/gateway" >/dev/null 2>&1
  [ ! -e "$1/pg/env" ] || "$ROOT/scripts/pg" stop "$1/pg" >/dev/null 2>&1
}

# target SUBJECT ROLE [CONNECTION]: sets what suites read, for a caller of that role; with DIRECT=1 for the server itself.
target() {
  [ -e "$AT/pg/env" ] || { echo "PostgreSQL did not start"; return 1; }
  . "$AT/pg/env"
  export SP_HOST=localhost SP_DB=${3:-shop} DIRECT=${DIRECT:-0}
  if [ "$DIRECT" = 1 ]; then
    export SP_PORT=$PG_PORT SP_USER=$PG_LOGIN SP_PASSWORD=$PG_PASSWORD SP_SSLROOTCERT=$PG_CA
    [ "$SP_DB" != super ] || export SP_DB=postgres SP_USER=$PG_SUPERUSER SP_PASSWORD=$PG_SUPERPASSWORD
  else
    [ -e "$AT/gateway/pid" ] || { echo "the gateway did not start"; return 1; }
    . "$AT/gateway/env"
    export SP_PORT=$GW_PORT SP_USER=$1 SP_SSLROOTCERT=$GW_CA SP_SALLYPORT=$SALLYPORT SP_CONFIG=$GW_CONFIG
    # Roles are separated by commas.
    # shellcheck disable=SC2086
    SP_PASSWORD=$("$ROOT/scripts/gateway" token "$AT/gateway" "$1" --role ${2//,/ --role }) || return 1
    export SP_PASSWORD
  fi
  export SP_PYTHON=$VENV/bin/python SP_NODE_MODULES=$CACHE/node/node_modules SP_PGX=$CACHE/pgx-suite
  export SP_PGJDBC=$CACHE/java/postgresql-$PGJDBC_VERSION.jar
}

part_clients() {
  local suite name
  servers
  for suite in tests/clients/*/run; do
    name=$(basename "$(dirname "$suite")")
    [ -z "${1:-}" ] || [ "$1" = "$name" ] || continue
    check "clients:$name" run_suite "$suite" "suite-$name"
  done
  if [ -z "${1:-}" ] || [ "$1" = tokio-postgres ]; then check clients:tokio-postgres run_tokio_postgres; fi
  # The gateway is still what it was: nothing in its log that nobody expects.
  [ "${DIRECT:-0}" = 1 ] || check clients:log no_surprises
}

run_suite() { # FILE SUBJECT
  local roles=app
  # Migrations change tables and read them in one transaction, which nobody may from whom a class is hidden.
  case $2 in suite-alembic | suite-django) roles=app,migrator; export SP_UNMASKED=1 ;; esac
  target "$2" "$roles" || return 1
  timeout --kill-after=10 600 "$1"
}

run_tokio_postgres() {
  target suite-tokio app || return 1
  timeout --kill-after=10 900 cargo test --release --locked -p e2e
}

# No panic and no invariant violated, in anything that the gateway said.
no_surprises() {
  local log=$AT/gateway/log/gateway.log
  if grep -aiE 'panicked|internal error|BUG' "$log" | head -5 | grep .; then return 1; fi
}
