#!/usr/bin/env bash
# Judges our client: the fuzzing server gets one echo_client per case, then the result is compared with
# expected-client.json.
#
#   run-client.sh [--tls] [--deflate]
#
# Over wss with --tls, through relay.py; with --deflate the cases of permessage-deflate, against
# expected-client-deflate.json.
#
#   ECHO_CLIENT      command line of the client, which gets a URL, echoes until the connection ends, and
#                    exits with 0 after a clean close (default: the release example); with --tls also --ca PEM
#   AUTOBAHN_SUITE, AUTOBAHN_CASES, AUTOBAHN_OUT, AUTOBAHN_WRITE: as for run-server.sh
# shellcheck source=tests/autobahn/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read -ra echo_client <<<"${ECHO_CLIENT:-$top/target/release/examples/echo_client}"
need_program "${echo_client[@]}"
run=$(run_name client)
pki=$out/$run-pki

start_relay() {
    make_pki "$pki"
    relay_port=$(free_port)
    python3 "$here/relay.py" "$relay_port" "$1" "$pki/server.pem" "$pki/server.key" 2>"$out/$run-relay.log" &
    relay=$!
    trap 'kill "$relay" 2>/dev/null || true' EXIT
    await_port "$relay_port" "$relay" "$out/$run-relay.log"
}

# Many cases end unclean on purpose, so only death by a signal or by the budget is the client's fault.
drive() {
    local count status case url=$AUTOBAHN_URL bad=0
    echo_client+=("${deflate[@]}")
    if [ -n "$over_tls" ]; then
        start_relay "${AUTOBAHN_URL##*:}"
        url=wss://localhost:$relay_port
        echo_client+=(--ca "$pki/ca.pem")
    fi
    count=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))))' "$out/$run/cases.json")
    for case in $(seq "$count"); do
        status=0
        timeout 30 "${echo_client[@]}" "$url/runCase?case=$case&agent=wsloop" 2>>"$out/$run.log" || status=$?
        if [ "$status" -gt 1 ]; then
            echo "autobahn: the client ended with status $status in the run's case $case" >&2
            bad=1
        fi
    done
    timeout 30 "${echo_client[@]}" "$url/updateReports?agent=wsloop"
    return "$bad"
}

if [ "${1:-}" = --drive ]; then
    drive
    exit
fi

rm -rf "${out:?}/$run"
mkdir -p "$out/$run"
: >"$out/$run.log"
status=0
AUTOBAHN_TIMEOUT=$seconds \
    "$suite/run-client-suite.sh" "$(free_port)" "$out/$run" "$cases" -- bash "$here/run-client.sh" --drive "$@" \
    2> >(tee "$out/$run-suite.log" >&2) || status=$?
# Status 1 is the judge's verdict on a case, or ours on the client; the expectation decides about the first.
if grep -q '^suite: the client ended' "$out/$run-suite.log"; then exit 1; fi
if [ "$status" -gt 1 ]; then exit "$status"; fi
compare "$run" "client${deflate:+-deflate}"
