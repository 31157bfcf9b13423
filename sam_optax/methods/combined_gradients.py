"""Methods with SAM's perturbation that combine the clean and the perturbed gradient.

GSAM, surrogate-gap-guided SAM, also reduces the gap between the perturbed and the clean loss. StableSAM has the
direction of SAM's gradient and the length of the clean gradient. LookSAM makes a second pass every k-th step, and
reuses its direction in the steps between. WSAM adds the sharpness to the loss as a weighted regularisation term; its
decoupled form keeps that term out of the base optimizer.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, schedules, trees, validation
from sam_optax.combiners import gap_guided, gap_guided_clean, reuse, stabilized, surplus, weighted
from sam_optax.method_states import DecoupledState
from sam_optax.perturbations import normalized_ascent
from sam_optax.policies import Policy, always, every
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, Params, ScalarOrSchedule, State, Updates

_GAP_COMBINERS = {"perturbed": gap_guided, "clean": gap_guided_clean}


def gsam(
    rho: ScalarOrSchedule = 0.05,
    alpha: ScalarOrSchedule = 0.02,
    *,
    minimize: Literal["perturbed", "clean"] = "perturbed",
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """GSAM: descend on `g_s − α g_⊥`, with SAM's `ε` and the part `g_⊥` of `g` that is orthogonal to `g_s`.

    The perturbed loss falls as with SAM, and the surrogate gap between it and the clean loss falls too. With
    `minimize="clean"` it descends on `g + α (g_s − ⟨g_s, ĝ⟩ ĝ)`, and the clean loss and the gap fall. From "Surrogate
    Gap Minimization Improves Sharpness-Aware Training" (Zhuang et al., 2022, https://arxiv.org/abs/2203.08065).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
        0.05 suits convolutional networks, 0.6 vision transformers.
      alpha: the weight `α ≥ 0` of the gap; a number or a schedule over updates. 0.02 suits convolutional
        networks, 0.1 vision transformers. At 0 it is SAM, or with `minimize="clean"` the base optimizer.
      minimize: the loss that is minimised together with the gap.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` or `alpha` is negative or not finite, if `minimize` is not one of its two values, or if
        `mask` is not a tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.gsam(rho=0.05, alpha=0.02), optax.sgd(0.1, momentum=0.9))
      >>> value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2))
      >>> w, x = jnp.array([1.0, 2.0]), jnp.diag(jnp.array([1.0, 3.0]))
      >>> loss, grads, grad_fn = value_and_grad(w, x)
      >>> updates, state = tx.update(grads, tx.init(w), w, grad_fn=grad_fn)
      >>> print(*(f"{x:.4f}" for x in optax.apply_updates(w, updates)))
      0.8998 0.1551
    """
    if minimize not in tuple(_GAP_COMBINERS):
        raise ValueError(f"minimize is {minimize!r}: give one of {', '.join(map(repr, _GAP_COMBINERS))}.")
    return sharpness_aware(normalized_ascent(rho), _GAP_COMBINERS[minimize](alpha), when, mask)


def stable_sam(
    rho: ScalarOrSchedule = 0.05, *, when: Policy = always(), mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """StableSAM: descend on `‖g‖ / (‖g_s‖ + 1e-12) · g_s`, with SAM's `g_s`.

    It is stable at the learning rates of its base optimizer, whereas SAM needs smaller ones. From "Stabilizing
    Sharpness-aware Minimization Through A Simple Renormalization Strategy" (Tan et al., 2024,
    https://arxiv.org/abs/2401.07250).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, or if `mask` is not a tree of bools.

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


def look_sam(
    rho: ScalarOrSchedule = 0.1,
    alpha: ScalarOrSchedule = 0.7,
    k: int = 5,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """LookSAM: descend on `g_s` at every k-th step, and on `g + α ‖g‖ v` in between, for one gradient per step.

    `v` is the part of the last `g_s` that was orthogonal to its `g`, normalised to length 1. Pass a static
    `perturb=sam_optax.every(k).at(i)` to `update`, so that the steps in between cost only one gradient. From "Towards
    Efficient and Scalable Sharpness-Aware Minimization" (Liu et al., 2022, https://arxiv.org/abs/2203.02714).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      alpha: the weight `α ≥ 0` of the old direction; a number or a schedule over updates.
      k: the number of steps from one second pass to the next, at least 1. At 1 it is SAM.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`. Inside
      `optax.inject_hyperparams` name `k` and `mask` in `static_args`.

    Raises:
      ValueError: If `rho` or `alpha` is negative or not finite, if `k` is not a positive integer, or if `mask` is not a
        tree of bools.

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


