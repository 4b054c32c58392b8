#!/usr/bin/env bash
# Makes .env and privacy.env with secrets of their own, and certificates; what is there already stays.
#
#   compose/prepare.sh                                                    one machine
#   compose/prepare.sh ADDRESS-OF-THE-SERVING-VM ADDRESS-OF-THE-OTHER-VM  two: certificates are for these addresses
set -euo pipefail
cd "$(dirname "$0")"
for file in .env privacy.env; do
  [ -s $file ] || (umask 077; cp $file.example $file)
done

put() { # NAME VALUE [FILE]: into .env or another file, in place of the line that has the name, be it a comment
  local file=${3:-.env}
  if grep -q "^#\?$1=" "$file"; then sed -i "s/^#\?$1=.*/$1=$2/" "$file"; else echo "$1=$2" >> "$file"; fi
}

for secret in TRAINER_API_KEY GRAFANA_PASSWORD; do
  grep -q "^$secret=." .env || put $secret "$(openssl rand -hex 24)"
done
grep -q "^DRIFTLOOP_PRIVACY__HASH_KEY=." privacy.env || put DRIFTLOOP_PRIVACY__HASH_KEY "$(openssl rand -hex 32)" privacy.env
if [ $# = 2 ] && ! { grep -qx "SERVING_ADDRESS=$1" .env && grep -qx "TRAINING_ADDRESS=$2" .env; }; then
  put SERVING_ADDRESS "$1"
  put TRAINING_ADDRESS "$2"
  rm -rf "${CERTIFICATES:-certificates}" # they were for other addresses
fi
# shellcheck source=/dev/null
. ./.env
./certificates.sh "${SERVING_ADDRESS:-}" "${TRAINING_ADDRESS:-}"
