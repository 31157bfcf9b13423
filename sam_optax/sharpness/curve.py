"""Sharpness over radii: what one radius cannot say."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sam_optax import hyperparameters, trees
from sam_optax.sharpness import balls, losses
from sam_optax.sharpness import batches as batches_of
from sam_optax.sharpness.balls import Ball
from sam_optax.sharpness.worst_case import WorstCase, worst_case
from sam_optax.typing import Mask, Params

_ROUNDINGS = 16  # of the loss: a rise below them is none
_DEFAULT_GRID = tuple(
    2e-6 * 10 ** (k / 2) for k in range(9)
)  # up to 0.02; the one in the middle is the paper's, 0.0002


class Curve(NamedTuple):
    """Worst-case sharpness over radii; NumPy arrays of `(radii,)` where nothing else is said.

    Attributes:
      rho: the radii, in increasing order.
      sharpness: `S(ρ)`, the mean over the batches, weighted by size.
      first_order: the part of it that the gradient explains, `ρ‖∇L‖₁` for ℓ∞ and `ρ‖∇L‖₂` for ℓ2, likewise.
      slope: `d log S / d log ρ`: 1 where the gradient makes the sharpness, 2 where the curvature does; NaN where the
        sharpness is below the loss's rounding, and of a single radius.
      error: what `error_fn` says at the maximisers, likewise; None without it.
      loss: the unperturbed loss.
      num_parameters: how many parameters `d` are perturbed: the corner of the ℓ∞ ball lies at `ρ√d`.
      norm: `linf` or `l2`.
    """

    rho: np.ndarray
    sharpness: np.ndarray
    first_order: np.ndarray
    slope: np.ndarray
    error: np.ndarray | None
    loss: float
    num_parameters: int
    norm: str


def curve(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    rhos: Sequence[float] | None = None,
    norm: str = "linf",
    adaptive: bool = False,
    steps: int = 20,
    restarts: int = 1,
    random_start: bool = False,
    mask: Mask | None = None,
    key: jax.Array | None = None,
    error_fn: Callable[..., Any] | None = None,
) -> Curve:
    """The worst-case sharpness `S(ρ)` over a grid of radii, beside its first-order part and its local slope.

    At a small radius sharpness is the gradient's norm, and follows the training loss; at a large one it is that of a
    network which is no better than chance. Networks may be ordered one way at one radius and the other way at another,
    and at one `ρ` the ℓ∞ balls of networks of different size are of different length, `ρ√d`. So the curve is the
    honest figure. What is scaled with the logits is scaled with the sharpness: `normalize_logits` in `loss_fn` takes
    that away. Sweeps of ρ are in "A modern look at the relationship between sharpness and generalization"
    (Andriushchenko et al., 2023, https://arxiv.org/abs/2302.07011).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch.
      params: where the sharpness is measured.
      batches: pytrees of arrays, whose leading axis counts the examples.
      rhos: the radii, positive; None is nine of them from 2e-6 to 2e-2, half a decade apart, and √d times those for
        ℓ2.
      norm: `linf` or `l2`.
      adaptive: whether each weight is its own unit.
      steps: iterations of an ascent.
      restarts: ascents a batch; from the second on they start at random.
      random_start: whether the first one starts at random, too.
      mask: the leaves to perturb.
      key: of all that is random; None is `jax.random.key(0)`.
      error_fn: `error_fn(params, batch)` → scalar, the mean over the batch: the fraction that is classified wrongly.

    Returns:
      A `Curve`.

    Raises:
      ValueError: If `rhos` is empty or holds a number that is not positive, if it is called inside `jax.jit`, or as
        `worst_case` does.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)
      >>> found = sharpness.curve(loss_fn, jnp.array([1.0, 0.0]), [jnp.eye(2)], rhos=(1e-3, 1e-2, 1e3, 1e4))
      >>> print(found.slope.round(2))  # from the gradient's to the curvature's
      [1.   1.09 1.92 2.  ]
    """
    if error_fn is not None:
        losses.check("error_fn", error_fn)
    collected = batches_of.collect(batches)
    if any(isinstance(x, Tracer) for x in jax.tree.leaves((params, collected, jnp.zeros(())))):
        raise ValueError("params or batches are traced: a curve ends in NumPy arrays, so call it outside of jax.jit.")
    num_parameters = _count(balls.create(norm, adaptive, mask, params), params)
    radii = _radii(rhos, norm, num_parameters)
    options: dict[str, Any] = {"norm": norm, "adaptive": adaptive, "mask": mask, "steps": steps}
    options |= {"restarts": restarts, "random_start": random_start, "key": key}
    measure = functools.partial(worst_case, loss_fn, params, collected, **options)
    found, errors = [], []
    for rho in radii:
        at_radius = measure(rho=float(rho), keep_perturbations=error_fn is not None)
        errors += [] if error_fn is None else [_error(error_fn, params, collected, at_radius)]
        found.append(at_radius._replace(perturbations=None))  # a copy of the parameters a batch
    sharpness, first_order = (
        np.asarray([getattr(each, name) for each in found]) for name in ("sharpness", "first_order")
    )
    return Curve(
        rho=radii,
        sharpness=sharpness,
        first_order=first_order,
        slope=_slope(radii, sharpness, float(found[0].loss)),
        error=np.asarray(errors) if errors else None,
        loss=float(found[0].loss),
        num_parameters=num_parameters,
        norm=norm,
    )


def _count(ball: Ball, params: Params) -> int:
    """How many parameters the ball moves."""
    sizes = [math.prod(jnp.shape(x)) for x in jax.tree.leaves(params)]
    return sum(size for size, is_in in zip(sizes, ball.chosen, strict=True) if is_in)


def _radii(rhos: Sequence[float] | None, norm: str, num_parameters: int) -> np.ndarray:
    if rhos is None:
        return np.asarray(_DEFAULT_GRID) * (math.sqrt(num_parameters) if norm == "l2" else 1.0)
    radii = np.sort(np.atleast_1d(np.asarray(rhos, np.float64)))
    for rho in radii:
        hyperparameters.check_nonnegative_number("rhos", float(rho))
    if not len(radii) or radii[0] == 0 or len(np.unique(radii)) < len(radii):
        raise ValueError(f"rhos is {tuple(map(float, radii))}: give at least one radius, each positive and once.")
    return radii


def _slope(radii: np.ndarray, sharpness: np.ndarray, loss: float) -> np.ndarray:
    """`d log S / d log ρ`, by central differences, and one-sided ones at the ends; NaN where `S` is rounding."""
    if len(radii) == 1:
        return np.full(1, np.nan)
    rounding = _ROUNDINGS * np.finfo(sharpness.dtype).eps * abs(loss)
    logarithm = np.log(sharpness, out=np.full(len(radii), np.nan), where=sharpness > rounding)
    return np.gradient(logarithm, np.log(radii))


def _error(error_fn: Callable[..., Any], params: Params, collected: tuple[Any, ...], found: WorstCase) -> float:
    """The error at the maximiser of each batch, on that batch."""
    wide = trees.widen(params)
    errors = [
        losses.value(error_fn, trees.cast_like(jax.tree.map(jnp.add, wide, offset), params), batch)
        for offset, batch in zip(found.perturbations or (), collected, strict=True)
    ]
    return float(batches_of.mean(errors, collected))
