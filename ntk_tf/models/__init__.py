"""Architectures as Keras models, each with a width factor: the package's and the user's own.

Importing this imports no TensorFlow; what needs it is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from ntk_tf.models.arguments import ArchitectureError, resolve

if TYPE_CHECKING:
    from ntk_tf.models.building import build, freeze_biases, shapes_only
    from ntk_tf.models.pooling import MaxPooling2D

__all__ = [
    "ArchitectureError",
    "MaxPooling2D",
    "build",
    "freeze_biases",
    "resolve",
    "shapes_only",
]


def __getattr__(name: str) -> Any:
    """What of this package is imported when it is first used.

    Raises:
        AttributeError: for another name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ntk_tf.models import building, pooling

    return getattr(pooling if name == "MaxPooling2D" else building, name)
