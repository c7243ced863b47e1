"""Is J u right? <r, J u> = <J^T r, u> for random r and u, in the very mode that will run.

J^T r, which training uses whatever it linearizes, is what J u is measured by. Where J^T r is zero
for a weight, a central difference tells whether f depends on it all the same.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ntk_tf import private
from ntk_tf.linearization import products
from ntk_tf.models.pooling import inside_xla

#: Dimensions that a graph leaves open: examples, and whatever else is unknown.
OPEN_BATCH, OPEN_SIDE = 4, 32
#: Ops by which a model says itself that its gradient is another than f's.
_DELIBERATE = {"StopGradient", "PreventGradient", "IdentityN"}
#: Ops through which forward mode loses tangents in a graph.
_CALLS = {"While", "If", "Case", "PartitionedCall", "IdentityN"}

_EPSILON = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
_FLOAT32 = _EPSILON["float32"]
#: Squares of smaller numbers are no float32 of full precision.
_VANISHING = 1e-18
#: Of u for a weight whose gradients are smaller than others'.
_LARGEST_SCALE = 1e4
#: Ends the message for those who call from Python.
UNCHECKED = "check=False goes on without a check"
#: Ops that compute in float32 whatever the model does.
_IN_FLOAT32 = {"ResizeBilinear", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate"}


class HiddenWeightsError(ValueError):
    """A model depends on weights of which its operations have no derivative."""


def current_mode() -> str:
    """Whether what is called right now runs in `eager` mode, in a `graph`, or compiled by `xla`."""
    if tf.executing_eagerly():
        return "eager"
    return "xla" if inside_xla() else "graph"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model at a point, with inputs and a mode to try products in.

    Attributes:
        base: the model f.
        point: the variables that it is differentiated in.
        x: inputs, a structure of tensors.
        specs: a structure of `tf.TensorSpec` like the inputs', for graphs.
        mode: `eager`, `graph` or `xla`.
    """

    base: keras.Model
    point: Sequence[tf.Variable]
    x: Any
    specs: Any
    mode: str
    _op_types: list[set[str]] = dataclasses.field(init=False, default_factory=list, compare=False)

    def function(self, of_x: Callable[[Any], Any]) -> Callable:
        """A function of the inputs as one of their leaves that runs in the trial's mode."""

        def flat(*leaves):
            return of_x(tf.nest.pack_sequence_as(self.x, leaves))

        if self.mode == "eager":  # a strategy would convert it
            return tf.autograph.experimental.do_not_convert(flat)
        return tf.function(
            flat,
            input_signature=tf.nest.flatten(self.specs),
            jit_compile=self.mode == "xla" or None,
            autograph=False,
        )

    def run(self, of_x: Callable[[Any], Any]) -> Sequence[Any]:
        """What a function of the inputs returns, a structure of tensors, on each replica."""
        strategy, function = tf.distribute.get_strategy(), self.function(of_x)
        if self.mode != "eager" and strategy.num_replicas_in_sync == 1:
            function = function.get_concrete_function()  # or many models make TensorFlow warn
        result = strategy.run(function, tf.nest.flatten(self.x))
        return strategy.experimental_local_results(result)

    def call(self, x) -> Any:
        """f(x)."""
        return self.base(x, training=False)

    @property
    def op_types(self) -> set[str]:
        """Types of the ops of f's graph, or none where it cannot be traced; traced once.

        A cached property of Python 3.11 has one lock for all trials, and f may hold another one.
        """
        if not self._op_types:
            self._op_types.append(self._traced())
        return self._op_types[0]

    def _traced(self) -> set[str]:
        function = dataclasses.replace(self, mode=self.mode.replace("eager", "graph")).function
        try:
            return products.op_types(function(self.call).get_concrete_function().graph)
        except Exception:  # of the model's own
            return set()


def trial(base: keras.Model, point: Sequence[tf.Variable], x: Any, mode: str) -> Trial | None:
    """A trial on inputs like x, which may be symbolic; None if there can be none."""
    if mode == "eager" or not any(tf.is_symbolic_tensor(t) for t in tf.nest.flatten(x)):
        x = tf.nest.map_structure(tf.convert_to_tensor, x)
    if not all(isinstance(t, tf.Tensor) and t.shape.rank is not None for t in tf.nest.flatten(x)):
        return None
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), x)
    if any(tf.is_symbolic_tensor(t) for t in tf.nest.flatten(x)):
        x = specs
    return Trial(base, point, x, specs, mode)


