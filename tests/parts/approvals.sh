# shellcheck shell=bash
# approvals: statements that wait, and the people who decide on them.

part_approvals() {
  mkdir -p "$SCRATCH/approvals"
  LIMIT=600 check approvals run_approvals "${1:-}"
}

run_approvals() {
  export ROOT SALLYPORT
  # shellcheck disable=SC2086
  SCRATCH=$SCRATCH/approvals timeout --kill-after=10 "$LIMIT" "$VENV/bin/python" "$ROOT/tests/approvals/suite.py" ${1:-}
}
