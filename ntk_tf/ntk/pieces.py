"""A model's trainable weights in pieces, each with its way to the NTK."""

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from ntk_tf import private
from ntk_tf.linearization.check import assert_visible, sample
from ntk_tf.ntk import inputs
from ntk_tf.ntk.contract import Contraction, Gradients, Stored, choose, even_slices
from ntk_tf.ntk.factors import Rule, Shape, rules_for
from ntk_tf.ntk.inputs import Inputs
from ntk_tf.ntk.kinds import Kind, Outputs, kind_of
from ntk_tf.ntk.passes import Pass, Use, example_gradients, outputs_of

#: Examples in the graph by which the structure is told: a number that no other axis is likely to
#: have, so that an axis of this length is that of the examples.
_BATCH = 113
#: Relative error above which a layer's factors do not explain its gradient: far above rounding in
#: float32, far below what a wrong rule would change.
_TOLERANCE = 1e-3

#: The name of weights without a rule.
OTHER = "other weights"


@dataclasses.dataclass(frozen=True)
class Piece:
    """Weights whose gradients are contracted together.

    Attributes:
        name: the layer's path, or `other weights`; unlike that of any other piece.
        contraction: how.
        weights: the trainable variables.
        owner: the path of the layer that has them, with a number where others have it too.
        layer: the layer; None for the general way.
        rule: the rule; None for the general way.
        part: which of the numbers in the weights, one after the other; None for all.
        functions: which of the kind's R functions; None for all.
    """

    name: str
    contraction: Contraction
    weights: tuple[keras.Variable, ...]
    owner: str = ""
    layer: keras.Layer | None = None
    rule: Rule | None = None
    part: slice | None = None
    functions: slice | None = None

    def inputs(self, uses: Sequence[Use]) -> tf.Tensor:
        """The factor a `[b, g, P, K]`; every use of the layer adds positions."""
        return tf.concat([self.rule.inputs(self.layer, use.inputs) for use in uses], axis=2)

    def deltas(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """The factor delta `[b, g, P, C]` from the gradients in the uses' outputs."""
        return tf.concat([self.rule.outputs(self.layer, g) for g in gradients], axis=2)


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is known of a model for inputs of some shape.

    Attributes:
        pieces: that make up the weights; without those that the outputs do not depend on.
        outputs: L.
        kind: of the kernel.
        examples: for how many the contractions were chosen.
        eager: whether some layer's calls are hidden in a graph, or the model has none.
        untraced: whether the model has none.
    """

    pieces: list[Piece]
    outputs: int
    kind: Kind
    examples: int
    eager: bool
    untraced: bool


class StructureError(Exception):
    """A layer's rule does not hold for this batch, as it did for the one surveyed.

    Attributes:
        layer: the layer.
    """

    def __init__(self, layer: keras.Layer):
        super().__init__(layer.path)
        self.layer = layer


def survey(
    model: keras.Model,
    x: Inputs,
    examples: int,
    *,
    x2: Inputs | None = None,
    outputs: Outputs = "full",
    layers: str | Sequence[str] | None = None,
    per_layer: bool = False,
    without: Iterable[keras.Layer] = (),
) -> Survey:
    """Divide the trainable weights into pieces.

    A layer keeps its own rule only if the outputs depend on its weights by its calls alone, each on
    a tensor of the whole batch. That is read off the graph of the model's operations, which is the
    same for all weights and inputs. Where there is none (calls in loops, or Python that looks at
    values), a few examples tell, and every batch is checked again by `Features`.

    Args:
        model: a built model.
        x: a few inputs.
        examples: number n of examples of the Gram, which decides what is cheapest.
        x2: a few of the second set, whose shapes may differ.
        outputs: see `kinds.kind_of`.
        layers: names, paths or patterns of the layers wanted; None for all.
        per_layer: keep the weights of different layers apart.
        without: layers that must not use their rules.

    Returns:
        The pieces and what goes with them.

    Raises:
        ValueError: if no trainable weights are left, the model has not one output, or an operation
            hides weights from differentiation.
    """
    selected = [w for w in _selected(model, layers) if math.prod(w.shape)]
    candidates = [layer for layer in _candidates(model, selected) if layer not in set(without)]
    sets = [x] if x2 is None or inputs.key(x) == inputs.key(x2) else [x, x2]
    views, eager, untraced = _views(model, candidates, sets)
    kind = kind_of(outputs, views[0].outputs)
    reached = set().union(*[view.reached for view in views])
    explained = _explained(model, candidates, selected, x)
    owners = _owners(model)
    pieces: list[Piece] = []
    for layer in candidates:
        leaks = any(id(w) in reached for w in layer.trainable_weights)
        if not leaks and layer in explained:
            pieces += _own_pieces(layer, owners[id(layer)], views, kind, examples)
    cut = {id(w) for layer in candidates for w in layer.trainable_weights}
    covered = {id(w) for piece in pieces for w in piece.weights}
    rest = [w for w in selected if id(w) not in covered and (id(w) in reached or id(w) in cut)]
    pieces += _general(rest, kind, _layers_of(model, rest, owners) if per_layer else None)
    return Survey(_with_unique_names(pieces), views[0].outputs, kind, examples, eager, untraced)


def _owners(model: keras.Model) -> dict[int, str]:
    """The paths of all layers; with a number where another has it too, as in nested models."""
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    for layer in private.all_layers(model):
        path = layer.path or layer.name  # a layer that is not built has no path
        counts[path] = count = counts.get(path, 0) + 1
        names[id(layer)] = path if count == 1 else f"{path}#{count}"
    return names


def _layers_of(
    model: keras.Model, weights: Sequence[keras.Variable], owners: dict[int, str]
) -> list[str]:
    """The path of the innermost layer of each weight, and which of several of this path it is."""
    numbers: dict[int, str] = {}
    for layer in private.all_layers(model):
        if number := owners[id(layer)].removeprefix(layer.path or layer.name):
            numbers |= {id(w): number for w in layer.trainable_weights}
    return [w.path.rpartition("/")[0] + numbers.get(id(w), "") for w in weights]


def _views(
    model: keras.Model, candidates: list[keras.Layer], sets: Sequence[Inputs]
) -> tuple[list["_View"], bool, bool]:
    """What is seen of the model for each set; whether eagerly, and whether it has no graph."""
    untraced = False
    try:
        views = [_traced_view(model, candidates, some) for some in sets]
    except Exception:  # Whatever a model does that no graph can, it may do without one.
        untraced = True
    eager = untraced or any(view.hidden for view in views)
    if eager:
        views = [_view(model, candidates, inputs.tensors(some)) for some in sets]
    return views, eager, untraced


def _own_pieces(
    layer: keras.Layer, owner: str, views: Sequence["_View"], kind: Kind, examples: int
) -> list[Piece]:
    """A layer's pieces, one a rule; none where its shapes do not go together."""
    shapes = _joined([view.shapes.get(id(layer)) for view in views])
    pieces = []
    for rule, shape in zip(rules_for(layer), shapes or (), strict=shapes is not None):
        contraction = choose(shape, kind.functions, examples, kind.pairing)
        name = f"{layer.path}/{rule.name}" if rule.name else layer.path
        weights = tuple(rule.trainable(layer))
        pieces.append(Piece(name, contraction, weights, owner, layer, rule))
    return pieces


def _selected(model: keras.Model, patterns: str | Sequence[str] | None) -> list[keras.Variable]:
    """The trainable weights of some layers and of all within them.

    Raises:
        ValueError: if there are none.
    """
    if not model.built:
        raise ValueError(f"{model.name!r} is not built: call it on some inputs first")
    if not model.trainable_weights:
        raise ValueError(f"the NTK needs trainable weights, and {model.name!r} has none")
    if patterns is None:
        return model.trainable_weights
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    layers = private.all_layers(model)
    chosen = {
        id(w)
        for layer in layers
        if any(fnmatch.fnmatchcase(n, p) for n in _names(layer) for p in patterns)
        for w in layer.trainable_weights
    }
    if not chosen:
        names = [layer.name for layer in layers if layer.trainable_weights]
        raise ValueError(f"layers={patterns}: with trainable weights there are {', '.join(names)}")
    return [w for w in model.trainable_weights if id(w) in chosen]


def _names(layer: keras.Layer) -> list[str]:
    return [name for name in (layer.name, layer.path) if name]


def _candidates(model: keras.Model, selected: Sequence[keras.Variable]) -> list[keras.Layer]:
    """Layers with rules, all of whose weights are wanted and shared with no other."""
    layers = {id(layer): layer for layer in private.all_layers(model)}
    wanted = {id(w) for w in selected}
    found = [
        layer
        for layer in layers.values()
        if layer.built
        and type(layer).__name__ != "InputLayer"
        and layer.trainable_weights
        and rules_for(layer)
        and all(id(w) in wanted for w in layer.trainable_weights)
    ]
    owners: dict[int, int] = {}
    for layer in found:
        for w in layer.trainable_weights:
            owners[id(w)] = owners.get(id(w), 0) + 1
    return [layer for layer in found if all(owners[id(w)] == 1 for w in layer.trainable_weights)]


@dataclasses.dataclass(frozen=True)
class _View:
    """What one pass shows.

    Attributes:
        outputs: L.
        shapes: of the factors of each rule, by the layer's id, where they can be had.
        reached: see `Pass.reached`.
        hidden: whether calls lie inside of a graph's loops or branches.
    """

    outputs: int
    shapes: dict[int, list[Shape]]
    reached: set[int]
    hidden: bool


def _traced_view(model: keras.Model, layers: Sequence[keras.Layer], x: Inputs) -> _View:
    """The view of a graph that is never run."""
    views = []

    def look(x):
        views.append(_view(model, layers, x))

    tf.function(look, autograph=False).get_concrete_function(inputs.signature(x, _BATCH))
    return views[-1]


def _view(model: keras.Model, layers: Sequence[keras.Layer], x: Inputs) -> _View:
    batch = keras.tree.flatten(x)[0].shape[0]
    flow = Pass(model, layers, x)
    if flow.outputs.shape[0] not in (None, batch):
        raise ValueError(
            f"the model gives {flow.outputs.shape[0]} rows of outputs for {batch} examples"
        )
    shapes = {
        id(layer): _shapes(layer, uses)
        for layer, uses in zip(layers, flow.uses, strict=True)
        if uses and all(_whole_batch(t, batch) for use in uses for t in use)
    }
    hidden = any(not _in_sight(t) for uses in flow.uses for use in uses for t in use)
    return _View(flow.outputs.shape[1], shapes, flow.reached(), hidden)


def _shapes(layer: keras.Layer, uses: Sequence[Use]) -> list[Shape]:
    """Of each rule's factors."""
    shapes = []
    for rule in rules_for(layer):
        a = tf.concat([rule.inputs(layer, use.inputs) for use in uses], axis=2)
        channels = rule.outputs(layer, uses[0].outputs).shape[3]
        shapes.append(Shape(*a.shape[1:], channels, rule.lookup))
    return shapes


def _joined(found: Sequence[list[Shape] | None]) -> list[Shape] | None:
    """Shapes for both sets of inputs; None if one set has none."""
    if any(shapes is None for shapes in found):
        return None
    return [
        dataclasses.replace(same[0], positions=max(shape.positions for shape in same))
        for same in zip(*found, strict=True)
    ]


def _whole_batch(tensor: tf.Tensor, batch: int) -> bool:
    """Whether a noted tensor is the computation's own and has the examples on its first axis."""
    return isinstance(tensor, tf.Tensor) and _in_sight(tensor) and tensor.shape[:1] == [batch]


def _in_sight(tensor: tf.Tensor) -> bool:
    """Whether a noted tensor is eager as all are, or of the graph traced, its shape known there."""
    if tf.executing_eagerly():
        return hasattr(tensor, "numpy")
    if not isinstance(tensor, tf.Tensor) or hasattr(tensor, "numpy"):
        return True
    known = tensor.shape.rank is not None and None not in tensor.shape[1:]
    return known and tensor.graph is tf.compat.v1.get_default_graph()


def _explained(
    model: keras.Model,
    layers: Sequence[keras.Layer],
    weights: Sequence[keras.Variable],
    x: Inputs,
) -> set[keras.Layer]:
    """Layers whose factors give the true gradient, row by row, for a random cotangent.

    A layer whose gradient is zero here is tried once more on random inputs.

    Raises:
        HiddenWeightsError: if the outputs depend on one of the weights, and its gradient is zero.
    """
    # The first example once more: whatever order a layer sees three in, one is at another place.
    x = inputs.tensors(inputs.take(x, [0, inputs.length(x) - 1, 0]))
    found, still = _verdicts(model, layers, weights, x)
    assert_visible(model, [w.value for w in still], x)
    if open_ := [layer for layer, verdict in found.items() if verdict is None]:
        found |= _verdicts(model, open_, weights, keras.tree.map_structure(sample, x))[0]
    return {layer for layer, verdict in found.items() if verdict is not False}


def _verdicts(
    model: keras.Model, layers: Sequence[keras.Layer], weights: Sequence[keras.Variable], x: Inputs
) -> tuple[dict[keras.Layer, bool | None], list[keras.Variable]]:
    """Whether each layer's factors give its gradient at x, and the weights whose gradient is zero.

    None where nothing tells.
    """
    flow = Pass(model, layers, x)
    shape, dtype = flow.outputs.shape, flow.outputs.dtype
    cotangent = tf.constant(np.random.default_rng(0).standard_normal(shape), dtype)
    multiples = tf.constant(2.0 ** np.arange(shape[0]), dtype)  # for each example another
    uses_of = {
        layer: uses
        for layer, uses in zip(layers, flow.uses, strict=True)
        if uses and all(_whole_batch(t, shape[0]) for use in uses for t in use)
    }
    points = [use.outputs for uses in uses_of.values() for use in uses]
    deltas = iter(flow.gradients(cotangent, points))
    multiplied = iter(flow.gradients(multiples[:, None] * cotangent, points))
    gradients = [tf.convert_to_tensor(g) for g in _gradients(model, weights, x, cotangent)]
    truth = dict(zip(map(id, weights), gradients, strict=True))
    found: dict[keras.Layer, bool | None] = dict.fromkeys(layers, False)
    for layer, uses in uses_of.items():
        own, others = ([next(some) for _ in uses] for some in (deltas, multiplied))
        if all(_rows_multiplied(*pair, multiples) for pair in zip(own, others, strict=True)):
            found[layer] = _all([_explains(layer, r, uses, own, truth) for r in rules_for(layer)])
    return found, [w for w in weights if not np.any(truth[id(w)])]


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    """False if one is, else None if one is."""
    return next((some for some in (False, None) if some in verdicts), True)


def _rows_multiplied(delta: tf.Tensor, other: tf.Tensor, multiples: tf.Tensor) -> bool:
    """Whether each row is that of its own example, whose cotangent was multiplied."""
    delta, other = tf.convert_to_tensor(delta), tf.convert_to_tensor(other)
    factors = tf.reshape(multiples, [-1] + [1] * (delta.shape.rank - 1))
    expected = tf.cast(factors, delta.dtype) * delta
    error = tf.reduce_max(tf.abs(other - expected))
    return bool(error <= _TOLERANCE * tf.reduce_max(tf.abs(expected)))


def _gradients(model, weights, x, cotangent) -> list[tf.Tensor]:
    """Of the outputs, times a cotangent, in some weights, by themselves."""
    variables = [w.value for w in weights]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        outputs = outputs_of(model, x)
    zero = tf.UnconnectedGradients.ZERO
    return tape.gradient(outputs, variables, cotangent, unconnected_gradients=zero)


def _explains(layer, rule, uses, gradients, truth) -> bool | None:
    """Whether factors give the norm of the gradient; None if that is zero, or is not finite."""
    a = tf.concat([rule.inputs(layer, use.inputs) for use in uses], axis=2)
    delta = tf.concat([rule.outputs(layer, g) for g in gradients], axis=2)
    if rule.lookup:
        a = tf.one_hot(tf.cast(a[..., 0], tf.int32), layer.input_dim, dtype=delta.dtype)
    expected = sum(_square(truth[id(w)]) for w in rule.trainable(layer))
    found = _squared_norm(a, delta)
    if not 0 < max(expected, found) < math.inf:
        return None
    return abs(found - expected) <= _TOLERANCE * expected


def _squared_norm(a: tf.Tensor, delta: tf.Tensor) -> float:
    """Squared norm of sum_ip delta_i(p) a_i(p)^T, through whichever matrix is smaller."""
    batch, groups, positions, size = a.shape
    a = tf.reshape(tf.transpose(a, [1, 0, 2, 3]), [groups, batch * positions, size])
    delta = tf.reshape(tf.transpose(delta, [1, 0, 2, 3]), [groups, batch * positions, -1])
    if size * delta.shape[2] <= (batch * positions) ** 2:
        return _square(tf.matmul(delta, a, transpose_a=True))
    inputs_gram = tf.matmul(a, a, transpose_b=True)
    deltas_gram = tf.matmul(delta, delta, transpose_b=True)
    return float(tf.reduce_sum(tf.cast(inputs_gram * deltas_gram, tf.float64)))


def _square(x: tf.Tensor) -> float:
    return float(tf.reduce_sum(tf.cast(x, tf.float64) ** 2))


def _general(
    rest: Sequence[keras.Variable], kind: Kind, owners: Sequence[str] | None
) -> list[Piece]:
    """Weights without a rule, together, or by the names of their layers where these are given."""
    groups: dict[str, list[keras.Variable]] = {}
    for w, owner in zip(rest, owners or [OTHER] * len(rest), strict=True):
        groups.setdefault(owner, []).append(w)
    return [
        Piece(name, _of_numbers(_size(weights), kind.functions, kind), tuple(weights), name)
        for name, weights in groups.items()
    ]


def _of_numbers(size: int, functions: int, kind: Kind) -> Contraction:
    return Gradients(Shape(1, 1, size, 1), functions, kind.pairing)


def _size(weights: Sequence[keras.Variable]) -> int:
    return sum(math.prod(w.shape) for w in weights)


def of_functions(known: Survey, functions: slice) -> list[Piece]:
    """The pieces for some of the functions alone, where these are not paired with each other."""
    kind, count = known.kind, functions.stop - functions.start
    if count == kind.functions:
        return known.pieces
    pieces = []
    for piece in known.pieces:
        shape = piece.contraction.shape
        if piece.layer is None:
            contraction = _of_numbers(_size(piece.weights), count, kind)
        else:
            contraction = choose(shape, count, known.examples, kind.pairing)
        name = f"{piece.name} ({functions.start}-{functions.stop - 1})"
        pieces.append(
            dataclasses.replace(piece, name=name, contraction=contraction, functions=functions)
        )
    return pieces


def divided(piece: Piece, kind: Kind, most: int) -> list[Piece]:
    """A piece without a rule in parts that have at most so many weights."""
    size = _size(piece.weights)
    if piece.layer is not None or size <= most:
        return [piece]
    parts = []
    for part in even_slices(size, most):
        count = part.stop - part.start
        contraction = _of_numbers(count, piece.contraction.outputs, kind)
        name = f"{piece.name} [{part.start}:{part.stop}]"
        weights, within = _overlapping(piece.weights, part)
        parts.append(
            dataclasses.replace(
                piece, name=name, contraction=contraction, weights=weights, part=within
            )
        )
    return parts


def _overlapping(
    weights: Sequence[keras.Variable], part: slice
) -> tuple[tuple[keras.Variable, ...], slice]:
    """The weights that have some of the numbers, and which of theirs these are."""
    chosen, position, first = [], 0, 0
    for w in weights:
        size = math.prod(w.shape)
        if position + size <= part.start:
            first = position + size
        elif position < part.stop:
            chosen.append(w)
        position += size
    return tuple(chosen), slice(part.start - first, part.stop - first)


def _with_unique_names(pieces: Sequence[Piece]) -> list[Piece]:
    """Layers of one path, as models of equal names have, told apart by a number."""
    seen: dict[str, int] = {}
    unique = []
    for piece in pieces:
        count = seen[piece.name] = seen.get(piece.name, 0) + 1
        new = {} if count == 1 else {"name": f"{piece.name}#{count}"}
        unique.append(dataclasses.replace(piece, **new))
    return unique


class Features:
    """Computes the stored factors of some pieces for one batch after another.

    Args:
        model: the model that was surveyed.
        known: the survey.
        pieces: those wanted, for the same functions.
        precision: of the stored factors, `float32` or `float64`.
    """

    def __init__(self, model: keras.Model, known: Survey, pieces: Sequence[Piece], precision: str):
        self.model, self.precision, self.eager = model, precision, known.eager
        self.cotangents = known.kind.cotangents[pieces[0].functions or slice(None)]
        self.structured = [piece for piece in pieces if piece.layer is not None]
        self.layers = list({id(piece.layer): piece.layer for piece in self.structured}.values())
        self.general = [piece for piece in pieces if piece.layer is None]
        wanted = [(piece.weights, piece.part) for piece in self.general]
        self.gradients = example_gradients(model, wanted, self.cotangents, known.untraced)
        self.traced: dict[tuple, tf.types.experimental.ConcreteFunction] = {}

    def __call__(self, x: Inputs) -> dict[str, Stored]:
        """The stored factors of a batch x, by the pieces' names.

        Raises:
            StructureError: if a layer's rule does not hold for this batch.
        """
        x = inputs.tensors(x)
        result = self._structured(x) if self.structured else {}
        if self.general:
            for piece, gradients in zip(self.general, self.gradients(x), strict=True):
                result[piece.name] = piece.contraction.of_gradients(self._cast(gradients))
        return result

    def _structured(self, x: Inputs) -> dict[str, Stored]:
        factors = self._factors(x) if self.eager else self._graph(x)(x)
        return {piece.name: stored for piece, stored in zip(self.structured, factors, strict=True)}

    def _graph(self, x: Inputs):
        """The graph for inputs of x's shape, which leaves out what nobody asks for."""
        key = inputs.key(x)
        if key not in self.traced:
            graph = tf.function(
                self._factors, input_signature=[inputs.signature(x)], autograph=False
            )
            try:
                graph.get_concrete_function()
            except Exception:  # As in `survey`: without a graph, errors are the model's own.
                self.eager = True
                return self._factors
            self.traced[key] = graph
        return self.traced[key]

    def _factors(self, x: Inputs) -> list[Stored]:
        """For each piece what its contraction stores."""
        flow = Pass(self.model, self.layers, x)
        uses_of = dict(zip(map(id, self.layers), flow.uses, strict=True))
        self._check(flow, keras.tree.flatten(x)[0].shape[0])
        uses = [uses_of[id(piece.layer)] for piece in self.structured]
        factors = [
            self._cast(piece.inputs(own)) for piece, own in zip(self.structured, uses, strict=True)
        ]
        points = [use.outputs for own in flow.uses for use in own]
        cotangents = tf.constant(self.cotangents, flow.outputs.dtype)

        def of_function(cotangent):
            found = flow.gradients(tf.zeros_like(flow.outputs) + cotangent, points)
            found = [tf.ensure_shape(g, z.shape) for g, z in zip(found, points, strict=True)]
            gradients = {id(z): g for z, g in zip(points, found, strict=True)}
            return [
                piece.contraction.of_output(
                    a, self._cast(piece.deltas([gradients[id(use.outputs)] for use in own]))
                )
                for piece, a, own in zip(self.structured, factors, uses, strict=True)
            ]

        kept = tf.map_fn(
            of_function,
            cotangents,
            fn_output_signature=[tf.as_dtype(self.precision)] * len(self.structured),
        )
        return [
            piece.contraction.store(a, k)
            for piece, a, k in zip(self.structured, factors, kept, strict=True)
        ]

    def _check(self, flow: Pass, batch: int | None) -> None:
        """Without a graph, check every batch: another one may go another way.

        Raises:
            StructureError: if a layer's rule does not hold.
        """
        if not tf.executing_eagerly():
            for layer, uses in zip(self.layers, flow.uses, strict=True):
                if not uses or not all(_in_sight(t) for use in uses for t in use):
                    raise StructureError(layer)
            return
        reached = flow.reached()
        for layer, uses in zip(self.layers, flow.uses, strict=True):
            seen = uses and all(_whole_batch(t, batch) for use in uses for t in use)
            if not seen or any(id(w) in reached for w in layer.trainable_weights):
                raise StructureError(layer)

    def _cast(self, tensor: tf.Tensor) -> tf.Tensor:
        return tf.cast(tensor, self.precision)
