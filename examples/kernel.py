"""The empirical neural tangent kernel of a Keras model, its effective rank, and what it predicts.

python examples/kernel.py
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

from ntk_tf import ntk

digits = load_digits()
x, y = (digits.images[..., None] / 8 - 1).astype("float32"), digits.target
train, test = slice(100), slice(-100, None)

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),
    ]
)
theta = ntk.gram(model, x[train])  # [n, L, n, L]: <grad f_l(x_i), grad f_m(x_j)>
print(f"effective rank {ntk.decompose(theta).effective_rank:.0f} of {len(y[train]) * 10}")

f_train, f_test = (model.predict(x[part], verbose=0) for part in (train, test))
solution = ntk.kernel_regression(theta, np.eye(10)[y[train]], f_train)
outputs = solution.predict(ntk.gram(model, x[test], x[train]), f_test)
accuracy = np.mean(outputs.argmax(1) == y[test])
print(f"test accuracy of the linearization, trained to the end: {accuracy:.0%}")
