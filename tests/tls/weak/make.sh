#!/usr/bin/env bash
# Makes the files beside it: certificates for a.test that nobody may accept, each under an authority of its own.
# Needs OpenSSL 3. The keys protect nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT

cat >"$dir/ca.conf" <<CONF
[ca]
default_ca = here
[here]
database = $dir/index
new_certs_dir = $dir
policy = any
email_in_dn = no
rand_serial = yes
[any]
commonName = supplied
CONF
: >"$dir/index"
printf '%s\n' subjectAltName=DNS:a.test extendedKeyUsage=serverAuth basicConstraints=CA:FALSE >"$dir/leaf.ext"

authority() { # NAME KEY-OPTIONS...
    openssl genpkey "${@:2}" -out "$dir/$1.key" 2>/dev/null
    openssl req -x509 -new -key "$dir/$1.key" -sha256 -days 36500 -subj "/CN=$1" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -out "$1-ca.pem"
}

leaf() { # NAME ISSUER-CERTIFICATE ISSUER-KEY DIGEST
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$dir/$1.csr"
    openssl ca -batch -config "$dir/ca.conf" -in "$dir/$1.csr" -cert "$2" -keyfile "$3" -md "$4" -notext \
        -startdate 20200101000000Z -enddate 21200101000000Z -extfile "$dir/leaf.ext" -out "$1.pem"
}

authority sha1 -algorithm RSA -pkeyopt rsa_keygen_bits:2048
leaf sha1 sha1-ca.pem "$dir/sha1.key" sha1
authority rsa1024 -algorithm RSA -pkeyopt rsa_keygen_bits:1024
leaf rsa1024 rsa1024-ca.pem "$dir/rsa1024.key" sha256
# Who has a certificate for himself issues one for others.
authority no-authority -algorithm EC -pkeyopt ec_paramgen_curve:P-256
leaf between no-authority-ca.pem "$dir/no-authority.key" sha256
leaf no-authority between.pem between.key sha256
cat between.pem >>no-authority.pem
rm between.pem between.key
