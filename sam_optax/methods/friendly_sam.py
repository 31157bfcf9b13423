"""F-SAM: friendly sharpness-aware minimisation."""

import optax

from sam_optax.combiners import perturbed_gradient
from sam_optax.perturbations import friendly_ascent
from sam_optax.policies import Policy, always
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, ScalarOrSchedule


def friendly_sam(
    rho: ScalarOrSchedule = 0.1,
    sigma: float = 1.0,
    lam: float = 0.9,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """F-SAM: descend on `∇L(w + ε)`, with `ε = ρ d / (‖d‖ + 1e-12)` and `d = g − σ m`, the batch's own part of `g`.

    `m` is the moving average of the gradients before this one: SAM without the part of its perturbation that ascends
    the full gradient. From "Friendly Sharpness-Aware Minimization" (Li et al., 2024,
    https://arxiv.org/abs/2403.12350).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      sigma: the weight `σ ≥ 0` of the average that is taken away. At 0 it is SAM.
      lam: the share `λ` of the average that is kept, from 0 to 1.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` or `sigma` is negative or not finite, if `lam` is not from 0 to 1, or if `mask` is no tree
        of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.friendly_sam(rho=0.1), optax.sgd(0.1, momentum=0.9))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**4))
      >>> w = jnp.array([1.0, 2.0])
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.4f}" for x in optax.apply_updates(w, updates)))
      0.5849 -1.7003
    """
    return sharpness_aware(friendly_ascent(rho, sigma, lam), perturbed_gradient(), when, mask)
