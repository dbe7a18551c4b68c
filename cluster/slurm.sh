#!/usr/bin/env bash
# A sweep as one SLURM job: a Ray over its nodes, the sweep on the first of them. The repository, its .venv (make sweep
# makes one) and the storage must be on a file system that all nodes mount. Change the #SBATCH lines to your cluster, or
# give sbatch other values before the script's name. Run everything from the repository's root.
#
#   sweep     sbatch cluster/slurm.sh grids/paper.yaml --storage /shared/signsym --data-root /shared/data
#   watch     .venv/bin/signsym status /shared/signsym           and the job's own output, slurm-JOB.out
#   resume    the same sbatch again; a job that is preempted and requeued goes on by itself
#   results   .venv/bin/signsym report /shared/signsym --out report
#   end       scancel --batch --signal=TERM JOB                  keeps what is finished, as the end of the time does
#
# The job's exit status is the sweep's: 0 complete, 1 some jobs failed, 2 nothing ran, 130 interrupted.
#SBATCH --job-name=signsym
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=2-00:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

refuse() {
    echo "node $SLURMD_NODENAME: $1" >&2
    exit 2
}
cd "${SLURM_SUBMIT_DIR:?submit it with sbatch from the repository}" || refuse "all nodes must mount that folder"

# What goes on where this job ends early, which the sweep prints.
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p')
SIGNSYM_COMMAND="sbatch ${script#"$PWD/"}$(printf ' %q' "$@")"
export SIGNSYM_COMMAND
interrupted() {
    printf '\nInterrupted. Go on with:\n  %s\n' "$SIGNSYM_COMMAND"
    exit 130
}
trap interrupted TERM USR1
# However it ends: Ray on every node ends in order first. SLURM ends what is left after this script.
end_steps() {
    trap '' TERM USR1
    scancel --signal=TERM "$SLURM_JOB_ID" 2>/dev/null || :
    for _ in $(seq 100); do
        [ -n "$(jobs -r)" ] || break
        sleep 0.2
    done
}
trap end_steps EXIT

[ -r .venv/bin/activate ] || refuse "expected $PWD/.venv, which make sweep makes, on a file system that all nodes mount"
source .venv/bin/activate
python -c 'import ray' || refuse "the Python of $PWD/.venv does not work here"

# Others may run a Ray on the same nodes, and other jobs of this user: two free ports, a folder and a token of the
# job's own, so that Ray needs no home either.
read -r port client_port < <(python - "$SLURM_JOB_ID" <<'END'
import socket, sys

def free(port):
    try:
        with socket.socket() as door:
            door.bind(("", port))
    except OSError:
        return False
    return True

first = int(sys.argv[1])
pairs = ((port, port + 1) for port in (20000 + 2 * ((first + step) % 6000) for step in range(6000)))
print(*next(pair for pair in pairs if all(map(free, pair))))
END
)
export SIGNSYM_RAY_PORT=$port RAY_TMPDIR=/tmp/signsym-$UID-$SLURM_JOB_ID
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

head=$SLURMD_NODENAME
workers=($(scontrol show hostnames "$SLURM_JOB_NODELIST" | grep --line-regexp --invert-match --fixed-strings "$head" || :))
# A job step has one CPU unless it is told.
cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}
on() { srun --nodes=1 --ntasks=1 --overlap --export=ALL --cpus-per-task="$cpus" --nodelist="$1" "${@:2}"; }
# The head's address as another node sees it: at home its name often stands for loopback.
address=
((${#workers[@]} == 0)) || address=$(on "${workers[0]}" getent ahostsv4 "$head" | awk 'NR == 1 {print $1}') || :
address=${address:-$(hostname --all-ip-addresses | awk '{print $1}')}

# What runs on a node: Ray, until SLURM tells the processes of the step to end; then Ray's folder goes too.
ray_here='
trap "ends=yes" TERM
for attempt in 1 2 3; do
    bash cluster/start.sh "$@" --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" \
        --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port 0 --block &
    status=0
    wait $! || status=$?
    while kill -0 $! 2>/dev/null; do wait $! && status=0 || status=$?; done
    if [ -n "${ends:-}" ]; then rm -rf "$RAY_TMPDIR"; exit 0; fi
    echo "node $SLURMD_NODENAME: Ray ended with status $status (attempt $attempt of 3)" >&2
    # What start.sh refuses it would refuse again.
    [ "$status" != 2 ] || break
done
[ ! -d "$RAY_TMPDIR" ] || echo "node $SLURMD_NODENAME: its logs are in $RAY_TMPDIR/ray/session_latest/logs" >&2
exit 1'
# The end of the job is no time to wait for work to move elsewhere.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
without_chatter() { sed --unbuffered --regexp-extended '/\s(INFO|SUCC)\s/d' >&2; }
join() {
    trap exit TERM
    on "$1" bash -c "$ray_here" ray worker "$address" 2>&1 | without_chatter ||
        echo "node $1 does nothing for this sweep, which goes on without it" >&2
}
# The server of Ray's client, of no use here, starts wherever grpc is installed, and refuses a port where it is not.
client=()
! python -c 'import grpc' 2>/dev/null || client=(--ray-client-server-port "$client_port")
exec 3< <(on "$head" bash -c "$ray_here" ray head --node-ip-address "$address" --include-dashboard false \
    "${client[@]}" 2>&1)
# Ray's own words say when there is something to join.
words=
until [[ $words == *"Ray runtime started"* ]]; do
    IFS= read -r line <&3 || refuse "Ray did not start: $words"
    words+=$line$'\n'
done
without_chatter <&3 &
joins=()
for node in "${workers[@]}"; do
    join "$node" &
    joins+=($!)
done

# In the background and waited for, so that SLURM's warning before the end reaches the sweep at once.
python orchestrator/sweep.py "$@" --address "$address:$port" &
sweep=$!
trap 'told=yes; kill -TERM "$sweep" "${joins[@]}" 2>/dev/null || :' TERM USR1
told=yes
while [ -n "$told" ]; do
    told= status=0
    wait "$sweep" || status=$?
done

# Told while Python was still loading the sweep, or told twice, as by a requeue.
[ "$status" != 143 ] || interrupted
exit "$status"
