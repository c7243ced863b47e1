"""The converged linearization against kernel regression, dense algebra, scipy and autodiff."""

import keras
import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf
from references import dense_jacobian, flat

from ntk_tf import models, ntk
from ntk_tf.linearization import LinearizedModel, map_batches, solve, solve_each
from ntk_tf.linearization.ridge import Ridge
from ntk_tf.linearization.solve import ConjugateGradients, NotFiniteError, preconditioner

K = keras.layers
N, L = 24, 3


def net(units=4):
    """Smooth, with batch normalization whose statistics are not those of any batch."""
    layers = [K.Dense(units, activation="tanh"), K.BatchNormalization(), K.Dense(L)]
    model = keras.Sequential([K.Input((5,)), *layers])
    rng = np.random.default_rng(1)
    for w in model.variables:
        w.assign(rng.uniform(0.2, 1, w.shape))
    return model


def data(rng, n=N):
    return rng.standard_normal((n, 5)), np.eye(L)[rng.integers(0, L, n)]


def dense(model, x, y):
    """J and r = y - f."""
    return dense_jacobian(model, x), (y - model(x, training=False).numpy()).ravel()


def ridge_solution(j, r, shift, toward=0.0):
    return np.linalg.solve(j.T @ j + shift * np.eye(j.shape[1]), j.T @ r - shift * toward)


@pytest.mark.parametrize("examples", [0, 8, N])
@pytest.mark.parametrize("units", [4, 12])  # p = 47 < n L = 72, and p = 135 above
def test_equals_the_dense_solution_and_kernel_regression(units, examples, rng, float64):
    model, (x, y), decay = net(units), data(rng), 1e-3
    j, r = dense(model, x, y)
    assert (j.shape[1] < j.shape[0]) == (units == 4)
    gram = (j @ j.T).reshape(N, L, N, L)
    few = gram[:examples, :, :examples] if examples else None
    found = solve(model, x, y, decay, gram=few, tolerance=1e-10, batch_size=7)
    expected = ridge_solution(j, r, N * L * decay / 2)
    np.testing.assert_allclose(flat(found.u), expected, rtol=1e-5, atol=1e-6)
    offset = model(x, training=False).numpy()
    fitted = ntk.kernel_regression(gram, y, offset, decay, "float64").fitted
    np.testing.assert_allclose(offset.ravel() + j @ flat(found.u), fitted.ravel(), atol=1e-6)
    assert found.residual <= 1e-10


def test_lenet_on_200_pictures_equals_kernel_regression(rng):
    """In float32, p > n L; the outputs on pictures that it has not seen."""
    model = models.build("lenet", 1, 2, (16, 16, 1))
    x, unseen = rng.standard_normal((2, 200, 16, 16, 1)).astype("float32")
    y = np.eye(2)[rng.integers(0, 2, 200)]
    gram = ntk.gram(model, x)
    found = solve(model, x, y, 1e-2, gram=gram[:40, :, :40], tolerance=1e-6)
    offset = map_batches(lambda part: model(part, training=False), x)
    dual = ntk.kernel_regression(gram, y, offset, 1e-2).dual
    linear = LinearizedModel(model)
    expected = linear.jacobian.vjp_in_batches(x, dual.astype("float32"))
    outputs = []
    for u in (found.u, expected):
        for w, value in zip(linear.trainable_weights, u, strict=True):
            w.assign(value)
        outputs.append(map_batches(lambda part: linear(part, training=False), unseen))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)
    assert np.abs(outputs[1] - map_batches(lambda part: model(part), unseen)).max() > 0.1


def test_stops_where_the_precision_holds_no_smaller_residual(rng):
    """In float32; going on from there would lose what has been reached."""
    model, (x, y) = net(), data(rng)
    found = solve(model, x.astype("float32"), y, 1e-3, tolerance=1e-12, max_passes=1000)
    assert found.passes < 400
    assert 1e-12 < found.residual < 1e-6
    j, r = dense(model, x.astype("float32"), y)
    np.testing.assert_allclose(flat(found.u), ridge_solution(j, r, N * L * 5e-4), atol=1e-3)


