# What both directions share. Source it.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
suite=${AUTOBAHN_SUITE:-$top/../shared/tools/autobahn}
out=${AUTOBAHN_OUT:-$top/target/autobahn}
cases=${AUTOBAHN_CASES:-'*,-12.*,-13.*'}
seconds=${AUTOBAHN_TIMEOUT:-150}
# Words of this script's, and the cases of permessage-deflate (RFC 7692), which have a run of their own.
over_tls='' deflate=()
for word in "$@"; do
    case $word in
        --tls) over_tls=1 ;;
        --deflate)
            deflate=(--deflate takeover)
            cases=${AUTOBAHN_CASES:-'12.*,13.*'}
            seconds=${AUTOBAHN_TIMEOUT:-1500}
            ;;
    esac
done
# run_name SIDE: what this run's files are called.
run_name() { echo "$1${over_tls:+-tls}${deflate:+-deflate}"; }

if [ ! -x "$suite/install.sh" ]; then
    echo "autobahn: no suite at $suite; say where with AUTOBAHN_SUITE" >&2
    exit 2
fi

# need_program WORDS...: the first word has to be a program.
need_program() {
    command -v "$1" >/dev/null && return
    echo "autobahn: no $1: cargo build --release --examples" >&2
    exit 2
}

# Bound and let go: nothing else on the machine is likely to take it in the next second.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

accepting() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# await_port PORT PID LOG: at most 10 s until the process accepts there.
await_port() {
    local port=$1 pid=$2 log=$3
    for _ in $(seq 100); do
        if accepting "$port"; then return; fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "autobahn: nothing accepts on port $port:" >&2
    tail -n 5 "$log" >&2
    exit 2
}

# The certificates of a run over TLS.
make_pki() {
    mkdir -p "$1"
    bash "$top/tests/interop/pki.sh" "$1"
}

# compare RUN EXPECTATION
# The judge's own summary is for reading; the checked-in expectation decides.
compare() {
    local flags=()
    [ "${AUTOBAHN_WRITE:-}" = 1 ] && flags=(--write)
    python3 "$here/compare.py" "$out/$1/index.json" "$here/expected-$2.json" "${flags[@]}"
}
