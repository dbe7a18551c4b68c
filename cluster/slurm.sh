#!/usr/bin/env bash
# A sweep as one SLURM job: a Ray over its nodes, the sweep on the first of them. The repository, its .venv (make sweep
# makes one) and the storage must be on a file system that all nodes mount. Change the #SBATCH lines to your cluster.
#
#   sweep     sbatch cluster/slurm.sh grids/paper.yaml --storage /shared/signsym --data-root /shared/data
#   watch     .venv/bin/signsym status /shared/signsym           and the job's own output
#   resume    the same sbatch again; a job that is preempted and requeued goes on by itself
#   results   .venv/bin/signsym report /shared/signsym --out report
#   end       scancel --batch --signal=TERM JOB                  keeps what is finished, as the end of the time does
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
cd "${SLURM_SUBMIT_DIR:?submit it with sbatch from the repository}"
source .venv/bin/activate
export RAY_AUTH_MODE=token
ray get-auth-token --generate >/dev/null

# Others may run a Ray on the same node: a port and a folder of the job's own.
export SIGNSYM_RAY_PORT=$((20000 + SLURM_JOB_ID % 10000))
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --all-ip-addresses | awk '{print $1}')
size=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" --block)
# A job step has one CPU unless it is told.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

srun --nodes=1 --ntasks=1 --overlap --nodelist="${nodes[0]}" bash cluster/start.sh head \
    --node-ip-address "$head" --temp-dir "/tmp/signsym-$SLURM_JOB_ID" "${size[@]}" &
for _ in $(seq 60); do ray status --address "$head:$SIGNSYM_RAY_PORT" >/dev/null 2>&1 && break; sleep 2; done
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" bash cluster/start.sh worker "$head" "${size[@]}" &
done

# In the background and waited for, so that SLURM's warning before the end reaches the sweep at once.
python orchestrator/sweep.py "$@" --address "$head:$SIGNSYM_RAY_PORT" &
sweep=$!
told=
trap 'told=yes; kill -TERM "$sweep"' TERM
status=0
wait "$sweep" || status=$?
if [ -n "$told" ]; then
    status=0
    wait "$sweep" || status=$?
fi
exit "$status"
