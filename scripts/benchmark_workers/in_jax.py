"""JAX's worker: batches are in memory, and every way to do the step is tried."""

import functools
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import protocol

try:
    import neural_tangents
except ImportError:
    neural_tangents = None

jax.config.update("jax_default_matmul_precision", "float32")  # on GPUs too
LENET = (
    *(("conv", 6, 5, 1, 0), ("pool", 2, 2), ("conv", 16, 5, 1, 0), ("pool", 2, 2)),
    *(("dense", 120), ("dense", 84)),
)
ALEXNET = (
    *(("conv", 64, 11, 4, 2), ("pool", 3, 2), ("conv", 192, 5, 1, 2), ("pool", 3, 2)),
    *(("conv", 384, 3, 1, 1), ("conv", 256, 3, 1, 1), ("conv", 256, 3, 1, 1), ("pool", 3, 2)),
    *(("dense", 4096), ("dense", 4096)),
)
VGG11 = tuple(
    layer
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512))
    for layer in (*(("conv", filters, 3, 1, 1) for filters in stage), ("pool", 2, 2))
)
RESNET18 = (
    ("conv", 64, 3, 1, 1),
    *(("block", 64, 1), ("block", 64, 1), ("block", 128, 2), ("block", 128, 1)),
    *(("block", 256, 2), ("block", 256, 1), ("block", 512, 2), ("block", 512, 1)),
    ("mean",),
)
NETWORKS = {
    "lenet": (LENET, (28, 28, 1)),
    "alexnet": (ALEXNET, (224, 224, 3)),
    "vgg11": (VGG11, (32, 32, 3)),
    "resnet18": (RESNET18, (32, 32, 3)),
}


def convolve(x, weights, stride, padding):
    kernel, bias = weights
    return bias + jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def densely(x, weights):
    kernel, bias = weights
    return x.reshape(len(x), -1) @ kernel + bias


def network(problem):
    """The function f(parameters, x) and its parameters, PyTorch's initialization."""
    layers, (side, _, channels) = NETWORKS[problem["arch"]]
    random, parameters, flat = np.random.default_rng(0), [], False

    def add(shape):
        bound = np.prod(shape[:-1]) ** -0.5
        draw = functools.partial(random.uniform, -bound, bound)
        parameters.append(tuple(jnp.float32(draw(size=s)) for s in (shape, shape[-1:])))
        return shape[-1]

    for kind, *numbers in layers:
        if kind == "conv":
            count, size, stride, padding = numbers
            channels = add((size, size, channels, count * problem["width"]))
            side = (side + 2 * padding - size) // stride + 1
        elif kind == "pool":
            side = (side - numbers[0]) // numbers[1] + 1
        elif kind == "block":
            filters, stride = numbers[0] * problem["width"], numbers[1]
            add((3, 3, channels, filters))
            add((3, 3, filters, filters))
            if stride > 1:
                add((1, 1, channels, filters))
            channels = filters
        elif kind == "mean":
            side = 1
        else:
            inputs = channels if flat else side * side * channels
            channels, flat = add((inputs, numbers[0] * problem["width"])), True
    add((channels if flat else side * side * channels, problem["outputs"]))

    def apply(parameters, x):
        weights = iter(parameters)
        for kind, *numbers in layers:
            if kind == "pool":
                window, strides = ((1, n, n, 1) for n in numbers)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "VALID")
                continue
            if kind == "block":
                stride = numbers[1]
                y = jax.nn.relu(convolve(x, next(weights), stride, 1))
                y = convolve(y, next(weights), 1, 1)
                x = y + (convolve(x, next(weights), stride, 0) if stride > 1 else x)
            elif kind == "mean":
                x = x.mean((1, 2))
                continue
            elif kind == "conv":
                x = convolve(x, next(weights), *numbers[2:])
            else:
                x = densely(x, next(weights))
            x = jax.nn.relu(x)
        return densely(x, next(weights))

    return apply, parameters


def batches(problem, count=4):
    random, (_, shape) = np.random.default_rng(0), NETWORKS[problem["arch"]]
    x = jnp.float32(random.normal(size=(count, problem["batch"], *shape)))
    labels = random.integers(problem["outputs"], size=(count, problem["batch"]))
    return x, jax.nn.one_hot(labels, problem["outputs"])


def zeros(tree):
    return jax.tree_util.tree_map(jnp.zeros_like, tree)


def linearize(f, point):
    """T_f as a function of (u, x)."""

    def apply(u, x):
        primal, tangent = jax.jvp(lambda w: f(w, x), (point,), (u,))
        return primal + tangent

    return apply


def update(f, state, x, y):
    """One step of SGD with momentum and coupled weight decay, as PyTorch's."""

    def loss(parameters):
        return jnp.mean((f(parameters, x) - y) ** 2)

    parameters, velocity = state
    tree_map = jax.tree_util.tree_map
    velocity = tree_map(
        lambda p, v, g: 0.9 * v + g + 5e-5 * p, parameters, velocity, jax.grad(loss)(parameters)
    )
    return tree_map(lambda p, v: p - 0.01 * v, parameters, velocity), velocity


def training(problem, neural_tangents_own, loop):
    f, point = network(problem)
    parameters = point
    if problem["model"] == "linearized" and neural_tangents_own:
        parameters = jax.tree_util.tree_map(jnp.copy, point)
    elif problem["model"] == "linearized":
        parameters = zeros(point)
    xs, ys = batches(problem)

    def trained(point):
        if problem["model"] == "standard":
            return f
        return (neural_tangents.linearize if neural_tangents_own else linearize)(f, point)

    # The point is an argument: as a constant, XLA would compile the weights into the program.
    fixed = point if problem["model"] == "linearized" else None

    @functools.partial(jax.jit, donate_argnums=1)
    def one(fixed, state, x, y):
        return update(trained(fixed), state, x, y)

    @functools.partial(jax.jit, donate_argnums=1)
    def several(fixed, state, count):
        def body(i, state):
            return update(trained(fixed), state, xs[i % len(xs)], ys[i % len(xs)])

        return jax.lax.fori_loop(0, count, body, state)

    state = [(parameters, zeros(parameters))]
    in_turn = list(zip(xs, ys, strict=True))

    def steps(count):
        (now,) = state
        if loop:
            now = several(fixed, now, count)
        else:
            for i in range(count):
                now = one(fixed, now, *in_turn[i % len(in_turn)])
        state[:] = [jax.block_until_ready(now)]

    return steps


def product(problem):
    matrix = jnp.ones((problem["size"], problem["size"]))

    def steps(count):
        for _ in range(count):
            result = matrix @ matrix
        result.block_until_ready()

    return steps


def variants(problem):
    if problem["model"] == "product":
        return {"matmul": functools.partial(product, problem)}
    found = {
        "one step a call": functools.partial(training, problem, False, False),
        "several steps a call": functools.partial(training, problem, False, True),
    }
    if neural_tangents and problem["model"] == "linearized":
        found["neural_tangents.linearize"] = functools.partial(training, problem, True, False)
    return found


def peak_memory():
    statistics = jax.devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else protocol.peak_memory()


if __name__ == "__main__":
    versions = {"jax": jax.__version__}
    if neural_tangents:
        versions["neural-tangents"] = importlib.metadata.version("neural-tangents")
    protocol.serve(versions, variants, peak_memory)
