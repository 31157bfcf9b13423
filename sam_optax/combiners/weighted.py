"""The clean gradient and the sharpness, weighted: the combiner of WSAM."""

import jax
import optax

from sam_optax import hyperparameters, trees
from sam_optax.combiners.combiner import Combiner
from sam_optax.typing import Updates


def weighted(gamma: float = 0.9) -> Combiner:
    """WSAM's choice: descend on `(1 − a) g + a g_s` with `a = γ / (1 − γ)`.

    The sharpness, `L(w + ε) − L(w)`, is added to the loss with the weight `a`: with `γ < ½` it counts for less than in
    SAM, which is `γ = ½`, with `γ > ½` for more. From "Sharpness-Aware Minimization Revisited: Weighted Sharpness as
    a Regularization Term" (Yue et al., 2023, https://arxiv.org/abs/2305.15817).

    Args:
      gamma: the weight `0 ≤ γ < 1` of the sharpness.

    Returns:
      A combiner without state.

    Raises:
      ValueError: If `gamma` is not in `[0, 1)`.

    Example:
      >>> import sam_optax
      >>> combiner = sam_optax.weighted(gamma=0.5)
      >>> print(combiner.update({"w": 1.0}, {"w": 3.0}, combiner.init({"w": 0.0}))[0]["w"])
      3.0
    """
    share = hyperparameters.sharpness_weight(gamma)

    def update(clean: Updates, perturbed: Updates, state: optax.EmptyState) -> tuple[Updates, optax.EmptyState]:
        wide = jax.tree.map(lambda g, g_s: (1 - share) * g + share * g_s, trees.widen(clean), trees.widen(perturbed))
        return trees.cast_like(wide, clean), state

    return Combiner(lambda params: optax.EmptyState(), update, lambda clean, state: (clean, state))
