"""What is counted without Keras is what Keras' models have."""

import pytest

from ntk_tf import models
from ntk_tf.catalogue import architectures
from ntk_tf.models import arguments, shapes, size

SIGMAS = {"sigma_w": 1.0, "sigma_b": 0.1}
CASES = [
    *((arch, 1, {}) for arch in architectures.ARCHITECTURES),
    ("lenet", 2.5, {"pooling": "average", "kernel_size": 3, "gain": 1.0}),
    ("alexnet", 0.3, {"output_factor": 0.5}),
    ("mlp", 0.01, {"depth": 3, "activation": "tanh"}),
    ("resnet18", 0.25, {"batch_norm": True}),
    ("cnn_gap", 0.1, {"depth": 6}),
    ("wrn", 0.05, {"blocks": 3}),
    ("lenet", 1, {"parametrization": "ntk", **SIGMAS}),
    ("resnet18", 0.1, {"parametrization": "ntk", "sigma_w": 1.0, "sigma_b": 0.0}),
]


def in_any_order(counts):
    """The numbers, the first layer's apart: behind a branch, a model's calls have another order."""
    first, *others = counts.products
    return counts.parameters, counts.activations, first, sorted(others)


@pytest.mark.parametrize("train_biases", [True, False])
@pytest.mark.parametrize(("arch", "width", "more"), CASES)
def test_counts_are_those_of_the_model(arch, width, more, train_biases):
    shape = (64, 67, 3) if arch == "alexnet" else (33, 32, 3)
    with models.shapes_only():
        model = models.build(arch, width, 7, shape, **more)
        if not train_biases:
            models.freeze_biases(model)
    counted = shapes.count(arch, width, 7, shape, train_biases=train_biases, **more)
    assert in_any_order(counted) == in_any_order(size.count(model, shape))


def test_vectors():
    with models.shapes_only():
        model = models.build("mlp", 1, 7, (11,))
    assert shapes.count("mlp", 1, 7, (11,)) == size.count(model, (11,))


@pytest.mark.parametrize(
    ("arch", "shape", "more", "message"),
    [
        ("lenet", (8, 8, 1), {}, "cannot be built for .*conv2 has windows of side 5"),
        ("alexnet", (62, 70, 3), {}, "pool5 has windows of side 3, and a picture of 2x3"),
        ("lenet", (5,), {}, r"takes pictures .*not \(5,\)"),
        ("lenet", (28, 28, 1), {"pooling": "sum"}, "must be one of max, average"),
        ("lenet", (28, 28, 1), {"depth": 3}, "depth=3: the architecture lenet takes kernel_size"),
    ],
)
def test_refusals_are_those_of_the_model(arch, shape, more, message):
    for make in (shapes.count, models.build):
        with pytest.raises(models.ArchitectureError) as raised:
            make(arch, 1, 10, shape, **more)
        assert "\n" not in str(raised.value)
    with pytest.raises(models.ArchitectureError, match=message):
        shapes.count(arch, 1, 10, shape, **more)


def test_activations_are_keras_own():
    """Those that are counted exist, and another is left to Keras."""
    for activation in shapes.ACTIVATIONS:
        models.build("mlp", 0.01, 2, (3,), activation=activation)
    with pytest.raises(arguments.UnknownActivationError, match="mish"):
        shapes.count("mlp", 1, 2, (3,), activation="mish")
