"""What an experiment costs, from shapes alone."""

from typing import Any

from ntk_tf.experiments import architecture

#: Bytes of a float32.
FLOAT = 4


def examples(config: Any) -> tuple[int, int]:
    """Numbers of training and of test pictures; 0 where they are not known yet."""
    train, test = (getattr(config, name, None) for name in ("train_examples", "test_examples"))
    return train or config.card.train, test or config.card.test


def training_memory(config: Any, buffers: int, copies: int) -> tuple[int, float]:
    """Parameters, and bytes that they and the activations take in training.

    Parameter-sized buffers are w, velocity and gradient, for the linearization u besides, and one
    more for what matrix products and their gradients need at the largest layer; a trajectory has
    both models. Activations are kept once and their gradients once; the linearization keeps
    tangents too. Measured peaks, in GiB, beside what this gives with pictures and TensorFlow:

        LeNet x60, batch 32      2.7 (3.1)   linearized 3.9 (3.7)   trajectory 5.3 (5.6)
        AlexNet x2, batch 8      4.2 (4.2)   linearized 5.0 (5.1)   trajectory 7.4 (7.8)
        AlexNet x1, batch 128    2.5 (2.6)   linearized 3.0 (3.2)

    Args:
        config: the run's settings.
        buffers: parameter-sized ones.
        copies: of the activations.
    """
    counts = architecture.counts(config)
    number = 2 * FLOAT if config.precision == "float64" else FLOAT
    activations = copies * counts.activations * config.batch_size
    return counts.parameters, number * (buffers * counts.parameters + activations)
