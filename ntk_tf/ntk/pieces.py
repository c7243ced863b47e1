"""A model's trainable weights in pieces, each with its way to the NTK."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from ntk_tf.ntk.contract import Contraction, Stored, choose
from ntk_tf.ntk.passes import Pass, Use, example_jacobians
from ntk_tf.ntk.factors import Rule, Shape, rule_for

#: Relative error above which a layer's factors do not explain its gradient: far above rounding in
#: float32, far below what a second use of the weights would change.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Piece:
    """Weights whose gradients are contracted together.

    Attributes:
        name: the layer's path, or `other weights`.
        contraction: how.
        weights: the trainable variables.
        layer: the layer that has them; None for the general way.
        rule: the layer's rule; None for the general way.
        uses: how often the model calls the layer.
    """

    name: str
    contraction: Contraction
    weights: tuple[keras.Variable, ...]
    layer: keras.Layer | None = None
    rule: Rule | None = None
    uses: int = 0

    def inputs(self, uses: Sequence[Use]) -> tf.Tensor:
        """The factor a `[b, g, P, K]`; every use of the layer adds positions."""
        return tf.concat([self.rule.inputs(self.layer, use.inputs) for use in uses], axis=2)

    def deltas(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """The factor delta `[b, g, P, C]` from the gradients in the uses' outputs."""
        return tf.concat([self.rule.outputs(self.layer, g) for g in gradients], axis=2)


def survey(model: keras.Model, x: np.ndarray, examples: int) -> tuple[list[Piece], int]:
    """Divide the trainable weights into pieces, by trying the model on a few examples.

    A layer keeps its own rule only if the gradient that its factors give is the true one, which it
    is not where the weights are used elsewhere too.

    Args:
        model: a built model.
        x: a few inputs.
        examples: number n of examples of the Gram, which decides what is cheapest.

    Returns:
        The pieces, and the number of outputs L.

    Raises:
        ValueError: if the model has no trainable weights or not one output.
    """
    if not model.trainable_weights:
        raise ValueError(f"the NTK needs trainable weights, and {model.name!r} has none")
    candidates = _candidates(model)
    trial = Pass(model, candidates, x)
    outputs = trial.outputs.shape[1]
    cotangents = tf.constant(
        np.random.default_rng(0).standard_normal(trial.outputs.shape), trial.outputs.dtype
    )
    pieces = []
    for layer, uses in zip(candidates, trial.uses, strict=True):
        piece = _piece(layer, uses, outputs, examples, x.shape[0])
        if piece is not None and _explains(trial, piece, uses, cotangents):
            pieces.append(piece)
    covered = {id(w) for piece in pieces for w in piece.weights}
    rest = tuple(w for w in model.trainable_weights if id(w) not in covered)
    if rest:
        size = sum(int(np.prod(w.shape)) for w in rest)
        contraction = choose(Shape(1, size, size, 1), outputs, examples)
        pieces.append(Piece("other weights", contraction, rest))
    return pieces, outputs


def _candidates(model: keras.Model) -> list[keras.Layer]:
    """Layers that have a rule and share no weight with another."""
    layers = {id(layer): layer for layer in model._flatten_layers(include_self=False)}
    trainable = {id(w) for w in model.trainable_weights}
    found = [
        layer
        for layer in layers.values()
        if layer.built
        and type(layer).__name__ != "InputLayer"
        and layer.trainable_weights
        and rule_for(layer) is not None
        and all(id(w) in trainable for w in layer.trainable_weights)
    ]
    owners: dict[int, int] = {}
    for layer in found:
        for w in layer.trainable_weights:
            owners[id(w)] = owners.get(id(w), 0) + 1
    return [layer for layer in found if all(owners[id(w)] == 1 for w in layer.trainable_weights)]


def _piece(
    layer: keras.Layer, uses: Sequence[Use], outputs: int, examples: int, batch: int
) -> Piece | None:
    """The layer's piece, or None if its uses were not calls on tensors of the whole batch."""
    if not uses or not all(_whole_batch(t, batch) for use in uses for t in use):
        return None
    rule = rule_for(layer)
    a = tf.concat([rule.inputs(layer, use.inputs) for use in uses], axis=2)
    channels = rule.outputs(layer, uses[0].outputs).shape[3]
    shape = Shape(a.shape[1], a.shape[2], a.shape[3], channels)
    contraction = choose(shape, outputs, examples)
    weights = tuple(layer.trainable_weights)
    return Piece(layer.path, contraction, weights, layer, rule, len(uses))


def _whole_batch(tensor: tf.Tensor, batch: int) -> bool:
    """Whether a noted tensor is the computation's own and has the examples on its first axis."""
    return tf.is_tensor(tensor) and hasattr(tensor, "numpy") and tensor.shape[:1] == [batch]


