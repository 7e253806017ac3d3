# shellcheck shell=bash
# pages: what people see, in a real browser, with a real login provider.

part_pages() {
  mkdir -p "$SCRATCH/pages"
  LIMIT=600 check pages run_pages "${1:-}"
}

run_pages() {
  local browser
  export ROOT SALLYPORT
  browser=$(command -v chromium || command -v chromium-browser) || { echo "skip pages: Chromium is not here"; return; }
  cp "$ROOT/tests/pages/provider.mjs" "$CACHE/pages/"
  # shellcheck disable=SC2086
  SCRATCH=$SCRATCH/pages MODULES=$CACHE/pages/node_modules CHROMIUM=$browser timeout --kill-after=10 "$LIMIT" \
    "$(node_command)" "$ROOT/tests/pages/suite.mjs" ${1:-}
}
