#!/usr/bin/env bash
# Makes what the machines know one another by: an authority of their own, a certificate for what listens on each, and
# one for those that may connect. Existing files are kept; a deleted folder is created again.
#
#   compose/certificates.sh [ADDRESS OF THE SERVING MACHINE] [ADDRESS OF THE TRAINING MACHINE]
#
# Addresses are IP addresses or names; on one machine there is nothing to name.
set -euo pipefail
umask 077
folder=${CERTIFICATES:-$(dirname "$0")/certificates}
days=825
mkdir -p "$folder"
cd "$folder"

names() { # what a certificate is for, as OpenSSL wants it
  for name in "$@"; do
    case $name in
      *[!0-9.]*) printf 'DNS:%s,' "$name" ;;
      *) printf 'IP:%s,' "$name" ;;
    esac
  done | sed 's/,$//'
}

key() { # NAME
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"
}

signed() { # NAME USE ALTERNATIVE-NAMES: a file with the key and its certificate
  [ ! -s "$1.pem" ] || return 0
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=driftloop $1" |
    openssl x509 -req -days $days -CA ca.crt -CAkey ca.key -out "$1.crt" \
      -extfile <(printf "%s\n" basicConstraints=critical,CA:FALSE subjectKeyIdentifier=hash \
        authorityKeyIdentifier=keyid "extendedKeyUsage=$2" "subjectAltName=$3")
  cat "$1.key" "$1.crt" > "$1.pem"
  rm "$1.key" "$1.crt"
  # Read in containers, by users that this machine does not know: the folder keeps everybody else out.
  chmod a+r "$1.pem"
}

if [ ! -s ca.crt ]; then
  key ca
  openssl req -x509 -key ca.key -out ca.crt -days $days -subj "/CN=driftloop" \
    -addext "keyUsage=critical,keyCertSign,cRLSign"
  chmod a+r ca.crt
fi
signed serving serverAuth "$(names kafka gateway localhost 127.0.0.1 ${1:+"$1"})"
signed training serverAuth "$(names registry localhost 127.0.0.1 ${2:+"$2"})"
signed client clientAuth "$(names driftloop)"
