"""Directions for landscapes: random ones, scaled filter by filter, and those to other parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, trees
from sam_optax.sharpness import partition
from sam_optax.sharpness.partition import Subset
from sam_optax.typing import Mask, Params, Updates


def random_directions(
    params: Params, key: jax.Array, number: int = 2, *, filter_axis: int = -1, mask: Mask | None = None
) -> tuple[Updates, ...]:
    """Filter-normalised Gaussian directions: each filter has the norm of that of the parameters, `d_f ‖w_f‖ / ‖d_f‖`.

    A filter is a slice along `filter_axis`: all weights that lead to one output. A step along a direction then has the
    same relative size in every filter. Scaling a layer of a ReLU network and undoing it in the next layer does not
    change the function, and does not change the landscape along the directions of one key either. Biases and the
    scales of normalisation layers do not move.

    From "Visualizing the Loss Landscape of Neural Nets" (Li et al., 2018, https://arxiv.org/abs/1712.09913).

    Args:
      params: any pytree of arrays. Leaves with fewer than two axes get zeros.
      key: draws the directions.
      number: the number of directions.
      filter_axis: the axis along which the filters of a leaf are counted: -1 for the layout of Flax and Haiku,
        (…, in, out), 0 for that of Equinox and PyTorch, (out, in, …).
      mask: the leaves that get a direction: a tree of bools, or a function from the parameters to one; None is all.
        They must be real floating arrays. The others may have any dtype, and get zeros.

    Returns:
      Trees like the parameters, in the accumulator's dtype (float32 or wider).

    Raises:
      ValueError: If `number` is not a positive integer, if no leaf of the mask has two axes, if one that has at least
        two has no axis `filter_axis`, or if `mask` does not fit or chooses no leaf or one that is not real floating.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
      >>> (direction,) = sharpness.random_directions(params, jax.random.key(0), number=1)
      >>> print(jnp.linalg.norm(direction["kernel"], axis=0).round(4), direction["bias"])
      [5. 2.] [0. 0.]
    """
    parts = partition.create(mask, params)
    hyperparameters.check_count("number", number, "how many directions to draw")
    _check_filter_axis(filter_axis, params, parts.subset)
    if all(jnp.ndim(x) < 2 for x in parts.moved):
        raise ValueError(
            "params has no leaf of two axes or more within the mask, and so no filters: give directions of your own."
        )
    weights = trees.widen(parts.moved)

    def draw(of_direction: jax.Array) -> Updates:
        noise = optax.tree.random_like(of_direction, weights, jax.random.normal)
        return parts.expand(jax.tree.map(lambda d, w: _normalise(d, w, filter_axis), noise, weights))

    return tuple(draw(of_direction) for of_direction in jax.random.split(key, number))


def toward(params: Params, other: Params, *, mask: Mask | None = None) -> Updates:
    """The direction `other − params`: along it, `params` is at 0 and `other` is at 1.

    Args:
      params: the centre of a landscape.
      other: parameters of the same structure and shapes, such as those that another optimizer found.
      mask: the leaves that go to `other`: a tree of bools, or a function from the parameters to one; None is all. They
        must be real floating arrays. The others may have any dtype, and get zeros: they keep their values in `params`.

    Returns:
      A tree like the parameters, in the accumulator's dtype, since a direction of fewer bits would miss `other`.

    Raises:
      ValueError: If the two trees differ in structure or shapes, or if `mask` does not fit or chooses no leaf or one
        that is not real floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> print(sharpness.toward(jnp.array([1.0, 2.0]), jnp.array([3.0, 2.0])))
      [2. 0.]
    """
    parts = partition.create(mask, params)
    trees.check_alike("other", other, params, "give parameters of the same network.")
    partition.check_leaves("other", other, parts.subset)
    there, _ = parts.subset.split(other)
    dtype = trees.accumulator_dtype(parts.moved, there)
    return parts.expand(jax.tree.map(lambda x, y: jnp.asarray(y, dtype) - jnp.asarray(x, dtype), parts.moved, there))


def _normalise(direction: jax.Array, weights: jax.Array, filter_axis: int) -> jax.Array:
    """Each filter of `direction`, scaled to the norm of that of `weights`; zeros for a leaf without filters."""
    if weights.ndim < 2:
        return jnp.zeros_like(direction)
    wanted, length = _filter_norms(weights, filter_axis), _filter_norms(direction, filter_axis)
    return direction * (wanted / jnp.where(length > 0, length, 1))


def _filter_norms(leaf: jax.Array, filter_axis: int) -> jax.Array:
    others = tuple(axis for axis in range(leaf.ndim) if axis != filter_axis % leaf.ndim)
    return jnp.sqrt(jnp.sum(jnp.square(leaf), axis=others, keepdims=True))


def _check_filter_axis(filter_axis: Any, params: Params, subset: Subset) -> None:
    if not isinstance(filter_axis, int) or isinstance(filter_axis, bool):
        raise ValueError(f"filter_axis is {filter_axis!r}: give an integer, -1 for (…, in, out) or 0 for (out, in, …).")
    paths, _ = subset.split(trees.leaf_paths(params))
    for path, leaf in zip(paths, subset.split(params)[0], strict=True):
        axes = jnp.ndim(leaf)
        if axes >= 2 and not -axes <= filter_axis < axes:
            raise ValueError(
                f"filter_axis is {filter_axis!r}, and params has {axes} axes at '{path}': give an axis that every "
                "leaf of two axes or more has, such as -1 for (…, in, out) or 0 for (out, in, …)."
            )
