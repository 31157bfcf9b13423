"""SAM and the methods that change its perturbation; all of them descend on the perturbed gradient.

SAM is sharpness-aware minimisation. ASAM, adaptive SAM, perturbs each weight in proportion to its size, and
`ported_asam` is the variant of most PyTorch ports of SAM. Unified SAM lies between the normalised and the unnormalised
perturbation. VaSSO, variance-suppressed sharpness-aware optimisation, perturbs along a moving average of the gradients,
and F-SAM, friendly SAM, along the gradient minus that average. LE-SAM, loss-equated SAM, fixes the increase of the loss
instead of the radius.
"""

import optax

from sam_optax.combiners import perturbed_gradient
from sam_optax.masks import biases
from sam_optax.perturbations import (
    adaptive_ascent,
    friendly_ascent,
    loss_increase_ascent,
    normalized_ascent,
    ported_adaptive_ascent,
    smoothed_ascent,
    unified_ascent,
)
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
      ValueError: If `rho` is negative or not finite, or if `mask` is not a tree of bools.

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
      exempt: the leaves where `T = 1`: a tree of bools, a function from the parameters to one, or None. The
        default is every leaf whose last name is `bias` or `b`.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`. Inside
      `optax.inject_hyperparams` name `mask` and `exempt` in `static_args`.

    Raises:
      ValueError: If `rho` or `eta` is negative or not finite, or if `mask` or `exempt` is not a tree of bools.

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
    """Adaptive SAM as in most PyTorch ports: descend on `∇L(w + ε)`, with `ε = ρ w² g / (‖|w| g‖ + 1e-12)`.

    It differs from `asam`: it has no `η`, and scales the biases like the weights. Use it with settings that were
    tuned with such a port, for example with `adaptive=True` of davda54/sam.

    Args:
      rho: the radius `ρ ≥ 0`, relative to the weights; a number or a schedule over updates. It should be about
        four times that of `asam`.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, or if `mask` is not a tree of bools.

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


def unified_sam(
    rho: ScalarOrSchedule = 0.05,
    lam: ScalarOrSchedule = 0.5,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Unified SAM: descend on `∇L(w + ε)`, with `ε = ρ (1 − λ + λ / (‖g‖ + 1e-12)) g`.

    With `lam=0.0` it is unnormalised SAM, whose perturbation vanishes with the gradient; with `lam=1.0` it is SAM. From
    "Sharpness-Aware Minimization: General Analysis and Improved Rates" (Oikonomou and Loizou, 2025,
    https://arxiv.org/abs/2503.02225).

    Args:
      rho: the radius `ρ ≥ 0`; a number or a schedule over updates. Its units are those of the parameters' global
        L2 norm at `λ = 1`, and those of a learning rate at `λ = 0`.
      lam: the share `λ` of the normalised perturbation, from 0 to 1; a number or a schedule over updates.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, if `lam` is not from 0 to 1, or if `mask` is not a tree of bools.

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
      theta: the weight `θ` of the newest gradient, from 0 to 1; a smaller one smooths more.
      when: the steps that make a second pass; the average is updated at every step.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, if `theta` is not from 0 to 1, or if `mask` is not a tree of
        bools.

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


def friendly_sam(
    rho: ScalarOrSchedule = 0.1,
    sigma: float = 1.0,
    lam: float = 0.9,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """F-SAM: descend on `∇L(w + ε)`, with `ε = ρ d / (‖d‖ + 1e-12)` and `d = g − σ m`, the batch's own part of `g`.

    `m` is the moving average of the previous gradients, an estimate of the full gradient. F-SAM removes this part from
    the perturbation of SAM. From "Friendly Sharpness-Aware Minimization" (Li et al., 2024,
    https://arxiv.org/abs/2403.12350).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      sigma: the weight `σ ≥ 0` of the average that is subtracted. At 0 it is SAM.
      lam: the fraction `λ` of the average that is kept in each update, from 0 to 1.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` or `sigma` is negative or not finite, if `lam` is not from 0 to 1, or if `mask` is not a tree
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


def le_sam(
    sigma: ScalarOrSchedule = 0.35,
    rho_max: ScalarOrSchedule | None = 0.3,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """LE-SAM: descend on `∇L(w + ε)`, with `ε = min(σ / n, ρ_max) g / n` and `n = √(‖g‖² + 1e-12) + 1e-12`.

    The linearised loss increases by `σ` while the radius `σ / n` is below `ρ_max`. In the paper, `σ` rises linearly
    from 0 in the first ten of 200 epochs, and falls to 0 along a cosine in the last forty. From "Fix the Loss, Not the
    Radius: Rethinking the Adversarial Perturbation of Sharpness-Aware Minimization" (Wang et al., 2026,
    https://arxiv.org/abs/2605.10183).

    Args:
      sigma: the increase `σ ≥ 0`, in units of the loss; a number or a schedule over updates.
      rho_max: the largest radius `ρ_max ≥ 0`, in units of the parameters' global L2 norm; a number, a schedule over
        updates, or None for no limit. Without a limit the radius grows as the gradient vanishes. In the authors'
        code, 0 means no limit; here it means no perturbation.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `sigma` or `rho_max` is negative or not finite, or if `mask` is not a tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.le_sam(sigma=0.5, rho_max=0.3), optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(f"{sam_optax.diagnostics(state).perturbation_norm:.3f}")
      0.100
    """
    return sharpness_aware(loss_increase_ascent(sigma, rho_max), perturbed_gradient(), when, mask)
