# shellcheck shell=bash
# regress: PostgreSQL's own regression statements. Each file of its parallel schedule is run by psql twice directly and
# once through the gateway under an allow-all policy, on databases that are set up alike; the outputs are compared.
# What differs between the two direct runs is not the gateway's doing and is left out line by line.

# Needs what a scratch server does not have, or is about the server's own files, or takes minutes and says nothing about
# the protocol.
REGRESS_LEFT_OUT=(test_setup tablespace sanity_check psql_crosstab password stats sysviews
  vacuum_parallel event_trigger regproc largeobject compression create_index_spgist)

# The folder of those of the server that is installed.
regress_statements() { echo "$CACHE/regress/$("$(pg_bin)/postgres" --version | sed -E 's/.*\(PostgreSQL\) ([0-9]+).*/\1/')"; }

part_regress() {
  servers
  REGRESS=$(regress_statements)
  if [ ! -e "$REGRESS/sql/select.sql" ]; then
    check regress echo "skip regress: PostgreSQL's regression statements are not here; scripts/test setup fetches them"
    return 0
  fi
  LIMIT=3000 check regress run_regress "${1:-}"
}

# One run of one file on one database; the output goes to OUT.
regress_file() { # FILE DATABASE OUT
  PG_ABS_SRCDIR=$REGRESS PG_LIBDIR=$("$(pg_bin)/pg_config" --pkglibdir) PG_DLSUFFIX=.so PG_ABS_BUILDDIR=$SCRATCH/regress/results \
    PGTZ=PST8PDT PGDATESTYLE='Postgres, MDY' PGDATABASE=$2 PGOPTIONS="-c intervalstyle=postgres_verbose" \
    timeout 120 psql -X -a -q -v HIDE_TABLEAM=on -v HIDE_TOAST_COMPRESSION=on <"$REGRESS/sql/$1.sql" >"$3" 2>&1 || true
}

run_regress() {
  local only=$1 file list way out=$SCRATCH/regress same=0 extra
  mkdir -p "$out"/{direct,again,gateway,results}
  chmod 777 "$out/results"
  target regress admin super || return 1
  read -r -d '' -a list < <(sed -n 's/^test: *//p' "$REGRESS/parallel_schedule" | tr ' ' '\n'; printf '\0') || true
  regress_databases
  for file in "${list[@]}"; do
    [[ " ${REGRESS_LEFT_OUT[*]} " != *" $file "* ]] || continue
    [ -z "$only" ] || [ "$only" = "$file" ] || continue
    for way in direct again gateway; do
      regress_way "$way"
      regress_file "$file" "$(regress_name "$way")" "$out/$way/$file"
    done
    regress_compare "$file"
  done
}

regress_name() { # the database's name as that way's client says it
  if [ "$1" = gateway ] && [ "${DIRECT:-0}" != 1 ]; then echo "super/$(regress_database "$1")"; else regress_database "$1"; fi
}

# Names of one length, so that columns are as wide.
regress_database() { case $1 in direct) echo regress_a ;; again) echo regress_b ;; gateway) echo regress_c ;; esac; }

# Points psql at the server or at the gateway.
regress_way() {
  . "$AT/pg/env"
  if [ "$1" = gateway ] && [ "${DIRECT:-0}" != 1 ]; then
    export PGHOST=localhost PGPORT=$SP_PORT PGUSER=$SP_USER PGPASSWORD=$SP_PASSWORD PGSSLMODE=verify-full PGSSLROOTCERT=$SP_SSLROOTCERT
  else
    export PGHOST=localhost PGPORT=$PG_PORT PGUSER=$PG_SUPERUSER PGPASSWORD=$PG_SUPERPASSWORD PGSSLMODE=verify-full PGSSLROOTCERT=$PG_CA
  fi
}

# Three databases as pg_regress makes them, with the tables of test_setup.
regress_databases() {
  local way database
  regress_way direct
  for way in direct again gateway; do
    database=$(regress_database "$way")
    psql -X -q -d postgres -c "DROP DATABASE IF EXISTS $database" -c "CREATE DATABASE $database TEMPLATE template0 LOCALE 'C'"
    psql -X -q -d "$database" -c "ALTER DATABASE $database SET lc_messages TO 'C'" \
      -c "ALTER DATABASE $database SET timezone_abbreviations TO 'Default'" -c "ALTER DATABASE $database SET bytea_output TO 'hex'"
    regress_file test_setup "$database" "$SCRATCH/regress/setup-$way"
  done
}

# Names of databases and ports are not what is compared.
regress_clean() { sed -E 's#(super/)?\bregress_[abc]\b#regress_x#g' "$1"; }

# Refused on purpose: the gateway reads statements by the standard's rules for strings, and fails closed when a session
# turns them off. These files do; what comes before it in them is compared.
REGRESS_REFUSED='the gateway cannot read statements while standard_conforming_strings is off'

# The output before the first such refusal (and before the statement, which psql echoes).
regress_before_refusal() { # FILE WAY
  local out=$SCRATCH/regress lines
  lines=$(grep -n -m1 "$REGRESS_REFUSED" "$out/gateway/$1" | cut -d: -f1)
  regress_clean "$out/$2/$1" | head -n $((lines - 1))
}

regress_compare() { # FILE
  local out=$SCRATCH/regress file=$1 own theirs
  if grep -q "$REGRESS_REFUSED" "$out/gateway/$file" &&
    diff <(regress_before_refusal "$file" direct) <(regress_before_refusal "$file" gateway) >"$out/$file.diff"; then
    echo "ok $file (until it turns standard_conforming_strings off)"
    return 0
  fi
  own=$(diff <(regress_clean "$out/direct/$file") <(regress_clean "$out/again/$file") | grep -c '^[<>]' || true)
  theirs=$(diff <(regress_clean "$out/direct/$file") <(regress_clean "$out/gateway/$file") | grep -c '^[<>]' || true)
  if [ "$theirs" = 0 ]; then
    echo "ok $file"
  elif [ "$own" != 0 ] && diff <(regress_stable "$file" direct) <(regress_stable "$file" gateway) >"$out/$file.diff"; then
    echo "ok $file (but for $own lines that differ between direct runs)"
  else
    diff -U2 <(regress_clean "$out/direct/$file") <(regress_clean "$out/gateway/$file") >"$out/$file.diff"
    echo "FAIL $file: $theirs lines differ; the first: $(grep -m1 -E '^[+][^+]' "$out/$file.diff" | cut -c1-200) instead of $(grep -m1 -E '^-[^-]' "$out/$file.diff" | cut -c1-200)"
  fi
}

# The output without the lines that are not the same in both direct runs.
regress_stable() { # FILE WAY
  local out=$SCRATCH/regress
  grep -vxFf <(diff <(regress_clean "$out/direct/$1") <(regress_clean "$out/again/$1") | sed -n 's/^[<>] //p' | grep .) \
    <(regress_clean "$out/$2/$1") | sed -E 's/[0-9]+/N/g'
}
