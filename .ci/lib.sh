# Steps, budgets and installations, shared by the scripts beside this file. Source it.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
shared=$(dirname "$top")/shared
cache=${XDG_CACHE_HOME:-$HOME/.cache}/wsloop-ci
export PATH=$cache/cargo-tools/bin:$PATH
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# Halves what a run writes to the disk; nothing here is built twice or looked at in a debugger.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=line-tables-only

FUZZ_VERSION=0.13.1
DENY_VERSION=0.20.2

skipped=77      # a step's exit status for "could not run here, and that is allowed"
passed_n=0 failed_n=0 skipped_n=0 failed_names=()

# timeout(1) puts a step in a process group of its own, which an interrupt from the terminal does not reach.
child=
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; exit 130' INT TERM

say() { printf '%s\n' "$@"; }

# step MINUTES NAME COMMAND...: runs it once, ends it after MINUTES, counts it. Never stops the script:
# the later steps still tell something.
step() {
    local minutes=$1 name=$2 start=$SECONDS status=0
    shift 2
    say "" "=== $name (at most $minutes min)"
    timeout --kill-after=15 "${minutes}m" "$@" </dev/null &
    child=$!
    wait "$child" || status=$?
    child=
    local took=$((SECONDS - start))
    case $status in
        0) passed_n=$((passed_n + 1)); say "--- $name: passed in $took s" ;;
        "$skipped") skipped_n=$((skipped_n + 1)); say "--- $name: SKIPPED, reason above" ;;
        124 | 137) fail "$name" "out of time, $minutes min" ;;
        *) fail "$name" "status $status after $took s" ;;
    esac
}

fail() {
    failed_n=$((failed_n + 1))
    failed_names+=("$1")
    say "--- $1: FAILED ($2)"
}

# The last words of a script: the count as a plain line, and the exit status.
summary() {
    local name
    say ""
    for name in "${failed_names[@]}"; do say "failed step: $name"; done
    [ "$skipped_n" -eq 0 ] || say "$skipped_n skipped"
    say "steps: $passed_n passed, $failed_n failed, $SECONDS s"
    say "$passed_n passed, $failed_n failed"
    [ "$failed_n" -eq 0 ] && [ $((passed_n + skipped_n)) -gt 0 ]
}

# disk_need GIB: fails at once where the build would fill the disk later, with errors that tell less.
disk_need() {
    local free
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge "$1" ] || { say "$free GiB are free here, a run wants $1"; return 1; }
}

# apt_need PROGRAM PACKAGE...: installs the packages unless the program is there.
apt_need() {
    local program=$1
    shift
    command -v "$program" >/dev/null || apt_install "$@"
}

apt_install() {
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        say "missing here, install: $*"
        return 1
    fi
    if [ -z "${apt_fresh:-}" ]; then apt-get update -qq && apt_fresh=1; fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# cargo_need PROGRAM VERSION: installs a cargo tool of that version into the cache.
cargo_need() {
    local list=$cache/cargo-tools/.crates.toml
    if grep -q "^\"$1 $2 " "$list" 2>/dev/null; then return; fi
    cargo install "$1" --version "$2" --locked --quiet --root "$cache/cargo-tools"
}

# The name of a nightly toolchain, whatever its date.
nightly() {
    local name
    name=$(rustup toolchain list 2>/dev/null | awk '/^nightly/ { print $1; exit }')
    if [ -z "$name" ]; then
        say "no nightly toolchain: rustup toolchain install nightly" >&2
        return 1
    fi
    say "$name"
}

# fuzz_target NAME SECONDS: the committed seeds are read, what is found goes to fuzz/corpus, which git ignores.
fuzz_target() {
    local target=$1 seconds=$2 rust dict=()
    rust=$(nightly)
    case $target in
        recv_*) dict=(-dict=fuzz/dict/frames.dict) ;;
        deflate_*) dict=(-dict=fuzz/dict/deflate.dict) ;;
        tls_*) ;;
        api | server_script) dict=("-dict=fuzz/dict/$target.dict") ;;
        *) dict=(-dict=fuzz/dict/handshake.dict) ;;
    esac
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    cargo "+$rust" fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 "${dict[@]}" -print_final_stats=1
}

fuzz_targets() { sed -n 's/^name = "\([a-z_0-9]*\)"$/\1/p' fuzz/Cargo.toml; }
