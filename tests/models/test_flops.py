"""Operations against counts by hand."""

from ntk_tf import models
from ntk_tf.models.flops import forward_flops, step_flops

CONV1, CONV2 = 24 * 24 * 25 * 6, 8 * 8 * 25 * 6 * 16
DENSE = 256 * 120 + 120 * 84 + 84 * 10


def test_lenet():
    with models.shapes_only():
        model = models.build("lenet", 1, 10, (28, 28, 1))
    forward = 2 * (CONV1 + CONV2 + DENSE)
    assert forward_flops(model) == forward
    # Every product again for the weights and, but for the first layer, for the input.
    assert step_flops(model) == 3 * forward - 2 * CONV1
    # The JVP besides: the input's tangent and the weights', no tangent of the pictures.
    assert step_flops(model, linearized=True) == 5 * forward - 2 * 2 * CONV1
