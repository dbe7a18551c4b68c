#!/usr/bin/env bash
# Starts Ray on a node: `start.sh head`, or `start.sh worker HEAD_ADDRESS`, each with further options of `ray start`.
# A node that is in the cluster already is left alone, so that bringing a cluster up to date ends no sweep.
set -euo pipefail

refuse() {
    echo "start.sh on $(hostname): $1" >&2
    exit 2
}

kind=${1:?head or worker}
port=${SIGNSYM_RAY_PORT:-6379}
if [ "$kind" = worker ]; then
    address=${2:?address of the head}:$port
    shift 2
else
    address="[^ ]*:$port"
    shift
fi
if [[ "${SIGNSYM_STORAGE:-}" == *CHANGE-ME* ]]; then
    refuse "say where results go before the cluster starts: SIGNSYM_STORAGE, in the cluster file"
fi
command -v ray >/dev/null || refuse "expected the command ray, found none on PATH=$PATH"
# Another Ray on the same machine has another port.
if pgrep -u "$(id -u)" -f "raylet .*--gcs-address=$address( |\$)" >/dev/null; then
    echo "Ray runs here already; left as it is. To start it anew: ray stop"
    exit 0
fi

# Ray opens the folder of its session to everybody, so the one above is closed. Sockets lie in it, whose paths have
# 107 bytes at most: TMPDIR, which Ray would take, is often too long for that on a cluster.
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/signsym-$(id -u)}
((${#RAY_TMPDIR} <= 37)) ||
    refuse "expected RAY_TMPDIR of at most 37 characters, since Ray's sockets lie below, got $RAY_TMPDIR"
mkdir -p -m 700 "$RAY_TMPDIR" || refuse "Ray's files need a folder that can be written; name one by RAY_TMPDIR"
[[ -O $RAY_TMPDIR && ! -L $RAY_TMPDIR ]] ||
    refuse "expected a folder of $(id -un)'s own, got $RAY_TMPDIR of somebody else; name another one by RAY_TMPDIR"
chmod 700 "$RAY_TMPDIR"
# Whoever talks to Ray must know its token: that of the environment, or of the file that the launcher puts on every node.
export RAY_AUTH_MODE=token
[ ! -O ~/.ray/auth_token ] || chmod 600 ~/.ray/auth_token
# The launcher sets it to 1, and every worker would inherit that whatever its share of the CPUs is.
unset OMP_NUM_THREADS
# A node that is cut off without a word is noticed within 15 seconds instead of a minute.
export RAY_health_check_period_ms=2000 RAY_health_check_timeout_ms=3000 RAY_health_check_failure_threshold=3
# A worker without a share of a GPU sees none.
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1
# Ray would start a worker for each CPU with the first driver, and a sweep's trials, in an environment of their own,
# use none of them.
export RAY_prestart_worker_first_driver=0

both=(--temp-dir "$RAY_TMPDIR/ray" --disable-usage-stats)
case "$kind" in
head)
    # The dashboard, which also takes jobs, is on loopback alone.
    exec ray start --head --port "$port" --dashboard-host 127.0.0.1 "${both[@]}" "$@"
    ;;
worker)
    exec ray start --address "$address" "${both[@]}" "$@"
    ;;
*)
    refuse "expected head or worker, got $kind"
    ;;
esac
