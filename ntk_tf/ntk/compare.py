"""Measures of kernels: how far two of them are apart, and how well one fits labels.

Kernels are `[n, L, n, L]` or `[n, n]`, or anything else of one shape where only the Frobenius
product matters: <K, K'> = sum of all products of entries, |K|^2 = <K, K>.
"""

import math

import numpy as np

from ntk_tf.ntk.regression import as_targets


def kernel_movement(
    kernel: np.ndarray, at_start: np.ndarray, targets: np.ndarray
) -> dict[str, float]:
    """Compare the kernel Theta_t of a network at w_t with Theta_0 at w_0.

    Args:
        kernel: Theta_t, `[n, L, n, L]`.
        at_start: Theta_0, likewise.
        targets: one-hot labels Y, `[n, L]`.

    Returns:
        `relative_change` = ||Theta_t - Theta_0|| / ||Theta_0|| and `cosine` = <Theta_t, Theta_0> /
        (||Theta_t|| ||Theta_0||), Frobenius over all entries; `cka`, the same after centering;
        `label_alignment` of Theta_t and `uncentered_label_alignment`; `eigenvector_alignment`, the
        share of the labels, not centered, in the L largest eigenvectors of sum_l Theta_t[i,l,j,l];
        `label_alignment_0` and so on, that of each class against all others, without classes that
        no example or every example has.
    """
    of_classes = {
        k: float(value)
        for k, value in enumerate(class_alignments(kernel, targets))
        if np.isfinite(value)
    }
    return {
        "relative_change": relative_change(kernel, at_start),
        "cosine": cosine(kernel, at_start),
        "cka": cka(kernel, at_start),
        "label_alignment": label_alignment(kernel, targets),
        "uncentered_label_alignment": label_alignment(kernel, targets, centered=False),
        "eigenvector_alignment": float(
            eigenvector_alignments(_traced(kernel), targets, min(targets.shape)).sum()
        ),
        **{f"label_alignment_{k}": value for k, value in of_classes.items()},
    }


def relative_change(kernel: np.ndarray, at_start: np.ndarray) -> float:
    """|K - K_0| / |K_0|."""
    return float(np.linalg.norm(kernel - at_start) / np.linalg.norm(at_start))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """<K, K'> / (|K| |K'|), the alignment without centering.

    Cristianini et al. (2001), "On kernel-target alignment".

    Args:
        a: K.
        b: K', of the same shape.

    Returns:
        A number between -1 and 1; 1 for kernels that differ by a factor; not a number for zeros.
    """
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.clip(np.vdot(a, b) / norms, -1, 1)) if norms else math.nan


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Centered kernel alignment, <H K H, H K' H> / (|H K H| |H K' H|), H = I - 1 1^T / n.

    Kornblith et al. (2019), "Similarity of neural network representations revisited", section 3.
    The features of each of L outputs are centered over the examples: there H stands for that of
    the examples times the identity over outputs, so that K and K times such an identity have the
    same. Of few examples it is large for kernels that have nothing in common.

    Args:
        a: K, `[n, n]` or `[n, L, n, L]`.
        b: K', likewise.

    Returns:
        A number between 0 and 1.

    Raises:
        ValueError: for other shapes.
    """
    _check(a)
    _check(b)
    return centered_alignment(a, b)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kernel distance S = 1 - <K, K'> / (|K| |K'|).

    Fort et al. (2020), "Deep learning versus kernel learning".

    Args:
        a: K.
        b: K', of the same shape.

    Returns:
        0 for kernels that differ by a factor, at most 1 for positive semidefinite ones.
    """
    return 1 - cosine(a, b)


def velocity(a: np.ndarray, b: np.ndarray, time: float) -> float:
    """Kernel velocity S(K_t, K_{t + dt}) / dt.

    Fort et al. (2020), "Deep learning versus kernel learning". S is quadratic in small changes, so
    that a kernel which moves steadily has a velocity proportional to dt: compare those of equal dt.

    Args:
        a: K_t.
        b: K_{t + dt}, of the same shape.
        time: dt > 0, in steps or epochs as the caller counts.

    Returns:
        The velocity per unit of time.

    Raises:
        ValueError: for a time not above 0.
    """
    if not time > 0:
        raise ValueError(f"time={time}: must be above 0")
    return distance(a, b) / time


def label_alignment(kernel: np.ndarray, targets: np.ndarray, centered: bool = True) -> float:
    """Alignment of a kernel with the labels' Y Y^T.

    Centered as in Cortes, Mohri and Rostamizadeh (2012), definition 4; else as in Cristianini et
    al. (2001). Of `[n, L, n, L]` the trace sum_l K[i,l,j,l] counts. Few examples are aligned by
    chance: the identity has, centered, sqrt((L - 1) / (n - 1)) with one-hot labels of L classes of
    equal size, .43 of 50 examples and 10 classes, and .1 of 1,000.

    Args:
        kernel: K, `[n, n]` or `[n, L, n, L]`.
        targets: labels Y, `[n, L]`, one-hot or not.
        centered: whether both are centered.

    Returns:
        A number between 0 and 1 for a positive semidefinite kernel.
    """
    traced, targets = _traced(kernel), _labels(targets, kernel)
    return (centered_alignment if centered else cosine)(traced, targets @ targets.T)


