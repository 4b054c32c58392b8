#!/usr/bin/env bash
# Brings one of the machines to a version: first its compose files, then its containers. From wherever gcloud is logged
# in, over IAP; CLOUDSDK_CORE_PROJECT and CLOUDSDK_COMPUTE_ZONE say where, IMAGES what compose/.env says there.
#   deploy/gcp/deploy.sh serving 0.2.0
set -euo pipefail
cd "$(dirname "$0")/../.."
machine=${1:?serving or monitoring}
version=${2:?such as 0.2.0}
: "${IMAGES:?such as europe-west1-docker.pkg.dev/project/driftloop/driftloop}"
registry=${IMAGES%%/*}
for word in "$machine" "$version" "$registry"; do # they become part of a command
  [[ $word =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || { echo "not a name: $word" >&2; exit 2; }
done
# What git has, and nothing else: keys and certificates are the machine's own.
git archive --format=tar.gz HEAD compose grafana |
  gcloud compute ssh "driftloop-$machine" --tunnel-through-iap --quiet --command "sudo -H bash -euo pipefail -c '
    mkdir -p /opt/driftloop
    tar --extract --gzip --no-same-owner --directory /opt/driftloop
    gcloud auth configure-docker --quiet $registry
    /opt/driftloop/compose/update.sh $version
  '"
