#!/usr/bin/env bash
# Client certificates against OpenSSL, both ways: our server with `openssl s_client`, our client with
# `openssl s_server`. {none, optional, required} x {no certificate, good, expired, not yet valid, unknown CA,
# wrong EKU} x {TLS 1.2, TLS 1.3}: the outcome and, where a side refuses, its alert as the other side read it.
# Then server certificates that our client has to refuse.
#
#   openssl.sh [server] [client]   our server's half, our client's half; both by default
#
#   DUAL_SERVER  our server (default: the release example dual_ws_wss_server)
#   MTLS_CLIENT  our client (default: the release example mtls_client)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
dual_server=${DUAL_SERVER:-$top/target/release/examples/dual_ws_wss_server}
mtls_client=${MTLS_CLIENT:-$top/target/release/examples/mtls_client}
for program in openssl "$dual_server" "$mtls_client"; do
    command -v "$program" >/dev/null && continue
    echo "openssl: no $program: cargo build --release --examples" >&2
    exit 2
done

work=$(mktemp -d)
peer='' talker=''
stop_peer() {
    local pid
    for pid in $peer $talker; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    peer='' talker=''
}
trap 'stop_peer; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT

# authority NAME
authority() {
    mkdir "$work/$1.d"
    : >"$work/$1.d/index"
    openssl rand -hex 8 >"$work/$1.d/serial"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$work/$1.key" -out "$work/$1.pem" 2>/dev/null
}

# issue FILE AUTHORITY PURPOSE FROM UNTIL: the dates as YYYYMMDDHHMMSSZ
issue() {
    local file=$1 authority=$2 purpose=$3 from=$4 until=$5
    cat >"$work/$file.cnf" <<END
[ca]
default_ca = it
[it]
dir = $work/$authority.d
database = $work/$authority.d/index
serial = $work/$authority.d/serial
new_certs_dir = $work/$authority.d
certificate = $work/$authority.pem
private_key = $work/$authority.key
default_md = sha256
policy = any
unique_subject = no
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = $purpose
subjectAltName = ${6:-DNS:localhost}
END
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$file" \
        -keyout "$work/$file.key" -out "$work/$file.csr" 2>/dev/null
    openssl ca -batch -notext -config "$work/$file.cnf" -startdate "$from" -enddate "$until" \
        -in "$work/$file.csr" -out "$work/$file.pem" 2>/dev/null
}

before=20200101000000Z past=20210101000000Z
from=$(date -u -d yesterday +%Y%m%d%H%M%SZ) until=$(date -u -d '30 days' +%Y%m%d%H%M%SZ)
future=$(date -u -d '10 days' +%Y%m%d%H%M%SZ)
authority ca
authority other-ca
for side in server:serverAuth:clientAuth client:clientAuth:serverAuth; do
    IFS=: read -r name right wrong <<<"$side"
    issue "$name-good" ca "$right" "$from" "$until"
    issue "$name-expired" ca "$right" "$before" "$past"
    issue "$name-not-yet-valid" ca "$right" "$future" "$until"
    issue "$name-unknown-ca" other-ca "$right" "$from" "$until"
    issue "$name-wrong-eku" ca "$wrong" "$from" "$until"
done
issue server-wrong-name ca serverAuth "$from" "$until" DNS:elsewhere.test

# listening PORT: waits at most 5 s, without a connection that the peer would see.
listening() {
    local hex
    hex=$(printf '%04X' "$1")
    for _ in $(seq 100); do
        if grep -q ":$hex 00000000:0000 0A" /proc/net/tcp; then return; fi
        kill -0 "$peer" 2>/dev/null || break
        sleep 0.05
    done
    echo "openssl: nobody listens on port $1" >&2
    exit 2
}

