#!/usr/bin/env bash
# Submits every run behind a figure as one array of SLURM jobs; needs nothing but sbatch.
#
#     bash scripts/slurm_submit.sh flags/figure3_lenet_mnist.flags [OPTION OF sbatch ...]
#
# such as --gres=gpu:1 --partition=NAME --time=24:00:00. Options of the sweep go into SWEEP:
#
#     SWEEP="--seeds=0,1,2 --data_dir=/shared/tfds" bash scripts/slurm_submit.sh flags/smoke.flags
#
# SETUP is what each job's shell does first:
#
#     SETUP="module load cuda; source .venv/bin/activate" bash scripts/slurm_submit.sh ... --account=NAME
#
# Run it where there is internet, or with --manual_dir in SWEEP: the data is prepared here, once.
# Submitting again resumes what is unfinished.
set -euo pipefail

flagfile=${1:?usage: slurm_submit.sh FLAGFILE [OPTION OF sbatch ...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
name=$(basename "$flagfile" .flags)
read -r -a sweep <<< "${SWEEP:-}"
mkdir -p slurm
new=slurm/$name.$$
python -m ntk_tf.sweep --flagfile="$flagfile" ${sweep[@]+"${sweep[@]}"} --prepare_data
python -m ntk_tf.sweep --flagfile="$flagfile" ${sweep[@]+"${sweep[@]}"} --emit_commands > "$new"
# Waiting jobs read their line when they start, so another sweep must not have the same file.
name=$name-$(cksum < "$new" | cut -d' ' -f1)
commands=slurm/$name.commands
mv "$new" "$commands"
# An array has positions below MaxArraySize: several where there are more runs than that.
size=$(scontrol show config 2>/dev/null | sed -n 's/^MaxArraySize *= *//p' || true)
size=$((${size:-1001} - 1))
lines=$(wc -l < "$commands")
for ((before = 0; before < lines; before += size)); do
  count=$((lines - before < size ? lines - before : size))
  sbatch --array="1-$count" --output="slurm/$name-$before+%a.log" "$@" \
    "$here/slurm_array.sh" "$commands" "$before"
done
