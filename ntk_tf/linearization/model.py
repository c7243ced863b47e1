"""The linearization of a Keras model at its weights, as a Keras model.

T_f(u, x) = f(w0, x) + u . grad_w f(w0, x)                     (Samarin et al. 2020, section 2)

One forward pass gives f and the Jacobian-vector product J u; the gradient of the loss in u is
J^T r with r = dLoss/dT, a single vector-Jacobian product of the base model. A training step so
costs one JVP and one VJP, whatever the number of outputs.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from ntk_tf import private
from ntk_tf.linearization.check import declared_inputs
from ntk_tf.linearization.operator import Jacobian


@keras.saving.register_keras_serializable(package="ntk_tf")
class LinearizedModel(keras.Model):
    """T_f(u, x), trained in u from u = 0; the base's weights w0 stay as they are.

    The base is linearized as a fixed function, in inference mode: batch normalization uses its
    stored statistics, dropout is the identity, no state of the base changes, and no regularization
    of its weights counts. Masks that it gives its outputs go on to loss and metrics.

    The model's weights are u, in the order and shapes of the base's trainable weights at the time
    of construction; w0 belongs to the base, so that a model around this one does not train it.
    `compile`, `fit`, `evaluate`, `predict`, saving, loading and `export` work as on any Keras
    model. Training the base afterwards would move the point of linearization.

    Before J u is first used, eagerly, in a graph or under XLA, it is compared with J^T r; see
    `Jacobian.check`. XLA corrupts the JVP of TensorFlow's max pooling: a base that uses it is not
    compiled by XLA (`jit_compile=True` says so in a warning).

    Args:
        base: a built Keras model f.
        weights: of the base, in which to linearize; its trainable ones if None.
        jvp: the way to J u, `forward`, `double_vjp` or `auto`; see `Jacobian`.
        check: whether to compare J u with J^T r before use.
        centered: leave out f(w0, x), so that the outputs are J u alone.
        **kwargs: Keras' own.

    Attributes:
        jacobian: J, a `Jacobian`.

    Raises:
        ValueError: if the base is not built, or has no trainable weights, or for another `jvp`.
    """

    def __init__(
        self,
        base: keras.Model,
        weights: Sequence[keras.Variable] | None = None,
        jvp: str = "auto",
        check: bool = True,
        centered: bool = False,
        **kwargs,
    ):
        # A plain object, which Keras does not search for weights and layers.
        jacobian = Jacobian(base, weights, jvp, check)
        kwargs.setdefault("name", f"linearized_{base.name}")
        super().__init__(autocast=False, **kwargs)  # inputs reach the base as `fit` gives them
        self.jacobian = jacobian
        self.centered = centered
        self._fixed = tf.Module()  # so that TensorFlow, which Keras exports with, knows of it
        self._fixed.base = base
        self._tangent = [
            self.add_weight(
                shape=w.shape,
                dtype=w.dtype,
                initializer="zeros",
                autocast=False,
                name=f"u_{w.path.replace('/', '_')}",
            )
            for w in jacobian.weights
        ]
        self.built = True

    @property
    def base(self) -> keras.Model:
        """The model f."""
        return self.jacobian.base

    @property
    def output_names(self) -> list[str] | None:
        """The base's, by which losses and metrics may be given."""
        return getattr(self.base, "output_names", None)

    @property
    def supports_jit(self) -> bool:
        """Whether XLA may compile the model; heeded by Keras' `compile`."""
        layers = [self.base, *private.all_layers(self.base)]
        return all(layer.supports_jit for layer in layers) and self.jacobian.survives_xla()

    @supports_jit.setter
    def supports_jit(self, value):
        """Ignored: Keras sets it for every layer, before there is a base."""

    def call(self, inputs):
        """T_f(u, x) for a batch x, less f(w0, x) if centered."""
        return self._sum(*self.jacobian.jvp(inputs, self._direction()))

    def compute_output_spec(self, inputs, *args, **kwargs):
        """The base's, without tracing a JVP."""
        return self.base.compute_output_spec(inputs)

    def compute_mask(self, inputs, previous_mask):
        """Nothing beyond the base's own mask, which the outputs of `call` already have."""
        return

    def summary(self, line_length=None, positions=None, print_fn=None, **kwargs):
        """Print a line about u, and the base's summary; see `keras.Model.summary`."""
        line = f'Model: "{self.name}", trained in u of {self.count_params():,} parameters, of'
        (print_fn or print)(line)
        self.base.summary(line_length, positions, print_fn, **kwargs)

    def check(self, x) -> None:
        """Compare J u with J^T r in the mode that the compiled model will run in.

        Training and all else do so by themselves; see `Jacobian.check`, also for the cost.

        Args:
            x: a batch of inputs.

        Raises:
            ValueError: if J u would be wrong; it names the layer.
        """
        mode = "graph"
        if self.compiled:
            mode = "eager" if self.run_eagerly else "xla" if self.jit_compile else "graph"
        self.jacobian.check(x, mode)

    def train_step(self, data):
        """One update of u by the exact gradient J^T r, r = dLoss/dT."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        primal, tangent, pullback = self.jacobian.linearize(x, self._direction(), persistent=False)
        with tf.GradientTape(watch_accessed_variables=False) as loss_tape:
            y_pred = self._sum(primal, tangent)
            loss_tape.watch(y_pred)
            loss = self.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
            )
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = pullback(loss_tape.gradient(scaled_loss, y_pred))
        self.optimizer.apply(gradients, self.trainable_variables)
        replicas = self.distribute_strategy.num_replicas_in_sync
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * replicas, tf.shape(tf.nest.flatten(x)[0])[0])
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def export(self, filepath, format="tf_saved_model", input_signature=None, **kwargs):
        """Export for serving, as `keras.Model.export`; the base's inputs are the signature."""
        if input_signature is None and (specs := declared_inputs(self.base)) is not None:
            input_signature = [
                tf.nest.map_structure(lambda s: keras.InputSpec(s.dtype.name, s.shape), specs)
            ]
        if format != "tf_saved_model" or input_signature is None:
            super().export(filepath, format, input_signature=input_signature, **kwargs)
            return
        verbose = kwargs.pop("verbose", True)
        archive = keras.export.ExportArchive()
        archive.track_and_add_endpoint("serve", self, input_signature, **kwargs)
        private.keep_loaded(archive)
        archive.write_out(filepath, verbose=verbose is not False)

    def get_config(self):
        """The configuration of the base and which of its weights u belongs to, in u's order."""
        places = {id(w): i for i, w in enumerate(self.base.weights)}
        return {
            "base": keras.saving.serialize_keras_object(self.base),
            "weights": [places[id(w)] for w in self.jacobian.weights],
            "jvp": self.jacobian.way,
            "check": self.jacobian.checked,
            "centered": self.centered,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Rebuild the model around a base rebuilt from its configuration."""
        config = dict(config)
        base = keras.saving.deserialize_keras_object(config.pop("base"), custom_objects)
        weights = [base.weights[i] for i in config.pop("weights")]
        return cls(base, weights, **config)

    def _direction(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(u.value) for u in self._tangent]

    def _sum(self, primal, tangent):
        """The sum f + J u, or J u alone, with the masks of f."""
        total = tangent
        if not self.centered:
            total = tf.nest.map_structure(tf.add, primal, tangent)
        return tf.nest.map_structure(private.carry_mask, primal, total)
