#!/usr/bin/env bash
# The runs behind the paper's figures on one machine, one after the other, and the report; not Table 1,
# nor what Figure 1 has of torchvision's AlexNet. Start it again after any interruption: it goes on where it was.
#
#     bash scripts/workstation.sh [OPTION OF ntk_tf.sweep ...]
#
# such as --seeds=0,1,2 --jobs=4 --data_dir=FOLDER; Figures 2 and 5 get --data_dir=... and
# --manual_dir=... of them. AlexNet's figures need --imagenet_dir=FOLDER, of the files of ILSVRC 2012, and are
# left out without. `python -m ntk_tf.sweep --flagfile=... --dry_run` tells how long each sweep may take:
# widths from 10 on want a GPU.
set -uo pipefail
cd "$(dirname "$0")/.."

stopped() { if [ "$1" -eq 75 ] || [ "$1" -ge 128 ]; then exit "$1"; fi; }

imagenet=
all=()   # of a sweep
data=()  # of a run by itself
for option in "$@"; do
  case $option in
    --imagenet_dir=*) imagenet=${option#*=} ;;
    --data_dir=* | --manual_dir=*) all+=("$option") && data+=("$option") ;;
    *) all+=("$option") ;;
  esac
done

failed=0
run() {  # a program, a flagfile's name, and options
  local program=$1 name=$2 files=()
  shift 2
  echo "== $name"
  case $name in *alexnet*)
    if [ -z "$imagenet" ]; then
      echo "left out without --imagenet_dir=FOLDER"
      return
    fi
    files=(--manual_dir="$imagenet") ;;
  esac
  python -m "$program" --flagfile="flags/$name.flags" "$@" ${files[@]+"${files[@]}"}
  code=$?
  stopped $code
  [ $code -eq 0 ] || failed=1
}

for name in figure3_lenet_mnist figure4_lenet_cifar10 figure1_alexnet_losses \
  figure6_alexnet_snakes figure6_alexnet_snakes_weight_decays; do
  run ntk_tf.sweep "$name" ${all[@]+"${all[@]}"}
done
for name in figure2_trajectories figure5_effective_rank_lenet figure5_effective_rank_alexnet; do
  run ntk_tf.main "$name" ${data[@]+"${data[@]}"}
done
python -m ntk_tf.report --runs_dir=runs --output_dir=report || failed=1
exit $failed
