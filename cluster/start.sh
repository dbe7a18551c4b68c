#!/usr/bin/env bash
# Starts Ray on a node: `start.sh head`, or `start.sh worker HEAD_ADDRESS`, each with further options of `ray start`.
# A node that is in the cluster already is left alone, so that bringing a cluster up to date ends no sweep.
set -euo pipefail

port=${SIGNSYM_RAY_PORT:-6379}
if [[ "${SIGNSYM_STORAGE:-}" == *CHANGE-ME* ]]; then
    echo "Say where results go before the cluster starts: SIGNSYM_STORAGE, in the cluster file" >&2
    exit 2
fi
# Another Ray on the same machine has another port.
if pgrep -u "$(id -u)" -f "raylet .*--gcs-address=[^ ]*:$port( |\$)" >/dev/null; then
    echo "Ray runs here already; left as it is. To start it anew: ray stop"
    exit 0
fi
# The launcher sets it to 1, and every worker would inherit that whatever its share of the CPUs is.
unset OMP_NUM_THREADS
# A node that is cut off without a word is noticed within 15 seconds instead of a minute.
export RAY_health_check_period_ms=2000 RAY_health_check_timeout_ms=3000 RAY_health_check_failure_threshold=3
# A worker without a share of a GPU sees none.
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1
# Whoever talks to Ray must know the token in ~/.ray/auth_token, which the cluster file puts on every node.
export RAY_AUTH_MODE=token

case "${1:?head or worker}" in
head)
    # The dashboard, which also takes jobs, is on loopback alone.
    exec ray start --head --port "$port" --dashboard-host 127.0.0.1 --disable-usage-stats "${@:2}"
    ;;
worker)
    exec ray start --address "${2:?address of the head}:$port" --disable-usage-stats "${@:3}"
    ;;
esac
