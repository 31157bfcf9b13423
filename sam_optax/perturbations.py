"""Where to look: transformations from the clean gradient to the offset `ε` of the second pass.

A perturbation is an ordinary `optax.GradientTransformation`, and any may stand here. It is called once
an update, on skipped steps too, so that its state has seen every clean gradient.
"""

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, masks, trees
from sam_optax.typing import Mask, Params, ScalarOrSchedule, State, Updates


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


def adaptive_ascent(
    rho: ScalarOrSchedule = 0.5, eta: float = 0.01, exempt: Mask | None = None
) -> optax.GradientTransformation:
    """The step of length `ρ` in units of each weight, `ε = ρ T² g / (‖T g‖ + 1e-16)` with `T = |w| + η`.

    Scaling a layer and undoing it in the next one leaves this neighbourhood as it was. From "ASAM:
    Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks" (Kwon et
    al., 2021, https://arxiv.org/abs/2102.11600).

    Args:
      rho: the radius `ρ ≥ 0`, relative to the weights; a number or a schedule over updates.
      eta: `η ≥ 0`, in units of a weight: it keeps weights near zero movable.
      exempt: the leaves where `T = 1`: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation from gradients (and the parameters) to offsets of the same shapes and dtypes.

    Raises:
      ValueError: If `rho` or `eta` is negative or not finite, if `exempt` is no tree of bools, or, in
        `update`, if `params` is missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import sam_optax
      >>> ascent = sam_optax.adaptive_ascent(rho=1.0, eta=0.0)
      >>> w = jnp.array([2.0, 0.0])
      >>> offset, _ = ascent.update(jnp.array([1.0, 1.0]), ascent.init(w), w)
      >>> print(offset)
      [2. 0.]
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_nonnegative_number("eta", eta)
    masks.check("exempt", exempt)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        if params is None:
            raise ValueError("adaptive_ascent needs params: call update(grads, state, params).")
        one = masks.resolve("exempt", exempt, params, default=False)
        scale = jax.tree.map(
            lambda w, is_one: jnp.ones_like(w) if is_one else jnp.abs(w) + eta, trees.widen(params), one
        )
        scaled = jax.tree.map(jnp.multiply, trees.widen(updates), scale)
        length = hyperparameters.at(rho, state.count) / (trees.norm(scaled) + 1e-16)
        offset = jax.tree.map(lambda s, t: length * s * t, scaled, scale)
        return trees.cast_like(offset, updates), hyperparameters.advance(state)

    return optax.GradientTransformation(hyperparameters.init, update)
