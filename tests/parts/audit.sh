# shellcheck shell=bash
# audit: the log as evidence. Its published form is verified by tools that others wrote.

part_audit() {
  mkdir -p "$SCRATCH/audit"
  check audit:build audit_build
  LIMIT=1200 check audit run_audit "${1:-}"
}

audit_build() {
  (cd "$ROOT/tests/tlog/go" && go build -o "$SCRATCH/audit/verify-go" .)
}

run_audit() {
  export ROOT SALLYPORT LOADGEN TLOG_GO=$SCRATCH/audit/verify-go
  # shellcheck disable=SC2086
  SCRATCH=$SCRATCH/audit timeout --kill-after=10 "$LIMIT" "$VENV/bin/python" "$ROOT/tests/audit/suite.py" ${1:-}
}
