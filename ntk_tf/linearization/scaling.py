"""A network less its outputs at the start, and the scaled loss that makes its training lazy.

With h(w, x) = f(w, x) - f(w0, x), gradient descent on

    loss(alpha h(w, x)) / alpha^2

moves the outputs alpha h as fast whatever alpha is, and the weights the less the larger it is
(Chizat, Oyallon and Bach 2019, "On lazy training in differentiable programming"). With u = alpha
(w - w0), alpha h tends to J u as alpha grows: the limit is the centered linearization, trained at
the same learning rate. Rounding in f is multiplied by alpha, which asks for float64.
"""

import keras

from ntk_tf import private


class CenteredModel(keras.Model):
    """h(w, x) = f(w, x) - f(w0, x), trained in the base's weights w from w = w0.

    Like a linearization, it takes the base as a fixed function, in inference mode: batch
    normalization uses its stored statistics, and dropout is the identity.

    Args:
        base: a built Keras model f, at w0.
        **kwargs: Keras' own.

    Attributes:
        start: w0, a variable for each trainable one of the base.

    Raises:
        ValueError: if the base is not built, or has no trainable weights.
    """

    def __init__(self, base: keras.Model, **kwargs):
        if not base.built or not base.trainable_variables:
            raise ValueError(f"{base.name!r}: must be built and have trainable weights")
        kwargs.setdefault("name", f"centered_{base.name}")
        super().__init__(autocast=False, **kwargs)  # inputs reach the base as `fit` gives them
        self.base = base
        self.start = [
            self.add_weight(
                shape=w.shape,
                dtype=w.dtype,
                initializer="zeros",
                trainable=False,
                autocast=False,
                name=f"w0_{w.path.replace('/', '_')}",
            )
            for w in base.trainable_variables
        ]
        for start, w in zip(self.start, base.trainable_variables, strict=True):
            start.assign(w.value)
        self.built = True

    def call(self, inputs):
        """The outputs h for a batch."""
        with keras.StatelessScope(zip(self.base.trainable_variables, self.start, strict=True)):
            then = self.base(inputs, training=False)
        now = self.base(inputs, training=False)
        h = keras.tree.map_structure(keras.ops.subtract, now, then)
        return keras.tree.map_structure(private.carry_mask, now, h)

    def compute_output_spec(self, inputs, *args, **kwargs):
        """The base's."""
        return self.base.compute_output_spec(inputs)


@keras.saving.register_keras_serializable(package="ntk_tf")
class LazyLoss(keras.losses.Loss):
    """loss(alpha h) / alpha^2, reduced over the batch as the loss itself is.

    Args:
        loss: of outputs and targets.
        alpha: above 0.
        name: of the loss.
        **kwargs: Keras' own.

    Raises:
        ValueError: for an alpha that is not positive, or a loss that is no `keras.losses.Loss`.
    """

    def __init__(self, loss: keras.losses.Loss, alpha: float, name: str = "lazy_loss", **kwargs):
        if not alpha > 0:
            raise ValueError(f"alpha={alpha}: must be above 0")
        if not isinstance(loss, keras.losses.Loss):
            raise ValueError(f"loss={loss!r}: must be a keras.losses.Loss")
        super().__init__(name=name, **({"reduction": loss.reduction, "dtype": loss.dtype} | kwargs))
        self.loss, self.alpha = loss, alpha

    def get_config(self):
        """The loss and alpha among what every loss has."""
        loss = keras.saving.serialize_keras_object(self.loss)
        return super().get_config() | {"loss": loss, "alpha": self.alpha}

    @classmethod
    def from_config(cls, config):
        """Rebuild it around a loss rebuilt from its configuration."""
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**(config | {"loss": loss}))

    def call(self, y_true, y_pred):
        """The scaled loss of each example, of targets and centered outputs h `[b, L]`."""
        return self.loss.call(y_true, self.alpha * y_pred) / self.alpha**2
