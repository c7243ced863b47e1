"""How far an empirical NTK has moved from where it started."""

import numpy as np


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
        (||Theta_t|| ||Theta_0||), Frobenius over all entries; `label_alignment`, the centered
        alignment of sum_l Theta_t[i,l,j,l] with Y Y^T.
    """
    size, start_size = np.linalg.norm(kernel), np.linalg.norm(at_start)
    return {
        "relative_change": float(np.linalg.norm(kernel - at_start) / start_size),
        "cosine": float(np.vdot(kernel, at_start) / (size * start_size)),
        "label_alignment": centered_alignment(np.einsum("iljl->ij", kernel), targets @ targets.T),
    }


def centered_alignment(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine between two kernels after centering both in feature space.

    Cortes, Mohri and Rostamizadeh (2012), "Algorithms for Learning Kernels Based on Centered
    Alignment", definition 4.

    Args:
        a: symmetric `[n, n]`.
        b: symmetric `[n, n]`.

    Returns:
        A number between -1 and 1; at least 0 for positive semidefinite kernels.
    """
    centering = np.eye(len(a)) - 1 / len(a)
    a, b = centering @ a @ centering, centering @ b @ centering
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
