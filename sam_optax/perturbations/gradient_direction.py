"""Perturbations along the clean gradient, or along a moving average of the clean gradients."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, trees
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates


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
        return _scaled(scale, trees.widen(updates), updates), hyperparameters.advance(state)

    return optax.GradientTransformation(hyperparameters.init, update)


def unified_ascent(rho: ScalarOrSchedule = 0.05, lam: ScalarOrSchedule = 0.5) -> optax.GradientTransformation:
    """The step `ε = ρ (1 − λ + λ / (‖g‖ + 1e-12)) g`: unnormalised at `λ = 0`, SAM's at `λ = 1`.

    From "Sharpness-Aware Minimization: General Analysis and Improved Rates" (Oikonomou and Loizou, 2025,
    https://arxiv.org/abs/2503.02225).

    Args:
      rho: the radius `ρ ≥ 0`; a number or a schedule over updates. Its units are those of the parameters' global
        L2 norm at `λ = 1`, and those of a learning rate at `λ = 0`.
      lam: the fraction `λ` of the normalised step, from 0 to 1; a number or a schedule over updates.

    Returns:
      A transformation from gradients to offsets of the same shapes and dtypes.

    Raises:
      ValueError: If `rho` is negative or not finite, or `lam` is not from 0 to 1.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.unified_ascent(rho=0.1, lam=0.0)
      >>> offset, _ = ascent.update(jnp.array([3.0, 4.0]), ascent.init(jnp.zeros(2)))
      >>> print(*(f"{x:.1f}" for x in offset))
      0.3 0.4
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_fraction("lam", lam)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        del params
        radius, share = hyperparameters.at(rho, state.count), hyperparameters.at(lam, state.count)
        scale = radius * (1 - share) + radius * share / (trees.norm(updates) + 1e-12)
        return _scaled(scale, trees.widen(updates), updates), hyperparameters.advance(state)

    return optax.GradientTransformation(hyperparameters.init, update)


def loss_increase_ascent(
    sigma: ScalarOrSchedule = 0.35, rho_max: ScalarOrSchedule | None = 0.3
) -> optax.GradientTransformation:
    """The step along the gradient that increases the linearised loss by `σ`, `ε = min(σ / n, ρ_max) g / n`.

    `n = √(‖g‖² + 1e-12) + 1e-12` is the gradient norm, so that `⟨g, ε⟩ = σ` while the radius `σ / n` is below `ρ_max`.
    From "Fix the Loss, Not the Radius: Rethinking the Adversarial Perturbation of Sharpness-Aware Minimization" (Wang
    et al., 2026, https://arxiv.org/abs/2605.10183).

    Args:
      sigma: the increase `σ ≥ 0`, in units of the loss; a number or a schedule over updates.
      rho_max: the largest radius `ρ_max ≥ 0`, in units of the parameters' global L2 norm; a number, a schedule over
        updates, or None for no limit. Without a limit the radius grows as the gradient vanishes. In the authors'
        code, 0 means no limit; here it means no perturbation.

    Returns:
      A transformation from gradients to offsets of the same shapes and dtypes.

    Raises:
      ValueError: If `sigma` or `rho_max` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.loss_increase_ascent(sigma=0.5)
      >>> g = jnp.array([3.0, 4.0])
      >>> offset, _ = ascent.update(g, ascent.init(jnp.zeros(2)))
      >>> print(offset, g @ offset)
      [0.06 0.08] 0.5
    """
    hyperparameters.check_nonnegative("sigma", sigma)
    if rho_max is not None:
        hyperparameters.check_nonnegative("rho_max", rho_max)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        del params
        length = jnp.hypot(trees.norm(updates), 1e-6) + 1e-12  # √(‖g‖² + 1e-12), which does not overflow
        radius = hyperparameters.at(sigma, state.count) / length
        if rho_max is not None:
            radius = jnp.minimum(radius, hyperparameters.at(rho_max, state.count))
        return _scaled(radius / length, trees.widen(updates), updates), hyperparameters.advance(state)

    return optax.GradientTransformation(hyperparameters.init, update)


class AverageState(NamedTuple):
    """A moving average of the clean gradients: the state of `smoothed_ascent` and of `friendly_ascent`.

    Attributes:
      count: the number of updates so far, int32.
      average: a tree like the parameters, in float32 or wider, since a slow average in bfloat16 would not change at
        all; zero before the first update.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    average: Updates


def smoothed_ascent(rho: ScalarOrSchedule = 0.05, theta: float = 0.9) -> optax.GradientTransformation:
    """The step of length `ρ` along the smoothed gradient, `ε = ρ m / (‖m‖ + 1e-7)` with `m ← (1−θ) m + θ g`.

    `m` starts as the first gradient. Smoothing suppresses the variance of the ascent direction, which is large for
    small batches and makes the perturbation less adversarial. From "Enhancing Sharpness-Aware Optimization Through
    Variance Suppression" (Li and Giannakis, 2023, https://arxiv.org/abs/2309.15639).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      theta: the weight `θ` of the newest gradient, from 0 to 1. At 1 it is SAM's perturbation, except for the `1e-7`.

    Returns:
      A transformation from gradients to offsets of the same shapes and dtypes. Its state is one copy of them
      in float32 or wider.

    Raises:
      ValueError: If `rho` is negative or not finite, or `theta` is not from 0 to 1.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.smoothed_ascent(rho=0.1, theta=0.5)
      >>> _, state = ascent.update(jnp.array([2.0, 0.0]), ascent.init(jnp.zeros(2)))
      >>> offset, _ = ascent.update(jnp.array([4.0, 8.0]), state)
      >>> print(offset)
      [0.06 0.08]
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_fraction_number("theta", theta)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        del params
        moved = _advance_average(state, updates, theta)
        scale = hyperparameters.at(rho, state.count) / (trees.norm(moved.average) + 1e-7)
        return _scaled(scale, moved.average, updates), moved

    return optax.GradientTransformation(_init_average, update)


def friendly_ascent(rho: ScalarOrSchedule = 0.1, sigma: float = 1.0, lam: float = 0.9) -> optax.GradientTransformation:
    """The step of length `ρ` along the batch's own part of the gradient, `ε = ρ d / (‖d‖ + 1e-12)`, `d = g − σ m`.

    `m` is the moving average of the previous gradients, `m ← λ m + (1−λ) g`, an estimate of the full gradient. It
    starts as the first gradient, and the first `d` is `g`. From "Friendly Sharpness-Aware Minimization"
    (Li et al., 2024, https://arxiv.org/abs/2403.12350).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
      sigma: the weight `σ ≥ 0` of the average that is subtracted. At 0 it is SAM's perturbation.
      lam: the fraction `λ` of the average that is kept in each update, from 0 to 1.

    Returns:
      A transformation from gradients to offsets of the same shapes and dtypes. Its state is one copy of them
      in float32 or wider.

    Raises:
      ValueError: If `rho` or `sigma` is negative or not finite, or `lam` is not from 0 to 1.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.friendly_ascent(rho=0.1)
      >>> first, state = ascent.update(jnp.array([3.0, 4.0]), ascent.init(jnp.zeros(2)))
      >>> second, _ = ascent.update(jnp.array([3.0, 6.0]), state)
      >>> print(first, second)
      [0.06 0.08] [0.  0.1]
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_nonnegative_number("sigma", sigma)
    hyperparameters.check_fraction_number("lam", lam)

    def update(updates: Updates, state: State, params: Params | None = None) -> tuple[Updates, State]:
        del params
        # before the first update m = 0, so that the first d is g
        own = jax.tree.map(lambda g, m: g - sigma * m, trees.widen(updates), state.average)
        scale = hyperparameters.at(rho, state.count) / (trees.norm(own) + 1e-12)
        return _scaled(scale, own, updates), _advance_average(state, updates, 1 - lam)

    return optax.GradientTransformation(_init_average, update)


def _init_average(params: Params) -> AverageState:
    """The state before the first update."""
    return AverageState(jnp.zeros((), jnp.int32), trees.widen(trees.zeros_like(params)))


def _advance_average(state: AverageState, gradient: Updates, share: chex.Numeric) -> AverageState:
    """The state one update later: `m ← (1 − share) m + share g`, and `m = g` after the first update."""
    share = jnp.where(state.count == 0, 1, share)
    moved = jax.tree.map(
        # not m + share (g − m), which is not exactly g if the share is 1
        lambda m, g: (1 - share) * m + share * g,
        state.average,
        trees.widen(gradient),
    )
    return AverageState(trees.next_count(state.count), trees.cast_like(moved, state.average))


def _scaled(scale: jax.Array, direction: Updates, like: Updates) -> Updates:
    """The offset `scale · direction`, in the dtypes of `like`."""
    return trees.cast_like(jax.tree.map(lambda x: scale * x, direction), like)
