"""Combiners that also read the offset `ε` of the second pass."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.hyperparameters import CountState
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


class OffsetCombiner(NamedTuple):
    """A `Combiner` whose `update` also reads the offset of the second pass. The structure of the state never changes.

    Attributes:
      init: `init(params) → state`.
      update: `update(clean, perturbed, offset, state) → (gradient, state)`, for a step with a second pass.
      skipped: `skipped(clean, state) → (gradient, state)`, for a step without one.
    """

    init: Callable[[Params], State]
    update: Callable[[Updates, Updates, Updates, State], tuple[Updates, State]]
    skipped: Callable[[Updates, State], tuple[Updates, State]]


def explicit_direction(alpha: ScalarOrSchedule = 1.0) -> OffsetCombiner:
    """XSAM's choice: descend on `‖g_s‖ d(α)`, with a direction `d(α)` in the plane of the offset and `g_s`.

        d(α) = (sin((1 − α) θ) v_0 + sin(α θ) v_1) / sin θ,  v_0 = ε / ‖ε‖,  v_1 = g_s / ‖g_s‖

    `θ` is the angle between `v_0` and `v_1`, and `α θ` that between `v_0` and `d(α)`. At `α = 1` it is SAM's choice.
    Above 1 the direction turns further away from the offset. For a zero offset, and for opposite directions, which
    determine no plane, it is `g_s`. From "Revisiting Sharpness-Aware Minimization: A More Faithful and Effective
    Implementation" (Chen and Zhou, 2026, https://arxiv.org/abs/2603.10048).

    Args:
      alpha: the position `α ≥ 0` between the offset, 0, and `g_s`, 1; a number or a schedule over updates.

    Returns:
      A combiner.

    Raises:
      ValueError: If `alpha` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> combiner = sam_optax.explicit_direction(alpha=0.5)
      >>> g, g_s, offset = jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]), jnp.array([0.1, 0.0])
      >>> print(combiner.update(g, g_s, offset, combiner.init(g))[0])
      [1.4142135 1.4142135]
    """
    hyperparameters.check_nonnegative("alpha", alpha)

    def update(clean: Updates, perturbed: Updates, offset: Updates, state: CountState) -> tuple[Updates, CountState]:
        wide = _turned(trees.widen(perturbed), trees.widen(offset), hyperparameters.at(alpha, state.count))
        return trees.cast_like(wide, clean), hyperparameters.advance(state)

    def skipped(clean: Updates, state: CountState) -> tuple[Updates, CountState]:
        return clean, hyperparameters.advance(state)

    return OffsetCombiner(hyperparameters.init, update, skipped)


def _turned(perturbed: Updates, offset: Updates, alpha: jax.Array) -> Updates:
    """Returns `‖g_s‖ d(α)`."""
    length, radius = trees.norm(perturbed), trees.norm(offset)
    v_0, v_1 = _scaled(offset, 1 / (radius + 1e-12)), _scaled(perturbed, 1 / (length + 1e-12))
    sum_and_difference = [trees.norm(jax.tree.map(operation, v_0, v_1)) for operation in (jnp.add, jnp.subtract)]
    # The arc cosine of the inner product is NaN if rounding makes the product larger than 1.
    angle = 2 * jnp.arctan2(sum_and_difference[1], sum_and_difference[0])
    sine = jnp.sin(angle)
    is_small = angle < 1e-8
    divisor = jnp.where(is_small, 1, sine)
    of_offset = jnp.where(is_small, 1 - alpha, jnp.sin((1 - alpha) * angle) / divisor)
    of_gradient = jnp.where(is_small, alpha, jnp.sin(alpha * angle) / divisor)
    is_plane = (radius > 0) & (jnp.pi - angle > jnp.sqrt(jnp.finfo(angle.dtype).eps))
    return jax.tree.map(
        lambda g, x, y: jnp.where(is_plane, length * (of_offset * x + of_gradient * y), g), perturbed, v_0, v_1
    )


def _scaled(tree: Updates, factor: jax.Array) -> Updates:
    return jax.tree.map(lambda x: factor * x, tree)
