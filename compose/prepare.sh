#!/usr/bin/env bash
# Makes .env with secrets of its own, and certificates; what is there already stays.
set -euo pipefail
cd "$(dirname "$0")"
if [ ! -s .env ]; then
  (umask 077; cp .env.example .env)
  for secret in TRAINER_API_KEY GRAFANA_PASSWORD; do
    sed -i "s/^$secret=$/$secret=$(openssl rand -hex 24)/" .env
  done
fi
# shellcheck source=/dev/null
. ./.env
./certificates.sh "${SERVING_ADDRESS:-}" "${TRAINING_ADDRESS:-}"
