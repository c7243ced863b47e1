"""The layers that an architecture is written against, as shapes alone: without TensorFlow, at once.

What flows between them is a tuple, `(height, width, channels)` or `(d,)`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from ntk_tf.models import arguments as keywords
from ntk_tf.models.arguments import UnknownActivationError

Shape = tuple[int, ...]
#: Activations that count without Keras; of another name Keras has to say whether it has it.
ACTIVATIONS = (None, "relu", "erf", "tanh", "sigmoid", "gelu", "silu", "elu", "softplus", "linear")


@dataclasses.dataclass
class Counts:
    """How large a network is; all numbers for one example.

    Attributes:
        parameters: number of trained parameters p.
        activations: numbers in all layers' outputs, the network's input among them.
        products: of each layer that applies a kernel, in order, how many places it has (1 for a
            dense layer of vectors), inputs that an output depends on, and outputs a place.
        max_pools: number of layers that take maxima; 0 of a Keras model, where nobody asks.
    """

    parameters: int = 0
    activations: int = 0
    products: list[tuple[int, float, int]] = dataclasses.field(default_factory=list)
    max_pools: int = dataclasses.field(default=0, compare=False)

    @property
    def flops(self) -> list[float]:
        """Floating-point operations of those layers; a product and its addition are two."""
        return [2 * math.prod(product) for product in self.products]

    def step_flops(self, linearized: bool) -> float:
        """Floating-point operations that a training step needs for one example.

        With F_i those of layer i, a step of the network takes

            2 F_1 + 3 sum_{i > 1} F_i        forward, gradient in weights, gradient in inputs

        and one of its linearization also the Jacobian-vector product W dx + dW x of each layer,

            F_1 + 2 sum_{i > 1} F_i

        The gradient in the network's own input is not needed, and the input's tangent dx is 0.

        Args:
            linearized: whether the linearization is trained, and not the network itself.
        """
        first, others = sum(self.flops[:1]), sum(self.flops[1:])
        return (3 * first + 5 * others) if linearized else (2 * first + 3 * others)


class Shapes:
    """Layers that only add up their sizes; methods are those of `standard.Standard`.

    Args:
        width: see `Standard`.
        train_biases: whether biases count as parameters.
        counts: what is added to.
        gain: no size depends on it.
        output_factor: see `Standard`.
    """

    _has_biases = True

    def __init__(
        self,
        width: float,
        train_biases: bool,
        counts: Counts,
        *,
        gain: float | None = None,
        output_factor: float = 1.0,
    ):
        self.width, self.train_biases, self.counts = width, train_biases, counts
        self.output_factor = output_factor

    def channels(self, count: int) -> int:
        """See `Standard.channels`."""
        return max(1, round(self.width * count))

    def side(self, x: Shape) -> int:
        """See `Standard.side`."""
        return min(x[:2])

    def conv(
        self,
        x: Shape,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: int | str = 0,
        *,
        activation: str | None = None,
        use_bias: bool = True,
        weight_factor: float | None = None,
        name: str,
    ) -> Shape:
        """See `Standard.conv`."""
        if padding not in (0, "same") and (strides != 1 or kernel_size != 2 * padding + 1):
            x, padding = self.zero_padding(x, padding, name=f"{name}_padding"), 0
        if padding:
            places = [-(-side // strides) for side in x[:2]]
        else:
            places = _positions(x, kernel_size, strides, name)
        return self._apply(
            *(places, kernel_size**2 * x[-1], self.channels(filters)), activation, use_bias
        )

    def dense(
        self,
        x: Shape,
        units: int,
        *,
        activation: str | None = None,
        use_bias: bool = True,
        name: str,
    ) -> Shape:
        """See `Standard.dense`."""
        return self._apply(x[:-1], x[-1], self.channels(units), activation, use_bias)

    def outputs(
        self, x: Shape, num_classes: int, *, use_bias: bool = True, name: str = "outputs"
    ) -> Shape:
        """See `Standard.outputs`."""
        x = self._apply(x[:-1], x[-1], num_classes, None, use_bias)
        return x if self.output_factor == 1 else self._noted(x)

    def norm(self, x: Shape, *, name: str) -> Shape:
        """See `Standard.norm`."""
        self.counts.parameters += 2 * x[-1]
        return self._noted(x)

    def activation(self, x: Shape, kind: str, *, name: str) -> Shape:
        """See `Standard.activation`."""
        _check_activation(kind)
        return self._noted(x)

    def max_pool(self, x: Shape, size: int, strides: int | None = None, *, name: str) -> Shape:
        """See `Standard.max_pool`."""
        self.counts.max_pools += 1
        return self.average_pool(x, size, strides, name=name)

    def average_pool(self, x: Shape, size: int, strides: int | None = None, *, name: str) -> Shape:
        """See `Standard.average_pool`."""
        return self._noted((*_positions(x, size, strides or size, name), x[-1]))

    def global_average_pool(self, x: Shape, *, name: str) -> Shape:
        """See `Standard.global_average_pool`."""
        return self._noted(x[-1:])

    def adaptive_average_pool(self, x: Shape, size: int, *, name: str) -> Shape:
        """See `Standard.adaptive_average_pool`."""
        return x if x[:2] == (size, size) else self._noted((size, size, x[-1]))

    def flatten(self, x: Shape, *, name: str) -> Shape:
        """See `Standard.flatten`."""
        return self._noted((math.prod(x),))

    def add(self, x: Shape, y: Shape, *, name: str) -> Shape:
        """See `Standard.add`."""
        return self._noted(x)

    def zero_padding(self, x: Shape, padding: int, *, name: str) -> Shape:
        """See `Standard.zero_padding`."""
        return self._noted((x[0] + 2 * padding, x[1] + 2 * padding, x[2]))

    def scale(self, x: Shape, factor: float, *, name: str) -> Shape:
        """See `Standard.scale`."""
        return self._noted(x)

    def _apply(
        self,
        places: Sequence[int],
        inputs: int,
        units: int,
        activation: str | None,
        use_bias: bool,
    ) -> Shape:
        """A layer whose outputs, so many a place, each depend on so many inputs."""
        _check_activation(activation)
        biases = use_bias and self._has_biases and self.train_biases
        self.counts.parameters += (inputs + biases) * units
        self.counts.products.append((math.prod(places), inputs, units))
        return self._noted((*places, units))

    def _noted(self, x: Shape) -> Shape:
        self.counts.activations += math.prod(x)
        return x


class NTKShapes(Shapes):
    """The same in the NTK parametrization; see `ntk_scaled.NTKScaled`.

    Args:
        width: see `Standard`.
        train_biases: see `Shapes`.
        counts: see `Shapes`.
        sigma_w: no size depends on it.
        sigma_b: there are no biases if it is 0.
        output_factor: see `Standard`.
    """

    def __init__(
        self,
        width: float,
        train_biases: bool,
        counts: Counts,
        *,
        sigma_w: float,
        sigma_b: float,
        output_factor: float = 1.0,
    ):
        super().__init__(width, train_biases, counts, output_factor=output_factor)
        self._has_biases = sigma_b != 0


#: The sets, by parametrization; their keyword arguments are those of `building.LAYERS`.
_SETS = {"standard": Shapes, "ntk": NTKShapes}


def count(
    arch: str,
    width: float,
    num_classes: int,
    input_shape: Shape,
    parametrization: str = "standard",
    train_biases: bool = True,
    **arguments: Any,
) -> Counts:
    """How large a built-in network is.

    Args:
        arch: a key of `catalogue.architectures.ARCHITECTURES`.
        width: see `models.build`.
        num_classes: L.
        input_shape: see `models.build`.
        parametrization: a key of `building.LAYERS`.
        train_biases: whether biases are trained.
        **arguments: see `models.build`.

    Raises:
        ArchitectureError: as `models.build` does.
        UnknownActivationError: for an activation that only Keras may know.
    """
    counts = Counts(activations=math.prod(input_shape))
    layers = functools.partial(_SETS[parametrization], width, train_biases, counts)
    keywords.apply(arch, layers, tuple(input_shape), tuple(input_shape), num_classes, arguments)
    return counts


def _positions(x: Shape, size: int, strides: int, name: str) -> list[int]:
    """Positions of a window inside a picture, along its height and width.

    Raises:
        ValueError: if there are none.
    """
    if min(x[:2]) < size:
        raise ValueError(f"{name} has windows of side {size}, and a picture of {x[0]}x{x[1]}")
    return [(side - size) // strides + 1 for side in x[:2]]


def _check_activation(kind: str | None) -> None:
    if kind not in ACTIVATIONS:
        raise UnknownActivationError(f"activation={kind!r}")
