"""The built-in architectures: a row each. Another is a file in `ntk_tf.models` and a row here."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is known of an architecture without building it.

    Attributes:
        name: on the command line.
        title: for readers; the linearization is called Lin<title>.
        function: `module:function` that builds it.
        smallest_side: the smallest side of a picture that leaves a position before every layer.
        usual_side: side that pictures are resized to by default; None for their own.
        channels: that it takes, a single one being repeated; None for the pictures' own.
        dataset: the one that it is trained on by default; None for an architecture of the user's.
        takes_vectors: whether its inputs may be vectors.
        one_thread_width: up to this width, in batches of 32, each operation of a training step is
            too small to be split over threads: measured.
        gain: of the initialization in the standard parametrization; None for PyTorch's default.
        sigma_w: standard deviation of the weights in the NTK parametrization, times sqrt(fan_in).
        sigma_b: of its biases; there are none if it is 0.
        output_factor: that the outputs are multiplied by.
    """

    name: str
    title: str
    function: str
    smallest_side: int = 1
    usual_side: int | None = None
    channels: int | None = None
    dataset: str | None = None
    takes_vectors: bool = False
    one_thread_width: int = 0
    gain: float | None = None
    sigma_w: float = 2**0.5
    sigma_b: float = 0.0
    output_factor: float = 1.0


_ROWS = (
    # Figures 2 to 4 use LeNet on MNIST and CIFAR-10, Figures 1 and 6 AlexNet on ImageNet snakes;
    # Krizhevsky (2014) crops 224 pixels.
    Architecture(
        "lenet", "LeNet", "ntk_tf.models.lenet:lenet", 16, dataset="mnist", one_thread_width=2
    ),
    Architecture(
        "alexnet", "AlexNet", "ntk_tf.models.alexnet:alexnet", 63, 224, 3, "imagenet_snakes"
    ),
    # Jacot et al. (2018), section 6: sigma_w = 1 and beta = 0.1.
    Architecture(
        *("mlp", "MLP", "ntk_tf.models.mlp:mlp"),
        dataset="mnist",
        takes_vectors=True,
        sigma_w=1.0,
        sigma_b=0.1,
    ),
    # Chizat et al. (2019) have gain 1 in the runs of Figure 3(a), and 2 where none is named.
    Architecture("vgg11", "VGG-11", "ntk_tf.models.vgg:vgg11", dataset="cifar10", gain=1.0),
    Architecture(
        "resnet18", "ResNet-18", "ntk_tf.models.resnet:resnet18", dataset="cifar10", gain=1.0
    ),
    # Arora et al. (2019): the factor c_sigma = 2 before each layer but the first; kappa = 0.05 is
    # from memory of section 6.
    Architecture(
        *("cnn_v", "CNN-V", "ntk_tf.models.cnn:cnn_v"), dataset="cifar10", output_factor=0.05
    ),
    Architecture(
        *("cnn_gap", "CNN-GAP", "ntk_tf.models.cnn:cnn_gap"), dataset="cifar10", output_factor=0.05
    ),
    # Lee et al. (2019), table S1, from memory.
    Architecture("wrn", "WRN", "ntk_tf.models.wrn:wrn", dataset="cifar10", sigma_w=1.0),
)
ARCHITECTURES = {row.name: row for row in _ROWS}

#: How a function of the user's is named.
_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str) -> bool:
    """Whether a name has the form `PACKAGE.MODULE:FUNCTION` of a user's architecture."""
    return _OWN.fullmatch(name) is not None


def find(name: str) -> Architecture:
    """The row of an architecture; for one of the user's it is made from the name.

    Args:
        name: a key of `ARCHITECTURES`, or `PACKAGE.MODULE:FUNCTION`.

    Raises:
        ValueError: for any other name.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if is_own(name):
        return Architecture(name, name.partition(":")[2], name, takes_vectors=True)
    raise ValueError(f"arch={name!r}: must be {ALLOWED}")


#: What an architecture may be called, for error messages.
ALLOWED = f"one of {', '.join(ARCHITECTURES)}, or PACKAGE.MODULE:FUNCTION of your own"
