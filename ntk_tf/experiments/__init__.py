"""What `--experiment` names; importing this imports no TensorFlow.

Another experiment is a folder here and its name in `EXPERIMENTS`.
"""

from ntk_tf.experiments.baseline import BASELINE
from ntk_tf.experiments.pretrained import PRETRAINED
from ntk_tf.experiments.rank import RANK
from ntk_tf.experiments.train import TRAIN
from ntk_tf.experiments.trajectory import TRAJECTORY

EXPERIMENTS = {e.name: e for e in (TRAIN, TRAJECTORY, RANK, BASELINE, PRETRAINED)}
