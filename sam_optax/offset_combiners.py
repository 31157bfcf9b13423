"""Combiners that also read the offset `ε` and the loss of the second pass."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.hyperparameters import CountState
from sam_optax.second_pass import SecondPass
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


class OffsetCombiner(NamedTuple):
    """A `Combiner` whose `update` reads the whole second pass and its offset. The structure of the state never changes.

    Attributes:
      init: `init(params) → state`.
      update: `update(clean, second_pass, offset, state) → (gradient, state)`, for a step with a second pass. The
        `SecondPass` has the perturbed gradient, and the perturbed loss if it is known.
      skipped: `skipped(clean, state) → (gradient, state)`, for a step without one.
    """

    init: Callable[[Params], State]
    update: Callable[[Updates, SecondPass, Updates, State], tuple[Updates, State]]
    skipped: Callable[[Updates, State], tuple[Updates, State]]


def explicit_direction(alpha: ScalarOrSchedule = 1.0) -> OffsetCombiner:
    """The combiner of XSAM: descend on `‖g_s‖ d(α)`, with a direction `d(α)` in the plane of the offset and `g_s`.

        d(α) = (sin((1 − α) θ) v_0 + sin(α θ) v_1) / sin θ,  v_0 = ε / ‖ε‖,  v_1 = g_s / ‖g_s‖

    `θ` is the angle between `v_0` and `v_1`, and `α θ` that between `v_0` and `d(α)`. `α = 1` gives the perturbed
    gradient. Above 1 the direction turns further away from the offset. For a zero offset, and for opposite
    directions, which determine no plane, it is `g_s`. From "Revisiting Sharpness-Aware Minimization: A More
    Faithful and Effective Implementation" (Chen and Zhou, 2026, https://arxiv.org/abs/2603.10048).

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
      >>> print(combiner.update(g, sam_optax.SecondPass(g_s), offset, combiner.init(g))[0])
      [1.4142135 1.4142135]
    """
    hyperparameters.check_nonnegative("alpha", alpha)

    def update(clean: Updates, found: SecondPass, offset: Updates, state: CountState) -> tuple[Updates, CountState]:
        wide = _turned(trees.widen(found.gradient), trees.widen(offset), hyperparameters.at(alpha, state.count))
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


class PolyakState(NamedTuple):
    """The state of `polyak_step`.

    Attributes:
      count: the number of updates so far, int32.
      rate: the step size `γ` of the last step, a scalar; 0 before the first step.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    rate: jax.Array


def polyak_step(optimal_loss: ScalarOrSchedule = 0.0, max_rate: ScalarOrSchedule = 1.0) -> OffsetCombiner:
    """The stochastic Polyak step of SAM-SPS, `γ g_s` with `γ = min(max(0, L(w + ε) − ℓ* − ⟨g_s, ε⟩) / ‖g_s‖², γ_b)`.

    The squared norm is at least 1e-12. With this step size, the linearised loss at `w` falls to `ℓ*`, unless the limit
    `γ_b` is active. Every step makes a second pass. From "Adaptive Sharpness-Aware Minimization with a
    Polyak-type Step size" (Oikonomou and Loizou, 2026, https://arxiv.org/abs/2606.01827).

    Args:
      optimal_loss: the smallest loss `ℓ*` of a batch, in units of the loss; a number or a schedule over updates.
      max_rate: the largest step size `γ_b ≥ 0`; a number or a schedule over updates.

    Returns:
      A combiner, whose state has the step size.

    Raises:
      ValueError: If `optimal_loss` or `max_rate` is not finite, or `max_rate` is negative; in `update`, if the second
        pass has no loss; and in `skipped`.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> combiner = sam_optax.polyak_step(max_rate=10.0)
      >>> w, offset = jnp.array([3.0, 4.0]), jnp.array([0.6, 0.8])  # of the loss ‖w‖² / 2
      >>> found = sam_optax.SecondPass(w + offset, jnp.sum((w + offset) ** 2) / 2)
      >>> step, state = combiner.update(w, found, offset, combiner.init(w))
      >>> print(f"{state.rate:.3f}")
      0.333
    """
    hyperparameters.check_number("optimal_loss", optimal_loss)
    hyperparameters.check_nonnegative("max_rate", max_rate)

    def init(params: Params) -> PolyakState:
        return PolyakState(jnp.zeros((), jnp.int32), jnp.zeros((), trees.accumulator_dtype(params)))

    def update(clean: Updates, found: SecondPass, offset: Updates, state: PolyakState) -> tuple[Updates, PolyakState]:
        if found.loss is None:
            raise ValueError(
                "grad_fn returns no loss, from which the step size is computed: give the grad_fn that "
                "sam_optax.value_and_grad returns, or with two_phases descend(..., perturbed_value=loss)."
            )
        gradient = trees.widen(found.gradient)
        length = jnp.maximum(trees.norm(gradient), 1e-6)
        direction = _scaled(gradient, 1 / length)
        lowest, highest = (hyperparameters.at(x, state.count) for x in (optimal_loss, max_rate))
        excess = found.loss - lowest - length * trees.inner(direction, trees.widen(offset))
        rate = jnp.asarray(jnp.minimum(jnp.maximum(excess, 0) / length / length, highest), state.rate.dtype)
        return trees.cast_like(_scaled(gradient, rate), clean), PolyakState(trees.next_count(state.count), rate)

    def skipped(clean: Updates, state: PolyakState) -> tuple[Updates, PolyakState]:
        del clean, state
        raise ValueError("perturb is False, and the step size needs the loss of the second pass: omit perturb.")

    return OffsetCombiner(init, update, skipped)
