#!/usr/bin/env bash
# Builds the images that the compose files name and pushes them to IMAGES, such as registry.example.com/driftloop:
#   IMAGES=registry.example.com/driftloop compose/release.sh 0.2.0
set -euo pipefail
cd "$(dirname "$0")"
: "${IMAGES:?where the images go, such as registry.example.com/driftloop}"
export IMAGES TAG=${1:?the version, such as 0.2.0}
# The files want them, and no image has them.
export TRAINER_API_KEY=none GRAFANA_PASSWORD=none
docker compose -f compose.yaml build --pull --push \
  --build-arg "VERSION=$TAG" --build-arg "REVISION=$(git rev-parse HEAD)"
