# What up, down and status share: where the cluster lies and which of its daemons live.

root=${SIA_DEVCLUSTER:-/tmp/sia-devcluster-$(id -u)}
export SIA_DEVCLUSTER=$root  # every daemon inherits it: the mark by which we know our own
export SLURM_CONF=$root/slurm.conf

say() { echo "devcluster: $*" >&2; }  # stdout is kept for the export line
die() { say "$*"; exit 1; }

pid_of() { cat "$root/run/$1.pid" 2>/dev/null; }

# A pid file outlives a reboot, and its number may by now belong to a stranger: look for our mark and the daemon's name.
running() {
    local pid name=${1%%.*}  # slurmd.n1 is a slurmd
    pid=$(pid_of "$1") && [[ -n $pid ]] || return 1
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) = "$name"* ]] &&
        grep -qzxF "SIA_DEVCLUSTER=$root" "/proc/$pid/environ" 2>/dev/null
}
