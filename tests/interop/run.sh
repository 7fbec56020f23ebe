#!/usr/bin/env bash
# Judged peers talk with our examples: Python's `websockets`, npm's `ws`, headless Chromium; `curl` with
# `openssl s_client`. A peer's name with -tls: over wss and ws on one port, and about certificates; with -shared and
# -takeover: with permessage-deflate, without and with context takeover. About HTTP: clients with our http_server, and
# servers with our https_client.
#
#   run.sh [PEER...]              websockets ws chromium, each also with -tls -shared -takeover; curl; HTTP clients:
#                                 curl-http requests httpx undici chromium-http chromium-https; HTTP servers:
#                                 fetch-nginx fetch-python fetch-node; all by default
#   run.sh --self-test [PEER...]  websockets ws chromium, with a correct stand-in in the place of our examples
#
#   ECHO_SERVER  command line of the server, which gets HOST:PORT   (default: the release example)
#   ECHO_CLIENT  command line of the client, which gets a URL, echoes until the connection ends, and exits
#                with 0 after a clean close, else with 1 and a line on stderr (default: the release example);
#                for -tls also --ca PEM before the URL, and --cert PEM --key PEM
#   DUAL_SERVER  command line of the server for -tls, which gets HOST:PORT --cert PEM --key PEM
#                --client-auth none|optional|required|browsers --client-ca PEM (default: the release example)
#   HTTP_SERVER  command line of the server for HTTP, which gets HOST:PORT --dir DIR and the options of DUAL_SERVER
#   HTTPS_CLIENT command line of the client for HTTP (default of both: the release example)
#   CHROMIUM     the browser's program (default: chromium)
#
# A further kind of conversation is a row in a peer's file, and its server one more `start` here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$here"

# Their versions are pinned here; both installations do nothing when they are there already.
venv=$here/.venv
if ! cmp -s requirements.txt "$venv/.installed"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    timeout 120 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$venv/.installed"
fi
if ! cmp -s package.json node_modules/.installed; then
    timeout 120 npm install --no-package-lock --no-audit --no-fund --loglevel=error
    cp package.json node_modules/.installed
fi

all=(
    websockets ws chromium websockets-tls ws-tls chromium-tls curl
    websockets-shared ws-shared chromium-shared websockets-takeover ws-takeover chromium-takeover
    curl-http requests httpx undici chromium-http chromium-https fetch-nginx fetch-python fetch-node
)
if [ "${1:-}" = --self-test ]; then
    shift
    all=(websockets ws chromium)
    ECHO_SERVER="$venv/bin/python $here/stand_in.py server"
    ECHO_CLIENT="$venv/bin/python $here/stand_in.py client"
