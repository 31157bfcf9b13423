"""VaSSO: variance-suppressed sharpness-aware optimisation."""

import optax

from sam_optax.combiners import perturbed_gradient
from sam_optax.perturbations import smoothed_ascent
from sam_optax.policies import Policy, always
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, ScalarOrSchedule


def vasso(
    rho: ScalarOrSchedule = 0.05,
    theta: float = 0.9,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """VaSSO: descend on `∇L(w + ε)`, with `ε = ρ m / (‖m‖ + 1e-7)` and the smoothed gradient `m ← (1−θ) m + θ g`.

    From "Enhancing Sharpness-Aware Optimization Through Variance Suppression" (Li and Giannakis, 2023,
    https://arxiv.org/abs/2309.15639).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      theta: the share `θ` of the newest gradient, from 0 to 1: the smaller, the smoother.
      when: the steps that make a second pass; the average moves on at every step.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, if `theta` is not from 0 to 1, or if `mask` is no tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.vasso(rho=0.1, theta=0.4), optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**4))
      >>> w = jnp.array([1.0, 1.0])
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.4f}" for x in optax.apply_updates(w, updates)))
      0.5090 0.5090
    """
    return sharpness_aware(smoothed_ascent(rho, theta), perturbed_gradient(), when, mask)
