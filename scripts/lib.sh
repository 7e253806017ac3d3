# shellcheck shell=bash
# What the scripts share. Source it after `set -euo pipefail`:
#   . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#
# Everything that a script starts is stopped when it ends, however it ends: see `on_exit`, `background`.
# Nothing is written but to the cache folder, the cargo target folder and one scratch folder.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${SALLYPORT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sallyport}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
SALLYPORT=${SALLYPORT:-$CARGO_TARGET_DIR/release/sallyport}
LOADGEN=${LOADGEN:-$CARGO_TARGET_DIR/release/loadgen}

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' BLUE=$'\e[34m' PLAIN=$'\e[0m'
else
  BOLD='' DIM='' RED='' GREEN='' YELLOW='' BLUE='' PLAIN=''
fi

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "${RED}$(basename "$0"): $*${PLAIN}" >&2; exit 1; }

# ---- Ending well -------------------------------------------------------------------------------------

_ON_EXIT=()
# on_exit COMMAND…: run when the script ends, last one first.
on_exit() { _ON_EXIT+=("$(printf '%q ' "$@")"); }
_ending() {
  local status=$? at
  trap - EXIT
  trap '' INT TERM HUP
  set +e
  for ((at = ${#_ON_EXIT[@]} - 1; at >= 0; at--)); do eval "${_ON_EXIT[$at]}"; done
  exit "$status"
}
trap _ending EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# stop_process PID [SECONDS]: asks it to stop, insists after that time (5 s).
stop_process() {
  local pid=$1 tenths=$((${2:-5} * 10))
  kill "$pid" 2>/dev/null || return 0
  while [ "$tenths" -gt 0 ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; tenths=$((tenths - 1)); done
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

# ---- Places ------------------------------------------------------------------------------------------

# scratch: makes the script's scratch folder, $SCRATCH, once. The server's user must be able to pass through it.
# KEEP=1 keeps it.
scratch() {
  [ -z "${SCRATCH:-}" ] || return 0
  SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/sallyport.XXXXXX")
  chmod 755 "$SCRATCH"
  if [ -z "${KEEP:-}" ]; then on_exit rm -rf "$SCRATCH"; else on_exit say "kept: $SCRATCH"; fi
}

# free_port [COUNT]: TCP ports on loopback that nobody listens on, on one line, each another, below the range that the
# system gives out itself.
free_port() {
  local count=${1:-1} port ports=()
  for _ in {1..200}; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    case " ${ports[*]-} " in *" $port "*) continue ;; esac
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then ports+=("$port"); fi
    if [ "${#ports[@]}" = "$count" ]; then echo "${ports[@]}"; return 0; fi
  done
  die "no free port on 127.0.0.1"
}

# wait_port PORT SECONDS [PID]: until something accepts connections there; fails when PID ends before.
wait_port() {
  local port=$1 until=$((SECONDS + $2)) pid=${3:-}
  while [ "$SECONDS" -le "$until" ]; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 0; fi
    if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then return 1; fi
    sleep 0.1
  done
  return 1
}

# make_certificate DIR: a CA (ca.pem) and a certificate for localhost (server.pem, server.key), new each time.
make_certificate() {
  local dir=$1
  mkdir -p "$dir"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Scratch CA" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
    -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
  make_leaf "$dir"
}

# make_leaf DIR: another certificate for localhost by the CA that is there.
make_leaf() {
  local dir=$1
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
    -keyout "$dir/server.key" -out "$dir/server.csr" 2>/dev/null
  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >"$dir/server.ext"
  openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 30 \
    -extfile "$dir/server.ext" -out "$dir/server.pem" 2>/dev/null
  chmod 600 "$dir/server.key" "$dir/ca.key"
}

# ---- PostgreSQL's programs ---------------------------------------------------------------------------

# pg_bin: the folder of the newest server's programs; fails when there is none.
pg_bin() {
  local dir
  dir=$(find /usr/lib/postgresql -maxdepth 3 -name initdb -path '*/bin/*' 2>/dev/null | sort -V | tail -1)
  [ -n "$dir" ] && dirname "$dir"
}

# pg_archive VERSION: the archive of another server than Debian's; fails when it was not fetched.
pg_archive() {
  local file=$CACHE/postgresql/$1.txz
  [ -e "$file" ] && echo "$file"
}

# as_postgres COMMAND…: PostgreSQL refuses to run as root, so root becomes the user `postgres` for it.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

# ---- Installing --------------------------------------------------------------------------------------

# is_missing PACKAGE: whether what we need of that Debian package is not there. By what it brings, not by its name:
# a toolchain that came another way is as good.
is_missing() {
  case $1 in
    postgresql) ! pg_bin >/dev/null ;;
    postgresql-client) ! command -v psql >/dev/null ;;
    # Not libclang-cpp, which other packages bring.
    libclang-dev) ! compgen -G '/usr/lib/llvm-*/lib/libclang[.-][0-9s]*' >/dev/null && ! ldconfig -p 2>/dev/null | grep -qE 'libclang(-[0-9]+)?\.so' ;;
    g++) ! command -v c++ >/dev/null ;;
    python3-venv) ! python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    faketime) ! compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null ;;
    default-jdk-headless) ! command -v javac >/dev/null ;;
    maven) ! command -v mvn >/dev/null ;;
    nodejs) ! command -v node >/dev/null ;;
    dpkg-dev) ! command -v dpkg-source >/dev/null ;;
    iproute2) ! command -v ss >/dev/null ;;
    ca-certificates) [ ! -e /etc/ssl/certs/ca-certificates.crt ] ;;
    *) ! command -v "$1" >/dev/null && ! [ -x "/usr/sbin/$1" ] ;;
  esac
}

# install PACKAGE…: Debian packages that are missing. Asks nothing; fails with the line to type where it may not.
install() {
  local package missing=() become=()
  for package in "$@"; do if is_missing "$package"; then missing+=("$package"); fi; done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing, and there is no apt-get: ${missing[*]}"
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || die "missing; please run: sudo apt-get install ${missing[*]}"
    become=(sudo -n)
  fi
  say "installing ${missing[*]}"
  "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >/dev/null ||
    say "apt-get update failed; going on with the lists that are there"
  "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    </dev/null >"${TMPDIR:-/tmp}/sallyport-apt.$$" 2>&1 ||
    { cat "${TMPDIR:-/tmp}/sallyport-apt.$$" >&2; rm -f "${TMPDIR:-/tmp}/sallyport-apt.$$"; die "apt-get install ${missing[*]} failed"; }
  rm -f "${TMPDIR:-/tmp}/sallyport-apt.$$"
}

# What a build needs, and what the demonstration needs besides.
BUILD_PACKAGES=(g++ make cmake pkg-config libclang-dev)
SERVER_PACKAGES=(postgresql postgresql-client openssl)
