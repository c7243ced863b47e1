"""Architectures use nothing but the set of layers, so that another set can stand in its place."""

import inspect

import pytest

from ntk_tf import models
from ntk_tf.catalogue import architectures
from ntk_tf.models.standard import Standard

CASES = [(name, {}) for name in architectures.ARCHITECTURES] + [
    ("lenet", {"pooling": "average"}),
    ("resnet18", {"batch_norm": True}),
    ("cnn_gap", {"depth": 21}),
    ("wrn", {"blocks": 4}),
    ("mlp", {"activation": "erf"}),
]


class Opaque:
    """What flows between the layers: it has no attributes and no operations."""

    __slots__ = ()


class Tracer:
    """A set of layers that only notes what is called."""

    def __init__(self, *, sigma_w, sigma_b):
        self.sigmas = sigma_w, sigma_b
        self.called = []

    def __getattr__(self, name):
        method = getattr(Standard, name)

        def call(*args, **kwargs):
            bound = inspect.signature(method).bind(self, *args, **kwargs)
            if name == "side":
                return 32
            assert isinstance(bound.arguments["x"], Opaque)
            self.called.append((name, bound.arguments.get("name")))
            return Opaque()

        return call


@pytest.mark.parametrize(("arch", "arguments"), CASES)
def test_any_set_of_layers_will_do(arch, arguments):
    for_set, function = models.resolve(arch, Tracer, arguments | {"sigma_b": 0.3})
    row = architectures.ARCHITECTURES[arch]
    layers = Tracer(**for_set)
    assert layers.sigmas == (row.sigma_w, 0.3)
    assert isinstance(function(layers, Opaque(), 10), Opaque)
    names = [name for _, name in layers.called if name is not None]
    assert len(names) == len(set(names))
    assert ("outputs", None) in layers.called


def test_what_neither_takes_is_refused():
    with pytest.raises(models.ArchitectureError, match="lenet takes .*sigma_w, sigma_b"):
        models.resolve("lenet", Tracer, {"gain": 1.0})
    with pytest.raises(ValueError, match="arch='a.b:c': must be one of lenet, alexnet"):
        models.resolve("a.b:c", Tracer, {})
