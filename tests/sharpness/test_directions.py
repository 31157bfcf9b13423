"""Directions: random ones with the filter norms of the parameters, and those toward other parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_optax import trees
from sam_optax.sharpness.landscapes import random_directions, toward


def params(dtype=jnp.float32, scale=1.0):
    keys = jax.random.split(jax.random.key(1), 4)
    drawn = {
        "conv": {"kernel": jax.random.normal(keys[0], (3, 3, 2, 4)), "bias": jax.random.normal(keys[1], (4,))},
        "dense": {"kernel": scale * jax.random.normal(keys[2], (5, 3))},
        "scale": jax.random.normal(keys[3], ()),
    }
    return jax.tree.map(lambda x: x.astype(dtype), drawn)


def filters(leaf, axis):
    """One row a filter."""
    moved = np.moveaxis(np.asarray(leaf, np.float64), axis, 0)
    return moved.reshape(moved.shape[0], -1)


@pytest.mark.parametrize("filter_axis", [-1, 0, 1])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_filter_of_a_direction_is_as_long_as_that_of_the_parameters(filter_axis, dtype):
    weights = params(dtype)
    (direction,) = random_directions(weights, jax.random.key(0), 1, filter_axis=filter_axis)
    for name in ("conv", "dense"):
        ours, theirs = (filters(tree[name]["kernel"], filter_axis) for tree in (direction, weights))
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1), rtol=1e-5)
    assert {x.dtype for x in jax.tree.leaves(direction)} == {jnp.dtype(jnp.float32)}


def test_biases_and_scales_are_not_moved():
    for direction in random_directions(params(), jax.random.key(0)):
        np.testing.assert_array_equal(direction["conv"]["bias"], np.zeros(4))
        np.testing.assert_array_equal(direction["scale"], 0.0)


def test_directions_are_zero_for_filters_of_zeros():
    (direction,) = random_directions({"kernel": jnp.array([[0.0, 1.0], [0.0, 2.0]])}, jax.random.key(0), 1)
    np.testing.assert_array_equal(direction["kernel"][:, 0], np.zeros(2))
    chex.assert_tree_all_finite(direction)


def test_a_filter_for_which_zeros_are_drawn_is_finite(monkeypatch):
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    chex.assert_tree_all_finite(random_directions({"kernel": jnp.ones((1, 2))}, jax.random.key(0)))


def test_directions_are_gaussian_before_they_are_scaled():
    """For a long filter of ones they are nearly standard normal: mean 0, second moment 1, fourth moment 3."""
    (direction,) = random_directions({"kernel": jnp.ones((4096, 2))}, jax.random.key(0), 1)
    column = np.asarray(direction["kernel"][:, 0])
    np.testing.assert_allclose([column.mean(), (column**2).mean(), (column**4).mean()], [0, 1, 3], atol=0.3)


def test_directions_differ_from_one_another_and_depend_only_on_the_key():
    first, second, third = (x["dense"]["kernel"] for x in random_directions(params(), jax.random.key(0), 3))
    assert len({float(x[0, 0]) for x in (first, second, third)}) == 3
    again = random_directions(params(), jax.random.key(0), 3)[0]["dense"]["kernel"]
    np.testing.assert_array_equal(first, again)
    other = random_directions(params(), jax.random.key(1), 3)[0]["dense"]["kernel"]
    assert np.abs(np.asarray(first - other)).min() > 0
    alike = random_directions({"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4))}, jax.random.key(0), 1)[0]
    assert np.abs(np.asarray(alike["a"] - alike["b"])).max() > 0.1


def test_a_direction_scales_with_its_layer():
    one, other = (random_directions(params(scale=s), jax.random.key(0), 1)[0] for s in (1.0, 7.0))
    np.testing.assert_allclose(7 * one["dense"]["kernel"], other["dense"]["kernel"], rtol=1e-5)
    np.testing.assert_array_equal(one["conv"]["kernel"], other["conv"]["kernel"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_toward_is_the_difference_to_the_other_parameters(dtype):
    here, there = params(dtype), jax.tree.map(lambda x: 1.7 * x + 0.3, params(dtype))
    arrived = jax.tree.map(jnp.add, trees.widen(here), toward(here, there))
    chex.assert_trees_all_close(trees.cast_like(arrived, there), there, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_equal(toward(here, here), trees.zeros_like(trees.widen(here)))


def test_mismatched_arguments_are_refused():
    weights = params()
    with pytest.raises(ValueError, match=r"filter_axis is 2, and params has 2 axes at 'dense/kernel'"):
        random_directions(weights, jax.random.key(0), filter_axis=2)
    with pytest.raises(ValueError, match=r"filter_axis is -3, and params has 2 axes"):
        random_directions(weights, jax.random.key(0), filter_axis=-3)
    with pytest.raises(ValueError, match=r"filter_axis is 1\.0: give an integer"):
        random_directions(weights, jax.random.key(0), filter_axis=1.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="number is 0"):
        random_directions(weights, jax.random.key(0), 0)
    with pytest.raises(ValueError, match="dtype int32"):
        random_directions({"kernel": jnp.ones((2, 2), jnp.int32)}, jax.random.key(0))
    with pytest.raises(ValueError, match="other does not have the structure of params"):
        toward(weights, weights["conv"])
    with pytest.raises(ValueError, match=r"other has shape \(3,\) at ''"):
        toward(jnp.ones(2), jnp.ones(3))
