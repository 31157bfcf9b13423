"""Worst-case sharpness over radii."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import hyperparameters, trees
from sam_optax.sharpness import losses, partition
from sam_optax.sharpness.partition import Partition
from sam_optax.sharpness.worst_cases import WorstCase, worst_case
from sam_optax.typing import Mask, Params

_ROUNDINGS = 16  # a rise below this many roundings of the loss does not count
_DEFAULT_GRID = tuple(2e-6 * 10 ** (k / 2) for k in range(9))  # up to 0.02, with the paper's 0.0002 in the middle


class Curve(NamedTuple):
    """Worst-case sharpness over radii, as NumPy arrays `(radii,)` unless noted otherwise.

    Attributes:
      rho: the radii, in increasing order.
      sharpness: `S(ρ)`, the mean over the batches, weighted by size.
      first_order: the first-order part of it, `ρ‖∇L‖₁` for ℓ∞ and `ρ‖∇L‖₂` for ℓ2, likewise.
      slope: `d log S / d log ρ`: 1 where the gradient dominates the sharpness, 2 where the curvature does; NaN where
        the sharpness is below the rounding of the loss, and for a single radius.
      error: the mean of `error_fn` at the maximisers, likewise; None without `error_fn`.
      loss: the unperturbed loss, a float.
      num_parameters: the number of parameters `d` that are perturbed: the corner of the ℓ∞ ball lies at `ρ√d`.
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
    """The worst-case sharpness `S(ρ)` over a grid of radii, with its first-order part and its local slope.

    At a small radius the sharpness is the norm of the gradient, and follows the training loss; at a large one the
    perturbed network is no better than chance. The order of two networks may differ between radii. At the same `ρ`, the
    ℓ∞ balls of networks of different size have corners at different distances, `ρ√d`. So compare curves and not single
    values. The sharpness grows with the scale of the logits; `normalize_logits` in `loss_fn` removes this effect. "A
    modern look at the relationship between sharpness and generalization" (Andriushchenko et al., 2023,
    https://arxiv.org/abs/2302.07011) has sweeps of ρ.

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch. It is
        compiled and reused by later calls, so the values that it closes over must not change.
      params: the point where the sharpness is measured; any pytree of arrays.
      batches: pytrees of arrays, with the examples along the leading axis.
      rhos: the radii, positive; None: nine radii from 2e-6 to 2e-2, half a decade apart, multiplied by √d for ℓ2.
      norm: `linf` or `l2`.
      adaptive: whether each weight is its own unit.
      steps: the number of iterations of an ascent.
      restarts: the number of ascents for each batch; all but the first start at random.
      random_start: whether the first one starts at random, too.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one; None is all. They must be
        real floating arrays. The others may have any dtype, and `loss_fn` gets them as they are.
      key: draws all random numbers; None is `jax.random.key(0)`.
      error_fn: `error_fn(params, batch)` → scalar, the mean over the batch, such as the fraction of examples that are
        misclassified.

    Returns:
      A `Curve`.

    Raises:
      ValueError: If `rhos` is empty or has a number that is not positive, if it is called inside `jax.jit`, or as
        `worst_case`.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)
      >>> found = sharpness.curve(loss_fn, jnp.array([1.0, 0.0]), [jnp.eye(2)], rhos=(1e-3, 1e-2, 1e3, 1e4))
      >>> print(found.slope.round(2))  # first the gradient dominates, then the curvature
      [1.   1.09 1.92 2.  ]
    """
    if error_fn is not None:
        losses.check("error_fn", error_fn)
    collected = losses.collect_batches(batches)
    if trees.is_traced((params, collected, jnp.zeros(()))):
        raise ValueError("params or batches are traced: a curve has NumPy arrays, so call it outside of jax.jit.")
    parts = partition.create(mask, params)
    num_parameters = sum(math.prod(jnp.shape(x)) for x in parts.moved)
    radii = _radii(rhos, norm, num_parameters)
    options: dict[str, Any] = {"norm": norm, "adaptive": adaptive, "mask": mask, "steps": steps}
    options |= {"restarts": restarts, "random_start": random_start, "key": key}
    measure = functools.partial(worst_case, loss_fn, params, collected, **options)
    found, errors = [], []
    for rho in radii:
        at_radius = measure(rho=float(rho), keep_perturbations=error_fn is not None)
        errors += [] if error_fn is None else [_error(error_fn, parts, collected, at_radius)]
        found.append(at_radius._replace(perturbations=None))  # frees a copy of the parameters for each batch
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
    """`d log S / d log ρ`, by central differences, and one-sided ones next to an end and where `S` is only rounding.

    It is NaN where `S` is only rounding, and at a radius without a neighbour.
    """
    slope, is_known = np.full(len(radii), np.nan), sharpness > _ROUNDINGS * np.finfo(sharpness.dtype).eps * abs(loss)
    known = np.flatnonzero(is_known)
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if len(run) > 1:
            slope[run] = np.gradient(np.log(sharpness[run]), np.log(radii[run]))
    return slope


def _error(error_fn: Callable[..., Any], parts: Partition, collected: tuple[Any, ...], found: WorstCase) -> float:
    """The mean error over the batches, each at its own maximiser."""
    wide, errors = trees.widen(parts.moved), []
    for perturbation, batch in zip(found.perturbations or (), collected, strict=True):
        offset, _ = parts.subset.split(perturbation)
        point = trees.cast_like(jax.tree.map(jnp.add, wide, offset), parts.moved)
        errors.append(losses.value(parts.restrict(error_fn), point, parts.arguments(batch)))
    return float(losses.weighted_mean(errors, collected))
