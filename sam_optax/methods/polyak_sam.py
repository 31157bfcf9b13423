"""SAM-SPS: SAM with a stochastic Polyak step size, a complete optimizer."""

from typing import Any

import jax
import optax

from sam_optax import hyperparameters, trees
from sam_optax.method_states import is_ascending
from sam_optax.offset_combiners import polyak_step
from sam_optax.perturbations import unified_ascent
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, Params, ScalarOrSchedule, State, Updates


def sam_sps(
    rho: ScalarOrSchedule = 0.1,
    lam: ScalarOrSchedule = 1.0,
    optimal_loss: ScalarOrSchedule = 0.0,
    max_rate: ScalarOrSchedule = 1.0,
    weight_decay: ScalarOrSchedule = 5e-4,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM-SPS: `w ← w − γ (g_s + δ w)` with the Polyak step size `γ`, which replaces the learning rate.

        γ = min(max(0, L(w + ε) − ℓ* − ⟨g_s, ε⟩) / ‖g_s‖², γ_b),  ε = ρ (1 − λ + λ / ‖g‖) g

    `λ = 1` is SAM-SPS, and `λ = 0` is USAM-SPS, whose perturbation is not normalised. It is a complete optimizer: no
    other optimizer follows it in a chain. Every step makes a second pass, and `grad_fn` has to return the loss, as that
    of `sam_optax.value_and_grad` does. `state.combiner.rate` is the last `γ`. From "Adaptive Sharpness-Aware
    Minimization with a Polyak-type Step size" (Oikonomou and Loizou, 2026, https://arxiv.org/abs/2606.01827).

    Args:
      rho: the radius `ρ ≥ 0`; a number or a schedule over updates. See `unified_sam` for its units.
      lam: the fraction `λ` of the normalised perturbation, from 0 to 1; a number or a schedule over updates.
      optimal_loss: the smallest loss `ℓ*` of a batch, in units of the loss; a number or a schedule over updates.
      max_rate: the largest step size `γ_b ≥ 0`; a number or a schedule over updates.
      weight_decay: the weight decay `δ ≥ 0`, which the step size does not depend on; a number or a schedule.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A complete optimizer, whose `update` takes `grad_fn`; see `sharpness_aware`.

    Raises:
      ValueError: If a number is out of its range, or if `mask` is not a tree of bools; in `update`, if `grad_fn`
        returns no loss, or if `perturb` is False.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.sam_sps(rho=1.0, weight_decay=0.0)
      >>> value_and_grad = sam_optax.value_and_grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> loss, grads, grad_fn = value_and_grad(w)
      >>> updates, state = tx.update(grads, tx.init(w), w, grad_fn=grad_fn)
      >>> print(*(f"{x:.1f}" for x in updates), f"{state.combiner.rate:.3f}")
      -1.2 -1.6 0.333
    """
    hyperparameters.check_nonnegative("weight_decay", weight_decay)
    method = sharpness_aware(unified_ascent(rho, lam), polyak_step(optimal_loss, max_rate), mask=mask)

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        after: Any
        step, after = method.update(updates, state, params, **extra_args)
        if params is None or is_ascending(after):  # `two_phases` computes the point of the second pass
            return step, after
        decay = hyperparameters.at(weight_decay, state.count) * after.combiner.rate
        descent = jax.tree.map(lambda x, w: -(x + decay * w), trees.widen(step), trees.widen(params))
        return trees.cast_like(descent, step), after

    return optax.GradientTransformationExtraArgs(method.init, update)
