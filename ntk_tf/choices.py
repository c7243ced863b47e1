"""What a run can be made of, and the paper's values for it.

"The paper" is Samarin, Roth and Belius (2020), *On the Empirical Neural Tangent Kernel of Standard
Finite-Width Convolutional Neural Network Architectures*.
"""

from typing import Any

EXPERIMENTS = ("train", "trajectory", "rank", "baseline", "pretrained")
ARCHS = ("lenet", "alexnet")
DATASETS = ("digits", "mnist", "cifar10", "imagenet_snakes")
STRATEGIES = ("one_device", "mirrored")
LOSSES = ("l2", "cross_entropy")
AUGMENTATIONS = ("none", "flip_crop")
DECAY_TARGETS = ("initialization", "zero")
#: Of matrix products and convolutions; `tf32` rounds their factors to 10 bits on NVIDIA GPUs.
PRECISIONS = {
    "train": ("float32", "tf32"),
    "trajectory": ("float32", "tf32"),
    "rank": ("float32", "float64"),
}
WEIGHT_FORMATS = (".pth", ".safetensors", ".npz")

#: Figures 2 to 4 use LeNet on MNIST and CIFAR-10, Figures 1 and 6 AlexNet on ImageNet snakes.
PAPER_DATASET = {"lenet": "mnist", "alexnet": "imagenet_snakes"}

#: Side of the square input of each architecture; absent: the pictures' own. Krizhevsky (2014)
#: crops 224 pixels; digits are 8x8 and LeNet takes no less than 16; photographs have no size of
#: their own, and 32 is CIFAR-10's.
IMAGE_SIZE = {
    ("alexnet", None): 224,
    ("lenet", "digits"): 28,
    ("lenet", "imagenet_snakes"): 32,
}
NATIVE_SIZE = {"digits": 8, "mnist": 28, "cifar10": 32}
NATIVE_CHANNELS = {"digits": 1, "mnist": 1, "cifar10": 3, "imagenet_snakes": 3}
NUM_CLASSES = {"digits": 10, "mnist": 10, "cifar10": 10, "imagenet_snakes": 10}

#: The snakes among ImageNet's 1,000 classes, in WordNet's order; they are outputs 52 to 68 of a
#: network trained on all of ILSVRC 2012.
SNAKE_SYNSETS = (
    *("n01728572", "n01728920", "n01729322", "n01729977"),  # thunder, ringneck, hognose, green
    *("n01734418", "n01735189", "n01737021", "n01739381"),  # king, garter, water, vine
    *("n01740131", "n01742172", "n01744401"),  # night snake, boa constrictor, rock python
    *("n01748264", "n01749939", "n01751748"),  # Indian cobra, green mamba, sea snake
    *("n01753488", "n01755581", "n01756291"),  # horned viper, diamondback, sidewinder
)

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


#: Settings that config.json lacks in run directories of earlier versions, with what those did.
ADDED = {"decay_toward": "initialization", "train_biases": True}

_INPUT = {"experiment", "arch", "dataset", "image_size", "padding"}
_MODEL = _INPUT | {"width", "seed"}
_SNAKES = {"snake_synsets", "skip_corrupt_images"}
_DATA = {"train_examples", "test_examples"} | _SNAKES
_TRAINING = {"loss", *_LENET, "max_steps", "augment", "precision"}

#: The experiments whose figure shows several widths.
OVER_WIDTHS = ("trajectory", "rank")

#: The settings that each experiment reads; a flag of another one is refused.
READS = {
    "train": _MODEL | _DATA | _TRAINING | {"linearized", "decay_toward", "train_biases"},
    "trajectory": _MODEL
    | _DATA
    | _TRAINING - {"epochs"}
    | {"decay_toward", "examples", "record_every", "distance_every", "distance_examples"}
    | {"kernel_every", "kernel_examples"},
    "rank": _MODEL
    | _SNAKES
    | {"examples", "precision", "kernel_regression", "ridge", "test_examples", "from_run"},
    "baseline": _INPUT | _DATA | {"max_steps"},
    "pretrained": _INPUT - {"padding"} | _SNAKES | {"test_examples", "weights"},
}

#: Smallest input side that leaves at least one position before each layer.
MINIMUM_SIDE = {"lenet": 16, "alexnet": 63}


def settings_read(experiment: str, dataset: str, linearized: bool) -> set[str]:
    """The settings that an experiment reads on a dataset, and for which of the two models."""
    read = READS[experiment] - (set() if dataset == "imagenet_snakes" else _SNAKES)
    return read - {"decay_toward"} if experiment == "train" and not linearized else read


def channels(arch: str, dataset: str) -> int:
    """Channels of the network's input: AlexNet always sees three, LeNet the pictures' own."""
    return 3 if arch == "alexnet" else NATIVE_CHANNELS[dataset]


def defaults(experiment: str, arch: str, dataset: str, linearized: bool) -> dict[str, Any]:
    """What an experiment's settings are by default: the paper's; see the constants' sections."""
    alexnet = _LINEARIZED_ALEXNET if linearized else _ALEXNET
    lenet = _LENET_CIFAR10 if dataset == "cifar10" else _LENET
    training = alexnet if arch == "alexnet" else lenet
    size = IMAGE_SIZE.get((arch, dataset)) or IMAGE_SIZE.get((arch, None)) or NATIVE_SIZE[dataset]
    usual = training | {
        "experiment": experiment,
        "arch": arch,
        "dataset": dataset,
        "linearized": linearized,
        "width": 1,
        "image_size": size,
        "padding": 0,
        "loss": "l2",
        "max_steps": None,
        "seed": 0,
        "train_examples": None,
        "test_examples": None,
        "augment": "none",
        "snake_synsets": None,
        "skip_corrupt_images": False,
        "weights": None,
        # Figure 5 takes 600 pictures.
        "examples": 600 if experiment == "rank" else 3,
        "record_every": 1,
        "distance_every": 50,
        "distance_examples": 200,
        "kernel_every": None,
        "kernel_examples": 50,
        "precision": "float32",
        "kernel_regression": False,
        "ridge": 0.0,
        "from_run": None,
        **ADDED,
    }
    read = settings_read(experiment, dataset, linearized)
    return {name: usual[name] for name in usual if name in read}
