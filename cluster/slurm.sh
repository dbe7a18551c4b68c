#!/usr/bin/env bash
# A sweep as one SLURM job: a Ray over its nodes, the sweep on the first of them. The repository, its .venv (make sweep
# makes one) and the storage must be on a file system that all nodes mount.
#
#   sweep     sbatch cluster/slurm.sh grids/paper.yaml --storage /shared/signsym --data-root /shared/data
#   watch     .venv/bin/signsym status /shared/signsym           and the job's own output
#   resume    the same sbatch again; --requeue does it by itself when the job is preempted
#   results   .venv/bin/signsym report /shared/signsym --out report
#   end       scancel --signal=TERM --full JOB                   keeps what is finished
#SBATCH --job-name=signsym
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=2-00:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit it with sbatch from the repository}"
source .venv/bin/activate
export RAY_AUTH_MODE=token
mkdir -p ~/.ray
[ -f ~/.ray/auth_token ] || ray get-auth-token --generate

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
size=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_PER_NODE:-0}")

srun --nodes=1 --ntasks=1 --overlap --nodelist="${nodes[0]}" \
    bash cluster/start.sh head --node-ip-address "$head" "${size[@]}" --block &
for _ in $(seq 60); do ray status --address "$head:6379" >/dev/null 2>&1 && break; sleep 2; done
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" bash cluster/start.sh worker "$head" "${size[@]}" --block &
done

# In the background and waited for, so that SLURM's warning before the end reaches the sweep at once.
python orchestrator/sweep.py "$@" --address "$head:6379" &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
status=0
wait "$sweep" || status=$?
kill -0 "$sweep" 2>/dev/null && { wait "$sweep" || status=$?; }
exit "$status"
