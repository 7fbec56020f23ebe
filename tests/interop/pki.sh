#!/usr/bin/env bash
# Makes the certificates of a run, by openssl, in DIR (which has to be there): each NAME.pem with its NAME.key.
#
#   pki.sh DIR
#
#   ca        signs the next two
#   server    localhost and 127.0.0.1, for servers
#   client    for clients
#   other     another authority, which signs the next two
#   impostor  as server
#   stranger  as client
set -euo pipefail
cd "$1"

key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }

authority() {
    key "$1"
    openssl req -x509 -new -key "$1.key" -out "$1.pem" -days 30 -subj "/CN=throw-away $1" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}

# leaf AUTHORITY NAME EXTENSION...
leaf() {
    local by=$1 name=$2
    shift 2
    key "$name"
    printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
        authorityKeyIdentifier=keyid "$@" >"$name.ext"
    openssl req -new -key "$name.key" -subj "/CN=throw-away $name" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA "$by.pem" -CAkey "$by.key" -CAcreateserial -days 30 -extfile "$name.ext" \
        -out "$name.pem" 2>/dev/null
}

authority ca
authority other
server=(extendedKeyUsage=serverAuth "subjectAltName=DNS:localhost,IP:127.0.0.1")
client=(extendedKeyUsage=clientAuth subjectAltName=DNS:client.test)
leaf ca server "${server[@]}"
leaf ca client "${client[@]}"
leaf other impostor "${server[@]}"
leaf other stranger "${client[@]}"