def _explains(trial: Pass, piece: Piece, uses: Sequence[Use], cotangents: tf.Tensor) -> bool:
    """Whether the factors give the true gradient's norm for some cotangents."""
    points = [use.outputs for use in uses]
    weights = [w.value for w in piece.weights]
    gradients = trial.gradients(cotangents, points + weights)
    a, delta = piece.inputs(uses), piece.deltas(gradients[: len(points)])
    truth = sum(_square(g) for g in gradients[len(points) :])
    return abs(_squared_norm(a, delta) - truth) <= _TOLERANCE * truth


def _squared_norm(a: tf.Tensor, delta: tf.Tensor) -> float:
    """Squared norm of sum_ip delta_i(p) a_i(p)^T, through whichever matrix is smaller."""
    batch, groups, positions, inputs = a.shape
    a = tf.reshape(tf.transpose(a, [1, 0, 2, 3]), [groups, batch * positions, inputs])
    delta = tf.reshape(tf.transpose(delta, [1, 0, 2, 3]), [groups, batch * positions, -1])
    if inputs * delta.shape[2] <= (batch * positions) ** 2:
        return _square(tf.matmul(delta, a, transpose_a=True))
    inputs_gram = tf.matmul(a, a, transpose_b=True)
    deltas_gram = tf.matmul(delta, delta, transpose_b=True)
    return float(tf.reduce_sum(tf.cast(inputs_gram * deltas_gram, tf.float64)))


def _square(x: tf.Tensor) -> float:
    return float(tf.reduce_sum(tf.cast(x, tf.float64) ** 2))


class Features:
    """Computes the stored factors of some pieces for one batch after another.

    Args:
        model: the model that was surveyed.
        pieces: those wanted.
        precision: of the stored factors, `float32` or `float64`.
    """

    def __init__(self, model: keras.Model, pieces: Sequence[Piece], precision: str):
        self.model, self.precision = model, precision
        self.structured = [piece for piece in pieces if piece.layer is not None]
        self.general = [piece for piece in pieces if piece.layer is None]
        self.jacobians = {
            piece.name: example_jacobians(model, piece.weights) for piece in self.general
        }
        self.factors = None

    def __call__(self, x: np.ndarray) -> dict[str, Stored]:
        """The stored factors of a batch x, by the pieces' names."""
        x = tf.convert_to_tensor(x)
        result = self._structured(x) if self.structured else {}
        for piece in self.general:
            jacobians = self._cast(self.jacobians[piece.name](x))
            result[piece.name] = (tf.reshape(jacobians, [-1, jacobians.shape[-1]]),)
        return result

    def _structured(self, x: tf.Tensor) -> dict[str, Stored]:
        if self.factors is None:
            # A graph leaves out the gradients in the weights, which nobody asks for.
            signature = tf.TensorSpec([None, *x.shape[1:]], x.dtype)
            self.factors = tf.function(self._factors, input_signature=[signature])
        try:
            factors = self.factors(x)
        except _HiddenUseError:
            self.factors = self._factors
            factors = self.factors(x)
        return {piece.name: stored for piece, stored in zip(self.structured, factors, strict=True)}

    def _factors(self, x: tf.Tensor) -> list[Stored]:
        """For each piece what its contraction stores.

        Raises:
            _HiddenUseError: in a graph, if the uses are not those of the survey.
        """
        flow = Pass(self.model, [piece.layer for piece in self.structured], x)
        for piece, uses in zip(self.structured, flow.uses, strict=True):
            if len(uses) != piece.uses or not all(_in_sight(t) for use in uses for t in use):
                raise _HiddenUseError(piece.name)
        factors = [
            self._cast(piece.inputs(uses))
            for piece, uses in zip(self.structured, flow.uses, strict=True)
        ]
        points = [use.outputs for uses in flow.uses for use in uses]
        outputs = flow.outputs.shape[1]

        def of_output(number):
            cotangents = tf.zeros_like(flow.outputs) + tf.one_hot(
                number, outputs, dtype=flow.outputs.dtype
            )
            found = flow.gradients(cotangents, points)
            gradients = iter(
                [tf.ensure_shape(g, z.shape) for g, z in zip(found, points, strict=True)]
            )
            return [
                piece.contraction.of_output(
                    a, self._cast(piece.deltas([next(gradients) for _ in range(piece.uses)]))
                )
                for piece, a in zip(self.structured, factors, strict=True)
            ]

        kept = tf.map_fn(
            of_output,
            tf.range(outputs),
            fn_output_signature=[tf.as_dtype(self.precision)] * len(self.structured),
        )
        return [
            piece.contraction.store(a, k)
            for piece, a, k in zip(self.structured, factors, kept, strict=True)
        ]

    def _cast(self, tensor: tf.Tensor) -> tf.Tensor:
        return tf.cast(tensor, self.precision)


class _HiddenUseError(Exception):
    """A layer is used where a graph's loop or branch hides its tensors or their shapes."""


def _in_sight(tensor: tf.Tensor) -> bool:
    """Whether a noted tensor belongs to the graph being traced, with its shape known there."""
    if tf.executing_eagerly():
        return True
    known = tensor.shape.rank is not None and None not in tensor.shape[1:]
    return known and tensor.graph is tf.compat.v1.get_default_graph()
