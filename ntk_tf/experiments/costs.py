"""What an experiment costs, from shapes alone."""

from typing import Any

from ntk_tf.data import counts
from ntk_tf.experiments import architecture
from ntk_tf.models.shapes import Counts
from ntk_tf.process.speed import Speed

#: Bytes of a float32.
FLOAT = 4
#: Seconds of a process's start, and of tracing a model.
START, TRACING = 6.0, 3.0
#: Of `Speed.products`, what products in a training step, in an evaluation and in a Gram reach:
#: measured, as all that follows, with LeNet, AlexNet and VGG-11 on two cores of a server's CPU.
_TRAINING, _EVALUATION, _GRAM = 1.25, 1.0, 0.8
#: Elementwise operations' time, in numbers that they would go through: of a layer with weights
#: whatever its size, of each of its outputs, of each parameter that is updated, and of each picture
#: that is read for an evaluation.
_LAYER, _OUTPUT, _PARAMETER, _PICTURE = 650_000, 2.0, 2.0, 100_000
#: That the linearization takes more of these: it has tangents too.
_LINEARIZED = 1.3
#: That float64 takes, of products and of elementwise operations, over float32: TensorFlow's float64
#: convolutions reach 12 to 25 billion operations a second where float32's reach 65 to 135.
_DOUBLE_PRODUCTS, _DOUBLE_ELEMENTS = 6.0, 2.0


def examples(config: Any) -> tuple[int, int]:
    """Numbers of training and of test pictures; 0 where they are not known yet."""
    train, test = (getattr(config, name, None) for name in ("train_examples", "test_examples"))
    return train or config.card.train, test or config.card.test


def training_memory(config: Any, buffers: int, copies: int) -> tuple[int, float]:
    """Parameters, and bytes that they and the activations take in training.

    Parameter-sized buffers are w, velocity and gradient, for the linearization u besides, and one
    more for what matrix products and their gradients need at the largest layer; a trajectory has
    both models. Activations are kept once and their gradients once; the linearization keeps
    tangents too. Measured peaks, in GiB, beside what this gives with TensorFlow and pictures once:

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


def updates(config: Any, epochs: int = 1) -> int:
    """Number of updates of a run of so many epochs."""
    per_epoch = counts.steps_per_epoch(examples(config)[0], config.batch_size)
    return min(epochs * per_epoch, config.max_steps or epochs * per_epoch)


def step_flops(config: Any, sizes: Counts, linearized: bool) -> float:
    """Floating-point operations of an update in training, for one picture."""
    at_start = sum(sizes.flops) if _is_centered_network(config, linearized) else 0  # f(w0, x)
    return sizes.step_flops(linearized) + at_start


def update_seconds(config: Any, linearized: bool, speed: Speed) -> float:
    """Time of an update in training."""
    sizes = architecture.counts(config)
    flops = step_flops(config, sizes, linearized)
    numbers = _LAYER * len(sizes.products) + _OUTPUT * sizes.activations * config.batch_size
    numbers = numbers * (_LINEARIZED if linearized else 1) + _PARAMETER * sizes.parameters
    products, elements = _precision(config)
    in_products = products * config.batch_size * flops / (_TRAINING * speed.products * speed.cores)
    return in_products + elements * numbers / speed.elements / min(1, speed.cores)


def evaluation_seconds(config: Any, linearized: bool, pictures: int, speed: Speed) -> float:
    """Time of outputs of so many pictures."""
    sizes = architecture.counts(config)
    passes = 2 if linearized or _is_centered_network(config, linearized) else 1
    flops = passes * sum(sizes.flops) * pictures
    numbers = (_OUTPUT * sizes.activations + passes * _PICTURE) * pictures
    products, elements = _precision(config)
    in_products = products * flops / (_EVALUATION * speed.products)
    return (in_products + elements * numbers / speed.elements) / speed.cores


def _is_centered_network(config: Any, linearized: bool) -> bool:
    return getattr(config, "centered", False) and not linearized


def _precision(config: Any) -> tuple[float, float]:
    """What products and elementwise operations take, over float32."""
    double = getattr(config, "precision", "float32") == "float64"
    return (_DOUBLE_PRODUCTS, _DOUBLE_ELEMENTS) if double else (1.0, 1.0)


def gram_seconds(
    sizes: Counts, pictures: int, outputs: int, speed: Speed, crossed: bool = True
) -> float:
    """Time of the Gram of gradients.

    By the operations of `ntk.contract`, of which the cheaper way counts for each layer.

    Args:
        sizes: of the network.
        pictures: n.
        outputs: whose gradients are taken.
        speed: of the machine.
        crossed: whether each meets all others, and not only itself.
    """
    pairs = outputs**2 if crossed else outputs
    entry = sum(
        min(2 * k * c, 2 * p * c * (p / outputs + 1) + 2 * p**2 * k / pairs)
        for p, k, c in sizes.products
    )
    propagated = 2 * sum(sizes.flops) * pictures * outputs
    operations = entry * pairs * pictures**2 / 2 + propagated
    return operations / (_GRAM * speed.products * speed.cores)


def eigenvalue_seconds(rows: int, speed: Speed) -> float:
    """Time of a symmetric matrix's eigenvalues: 4/3 rows^3 operations, which wait for memory."""
    return 4 / 3 * rows**3 / (1.5 * speed.elements)
