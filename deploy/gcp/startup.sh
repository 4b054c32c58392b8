#!/bin/bash
# Runs at each start of a machine: Docker with compose, its data on the machine's own disk, which is grown where it has been
# made larger.
set -euo pipefail

disk=/dev/disk/by-id/google-data
blkid "$disk" > /dev/null || mkfs.ext4 -q -m 0 -L driftloop "$disk"
if ! grep -q LABEL=driftloop /etc/fstab; then
  mkdir -p /var/lib/docker
  echo "LABEL=driftloop /var/lib/docker ext4 discard,nofail,x-systemd.before=docker.service 0 2" >> /etc/fstab
  systemctl daemon-reload
  mount /var/lib/docker
fi
mountpoint -q /var/lib/docker # without its disk it would start empty
resize2fs "$disk"

if ! command -v docker > /dev/null; then
  mkdir -p /etc/docker
  # The log of a container is bounded, and containers go on while Docker is updated.
  cat > /etc/docker/daemon.json << 'JSON'
{"log-driver": "local", "log-opts": {"max-size": "20m", "max-file": "5"}, "live-restore": true}
JSON
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io docker-compose unattended-upgrades
fi
