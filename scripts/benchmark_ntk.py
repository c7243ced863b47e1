"""Time of the NTK Gram of LeNet against neural-tangents, as a ratio taken in one run.

    python scripts/benchmark_ntk.py --jax_python=VENV/bin/python [--examples=100] [--width=1]
        [--outputs=full|trace|sum]

neural-tangents 0.6.5 needs an environment of its own:

    python -m venv VENV
    VENV/bin/pip install neural-tangents==0.6.5 jax==0.4.30 jaxlib==0.4.30 'numpy<2.2'

Both get the same weights and the same inputs (embedded digits at 28 pixels). Rounds alternate; of
neural-tangents every implementation (Jacobian contraction, NTK-vector products, structured
derivatives) is timed, compiled by a first call that does not count; ours is traced by one. Matrix
products are timed in between, since other load moves all numbers.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

CHILD = "--child"


def lenet_in_jax(arrays):
    """LeNet's outputs as a function of (parameters, x `[b, h, w, 1]`)."""
    import jax

    def apply(parameters, x):
        for kernel, bias in parameters[:2]:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + bias)
            window, strides = (1, 2, 2, 1), (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, strides, "VALID")
        x = x.reshape(x.shape[0], -1)
        for i, (kernel, bias) in enumerate(parameters[2:]):
            x = x @ kernel + bias
            x = jax.nn.relu(x) if i < 2 else x
        return x

    weights = [arrays[f"w{i}"] for i in range(10)]
    return apply, list(zip(weights[0::2], weights[1::2], strict=True))


def serve(path):
    """In neural-tangents' environment: time each implementation when asked to."""
    import jax
    import neural_tangents as nt
    from jax._src import source_info_util
    from jax.interpreters import ad

    # neural-tangents 0.6.5 looks for these where JAX 0.4.30 no longer shows them.
    ad.source_info_util, ad.config = source_info_util, jax.config
    arrays = np.load(path)
    network, parameters = lenet_in_jax(arrays)
    x, outputs = arrays["x"], str(arrays["outputs"])
    axes = (-1,) if outputs == "trace" else ()

    def apply(parameters, x):
        y = network(parameters, x)
        return y.sum(axis=-1, keepdims=True) / y.shape[-1] ** 0.5 if outputs == "sum" else y

    kernels = {}
    for name in ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES"):
        implementation = getattr(nt.NtkImplementation, name)
        ntk = nt.empirical_ntk_fn(
            apply, trace_axes=axes, vmap_axes=0, implementation=implementation
        )
        kernels[name.lower()] = jax.jit(ntk)
    for name, kernel in kernels.items():
        started = time.perf_counter()
        result = np.asarray(kernel(x, None, parameters))
        print(json.dumps({"name": name, "first": time.perf_counter() - started}), flush=True)
    if outputs == "full":
        result = result.transpose(0, 2, 1, 3)
    np.save(pathlib.Path(path).with_suffix(".npy"), result.squeeze())
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        kernel = kernels[line.strip()]
        started = time.perf_counter()
        np.asarray(kernel(x, None, parameters))
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


def product_rate(tf):
    """Billions of operations a second."""
    a = tf.ones((1000, 4096))
    started = time.perf_counter()
    tf.matmul(a, a, transpose_b=True).numpy()
    return 2 * 1000 * 1000 * 4096 / (time.perf_counter() - started) / 1e9


def compare(arguments):
    """In this environment: alternate rounds of ours and theirs, and print the ratio."""
    from ntk_tf.process import startup

    startup.import_tensorflow()
    import tensorflow as tf

    from ntk_tf import data, models, ntk
    from ntk_tf.data import pipeline

    model = models.build("lenet", arguments.width, 10, (28, 28, 1))
    source = data.load("digits")
    preprocess = pipeline.preprocessing(source, 28, 0, 1)
    x = preprocess(source.train.images[: arguments.examples]).numpy()
    weights = {f"w{i}": w.numpy() for i, w in enumerate(model.trainable_weights)}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "problem.npz"
        np.savez(path, x=x, outputs=arguments.outputs, **weights)
        command = [arguments.jax_python, __file__, CHILD, str(path)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        theirs = {}
        while "ready" not in (reply := json.loads(child.stdout.readline())):
            theirs[reply["name"]] = []
            print(f"{reply['name']}: first call {reply['first']:.2f} s", flush=True)
        other = np.load(path.with_suffix(".npy"))
        started = time.perf_counter()
        kernel = ntk.GramFunction(model, outputs=arguments.outputs)
        gram = kernel(x)
        print(f"ours: first call {time.perf_counter() - started:.2f} s")
        error = np.linalg.norm(gram - other) / np.linalg.norm(gram)
        print(f"relative difference of the two {error:.1e}")
        ours, rates = [], []
        for _ in range(arguments.rounds):
            rates.append(product_rate(tf))
            started = time.perf_counter()
            kernel(x)
            ours.append(time.perf_counter() - started)
            for name, seconds in theirs.items():
                child.stdin.write(name + "\n")
                child.stdin.flush()
                seconds.append(json.loads(child.stdout.readline())["seconds"])
        child.stdin.close()
        child.wait()
    mine = statistics.median(ours)
    print(f"ours {mine:.3f} s (matrix products at {statistics.median(rates):.0f} Gflop/s)")
    for name, seconds in theirs.items():
        median = statistics.median(seconds)
        print(f"{name}: {median:.3f} s, {median / mine:.1f} times ours")


def main():
    if CHILD in sys.argv:
        serve(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jax_python", required=True)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--outputs", choices=("full", "trace", "sum"), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
