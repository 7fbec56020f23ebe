#!/usr/bin/env bash
# Conversations of `curl` with our http_server, in the clear and over TLS, and of raw bytes where curl cannot say what
# is to be said.
#
#   HTTP_URLS='http://localhost:PORT https://localhost:PORT' MUTUAL_URL=https://localhost:PORT PKI=DIR FILES=DIR
#   peer_curl_http.sh
#
# FILES is what the server has below /files/: digits.txt and big.bin.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
# row TITLE WANTED GOT
row() {
    if [[ $3 == "$2" ]]; then
        passed=$((passed + 1))
        echo "ok - curl-http $1"
    else
        failed=$((failed + 1))
        printf 'not ok - curl-http %s\n  # wanted %s, got %s\n' "$1" "$2" "$3"
    fi
}

talk() { curl --silent --max-time 20 --noproxy '*' --cacert "$PKI/ca.pem" "$@"; }
# ask URL [OPTION...]: status of the response, its body, and curl's own status where it is not 0
ask() {
    local body status=0
    body=$(talk --write-out '\n%{http_code}' "$@") || status=$?
    echo "${body##*$'\n'} ${body%$'\n'*}" | tr '\n' ' ' | sed 's/ *$//'
    [ "$status" -eq 0 ] || echo " ($status)"
}
# head_of NAME: a header of what curl --include has shown on stdin
head_of() { tr -d '\r' | sed -n "s/^$1: //Ip"; }
# same FILE FILE
same() { cmp -s "$1" "$2" && echo same || echo different; }
# raw URL: sends stdin, with the other end's port for %PORT%, and reads until the server closes
raw() {
    timeout 20 python3 -c '
import os, socket, ssl, sys
from urllib.parse import urlsplit
url = urlsplit(sys.argv[1])
stream = socket.create_connection((url.hostname, url.port))
if url.scheme == "https":
    stream = ssl.create_default_context(cafile=os.environ["PKI"] + "/ca.pem").wrap_socket(stream, server_hostname=url.hostname)
stream.sendall(sys.stdin.buffer.read().replace(b"%PORT%", b"%d" % url.port))
while piece := stream.recv(65536):
    sys.stdout.buffer.write(piece)
' "$1"
}
# told OPTION...: what curl has read and written of heads, a line each
told() { talk --verbose --output /dev/null "$@" 2>&1 | tr -d '\r' || true; }

big=$(stat -c %s "$FILES/big.bin")
json="{\"bytes\":$big}"

