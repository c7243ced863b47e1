"""Infinitely wide networks' NTKs to many digits, and finite ones beside them.

Run as a program it prints how the finite kernels in NTK parametrization approach them with width:

    python tests/gold_kernels.py --seeds=20 --channels=64,256,1024

The values are of neural-tangents 0.6.5 on jax 0.4.30 in float64. Kernels are those of one output.
"""

import argparse
import dataclasses
import math
import sys
import time

import numpy as np
import tensorflow as tf

from ntk_tf import models


def circle():
    """The four inputs of section 6.2 of Jacot et al. (2018), `[4, 2]`: points on a circle."""
    angles = np.array([-2.2, -1, 1, 2.2])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def sines(pictures, channels, side):
    """Pictures `[n, h, w, c]`: sin(1 + (j^2 mod 97)), j counting in the order n, c, h, w."""
    j = np.arange(pictures * channels * side**2)
    values = np.sin(1 + j**2 % 97)
    return values.reshape(pictures, channels, side, side).transpose(0, 2, 3, 1)


@dataclasses.dataclass(frozen=True)
class Gold:
    """A network in NTK parametrization and some entries of its kernel at infinite width.

    Attributes:
        name: for readers.
        arch: of `models.build`.
        inputs: `[n, ...]`.
        ntk: by pair of inputs.
        arguments: of `models.build`.
        channels: of its largest hidden layer at width 1.
        nngp: the outputs' covariance by pair of inputs.
    """

    name: str
    arch: str
    inputs: np.ndarray
    ntk: dict[tuple[int, int], float]
    arguments: dict
    channels: int
    nngp: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict)


def _row(*values):
    """Entries (0, 0), (0, 1), ..."""
    return {(0, i): value for i, value in enumerate(values)}


GOLD = (
    Gold(
        "Jacot's MLP",
        "mlp",
        circle(),
        _row(0.2825, 0.1218677991, 0.06432937338, 0.07730583185),
        {"depth": 4, "units": 1, "sigma_w": 1.0, "sigma_b": 0.1},
        1,
        _row(0.08125, 0.06162304151, 0.04809968104, 0.05225908294),
    ),
    Gold(
        "5 ReLU layers",
        "mlp",
        circle(),
        _row(8.1, 3.762487203, 2.589558503, 2.90630769),
        {"depth": 6, "units": 1, "sigma_w": 2**0.5, "sigma_b": 0.1**0.5},
        1,
        _row(1.6, 1.357823236, 1.216012932, 1.260924148),
    ),
    Gold(
        "1 erf layer",
        "mlp",
        circle(),
        _row(0.7055265491, 0.2384552119, -0.6905366342, -0.1909689792),
        {"depth": 2, "units": 1, "activation": "erf", "sigma_w": 1.0, "sigma_b": 0.05},
        1,
        _row(0.3367503049, 0.1198046697, -0.3274635002, -0.09386310842),
    ),
    Gold(
        "LeNet, average pooling",
        "lenet",
        sines(3, 1, 16),
        {
            (0, 0): 1.441949402,
            (0, 1): 1.116018429,
            (0, 2): 1.14032908,
            (1, 1): 1.57815704,
            (1, 2): 1.17928538,
            (2, 2): 1.66028971,
        },
        {"pooling": "average", "sigma_w": 2**0.5, "sigma_b": 0.0},
        16,
        _row(0.365227753, 0.3560469498),
    ),
    Gold(
        "wide ResNet",
        "wrn",
        sines(2, 3, 8),
        {(0, 0): 0.63154842, (0, 1): 0.11960452, (1, 1): 0.62358296},
        {"blocks": 1},
        1024,
        _row(0.12479788, 0.03698857),
    ),
    Gold(
        "CNN-V, depth 4",
        "cnn_v",
        sines(3, 3, 6),
        {(0, 0): 31.04866284, (0, 1): 8.136642511, (0, 2): 8.562612576, (1, 2): 8.339087655},
        {"depth": 4, "output_factor": 1.0},
        1024,
    ),
    Gold(
        "CNN-GAP, depth 4",
        "cnn_gap",
        sines(3, 3, 6),
        {(0, 0): 7.257972166, (0, 1): 6.525872491},
        {"depth": 4, "output_factor": 1.0},
        1024,
    ),
)


