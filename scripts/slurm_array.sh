#!/usr/bin/env bash
#SBATCH --job-name=ntk_tf
#SBATCH --requeue
#SBATCH --signal=B:USR2@120
#SBATCH --open-mode=append
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
# Runs line number SLURM_ARRAY_TASK_ID of a file of commands, counted after the first $2 lines if there
# is a second argument. It needs nothing but sbatch:
#
#     bash scripts/slurm_submit.sh flags/figure3_lenet_mnist.flags --gres=gpu:1
#
# makes the file and submits it. By hand:
#
#     python -m ntk_tf.sweep --flagfile=flags/figure3_lenet_mnist.flags --emit_commands > commands.txt
#     sbatch --array=1-$(wc -l < commands.txt)%8 --gres=gpu:1 scripts/slurm_array.sh commands.txt
#
# Two minutes before its time is up the run saves, exits with code 75, and is queued again here. A job
# that is cancelled or pre-empted (SIGTERM) saves too; SLURM itself queues a pre-empted one again. A
# job that is submitted again goes on; a finished run is not done again.
set -euo pipefail

if [ -z "${CUDA_VISIBLE_DEVICES:-}" ]; then  # no more threads than the job has CPUs
  export TF_NUM_INTRAOP_THREADS=${SLURM_CPUS_PER_TASK:-1}
  export TF_NUM_INTEROP_THREADS=${SLURM_CPUS_PER_TASK:-1}
  export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
fi
if [ -n "${SETUP:-}" ]; then  # as `module load cuda`; set -u is nothing that modules expect
  set +u; eval "$SETUP"; set -u
fi
requeue=yes
trap 'kill -USR2 "$run"' USR2
trap 'requeue=no; kill -TERM "$run"' TERM
eval "$(sed -n "$((SLURM_ARRAY_TASK_ID + ${2:-0}))p" "$1") &"
run=$!
while kill -0 "$run" 2>/dev/null; do  # a trap ends `wait`, not the run
  wait "$run" || true
done
code=0  # of the run, also where it ended while a trap was carried out
wait "$run" || code=$?
if [ "$code" -eq 75 ] && [ "$requeue" = yes ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
