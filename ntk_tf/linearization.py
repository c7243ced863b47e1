"""The linearization of any Keras model at its weights, as a Keras model.

T_f(u, x) = f(w0, x) + u . grad_w f(w0, x)                     (Samarin et al. 2020, section 2)

One forward pass gives f and, through a `tf.autodiff.ForwardAccumulator` with tangent u, the
Jacobian-vector product J u; the gradient of the loss in u is J^T r with r = dLoss/dT, a single
vector-Jacobian product of the base model. A training step so costs one JVP and one VJP,
whatever the number of outputs.
"""

import keras
import tensorflow as tf

from ntk_tf.models.pooling import MaxPooling2D, inside_xla


@keras.saving.register_keras_serializable(package="ntk_tf")
class LinearizedModel(keras.Model):
    """T_f(u, x), trained in u from u = 0; the base's weights w0 stay as they are.

    The base is linearized as a fixed function, in inference mode: batch normalization uses its
    stored statistics, dropout is the identity, and no state of the base changes.

    `trainable_weights` are u, in the order and shapes of the base's trainable weights at the time
    of construction. `compile`, `fit`, `evaluate`, `predict`, saving and loading work as on any
    Keras model. Training the base afterwards would move the point of linearization.

    XLA corrupts the JVP of Keras' own max pooling: a base that holds such a layer is not compiled
    by XLA (`jit_compile=True` says so in a warning).

    Args:
        base: a built Keras model f.
        **kwargs: Keras' own.

    Raises:
        ValueError: if the base is not built, or has no trainable weights.
    """

    def __init__(self, base: keras.Model, **kwargs):
        if not base.built:
            raise ValueError(
                f"LinearizedModel needs a built model, and {base.name!r} is not: call it on data"
                " or give it an input shape first"
            )
        if not base.trainable_weights:
            raise ValueError(f"LinearizedModel needs trainable weights, and {base.name!r} has none")
        kwargs.setdefault("name", f"linearized_{base.name}")
        super().__init__(**kwargs)
        self.base = base
        self._point = list(base.trainable_weights)
        self._tangent = [
            self.add_weight(
                shape=w.shape,
                dtype=w.dtype,
                initializer="zeros",
                name=f"u_{w.path.replace('/', '_')}",
            )
            for w in self._point
        ]
        self._xla_unsafe = [
            layer.name for layer in base._flatten_layers() if _native_pooling(layer)
        ]
        self.supports_jit = not self._xla_unsafe  # heeded by Keras' `compile`
        self.built = True

    @property
    def trainable_variables(self):
        """The tangent vector u."""
        return list(self._tangent) if self.trainable else []

    @property
    def trainable_weights(self):
        """The tangent vector u."""
        return self.trainable_variables

    @property
    def non_trainable_variables(self):
        """Everything but u, the base's weights w0 among it."""
        trainable = {id(v) for v in self.trainable_variables}
        return [v for v in self.variables if id(v) not in trainable]

    @property
    def non_trainable_weights(self):
        """The base's weights w0 and its other state."""
        trainable = {id(v) for v in self.trainable_variables}
        return [v for v in self.weights if id(v) not in trainable]

    def call(self, inputs):
        """T_f(u, x) for a batch x."""
        primal, tangent = self._primal_and_tangent(inputs)
        return tf.nest.map_structure(tf.add, primal, tangent)

    def compute_output_spec(self, inputs, *args, **kwargs):
        """The base's, without tracing a JVP."""
        return self.base.compute_output_spec(inputs)

    def train_step(self, data):
        """One update of u by the exact gradient J^T r, r = dLoss/dT."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([w.value for w in self._point])
            primal, tangent = self._primal_and_tangent(x)
        with tf.GradientTape(watch_accessed_variables=False) as loss_tape:
            y_pred = tf.nest.map_structure(tf.add, primal, tangent)
            loss_tape.watch(y_pred)
            loss = self.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
            )
            scaled_loss = self.optimizer.scale_loss(loss)
        residual = loss_tape.gradient(scaled_loss, y_pred)
        gradients = tape.gradient(
            primal,
            [w.value for w in self._point],
            output_gradients=residual,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        self.optimizer.apply(gradients, self.trainable_variables)
        replicas = self.distribute_strategy.num_replicas_in_sync
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * replicas, tf.shape(tf.nest.flatten(x)[0])[0])
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def get_config(self):
        """The base's configuration; weights are saved apart."""
        return {
            "base": keras.saving.serialize_keras_object(self.base),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Rebuild the model around a base rebuilt from its configuration."""
        base = keras.saving.deserialize_keras_object(config.pop("base"), custom_objects)
        return cls(base, **config)

    def _primal_and_tangent(self, x):
        """f(w0, x) and J(x) u.

        Raises:
            ValueError: inside XLA, if the base's JVP would be wrong there.
        """
        if self._xla_unsafe and inside_xla():
            raise ValueError(
                f"XLA corrupts the JVP of {', '.join(self._xla_unsafe)}: use"
                " ntk_tf.models.MaxPooling2D in their place, or jit_compile=False"
            )
        point = [w.value for w in self._point]
        direction = [tf.convert_to_tensor(u.value) for u in self._tangent]
        with tf.autodiff.ForwardAccumulator(point, direction) as accumulator:
            primal = self.base(x, training=False)
        return primal, accumulator.jvp(primal, tf.UnconnectedGradients.ZERO)


def _native_pooling(layer: keras.Layer) -> bool:
    """Whether XLA would corrupt the layer's JVP."""
    kinds = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
    return isinstance(layer, kinds) and not isinstance(layer, MaxPooling2D)
