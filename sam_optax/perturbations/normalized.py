"""Along the gradient: the perturbation of SAM."""

import jax
import optax

from sam_optax import hyperparameters, trees
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


def normalized_ascent(rho: ScalarOrSchedule = 0.05) -> optax.GradientTransformation:
    """The step of length `ρ` along the gradient, `ε = ρ g / (‖g‖ + 1e-12)`.

    From "Sharpness-Aware Minimization for Efficiently Improving Generalization" (Foret et al., 2021,
    https://arxiv.org/abs/2010.01412).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.

    Returns:
      A transformation from gradients to offsets of the same shapes and dtypes.

    Raises:
      ValueError: If `rho` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import sam_optax
      >>> ascent = sam_optax.normalized_ascent(rho=0.1)
      >>> offset, _ = ascent.update(jnp.array([3.0, 4.0]), ascent.init(jnp.zeros(2)))
      >>> print(offset)
      [0.06 0.08]
    """
    hyperparameters.check_nonnegative("rho", rho)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        del params
        scale = hyperparameters.at(rho, state.count) / (trees.norm(updates) + 1e-12)
        offset = jax.tree.map(lambda g: scale * g, trees.widen(updates))
        return trees.cast_like(offset, updates), hyperparameters.advance(state)

    return optax.GradientTransformation(hyperparameters.init, update)
