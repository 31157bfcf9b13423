"""Worst-case sharpness: how much the loss rises, at most, in a ball around the parameters."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.sharpness import balls, losses
from sam_optax.sharpness import batches as batches_of
from sam_optax.sharpness.ascent import Ascent, Search, ascend, begin, better
from sam_optax.sharpness.balls import Ball
from sam_optax.typing import Mask, Params


class WorstCase(NamedTuple):
    """How much the loss rises at most.

    Attributes:
      sharpness: `max L(w + δ) − L(w)`, the mean over the batches, weighted by size; NaN where loss or gradient is not
        finite at `w`.
      loss: the unperturbed loss, likewise.
      first_order: the part of it that the gradient explains, `ρ‖∇L‖₁` for ℓ∞ and `ρ‖∇L‖₂` for ℓ2, likewise.
      per_batch: the sharpness of each batch, `(batches,)`.
      history: the losses of each ascent, `(batches, restarts, steps + 1)`: at its start and after each iteration.
      perturbations: the `δ` of each batch, a tree like the parameters, in float32 or wider; None unless they were asked
        for.
    """

    sharpness: jax.Array
    loss: jax.Array
    first_order: jax.Array
    per_batch: jax.Array
    history: jax.Array
    perturbations: tuple[Params, ...] | None = None


class _OfBatch(NamedTuple):
    """What was found on one batch."""

    loss: jax.Array
    first_order: jax.Array
    highest: jax.Array
    history: jax.Array
    perturbation: Params | None


def worst_case(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    rho: Any,
    norm: str = "linf",
    adaptive: bool = False,
    steps: int = 20,
    restarts: int = 1,
    random_start: bool = False,
    mask: Mask | None = None,
    key: jax.Array | None = None,
    keep_perturbations: bool = False,
) -> WorstCase:
    """The worst-case sharpness `max_{‖δ‖ ≤ ρ} L_B(w + δ) − L_B(w)` of each batch, and its mean over the batches.

    The maximum is found by APGD, gradient ascent with momentum whose step halves itself, from `δ = 0`; where there is
    no gradient at all, the next step is random. What is returned is the highest loss that was seen: up to rounding, a
    lower bound of the true maximum. It takes `steps + 1` evaluations of loss and gradient a batch and a start, since
    the loss of an iterate comes with its gradient, and four copies of the parameters (in float32 or wider) beside what
    an evaluation needs.

    Balls: `|δ_i| ≤ ρ` (ℓ∞) and `‖δ‖₂ ≤ ρ` (ℓ2), and in units of each weight, `|δ_i| ≤ ρ|w_i|` and `‖δ/|w|‖₂ ≤ ρ`, where
    they are adaptive. Scaling a layer and undoing it in the next one changes the sharpness of the plain balls, and not
    that of the adaptive ones, whose ascent is that of a plain ball in the coordinates `δ/|w|`. A value depends on its
    radius: `curve` tells more than one of them can.

    The ascent is a Python loop over compiled functions, since a convolution's gradient is slow inside a compiled loop
    on a CPU.

    From "A modern look at the relationship between sharpness and generalization" (Andriushchenko et al., 2023,
    https://arxiv.org/abs/2302.07011); the ascent is that of "Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks" (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch, with BatchNorm in inference mode. It is
        compiled, and kept for the next call: as for `jax.jit`, what it reads beside its arguments must not change.
        State that does, as BatchNorm's, goes into `params` as a branch of its own, outside of `mask`.
      params: where the sharpness is measured; any pytree of real floating arrays. In bfloat16 a small `ρ` is lost in
        rounding: give float32 parameters, and let `loss_fn` compute in whatever precision.
      batches: pytrees of arrays, whose leading axis counts the examples.
      rho: the radius `ρ ≥ 0`, in units of a weight for ℓ∞, of the parameters' norm for ℓ2, relative if adaptive.
      norm: `linf` or `l2`.
      adaptive: whether each weight is its own unit.
      steps: iterations of an ascent.
      restarts: ascents a batch; from the second on they start at random.
      random_start: whether the first one starts at random, too: uniformly in the box, or on the ball's boundary.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.
      key: of all that is random; None is `jax.random.key(0)`.
      keep_perturbations: whether the maximisers are returned, which is a copy of the parameters a batch.

    Returns:
      A `WorstCase`, with `.sharpness` and `.per_batch`.

    Raises:
      ValueError: If `rho` is negative or not finite, if there is no such norm, if `steps` or `restarts` is no positive
        integer, if `mask` does not fit or chooses nothing, or if `batches` holds no batch.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)  # here ½ (w₁² + 4 w₂²)
      >>> w, batch = jnp.array([1.0, -1.0]), jnp.sqrt(2.0) * jnp.diag(jnp.array([1.0, 2.0]))
      >>> result = sharpness.worst_case(loss_fn, w, [batch], rho=0.1)
      >>> print(f"{result.sharpness:.4f}, of which the gradient explains {result.first_order:.4f}")
      0.5250, of which the gradient explains 0.5000
    """
    losses.check("loss_fn", loss_fn)
    hyperparameters.check_nonnegative_number("rho", rho)
    hyperparameters.check_count("steps", steps, "the iterations of an ascent")
    hyperparameters.check_count("restarts", restarts, "the ascents a batch")
    ball = balls.create(norm, adaptive, mask, params)
    collected = batches_of.collect(batches)
    rho, key = jnp.asarray(rho, trees.accumulator_dtype(params)), jax.random.key(0) if key is None else key
    found = []
    for number, batch in enumerate(collected):
        search = Search(loss_fn, params, batch, ball, rho, steps, jax.random.fold_in(key, number))
        draws: list[Any] = [jax.random.fold_in(search.key, start) for start in range(restarts)]
        found.append(_of_batch(search, draws if random_start else [None, *draws[1:]], keep_perturbations))
    return _summary(found, collected)


def _of_batch(search: Search, draws: list[Any], keep: bool) -> _OfBatch:
    """The ascents of one batch, one a draw; None starts at the parameters themselves."""
    ball, params, rho = search.ball, search.params, search.rho
    centre = trees.widen(params)
    loss, gradient = search.evaluate(centre)
    first_order = rho * ball.dual_norm(gradient, ball.scale(params))
    ascent = begin(centre, loss, gradient, rho) if draws[0] is None else None
    del gradient  # the ascent takes it over
    highest, best, histories = loss, centre if keep else None, []
    for draw in draws:
        found = ascend(search, _begin_at_random(search, draw) if ascent is None else ascent)
        highest, best = better(highest, best, found.highest, found.best if keep else None)
        histories.append(found.history)
        del found
        ascent = None
    # without a gradient no ascent has been anywhere
    highest = jnp.where(jnp.isfinite(first_order), highest, jnp.nan)
    perturbation = jax.tree.map(jnp.subtract, best, centre) if keep else None
    return _OfBatch(loss, first_order, highest, jnp.stack(histories), perturbation)


def _begin_at_random(search: Search, draw: Any) -> Ascent:
    start = _random_point(search.ball, draw, search.params, search.rho)
    return begin(start, *search.evaluate(start), search.rho)


@functools.partial(jax.jit, static_argnums=0)
def _random_point(ball: Ball, key: jax.Array, params: Params, rho: Any) -> Params:
    return jax.tree.map(jnp.add, trees.widen(params), ball.draw(key, ball.scale(params), params, rho))


def _summary(found: list[_OfBatch], collected: tuple[Any, ...]) -> WorstCase:
    per_batch = jnp.stack([of_batch.highest - of_batch.loss for of_batch in found])
    perturbations = [of_batch.perturbation for of_batch in found if of_batch.perturbation is not None]
    return WorstCase(
        sharpness=batches_of.mean(list(per_batch), collected),
        loss=batches_of.mean([of_batch.loss for of_batch in found], collected),
        first_order=batches_of.mean([of_batch.first_order for of_batch in found], collected),
        per_batch=per_batch,
        history=jnp.stack([of_batch.history for of_batch in found]),
        perturbations=tuple(perturbations) or None,
    )
