"""One model on several devices: each batch is split, gradients are summed, weights stay equal.

Keras' own `evaluate` under a strategy breaks on unequal parts of a batch and traces the model where
no JVP can be taken, so steps are run here.
"""

from collections.abc import Callable

import keras
import tensorflow as tf


def strategy(name: str) -> tf.distribute.Strategy:
    """A distribution strategy by its name in the options.

    Args:
        name: `one_device`, or `mirrored` for all GPUs, or all logical CPUs where there is no GPU.

    Raises:
        ValueError: if there is only one device to mirror.
    """
    if name == "one_device":
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        raise ValueError(
            f"strategy={name}: there is one device here, {devices[0].name}; it takes several GPUs"
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def check_batches(examples: int, batch_size: int, replicas: int) -> None:
    """Refuse batches that leave a device without pictures.

    Args:
        examples: of the training set.
        batch_size: pictures an update.
        replicas: number of devices.

    Raises:
        ValueError: if there are such batches.
    """
    last = examples % batch_size or batch_size
    if last < replicas:
        raise ValueError(
            f"batch_size={batch_size}: leaves a batch of {last} pictures for {replicas}"
            f" devices; each batch must have at least {replicas}"
        )


def even_size(examples: int, size: int, replicas: int) -> int:
    """The largest batch size, at most `size`, whose last batch has a picture for each replica."""
    while 0 < examples % size < replicas:
        size -= 1
    return size


def train_step(model: keras.Model) -> Callable:
    """The model's training step for one replica's part of a batch.

    The gradients of the replicas are summed, each of a mean over its own pictures divided by the
    number of replicas; weights make that the mean over all pictures where the parts differ in size.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas == 1:
        return model.train_step

    def step(batch):
        x, y = batch
        here = tf.shape(y)[0]
        everywhere = tf.distribute.get_replica_context().all_reduce("sum", here)
        weight = tf.cast(replicas * here, tf.float32) / tf.cast(everywhere, tf.float32)
        return model.train_step((x, y, tf.fill([here], weight)))

    return step


def build_metrics(model: keras.Model, num_classes: int) -> None:
    """Create the variables of a compiled model's metrics and loss, without running the model."""
    outputs = tf.zeros((1, num_classes))
    with model.distribute_strategy.scope():
        model.compute_loss(y=outputs, y_pred=outputs, training=False)
        for metric in model.metrics:
            if hasattr(metric, "build") and not metric.built:
                metric.build(outputs, outputs)


def spread(model: keras.Model, batches: tf.data.Dataset) -> tf.data.Dataset:
    """The batches, each split over the devices of the model where there are several."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return batches
    return strategy.experimental_distribute_dataset(batches)
