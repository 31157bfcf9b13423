"""Along a moving average of the gradients: the perturbation of VaSSO."""

import jax
import optax

from sam_optax import hyperparameters, trees
from sam_optax.perturbations import average
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


def smoothed_ascent(rho: ScalarOrSchedule = 0.05, theta: float = 0.9) -> optax.GradientTransformation:
    """The step of length `ρ` along the smoothed gradient, `ε = ρ m / (‖m‖ + 1e-7)` with `m ← (1−θ) m + θ g`.

    `m` starts as the first gradient. Smoothing suppresses the variance of the direction of ascent, which for
    small batches keeps SAM from staying adversarial. From "Enhancing Sharpness-Aware Optimization Through Variance
    Suppression" (Li and Giannakis, 2023, https://arxiv.org/abs/2309.15639).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      theta: the share `θ` of the newest gradient, from 0 to 1. At 1 it is SAM's perturbation, the `1e-7` apart.

    Returns:
      A transformation from gradients to offsets of the same shapes and dtypes. Its state is one copy of them.

    Raises:
      ValueError: If `rho` is negative or not finite, or `theta` not from 0 to 1.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.smoothed_ascent(rho=0.1, theta=0.5)
      >>> _, state = ascent.update(jnp.array([2.0, 0.0]), ascent.init(jnp.zeros(2)))
      >>> offset, _ = ascent.update(jnp.array([4.0, 8.0]), state)
      >>> print(offset)
      [0.06 0.08]
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_fraction_number("theta", theta)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        del params
        moved = average.advance(state, updates, theta)
        scale = hyperparameters.at(rho, state.count) / (trees.norm(moved.average) + 1e-7)
        offset = jax.tree.map(lambda m: scale * m, trees.widen(moved.average))
        return trees.cast_like(offset, updates), moved

    return optax.GradientTransformation(average.init, update)