@pytest.mark.parametrize("decay", [0.0, 1e-8])
@pytest.mark.parametrize("few", [0, 5])
def test_a_tolerance_beyond_float32_leads_nowhere_else(few, decay):
    """Rounding leads away from residuals of 1e-8, to 51 once; from where they were it goes on."""
    keras.utils.set_random_seed(1)
    hidden = K.Dense(5, activation="relu", bias_initializer="random_normal")
    model = keras.Sequential([K.Input((3,)), hidden, K.Dense(2)])
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 3)).astype("float32")
    y = np.eye(2)[rng.integers(0, 2, 5)]
    j, r = dense(model, x, y)
    assert np.linalg.matrix_rank(j) == 10  # so that all targets are met
    gram = ntk.gram(model, x) if few else None
    for tolerance in (1e-7, 1e-9):
        found = solve(model, x, y, decay, gram=gram, tolerance=tolerance)
        assert found.residual < 1e-6
        assert found.passes < 300
        np.testing.assert_allclose(j @ flat(found.u), r, atol=1e-5)
    if not few:
        pair = solve_each(model, x, y, [decay, 1e-3], tolerance=1e-9)
        assert all(one.residual < 1e-5 for one in pair)
        np.testing.assert_allclose(j @ flat(pair[0].u), r, atol=1e-4)


def test_agrees_with_lsmr(rng, float64):
    model, (x, y), decay = net(), data(rng), 1e-2
    j, r = dense(model, x, y)
    damp = np.sqrt(N * L * decay / 2)
    expected = scipy.sparse.linalg.lsmr(j, r, damp=damp, atol=1e-12, btol=1e-12)[0]
    found = solve(model, x, y, decay, tolerance=1e-10)
    np.testing.assert_allclose(flat(found.u), expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_the_training_loss_vanishes(rng):
    """By autodiff through the linearization, all examples in one batch, in float32."""
    model, (x, y), decay = net(12), data(rng), 1e-3
    linear = LinearizedModel(model)

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((linear(x) - y) ** 2)
            loss += decay / 2 * sum(tf.reduce_sum(u**2) for u in linear.trainable_weights)
        return flat(tape.gradient(loss, [u.value for u in linear.trainable_weights]))

    before = np.linalg.norm(gradient())
    for w, u in zip(linear.trainable_weights, solve(model, x, y, decay).u, strict=True):
        w.assign(u)
    assert np.linalg.norm(gradient()) <= 1.1e-4 * before


def test_decay_toward_zero(rng, float64):
    model, (x, y), decay = net(), data(rng), 0.1
    j, r = dense(model, x, y)
    expected = ridge_solution(j, r, N * L * decay / 2, flat(model.trainable_weights))
    found = solve(model, x, y, decay, decay_toward="zero", tolerance=1e-10)
    np.testing.assert_allclose(flat(found.u), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("centered", "toward"), [(False, "initialization"), (True, "zero"), (False, "zero")]
)
def test_several_weight_decays_share_their_passes(toward, centered, rng, float64):
    model, (x, y), decays = net(12), data(rng), [1e-1, 1e-3, 1.0, 1e-2, 1e4]
    j, r = dense(model, x, y)
    r = y.ravel() if centered else r
    start = flat(model.trainable_weights) if toward == "zero" else 0.0
    options = {"decay_toward": toward, "centered": centered, "tolerance": 1e-9}
    found = solve_each(model, x, y, decays, **options)
    for decay, solution in zip(decays, found, strict=True):
        expected = ridge_solution(j, r, N * L * decay / 2, start)
        np.testing.assert_allclose(flat(solution.u), expected, atol=1e-5)
        assert solution.weight_decay == decay
        assert solution.residual <= 2e-9
    alone = solve(model, x, y, min(decays), **options)
    assert found[0].passes <= 1.1 * alone.passes


def test_without_weight_decay_it_does_not_matter_toward_what(rng, float64):
    """Gradient descent starts at u = 0 and ends at the shortest u, not the shortest w0 + u."""
    model, (x, y) = net(12), data(rng, 6)
    j, r = dense(model, x, y)
    expected = np.linalg.lstsq(j, r, rcond=None)[0]
    found = solve(model, x, y, 0, decay_toward="zero", tolerance=1e-11)
    np.testing.assert_allclose(flat(found.u), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1e25, 1e-30])
