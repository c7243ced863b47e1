"""J u, J^T r and the NTK of large Keras models against a backward pass an output, in float64.

    python scripts/check_applications.py [MobileNetV2 EfficientNetB0 ResNet50 ConvNeXtTiny]

Each model has random weights, inputs of 32x32 and two outputs. Prints the largest relative error
of both products, in a graph, and of the Gram of as many pictures, and exits with 1 if one is above
1e-9.
"""

import sys
import time

from ntk_tf.process import startup

startup.import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from ntk_tf import ntk  # noqa: E402
from ntk_tf.linearization import Jacobian  # noqa: E402

NAMES = ("MobileNetV2", "EfficientNetB0", "ResNet50", "ConvNeXtTiny")
EXAMPLES = 2


def build(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    arguments = {"weights": None, "input_shape": (32, 32, 3), "classes": 2}
    return getattr(keras.applications, name)(**arguments, classifier_activation=None)


def rows(model: keras.Model, x: tf.Tensor) -> np.ndarray:
    """The dense Jacobian `[n L, p]`."""
    weights = [w.value for w in model.trainable_weights]

    @tf.function(reduce_retracing=True)
    def row(position):
        with tf.GradientTape() as tape:
            output = tf.reshape(model(x, training=False), [-1])[position]
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(output, weights, unconnected_gradients=zero)
        return tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    return np.stack([row(tf.constant(i)).numpy() for i in range(len(x) * 2)])


def flat(tensors) -> np.ndarray:
    return np.concatenate([np.ravel(t) for t in tensors])


def errors(model: keras.Model) -> tuple[list[float], float]:
    """Of J u, J^T r and the Gram; and the Gram's seconds."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.uniform(0, 1, (EXAMPLES, 32, 32, 3)))
    u = [tf.constant(rng.standard_normal(w.shape)) for w in model.trainable_weights]
    r = tf.constant(rng.standard_normal((EXAMPLES, 2)))
    jacobian, dense = Jacobian(model), rows(model, x)

    @tf.function(autograph=False)
    def both(x, u):
        _, tangent, pullback = jacobian.linearize(x, u)
        return tangent, pullback(r)

    tangent, gradient = both(x, u)
    started = time.monotonic()
    gram = ntk.gram(model, x.numpy(), precision="float64").reshape(len(dense), -1)
    seconds = time.monotonic() - started
    pairs = (
        (np.ravel(tangent), dense @ flat(u)),
        (flat(gradient), dense.T @ np.ravel(r)),
        (gram, dense @ dense.T),
    )
    return [np.abs(found - true).max() / np.abs(true).max() for found, true in pairs], seconds


def main(names) -> int:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    worst = 0.0
    for name in names or NAMES:
        started = time.monotonic()
        (tangent, gradient, gram), of_gram = errors(build(name))
        worst = max(worst, tangent, gradient, gram)
        print(
            f"{name}: J u {tangent:.1e}, J^T r {gradient:.1e}, Gram {gram:.1e} in {of_gram:.0f} s,"
            f" {time.monotonic() - started:.0f} s in all",
            flush=True,
        )
    return int(worst > 1e-9)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
