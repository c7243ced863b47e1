"""The paper's hyperparameters, those of the other systems in its Table 1, and general ones.

"The paper" is Samarin, Roth and Belius (2020), *On the Empirical Neural Tangent Kernel of Standard
Finite-Width Convolutional Neural Network Architectures*. Its Table 1 quotes Chizat, Oyallon and
Bach (2019), *On Lazy Training in Differentiable Programming*; Arora et al. (2019), *On Exact
Computation with an Infinitely Wide Neural Net*; and it compares with Lee et al. (2019), *Wide
Neural Networks of Any Depth Evolve as Linear Models Under Gradient Descent*.
"""

from collections.abc import Mapping
from typing import Any

#: Section 3.1: LeNet by SGD with batches of 32, momentum 0.9, weight decay 5e-5, for 100 epochs; of
#: the learning rates 0.1, 0.01 and 0.001 it presents 0.1; constant on MNIST.
_LENET = {
    "epochs": 100,
    "batch_size": 32,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-5,
    "schedule": "step",
    "lr_drop_every": 0,
    "lr_drop_factor": 10.0,
    "targets": (0.0, 1.0),
    "augment": "none",
}
#: Section 3.2 (Figure 4): on CIFAR-10 the learning rate is divided by 10 every 30 epochs.
_LENET_CIFAR10 = _LENET | {"lr_drop_every": 30}
#: Section 3.3 (Figure 6): the network at learning rate 0.1 and weight decay 5e-6, divided by 10
#: every 30 epochs.
_ALEXNET = _LENET | {"weight_decay": 5e-6, "lr_drop_every": 30}
#: Section 3.3 and Table 1: the linearization at learning rate 1 and weight decay 5e-7.
_LINEARIZED_ALEXNET = _ALEXNET | {"learning_rate": 1.0, "weight_decay": 5e-7}
#: Where the paper says nothing: its values for LeNet, at a learning rate that deeper networks bear.
GENERAL = _LENET | {"learning_rate": 0.01}
#: Chizat et al. (github.com/edouardoyallon/lazy-training-CNN, cnn/train.py and script.sh): the runs
#: of Figure 3(a), of learning rates 1, 0.1, 0.01 and 0.001.
_CHIZAT = _LENET | {"batch_size": 128, "weight_decay": 0.0, "schedule": "inverse"}
#: There, CIFAR-10 is augmented.
_CHIZAT_CIFAR10 = _CHIZAT | {"augment": "padded_crop"}
#: Arora et al., section 6, from memory: SGD without decay or augmentation, at a learning rate that
#: was tuned; targets -0.1 and 0.9 (github.com/ruosongwang/CNTK, for the kernels).
_ARORA = GENERAL | {"weight_decay": 0.0, "targets": (-0.1, 0.9)}
#: Lee et al., table S1 (batches of 8, momentum 0.9); its learning rate of 1 is for the NTK
#: parametrization.
_LEE = GENERAL | {"batch_size": 8, "weight_decay": 0.0}

#: By (architecture, dataset, linearized); None stands for all.
_TRAINING = {
    ("lenet", "cifar10", None): _LENET_CIFAR10,
    ("lenet", None, None): _LENET,
    ("alexnet", None, False): _ALEXNET,
    ("alexnet", None, True): _LINEARIZED_ALEXNET,
    ("vgg11", "cifar10", None): _CHIZAT_CIFAR10,
    ("vgg11", None, None): _CHIZAT,
    ("resnet18", "cifar10", None): _CHIZAT_CIFAR10,
    ("resnet18", None, None): _CHIZAT,
    ("cnn_v", None, None): _ARORA,
    ("cnn_gap", None, None): _ARORA,
    ("wrn", None, None): _LEE,
}


def training(arch: str, dataset: str, linearized: bool) -> Mapping[str, Any]:
    """Hyperparameters of training: the sources' where they have any, otherwise `GENERAL`.

    Args:
        arch: architecture.
        dataset: its pictures.
        linearized: whether the linearization is trained.
    """
    for (its_arch, its_dataset, its_model), values in _TRAINING.items():
        if its_arch == arch and its_dataset in (None, dataset) and its_model in (None, linearized):
            return values
    return GENERAL
