"""ASAM: adaptive sharpness-aware minimisation."""

import optax

from sam_optax.combiners import perturbed_gradient
from sam_optax.masks import biases
from sam_optax.perturbations import adaptive_ascent, ported_adaptive_ascent
from sam_optax.policies import Policy, always
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, ScalarOrSchedule


def asam(
    rho: ScalarOrSchedule = 0.5,
    eta: float = 0.01,
    exempt: Mask | None = biases,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """ASAM: descend on `∇L(w + ε)`, with `ε = ρ T² g / (‖T g‖ + 1e-16)`; `T = |w| + η`, and 1 on biases.

    From "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks"
    (Kwon et al., 2021, https://arxiv.org/abs/2102.11600).

    Args:
      rho: the radius `ρ ≥ 0`, relative to the weights; a number or a schedule over updates. The paper takes 0.5
        on CIFAR-10 and 1.0 on CIFAR-100.
      eta: `η ≥ 0`, in units of a weight.
      exempt: the leaves where `T = 1`: a tree of bools, a function from the parameters to one, or None. Left
        alone it is every leaf whose last name is `bias` or `b`.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`. Inside
      `optax.inject_hyperparams` name `mask` and `exempt` in `static_args`.

    Raises:
      ValueError: If `rho` or `eta` is negative or not finite, or if `mask` or `exempt` is no tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.asam(rho=0.5), optax.sgd(0.1))
      >>> params = {"kernel": jnp.array([1.0, 0.0]), "bias": jnp.array(0.5)}
      >>> gradient = jax.grad(lambda p: jnp.sum(p["kernel"] ** 2) + p["bias"] ** 2)
      >>> updates, state = tx.update(gradient(params), tx.init(params), params, grad_fn=gradient)
      >>> print(f"{sam_optax.diagnostics(state).perturbation_norm:.3f}")
      0.504
    """
    return sharpness_aware(adaptive_ascent(rho, eta, exempt), perturbed_gradient(), when, mask)


def ported_asam(
    rho: ScalarOrSchedule = 2.0, *, when: Policy = always(), mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """Adaptive SAM as most PyTorch ports have it: descend on `∇L(w + ε)`, with `ε = ρ w² g / (‖|w| g‖ + 1e-12)`.

    Another algorithm than `asam`: without `η`, and with the biases scaled like the weights. It is here to go on
    with settings that were found with such a port, as with `adaptive=True` of davda54/sam.

    Args:
      rho: the radius `ρ ≥ 0`, relative to the weights; a number or a schedule over updates. About four times that
        of `asam`.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, or if `mask` is no tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.ported_asam(rho=1.0), optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.4f}" for x in updates))
      -0.4471 -0.7486
    """
    return sharpness_aware(ported_adaptive_ascent(rho), perturbed_gradient(), when, mask)
