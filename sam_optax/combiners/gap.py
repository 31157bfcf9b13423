"""One of both gradients and the surrogate gap between their losses: the combiners of GSAM."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.combiners.combiner import Combiner
from sam_optax.hyperparameters import CountState
from sam_optax.typing import ScalarOrSchedule, Updates


def gap_guided(alpha: ScalarOrSchedule = 0.02) -> Combiner:
    """GSAM's choice: descend on `g_s − α g_⊥`, with the part of `g` that is orthogonal to `g_s`.

    `g_⊥ = g − cos·‖g‖·g_s / (‖g_s‖ + 1e-12)` and `cos = ⟨g, g_s⟩ / (‖g‖‖g_s‖ + 1e-12)`: the perturbed
    loss falls as with SAM, while the surrogate gap to the clean loss, a measure of sharpness, falls too. From
    "Surrogate Gap Minimization Improves Sharpness-Aware Training" (Zhuang et al., 2022,
    https://arxiv.org/abs/2203.08065).

    Args:
      alpha: the weight `α ≥ 0` of the gap, without unit; a number or a schedule over updates.

    Returns:
      A combiner.

    Raises:
      ValueError: If `alpha` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import sam_optax
      >>> combiner = sam_optax.gap_guided(alpha=0.5)
      >>> g, g_s = jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])
      >>> print(combiner.update(g, g_s, combiner.init(g))[0])
      [ 1. -1.]
    """

    def gradient(alpha: jax.Array, clean: Updates, perturbed: Updates) -> Updates:
        clean_norm, perturbed_norm = trees.norm(clean), trees.norm(perturbed)
        norms = trees.wide_product(clean_norm, perturbed_norm)
        cosine = trees.quotient(trees.wide_inner(clean, perturbed), norms, tiny=1e-12)
        along = cosine * clean_norm / (perturbed_norm + 1e-12)
        return jax.tree.map(lambda g, g_s: g_s - alpha * (g - along * g_s), clean, perturbed)

    return _gap_combiner(alpha, gradient)


def gap_guided_clean(alpha: ScalarOrSchedule = 0.02) -> Combiner:
    """GSAM's other form: descend on `g + α (g_s − ⟨g_s, ĝ⟩ ĝ)`, with `ĝ = g / ‖g‖`.

    It minimises the clean loss and the surrogate gap, where `gap_guided` minimises the perturbed loss and the
    gap; training shows fewer spikes of the loss. At `g = 0` the direction `ĝ` is zero. From "Surrogate Gap
    Minimization Improves Sharpness-Aware Training" (Zhuang et al., 2022, https://arxiv.org/abs/2203.08065).

    Args:
      alpha: the weight `α ≥ 0` of the gap, without unit; a number or a schedule over updates.

    Returns:
      A combiner.

    Raises:
      ValueError: If `alpha` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import sam_optax
      >>> combiner = sam_optax.gap_guided_clean(alpha=0.5)
      >>> g, g_s = jnp.array([1.0, 0.0]), jnp.array([3.0, 2.0])
      >>> print(combiner.update(g, g_s, combiner.init(g))[0])
      [1. 1.]
    """

    def gradient(alpha: jax.Array, clean: Updates, perturbed: Updates) -> Updates:
        norm = trees.norm(clean)
        unit = jax.tree.map(lambda g: g / jnp.where(norm > 0, norm, 1), clean)
        along = trees.inner(perturbed, unit)
        return jax.tree.map(lambda g, g_s, u: g + alpha * (g_s - along * u), clean, perturbed, unit)

    return _gap_combiner(alpha, gradient)


def _gap_combiner(alpha: ScalarOrSchedule, gradient: Callable[[jax.Array, Updates, Updates], Updates]) -> Combiner:
    """The combiner that returns `gradient(alpha, clean, perturbed)`, computed wide and rounded once."""
    hyperparameters.check_nonnegative("alpha", alpha)

    def update(clean: Updates, perturbed: Updates, state: CountState) -> tuple[Updates, CountState]:
        wide = gradient(hyperparameters.at(alpha, state.count), trees.widen(clean), trees.widen(perturbed))
        return trees.cast_like(wide, clean), hyperparameters.advance(state)

    def skipped(clean: Updates, state: CountState) -> tuple[Updates, CountState]:
        return clean, hyperparameters.advance(state)

    return Combiner(hyperparameters.init, update, skipped)
