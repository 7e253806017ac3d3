# shellcheck shell=bash
# lint:packaging: what the systemd unit and the Dockerfile say, held against the binary and its reference. No image is
# built and no service is started.

UNIT=$ROOT/dist/sallyport.service
# systemd's own measure of what a service may do, from 0 to 100: the most that the unit may have.
EXPOSURE_MAX=20

lint_packaging() {
  cargo build --quiet --release --locked --package sallyport || return 1
  mkdir -p "$SCRATCH/packaging"
  local failed=0 name
  for name in commands unit exposure stop image libraries; do
    "packaging_$name" >"$SCRATCH/packaging/$name" 2>&1 || true
    if grep '^skip ' "$SCRATCH/packaging/$name"; then continue; fi
    # A check says nothing where all is well.
    if [ -s "$SCRATCH/packaging/$name" ]; then
      sed "s/^/FAIL packaging $name: /" "$SCRATCH/packaging/$name"
      failed=1
    else
      echo "ok packaging $name"
    fi
  done
  return "$failed"
}

# What the unit and the Dockerfile start exists: an option that the command does not know is refused before --help is
# reached, and a command's help names it.
packaging_commands() {
  local where line help count=0
  while read -r where line; do
    count=$((count + 1))
    # shellcheck disable=SC2086
    help=$("$SALLYPORT" $line --help 2>&1) || { echo "$where: sallyport $line: ${help%%$'\n'*}"; continue; }
    grep -q "^Usage: sallyport ${line%% *}" <<<"$help" || echo "$where: sallyport $line is no command"
  done < <(each_command)
  # ExecStartPre and ExecStart; CMD, HEALTHCHECK and the line that makes a configuration.
  [ "$count" = 5 ] || echo "$count commands were found, not 5"
}

# Every command of the binary: the file, and the arguments.
each_command() {
  sed -nE 's|^Exec[A-Za-z]*=/usr/bin/sallyport |sallyport.service |p' "$UNIT"
  sed -nE 's|^CMD \["(.*)"\]$|Dockerfile \1|p; s|^HEALTHCHECK .* CMD \["sallyport", "(.*)"\]$|Dockerfile \1|p' \
    "$ROOT/Dockerfile" | sed 's/", "/ /g'
  sed -nE 's|^#.* docker run .* sallyport ([a-z-]+ [^#]*[^ #]) *(#.*)?$|Dockerfile \1|p' "$ROOT/Dockerfile"
}

# The unit as systemd reads it, with the binary where it is now.
packaging_unit() {
  command -v systemd-analyze >/dev/null || { echo "skip packaging unit: systemd-analyze is not here"; return; }
  sed "s|/usr/bin/sallyport|$SALLYPORT|" "$UNIT" >"$SCRATCH/packaging/sallyport.service"
  # It reads the units that this one names as well: what is wrong with those is not ours.
  systemd-analyze verify --man=no "$SCRATCH/packaging/sallyport.service" 2>&1 | grep -F sallyport
}

packaging_exposure() {
  command -v systemd-analyze >/dev/null || { echo "skip packaging exposure: systemd-analyze is not here"; return; }
  local told
  told=$(systemd-analyze security --no-pager --offline=true --threshold="$EXPOSURE_MAX" "$UNIT" 2>&1) || tail -1 <<<"$told"
}

# systemd waits longer than a stopping gateway does for what runs.
packaging_stop() {
  local waits drains
  waits=$(sed -n 's/^TimeoutStopSec=//p' "$UNIT")
  drains=$(sed -nE 's/^\| `drain_timeout` \| duration \| `"([0-9]+)s"`.*/\1/p' "$ROOT/docs/reference/config.md")
  [ "${drains:-0}" -gt 0 ] && [ "${waits:-0}" -gt "$drains" ] || echo "TimeoutStopSec ($waits) is not longer than drain_timeout ($drains)"
}

# The image starts what it copies, and the variable that it sets is one that the binary reads.
packaging_image() {
  local docker=$ROOT/Dockerfile binary variable
  binary=$(sed -n 's/^COPY --from=build [^ ]* //p' "$docker")
  grep -q "^ENTRYPOINT \[\"$binary\"\]" "$docker" || echo "the entry point is not what is copied"
  variable=$(sed -n 's/^ENV \([A-Z_]*\)=.*/\1/p' "$docker")
  "$SALLYPORT" --help | grep -q "env: $variable=" || echo "the binary does not read $variable"
}

# Nothing is loaded but what Debian's slim image has, and libstdc++, which is installed.
packaging_libraries() {
  grep -q 'libstdc++6' "$ROOT/Dockerfile" || echo "libstdc++6 is not installed"
  ldd "$SALLYPORT" | awk '{ print $1 }' |
    grep -vE '^(linux-vdso|libstdc\+\+|libgcc_s|libc|libm|libdl|librt|libpthread)\.so\.|^/lib.*/ld-linux-'
}
