"""The landscape: the loss at every point of a line or a grid, and its symmetries."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_optax.sharpness.landscapes import landscape, random_directions, toward
from tests.helpers import small_batches, small_loss, small_params

POINTS = np.array([-1.0, 0.0, 0.5, 2.0])


def loss_fn(params, batch):
    return small_loss(params, *batch)


def quadratic(params, batch):
    """`½ wᵀ A w`, with A the second moment of the examples."""
    return 0.5 * jnp.mean((batch @ params) ** 2)


def moved(params, steps, directions):
    for step, direction in zip(steps, directions, strict=True):
        params = jax.tree.map(lambda x, d, a=step: x + a * d, params, direction)
    return params


def test_along_a_direction_a_quadratic_is_a_parabola(x64):
    rng = np.random.default_rng(0)
    batch, w, d = rng.normal(size=(6, 3)), rng.normal(size=3), rng.normal(size=3)
    matrix = batch.T @ batch / 6
    found = landscape(quadratic, jnp.asarray(w), [batch], [jnp.asarray(d)], coordinates=POINTS)
    expected = 0.5 * (w @ matrix @ w) + POINTS * (d @ matrix @ w) + 0.5 * POINTS**2 * (d @ matrix @ d)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-12)
    np.testing.assert_array_equal(found.coordinates, POINTS)


def test_in_a_plane_the_first_direction_is_the_first_axis(x64):
    params, batch = small_params(), small_batches(1)[0]
    directions = random_directions(params, jax.random.key(3))
    found = landscape(loss_fn, params, [batch], directions, coordinates=POINTS)
    expected = [[loss_fn(moved(params, (a, b), directions), batch) for b in POINTS] for a in POINTS]
    np.testing.assert_allclose(found.loss, np.asarray(expected), rtol=1e-12)


def test_the_default_is_a_plane_of_21_by_21_with_the_parameters_at_its_centre():
    params, batches = small_params(), small_batches(1)
    found = landscape(loss_fn, params, batches)
    assert found.loss.shape == (21, 21)
    np.testing.assert_allclose(found.coordinates, np.linspace(-1, 1, 21))
    assert found.coordinates[10] == 0.0
    np.testing.assert_allclose(found.loss[10, 10], loss_fn(params, batches[0]), rtol=1e-6)
    directions = random_directions(params, jax.random.key(0))
    chex.assert_trees_all_equal(found, landscape(loss_fn, params, batches, directions))
    other = landscape(loss_fn, params, batches, key=jax.random.key(1))
    assert np.abs(np.asarray(other.loss - found.loss)).max() > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_line_toward_other_parameters_has_the_losses_of_both_ends(dtype):
    here = small_params(dtype)
    there = jax.tree.map(lambda x: 0.3 - 1.7 * x, here)
    batches = small_batches(1)
    found = landscape(loss_fn, here, batches, [toward(here, there)], coordinates=[0, 1])
    expected = [loss_fn(params, batches[0]) for params in (here, there)]
    np.testing.assert_allclose(found.loss, np.asarray(expected, np.float32), rtol=1e-5)
    assert found.loss.dtype == jnp.float32


def test_each_point_is_rounded_to_the_dtypes_of_the_parameters():
    """In bfloat16 the next number after 1 is 1 + 2⁻⁷: the loss is evaluated at no point in between."""
    params = {"w": jnp.ones((), jnp.bfloat16), "x": jnp.ones((), jnp.float32)}
    direction = {"w": jnp.full((), 2.0**-9), "x": jnp.zeros(())}

    def weight(params, batch):
        assert [x.dtype for x in jax.tree.leaves(params)] == [jnp.bfloat16, jnp.float32]
        return params["w"].astype(jnp.float32) + 0 * jnp.sum(batch)

    found = landscape(weight, params, [jnp.ones(1)], [direction], coordinates=[0, 1, 3, 4])
    np.testing.assert_array_equal(found.loss, [1, 1, 1 + 2.0**-7, 1 + 2.0**-7])


def test_directions_add_up_before_a_point_is_rounded():
    params, direction = jnp.ones((), jnp.bfloat16), jnp.full((), 2.0**-9)
    found = landscape(lambda w, x: w + jnp.zeros_like(w), params, [jnp.ones(1)], [direction] * 2, coordinates=[0, 1.5])
    np.testing.assert_array_equal(np.asarray(found.loss), [[1, 1], [1, 1 + 2.0**-7]])


def test_batches_are_weighted_by_their_size(x64):
    params, (x, y) = small_params(), small_batches(1)[0]
    whole, parts = [(x, y)], iter([(x[:3], y[:3]), (x[3:], y[3:])])
    directions = random_directions(params, jax.random.key(0))
    one, other = (landscape(loss_fn, params, b, directions, coordinates=POINTS).loss for b in (whole, parts))
    np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("filter_axis", [-1, 0])
def test_scaling_a_layer_and_undoing_it_in_the_next_changes_no_landscape_of_filters(filter_axis, x64):
    keys = jax.random.split(jax.random.key(5), 4)
    params = {
        "one": jax.random.normal(keys[0], (3, 4)),
        "bias": jax.random.normal(keys[1], (4,)),
        "two": jax.random.normal(keys[2], (4, 2)),
    }
    scaled = {"one": 10 * params["one"], "bias": 10 * params["bias"], "two": params["two"] / 10}

    def relu_loss(params, x):
        return jnp.mean((jax.nn.relu(x @ params["one"] + params["bias"]) @ params["two"]) ** 2)

    def look(params, normalised):
        directions = random_directions(params, jax.random.key(0), filter_axis=filter_axis)
        if not normalised:
            directions = [jax.tree.map(lambda d: d / jnp.maximum(jnp.linalg.norm(d), 1e-9), d) for d in directions]
        return landscape(relu_loss, params, [jax.random.normal(keys[3], (5, 3))], directions, coordinates=POINTS).loss

    np.testing.assert_allclose(look(params, True), look(scaled, True), rtol=1e-10)
    assert np.abs(np.asarray(look(params, False) / look(scaled, False)) - 1).max() > 0.5


def test_nonfinite_losses_are_kept():
    def loss(params, batch):
        return jnp.mean(batch) * jnp.log(params) + jnp.where(params > 2.5, jnp.inf, 0.0)

    batches = [jnp.ones(2), jnp.ones(1)]
    found = landscape(loss, jnp.ones(()), batches, [jnp.ones(())], coordinates=[-2, 0, 1, 2])
    np.testing.assert_allclose(found.loss, [np.nan, 0, np.log(2), np.inf], rtol=1e-6)


def test_the_loss_is_traced_once_for_all_points_and_batches_of_one_shape():
    traced = []

    def loss(params, batch):
        traced.append(1)
        return jnp.mean(batch * params)

    landscape(loss, jnp.ones(()), [jnp.ones(2)] * 3, [jnp.ones(()), jnp.zeros(())], coordinates=POINTS)
    assert len(traced) == 1


@pytest.mark.parametrize("coordinates", [[], 1.0, [[0.0, 1.0]], [0.0, np.nan], [1.0, 0.0], [0.0, 0.0]])
def test_coordinates_that_do_not_increase_are_refused(coordinates):
    with pytest.raises(ValueError, match="coordinates is"):
        landscape(quadratic, jnp.ones(2), [jnp.eye(2)], [jnp.ones(2)], coordinates=coordinates)


def test_mismatched_arguments_are_refused():
    w, batch = jnp.ones(2), jnp.eye(2)
    with pytest.raises(ValueError, match=r"directions is of type .*Array.*: give a sequence of trees, such as"):
        landscape(quadratic, w, [batch], w)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="directions has 3 trees: give one or two"):
        landscape(quadratic, w, [batch], [w, w, w])
    with pytest.raises(ValueError, match=r"directions\[1\] has shape \(3,\) at ''"):
        landscape(quadratic, w, [batch], [w, jnp.ones(3)])
    with pytest.raises(ValueError, match="batches is empty"):
        landscape(quadratic, w, [], [w])
    with pytest.raises(ValueError, match=r"The loss of a batch is of shape \(2,\)"):
        landscape(lambda w, x: x @ w, w, [batch], [w])
    with pytest.raises(ValueError, match="no leaf with two"):
        landscape(quadratic, w, [batch])
    with pytest.raises(ValueError, match="dtype int32"):
        landscape(quadratic, jnp.ones(2, jnp.int32), [batch])


def test_the_loss_keeps_its_dtype(x64):
    def loss_fn(w, x):
        return 1 + 1e-12 * jnp.sum(w.astype(jnp.float64))

    found = landscape(loss_fn, jnp.ones(2, jnp.float32), [jnp.eye(2)], [jnp.ones(2, jnp.float32)], coordinates=[0, 1])
    np.testing.assert_allclose(found.loss - 1, [2e-12, 4e-12], rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_filters_whose_squares_leave_the_range_have_directions_of_their_length(scale):
    kernel = jnp.asarray(scale * np.arange(1, 7).reshape(3, 2), jnp.float32)
    (direction,) = random_directions(kernel, jax.random.key(0), number=1)
    lengths = [np.linalg.norm(np.asarray(each, np.float64), axis=0) for each in (direction, kernel)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_complex_directions_are_refused():
    with pytest.raises(ValueError, match=r"directions\[0\] has a leaf of dtype complex64"):
        landscape(quadratic, jnp.ones(2), [jnp.eye(2)], [jnp.ones(2) * 1j])
