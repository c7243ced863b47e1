"""Inputs of a model: an array, or a structure of arrays with an example per row of each."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

#: An array `[n, ...]`, or a tuple, list or dictionary of such, as the model takes it.
Inputs = Any


def as_arrays(x: Inputs) -> Inputs:
    """Inputs in memory, each array with the same number of rows.

    Args:
        x: an array, a structure of arrays, or a batched `tf.data.Dataset` of either, alone or with
            labels and weights, which are left out.

    Returns:
        Arrays in x's structure.

    Raises:
        ValueError: if there are no rows, or not the same number of each.
    """
    if isinstance(x, tf.data.Dataset):
        x = _of_dataset(x)
    x = keras.tree.map_structure(np.asarray, x)
    rows = {a.shape[:1] for a in keras.tree.flatten(x)}
    if len(rows) > 1 or () in rows:
        raise ValueError(f"arrays of {sorted(rows)} examples: every input needs the same number")
    if not rows or rows == {(0,)}:
        raise ValueError("the NTK needs at least one example")
    return x


def _of_dataset(dataset: tf.data.Dataset) -> Inputs:
    batches = [keras.utils.unpack_x_y_sample_weight(batch)[0] for batch in dataset]
    if not batches:
        raise ValueError("the NTK needs at least one example")
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)


def length(x: Inputs) -> int:
    """Number of examples."""
    return len(keras.tree.flatten(x)[0])


def take(x: Inputs, rows: slice | list[int]) -> Inputs:
    """Some of the examples."""
    return keras.tree.map_structure(lambda a: a[rows], x)


def tensors(x: Inputs) -> Inputs:
    """As what a model takes."""
    return keras.tree.map_structure(tf.convert_to_tensor, x)


def signature(x: Inputs, rows: int | None = None) -> Inputs:
    """Shapes and types of the arrays, for so many examples or any number."""
    return keras.tree.map_structure(lambda a: tf.TensorSpec([rows, *a.shape[1:]], a.dtype), x)


def key(x: Inputs) -> tuple:
    """What tells inputs apart that need another trace of the model."""
    return tuple((a.shape[1:], a.dtype) for a in keras.tree.flatten(x))
