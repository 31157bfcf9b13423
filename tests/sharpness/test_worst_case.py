"""The worst case: closed forms on quadratics, a grid for two parameters, and laws for any function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_optax import by_path, sharpness
from tests.selection import combinations
from tests.sharpness import quadratics

CURVATURE = np.array([1.0, 3.0, 0.5, 2.0, 4.0])
W = np.array([0.3, -0.2, 1.0, -0.7, 0.4])
BATCH = jnp.asarray(np.stack([CURVATURE - 0.25, CURVATURE + 0.25]))
BALLS = [(norm, adaptive) for norm in ("linf", "l2") for adaptive in (False, True)]


def _measure(w=W, batches=(BATCH,), **options):
    return sharpness.worst_case(quadratics.loss_fn, quadratics.tree(np.asarray(w)), batches, **options)


def _closed_form(norm, adaptive, rho):
    unit = np.abs(W) if adaptive else np.ones(5)
    if norm == "linf":
        return quadratics.rise_in_box(CURVATURE, W, rho * unit)
    return quadratics.rise_in_ball(CURVATURE * unit**2, W / unit, rho)


@pytest.mark.parametrize("rho", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize(("norm", "adaptive"), BALLS)
def test_the_worst_case_of_a_quadratic_equals_the_closed_form(norm, adaptive, rho, x64):
    found = _measure(rho=rho, norm=norm, adaptive=adaptive, steps=100)
    assert found.sharpness == pytest.approx(_closed_form(norm, adaptive, rho), rel=1e-3)
    assert found.sharpness <= _closed_form(norm, adaptive, rho) * (1 + 1e-9)  # not above the true maximum


@pytest.mark.parametrize("rho", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("adaptive", [False, True])
def test_twenty_iterations_reach_the_corner_of_a_box(rho, adaptive, x64):
    assert _measure(rho=rho, adaptive=adaptive).sharpness == pytest.approx(
        _closed_form("linf", adaptive, rho), rel=1e-5
    )


def test_the_curvature_is_found_even_at_the_minimum(x64):
    at_minimum = {"w": np.zeros(5), "rho": 0.1}
    assert _measure(norm="l2", steps=100, **at_minimum).sharpness == pytest.approx(0.5 * 0.01 * 4.0, rel=1e-3)
    assert _measure(**at_minimum).sharpness == pytest.approx(0.5 * 0.01 * CURVATURE.sum(), rel=1e-5)


@combinations(lambda norm, adaptive: adaptive == (norm == "l2"), norm=("linf", "l2"), adaptive=(False, True))
def test_on_a_network_of_two_parameters_a_fine_grid_agrees(norm, adaptive, x64):
    inputs, targets = jnp.linspace(-2.0, 2.0, 9), jnp.sin(jnp.linspace(-2.0, 2.0, 9))

    def loss_fn(w, batch):
        return jnp.mean((w[1] * jnp.tanh(w[0] * batch[0]) - batch[1]) ** 2)

    w, rho, batch = jnp.array([0.9, -0.6]), 0.4, (inputs, targets)
    unit = jnp.abs(w) if adaptive else jnp.ones(2)
    points = jnp.stack(jnp.meshgrid(*2 * [jnp.linspace(-1.0, 1.0, 401)]), -1).reshape(-1, 2)
    if norm == "l2":  # the square's rings as circles
        points *= jnp.abs(points).max(1, keepdims=True) / jnp.maximum(jnp.linalg.norm(points, axis=1)[:, None], 1e-9)
    highest = jnp.max(jax.vmap(lambda delta: loss_fn(w + rho * unit * delta, batch))(points))
    found = sharpness.worst_case(loss_fn, w, [batch], rho=rho, norm=norm, adaptive=adaptive, steps=50, restarts=3)
    assert found.sharpness == pytest.approx(float(highest - loss_fn(w, batch)), rel=1e-3)


def test_the_mean_weights_batches_by_their_size(x64):
    steep = jnp.full((6, 5), 7.0)
    both = _measure(batches=[BATCH, steep], rho=0.1)
    separate = [_measure(batches=[batch], rho=0.1) for batch in (BATCH, steep)]
    assert list(both.per_batch) == [each.sharpness for each in separate]
    for name in ("sharpness", "loss", "first_order"):
        of_each = [float(getattr(each, name)) for each in separate]
        assert float(getattr(both, name)) == pytest.approx(0.25 * of_each[0] + 0.75 * of_each[1], rel=1e-14)


@given(st.sampled_from(BALLS), st.floats(1e-4, 1e2), st.lists(st.floats(-3, 3), min_size=5, max_size=5), st.booleans())
def test_the_maximiser_is_in_the_ball_and_attains_the_sharpness(ball, rho, w, random_start):
    norm, adaptive = ball
    with jax.enable_x64(True):
        found = _measure(w, rho=rho, norm=norm, adaptive=adaptive, random_start=random_start, keep_perturbations=True)
        [delta] = found.perturbations
        w, delta = np.array(w), np.asarray(quadratics.flatten(delta))
        unit = np.abs(w) if adaptive else np.ones(5)
        assert not np.any(delta[unit == 0])
        in_units = np.divide(delta, unit, out=np.zeros(5), where=unit > 0)
        length = np.linalg.norm(in_units, np.inf if norm == "linf" else 2)
        assert length <= rho * (1 + 1e-9)
        rise = quadratics.loss_fn(quadratics.tree(w + delta), BATCH) - quadratics.loss_fn(quadratics.tree(w), BATCH)
        assert found.sharpness == pytest.approx(float(rise), rel=1e-6, abs=1e-12)
        assert found.sharpness >= 0


@pytest.mark.parametrize(("norm", "adaptive"), BALLS)
def test_a_small_ball_shows_the_gradient_and_a_large_one_the_curvature(norm, adaptive, x64):
    small, large = (_measure(rho=rho, norm=norm, adaptive=adaptive, steps=50) for rho in (1e-6, 1e4))
    assert small.sharpness == pytest.approx(float(small.first_order), rel=1e-4)
    assert large.sharpness > 1e3 * large.first_order


def test_the_history_begins_with_the_loss_and_contains_the_maximum(x64):
    found = _measure(rho=0.1, steps=7, restarts=3)
    assert found.history.shape == (1, 3, 8)
    assert found.history[0, 0, 0] == found.loss
    assert found.history.max() - found.loss == found.sharpness
    assert len({float(start) for start in found.history[0, :, 0]}) == 3


def test_more_restarts_never_find_less(x64):
    def rugged(w, batch):
        return jnp.mean(jnp.sin(5 * w + batch))

    w, batches = jnp.linspace(-1, 1, 6), [jnp.zeros((2, 6)), jnp.ones((1, 6))]
    for random_start in (False, True):
        options = {"rho": 2.0, "key": jax.random.key(3), "random_start": random_start}
        found = [sharpness.worst_case(rugged, w, batches, restarts=n, **options) for n in (1, 2, 5)]
        assert (found[0].per_batch <= found[1].per_batch).all()
        assert (found[1].per_batch <= found[2].per_batch).all()
        assert found[2].sharpness <= 2.0
        assert (found[2].history[:, :2] == found[1].history).all()


def test_the_key_determines_the_random_starts(x64):
    starts = [_measure(rho=1.0, random_start=True, key=jax.random.key(k)).history[0, 0, 0] for k in (0, 0, 1)]
    assert starts[0] == starts[1] != starts[2]


def test_only_the_leaves_of_the_mask_are_perturbed(x64):
    found = _measure(rho=0.1, mask=by_path(lambda path: path == "a"), keep_perturbations=True)
    assert not found.perturbations[0]["b"].any()
    reach = np.array([0.1, 0.1, 0.1, 0.0, 0.0])
    assert found.sharpness == pytest.approx(quadratics.rise_in_box(CURVATURE, W, reach), rel=1e-5)
    assert found.first_order == pytest.approx(np.sum(reach * np.abs(CURVATURE * W)))


def test_a_radius_of_zero_gives_zero_sharpness(x64):
    for norm, adaptive in BALLS:
        assert _measure(rho=0.0, norm=norm, adaptive=adaptive).sharpness == 0


def test_the_measures_need_no_implicit_promotion():
    loss_fn, w = lambda w, x: jnp.mean(jnp.square(x @ w)), jnp.ones((3, 2), jnp.bfloat16)
    batches = [jnp.ones((4, 3), jnp.bfloat16)]

    def wide(w, x):
        return loss_fn(w, x).astype(jnp.float32)

    with jax.numpy_dtype_promotion("strict"):
        found = sharpness.worst_case(wide, w, batches, rho=0.1, steps=3)
        grid = sharpness.landscape(wide, w, batches, coordinates=[0, 1])
    assert found.sharpness > 0
    assert np.isfinite(grid.loss).all()


@jax.tree_util.register_pytree_node_class
class Pair:
    """A batch without a comparison by value."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def tree_flatten(self):
        return (self.x, self.y), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def test_batches_of_a_class_without_a_comparison_are_alike():
    def loss_fn(w, batch):
        return jnp.mean((batch.x @ w - batch.y) ** 2)

    batches = [Pair(jnp.ones((n, 3)), jnp.ones(n)) for n in (2, 4)]
    assert sharpness.worst_case(loss_fn, jnp.ones(3), batches, rho=0.1, steps=2).sharpness > 0
