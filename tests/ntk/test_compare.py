"""Measures of kernels against their definitions, term by term, and closed forms."""

import numpy as np
import pytest

from ntk_tf.ntk import compare


def kernels(rng, n=6, outputs=3):
    """Two positive semidefinite kernels `[n, L, n, L]`, and one-hot labels."""
    factors = rng.standard_normal((2, n * outputs, 30)) + 0.3
    a, b = (f @ f.T for f in factors)
    labels = np.eye(outputs)[np.arange(n) % outputs]
    return a.reshape(n, outputs, n, outputs), b.reshape(n, outputs, n, outputs), labels


def centered(matrix):
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1)[:, None] + matrix.mean()


def of_outputs(kernel):
    """A kernel `[n, L, n, L]` with the features of each output centered, `[n L, n L]`."""
    n, outputs = kernel.shape[:2]
    h = np.kron(np.eye(n) - 1 / n, np.eye(outputs))
    return h @ kernel.reshape(n * outputs, -1) @ h


def angle(a, b):
    return sum(x * y for x, y in zip(a.flat, b.flat, strict=True)) / np.sqrt(
        sum(x * x for x in a.flat) * sum(y * y for y in b.flat)
    )


def test_two_kernels(rng):
    a, b, _ = kernels(rng)
    assert compare.cosine(a, b) == pytest.approx(angle(a, b), rel=1e-12)
    assert compare.cka(a, b) == pytest.approx(angle(of_outputs(a), of_outputs(b)), rel=1e-12)
    assert compare.distance(a, b) == pytest.approx(1 - angle(a, b), rel=1e-12)
    assert compare.velocity(a, b, 2.5) == pytest.approx((1 - angle(a, b)) / 2.5, rel=1e-12)
    assert compare.distance(a, 3 * a) == pytest.approx(0, abs=1e-15)
    assert compare.cka(a, 2 * a) == pytest.approx(1, rel=1e-12)
    assert compare.relative_change(3 * a, a) == pytest.approx(2, rel=1e-12)
    with pytest.raises(ValueError, match="time=0"):
        compare.velocity(a, b, 0)


def test_cka_is_blind_to_rotation_and_shift_of_features(rng):
    features = rng.standard_normal((8, 5))
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    moved = features @ rotation + rng.standard_normal(5)
    assert compare.cka(features @ features.T, moved @ moved.T) == pytest.approx(1, rel=1e-12)
    assert compare.cosine(features @ features.T, moved @ moved.T) < 0.99


def test_cka_of_equal_outputs_is_that_of_one(rng):
    features = rng.standard_normal((2, 8, 5))
    a, b = (3 + f @ f.T for f in features)
    of_all = (np.einsum("ij,lm->iljm", k, np.eye(4)) for k in (a, b))
    assert compare.cka(*of_all) == pytest.approx(compare.cka(a, b), rel=1e-12)
    assert compare.cka(a, b) < compare.cosine(a, b) - 0.1


def test_alignment_by_chance(rng):
    labels = np.eye(10)[np.arange(50) % 10]
    found = compare.label_alignment(np.eye(50), labels)
    assert found == pytest.approx(np.sqrt(9 / 49), rel=1e-12)


def test_labels(rng):
    kernel, _, labels = kernels(rng)
    trace = sum(kernel[:, k, :, k] for k in range(3))
    same = np.array([[float(a @ b) for b in labels] for a in labels])
    assert compare.label_alignment(kernel, labels, centered=False) == pytest.approx(
        angle(trace, same), rel=1e-12
    )
    assert compare.label_alignment(trace, labels) == pytest.approx(
        angle(centered(trace), centered(same)), rel=1e-12
    )
    assert compare.label_alignment(same, labels) == pytest.approx(1, rel=1e-12)
    y = labels[:, 1]
    uncentered = y @ kernel[:, 1, :, 1] @ y / (np.linalg.norm(kernel[:, 1, :, 1]) * (y @ y))
    found = compare.class_alignments(kernel, labels, centered=False)
    assert found.shape == (3,)
    assert found[1] == pytest.approx(uncentered, rel=1e-12)
    of_one = compare.class_alignments(trace, labels)
    assert of_one[2] == pytest.approx(
        angle(centered(trace), centered(np.outer(labels[:, 2], labels[:, 2]))), rel=1e-12
    )


