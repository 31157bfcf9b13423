"""StableSAM: SAM's direction at the length of the clean gradient."""

import optax

from sam_optax.combiners import stabilized
from sam_optax.perturbations import normalized_ascent
from sam_optax.policies import Policy, always
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, ScalarOrSchedule


def stable_sam(
    rho: ScalarOrSchedule = 0.05, *, when: Policy = always(), mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """StableSAM: descend on `‖g‖ / (‖g_s‖ + 1e-12) · g_s`, with SAM's `g_s`.

    It bears the learning rates that its base bears, where SAM needs smaller ones. From "Stabilizing Sharpness-aware
    Minimization Through A Simple Renormalization Strategy" (Tan et al., 2024, https://arxiv.org/abs/2401.07250).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, or if `mask` is no tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.stable_sam(rho=1.0), optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, _ = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.2f}" for x in updates))
      -0.30 -0.40
    """
    return sharpness_aware(normalized_ascent(rho), stabilized(), when, mask)