fi
read -ra echo_server <<<"${ECHO_SERVER:-$top/target/release/examples/echo_server}"
read -ra dual_server <<<"${DUAL_SERVER:-$top/target/release/examples/dual_ws_wss_server}"
read -ra http_server <<<"${HTTP_SERVER:-$top/target/release/examples/http_server}"
export HTTPS_CLIENT=${HTTPS_CLIENT:-$top/target/release/examples/https_client}
export ECHO_CLIENT=${ECHO_CLIENT:-$top/target/release/examples/echo_client}
[ $# -gt 0 ] || set -- "${all[@]}"
over_tls='' about_http='' fetches=''
[[ " $* " =~ -tls\ |\ curl\  ]] && over_tls=1
[[ " $* " =~ -https?\ |\ (requests|httpx|undici)\  ]] && about_http=1
[[ " $* " =~ \ fetch- ]] && fetches=1
for program in "${echo_server[0]}" "${ECHO_CLIENT%% *}" ${over_tls:+"${dual_server[0]}"} \
    ${about_http:+"${http_server[0]}"} ${fetches:+"${HTTPS_CLIENT%% *}"}; do
    command -v "$program" >/dev/null && continue
    echo "interop: no $program: cargo build --release --examples" >&2
    exit 2
done

work=$(mktemp -d)
log=$work/log
servers=()
stop() {
    local pid
    for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 143' TERM INT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
accepting() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start PORT COMMAND...: waits at most 10 s until the port accepts.
start() {
    local port=$1 pid
    shift
    "$@" >>"$log" 2>&1 &
    pid=$!
    servers+=("$pid")
    for _ in $(seq 100); do
        if accepting "$port"; then return; fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "interop: $1 does not accept on port $port:" >&2
    tail -n 5 "$log" >&2
    exit 2
}

port=$(free_port)
start "$port" "${echo_server[@]}" "127.0.0.1:$port"
export SERVER_URL=ws://127.0.0.1:$port/

# start_dual MODE: its port is in $port.
start_dual() {
    port=$(free_port)
    start "$port" "${dual_server[@]}" "127.0.0.1:$port" --cert "$pki/server.pem" --key "$pki/server.key" \
        --client-auth "$1" --client-ca "$pki/ca.pem"
}

if [ -n "$over_tls$about_http$fetches" ]; then
    pki=$work/pki files=$work/files
    mkdir "$pki" "$files"
    ./pki.sh "$pki"
    cp page_http.html "$files"
    printf 0123456789 >"$files/digits.txt"
    head -c 16777216 /dev/urandom >"$files/big.bin"
    http=(PKI="$pki" FILES="$files")
fi

if [ -n "$about_http" ]; then
    shown=(--dir "$files" --cert "$pki/server.pem" --key "$pki/server.key" --client-ca "$pki/ca.pem")
    port=$(free_port)
    start "$port" "${http_server[@]}" "127.0.0.1:$port" "${shown[@]}"
    http+=(HTTP_URLS="http://localhost:$port https://localhost:$port")
    page_url=localhost:$port/files/page_http.html
    port=$(free_port)
    start "$port" "${http_server[@]}" "127.0.0.1:$port" "${shown[@]}" --client-auth required
    http+=(MUTUAL_URL="https://localhost:$port")
fi

if [ -n "$over_tls" ]; then
    start_dual none && https_port=$port
    start_dual required && required_port=$port
    start_dual optional && optional_port=$port
    start_dual browsers && browsers_port=$port
    tls=(
        PKI="$pki" "ECHO_CLIENT=$ECHO_CLIENT --ca $pki/ca.pem"
        "SERVER_URL=wss://localhost:$https_port/ ws://localhost:$https_port/"
        REQUIRED_URL="wss://localhost:$required_port/" OPTIONAL_URL="wss://localhost:$optional_port/"
        BROWSERS_URL="wss://localhost:$browsers_port/" HTTPS_PORT="$https_port" REQUIRED_PORT="$required_port"
        OPTIONAL_PORT="$optional_port" BROWSERS_PORT="$browsers_port"
    )
fi

# deflate KIND COMMAND...: with a server and a client of ours that compress so.
deflate() {
    local kind=$1
    shift
    port=$(free_port)
    start "$port" "${echo_server[@]}" "127.0.0.1:$port" --deflate "$kind"
    judge "$peer" env DEFLATE="$kind" SERVER_URL="ws://127.0.0.1:$port/" "ECHO_CLIENT=$ECHO_CLIENT --deflate $kind" "$@"
}

all_alive() {
    local pid
    for pid in "${servers[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done
}

passed=0 failed=()
judge() {
    local peer=$1
    shift
    if timeout --kill-after=10 150 "$@"; then passed=$((passed + 1)); else failed+=("$peer"); fi
}

for peer in "$@"; do
    case $peer in
        websockets) judge "$peer" "$venv/bin/python" peer_websockets.py ;;
        ws) judge "$peer" node peer_ws.mjs ;;
        chromium) judge "$peer" node peer_chromium.mjs ;;
        websockets-tls) judge "$peer" env "${tls[@]}" "$venv/bin/python" peer_websockets.py ;;
        ws-tls) judge "$peer" env "${tls[@]}" node peer_ws.mjs ;;
        chromium-tls) judge "$peer" env "${tls[@]}" node peer_chromium.mjs ;;
        websockets-shared | websockets-takeover) deflate "${peer#*-}" "$venv/bin/python" peer_websockets.py ;;
        ws-shared | ws-takeover) deflate "${peer#*-}" node peer_ws.mjs ;;
        chromium-shared | chromium-takeover) deflate "${peer#*-}" node peer_chromium.mjs ;;
        curl-http) judge "$peer" env "${http[@]}" ./peer_curl_http.sh ;;
        requests | httpx) judge "$peer" env "${http[@]}" "$venv/bin/python" peer_http.py "$peer" ;;
        undici) judge "$peer" env "${http[@]}" node --disable-warning=UNDICI-ES peer_undici.mjs ;;
        chromium-http) judge "$peer" env "${http[@]}" PAGE_URL="http://$page_url" node peer_chromium.mjs ;;
        chromium-https) judge "$peer" env "${http[@]}" PAGE_URL="https://$page_url" node peer_chromium.mjs ;;
        fetch-*) judge "$peer" env "${http[@]}" "$venv/bin/python" peer_fetch.py "${peer#*-}" ;;
        curl) judge "$peer" env "${tls[@]}" ./peer_curl.sh ;;
        *)
            echo "interop: no peer $peer" >&2
            exit 2
            ;;
    esac
    if ! all_alive; then
        echo "not ok - our server did not survive $peer:"
        tail -n 5 "$log"
        failed+=("server")
        break
    fi
done

for peer in "${failed[@]}"; do echo "interop: failed peer: $peer"; done
echo "interop: $passed peers passed, ${#failed[@]} failed"
[ "${#failed[@]}" -eq 0 ]
