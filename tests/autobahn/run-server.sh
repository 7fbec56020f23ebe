#!/usr/bin/env bash
# Judges our server: starts the echo_server example, runs the fuzzing client, compares with expected-server.json.
#
#   run-server.sh [--tls] [--deflate]
#
# Over wss with --tls, and with the dual_ws_wss_server example; with --deflate the cases of permessage-deflate,
# against expected-server-deflate.json.
#
#   ECHO_SERVER      command line of the server, which gets HOST:PORT (default: the release example)
#   DUAL_SERVER      the same for --tls, with --cert PEM --key PEM behind
#   AUTOBAHN_SUITE   directory of the suite; AUTOBAHN_CASES: its patterns; AUTOBAHN_OUT: where reports go
#   AUTOBAHN_WRITE=1 replaces the expectation by this run's result
# shellcheck source=tests/autobahn/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

run=$(run_name server) scheme=ws options=("${deflate[@]}")
read -ra server_words <<<"${ECHO_SERVER:-$top/target/release/examples/echo_server}"
if [ -n "$over_tls" ]; then
    scheme=wss options+=(--cert "$out/$run-pki/server.pem" --key "$out/$run-pki/server.key")
    read -ra server_words <<<"${DUAL_SERVER:-$top/target/release/examples/dual_ws_wss_server}"
    make_pki "$out/$run-pki"
fi
need_program "${server_words[@]}"
port=$(free_port)
rm -rf "${out:?}/$run"
mkdir -p "$out/$run"
"${server_words[@]}" "127.0.0.1:$port" "${options[@]}" >"$out/$run.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
trap 'exit 143' TERM INT

await_port "$port" "$server" "$out/$run.log"
AUTOBAHN_AGENT=wsloop AUTOBAHN_TIMEOUT=$seconds \
    "$suite/run-server-suite.sh" "$scheme://127.0.0.1:$port" "$out/$run" "$cases" || true
if ! kill -0 "$server" 2>/dev/null; then
    echo "autobahn: the server did not survive the run:" >&2
    tail -n 5 "$out/$run.log" >&2
    exit 1
fi
compare "$run" "server${deflate:+-deflate}"