passed=0 failed=0
# judge ROW OUTCOME WANTED LOG...
judge() {
    local row=$1 outcome=$2 wanted=$3
    shift 3
    if [ "$outcome" = "$wanted" ]; then
        passed=$((passed + 1))
        echo "ok - $row: $outcome"
    else
        failed=$((failed + 1))
        echo "not ok - $row: $outcome, and not $wanted"
        tail -n 8 "$@" | sed 's/^/#   /'
    fi
}

cases=(no-certificate good expired not-yet-valid unknown-ca wrong-eku)
versions=(1_2 1_3)

# What our server answers, as s_client saw it: "greeted", or the number of the alert.
server_half() {
    local auth options version case outcome wanted port identity
    for auth in none optional required; do
        options=()
        [ "$auth" = none ] || options=(--client-ca "$work/ca.pem")
        "$dual_server" 127.0.0.1:0 --cert "$work/server-good.pem" --key "$work/server-good.key" \
            --client-auth "$auth" "${options[@]}" >"$work/ours" 2>&1 &
        peer=$!
        for _ in $(seq 100); do
            if grep -q '^echoing on wss' "$work/ours"; then break; fi
            sleep 0.05
        done
        port=$(sed -n 's|^echoing on wss://127.0.0.1:\([0-9]*\)/|\1|p' "$work/ours")
        listening "$port"
        for version in "${versions[@]}"; do
            for case in "${cases[@]}"; do
                identity=()
                [ "$case" = no-certificate ] ||
                    identity=(-cert "$work/client-$case.pem" -key "$work/client-$case.key")
                printf 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' |
                    timeout 10 openssl s_client -connect "127.0.0.1:$port" -servername localhost "-tls$version" \
                        -CAfile "$work/ca.pem" -verify_return_error -quiet "${identity[@]}" \
                        >"$work/out" 2>"$work/err" || true
                if grep -q '^Hello' "$work/out"; then
                    outcome=greeted
                else
                    outcome=$(alert "$work/err")
                fi
                wanted=$(our_verdict "$auth" "$case")
                judge "our server, client auth $auth, TLS $version, $case" "$outcome" "$wanted" "$work/err"
            done
        done
        stop_peer
    done
}

# The alert that OpenSSL says it has received.
alert() {
    sed -n 's/.*SSL alert number \([0-9]*\).*/alert \1/p' "$1" | grep . | head -n 1 || echo 'no alert'
}

our_verdict() {
    case "$1 $2" in
        none\ * | *\ good | optional\ no-certificate) echo greeted ;;
        *\ no-certificate) echo 'alert 116' ;;
        *\ expired | *\ not-yet-valid) echo 'alert 45' ;;
        *\ unknown-ca) echo 'alert 48' ;;
        *\ wrong-eku) echo 'alert 43' ;;
    esac
}

# A WebSocket server of one connection on top of s_server: shakes hands, sends a text frame, says goodbye.
web_socket() {
    local line key accept
    while IFS= read -r line && [ "$line" != $'\r' ]; do
        case $line in [Ss]ec-[Ww]eb[Ss]ocket-[Kk]ey:\ *) key=${line#*: } ;; esac
    done
    [ -n "${key:-}" ] || return 0
    accept=$(printf '%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11' "${key%$'\r'}" | openssl sha1 -binary | base64)
    printf 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    printf 'Sec-WebSocket-Accept: %s\r\n\r\n\x81\x05hello' "$accept"
    # Its hello (11 bytes) and its Close frame (8).
    head -c 19 >/dev/null
    printf '\x88\x02\x03\xe8'
    # The end of its input makes s_server close.
}

# serve PORT OPTION...: an s_server that answers as web_socket does.
serve() {
    local port=$1
    shift
    rm -f "$work/to" "$work/from"
    mkfifo "$work/to" "$work/from"
    timeout 20 openssl s_server -accept "127.0.0.1:$port" -naccept 1 -quiet "$@" \
        <"$work/to" >"$work/from" 2>"$work/err" &
    peer=$!
    # In the order in which s_server opens them, or both would wait for ever.
    web_socket >"$work/to" <"$work/from" 2>/dev/null &
    talker=$!
    listening "$port"
}

