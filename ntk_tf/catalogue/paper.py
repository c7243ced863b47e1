"""The paper's hyperparameters, and general ones for what the paper did not train.

"The paper" is Samarin, Roth and Belius (2020), *On the Empirical Neural Tangent Kernel of Standard
Finite-Width Convolutional Neural Network Architectures*.
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
    "lr_drop_every": 0,
    "lr_drop_factor": 10.0,
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

#: By (architecture, dataset, linearized); None stands for all.
_TRAINING = {
    ("lenet", "cifar10", None): _LENET_CIFAR10,
    ("lenet", None, None): _LENET,
    ("alexnet", None, False): _ALEXNET,
    ("alexnet", None, True): _LINEARIZED_ALEXNET,
}


def training(arch: str, dataset: str, linearized: bool) -> Mapping[str, Any]:
    """Hyperparameters of training: the paper's where it has any, otherwise `GENERAL`.

    Args:
        arch: architecture.
        dataset: its pictures.
        linearized: whether the linearization is trained.
    """
    for (its_arch, its_dataset, its_model), values in _TRAINING.items():
        if its_arch == arch and its_dataset in (None, dataset) and its_model in (None, linearized):
            return values
    return GENERAL
