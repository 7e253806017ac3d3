# shellcheck shell=bash
# audit: the log as evidence. Its published form is verified by tools that others wrote; its witnesses are theirs as well.

part_audit() {
  mkdir -p "$SCRATCH/audit"
  LIMIT=1200 check audit run_audit "${1:-}"
  [ -n "${1:-}" ] || LIMIT=1200 check audit:shipping run_shipping
  [ -n "${1:-}" ] || LIMIT=900 check audit:witness "$ROOT/tests/tlog/witness.sh"
}

run_audit() {
  export ROOT SALLYPORT LOADGEN TLOG_GO=$CACHE/verify-go
  # shellcheck disable=SC2086
  SCRATCH=$SCRATCH/audit timeout --kill-after=10 "$LIMIT" "$VENV/bin/python" "$ROOT/tests/audit/suite.py" ${1:-}
}

# In two scratch folders: each has a PostgreSQL of its own.
run_shipping() {
  export ROOT SALLYPORT TLOG_GO=$CACHE/verify-go AZURITE=$CACHE/azurite/node_modules/.bin/azurite-blob
  mkdir -p "$SCRATCH/shipping"
  SCRATCH=$SCRATCH/shipping timeout --kill-after=10 "$LIMIT" "$VENV/bin/python" "$ROOT/tests/audit/shipping.py"
}
