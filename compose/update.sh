#!/usr/bin/env bash
# Brings this machine's containers to a version, in the files that COMPOSE_FILE in .env names:
#   compose/update.sh 0.2.0
# A new predictor is ready before the old one is asked to end; one that does not get ready is taken away again. The
# version stands in .env once everything is healthy: until then the next start has the old one.
set -euo pipefail
cd "$(dirname "$0")"
export TAG=${1:?the version, such as 0.2.0}
seconds=${READY_SECONDS:-180}

# Returns when all containers that are named are healthy, or have no word of it.
healthy() {
  local deadline=$((SECONDS + seconds)) container state
  for container in "$@"; do
    until state=$(docker inspect --format '{{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}' "$container") &&
      [ "$state" = healthy ]; do
      if [ "$SECONDS" -ge "$deadline" ]; then
        echo "$container is ${state:-gone} after $seconds s; its last lines:"
        docker logs --tail 20 "$container"
        return 1
      fi >&2
      sleep 1
    done
  done
}

docker compose pull --quiet
services=$(docker compose config --services)
mapfile -t others < <(grep -vx predictor <<< "$services")
[ "${#others[@]}" = 0 ] || docker compose up --detach --remove-orphans "${others[@]}"

if grep -qx predictor <<< "$services"; then
  before=$(docker compose ps --quiet predictor)
  mapfile -t old < <(printf '%s' "$before")
  docker compose up --detach --no-deps --no-recreate --scale predictor="$((${#old[@]} + 1))" predictor
  after=$(docker compose ps --all --quiet predictor)
  mapfile -t new < <(grep -vxF "${before:-none}" <<< "$after")
  if ! healthy "${new[@]}"; then
    docker rm --force "${new[@]}" > /dev/null
    echo "the predictor stays what it was" >&2
    exit 1
  fi
  for container in "${old[@]}"; do
    docker stop "$container" > /dev/null # finishes open requests, as long as stop_grace_period says
    docker rm "$container" > /dev/null
  done
fi

running=$(docker compose ps --quiet)
mapfile -t all < <(printf '%s' "$running")
healthy "${all[@]}"
sed -i '/^TAG=/d' .env
echo "TAG=$TAG" >> .env
docker compose ps
