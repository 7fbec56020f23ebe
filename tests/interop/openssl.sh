#!/usr/bin/env bash
# Client certificates against OpenSSL, both ways: our server with `openssl s_client`, our client with
# `openssl s_server`. {none, optional, required} x {no certificate, good, expired, not yet valid, unknown CA,
# wrong EKU, revoked} x {TLS 1.2, TLS 1.3}: the outcome and, where a side refuses, its exact reason in its own
# words (OpenSSL: the number of its verify error) and its alert as the other side read it.
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
    local dir=$work/$1.d
    mkdir "$dir"
    : >"$dir/index"
    openssl rand -hex 8 >"$dir/serial"
    echo 01 >"$dir/crlnumber"
    cat >"$work/$1.cnf" <<END
[ca]
default_ca = it
[it]
database = $dir/index
serial = $dir/serial
crlnumber = $dir/crlnumber
new_certs_dir = $dir
certificate = $work/$1.pem
private_key = $work/$1.key
default_md = sha256
policy = any
unique_subject = no
crl_extensions = list
[any]
commonName = supplied
[list]
authorityKeyIdentifier = keyid
END
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$work/$1.key" -out "$work/$1.pem" 2>/dev/null
}

# issue FILE AUTHORITY PURPOSE FROM UNTIL [NAME]: the dates as YYYYMMDDHHMMSSZ
issue() {
    local file=$1 authority=$2 purpose=$3 from=$4 until=$5
    printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
        "extendedKeyUsage=$purpose" "subjectAltName=${6:-DNS:localhost}" >"$work/$file.ext"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$file" \
        -keyout "$work/$file.key" -out "$work/$file.csr" 2>/dev/null
    openssl ca -batch -notext -config "$work/$authority.cnf" -extfile "$work/$file.ext" -startdate "$from" \
        -enddate "$until" -in "$work/$file.csr" -out "$work/$file.pem" 2>/dev/null
}

# revoke AUTHORITY FILE...: makes AUTHORITY.crl
revoke() {
    local authority=$1 file
    shift
    for file in "$@"; do
        openssl ca -config "$work/$authority.cnf" -revoke "$work/$file.pem" 2>/dev/null
    done
    openssl ca -config "$work/$authority.cnf" -gencrl -crldays 30 -out "$work/$authority.crl" 2>/dev/null
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
    issue "$name-revoked" ca "$right" "$from" "$until"
done
revoke ca client-revoked server-revoked
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

cases=(no-certificate good expired not-yet-valid unknown-ca wrong-eku revoked)
versions=(1_2 1_3)

# Our server is asked for a page: "greeted", or the alert that s_client read and what our server says of it.
server_half() {
    local auth options version case outcome port identity rest
    # A pipe that we hold open: each line is read when it is due, and none can be missed.
    mkfifo "$work/refusals"
    exec 3<>"$work/refusals"
    for auth in none optional required; do
        options=()
        [ "$auth" = none ] || options=(--client-ca "$work/ca.pem" --crl "$work/ca.crl")
        "$dual_server" 127.0.0.1:0 --cert "$work/server-good.pem" --key "$work/server-good.key" \
            --client-auth "$auth" "${options[@]}" >"$work/ours" 2>"$work/refusals" &
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
                printf 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' |
                    timeout 10 openssl s_client -connect "127.0.0.1:$port" -servername localhost "-tls$version" \
                        -CAfile "$work/ca.pem" -verify_return_error -quiet "${identity[@]}" \
                        >"$work/out" 2>"$work/err" || true
                if grep -q '^Hello' "$work/out"; then
                    outcome=greeted
                else
                    outcome="s_client read $(alert "$work/err"), we say: $(refusal)"
                fi
                judge "our server, client auth $auth, TLS $version, $case" "$outcome" \
                    "$(our_verdict "$auth" "$case")" "$work/err"
            done
        done
        stop_peer
        rest=nothing
        if read -r -t 0 -u 3; then rest=$(refusal); fi
        judge "our server, client auth $auth, said of anybody else" "$rest" nothing "$work/ours"
    done
    exec 3>&-
}

# The next connection that our server says it has refused.
refusal() {
    local line
    IFS= read -r -t 10 -u 3 line || line='no refusal'
    if [[ $line =~ ^refused\ 127\.0\.0\.1:[0-9]+:\ (.*) ]]; then line=${BASH_REMATCH[1]}; fi
    without_clock <<<"$line"
}

# How long ago something was depends on when this runs; since when does not.
without_clock() {
    sed 's/, \(in \)\?[0-9]* [a-z]*\( ago\)\?\([;)]\|$\)/\3/'
}

# The alert that OpenSSL says it has received, by its name there and by its number.
alert() {
    sed -n 's/.* alert \([^:]*\):.*:SSL alert number \([0-9]*\)$/\1 (\2)/p' "$1" | grep . || echo 'no alert'
}

our_verdict() {
    case "$1 $2" in
        none\ * | *\ good | optional\ no-certificate) echo greeted ;;
        *\ no-certificate)
            echo 's_client read certificate required (116), we say: TLS: the peer gave no certificate and one is' \
                'required; alert sent: certificate_required (116)'
            ;;
        *)
            echo "s_client read $(openssl_name "$2"), we say: TLS: $(our_reason "$2" client); alert sent:" \
                "$(our_alert "$2")"
            ;;
    esac
}

