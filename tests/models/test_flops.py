import pytest

from ntk_tf import models
from ntk_tf.models.flops import layer_flops, step_flops


def network(arch, width, shape, outputs=10):
    with models.shapes_only():
        return models.build(arch, width, outputs, shape)


def test_lenet_by_hand():
    model = network("lenet", 1, (28, 28, 1))
    layers = [24 * 24 * 25 * 6, 8 * 8 * 150 * 16, 256 * 120, 120 * 84, 84 * 10]
    assert layer_flops(model) == [2 * macs for macs in layers]
    assert step_flops(model, linearized=False) == 2 * (3 * sum(layers) - layers[0])
    jvp = 2 * sum(layers) - layers[0]
    assert step_flops(model, linearized=True) == 2 * (3 * sum(layers) - layers[0] + jvp)


def test_alexnet_as_in_torchvision():
    # torchvision's documentation gives 0.71 billion multiply-adds, with 1,000 outputs.
    forward = sum(layer_flops(network("alexnet", 1, (224, 224, 3), 1000)))
    assert forward / 2e9 == pytest.approx(0.71, abs=0.005)


@pytest.mark.parametrize("linearized", [False, True])
def test_outputs_add_only_their_layer(linearized):
    ten, hundred = (
        step_flops(network("lenet", 1, (28, 28, 1), outputs), linearized) for outputs in (10, 100)
    )
    assert hundred - ten == (5 if linearized else 3) * 2 * 84 * 90
