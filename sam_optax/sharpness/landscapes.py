"""Loss landscapes: the loss on a line or a grid through the parameters, and the directions of such lines and grids.

A direction is either random, with its filters scaled to the norms of the parameters' filters, or leads to other
parameters.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_optax import hyperparameters, trees
from sam_optax.sharpness import losses, partition
from sam_optax.sharpness.partition import Leaves, Partition, Subset
from sam_optax.typing import Mask, Params, Updates


def random_directions(
    params: Params, key: jax.Array, number: int = 2, *, filter_axis: int = -1, mask: Mask | None = None
) -> tuple[Updates, ...]:
    """Filter-normalised Gaussian directions: each filter has the norm of the parameters' filter, `d_f ‖w_f‖ / ‖d_f‖`.

    A filter is a slice along `filter_axis`: all weights that lead to one output. A step along a direction then has the
    same relative size in every filter. Scaling a layer of a ReLU network and undoing it in the next layer does not
    change the function. It does not change the landscape along directions that are drawn with the same key either.
    Biases and the scales of normalisation layers do not move.

    The method is from "Visualizing the Loss Landscape of Neural Nets" (Li et al., 2018,
    https://arxiv.org/abs/1712.09913).

    Args:
      params: any pytree of arrays. Leaves with fewer than two axes get zeros.
      key: draws the directions.
      number: the number of directions.
      filter_axis: the axis along which the filters of a leaf are counted: -1 for the layout of Flax and Haiku,
        (…, in, out), 0 for that of Equinox and PyTorch, (out, in, …).
      mask: the leaves that get a direction: a tree of bools, or a function from the parameters to one; None means all
        leaves. They must be real floating arrays. The others may have any dtype, and get zeros.

    Returns:
      Trees like the parameters, in the accumulator's dtype (float32 or wider).

    Raises:
      ValueError: If `number` is not a positive integer, if no selected leaf has two or more axes, if a selected leaf
        with two or more axes has no axis `filter_axis`, if `mask` does not match the parameters, or if it selects no
        leaf or a leaf that is not a real floating-point array.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
      >>> (direction,) = sharpness.random_directions(params, jax.random.key(0), number=1)
      >>> print(jnp.linalg.norm(direction["kernel"], axis=0).round(4), direction["bias"])
      [5. 2.] [0. 0.]
    """
    parts = partition.create(mask, params)
    hyperparameters.check_count("number", number, "the number of directions to draw")
    _check_filter_axis(filter_axis, params, parts.subset)
    if all(jnp.ndim(x) < 2 for x in parts.moved):
        raise ValueError(
            "params has no leaf with two or more axes inside the mask, so it has no filters: give your own directions."
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
      mask: the leaves that move to `other`: a tree of bools, or a function from the parameters to one; None means all
        leaves. They must be real floating arrays. The others may have any dtype, and get zeros: they keep their values
        in `params`.

    Returns:
      A tree like the parameters, in the accumulator's dtype, because a direction in a narrower dtype would not lead
      exactly to `other`.

    Raises:
      ValueError: If the two trees differ in structure or shapes, if `mask` does not match the parameters, or if it
        selects no leaf or a leaf that is not a real floating-point array.

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
    """Scales each filter of `direction` to the norm of that filter of `weights`; zeros for a leaf without filters."""
    if weights.ndim < 2:
        return jnp.zeros_like(direction)
    wanted, length = _filter_norms(weights, filter_axis), _filter_norms(direction, filter_axis)
    return direction / jnp.where(length > 0, length, 1) * wanted


def _filter_norms(leaf: jax.Array, filter_axis: int) -> jax.Array:
    others = tuple(axis for axis in range(leaf.ndim) if axis != filter_axis % leaf.ndim)
    largest = jnp.max(jnp.abs(leaf), axis=others, keepdims=True)  # the squares of the scaled entries are in range
    scaled = leaf / jnp.where(largest > 0, largest, 1)
    return largest * jnp.sqrt(jnp.sum(jnp.square(scaled), axis=others, keepdims=True))


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


class Landscape(NamedTuple):
    """The loss around the parameters.

    Attributes:
      coordinates: the steps along each direction, `(points,)`; 0 is at the parameters.
      loss: the mean loss at these points, `(points,)` along one direction, or `(points, points)`, indexed
        [first, second].
    """

    coordinates: np.ndarray
    loss: jax.Array


def landscape(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    directions: Sequence[Updates] | None = None,
    *,
    coordinates: Any = None,
    mask: Mask | None = None,
    key: jax.Array | None = None,
) -> Landscape:
    """The loss along one direction, `L(w + a d)`, or in the plane of two, `L(w + a d₁ + b d₂)`.

    L is the mean over all batches, weighted by their size. The cost is one forward pass for each point and batch, by
    default 441 for each batch, and the memory of the directions plus a copy of the parameters. Losses that are not
    finite are kept: there may be some far from the parameters.

    Two networks can be compared along `random_directions` drawn with the same key. These are scaled filter by filter,
    so scaling a layer and undoing it in the next layer does not change the landscape. A random plane misses the few
    sharp directions of a minimum, though: `eigenpairs` finds those.

    The method is from "Visualizing the Loss Landscape of Neural Nets" (Li et al., 2018,
    https://arxiv.org/abs/1712.09913).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch, with BatchNorm in inference mode. It is
        compiled and reused by later calls, so the values that it closes over must not change.
      params: the centre of the landscape; any pytree of arrays.
      batches: pytrees of arrays, with the examples along the leading axis.
      directions: one or two trees like the parameters, such as `random_directions(params, key)`, `[toward(params,
        other)]` or two vectors of `eigenpairs`. Their entries outside of `mask` are ignored. None means two random
        directions drawn with `key`, for kernels in the layout (…, in, out).
      coordinates: the steps along each direction, in units of it: increasing numbers, `(points,)`. None means 21 evenly
        spaced numbers from -1 to 1.
      mask: the leaves that move: a tree of bools, or a function from the parameters to one; None means all leaves. They
        must be real floating arrays. The others may have any dtype, and `loss_fn` gets them as they are.
      key: draws the random directions; None means `jax.random.key(0)`.

    Returns:
      A `Landscape`, for `sam_optax.sharpness.plots.plot_landscape`.

    Raises:
      ValueError: If `directions` is not one or two trees like the parameters, if `coordinates` are not increasing
        finite numbers, if `mask` does not match the parameters, if it selects no leaf or a leaf that is not a real
        floating-point array, if `batches` is empty, or if `loss_fn` does not return a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)
      >>> w, directions = jnp.zeros(2), [jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])]
      >>> found = sharpness.landscape(loss_fn, w, [jnp.eye(2)], directions, coordinates=[-1, 0, 1])
      >>> print(found.loss)
      [[1.25 0.25 1.25]
       [1.   0.   1.  ]
       [1.25 0.25 1.25]]
    """
    losses.check("loss_fn", loss_fn)
    parts = partition.create(mask, params)
    if directions is None:
        directions = random_directions(params, jax.random.key(0) if key is None else key, mask=mask)
    _check_directions(directions, params, parts.subset)
    along = tuple(parts.subset.split(direction)[0] for direction in directions)
    points = _as_coordinates(np.linspace(-1, 1, 21) if coordinates is None else coordinates)
    collected = losses.collect_batches(batches)
    grids = [_of_batch(loss_fn, parts, along, points, batch) for batch in collected]
    return Landscape(points, losses.weighted_mean(grids, collected))


def _of_batch(
    loss_fn: Callable[..., Any], parts: Partition, along: tuple[Leaves, ...], points: np.ndarray, batch: Any
) -> jax.Array:
    """The losses of one batch, computed point by point without waiting for each result."""
    restricted, arguments = parts.restrict(loss_fn), parts.arguments(batch)
    steps = itertools.product(points, repeat=len(along))
    found = [_loss_at(restricted, (parts.moved, along, np.asarray(each)), arguments) for each in steps]
    return jnp.stack(found).reshape((len(points),) * len(along))


@functools.partial(jax.jit, static_argnums=0)
def _loss_at(loss_fn: Callable[..., Any], point: tuple[Any, ...], batch: Any) -> jax.Array:
    """The loss at a point, which the arguments of `_moved` determine."""
    return losses.value(loss_fn, _moved(*point), batch)


def _moved(params: Leaves, directions: tuple[Leaves, ...], steps: jax.Array) -> Params:
    """`w + Σ a_i d_i`, rounded once to the dtypes of the parameters."""
    steps = jnp.asarray(steps, trees.accumulator_dtype(params))  # the products are at least as wide

    def move(x: Any, *along: Any) -> jax.Array:
        dtype = trees.accumulator_dtype((steps, x, along))
        terms = (a.astype(dtype) * jnp.asarray(d, dtype) for a, d in zip(steps, along, strict=True))
        return sum(terms, start=jnp.asarray(x, dtype))

    return trees.cast_like(jax.tree.map(move, params, *directions), params)


def _check_directions(directions: Any, params: Params, subset: Subset) -> None:
    if not isinstance(directions, Sequence):
        raise ValueError(
            f"directions is of type {type(directions).__name__}: give a sequence of trees, such as [direction]."
        )
    if len(directions) not in (1, 2):
        raise ValueError(f"directions has {len(directions)} trees: give one or two.")
    for i, direction in enumerate(directions):
        trees.check_alike(f"directions[{i}]", direction, params, "give trees like params, one or two in a sequence.")
        partition.check_leaves(f"directions[{i}]", direction, subset)


def _as_coordinates(coordinates: Any) -> np.ndarray:
    points = np.asarray(coordinates, float)
    if points.ndim != 1 or not points.size or not np.isfinite(points).all() or (np.diff(points) <= 0).any():
        raise ValueError(f"coordinates is {coordinates!r}: give finite, increasing numbers along one axis.")
    return points