def test_a_class_without_examples(rng):
    kernel, _, labels = kernels(rng)
    for value in (0.0, -0.1):
        labels[:, 1] = value
        for centered_too in (True, False):
            found = compare.class_alignments(kernel, labels, centered_too)
            assert np.isfinite(found).tolist() == [True, value != 0 and not centered_too, True]
        assert "label_alignment_1" not in compare.kernel_movement(kernel, kernel, labels)


def test_eigenvectors(rng):
    kernel, _, labels = kernels(rng)
    found = compare.eigenvector_alignments(kernel, labels, 18)
    assert found.sum() == pytest.approx(1, rel=1e-12)
    values, vectors = np.linalg.eig(kernel.reshape(18, 18))
    top = vectors[:, np.argmax(values.real)].real
    assert found[0] == pytest.approx((top @ labels.ravel()) ** 2 / 6, rel=1e-10)
    assert compare.eigenvector_alignments(labels @ labels.T, labels, 3).sum() == pytest.approx(1)
    for bad in (np.nan, np.inf):
        kernel[0, 0] = bad
        assert np.isnan(compare.eigenvector_alignments(kernel, labels, 3)).all()


def test_movement_of_a_kernel(rng):
    a, b, labels = kernels(rng)
    found = compare.kernel_movement(a, b, labels)
    assert found["cosine"] == pytest.approx(angle(a, b), rel=1e-12)
    assert found["relative_change"] == pytest.approx(
        np.sqrt(np.sum((a - b) ** 2) / np.sum(b**2)), rel=1e-12
    )
    assert found["cka"] == pytest.approx(angle(of_outputs(a), of_outputs(b)), rel=1e-12)
    trace, same = sum(a[:, k, :, k] for k in range(3)), labels @ labels.T
    assert found["label_alignment"] == pytest.approx(angle(centered(trace), centered(same)))
    assert found["uncentered_label_alignment"] == pytest.approx(angle(trace, same))
    top = np.linalg.svd(trace)[0][:, :3]
    share = np.linalg.norm(top.T @ labels) ** 2 / np.linalg.norm(labels) ** 2
    assert found["eigenvector_alignment"] == pytest.approx(share)
    for k in range(3):
        one = np.outer(labels[:, k], labels[:, k])
        expected = angle(centered(a[:, k, :, k]), centered(one))
        assert found[f"label_alignment_{k}"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, y: compare.cka(k[:, 0], k[:, 0]), r"kernel \(5, 5, 2\): must be \[n, n\] or"),
        (lambda k, y: compare.label_alignment(k[:, 0], y), r"kernel \(5, 5, 2\): must be"),
        (lambda k, y: compare.class_alignments(k, y[:, :1]), r"targets \(5, 1\): must be \[n, L\]"),
        (lambda k, y: compare.label_alignment(k, y[:4]), r"targets \(4, 2\): must be \[n, L\]"),
    ],
)
def test_what_is_no_kernel_or_not_its_labels(call, message, rng):
    with pytest.raises(ValueError, match=message):
        call(rng.standard_normal((5, 2, 5, 2)), np.eye(2)[[0, 1, 1, 0, 1]])


def test_labels_of_one_output_and_of_any_type(rng):
    features, y = rng.standard_normal((5, 9)), np.array([0, 1, 1, 0, 1])
    kernel = features @ features.T
    expected = compare.label_alignment(kernel, y[:, None].astype(float))
    assert compare.label_alignment(kernel, y) == expected
    assert compare.label_alignment(kernel, y[:, None] == 1) == expected


def test_numbers_of_classes_are_no_targets(rng):
    kernel = np.eye(6) + 0.1
    classes = np.array([0, 1, 2, 0, 1, 2])
    for count in (-1, 0, 7):
        with pytest.raises(ValueError, match=f"count={count}: must be 1 to 6"):
            compare.eigenvector_alignments(np.eye(6), np.ones((6, 1)), count)
    with pytest.raises(ValueError, match="integers 0 to 2: numbers of classes have no size"):
        compare.label_alignment(kernel, classes)
    compare.label_alignment(kernel, np.array([-1, 1, 1, -1, 1, -1]))
    compare.label_alignment(kernel, classes.astype(float))
