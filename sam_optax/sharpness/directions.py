"""Directions to look along from the parameters: random ones, scaled filter by filter, and those to other parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, trees
from sam_optax.typing import Params, Updates


def random_directions(params: Params, key: jax.Array, number: int = 2, *, filter_axis: int = -1) -> tuple[Updates, ...]:
    """Filter-normalised Gaussian directions: each filter is as long as that of the parameters, `d_f ‖w_f‖ / ‖d_f‖`.

    A filter is a slice along `filter_axis`: all weights that lead to one output. One step along a direction is then of
    the same relative size in every filter: scaling a layer and undoing it in the next one, which leaves a ReLU network
    the same function, leaves the landscape along the directions of one key the same, too. Biases and the scales of
    normalisation layers stay where they are.

    From "Visualizing the Loss Landscape of Neural Nets" (Li et al., 2018, https://arxiv.org/abs/1712.09913).

    Args:
      params: any pytree of real floating arrays. Leaves with fewer than two axes get zeros.
      key: what the directions are drawn from; each has a key of its own.
      number: of directions.
      filter_axis: the axis that counts the filters of a leaf: -1 for the layout of Flax and Haiku, (…, in, out), 0
        for that of Equinox and PyTorch, (out, in, …).

    Returns:
      Trees like the parameters, in the accumulator's dtype (float32 or wider).

    Raises:
      ValueError: If `number` is no positive integer, if no leaf has two axes, or if one that has has no axis
        `filter_axis`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
      >>> (direction,) = sharpness.random_directions(params, jax.random.key(0), number=1)
      >>> print(jnp.linalg.norm(direction["kernel"], axis=0).round(4), direction["bias"])
      [5. 2.] [0. 0.]
    """
    trees.check_real(params)
    hyperparameters.check_count("number", number, "how many directions to draw")
    _check_filter_axis(filter_axis, params)
    if all(jnp.ndim(x) < 2 for x in jax.tree.leaves(params)):
        raise ValueError("params has no leaf of two axes or more, and so no filters: give directions of your own.")
    weights = trees.widen(params)

    def draw(of_direction: jax.Array) -> Updates:
        noise = optax.tree.random_like(of_direction, weights, jax.random.normal)
        return jax.tree.map(lambda d, w: _normalise(d, w, filter_axis), noise, weights)

    return tuple(draw(of_direction) for of_direction in jax.random.split(key, number))


def toward(params: Params, other: Params) -> Updates:
    """The direction `other − params`: along it the parameters are at 0, and `other` is at 1.

    Args:
      params: where a landscape is centred.
      other: parameters of the same structure and shapes, as those that another optimizer found.

    Returns:
      A tree like the parameters, in the accumulator's dtype: rounded to fewer bits it would miss `other`.

    Raises:
      ValueError: If the two are not alike.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> print(sharpness.toward(jnp.array([1.0, 2.0]), jnp.array([3.0, 2.0])))
      [2. 0.]
    """
    trees.check_real(params)
    trees.check_alike("other", other, params, "give parameters of the same network.")
    trees.check_real(other)
    dtype = trees.accumulator_dtype(params, other)
    return jax.tree.map(lambda x, y: jnp.asarray(y, dtype) - jnp.asarray(x, dtype), params, other)


def _normalise(direction: jax.Array, weights: jax.Array, filter_axis: int) -> jax.Array:
    """Each filter of `direction`, scaled to the norm of that of `weights`; zeros where a leaf has no filters."""
    if weights.ndim < 2:
        return jnp.zeros_like(direction)
    wanted, length = _filter_norms(weights, filter_axis), _filter_norms(direction, filter_axis)
    return direction * (wanted / jnp.where(length > 0, length, 1))


def _filter_norms(leaf: jax.Array, filter_axis: int) -> jax.Array:
    others = tuple(axis for axis in range(leaf.ndim) if axis != filter_axis % leaf.ndim)
    return jnp.sqrt(jnp.sum(jnp.square(leaf), axis=others, keepdims=True))


def _check_filter_axis(filter_axis: Any, params: Params) -> None:
    if not isinstance(filter_axis, int) or isinstance(filter_axis, bool):
        raise ValueError(f"filter_axis is {filter_axis!r}: give an integer, -1 for (…, in, out) or 0 for (out, in, …).")
    for path, leaf in zip(trees.leaf_paths(params), jax.tree.leaves(params), strict=True):
        axes = jnp.ndim(leaf)
        if axes >= 2 and not -axes <= filter_axis < axes:
            raise ValueError(
                f"filter_axis is {filter_axis!r}, and params has {axes} axes at '{path}': give an axis that every "
                "leaf of two axes or more has, as -1 for (…, in, out) or 0 for (out, in, …)."
            )
