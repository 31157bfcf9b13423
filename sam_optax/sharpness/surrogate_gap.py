"""The surrogate gap: how much the loss rises along its own gradient."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.perturbations import normalized_ascent
from sam_optax.sharpness import batches as batches_of
from sam_optax.sharpness import losses, partition
from sam_optax.sharpness.partition import Leaves
from sam_optax.typing import Mask, Params


class SurrogateGap(NamedTuple):
    """How much the loss rises along its gradient.

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
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch.
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
    collected = batches_of.collect(batches)
    found = [_of_batch(parts.restrict(loss_fn), parts.moved, parts.arguments(batch), rho) for batch in collected]
    clean, gaps = ([each[i] for each in found] for i in range(2))
    return SurrogateGap(batches_of.mean(gaps, collected), batches_of.mean(clean, collected), jnp.stack(gaps))


@functools.partial(jax.jit, static_argnums=0)
def _of_batch(loss_fn: Callable[..., Any], params: Leaves, batch: Any, rho: Any) -> tuple[jax.Array, jax.Array]:
    loss, gradient = losses.value_and_grad(loss_fn, params, batch)
    ascent = normalized_ascent(rho)
    offset, _ = ascent.update(gradient, ascent.init(params), params)
    moved = trees.cast_like(jax.tree.map(jnp.add, trees.widen(params), trees.widen(offset)), params)
    return loss, losses.value(loss_fn, moved, batch) - loss
