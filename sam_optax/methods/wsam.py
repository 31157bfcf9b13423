"""WSAM: sharpness as a weighted regularisation term, coupled to the loss or decoupled from it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, schedules, trees, validation
from sam_optax.combiners import surplus, weighted
from sam_optax.perturbations import normalized_ascent
from sam_optax.policies import Policy, always
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, Params, ScalarOrSchedule, State, Updates


def wsam(
    rho: ScalarOrSchedule = 0.05, gamma: float = 0.9, *, when: Policy = always(), mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """WSAM: descend on `(1 − a) g + a g_s`, with `a = γ / (1 − γ)`.

    The coupled form: the sharpness passes through the optimizer behind, like the loss. From "Sharpness-Aware
    Minimization Revisited: Weighted Sharpness as a Regularization Term" (Yue et al., 2023,
    https://arxiv.org/abs/2305.15817).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      gamma: the weight `0 ≤ γ < 1` of the sharpness. At 0 it is the base optimizer, at ½ SAM; 0.9 weighs it 9 times.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` is negative or not finite, if `gamma` is not in `[0, 1)`, or if `mask` is no tree of bools.

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


class DecoupledState(NamedTuple):
    """The state of `wsam_decoupled`.

    Attributes:
      sharpness: of the estimator of the sharpness's gradient, with the diagnostics.
      base: of the base optimizer.
    """

    sharpness: State
    base: State


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

    It wraps its base optimizer: the sharpness term does not enter momentum and adaptive scales, like the weight decay
    of AdamW. From "Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization Term" (Yue et al.,
    2023, https://arxiv.org/abs/2305.15817), whose own optimizer this is.

    A leaf whose update by the base is zero in all entries stays where it is in that step, without sharpness term. So a
    base that freezes parameters (`optax.multi_transform` with `optax.set_to_zero`) or waits (`optax.MultiSteps`,
    `optax.apply_if_finite`) does so here, too.

    Args:
      base: the optimizer that descends on the loss.
      learning_rate: `lr ≥ 0`, that of the base; a number or a schedule over updates. For a base with several rates: a
        tree of them, with a rate for each leaf of the parameters or for all leaves below a name.
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      gamma: the weight `0 ≤ γ < 1` of the sharpness. At 0 it is the base optimizer.
      when: the steps that make a second pass; the others are steps of the base.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one. It does not freeze the
        other leaves.

    Returns:
      A whole optimizer, whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`. Inside
      `optax.inject_hyperparams` name `base` and `mask` in `static_args`.

    Raises:
      ValueError: If `base` is no optimizer, if a rate or `rho` is negative or not finite, if `gamma` is not in
        `[0, 1)`, or if `mask` is no tree of bools; and, in `init`, if `learning_rate` does not fit the parameters, or
        `base` holds another sharpness-aware method.

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
