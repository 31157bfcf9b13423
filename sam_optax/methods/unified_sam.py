"""Unified SAM: between the normalised and the unnormalised perturbation."""

import optax

from sam_optax.combiners import perturbed_gradient
from sam_optax.perturbations import unified_ascent
from sam_optax.policies import Policy, always
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, ScalarOrSchedule


def unified_sam(
    rho: ScalarOrSchedule = 0.05,
    lam: ScalarOrSchedule = 0.5,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Unified SAM: descend on `∇L(w + ε)`, with `ε = ρ (1 − λ + λ / (‖g‖ + 1e-12)) g`.

    With `lam=0.0` it is unnormalised SAM, whose perturbation vanishes with the gradient; with `lam=1.0` SAM. From
    "Sharpness-Aware Minimization: General Analysis and Improved Rates" (Oikonomou and Loizou, 2025,
    https://arxiv.org/abs/2503.02225).

    Args:
      rho: the radius `ρ ≥ 0`; a number or a schedule over updates. At `λ = 1` in units of the parameters' global
        L2 norm, at `λ = 0` in those of a learning rate.
      lam: the share `λ` of the normalised perturbation, from 0 to 1; a number or a schedule over updates.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, if `lam` is not from 0 to 1, or if `mask` is no tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.unified_sam(rho=0.1, lam=0.0), optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, _ = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.2f}" for x in updates))
      -0.33 -0.44
    """
    return sharpness_aware(unified_ascent(rho, lam), perturbed_gradient(), when, mask)
