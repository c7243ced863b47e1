#!/usr/bin/env bash
# A real SLURM of one node with two CPUs, for trying and testing what is meant for clusters.
#
#     sudo scripts/single_node_slurm.sh start     # installs slurm-wlm and munge on Debian or Ubuntu
#     sudo scripts/single_node_slurm.sh stop
#
# Not for production: no accounting, no cgroups, everything runs as root.
set -euo pipefail

place=/var/lib/ntk_tf_slurm
host=$(hostname -s)

configuration() {
  cat <<CONF
ClusterName=single
SlurmctldHost=$host
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
JobRequeue=1
KillWait=5
NodeName=$host CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
  if [ -e /etc/slurm/slurm.conf ] && ! grep -q "^ClusterName=single$" /etc/slurm/slurm.conf; then
    echo "/etc/slurm/slurm.conf: is another cluster's; it is left as it is" >&2
    exit 2
  fi
  if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
  fi
  mkdir -p "$place/state" "$place/spool" /etc/slurm /run/munge
  chown munge:munge /run/munge
  [ -e /etc/munge/munge.key ] || mungekey --create --keyfile=/etc/munge/munge.key
  chown munge:munge /etc/munge/munge.key
  configuration > /etc/slurm/slurm.conf
  pgrep -x munged >/dev/null || runuser -u munge -- munged
  pgrep -x slurmctld >/dev/null || slurmctld
  pgrep -x slurmd >/dev/null || slurmd
  for _ in $(seq 30); do
    if sinfo --noheader --format=%T 2>/dev/null | grep -qE "idle|mixed|allocated"; then
      sinfo
      return
    fi
    sleep 1
  done
  echo "SLURM did not come up; see $place/slurmctld.log" >&2
  exit 1
}

stop() {
  for daemon in slurmd slurmctld; do
    [ -e "$place/$daemon.pid" ] && kill "$(cat "$place/$daemon.pid")" || true
  done
  [ -e /run/munge/munged.pid ] && kill "$(cat /run/munge/munged.pid)" || true
}

case "${1:-}" in
  start | stop) "$1" ;;
  *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
