"""What the second pass adds to the first, alone."""

import jax
import jax.numpy as jnp
import optax

from sam_optax import trees
from sam_optax.combiners.combiner import Combiner
from sam_optax.typing import Updates


def surplus() -> Combiner:
    """The gradient of the sharpness, `g_s − g`, which is that of `L(w + ε) − L(w)`; zero on a skipped step.

    For methods that treat it apart from the loss, as `wsam_decoupled` does. From "Sharpness-Aware Minimization
    Revisited: Weighted Sharpness as a Regularization Term" (Yue et al., 2023, https://arxiv.org/abs/2305.15817).

    Returns:
      A combiner without state.

    Example:
      >>> import sam_optax
      >>> combiner = sam_optax.surplus()
      >>> print(combiner.update({"w": 1.0}, {"w": 3.0}, combiner.init({"w": 0.0}))[0]["w"])
      2.0
    """

    def update(clean: Updates, perturbed: Updates, state: optax.EmptyState) -> tuple[Updates, optax.EmptyState]:
        wide = jax.tree.map(jnp.subtract, trees.widen(perturbed), trees.widen(clean))
        return trees.cast_like(wide, clean), state

    def skipped(clean: Updates, state: optax.EmptyState) -> tuple[Updates, optax.EmptyState]:
        return jax.tree.map(jnp.zeros_like, clean), state

    return Combiner(lambda params: optax.EmptyState(), update, skipped)
