#!/usr/bin/env bash
# Conversations of `curl` and `openssl s_client` with our dual_ws_wss_server: http and https on one port, and who
# is asked for a certificate.
#
#   HTTPS_PORT=... REQUIRED_PORT=... OPTIONAL_PORT=... BROWSERS_PORT=... PKI=DIR peer_curl.sh
set -euo pipefail

passed=0 failed=0
# row TITLE WANTED GOT
row() {
    if [[ $3 == "$2" ]]; then
        passed=$((passed + 1))
        echo "ok - curl $1"
    else
        failed=$((failed + 1))
        printf 'not ok - curl %s\n  # wanted %s, got %s\n' "$1" "$2" "$3"
    fi
}

# get URL [OPTION...]: status of the response, its body's first word, curl's own status
get() {
    local body status=0
    body=$(curl --silent --max-time 10 --noproxy '*' --cacert "$PKI/ca.pem" --write-out ' %{http_code}' "$@") || status=$?
    echo "${body##* } ${body%%[[:space:]]*} $status"
}

mine=(--cert "$PKI/client.pem" --key "$PKI/client.key")
stranger=(--cert "$PKI/stranger.pem" --key "$PKI/stranger.key")
https=https://localhost:$HTTPS_PORT/
http=http://localhost:$HTTPS_PORT/

row "http" "200 Hello. 0" "$(get "$http")"
row "https" "200 Hello. 0" "$(get "$https")"
row "https by the address" "200 Hello. 0" "$(get "https://127.0.0.1:$HTTPS_PORT/")"
row "https, TLS 1.2" "200 Hello. 0" "$(get "$https" --tls-max 1.2)"
row "https, TLS 1.3" "200 Hello. 0" "$(get "$https" --tlsv1.3)"
row "https, TLS 1.1 is refused (35)" "000  35" "$(get "$https" --tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0)"
row "https, http/1.1 alone in ALPN" "200 Hello. 0" "$(get "$https" --http1.1)"
row "https, no ALPN" "200 Hello. 0" "$(get "$https" --no-alpn)"
row "https, HEAD" "200  0" "$(get "$https" --head --output /dev/null)"
row "https, no such page" "404 not 0" "$(get "${https}nothing")"
row "https, a name the certificate has not (60)" "000  60" "$(get "https://other.test:$HTTPS_PORT/" --resolve "other.test:$HTTPS_PORT:127.0.0.1")"
row "https, an authority that curl does not know (60)" "000  60" "$(get "$https" --cacert "$PKI/other.pem")"

turns=""
for _ in $(seq 20); do turns+="$(get "$http"); $(get "$https"); "; done
row "http and https in turn" "$(printf '200 Hello. 0; %.0s' $(seq 40))" "$turns"

row "https, a certificate where it is demanded" "200 Hello. 0" "$(get "https://localhost:$REQUIRED_PORT/" "${mine[@]}")"
row "https, none where it is demanded (56)" "000  56" "$(get "https://localhost:$REQUIRED_PORT/")"
row "https, of another authority where it is demanded (56)" "000  56" "$(get "https://localhost:$REQUIRED_PORT/" "${stranger[@]}")"
row "http, where a certificate is demanded" "400 this 0" "$(get "http://localhost:$REQUIRED_PORT/")"
for port in "$OPTIONAL_PORT" "$BROWSERS_PORT"; do
    row "https, none where it is asked for" "200 Hello. 0" "$(get "https://localhost:$port/")"
    row "https, a certificate where it is asked for" "200 Hello. 0" "$(get "https://localhost:$port/" "${mine[@]}")"
done

# asked PORT OPTION...: whether the server sent a CertificateRequest, and the authority that it names
asked() {
    local port=$1
    shift
    timeout 10 openssl s_client -connect "localhost:$port" -CAfile "$PKI/ca.pem" -verify_return_error "$@" </dev/null 2>&1 \
        | sed -n -e 's/^No client certificate CA names sent$/no/p' -e '/^Acceptable client certificate CA names$/ { n; s/ = /=/; s/^/yes, /p }'
}

for version in -tls1_2 -tls1_3; do
    row "s_client $version is not asked by a server that wants none" "no" "$(asked "$HTTPS_PORT" "$version")"
    row "s_client $version is asked by one that demands" "yes, CN=throw-away ca" "$(asked "$REQUIRED_PORT" "$version")"
    row "s_client $version is asked by one that would like to know" "yes, CN=throw-away ca" "$(asked "$OPTIONAL_PORT" "$version")"
    row "s_client $version is asked by one that asks all but browsers" "yes, CN=throw-away ca" "$(asked "$BROWSERS_PORT" "$version")"
done

echo "# $(curl --version | sed -n '1s/ (.*//p'): $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
