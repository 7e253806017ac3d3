# shellcheck shell=bash
# audit: the log as evidence. Its published form is verified by tools that others wrote, its exports are read by them; its
# witnesses and the receivers of its streams are theirs as well, and so are the storage that it is shipped to and the vaults
# that its keys are in, as far as they can be had.

AUDIT_SUITES=(suite export shipping sealing)

part_audit() {
  local suite
  for suite in "${AUDIT_SUITES[@]}"; do
    [ -z "${1:-}" ] || grep -q "^def $1(" "$ROOT/tests/audit/$suite.py" || continue
    LIMIT=1200 check "audit:$suite" run_audit "$suite" "${1:-}"
  done
  [ -n "${1:-}" ] || LIMIT=900 check audit:witness "$ROOT/tests/tlog/witness.sh"
}

# run_audit SUITE [BEHAVIOUR]
run_audit() {
  export ROOT SALLYPORT LOADGEN TLOG_GO=$CACHE/verify-go AZURITE=$CACHE/azurite/node_modules/.bin/azurite-blob
  mkdir -p "$SCRATCH/audit/$1"
  # shellcheck disable=SC2086
  SCRATCH=$SCRATCH/audit/$1 timeout --kill-after=10 "$LIMIT" "$VENV/bin/python" "$ROOT/tests/audit/$1.py" ${2:-}
}
