"""The perturbation of ASAM, along the gradient in units of each weight."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, masks, trees
from sam_optax.typing import Mask, Params, ScalarOrSchedule, State, Updates


def adaptive_ascent(
    rho: ScalarOrSchedule = 0.5, eta: float = 0.01, exempt: Mask | None = None
) -> optax.GradientTransformation:
    """The step of length `ρ` in units of each weight, `ε = ρ T² g / (‖T g‖ + 1e-16)` with `T = |w| + η`.

    Scaling a layer and undoing it in the next one does not change this neighbourhood. From "ASAM: Adaptive
    Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks" (Kwon et al., 2021,
    https://arxiv.org/abs/2102.11600).

    Args:
      rho: the radius `ρ ≥ 0`, relative to the weights; a number or a schedule over updates.
      eta: `η ≥ 0`, in units of a weight; with `η > 0`, weights near zero are perturbed, too.
      exempt: the leaves where `T = 1`: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation from gradients (and the parameters) to offsets of the same shapes and dtypes.

    Raises:
      ValueError: If `rho` or `eta` is negative or not finite, if `exempt` is not a tree of bools, or, in
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

    def scale(params: Params) -> Updates:
        one = masks.resolve("exempt", exempt, params, default=False)
        return jax.tree.map(
            lambda w, is_one: jnp.ones_like(w) if is_one else jnp.abs(w) + eta, trees.widen(params), one
        )

    return _scaled_ascent("adaptive_ascent", rho, scale, tiny=1e-16)


def ported_adaptive_ascent(rho: ScalarOrSchedule = 2.0) -> optax.GradientTransformation:
    """The step `ε = ρ w² g / (‖|w| g‖ + 1e-12)`, which most PyTorch ports of SAM call adaptive.

    It differs from ASAM's `adaptive_ascent`: it has no `η`, so that a weight at zero is not perturbed, and it scales
    the biases like the weights. It needs a radius about four times as large. Use it with settings that were tuned with
    such a port, for example with `adaptive=True` of davda54/sam.

    Args:
      rho: the radius `ρ ≥ 0`, relative to the weights; a number or a schedule over updates.

    Returns:
      A transformation from gradients (and the parameters) to offsets of the same shapes and dtypes.

    Raises:
      ValueError: If `rho` is negative or not finite, or, in `update`, if `params` is missing.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.ported_adaptive_ascent(rho=1.0)
      >>> w = jnp.array([2.0, 0.0])
      >>> offset, _ = ascent.update(jnp.array([1.0, 1.0]), ascent.init(w), w)
      >>> print(offset)
      [2. 0.]
    """
    hyperparameters.check_nonnegative("rho", rho)

    def scale(params: Params) -> Updates:
        return jax.tree.map(jnp.abs, trees.widen(params))

    return _scaled_ascent("ported_adaptive_ascent", rho, scale, tiny=1e-12)


def _scaled_ascent(
    name: str, rho: ScalarOrSchedule, scale: Callable[[Params], Updates], tiny: float
) -> optax.GradientTransformation:
    """`ε = ρ T² g / (‖T g‖ + tiny)` with `T = scale(params)`."""

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        if params is None:
            raise ValueError(f"{name} needs params: call update(grads, state, params).")
        by = scale(params)
        scaled = _finite_product(trees.widen(updates), by)
        length = hyperparameters.at(rho, state.count) / (trees.norm(scaled) + tiny)
        offset = jax.tree.map(lambda s, t: length * s * t, scaled, by)
        return trees.cast_like(offset, updates), hyperparameters.advance(state)

    return optax.GradientTransformation(hyperparameters.init, update)


def _finite_product(updates: Updates, scale: Updates) -> Updates:
    """`T g`, or `T g / ‖g‖` if `T g` overflows, since the offset depends only on the direction of `g`."""
    scaled = jax.tree.map(jnp.multiply, updates, scale)
    divisor = jnp.where(jnp.isfinite(trees.inner(scaled, scaled)), 1, trees.norm(updates))
    return jax.tree.map(lambda g, t: g / divisor * t, updates, scale)
