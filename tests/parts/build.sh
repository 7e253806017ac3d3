# shellcheck shell=bash
# build, lint, unit: what cargo does.

part_build() {
  LIMIT=3600 check build cargo build --release --locked --workspace --all-targets
}

part_lint() {
  check lint:fmt cargo fmt --all --check
  LIMIT=2400 check lint:clippy cargo clippy --release --locked --workspace --all-targets -- -D warnings
  check lint:deps cargo xtask deps
  check lint:deny lint_deny
  check lint:reference lint_reference
  check lint:scripts lint_scripts
  check lint:packaging lint_packaging
  check lint:lessons lint_lessons
}

# With the features of the whole workspace, as everything else is built: others would mean other builds of the heavy crates.
lint_reference() {
  cargo build --quiet --release --locked --workspace --bin sallyport &&
    cargo xtask reference --check --bin "$CARGO_TARGET_DIR/release/sallyport"
}

# deny.toml. Known vulnerabilities are left out: their list is a Git repository, which CI does not reach.
lint_deny() { "$CACHE/tools/bin/cargo-deny" --offline check licenses bans sources; }

# Every script parses.
lint_scripts() {
  local file
  for file in scripts/* tests/parts/*.sh tests/clients/*/run .ci/run; do
    [ -f "$file" ] || continue
    if head -1 "$file" | grep -qE 'bash'; then bash -n "$file" || return 1; fi
  done
}

# Every line of docs/lessons.md names tests, FILE::NAME, and all are there.
lint_lessons() {
  local line name file status=0
  while IFS= read -r line; do
    case $line in '| class |'* | '| --- |'*) continue ;; '| '*) ;; *) continue ;; esac
    grep -q '`[^` ]*::[^` ]*`' <<<"$line" || { echo "FAIL no test is named: $line"; status=1; }
    while IFS= read -r name; do
      file=${name%%::*} name=${name##*::}
      grep -qE "^ *(async )?(fn |def )?$name\\(" "$file" || { echo "FAIL $file has no test $name"; status=1; }
    done < <(grep -oE '`[^` ]+::[a-z0-9_]+`' <<<"$line" | tr -d '`')
  done <docs/lessons.md
  return "$status"
}

part_unit() {
  local regress
  # PostgreSQL's regression statements are a corpus for the analysis of statements.
  regress=$(regress_statements)/sql
  if [ -e "$regress/select.sql" ]; then export SALLYPORT_REGRESS=$regress; else
    check unit:corpus echo "skip unit:corpus: PostgreSQL's regression statements are not here; scripts/test setup fetches them"
  fi
  # The end-to-end crate starts servers: it is the part `clients`.
  LIMIT=2400 check unit cargo test --release --locked --workspace --exclude e2e
}
