# shellcheck shell=bash
# faults: what goes wrong in the world. demo: the demonstration as CI runs it.

part_faults() {
  mkdir -p "$SCRATCH/faults"
  LIMIT=1200 check faults run_faults "${1:-}"
}

run_faults() {
  export ROOT SALLYPORT LOADGEN
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
  # shellcheck disable=SC2086
  SCRATCH=$SCRATCH/faults timeout --kill-after=10 "$LIMIT" "$VENV/bin/python" "$ROOT/tests/faults/suite.py" ${1:-}
}

part_demo() {
  LIMIT=1800 check demo "$ROOT/scripts/demo" --once
}
