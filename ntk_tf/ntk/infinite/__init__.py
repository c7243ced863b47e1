"""Kernels of infinitely wide networks: of an architecture as it stands, without training.

An architecture's file in `ntk_tf.models` is written against a set of layers; here they carry
kernels, in place of Keras tensors.
"""

from ntk_tf.ntk.infinite.evaluate import CHANNELS, KernelFunction, Kernels, kernel
from ntk_tf.ntk.infinite.extrapolation import Extrapolation, extrapolate, relative_error
from ntk_tf.ntk.infinite.limits import NoKernelError

__all__ = [
    "CHANNELS",
    "Extrapolation",
    "KernelFunction",
    "Kernels",
    "NoKernelError",
    "extrapolate",
    "kernel",
    "relative_error",
]
