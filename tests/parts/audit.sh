# shellcheck shell=bash
# audit: the log as evidence. Its published form is verified by tools that others wrote; its witnesses are theirs as well.
# audit:sealing: its payloads as ciphertext, and secrets of Vault and Key Vault.

part_audit() {
  mkdir -p "$SCRATCH/audit" "$SCRATCH/sealing"
  ! has_behaviour suite "${1:-}" || LIMIT=1200 check audit run_audit "${1:-}"
  ! has_behaviour sealing "${1:-}" || LIMIT=600 check audit:sealing run_sealing "${1:-}"
  [ -n "${1:-}" ] || LIMIT=900 check audit:witness "$ROOT/tests/tlog/witness.sh"
}

has_behaviour() { # SUITE NAME: it has that one; without a name: it has some
  [ -z "$2" ] || grep -q "^def $2(" "$ROOT/tests/audit/$1.py"
}

run_audit() {
  export ROOT SALLYPORT LOADGEN TLOG_GO=$CACHE/verify-go
  # shellcheck disable=SC2086
  SCRATCH=$SCRATCH/audit timeout --kill-after=10 "$LIMIT" "$VENV/bin/python" "$ROOT/tests/audit/suite.py" ${1:-}
}

run_sealing() {
  export ROOT SALLYPORT TLOG_GO=$CACHE/verify-go
  # shellcheck disable=SC2086
  SCRATCH=$SCRATCH/sealing timeout --kill-after=10 "$LIMIT" "$VENV/bin/python" "$ROOT/tests/audit/sealing.py" ${1:-}
}
