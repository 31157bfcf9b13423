"""The part of an old second pass that ages slowly, used again: the combiner of LookSAM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.combiners.combiner import Combiner
from sam_optax.typing import ScalarOrSchedule, Updates


class ReuseState(NamedTuple):
    """What LookSAM remembers.

    Attributes:
      count: the number of updates so far, int32: where `alpha` is read.
      direction: `v`, a tree like the parameters of norm 1; zero before the first second pass.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    direction: Updates


def reuse(alpha: ScalarOrSchedule = 0.7) -> Combiner:
    """LookSAM's choice: descend on `g_s`, and on skipped steps on `g + α ‖g‖ v`.

    `v` is the part of the last `g_s` that is orthogonal to the `g` of its step, `g_s − ⟨g, g_s⟩ / (‖g‖² + 1e-12) g`, at
    length 1: the part that turns towards flat regions, and that changes slowly. Where the rest is nothing but
    rounding (below `1e-6 ‖g_s‖`, in 64 bits `1e-12 ‖g_s‖`) it is zero. From "Towards Efficient and Scalable
    Sharpness-Aware Minimization" (Liu et al., 2022, https://arxiv.org/abs/2203.02714).

    Args:
      alpha: the weight `α ≥ 0` of the old direction; a number or a schedule over updates.

    Returns:
      A combiner. Its state is one copy of the parameters.

    Raises:
      ValueError: If `alpha` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> combiner = sam_optax.reuse(alpha=0.5)
      >>> g, g_s = jnp.array([2.0, 0.0]), jnp.array([1.0, 3.0])
      >>> _, state = combiner.update(g, g_s, combiner.init(g))
      >>> print(combiner.skipped(g, state)[0])
      [2. 1.]
    """
    hyperparameters.check_nonnegative("alpha", alpha)

    def init(params: Updates) -> ReuseState:
        return ReuseState(jnp.zeros((), jnp.int32), trees.zeros_like(params))

    def update(clean: Updates, perturbed: Updates, state: ReuseState) -> tuple[Updates, ReuseState]:
        direction = _orthogonal_direction(trees.widen(clean), trees.widen(perturbed))
        return perturbed, _advance(state, trees.cast_like(direction, state.direction))

    def skipped(clean: Updates, state: ReuseState) -> tuple[Updates, ReuseState]:
        length = hyperparameters.at(alpha, state.count) * trees.norm(clean)
        wide = jax.tree.map(lambda g, v: g + length * v, trees.widen(clean), trees.widen(state.direction))
        return trees.cast_like(wide, clean), _advance(state, state.direction)

    return Combiner(init, update, skipped)


def _advance(state: ReuseState, direction: Updates) -> ReuseState:
    return ReuseState(trees.next_count(state.count), direction)


def _orthogonal_direction(clean: Updates, perturbed: Updates) -> Updates:
    """The direction of the part of `perturbed` that is orthogonal to `clean`, of length 1, or zero."""
    along = trees.quotient(trees.wide_inner(clean, perturbed), trees.wide_inner(clean, clean), tiny=1e-12)
    rest = jax.tree.map(lambda g, g_s: g_s - along * g, clean, perturbed)
    length = trees.norm(rest)
    rounding = 1e-12 if length.dtype == jnp.float64 else 1e-6
    meaningful = length > rounding * trees.norm(perturbed)
    scale = jnp.where(meaningful, 1 / jnp.where(meaningful, length, 1), 0)
    return jax.tree.map(lambda x: scale * x, rest)
