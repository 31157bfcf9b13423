"""Between a step of fixed length and one as long as the gradient: the perturbation of Unified SAM."""

import jax
import optax

from sam_optax import hyperparameters, trees
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


def unified_ascent(rho: ScalarOrSchedule = 0.05, lam: ScalarOrSchedule = 0.5) -> optax.GradientTransformation:
    """The step `ε = ρ (1 − λ + λ / (‖g‖ + 1e-12)) g`: unnormalised at `λ = 0`, SAM's at `λ = 1`.

    From "Sharpness-Aware Minimization: General Analysis and Improved Rates" (Oikonomou and Loizou, 2025,
    https://arxiv.org/abs/2503.02225).

    Args:
      rho: the radius `ρ ≥ 0`; a number or a schedule over updates. At `λ = 1` in units of the parameters' global
        L2 norm, at `λ = 0` in those of a learning rate.
      lam: the share `λ` of the normalised step, from 0 to 1; a number or a schedule over updates.

    Returns:
      A transformation from gradients to offsets of the same shapes and dtypes.

    Raises:
      ValueError: If `rho` is negative or not finite, or `lam` not from 0 to 1.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.unified_ascent(rho=0.1, lam=0.0)
      >>> offset, _ = ascent.update(jnp.array([3.0, 4.0]), ascent.init(jnp.zeros(2)))
      >>> print(*(f"{x:.1f}" for x in offset))
      0.3 0.4
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_fraction("lam", lam)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        del params
        radius, share = hyperparameters.at(rho, state.count), hyperparameters.at(lam, state.count)
        scale = radius * (1 - share) + radius * share / (trees.norm(updates) + 1e-12)
        offset = jax.tree.map(lambda g: scale * g, trees.widen(updates))
        return trees.cast_like(offset, updates), hyperparameters.advance(state)

    return optax.GradientTransformation(hyperparameters.init, update)
