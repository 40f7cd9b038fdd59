#!/usr/bin/env bash
# A SLURM job: one Ray node on each machine, then training from the first.
#   sbatch docker/ray_slurm.sh experiment=houses_small run_dir=/shared/runs/houses_small
# Run it from the project, on a file system that all machines see. One learner a GPU; without GPUs
# in the request, one learner a machine.
#SBATCH --job-name=relic
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300 # five minutes before the end: save and leave
set -euo pipefail

PYTHON=${PYTHON:-.venv/bin/python}
RAY=$(dirname "$PYTHON")/ray
PORT=${PORT:-6379}
GPUS=${SLURM_GPUS_ON_NODE:-0}
LEARNERS=$((SLURM_NNODES * (GPUS > 0 ? GPUS : 1)))
CPUS=$((SLURM_CPUS_PER_TASK / (GPUS > 0 ? GPUS : 1)))
export OMP_NUM_THREADS=$CPUS

mapfile -t MACHINES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
HEAD=$(srun --nodes=1 --ntasks=1 -w "${MACHINES[0]}" hostname --ip-address | awk '{print $1}')

start_node() { # machine, further flags
  local machine=$1
  shift
  srun --nodes=1 --ntasks=1 --overlap -w "$machine" "$RAY" start --block --disable-usage-stats \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$GPUS" "$@" &
}

start_node "${MACHINES[0]}" --head --node-ip-address="$HEAD" --port="$PORT"
for machine in "${MACHINES[@]:1}"; do
  start_node "$machine" --address="$HEAD:$PORT"
done

# Waits until the head answers; train.py itself waits for the rest.
for _ in $(seq 60); do
  "$RAY" status --address="$HEAD:$PORT" >/dev/null 2>&1 && break
  sleep 2
done

"$PYTHON" train.py cluster=ray cluster.address="$HEAD:$PORT" cluster.start_timeout_s=300 \
  cluster.num_learners="$LEARNERS" cluster.cpus_per_learner="$CPUS" "$@" &
TRAINING=$!
trap 'kill -TERM "$TRAINING"' TERM
wait "$TRAINING" || wait "$TRAINING" # a signal ends the first wait