# dial PORT OPTION...: our client; "echoed", or what it says of the failure.
dial() {
    local port=$1
    shift
    if timeout 15 "$mtls_client" --once --connect "wss://localhost:$port/" --ca "$work/ca.pem" "$@" \
        >"$work/out" 2>&1; then
        echo echoed
        return
    fi
    sed -n 's/^mtls_client: .* stage: //p' "$work/out" | tail -n 1
}

client_half() {
    local port auth verify version case identity outcome
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    for auth in none optional required; do
        case $auth in
            none) verify=() ;;
            optional) verify=(-verify 2 -verify_return_error -CAfile "$work/ca.pem") ;;
            required) verify=(-Verify 2 -verify_return_error -CAfile "$work/ca.pem") ;;
        esac
        for version in "${versions[@]}"; do
            for case in "${cases[@]}"; do
                identity=()
                [ "$case" = no-certificate ] ||
                    identity=(--cert "$work/client-$case.pem" --key "$work/client-$case.key" --out-of-date yes)
                serve "$port" -cert "$work/server-good.pem" -key "$work/server-good.key" "-tls$version" "${verify[@]}"
                outcome=$(dial "$port" "${identity[@]}")
                outcome=${outcome#the peer refused with }
                outcome=${outcome%%:*}
                judge "our client, client auth $auth, TLS $version, $case" "$outcome" \
                    "$(their_verdict "$auth" "$case" "$version")" "$work/out" "$work/err"
                stop_peer
            done
        done
    done
    for version in "${versions[@]}"; do
        for case in good expired not-yet-valid unknown-ca wrong-eku wrong-name; do
            serve "$port" -cert "$work/server-$case.pem" -key "$work/server-$case.key" "-tls$version"
            outcome=$(dial "$port")
            outcome="$(reason "$outcome"), $(wait "$peer" 2>/dev/null || true; alert "$work/err")"
            judge "our client, server certificate $case, TLS $version" "$outcome" \
                "$(verdict_on_server "$case")" "$work/out" "$work/err"
            stop_peer
        done
    done
}

# OpenSSL's verdicts, as our client names them.
their_verdict() {
    case "$1 $2 $3" in
        none\ * | *\ good\ * | optional\ no-certificate\ *) echo echoed ;;
        *\ no-certificate\ 1_2) echo 'handshake_failure (40)' ;;
        *\ no-certificate\ 1_3) echo 'certificate_required (116)' ;;
        *\ expired\ *) echo 'certificate_expired (45)' ;;
        *\ not-yet-valid\ *) echo 'bad_certificate (42)' ;;
        *\ unknown-ca\ *) echo 'unknown_ca (48)' ;;
        *\ wrong-eku\ *) echo 'unsupported_certificate (43)' ;;
    esac
}

# What our client finds wrong with a certificate, up to the first detail.
reason() {
    sed "s/^the peer's certificate is not accepted: //; s/[;,].*//; s/ but from .*//; s/ on .*//" <<<"$1"
}

# What our client finds wrong, and the alert that s_server received.
verdict_on_server() {
    case $1 in
        good) echo 'echoed, no alert' ;;
        expired) echo 'it expired, alert 45' ;;
        not-yet-valid) echo 'it is not valid yet, alert 45' ;;
        unknown-ca) echo 'no trusted root has issued it, alert 48' ;;
        wrong-eku) echo 'it is not for server authentication, alert 43' ;;
        wrong-name) echo 'it is not valid for "localhost", alert 42' ;;
    esac
}

[ $# -gt 0 ] || set -- server client
for half in "$@"; do
    case $half in
        server) server_half ;;
        client) client_half ;;
        *)
            echo "openssl: no half $half" >&2
            exit 2
            ;;
    esac
done
echo "openssl: $passed rows passed, $failed failed"
[ "$failed" -eq 0 ]