def wsam(
    rho: ScalarOrSchedule = 0.05, gamma: float = 0.9, *, when: Policy = always(), mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """WSAM: descend on `(1 − a) g + a g_s`, with `a = γ / (1 − γ)`.

    This is the coupled form: the gradient of the sharpness passes through the optimizer, like that of the loss. From
    "Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization Term" (Yue et al., 2023,
    https://arxiv.org/abs/2305.15817).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      gamma: the weight `0 ≤ γ < 1` of the sharpness. At 0 it is the base optimizer, at ½ SAM; at 0.9, `a` is 9.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, if `gamma` is not in `[0, 1)`, or if `mask` is not a tree of
        bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.wsam(rho=1.0, gamma=0.8), optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, _ = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.2f}" for x in updates))
      -0.54 -0.72
    """
    return sharpness_aware(normalized_ascent(rho), weighted(gamma), when, mask)


def wsam_decoupled(
    base: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule | Any,
    rho: ScalarOrSchedule = 0.05,
    gamma: float = 0.9,
    *,
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Decoupled WSAM: the base's update from `g`, then `w ← w − lr · a (g_s − g)`, with `a = γ / (1 − γ)`.

    It wraps its base optimizer: like the weight decay of AdamW, the sharpness term does not enter the momentum and the
    adaptive scales. This is the optimizer of "Sharpness-Aware Minimization Revisited: Weighted Sharpness as a
    Regularization Term" (Yue et al., 2023, https://arxiv.org/abs/2305.15817).

    A leaf whose update by the base is zero in all entries does not change in that step: it has no sharpness term. So
    a base that freezes parameters (`optax.multi_transform` with `optax.set_to_zero`) or skips steps
    (`optax.MultiSteps`, `optax.apply_if_finite`) does so here, too.

    Args:
      base: the optimizer that descends on the loss.
      learning_rate: the learning rate `lr ≥ 0` of the base; a number or a schedule over updates. For a base with
        several rates: a tree with a rate for each leaf of the parameters or for all leaves below a name.
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      gamma: the weight `0 ≤ γ < 1` of the sharpness. At 0 it is the base optimizer.
      when: the steps that make a second pass; the others are steps of the base.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one. It does not freeze the
        other leaves.

    Returns:
      A complete optimizer, whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`. Inside
      `optax.inject_hyperparams` name `base` and `mask` in `static_args`.

    Raises:
      ValueError: If `base` is not an optimizer, if a rate or `rho` is negative or not finite, if `gamma` is not in
        `[0, 1)`, or if `mask` is not a tree of bools; and, in `init`, if `learning_rate` does not fit the parameters,
        or if `base` holds another sharpness-aware method.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.wsam_decoupled(optax.adam(0.1), learning_rate=0.1, rho=1.0, gamma=0.8)
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, _ = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.2f}" for x in updates))
      -0.34 -0.42
    """
    validation.check_transformation("base", base)
    schedules.check_rates("learning_rate", learning_rate)
    share = hyperparameters.sharpness_weight(gamma)
    sharpness = sharpness_aware(normalized_ascent(rho), surplus(), when, mask)
    inner = optax.with_extra_args_support(base)

    def init(params: Params) -> DecoupledState:
        state = DecoupledState(sharpness.init(params), inner.init(params))
        validation.check_no_method("base", state.base, "give wsam_decoupled an optimizer without one.")
        if jax.tree.leaves(params):  # `optax.tree.map_params` calls `init` with a placeholder
            schedules.resolve_rates("learning_rate", learning_rate, params)
        return state

    def update(
        updates: Updates, state: State, params: Params | None = None, *, perturb: bool | None = None, **extra_args: Any
    ) -> tuple[Updates, DecoupledState]:
        count = state.sharpness.count
        rise, sharpness_state = sharpness.update(updates, state.sharpness, params, perturb=perturb, **extra_args)
        step, base_state = inner.update(updates, state.base, params, **extra_args)
        rates = schedules.resolve_rates("learning_rate", learning_rate, step)

        def move(u: jax.Array, r: jax.Array, rate: ScalarOrSchedule) -> jax.Array:
            return jnp.where(jnp.any(u != 0), u - hyperparameters.at(rate, count) * share * r, u)

        moved = jax.tree.map(move, trees.widen(step), trees.widen(rise), rates)
        return trees.cast_like(moved, step), DecoupledState(sharpness_state, base_state)

    return optax.GradientTransformationExtraArgs(init, update)
