"""The increase of the loss by a perturbation: the average-case sharpness and the surrogate gap.

The average-case sharpness is the mean increase over random perturbations; the surrogate gap is the increase along the
gradient.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.perturbations import normalized_ascent
from sam_optax.sharpness import balls, losses, partition
from sam_optax.sharpness.balls import Ball
from sam_optax.sharpness.partition import Leaves
from sam_optax.typing import Mask, Params


class AverageCase(NamedTuple):
    """The average increase of the loss.

    Attributes:
      sharpness: `E L(w + δ) − L(w)`, the mean over the samples, and over the batches weighted by size.
      standard_error: the standard error of `sharpness`, from the samples; NaN for a single sample.
      loss: the unperturbed loss.
      per_batch: the sharpness of each batch, `(batches,)`.
    """

    sharpness: jax.Array
    standard_error: jax.Array
    loss: jax.Array
    per_batch: jax.Array


def average_case(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    rho: Any,
    norm: str = "l2",
    adaptive: bool = False,
    samples: int = 100,
    mask: Mask | None = None,
    key: jax.Array | None = None,
) -> AverageCase:
    """The average-case sharpness `E_δ L(w + δ) − L(w)`.

    With ℓ2 the perturbation is Gaussian, `δ_i = ρ z_i`, and with ℓ∞ uniform in the box, `|δ_i| ≤ ρ`. If adaptive, both
    are multiplied by `|w_i|`. Each perturbation is evaluated on all batches. For a small `ρ` and ℓ2 the sharpness is
    `½ ρ² tr H`. Scaling a layer and undoing it in the next one changes it, but not its adaptive form.

    From "A modern look at the relationship between sharpness and generalization" (Andriushchenko et al., 2023,
    https://arxiv.org/abs/2302.07011).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch. It is
        compiled and reused by later calls, so the values that it closes over must not change.
      params: the point where the sharpness is measured; any pytree of arrays.
      batches: pytrees of arrays, with the examples along the leading axis.
      rho: the scale `ρ ≥ 0` of a coordinate, relative to the weight if adaptive.
      norm: `l2` (Gaussian) or `linf` (uniform).
      adaptive: whether each weight is its own unit.
      samples: the number of perturbations; each costs the loss of all batches.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one; None is all. They must be
        real floating arrays. The others may have any dtype, and `loss_fn` gets them as they are.
      key: draws the perturbations; None is `jax.random.key(0)`.

    Returns:
      An `AverageCase`, with `.sharpness` and `.standard_error`.

    Raises:
      ValueError: If `rho` is negative or not finite, if there is no such norm, if `samples` is not a positive integer,
        if `mask` does not fit or chooses no leaf or one that is not real floating, or if `batches` is empty.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)  # the trace of its Hessian is 1
      >>> found = sharpness.average_case(loss_fn, jnp.zeros(2), [jnp.eye(2)], rho=1.0, samples=1000)
      >>> print(f"{found.sharpness:.2f}, with a standard error of {found.standard_error:.2f}")
      0.48, with a standard error of 0.02
    """
    losses.check("loss_fn", loss_fn)
    hyperparameters.check_nonnegative_number("rho", rho)
    hyperparameters.check_count("samples", samples, "the random perturbations")
    ball = balls.create(norm, adaptive)
    parts = partition.create(mask, params)
    collected = losses.collect_batches(batches)

    def losses_at(moved: Leaves) -> jax.Array:
        values = [losses.value(parts.restrict(loss_fn), moved, parts.arguments(batch)) for batch in collected]
        return jnp.stack(values)

    clean = losses_at(parts.moved)
    keys = jax.random.split(jax.random.key(0) if key is None else key, samples)
    rises = jnp.stack([losses_at(_perturbed(ball, parts.moved, rho, sample)) for sample in keys]) - clean
    by_sample = losses.weighted_mean(list(rises.T), collected)
    error = jnp.std(by_sample, ddof=1) / jnp.sqrt(samples) if samples > 1 else jnp.asarray(jnp.nan)
    return AverageCase(
        jnp.mean(by_sample), error, losses.weighted_mean(list(clean), collected), jnp.mean(rises, axis=0)
    )


@functools.partial(jax.jit, static_argnums=0)
def _perturbed(ball: Ball, params: Params, rho: Any, key: jax.Array) -> Params:
    """The parameters plus noise: normal, or uniform in the box."""
    noise = ball.noise(key, ball.scale(params), params)
    return trees.cast_like(jax.tree.map(lambda w, z: w + rho * z, trees.widen(params), noise), params)


class SurrogateGap(NamedTuple):
    """The increase of the loss along its gradient.

    Attributes:
      gap: `L(w + ρ g/‖g‖) − L(w)`, the mean over the batches, weighted by size.
      loss: the unperturbed loss, likewise.
      per_batch: the gap of each batch, `(batches,)`.
    """

    gap: jax.Array
    loss: jax.Array
    per_batch: jax.Array


def surrogate_gap(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    rho: Any = 0.05,
    mask: Mask | None = None,
) -> SurrogateGap:
    """The surrogate gap `h(w) = L_B(w + ρ g/‖g‖) − L_B(w)` of each batch, and its mean over the batches.

    SAM adds this gap to the loss, and GSAM reduces it. The step goes to the boundary of the ℓ2 ball, and costs one
    gradient and one more loss. Near a minimum the gap is `½ ρ² λ`, with the curvature `λ` along the gradient; at the
    minimum itself, where the gradient is zero, it is 0. Scaling a layer and undoing it in the next one changes it. From
    "Surrogate Gap Minimization Improves Sharpness-Aware Training" (Zhuang et al., 2022,
    https://arxiv.org/abs/2203.08065).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch. It is
        compiled and reused by later calls, so the values that it closes over must not change.
      params: the point where the gap is measured; any pytree of arrays.
      batches: pytrees of arrays, with the examples along the leading axis.
      rho: the radius `ρ ≥ 0`.
      mask: the leaves to perturb, over which the norm is taken: a tree of bools, or a function from the parameters to
        one; None is all. They must be real floating arrays. The others may have any dtype, and `loss_fn` gets them as
        they are.

    Returns:
      A `SurrogateGap`.

    Raises:
      ValueError: If `rho` is negative or not finite, if `mask` does not fit or chooses no leaf or one that is not real
        floating, or if `batches` is empty.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)
      >>> found = sharpness.surrogate_gap(loss_fn, jnp.array([1.0, 0.0]), [jnp.eye(2)], rho=0.1)
      >>> print(f"{found.gap:.4f}")  # ½ · ½ (1.1² − 1)
      0.0525
    """
    losses.check("loss_fn", loss_fn)
    hyperparameters.check_nonnegative_number("rho", rho)
    parts = partition.create(mask, params)
    collected = losses.collect_batches(batches)
    found = [_gap_of_batch(parts.restrict(loss_fn), parts.moved, parts.arguments(batch), rho) for batch in collected]
    clean, gaps = ([each[i] for each in found] for i in range(2))
    return SurrogateGap(losses.weighted_mean(gaps, collected), losses.weighted_mean(clean, collected), jnp.stack(gaps))


@functools.partial(jax.jit, static_argnums=0)
def _gap_of_batch(loss_fn: Callable[..., Any], params: Leaves, batch: Any, rho: Any) -> tuple[jax.Array, jax.Array]:
    """The loss of one batch, and its increase along the gradient."""
    loss, gradient = losses.value_and_grad(loss_fn, params, batch)
    ascent = normalized_ascent(rho)
    offset, _ = ascent.update(gradient, ascent.init(params), params)
    moved = trees.cast_like(jax.tree.map(jnp.add, trees.widen(params), trees.widen(offset)), params)
    return loss, losses.value(loss_fn, moved, batch) - loss
