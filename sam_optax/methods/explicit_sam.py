"""XSAM, explicit SAM: the direction of the highest loss in the plane of the ascent and the perturbed gradient."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_optax import hyperparameters, masks, passes, trees
from sam_optax.offset_combiners import explicit_direction
from sam_optax.perturbations import k_step_ascent
from sam_optax.policies import Policy, always
from sam_optax.second_pass import SecondPass
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, Params, ScalarOrSchedule, Updates


def xsam(
    rho: ScalarOrSchedule = 0.15,
    alpha: ScalarOrSchedule = 1.0,
    steps: int = 1,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """XSAM: descend on `‖g_s‖ d(α)`, where `d(α)` lies in the plane of `ε` and `g_s = ∇L(w + ε)`.

        d(α) = (sin((1 − α) θ) v_0 + sin(α θ) v_1) / sin θ,  v_0 = ε / ‖ε‖,  v_1 = g_s / ‖g_s‖,  θ = ∠(v_0, v_1)

    The offset `ε` is the result of `steps` ascent steps of length `ρ / steps`. `α` selects the direction: SAM's at 1,
    that of the offset at 0. Once an epoch, `xsam_alpha` returns the `α` with the highest loss. To change `α` during
    training, wrap the method in `optax.inject_hyperparams` and set `state.hyperparams["alpha"]`. From "Revisiting
    Sharpness-Aware Minimization: A More Faithful and Effective Implementation" (Chen and Zhou, 2026,
    https://arxiv.org/abs/2603.10048).

    Args:
      rho: the total length `ρ ≥ 0` of the ascent, in units of the parameters' global L2 norm; a number or a schedule
        over updates. At 0 it is the base optimizer.
      alpha: the position `α ≥ 0` of the direction; a number or a schedule over updates. It is not GSAM's `alpha`.
      steps: the number of ascent steps, at least 1. A step of training costs `1 + steps` gradients.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`. Inside
      `optax.inject_hyperparams` name `steps`, `when` and `mask` in `static_args`.

    Raises:
      ValueError: If `rho` or `alpha` is negative or not finite, if `steps` is not a positive integer, or if `mask` is
        not a tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.xsam(rho=0.5, alpha=1.5), optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2)
      >>> w = jnp.array([3.0, 1.0])
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.3f}" for x in updates))
      -0.298 -0.577
    """
    return sharpness_aware(k_step_ascent(rho, steps), explicit_direction(alpha), when, mask)


def xsam_alpha(
    loss_fn: Callable[..., Any],
    params: Params,
    *batch: Any,
    rho: float = 0.15,
    rho_max: float = 0.3,
    steps: int = 1,
    alpha_max: float = 2.0,
    spacing: float = 0.1,
    mask: Mask | None = None,
) -> float:
    """Returns the `α` of `xsam` with the highest loss `L(w + ρ_max d(α))` on a batch.

    The values 0, `spacing`, …, `alpha_max` are tried, and the first of the best ones is returned. The function computes
    `1 + steps` gradients and one loss per value. The paper calls it on the first batch of every epoch. From "Revisiting
    Sharpness-Aware Minimization: A More Faithful and Effective Implementation" (Chen and Zhou, 2026,
    https://arxiv.org/abs/2603.10048).

    Args:
      loss_fn: `loss_fn(params, *batch)` → the mean loss of the batch, a scalar. It is compiled once per shape of the
        batch if the same function is given in every call.
      params: the parameters `w`.
      *batch: the further arguments of `loss_fn`.
      rho: the total length `ρ > 0` of the ascent, that of `xsam`.
      rho_max: the distance `ρ_max > 0` at which the loss is computed. It is used only here.
      steps: the number of ascent steps, that of `xsam`.
      alpha_max: the largest `α` to try.
      spacing: the distance between the values to try.
      mask: the leaves that the ascent perturbs, that of `xsam`.

    Returns:
      The best `α`. It is 0 if no loss is positive.

    Raises:
      ValueError: If `loss_fn` is not a hashable function, if a number is not positive or not finite, if `steps` is not
        a positive integer, or if `mask` is not a tree of bools.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> loss = lambda w, scale: jnp.sum(scale * w**2) / 2
      >>> print(f"{sam_optax.xsam_alpha(loss, jnp.array([3.0, 1.0]), jnp.array([1.0, 4.0]), rho=0.5, rho_max=0.5):.1f}")
      1.2
    """
    for name, number in (("rho", rho), ("rho_max", rho_max), ("alpha_max", alpha_max), ("spacing", spacing)):
        hyperparameters.check_positive_number(name, number)
    hyperparameters.check_count("steps", steps, "the ascent steps of an update")
    passes.check_function("loss_fn", loss_fn, "from parameters and a batch to a scalar loss")
    masks.check("mask", mask)
    masks.check_chosen("mask", mask, params)
    chosen = masks.resolve("mask", mask, params, default=True)
    offset, perturbed = _ascended(loss_fn, steps, params, rho, chosen, *batch)
    best, highest = 0.0, 0.0
    for alpha in np.arange(0, alpha_max + 1e-5, spacing).tolist():
        moved = _along(perturbed, offset, alpha, rho_max)
        if (loss := float(_loss_at(loss_fn, params, moved, batch))) > highest:
            best, highest = alpha, loss
    return best


@functools.partial(jax.jit, static_argnums=(0, 1))
def _ascended(
    loss_fn: Callable[..., Any], steps: int, params: Params, rho: Any, chosen: Any, *batch: Any
) -> tuple[Updates, Updates]:
    """Returns the offset after the ascent in the chosen leaves, and the gradient of all leaves there."""

    def gradient(at: Params) -> Updates:
        return jax.grad(loss_fn)(at, *batch)

    def of_chosen(at: Params) -> Updates:
        return jax.tree.map(lambda c, g: jnp.where(c, g, 0), chosen, gradient(at))

    ascent = k_step_ascent(rho, steps)
    offset, _ = ascent.update(of_chosen(params), ascent.init(params), params, grad_fn=of_chosen)
    return offset, gradient(trees.shifted(params, offset))


@jax.jit
def _along(perturbed: Updates, offset: Updates, alpha: Any, rho_max: Any) -> Updates:
    """Returns `ρ_max d(α)`."""
    combiner = explicit_direction(alpha)
    direction, _ = combiner.update(perturbed, SecondPass(perturbed), offset, combiner.init(perturbed))
    scale = rho_max / (trees.norm(perturbed) + 1e-12)
    return jax.tree.map(lambda d: scale * d, direction)


@functools.partial(jax.jit, static_argnums=0)
def _loss_at(loss_fn: Callable[..., Any], params: Params, offset: Updates, batch: tuple[Any, ...]) -> jax.Array:
    return jnp.asarray(loss_fn(trees.shifted(params, offset), *batch))