#: Kernels of CNN-V and CNN-GAP of Arora et al. (2019) on `sines(3, channels, side)`, by channels,
#: side and depth: V at the pairs (0, 0), (0, 1), (0, 2), (1, 2) and GAP at (0, 0), (0, 1), both of
#: neural-tangents; and what CNTK.py computes for GAP with the first and last layers fixed, at the
#: latter two, which times 9 are the parts of the layers between.
CNTK = {
    (3, 6, 3): (
        *(27.25871797, 6.148044797, 6.769982148, 6.512072571, 6.302191508, 5.584408268),
        *(0.1839994862, 0.1558167055),
    ),
    (3, 6, 4): (
        *(31.04866284, 8.136642511, 8.562612576, 8.339087655, 7.257972166, 6.525872491),
        *(0.3188820146, 0.2759228092),
    ),
    (3, 6, 6): (
        *(34.86630106, 10.31891488, 10.50246197, 10.32742069, 7.529150932, 6.781853403),
        *(0.4412923483, 0.3834236617),
    ),
    (3, 6, 11): (
        *(32.10176737, 10.07920114, 10.04482636, 9.941435572, 5.263307402, 4.611054),
        *(0.3769904269, 0.3159288459),
    ),
    (3, 6, 21): (
        *(15.63168159, 4.797363973, 4.740303629, 4.703483781, 1.685465503, 1.37583704),
        *(0.1337526287, 0.1020625659),
    ),
    (1, 8, 3): (
        *(10.27260098, 2.232435752, 1.510733229, 2.406422667, 2.387095845, 2.054331314),
        *(0.07018908426, 0.05889957506),
    ),
    (1, 8, 11): (
        *(17.52957027, 5.263381689, 5.353501725, 5.398767627, 3.136326589, 2.774224903),
        *(0.2313392102, 0.2007757312),
    ),
    (1, 8, 21): (
        *(14.63998335, 4.27817605, 4.504047213, 4.391784988, 1.71475392, 1.467643238),
        *(0.1386411242, 0.1152870494),
    ),
}


def kernels(gold: Gold, channels: int, seeds: int) -> np.ndarray:
    """Entries of finite networks' kernels, from gradients of one output and nothing else.

    Args:
        gold: what they should approach.
        channels: of the largest hidden layer.
        seeds: number of networks, whose weights are all drawn from N(0, 1).

    Returns:
        `[seeds, pairs]`, in units of the largest entry of `gold.ntk`.
    """
    width, shape = channels / gold.channels, gold.inputs.shape[1:]
    model = models.build(gold.arch, width, 1, shape, 0, "ntk", **gold.arguments)
    weights = [w.value for w in model.trainable_weights]

    @tf.function
    def entries():
        gradients = []
        for x in gold.inputs:
            with tf.GradientTape() as tape:
                output = model(tf.constant(x[None], "float32"), training=False)
            gradients.append(tape.gradient(output, weights))
        return tf.stack([inner(gradients[i], gradients[j]) for i, j in gold.ntk])

    def inner(one, other):
        # In float32, a sum of 10^7 products is off by percents.
        return sum(
            tf.reduce_sum(tf.cast(a * b, "float64")) for a, b in zip(one, other, strict=True)
        )

    rng, results = np.random.default_rng(0), []
    for _ in range(seeds):
        for weight in model.trainable_weights:
            weight.assign(rng.standard_normal(weight.shape, "float32"))
        results.append(entries().numpy())
    return np.stack(results) / max(abs(value) for value in gold.ntk.values())


def deviation(gold: Gold, entries: np.ndarray) -> np.ndarray:
    """How far the entries' mean over seeds is from infinite width, in the same units."""
    values = np.array(list(gold.ntk.values()))
    return entries.mean(0) - values / np.abs(values).max()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", default="64,256,1024", help="of the largest hidden layer")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="", help="part of a name")
    arguments = parser.parse_args()
    print("| network | channels | seeds | deviation of the mean | standard error | spread | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for gold in GOLD:
        for channels in map(int, arguments.channels.split(",")):
            if arguments.only not in gold.name:
                continue
            start = time.perf_counter()
            entries = kernels(gold, channels, arguments.seeds)
            spread = np.sqrt(entries.var(0, ddof=1).mean())
            error = np.sqrt((deviation(gold, entries) ** 2).mean())
            print(
                f"| {gold.name} | {channels} | {arguments.seeds} | {error:.2%}"
                f" | {spread / math.sqrt(arguments.seeds):.2%} | {spread:.2%}"
                f" | {time.perf_counter() - start:.0f} |"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
