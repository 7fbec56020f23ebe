#!/usr/bin/env bash
# Judges our server: starts the echo_server example, runs the fuzzing client, compares with expected-server.json.
#
#   ECHO_SERVER      command line of the server, which gets HOST:PORT (default: the release example)
#   AUTOBAHN_SUITE   directory of the suite; AUTOBAHN_CASES: its patterns; AUTOBAHN_OUT: where reports go
#   AUTOBAHN_WRITE=1 replaces the expectation by this run's result
# shellcheck source=tests/autobahn/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

read -ra echo_server <<<"${ECHO_SERVER:-$top/target/release/examples/echo_server}"
need_program "${echo_server[@]}"
port=$(free_port)
rm -rf "$out/server"
mkdir -p "$out/server"
"${echo_server[@]}" "127.0.0.1:$port" >"$out/server.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
trap 'exit 143' TERM INT

accepting() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
for _ in $(seq 100); do
    if accepting; then break; fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if ! accepting; then
    echo "autobahn: the server does not accept on port $port:" >&2
    tail -n 5 "$out/server.log" >&2
    exit 2
fi

AUTOBAHN_AGENT=wsloop AUTOBAHN_TIMEOUT=${AUTOBAHN_TIMEOUT:-150} \
    "$suite/run-server-suite.sh" "ws://127.0.0.1:$port" "$out/server" "$cases" || true
if ! kill -0 "$server" 2>/dev/null; then
    echo "autobahn: the server did not survive the run:" >&2
    tail -n 5 "$out/server.log" >&2
    exit 1
fi
compare server