@pytest.mark.parametrize("few", [0, 3])
def test_gradients_out_of_range(few, factor, rng):
    """Products overflow or vanish: an error that says so, with and without a preconditioner."""
    inputs = keras.Input((5,))
    model = keras.Model(inputs, factor * keras.layers.Dense(2)(inputs))
    x, y = rng.standard_normal((6, 5)).astype("float32"), np.eye(2, dtype="float32")[[0, 1] * 3]
    gram = ntk.gram(model, x[:few]) if few else None
    with pytest.raises(NotFiniteError, match="finite"):
        solve(model, x, y, 0, gram=gram)


def test_outputs_are_followed_for_every_weight_decay(rng, float64):
    """Those of the examples and of others, at each step, from the solutions so far."""
    model, (x, y), (others, _), decays = net(12), data(rng), data(rng, 7), [1e-3, 1e-1, 10]
    j, _ = dense(model, np.concatenate([x, others]), np.zeros((N + 7, L)))
    f = model(np.concatenate([x, others]), training=False).numpy().ravel()
    ridge = Ridge(model, [(x, y)], N * L, decays, watched=[others[:4], others[4:]])
    method = ConjugateGradients(ridge, None, 1e-12)
    state = method.start()
    for _ in range(12):
        state = method.step(state)
        for u, outputs in zip(state.u, state.outputs, strict=True):
            np.testing.assert_allclose(outputs.ravel(), f + j @ u.numpy(), atol=1e-9)
    for i, shift in enumerate(ridge.shifts):
        u = state.u[i].numpy()
        residual = j[: N * L].T @ (y.ravel() - f[: N * L] - j[: N * L] @ u) - shift * u
        np.testing.assert_allclose(
            np.linalg.norm(residual) / state.norm, state.residuals[i], rtol=1e-4, atol=1e-8
        )


def test_very_large_weight_decay_is_one_step_of_gradient_descent(rng, float64):
    model, (x, y), decay = net(), data(rng), 1e8
    j, r = dense(model, x, y)
    found = solve(model, x, y, decay, tolerance=1e-5)
    np.testing.assert_allclose(flat(found.u), 2 * j.T @ r / (N * L * decay), rtol=1e-4)


def test_without_weight_decay_is_the_shortest_least_squares_solution(rng, float64):
    model, (x, y) = net(12), data(rng, 6)
    j, r = dense(model, x, y)
    gram = (j @ j.T).reshape(6, L, 6, L)[:2, :, :2]
    expected = np.linalg.lstsq(j, r, rcond=None)[0]
    found = solve(model, x, y, 0, gram=gram, tolerance=1e-11)
    np.testing.assert_allclose(flat(found.u), expected, atol=1e-6)


@pytest.mark.parametrize("decay", [0, 1e-6, 0.05])
def test_preconditioner_is_the_inverse_with_some_examples_for_all(rng, float64, decay):
    """mu ((n / m) J_S^T J_S + mu I)^-1 with a dense inverse, mu of the size of 2 (lambda + l)."""
    model, (x, y) = net(12), data(rng)
    j, _ = dense(model, x, y)
    ridge, m = Ridge(model, [(x, y)], N * L, [decay]), N // 3
    few = j[: m * L]
    found = preconditioner(ridge, x[:m], (few @ few.T).reshape(m, L, m, L), N, batch_size=7)
    shift = (np.tril(found.factor) @ np.tril(found.factor).T - few @ few.T)[0, 0]
    smallest = np.linalg.eigvalsh(few @ few.T)[0]
    assert 2 <= shift / (ridge.shifts[0] * m / N + smallest) < 4
    v = rng.standard_normal(j.shape[1])
    expected = shift * np.linalg.solve(few.T @ few + shift * np.eye(j.shape[1]), v)
    np.testing.assert_allclose(found(tf.constant(v)), expected, rtol=1e-8, atol=1e-10)


