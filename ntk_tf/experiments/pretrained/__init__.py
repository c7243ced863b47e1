"""`--experiment=pretrained`: a network trained on all of ImageNet, evaluated on the snakes."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ntk_tf.data import counts
from ntk_tf.experiments import costs
from ntk_tf.experiments.experiment import Experiment, accuracies
from ntk_tf.models import shapes
from ntk_tf.runs import number
from ntk_tf.settings import SettingError, groups
from ntk_tf.settings.setting import one_of, setting, text

#: Classes of ILSVRC 2012.
OUTPUTS = 1000
FORMATS = (".pth", ".safetensors", ".npz")
_FILE = text(
    f"a file that ends in {', '.join(FORMATS)}", lambda value: value.endswith(FORMATS), "FILE"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained(groups.TestSubset, groups.Data):
    """The settings of an evaluation; only AlexNet on the snakes can be evaluated."""

    arch: str = setting("alexnet", one_of("alexnet"), "alexnet alone", named=False)
    dataset: str = setting(
        "imagenet_snakes", one_of("imagenet_snakes"), "imagenet_snakes alone", named=False
    )
    weights: str = setting(  # None is refused by `check`
        None, _FILE, "network trained on ImageNet: .pth, .safetensors or .npz", named=False
    )

    def check(self, given: dict[str, Any]) -> None:
        """Refuse to evaluate nothing.

        Raises:
            SettingError: if there is no file of weights.
        """
        super().check(given)
        if self.weights is None:
            raise SettingError(
                f"--experiment=pretrained: needs --weights={_FILE.allowed}, such as torchvision's"
                " alexnet-owt-7be5be79.pth"
            )


def summary(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """Accuracies over all classes and among the snakes in words."""
    among = number(result, "test_accuracy_among_snakes", path)
    text_among = "" if among is None else f"  test accuracy among snakes {among:.2%}"
    return accuracies(result, path) + text_among


def memory(config: Pretrained) -> tuple[int, float]:
    """Parameters of torchvision's AlexNet, and bytes of them in the file's and Keras' layout."""
    sizes = shapes.count(config.arch, 1, OUTPUTS, config.input_shape)
    kept = sizes.activations * counts.evaluation_batch_size(config.input_shape)
    return sizes.parameters, costs.FLOAT * (2 * sizes.parameters + kept)


EXPERIMENT = Experiment(
    "pretrained", Pretrained, "ntk_tf.experiments.pretrained.run", summary, memory
)