# What this side finds wrong with a certificate: our_reason CASE SIDE-OF-THE-CERTIFICATE
our_reason() {
    local right=$2 wrong=server
    [ "$right" = client ] || wrong=client
    printf "the peer's certificate is not accepted: "
    case $1 in
        expired) echo "it expired on $(utc "$past")" ;;
        not-yet-valid) echo "it is not valid yet but from $(utc "$future"); is the clock right?" ;;
        unknown-ca) echo 'no trusted root has issued it, or an intermediate certificate is missing' ;;
        wrong-eku) echo "it is not for $right authentication, only for $wrong authentication" ;;
        revoked) echo 'it is revoked' ;;
        wrong-name) echo 'it is not valid for "localhost", only for elsewhere.test' ;;
    esac
}

# What this side says to do about a server's certificate.
our_advice() {
    case $1 in
        unknown-ca) echo "; add its authority to the vhost's Roots, or have the server send its whole chain" ;;
        wrong-name) echo '; dial it by a name of its certificate, or say which with verify_name(..)' ;;
    esac
}

# YYYYMMDDHHMMSSZ as we write it
utc() {
    echo "${1:0:4}-${1:4:2}-${1:6:2} ${1:8:2}:${1:10:2}:${1:12:2} UTC"
}

# The alert that this side sends.
our_alert() {
    case $1 in
        expired | not-yet-valid) echo 'certificate_expired (45)' ;;
        unknown-ca) echo 'unknown_ca (48)' ;;
        wrong-eku) echo 'unsupported_certificate (43)' ;;
        revoked) echo 'certificate_revoked (44)' ;;
        wrong-name) echo 'bad_certificate (42)' ;;
    esac
}

# The same, by its name in OpenSSL.
openssl_name() {
    our_alert "$1" | tr _ ' '
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
    sed -n 's/^mtls_client: localhost:[0-9]*: //p' "$work/out" | without_clock
}

# Our client sends a message: "echoed", or what it says and what s_server says.
client_half() {
    local port auth verify version case identity outcome
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    for auth in none optional required; do
        verify=(-verify_return_error -CAfile "$work/ca.pem" -crl_check -CRL "$work/ca.crl")
        case $auth in
            none) verify=() ;;
            optional) verify+=(-verify 2) ;;
            required) verify+=(-Verify 2) ;;
        esac
        for version in "${versions[@]}"; do
            for case in "${cases[@]}"; do
                identity=()
                [ "$case" = no-certificate ] ||
                    identity=(--cert "$work/client-$case.pem" --key "$work/client-$case.key" --out-of-date)
                serve "$port" -cert "$work/server-good.pem" -key "$work/server-good.key" "-tls$version" "${verify[@]}"
                outcome=$(dial "$port" "${identity[@]}")
                wait "$peer" 2>/dev/null || true
                [ "$outcome" = echoed ] || outcome+=", s_server says: $(complaint)"
                judge "our client, client auth $auth, TLS $version, $case" "$outcome" \
                    "$(their_verdict "$auth" "$case" "$version")" "$work/out" "$work/err"
                stop_peer
            done
        done
    done
    for version in "${versions[@]}"; do
        for case in good expired not-yet-valid unknown-ca wrong-eku revoked wrong-name; do
            serve "$port" -cert "$work/server-$case.pem" -key "$work/server-$case.key" "-tls$version"
            outcome=$(dial "$port" --crl "$work/ca.crl")
            wait "$peer" 2>/dev/null || true
            outcome+=", s_server read $(alert "$work/err")"
            judge "our client, server certificate $case, TLS $version" "$outcome" "$(verdict_on_server "$case")" \
                "$work/out" "$work/err"
            stop_peer
        done
    done
}

# Why s_server refused a client.
complaint() {
    sed -n -e 's/^verify error:num=\([0-9]*\):.*/verify error \1/p' \
        -e 's/.*:\(peer did not return a certificate\):.*/\1/p' "$work/err" | grep . || echo nothing
}

# OpenSSL's verdicts: the stage of our client, the alert as it names and explains it, and OpenSSL's reason.
their_verdict() {
    local stage=response
    [ "$3" = 1_3 ] || stage=tls
    case "$1 $2 $3" in
        none\ * | *\ good\ * | optional\ no-certificate\ *) echo echoed ;;
        *) echo "$stage stage: the peer refused with $(their_alert "$2 $3")" ;;
    esac
}

their_alert() {
    case $1 in
        no-certificate\ 1_2)
            echo 'handshake_failure (40): it found no parameters that both sides accept, or wants a certificate,' \
                's_server says: peer did not return a certificate'
            ;;
        no-certificate\ 1_3)
            echo 'certificate_required (116): it requires a certificate and we gave none,' \
                's_server says: peer did not return a certificate'
            ;;
        expired\ *)
            echo 'certificate_expired (45): our certificate has expired or is not yet valid by its clock,' \
                's_server says: verify error 10'
            ;;
        not-yet-valid\ *)
            echo 'bad_certificate (42): it finds our certificate corrupt or made for another name,' \
                's_server says: verify error 9'
            ;;
        unknown-ca\ *)
            echo 'unknown_ca (48): it does not trust the issuer of our certificate,' \
                's_server says: verify error 20'
            ;;
        wrong-eku\ *)
            echo 'unsupported_certificate (43): it does not accept our certificate for this purpose,' \
                's_server says: verify error 26'
            ;;
        revoked\ *)
            echo 'certificate_revoked (44): our certificate is revoked, it says,' \
                's_server says: verify error 23'
            ;;
    esac
}

# What our client finds wrong, and the alert that s_server read.
verdict_on_server() {
    case $1 in
        good) echo 'echoed, s_server read no alert' ;;
        *) echo "tls stage: $(our_reason "$1" server)$(our_advice "$1"), s_server read $(openssl_name "$1")" ;;
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