def test_gram_that_is_none_is_refused(rng, float64):
    model, (x, y) = net(12), data(rng)
    ridge = Ridge(model, [(x, y)], N * L, [0.05])
    with pytest.raises(ValueError, match="positive semidefinite"):
        preconditioner(ridge, x[:1], -np.eye(L).reshape(1, L, 1, L), N)


def test_preconditioner_saves_passes(rng, float64):
    model, (x, y) = net(12), data(rng)
    j, _ = dense(model, x, y)
    gram = (j @ j.T).reshape(N, L, N, L)
    passes = [
        solve(model, x, y, 1e-3, gram=few, tolerance=1e-6).passes
        for few in (None, gram[:12, :, :12], gram)
    ]
    assert passes[0] > passes[1] > passes[2]


def test_a_state_is_all_that_the_next_step_depends_on(rng):
    """Its residual and outputs are those of its u, and another process goes on from it."""
    model, (x, y), decay = net(12), data(rng), 1e-4
    j, r = dense(model, x, y)
    ridge = Ridge(model, [(x[:16], y[:16]), (x[16:], y[16:])], N * L, [decay])
    state = ConjugateGradients(ridge, None, 1e-12).start()
    for _ in range(25):  # beyond the first time that the residual is computed anew
        state = ConjugateGradients(ridge, None, 1e-12).step(state)
        u = state.u[0].numpy().astype("float64")
        outputs = y.ravel() - r + j @ u
        np.testing.assert_allclose(state.outputs.ravel(), outputs, atol=1e-4)
        residual = j.T @ (r - j @ u) - ridge.shifts[0] * u
        scale = np.linalg.norm(j.T @ r)
        np.testing.assert_allclose(state.r, residual, atol=1e-5 * scale)
    assert state.passes == 1 + 25 + 1


def test_a_perfect_fit_needs_no_step(rng, float64):
    model, (x, _) = net(), data(rng)
    found = solve(model, x, model(x, training=False).numpy(), 1e-3)
    assert (found.passes, found.residual) == (1, 0)
    np.testing.assert_array_equal(flat(found.u), 0)


def test_stops_at_so_many_passes(rng, float64):
    model, (x, y) = net(12), data(rng)
    seen = []
    found = solve(model, x, y, 1e-6, tolerance=1e-12, max_passes=3, after_step=seen.append)
    assert [state.passes for state in seen] == [1, 2, 3]
    assert found.passes == 3
    assert found.residual == seen[-1].residual > 1e-12


def test_refuses_what_cannot_be(rng, float64):
    model, (x, y) = net(), data(rng)
    with pytest.raises(ValueError, match="weight_decay=-1: must be at least 0"):
        solve(model, x, y, -1)
    with pytest.raises(ValueError, match="weight_decay=inf: must be at least 0, and finite"):
        solve(model, x, y, np.inf)
    with pytest.raises(ValueError, match=r"weight_decays=\(\): must hold at least one"):
        solve_each(model, x, y, [])
    for size, count in ((-1, N), (0, N), (5, 0)):
        with pytest.raises(ValueError, match=f"batch_size={size} of {count} examples: both must"):
            solve(model, x[:count], y[:count], 1, batch_size=size)
    with pytest.raises(ValueError, match=r"weight_decays=\[1, 1, 2\]: must be different"):
        solve_each(model, x, y, [1, 2, 1])
    with pytest.raises(ValueError, match="2 weight decays: cannot have a preconditioner"):
        solve_each(model, x, y, [1, 2], gram=np.ones((1, L, 1, L)))
    with pytest.raises(ValueError, match="decay_toward='w': must be one of"):
        solve(model, x, y, 1, decay_toward="w")
    with pytest.raises(ValueError, match=r"targets \(23, 3\)"):
        solve(model, x, y[1:], 1)
    with pytest.raises(ValueError, match="targets of 1 numbers: .* as the model has outputs, 3"):
        solve(model, x, y[:, :1], 1)
    with pytest.raises(ValueError, match=r"gram \(2, 2\)"):
        solve(model, x, y, 1, gram=np.eye(2))
    with pytest.raises(NotFiniteError, match="after 1 passes is nan"):
        solve(model, x, y + np.nan, 1)
