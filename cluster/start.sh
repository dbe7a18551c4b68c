#!/usr/bin/env bash
# Starts Ray on a node: `start.sh head`, or `start.sh worker HEAD_ADDRESS`. A Ray that runs already is left alone, so that
# bringing a cluster up to date ends no sweep.
set -euo pipefail

if pgrep -u "$(id -u)" -x raylet >/dev/null; then
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

port=6379
case "${1:?head or worker}" in
head)
    # Without the file of the cluster launcher the cluster has the nodes that join it and no others.
    autoscaling=()
    [ -f ~/ray_bootstrap_config.yaml ] && autoscaling=(--autoscaling-config "$HOME/ray_bootstrap_config.yaml")
    exec ray start --head --port "$port" --dashboard-host 127.0.0.1 --disable-usage-stats "${autoscaling[@]}" "${@:2}"
    ;;
worker)
    exec ray start --address "${2:?address of the head}:$port" --disable-usage-stats "${@:3}"
    ;;
esac
