#!/usr/bin/env bash
# Witnesses against implementations that others wrote (tests/tlog/witness-go): their client asks `sallyport witness`; the
# gateway's client asks litewitness and transparency-dev/witness, and what it publishes is verified by their code.
# Prints `ok NAME`, `FAIL NAME: why` or `skip NAME: why`. Needs Go 1.25, its module proxy, and cargo.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
. "$ROOT/tests/parts/setup.sh"
scratch
export CARGO_TERM_COLOR=never
FAILED=0
CHECK=$SCRATCH/witness-check LITEWITNESS=$SCRATCH/litewitness
CLIENT=$CARGO_TARGET_DIR/release/examples/witness_client

report() { # NAME [WHY]: a check went well, or not
  if [ $# = 1 ]; then echo "ok $1"; else echo "FAIL $1: $2"; FAILED=1; fi
}

build() {
  cargo build --quiet --release --locked --package sallyport --bin sallyport --example witness_client
  (cd "$ROOT/tests/tlog/witness-go" && "$(go_command)" build -o "$CHECK" . &&
    "$(go_command)" build -o "$LITEWITNESS" filippo.io/torchwood/cmd/litewitness)
}

# start NAME PORT COMMAND…: in the background until the script ends; its output in files.
start() {
  local name=$1 port=$2; shift 2
  "$@" >"$SCRATCH/$name.out" 2>"$SCRATCH/$name.err" &
  PID=$!
  on_exit stop_process "$PID"
  wait_port "$port" 20 "$PID" || { report "$name starts" "$(tail -n 2 "$SCRATCH/$name.err" | tr '\n' ' ')"; exit 1; }
}

# first_line FILE: as soon as there is one.
first_line() {
  for _ in {1..100}; do
    if [ -s "$1" ]; then head -n 1 "$1"; return; fi
    sleep 0.1
  done
  return 1
}

# their_client: transparency-dev's client against our witness.
their_client() {
  local port key out
  port=$(free_port)
  start witness "$port" "$SALLYPORT" witness --dir "$SCRATCH/witness" --name witness.example --address "127.0.0.1:$port" \
    --log "$("$CHECK" log-key)"
  key=$(first_line "$SCRATCH/witness.out")
  out=$("$CHECK" client "http://127.0.0.1:$port" "$key" "$SCRATCH/witness/key" 2>&1) || report "their client" "${out##*$'\n'}"
  sed -E 's/^(ok|FAIL) /\1 sallyport witness: /' <<<"$out"
  if grep -q '^FAIL ' <<<"$out"; then FAILED=1; fi
}

# our_client NAME PORT KEY: the gateway's client against a witness that knows its log.
our_client() {
  local name=$1 url=http://127.0.0.1:$2 key=$3 what expected command sizes got log
  log=$("$CLIENT" key)
  if got=$("$CLIENT" cosign "$url" "$key" 0 1 7 64 150 150 2>&1) && got=$("$CHECK" verify "$log" "$key" <<<"$got" 2>&1) &&
    [ "$got" = 150 ]; then report "$name cosigns, and others verify it"; else report "$name cosigns, and others verify it" "$got"; fi
  # A new process knows nothing of what the witness has cosigned.
  if got=$("$CLIENT" cosign "$url" "$key" 200 2>&1) && got=$("$CHECK" verify "$log" "$key" <<<"$got" 2>&1) &&
    [ "$got" = 200 ]; then report "$name tells where to start"; else report "$name tells where to start" "$got"; fi
  while IFS='|' read -r what expected command sizes; do
    # shellcheck disable=SC2086
    got=$("$CLIENT" $command "$url" "$key" $sizes 2>&1) && got="it was cosigned"
    if [ "$got" = "$expected" ]; then report "$name: $what"; else report "$name: $what" "$got"; fi
  done <<<"a restored log is told|Ahead { size: 200 }|cosign|199
another history is told|Forked { size: 200 }|fork|200
another history that goes on is told|Forked { size: 200 }|fork|300"
  got=$("$CLIENT" cosign "$url" "$("$SALLYPORT" witness --dir "$SCRATCH/stranger" --name other.example --print-key)" 250 2>&1) || true
  if [ "$got" = "Cosignature(Unsigned)" ]; then report "$name: another key is not believed"; else report "$name: another key is not believed" "$got"; fi
}

litewitness() {
  local port fingerprint key
  port=$(free_port)
  "$CHECK" database "$SCRATCH/lite.db" "$("$CLIENT" key)"
  "$CHECK" agent "$SCRATCH/agent" >"$SCRATCH/agent.out" 2>&1 &
  on_exit stop_process "$!"
  fingerprint=$(first_line "$SCRATCH/agent.out")
  start litewitness "$port" "$LITEWITNESS" -name lite.example -db "$SCRATCH/lite.db" -ssh-agent "$SCRATCH/agent" \
    -key "$fingerprint" -listen "127.0.0.1:$port"
  key=$(sed -nE 's/.*msg="verifier key" vkey="?([^" ]+)"?.*/\1/p' "$SCRATCH/litewitness.err" | head -n 1)
  our_client litewitness "$port" "$key"
}

transparency_dev() {
  local port
  port=$(free_port)
  start transparency-dev "$port" "$CHECK" witness "127.0.0.1:$port" "$("$CLIENT" key)"
  our_client transparency-dev "$port" "$(first_line "$SCRATCH/transparency-dev.out")"
}

ours() {
  local port
  port=$(free_port)
  start ours "$port" "$SALLYPORT" witness --dir "$SCRATCH/ours" --name ours.example --address "127.0.0.1:$port" \
    --log "$("$CLIENT" key)"
  our_client "sallyport witness" "$port" "$(first_line "$SCRATCH/ours.out")"
}

# durable: in the order of its system calls, the file is synced, renamed, and its folder synced, and then it is answered. A
# log's file was written once before, when the witness first knew of the log.
durable() {
  local port calls=$SCRATCH/calls
  if ! strace -o /dev/null true 2>/dev/null; then echo "skip sallyport witness: on the disk before the answer: strace is not here, or may not trace"; return; fi
  port=$(free_port)
  start traced "$port" strace -D -f -s 32 -e trace=openat,fsync,rename,renameat,renameat2,write,writev,sendto,sendmsg -o "$calls" \
    "$SALLYPORT" witness --dir "$SCRATCH/traced" --name traced.example --address "127.0.0.1:$port" --log "$("$CLIENT" key)"
  "$CLIENT" cosign "http://127.0.0.1:$port" "$(first_line "$SCRATCH/traced.out")" 9 >/dev/null
  stop_process "$PID"
  if awk '/openat\(.*\.note\.new".*O_CREAT/ { opened = NR } /fsync/ { synced = NR } /rename.*\.note"/ { renames++; renamed = NR; file = synced > opened }
    /HTTP\/1\.1 200/ { answered = NR; exit } END { exit !(renames == 2 && file && synced > renamed && answered > synced) }' "$calls"; then
    report "sallyport witness: on the disk before the answer"
  else report "sallyport witness: on the disk before the answer" "$(grep -nE 'fsync|rename|HTTP' "$calls" | tail -n 12 | tr '\n' ' ')"; fi
}

build
their_client
durable
ours
litewitness
transparency_dev
exit "$FAILED"
