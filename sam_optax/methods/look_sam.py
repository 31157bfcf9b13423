"""LookSAM: a second pass every k-th step, and its direction used again between."""

import optax

from sam_optax.combiners import reuse
from sam_optax.perturbations import normalized_ascent
from sam_optax.policies import every
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, ScalarOrSchedule


def look_sam(
    rho: ScalarOrSchedule = 0.1,
    alpha: ScalarOrSchedule = 0.7,
    k: int = 5,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """LookSAM: descend on `g_s` at every k-th step, and between on `g + α ‖g‖ v`, one gradient alone.

    `v` is the part of the last `g_s` that was orthogonal to its `g`, at length 1. For the step to cost one gradient
    call it with a static `perturb=sam_optax.every(k).at(i)`. From "Towards Efficient and Scalable Sharpness-Aware
    Minimization" (Liu et al., 2022, https://arxiv.org/abs/2203.02714).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      alpha: the weight `α ≥ 0` of the old direction; a number or a schedule over updates.
      k: the steps from one second pass to the next, at least 1. At 1 it is SAM.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`. Inside
      `optax.inject_hyperparams` name `k` and `mask` in `static_args`.

    Raises:
      ValueError: If `rho` or `alpha` is negative or not finite, if `k` is no positive integer, or if `mask` is no tree
        of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.look_sam(rho=0.1, k=2), optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**4) / 4)
      >>> w, policy = jnp.array([1.0, 0.5]), sam_optax.every(2)
      >>> state = tx.init(w)
      >>> for i in range(4):
      ...     updates, state = tx.update(gradient(w), state, w, grad_fn=gradient, perturb=policy.at(i))
      ...     w = optax.apply_updates(w, updates)
      >>> print(*(f"{x:.4f}" for x in w))
      0.6794 0.5188
    """
    return sharpness_aware(normalized_ascent(rho), reuse(alpha), every(k), mask)
