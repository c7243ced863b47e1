#!/usr/bin/env bash
#SBATCH --job-name=ntk_tf
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
# Runs line number SLURM_ARRAY_TASK_ID of a file of commands. It needs nothing but sbatch:
#
#     bash scripts/slurm_submit.sh flags/figure3_lenet_mnist.flags --gres=gpu:1
#
# makes the file and submits it. By hand:
#
#     python -m ntk_tf.sweep --flagfile=flags/figure3_lenet_mnist.flags --emit_commands > commands.txt
#     sbatch --array=1-$(wc -l < commands.txt)%8 --gres=gpu:1 scripts/slurm_array.sh commands.txt
#
# A pre-empted job is requeued by SLURM and goes on; so does one that is submitted again. A finished
# run is not done again.
set -euo pipefail

if [ -z "${CUDA_VISIBLE_DEVICES:-}" ]; then  # no more threads than the job has CPUs
  export TF_NUM_INTRAOP_THREADS=${SLURM_CPUS_PER_TASK:-1}
  export TF_NUM_INTEROP_THREADS=${SLURM_CPUS_PER_TASK:-1}
  export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
fi
eval "exec $(sed -n "${SLURM_ARRAY_TASK_ID}p" "$1")"
