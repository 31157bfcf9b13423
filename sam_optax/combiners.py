"""Combiners: pure functions from the clean gradient `g` and the perturbed gradient `g_s` to a method's gradient."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, trees
from sam_optax.hyperparameters import CountState
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


class Combiner(NamedTuple):
    """Three pure functions that compute the gradient of a method. The structure of the state never changes.

    Attributes:
      init: `init(params) → state`.
      update: `update(clean, perturbed, state) → (gradient, state)`, for a step with a second pass.
      skipped: `skipped(clean, state) → (gradient, state)`, for a step without one.
    """

    init: Callable[[Params], State]
    update: Callable[[Updates, Updates, State], tuple[Updates, State]]
    skipped: Callable[[Updates, State], tuple[Updates, State]]


def perturbed_gradient() -> Combiner:
    """The combiner of SAM: descend on `g_s`; on a skipped step, on `g`.

    From "Sharpness-Aware Minimization for Efficiently Improving Generalization" (Foret et al., 2021,
    https://arxiv.org/abs/2010.01412).

    Returns:
      A combiner without state.

    Example:
      >>> import sam_optax
      >>> combiner = sam_optax.perturbed_gradient()
      >>> combiner.update({"w": 1.0}, {"w": 2.0}, combiner.init({"w": 0.0}))[0]
      {'w': 2.0}
    """
    return Combiner(
        init=lambda params: optax.EmptyState(),
        update=lambda clean, perturbed, state: (perturbed, state),
        skipped=lambda clean, state: (clean, state),
    )


def stabilized() -> Combiner:
    """The combiner of StableSAM: descend on `‖g‖ / (‖g_s‖ + 1e-12) · g_s`, in the direction of `g_s` with `g`'s length.

    Near a minimum `g` vanishes and SAM's `g_s` stays long, so that SAM needs a smaller learning rate than its base
    optimizer. With the length of `g` this is not necessary. From "Stabilizing Sharpness-aware Minimization Through A
    Simple Renormalization Strategy" (Tan et al., 2024, https://arxiv.org/abs/2401.07250).

    Returns:
      A combiner without state.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> combiner = sam_optax.stabilized()
      >>> g, g_s = jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])
      >>> print(combiner.update(g, g_s, combiner.init(g))[0])
      [0. 5.]
    """

    def combine(clean: Updates, perturbed: Updates) -> Updates:
        scale = trees.norm(clean) / (trees.norm(perturbed) + 1e-12)
        return jax.tree.map(lambda g_s: scale * g_s, trees.widen(perturbed))

    return _stateless(combine)


def weighted(gamma: float = 0.9) -> Combiner:
    """The combiner of WSAM: descend on `(1 − a) g + a g_s` with `a = γ / (1 − γ)`.

    The sharpness, `L(w + ε) − L(w)`, is added to the loss with the weight `a`. SAM has `γ = ½`; the weight is smaller
    for `γ < ½` and larger for `γ > ½`. From "Sharpness-Aware Minimization Revisited: Weighted Sharpness as a
    Regularization Term" (Yue et al., 2023, https://arxiv.org/abs/2305.15817).

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

    def combine(clean: Updates, perturbed: Updates) -> Updates:
        return jax.tree.map(lambda g, g_s: (1 - share) * g + share * g_s, trees.widen(clean), trees.widen(perturbed))

    return _stateless(combine)


def surplus() -> Combiner:
    """The gradient of the sharpness, `g_s − g`, which is that of `L(w + ε) − L(w)`; zero on a skipped step.

    It is for methods that separate it from the gradient of the loss, such as `wsam_decoupled`. From "Sharpness-Aware
    Minimization Revisited: Weighted Sharpness as a Regularization Term" (Yue et al., 2023,
    https://arxiv.org/abs/2305.15817).

    Returns:
      A combiner without state.

    Example:
      >>> import sam_optax
      >>> combiner = sam_optax.surplus()
      >>> print(combiner.update({"w": 1.0}, {"w": 3.0}, combiner.init({"w": 0.0}))[0]["w"])
      2.0
    """

    def combine(clean: Updates, perturbed: Updates) -> Updates:
        return jax.tree.map(jnp.subtract, trees.widen(perturbed), trees.widen(clean))

    return _stateless(combine, skipped=lambda clean: jax.tree.map(jnp.zeros_like, clean))


def _stateless(
    combine: Callable[[Updates, Updates], Updates], skipped: Callable[[Updates], Updates] = lambda clean: clean
) -> Combiner:
    """The combiner without state that returns `combine(clean, perturbed)` in the dtypes of `clean`."""

    def update(clean: Updates, perturbed: Updates, state: optax.EmptyState) -> tuple[Updates, optax.EmptyState]:
        return trees.cast_like(combine(clean, perturbed), clean), state

    return Combiner(lambda params: optax.EmptyState(), update, lambda clean, state: (skipped(clean), state))


def gap_guided(alpha: ScalarOrSchedule = 0.02) -> Combiner:
    """The combiner of GSAM: descend on `g_s − α g_⊥`, with the part of `g` that is orthogonal to `g_s`.

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
    """The combiner that returns `gradient(alpha, clean, perturbed)`, computed in the accumulator's dtype."""
    hyperparameters.check_nonnegative("alpha", alpha)

    def update(clean: Updates, perturbed: Updates, state: CountState) -> tuple[Updates, CountState]:
        wide = gradient(hyperparameters.at(alpha, state.count), trees.widen(clean), trees.widen(perturbed))
        return trees.cast_like(wide, clean), hyperparameters.advance(state)

    def skipped(clean: Updates, state: CountState) -> tuple[Updates, CountState]:
        return clean, hyperparameters.advance(state)

    return Combiner(hyperparameters.init, update, skipped)


class ReuseState(NamedTuple):
    """The state of `reuse`.

    Attributes:
      count: the number of updates so far, int32, at which `alpha` is read.
      direction: `v`, a tree like the parameters of norm 1; zero before the first second pass.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    direction: Updates


def reuse(alpha: ScalarOrSchedule = 0.7) -> Combiner:
    """The combiner of LookSAM: descend on `g_s`, and on skipped steps on `g + α ‖g‖ v`.

    `v` is the part of the last `g_s` that is orthogonal to the `g` of its step, `g_s − ⟨g, g_s⟩ / (‖g‖² + 1e-12) g`,
    normalised to length 1. This part leads to flat regions and changes slowly. If it consists only of rounding errors
    (below `1e-6 ‖g_s‖`, in 64 bits `1e-12 ‖g_s‖`), `v` is zero. From "Towards Efficient and Scalable Sharpness-Aware
    Minimization" (Liu et al., 2022, https://arxiv.org/abs/2203.02714).

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