conversations() {
    local url=$1 over=${1%%:*} upload=$1/upload digits=$1/files/digits.txt got pieces
    row "$over: a page" "200" "$(talk --output /dev/null --write-out '%{http_code}' "$url/")"
    row "$over: JSON" '200 {"open":0}' "$(ask "$url/api/connections")"
    row "$over: no such page" "404" "$(talk --output /dev/null --write-out '%{http_code}' "$url/nothing")"

    row "$over: 20 requests on one connection" "1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 " \
        "$(talk --output /dev/null --write-out '%{num_connects} ' "$digits?[1-20]")"
    row "$over: Connection: close is obeyed" "1 1 1 " \
        "$(talk --header 'Connection: close' --output /dev/null --write-out '%{num_connects} ' "$digits?[1-3]")"
    row "$over: 30 downloads, 10 at a time" "30 of $big bytes" \
        "$(talk --parallel --parallel-max 10 --output /dev/null --write-out '%{size_download}\n' "$url/files/big.bin?[1-30]" 2>"$work/progress" \
            | sort | uniq -c | awk '{ print $1 " of " $2 " bytes" }')"

    row "$over: upload with a length" "200 $json" "$(ask "$upload" --data-binary "@$FILES/big.bin" --header 'Expect:')"
    row "$over: chunked upload" "200 $json" \
        "$(ask "$upload" --data-binary "@$FILES/big.bin" --header 'Transfer-Encoding: chunked' --header 'Expect:')"
    row "$over: chunked upload from a pipe, PUT" '200 {"bytes":10}' "$(ask "$upload" --upload-file - <"$FILES/digits.txt")"
    row "$over: an empty upload" '200 {"bytes":0}' "$(ask "$upload" --data '')"
    row "$over: an empty chunked upload" '200 {"bytes":0}' "$(ask "$upload" --data '' --header 'Transfer-Encoding: chunked')"
    row "$over: 5 uploads on one connection" "1 0 0 0 0 " \
        "$(talk --output /dev/null --write-out '%{num_connects} ' --data-binary "@$FILES/digits.txt" "$upload?[1-5]")"
    row "$over: multipart form" "200" \
        "$(talk --output /dev/null --write-out '%{http_code}' --form "file=@$FILES/big.bin" "$upload")"

    got=$(told --data-binary "@$FILES/big.bin" --header 'Expect: 100-continue' --expect100-timeout 15 "$upload" | grep '^< HTTP')
    row "$over: 100-continue" $'< HTTP/1.1 100 Continue\n< HTTP/1.1 200 OK' "$got"
    got=$(told --data x --header 'Expect: 100-continue' --expect100-timeout 15 "$url/files/nothing" | grep '^< HTTP')
    row "$over: 100-continue and a refusal" "< HTTP/1.1 405 Method Not Allowed" "$got"

    row "$over: range, the first bytes" "206 0123" "$(ask "$digits" --range 0-3)"
    row "$over: range, from the middle" "206 6789" "$(ask "$digits" --range 6-)"
    row "$over: range, the last bytes" "206 89" "$(ask "$digits" --range -2)"
    row "$over: range beyond the end" "416 bytes */10" \
        "$(talk --include --range 20-30 "$digits" | tee "$work/head" | sed -n '1s/.* \(416\).*/\1/p') $(head_of content-range <"$work/head")"
    head -c 1000000 "$FILES/big.bin" >"$work/part"
    talk --continue-at - --output "$work/part" "$url/files/big.bin" || true
    row "$over: a download that is resumed" "same" "$(same "$work/part" "$FILES/big.bin")"
    talk --output "$work/whole" "$url/files/big.bin" || true
    row "$over: a big download" "same" "$(same "$work/whole" "$FILES/big.bin")"
    row "$over: a big download, read slowly" "$big" \
        "$(talk --limit-rate 16M --output /dev/null --write-out '%{size_download}' "$url/files/big.bin")"

    talk --etag-save "$work/etag" --output /dev/null "$digits"
    row "$over: If-None-Match" "304" "$(ask "$digits" --etag-compare "$work/etag")"
    row "$over: If-Modified-Since" "304" "$(ask "$digits" --time-cond "$FILES/digits.txt")"
    row "$over: If-Modified-Since, long ago" "200 0123456789" "$(ask "$digits" --time-cond '1 Jan 2001')"

    talk --head "$url/files/big.bin" >"$work/head"
    row "$over: HEAD has the length" "$big" "$(head_of content-length <"$work/head")"
    row "$over: HEAD has no body, and the connection goes on" "1 0 0 " \
        "$(talk --head --output /dev/null --write-out '%{num_connects} ' "$digits?[1-3]")"
    row "$over: HEAD of events" "200" "$(ask "$url/events" --head --output /dev/null)"
    row "$over: OPTIONS *" "204" "$(ask "$url" --request OPTIONS --request-target '*' --output /dev/null)"
    row "$over: DELETE of a file" "405" "$(ask "$digits" --request DELETE --output /dev/null)"
    row "$over: ../ stays inside" "40" "$(ask "$url/files/../../etc/passwd" --path-as-is --output /dev/null | cut -c 1-2)"

    # head ends curl, which is what a reader that has seen enough does.
    row "$over: server-sent events" "data: tick 1" "$(talk --no-buffer "$url/events" | head -n 1)"

    row "$over: HTTP/1.0" "200 0123456789" "$(ask "$digits" --http1.0)"
    row "$over: HTTP/1.0, the connection ends" "1 200, 1 200, " \
        "$(talk --http1.0 --output /dev/null --write-out '%{num_connects} %{http_code}, ' "$digits?[1-2]")"
    row "$over: HTTP/1.0, upload" "200 $json" "$(ask "$upload" --http1.0 --data-binary "@$FILES/big.bin")"
    got=$(talk --http1.0 --no-buffer --include "$url/events" | sed -u 's/\r$//; /^data: /q' || true)
    row "$over: HTTP/1.0, a response without an end is not chunked" "no chunks, data: tick 1" \
        "$(head_of transfer-encoding <<<"$got" | grep . || echo 'no chunks'), ${got##*$'\n'}"
    row "$over: HTTP/2 is not offered" "1.1 200" "$(talk --http2 --output /dev/null --write-out '%{http_version} %{http_code}' "$digits")"

    pieces='GET /files/digits.txt?%d HTTP/1.1\r\nHost: localhost:%%PORT%%\r\n\r\n'
    got=$({
        # shellcheck disable=SC2059
        printf "$pieces" $(seq 100)
        printf 'POST /upload HTTP/1.1\r\nHost: localhost:%%PORT%%\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nX: y\r\n\r\n'
        printf 'HEAD /files/digits.txt HTTP/1.1\r\nHost: localhost:%%PORT%%\r\n\r\n'
        printf 'POST /upload HTTP/1.1\r\nHost: localhost:%%PORT%%\r\nContent-Length: 3\r\n\r\nabc'
        printf 'GET /files/digits.txt HTTP/1.1\r\nHost: localhost:%%PORT%%\r\nConnection: close\r\n\r\n'
    } | raw "$url" | tr -d '\r' | grep -aoE 'HTTP/1.1 [0-9]*|0123456789|"bytes":[0-9]*' | uniq -c | awk '{ print $1 $2 $3 }' | tr '\n' ' ')
    row "$over: 104 pipelined requests, all answered in order" \
        "$(printf '1HTTP/1.1200 10123456789 %.0s' $(seq 100))1HTTP/1.1200 1\"bytes\":4 2HTTP/1.1200 1\"bytes\":3 1HTTP/1.1200 10123456789 " "$got"
    got=$(printf 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /api/connections HTTP/1.0\r\n\r\n' | raw "$url" \
        | tr -d '\r' | grep -aE '^HTTP/|^Connection:|^.{"open"' | tr '\n' ' ')
    row "$over: HTTP/1.0 with keep-alive" "HTTP/1.1 200 OK Connection: keep-alive HTTP/1.1 200 OK Connection: close " "$got"
    got=$(printf 'POST /upload HTTP/1.1\r\nHost: localhost:%%PORT%%\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n' \
        | raw "$url" | head -n 1 | tr -d '\r')
    row "$over: a length and chunks" "HTTP/1.1 400 Bad Request" "$got"
}

for url in $HTTP_URLS; do conversations "$url"; done

mine=(--cert "$PKI/client.pem" --key "$PKI/client.key")
row "a certificate where it is demanded" "200 0123456789" "$(ask "$MUTUAL_URL/files/digits.txt" "${mine[@]}")"
row "20 requests with it on one connection" "1$(printf ' 0%.0s' $(seq 19))" \
    "$(talk "${mine[@]}" --output /dev/null --write-out '%{num_connects} ' "$MUTUAL_URL/files/digits.txt?[1-20]" | sed 's/ $//')"
row "no certificate where it is demanded (56)" "000 (56)" "$(ask "$MUTUAL_URL/files/digits.txt" | tr -s ' ')"

echo "# $(curl --version | sed -n '1s/ (.*//p'): $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
