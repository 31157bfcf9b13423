"""The perturbed gradient at the length of the clean one: the combiner of StableSAM."""

import jax
import optax

from sam_optax import trees
from sam_optax.combiners.combiner import Combiner
from sam_optax.typing import Updates


def stabilized() -> Combiner:
    """StableSAM's choice: descend on `‖g‖ / (‖g_s‖ + 1e-12) · g_s`, the direction of one and the length of the other.

    Near a minimum SAM's `g_s` stays long where `g` vanishes, so that it needs a smaller learning rate than its base;
    with the length of `g` it does not. From "Stabilizing Sharpness-aware Minimization Through A Simple
    Renormalization Strategy" (Tan et al., 2024, https://arxiv.org/abs/2401.07250).

    Returns:
      A combiner without state.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> combiner = sam_optax.stabilized()
      >>> g, g_s = jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])
      >>> print(combiner.update(g, g_s, combiner.init(g))[0])
      [0. 5.]
    """

    def update(clean: Updates, perturbed: Updates, state: optax.EmptyState) -> tuple[Updates, optax.EmptyState]:
        scale = trees.norm(clean) / (trees.norm(perturbed) + 1e-12)
        wide = jax.tree.map(lambda g_s: scale * g_s, trees.widen(perturbed))
        return trees.cast_like(wide, clean), state

    return Combiner(lambda params: optax.EmptyState(), update, lambda clean, state: (clean, state))
