"""Along what is this batch's own in its gradient: the perturbation of F-SAM."""

import jax
import optax

from sam_optax import hyperparameters, trees
from sam_optax.perturbations import average
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


def friendly_ascent(rho: ScalarOrSchedule = 0.1, sigma: float = 1.0, lam: float = 0.9) -> optax.GradientTransformation:
    """The step of length `ρ` along the batch's own part of the gradient, `ε = ρ d / (‖d‖ + 1e-12)`, `d = g − σ m`.

    `m` is the moving average of the gradients before this one, `m ← λ m + (1−λ) g`, an estimate of the full
    gradient; it starts as the first gradient, and the first `d` is `g`. From "Friendly Sharpness-Aware Minimization"
    (Li et al., 2024, https://arxiv.org/abs/2403.12350).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      sigma: the weight `σ ≥ 0` of the full gradient that is taken away. At 0 it is SAM's perturbation.
      lam: the share `λ` of the average that is kept, from 0 to 1.

    Returns:
      A transformation from gradients to offsets of the same shapes and dtypes. Its state is one copy of them.

    Raises:
      ValueError: If `rho` or `sigma` is negative or not finite, or `lam` not from 0 to 1.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.friendly_ascent(rho=0.1)
      >>> first, state = ascent.update(jnp.array([3.0, 4.0]), ascent.init(jnp.zeros(2)))
      >>> second, _ = ascent.update(jnp.array([3.0, 6.0]), state)
      >>> print(first, second)
      [0.06 0.08] [0.  0.1]
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_nonnegative_number("sigma", sigma)
    hyperparameters.check_fraction_number("lam", lam)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        del params
        # before the first update m = 0, so that the first d is g
        own = jax.tree.map(lambda g, m: g - sigma * m, trees.widen(updates), trees.widen(state.average))
        scale = hyperparameters.at(rho, state.count) / (trees.norm(own) + 1e-12)
        offset = jax.tree.map(lambda d: scale * d, own)
        return trees.cast_like(offset, updates), average.advance(state, updates, 1 - lam)

    return optax.GradientTransformation(average.init, update)
