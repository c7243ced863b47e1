"""A network and its linearization at initialization, trained alike by Keras' own `fit`.

python examples/linearized.py
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

from ntk_tf.linearization import LinearizedModel
from ntk_tf.training import TorchSGD

digits = load_digits()
x, y = (digits.images[..., None] / 8 - 1).astype("float32"), np.eye(10)[digits.target]
train, test = slice(1437), slice(1437, None)


def network():
    """The same weights every time."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Conv2D(32, 3, activation="relu"), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((8, 8, 1)), *hidden, keras.layers.Dense(10)])


models = {"network": network(), "linearization": LinearizedModel(network())}
for name, model in models.items():
    model.compile(TorchSGD(0.1, momentum=0.9), "mse", metrics=["accuracy"])
    model.fit(x[train], y[train], batch_size=32, epochs=3, verbose=0)
    loss, accuracy = model.evaluate(x[test], y[test], verbose=0)
    print(f"{name}: test loss {loss:.4f}, accuracy {accuracy:.1%}")

outputs = [model.predict(x[test], verbose=0) for model in models.values()]
print(f"root mean square of their difference: {np.sqrt(np.mean(np.subtract(*outputs) ** 2)):.3f}")
