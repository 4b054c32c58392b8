#!/usr/bin/env bash
# Makes .env with secrets of its own, and certificates; what is there already stays.
#
#   compose/prepare.sh                                                    one machine
#   compose/prepare.sh ADDRESS-OF-THE-SERVING-VM ADDRESS-OF-THE-OTHER-VM  two: certificates are for these addresses
set -euo pipefail
cd "$(dirname "$0")"
[ -s .env ] || (umask 077; cp .env.example .env)

put() { # NAME VALUE: into .env, in place of the line that has the name, be it a comment
  if grep -q "^#\?$1=" .env; then sed -i "s/^#\?$1=.*/$1=$2/" .env; else echo "$1=$2" >> .env; fi
}

for secret in TRAINER_API_KEY GRAFANA_PASSWORD; do
  grep -q "^$secret=." .env || put $secret "$(openssl rand -hex 24)"
done
if [ $# = 2 ] && ! { grep -qx "SERVING_ADDRESS=$1" .env && grep -qx "TRAINING_ADDRESS=$2" .env; }; then
  put SERVING_ADDRESS "$1"
  put TRAINING_ADDRESS "$2"
  rm -rf "${CERTIFICATES:-certificates}" # they were for other addresses
fi
# shellcheck source=/dev/null
. ./.env
./certificates.sh "${SERVING_ADDRESS:-}" "${TRAINING_ADDRESS:-}"
