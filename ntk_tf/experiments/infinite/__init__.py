"""`--experiment=infinite`: kernels of the infinitely wide network, and regression with them."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from ntk_tf.catalogue import architectures
from ntk_tf.experiments import costs
from ntk_tf.experiments.experiment import Experiment, accuracies
from ntk_tf.models import ArchitectureError, shapes
from ntk_tf.models.arguments import UnknownActivationError
from ntk_tf.runs import number
from ntk_tf.settings import SettingError, groups
from ntk_tf.settings.setting import (
    TRUE_OR_FALSE,
    Condition,
    integer,
    one_of,
    optional,
    setting,
    several,
    shown,
)

_FINITE = Condition("--finite_widths", lambda config: config.finite_widths is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infinite(groups.ArchArgs, groups.TestSubset, groups.TrainSubset, groups.Data):
    """The settings of kernels at infinite width."""

    channels: tuple[int, ...] | None = setting(
        None,
        optional(several(integer(1), different=False)),
        "of the random layers from which max poolings' kernels are estimated, the last for all"
        " further ones (default: 256,1024)",
        since="0.2",
    )
    kernel_seeds: int = setting(
        3,
        integer(1),
        "draws of these layers, over whose kernels the mean is taken; one where there is no max"
        " pooling (default: 3)",
        since="0.2",
    )
    recursion: str = setting(
        "float64",
        one_of("float64", "float32"),
        "precision of the kernels' recursion over the layers (default: float64)",
        since="0.2",
    )
    keep_kernels: bool = setting(
        False, TRUE_OR_FALSE, "also write the kernels, to kernel.npz (default: off)", since="0.2"
    )

    finite_widths: tuple[int, ...] | None = setting(
        None,
        optional(several(integer(1))),
        "also the cosine of finite networks' kernels at these width factors, averaged over the"
        " outputs, with that of the paper's widening (default: none)",
        since="0.2",
    )
    finite_seeds: int = setting(
        3,
        integer(1),
        "initializations of each of these networks (default: 3)",
        when=_FINITE,
        since="0.2",
    )

    def check(self, given: dict[str, Any]) -> None:
        """Refuse random channels where there is no max pooling.

        Raises:
            SettingError: naming the flag, its value and what is allowed.
        """
        super().check(given)
        unused = [name for name in ("channels", "kernel_seeds") if name in given]
        if unused and _is_exact(self):
            name = unused[0]
            raise SettingError(
                f"--{name}={shown(given[name])}: {self.arch} has no max pooling, its kernel is"
                " exact"
            )

    @property
    def small(self) -> bool:
        """Processes share the cores; see `Options.jobs`."""
        return True


def summary(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """The accuracies of the NTK in words, and its effective rank."""
    rank, examples = (number(result, name, path) for name in ("effective_rank", "train_examples"))
    known = rank is not None and examples is not None
    text = f"effective rank {rank:.1f} of {examples:,}" if known else ""
    return f"{accuracies(result, path)}  {text}".strip()


def draws(config: Infinite) -> int:
    """Kernels over which the mean is taken: one where there is no max pooling."""
    return 1 if _is_exact(config) else config.kernel_seeds


def _is_exact(config: Infinite) -> bool:
    """Whether the architecture is known to have no max pooling."""
    if not architectures.is_own(config.arch):
        with contextlib.suppress(ArchitectureError, UnknownActivationError):
            arguments = config.arch, 1, config.num_classes, config.input_shape, "ntk"
            return not shapes.count(*arguments, **config.arguments).max_pools
    return False


def memory(config: Infinite) -> tuple[int, float]:
    """No parameters; bytes of the inputs, of a kernel's draws and of what solves with it."""
    train, test = costs.examples(config)
    inputs = 4 * (train + test) * math.prod(config.input_shape)
    kept = 3 if config.keep_kernels else 0
    return 0, inputs + 8.0 * train * ((draws(config) + 1 + kept) * (train + test) + 3 * train)


EXPERIMENT = Experiment(
    "infinite",
    Infinite,
    "ntk_tf.experiments.infinite.run",
    summary,
    memory,
    files=(
        *("infinite.json", "kernel.npz", "spectrum.npz", "spectra.*", "widths.*"),
        *("tiles/*", "slurm/*"),
    ),
    more=True,
)