def class_alignments(kernel: np.ndarray, targets: np.ndarray, centered: bool = True) -> np.ndarray:
    """`label_alignment` with one class at a time against all others.

    Of `[n, L, n, L]` the kernel of class l is K[i,l,j,l], without the products between outputs.

    Args:
        kernel: K, `[n, n]` or `[n, L, n, L]`.
        targets: labels Y, `[n, L]`.
        centered: whether both are centered.

    Returns:
        `[L]`; not a number for a class whose targets are all 0 or, centered, all equal.
    """
    _check(kernel)
    targets = _labels(targets, kernel)
    own = [kernel] * targets.shape[1]
    if kernel.ndim == 4:
        own = [kernel[:, k, :, k] for k in range(targets.shape[1])]
    told = np.ptp(targets, axis=0) if centered else np.abs(targets).max(axis=0)
    return np.array(
        [
            label_alignment(k, y[:, None], centered) if some > 0 else np.nan
            for k, y, some in zip(own, targets.T, told, strict=True)
        ]
    )


def eigenvector_alignments(kernel: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """Share of the labels in each of the top eigenvectors: |v_k^T Y|^2 / |Y|^2.

    Ortiz-Jimenez, Moosavi-Dezfooli and Frossard (2021), "What can linearized neural networks
    actually say about generalization?". All together sum to 1.

    Args:
        kernel: K, `[n, n]` or `[n, L, n, L]`; of the latter v_k has n L elements, as has Y.
        targets: Y, `[n, L]`.
        count: number of eigenvectors, from the largest eigenvalue on.

    Returns:
        `[count]`; NaN for a kernel that is not finite.

    Raises:
        ValueError: for another kernel or other targets, or a count that there is not.
    """
    matrix, targets = _matrix(kernel), _labels(targets, kernel)
    if not 1 <= count <= len(matrix):
        raise ValueError(f"count={count}: must be 1 to {len(matrix)}, the number of eigenvectors")
    if not np.isfinite(matrix).all():
        return np.full(count, np.nan)
    _, vectors = np.linalg.eigh(matrix)
    projections = vectors[:, ::-1][:, :count].T @ targets.reshape(len(matrix), -1)
    return np.sum(projections**2, axis=1) / np.sum(targets**2)


def centered_alignment(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine between two kernels after centering both in feature space.

    Cortes, Mohri and Rostamizadeh (2012), "Algorithms for Learning Kernels Based on Centered
    Alignment", definition 4.

    Args:
        a: symmetric `[n, n]`, or `[n, L, n, L]` as `cka` takes it.
        b: likewise.

    Returns:
        A number between -1 and 1; at least 0 for positive semidefinite kernels.
    """
    return cosine(_centered(a), _centered(b))


def _centered(kernel: np.ndarray) -> np.ndarray:
    """H K H, H = I - 1 1^T / n, of each pair of outputs where there are several."""
    kernel = kernel - kernel.mean(axis=0)
    return kernel - kernel.mean(axis=kernel.ndim // 2, keepdims=True)


def _matrix(kernel: np.ndarray) -> np.ndarray:
    _check(kernel)
    rows = kernel.shape[0] if kernel.ndim == 2 else kernel.shape[0] * kernel.shape[1]
    return kernel.reshape(rows, -1)


def _traced(kernel: np.ndarray) -> np.ndarray:
    _check(kernel)
    return kernel if kernel.ndim == 2 else np.einsum("iljl->ij", kernel)


def _check(kernel: np.ndarray) -> None:
    """Refuse what is no kernel of one set of examples with itself.

    Raises:
        ValueError: for another shape.
    """
    half = kernel.ndim // 2
    if kernel.ndim not in (2, 4) or kernel.shape[:half] != kernel.shape[half:]:
        raise ValueError(f"kernel {kernel.shape}: must be [n, n] or [n, L, n, L]")


def _labels(targets: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Targets as numbers `[n, L]`; `[n]` are those of one output.

    Raises:
        ValueError: for another number of them, or of outputs, or the numbers of several classes.
    """
    targets = as_targets(targets)
    targets = targets[:, None] if targets.ndim == 1 else targets
    outputs = kernel.shape[1] if kernel.ndim == 4 else targets.shape[-1]
    if targets.shape != (len(kernel), outputs):
        raise ValueError(f"targets {targets.shape}: must be [n, L] of a kernel {kernel.shape}")
    return targets
