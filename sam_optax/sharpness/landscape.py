"""The landscape of the loss: its values on a line or a grid through the parameters."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import trees
from sam_optax.sharpness import batches as batches_of
from sam_optax.sharpness import losses
from sam_optax.sharpness.directions import random_directions
from sam_optax.typing import Params, Updates


class Landscape(NamedTuple):
    """The loss around the parameters.

    Attributes:
      coordinates: the steps along each direction, `(points,)`; 0 is at the parameters.
      loss: the mean loss there, `(points,)` along one direction, or `(points, points)`, indexed [first, second].
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
    key: jax.Array | None = None,
) -> Landscape:
    """The loss along one direction, `L(w + a d)`, or in the plane of two, `L(w + a d₁ + b d₂)`.

    L is the mean over all batches, weighted by their size. It takes one forward pass a point and a batch, 441 a batch
    by default, and a copy of the parameters beside the directions. Losses that are not finite are kept: far out there
    may be some.

    Along `random_directions` of one key, which are scaled filter by filter, two networks can be compared: scaling a
    layer and undoing it in the next one changes nothing then. A random plane misses the few sharp directions of a
    minimum, though: those are in `eigenpairs`.

    From "Visualizing the Loss Landscape of Neural Nets" (Li et al., 2018, https://arxiv.org/abs/1712.09913).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch, with BatchNorm in inference mode.
      params: where the landscape is centred; any pytree of real floating arrays.
      batches: pytrees of arrays, whose leading axis counts the examples.
      directions: one or two trees like the parameters, as `random_directions(params, key)`, `[toward(params, other)]`
        or two vectors of `eigenpairs`. None: two random ones from `key`, for kernels of the layout (…, in, out).
      coordinates: the steps along each direction, in units of it: increasing numbers, `(points,)`. None: 21 from -1 to
        1.
      key: of the random directions; None is `jax.random.key(0)`.

    Returns:
      A `Landscape`, for `sam_optax.sharpness.plots.plot_landscape`.

    Raises:
      ValueError: If `directions` is not one or two trees like the parameters, if `coordinates` are no increasing finite
        numbers, if `batches` holds no batch, or if `loss_fn` returns no scalar.

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
    trees.check_real(params)
    if directions is None:
        directions = random_directions(params, jax.random.key(0) if key is None else key)
    _check_directions(directions, params)
    points = _as_coordinates(np.linspace(-1, 1, 21) if coordinates is None else coordinates)
    collected = batches_of.collect(batches)
    grids = [_of_batch(loss_fn, params, tuple(directions), points, batch) for batch in collected]
    return Landscape(points, batches_of.mean(grids, collected))


def _of_batch(
    loss_fn: Callable[..., Any], params: Params, directions: tuple[Updates, ...], points: np.ndarray, batch: Any
) -> jax.Array:
    """The losses of one batch, filled in point by point; nothing is waited for."""
    grid = jnp.zeros((len(points),) * len(directions), trees.accumulator_dtype(params))
    for index in itertools.product(range(len(points)), repeat=len(directions)):
        grid = _fill_in(loss_fn, grid, index, (params, directions, points[list(index)]), batch)
    return grid


@functools.partial(jax.jit, static_argnums=0)
def _fill_in(
    loss_fn: Callable[..., Any], grid: jax.Array, index: tuple[Any, ...], point: tuple[Any, ...], batch: Any
) -> jax.Array:
    """`grid` with the loss at one of its points, which is given as what `_moved` takes."""
    return grid.at[index].set(losses.value(loss_fn, _moved(*point), batch).astype(grid.dtype))


def _moved(params: Params, directions: tuple[Updates, ...], steps: jax.Array) -> Params:
    """`w + Σ a_i d_i`, rounded once to the dtypes of the parameters."""
    steps = jnp.asarray(steps, trees.accumulator_dtype(params))  # what they are multiplied with is as wide

    def move(x: Any, *along: Any) -> jax.Array:
        return sum((a * d for a, d in zip(steps, along, strict=True)), start=jnp.asarray(x))

    return trees.cast_like(jax.tree.map(move, params, *directions), params)


def _check_directions(directions: Any, params: Params) -> None:
    if not isinstance(directions, Sequence):
        raise ValueError(f"directions is of type {type(directions).__name__}: give a sequence of trees, [direction].")
    if len(directions) not in (1, 2):
        raise ValueError(f"directions has {len(directions)} trees: give one or two.")
    for i, direction in enumerate(directions):
        trees.check_alike(f"directions[{i}]", direction, params, "give trees like params, one or two in a sequence.")


def _as_coordinates(coordinates: Any) -> np.ndarray:
    points = np.asarray(coordinates, float)
    if points.ndim != 1 or not points.size or not np.isfinite(points).all() or (np.diff(points) <= 0).any():
        raise ValueError(f"coordinates is {coordinates!r}: give finite, increasing numbers along one axis.")
    return points
