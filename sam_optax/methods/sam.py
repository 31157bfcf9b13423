"""SAM: sharpness-aware minimisation."""

import optax

from sam_optax.combiners import perturbed_gradient
from sam_optax.perturbations import normalized_ascent
from sam_optax.policies import Policy, always
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, ScalarOrSchedule


def sam(
    rho: ScalarOrSchedule = 0.05, *, when: Policy = always(), mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """SAM: descend on `g_s = ∇L(w + ε)`, with `ε = ρ g / (‖g‖ + 1e-12)`.

    From "Sharpness-Aware Minimization for Efficiently Improving Generalization" (Foret et al., 2021,
    https://arxiv.org/abs/2010.01412).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
        At 0 it is the base optimizer, bit for bit.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, or if `mask` is no tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.sam(rho=0.05), optax.sgd(0.1, momentum=0.9))
      >>> value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2))
      >>> w, x = jnp.array([1.0, 2.0]), jnp.eye(2)
      >>> loss, grads, grad_fn = value_and_grad(w, x)
      >>> updates, state = tx.update(grads, tx.init(w), w, grad_fn=grad_fn)
      >>> print(*(f"{x:.4f}" for x in optax.apply_updates(w, updates)))
      0.8978 1.7955
    """
    return sharpness_aware(normalized_ascent(rho), perturbed_gradient(), when, mask)