def declared_inputs(base: keras.Model) -> Any:
    """A structure of `tf.TensorSpec` like the inputs that a model is built for; None if unknown."""
    if getattr(base, "inputs", None):
        inputs = base.inputs[0] if isinstance(base, keras.Sequential) else base.input
        return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), inputs)
    shape = (base.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not all(
        isinstance(n, (int, type(None))) for n in shape
    ):
        return None
    return tf.TensorSpec([None, *shape[1:]], base.input_dtype)


def choose(trial: Trial, ways: Sequence[str]) -> str:
    """The first way to J u that passes; where the model itself cannot run, the first.

    Args:
        trial: what to try.
        ways: to J u, the preferred first.

    Raises:
        ValueError: if none passes; it names the layer.
    """
    return _apart(_choose, trial, ways)


def by_operations(trial: Trial, ways: Sequence[str]) -> str:
    """The first way, or the last if the model's graph calls functions or has custom gradients."""
    return _apart(_possible, trial, ways)[0]


def _possible(trial: Trial, ways: Sequence[str]) -> Sequence[str]:
    """Ways worth a try: forward mode is none where tangents may be lost, unless it is the only one.

    It could pass by chance: layers that are dead on random inputs may live on others.
    """
    return ways[-1:] if _may_lose(trial.op_types) else ways


def _may_lose(op_types: set[str]) -> bool:
    """Whether forward mode may lose tangents among some ops."""
    return any(t.removeprefix("Stateless").removeprefix("Stateful") in _CALLS for t in op_types)


def survives_xla(trial: Trial) -> bool:
    """Whether f's graph, as XLA would get it, is free of TensorFlow's max pooling."""
    return not any(t.startswith("MaxPool") for t in _apart(lambda: trial.op_types))


def _apart(function, *args):
    """Run where none of the caller's tapes, graphs and scopes is active, but for its strategy."""
    strategy = tf.distribute.get_strategy()

    def inside():
        with strategy.scope():
            return function(*args)

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(inside).result()


def _choose(trial, ways):
    trial = dataclasses.replace(trial, x=tf.nest.map_structure(sample, trial.x))
    complaints = {}
    for way in _possible(trial, ways):
        complaints[way] = _complaint(trial, trial.call, way)
        if complaints[way] is None:
            return way
    if not _runs(trial):
        return ways[0]
    found = [f"{_place(trial, way, text)}: {text}" for way, text in complaints.items()]
    raise ValueError(
        f"{trial.base.name!r} cannot be linearized here ({trial.mode} mode). "
        + "; ".join(found)
        + f". {_advice(trial.mode, ways)}"
    )


def sample(leaf: tf.Tensor | tf.TensorSpec) -> tf.Tensor:
    """Random numbers in (0, 1) of an input's shape; integers stay, or are 0 and 1, as in any range.

    Pictures that are black, say, would hide what is wrong with the layers that see them.
    """
    if isinstance(leaf, tf.Tensor) and not leaf.dtype.is_floating:
        return leaf
    shape = [
        (OPEN_SIDE if axis else OPEN_BATCH) if n is None else n for axis, n in enumerate(leaf.shape)
    ]
    if leaf.dtype == tf.string:
        return tf.fill(shape, "")
    uniform = tf.random.stateless_uniform(shape, (0, 1))
    return tf.cast(uniform if leaf.dtype.is_floating else tf.round(uniform), leaf.dtype)


def _runs(trial) -> bool:
    """Whether the model takes these inputs at all."""
    try:
        trial.run(lambda x: tf.zeros(()) * len(tf.nest.flatten(trial.call(x))))
    except Exception:
        return False
    return True


def _complaint(trial, call, way) -> str | None:
    """What is wrong with this way to J u, if anything."""
    op_types, scales = trial.op_types, [1.0] * len(trial.point)
    # Where tangents may be lost, a second time with u such that no weight drowns in the others.
    for _ in range(1 + (way == "forward" and _may_lose(op_types))):
        u = [
            0.1 * s * _normal(w, i)
            for i, (w, s) in enumerate(zip(trial.point, scales, strict=True))
        ]
        multiply = functools.partial(_multiply, point=trial.point, u=u, way=way)
        try:
            replicas = trial.run(lambda x: multiply(functools.partial(call, x)))  # noqa: B023
        except Exception as error:
            return f"jvp={way!r} fails ({_shortened(error)})"
        for left, right, scale, outputs, *largest in (_compared(u, *found) for found in replicas):
            # Of values whose squares overflow or vanish, or that are not numbers in f itself,
            # nothing can be told.
            if _VANISHING < scale < math.inf and _differ(left, right, scale, trial.base, op_types):
                return f"jvp={way!r} gives <r, J u> = {left:.6g}, but <J^T r, u> = {right:.6g}"
            zero = [w for w, size in zip(trial.point, largest, strict=True) if size == 0]
            if outputs and (hidden := _hidden(trial, call, zero)):
                return hidden
            most = max(largest)
            scales = [min(most / size, _LARGEST_SCALE) if size else 1.0 for size in largest]
    return None


def _differ(left: float, right: float, scale: float, base: keras.Model, op_types: set[str]) -> bool:
    """Whether two numbers of a scale differ by more than rounding."""
    error = abs(left - right)
    if op_types & _IN_FLOAT32 and error <= _tolerance(base, _FLOAT32) * scale:
        return False
    return error > _tolerance(base) * scale


def _multiply(function, point, u, way) -> tuple[list[tf.Tensor], ...]:
    """A random r, J u and J^T r; outputs that can have no derivative are left out.

    What is computed of them later is no part of the graph, whose tracing is what takes the time.
    """
    outputs, tangents, pullback = products.linearize(function, point, u, way, persistent=False)
    r = tf.nest.map_structure(lambda f: _normal(f, 7) if products.is_float(f) else None, outputs)
    gradients = pullback(r)
    pairs = list(zip(tf.nest.flatten(r), tf.nest.flatten(tangents), strict=True))
    return *([pair[i] for pair in pairs if pair[0] is not None] for i in (0, 1)), gradients


def _compared(u, r, tangents, gradients) -> list[float]:
    """<r, J u>, <J^T r, u>, how large they may be expected, number of outputs, max |J^T r|.

    The last for each weight.
    """
    single = [_wide(g) * _wide(v) for g, v in zip(gradients, u, strict=True)]
    left, right, products2 = _dot(r, tangents), _dot(gradients, u), _dot(single, single)
    outputs = sum(math.prod(c.shape) for c in r)
    scale = math.sqrt(max(_dot(r, r) * _dot(tangents, tangents) / max(outputs, 1), products2))
    return [left, right, scale, outputs, *(float(tf.reduce_max(tf.abs(g))) for g in gradients)]


def _normal(like, seed):
    noise = tf.random.stateless_normal(tf.shape(like), (seed, 1), dtype=tf.float32)
    return tf.cast(noise, like.dtype)


def _wide(t) -> tf.Tensor:
    """In float32 at least."""
    return t if t.dtype == tf.float64 else tf.cast(t, tf.float32)


def _dot(one, other) -> float:
    """Inner product of lists of tensors, in float32 at least."""
    return sum(float(tf.reduce_sum(_wide(a) * _wide(b))) for a, b in zip(one, other, strict=True))


def _tolerance(base, least: float = 0.0) -> float:
    """Of a relative difference, by the coarsest precision of any layer, or `least`."""
    names = {layer.compute_dtype for layer in [base, *private.all_layers(base)]}
    epsilon = max(least, *(_EPSILON.get(name, 2**-3) for name in names if "float" in name))
    if (
        tf.config.list_logical_devices("GPU")
        and tf.config.experimental.tensor_float_32_execution_enabled()
    ):
        epsilon = max(epsilon, 2**-10)
    return 10 * epsilon ** (2 / 3)


def assert_visible(base: keras.Model, weights: Sequence[tf.Variable], x: Any) -> None:
    """Refuse a model that depends on weights whose gradients, which somebody has found, are zero.

    Args:
        base: the model f.
        weights: those of it whose gradients are all zero, or not there, at these inputs.
        x: inputs, eager tensors.

    Raises:
        HiddenWeightsError: if f depends on one all the same.
    """
    here = trial(base, weights, x, "eager")
    if here and (hidden := _hidden(here, here.call, weights)):
        raise HiddenWeightsError(f"{base.name!r} has no true derivatives: {hidden}")


def _hidden(trial, call, weights) -> str | None:
    """What is wrong with weights whose gradients are zero, if f depends on one of them."""
    if not weights or not _moves(trial, call, weights):
        return None
    name = next((w.name for w in weights if _moves(trial, call, [w])), weights[0].name)
    return (
        f"f depends on {name}, but its gradient is zero: an operation hides it"
        " from differentiation, such as tf.numpy_function"
    )


def _moves(trial, call, weights) -> bool:
    """Whether f changes with the weights, by central differences, without ever having a gradient.

    One that is zero at a kink, as a ReLU's of weights that are all 0, is another's beside it.
    """
    if trial.op_types & _DELIBERATE or tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return False
    before = [w.numpy() for w in weights]
    rng = np.random.default_rng(0)
    sizes = [max(0.1, np.std(v, dtype="float64")) for v in before]
    steps = [1e-2 * s * rng.standard_normal(v.shape) for v, s in zip(before, sizes, strict=True)]
    sides = []
    try:
        for sign in (1, -1):
            sides.append(_shifted(call, trial.x, weights, before, steps, sign))
            if _has_gradient(call, trial.x, weights):
                return False
    finally:
        _shifted(lambda x: [], trial.x, weights, before, steps, 0)
    above, below = sides
    change = np.linalg.norm(above - below) / max(np.linalg.norm(above), 1e-30)
    return bool(change > max(1e-4, _tolerance(trial.base)))


def _has_gradient(call, x, weights) -> bool:
    """Whether any of the weights has a gradient in an eager call."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        outputs = [f for f in tf.nest.flatten(call(x)) if products.is_float(f)]
        total = sum(tf.reduce_sum(f * _normal(f, 7)) for f in outputs)
    found = tape.gradient(total, weights)
    return any(g is not None and np.any(tf.convert_to_tensor(g).numpy()) for g in found)


def _shifted(call, x, weights, values, steps, sign) -> np.ndarray:
    """The outputs with some of the weights shifted."""
    for weight, value, step in zip(weights, values, steps, strict=True):
        weight.assign((value + sign * step).astype(value.dtype) if sign else value)
    leaves = tf.nest.flatten(call(x))
    return np.concatenate(
        [np.zeros(0), *(np.float64(f).ravel() for f in leaves if products.is_float(f))]
    )


class _EnoughError(BaseException):
    """Ends a call of the model; not an `Exception`, which Keras would dress up."""


@contextlib.contextmanager
def _recorded(limit: float) -> Iterator[list[tuple[keras.Operation, Any]]]:
    """Record what the model's operations return as they end, and stop after so many.

    Those inside a function or loop that the model calls are part of what encloses them.
    """
    calls = []
    graph, original = tf.compat.v1.get_default_graph(), keras.Operation.__call__

    def call(self, *args, **kwargs):
        outputs = original(self, *args, **kwargs)
        if tf.compat.v1.get_default_graph() is graph:
            calls.append((self, outputs))
            if len(calls) >= limit:
                raise _EnoughError
        return outputs

    keras.Operation.__call__ = call
    try:
        yield calls
    except _EnoughError:
        pass
    finally:
        keras.Operation.__call__ = original


def _first(trial, x, limit: float) -> list[tuple[keras.Operation, Any]]:
    with _recorded(limit) as calls:
        trial.call(x)
    return calls


def _place(trial, way, text) -> str:
    """The first layer with which the model goes wrong, by bisection over all calls of layers."""
    names = []
    trial.run(
        lambda x: tf.zeros(()) * len(names.extend(c[0] for c in _first(trial, x, math.inf)) or [])
    )

    # What hides a weight from one output does not hide it from the outputs before.
    start = -1 if "depends on" in text else 0

    def wrong(count):
        def prefix(x):
            outputs = tf.nest.flatten([c[1] for c in _first(trial, x, count)[start:]])
            return [t for t in outputs if isinstance(t, tf.Tensor) and products.is_float(t)]

        return _complaint(trial, prefix, way) is not None

    low, high = 0, len(names)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wrong(middle) else (middle, high)
    layer = names[high - 1]
    return f"at {layer.name!r} ({type(layer).__name__})"


def _advice(mode, ways) -> str:
    advice = ["Replace the layer"]
    if len(ways) == 1:
        advice.append("let jvp='auto' choose")
    if mode == "xla":
        advice.append("use jit_compile=False")
    return ", or ".join(advice) + f"; {UNCHECKED}"


def _shortened(error: Exception) -> str:
    """The one line of an error that says what happened."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"\w*Error: |gradient registry|Detected ", line)]
    return (told or lines or [type(error).__name__])[-1 if told else 0][:300]
