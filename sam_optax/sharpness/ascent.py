"""APGD: projected gradient ascent with momentum and an adaptive step size, with one gradient per iteration."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import trees
from sam_optax.sharpness import losses
from sam_optax.sharpness.balls import Ball
from sam_optax.typing import Params, Updates

_TOWARDS = 0.75  # the weight of the projected step; the point before the last one has the rest
_FIRST = 0.22  # the first check point, as a fraction of all iterations
_SHORTER_BY = 0.03  # how much the fraction between two check points decreases each time
_SHORTEST = 0.06  # the smallest fraction between two check points
_ENOUGH = 0.75  # the fraction of the iterations since a check point that should improve


class Ascent(NamedTuple):
    """The state of an ascent between iterations. Points are parameters, in the accumulator's dtype.

    It holds points and not offsets, since the loss needs the parameters anyway; this saves a copy of them.

    Attributes:
      point: the point at which the loss is evaluated next.
      previous: the point before it.
      best: the point of the highest loss so far.
      best_gradient: the gradient there.
      highest: the highest loss so far.
      step: the step size.
      improvements: iterations since the last check point that found a higher loss.
      highest_then: `highest` at the last check point.
      step_then: `step` at the last check point.
    """

    point: Params
    previous: Params
    best: Params
    best_gradient: Updates
    highest: jax.Array
    step: jax.Array
    improvements: jax.Array
    highest_then: jax.Array
    step_then: jax.Array


class Search(NamedTuple):
    """The problem of finding the highest loss in a ball.

    Attributes:
      loss_fn: `loss_fn(params, batch)` → scalar.
      params: the centre of the ball; all leaves move.
      batch: the second argument of `loss_fn`.
      ball: the neighbourhood.
      rho: its radius.
      steps: the number of iterations of an ascent.
      key: draws the direction at a point whose gradient is zero.
    """

    loss_fn: Callable[..., Any]
    params: Params
    batch: Any
    ball: Ball
    rho: Any
    steps: int
    key: jax.Array

    def evaluate(self, point: Params) -> tuple[jax.Array, Updates]:
        """The loss at `point`, which is converted to the dtypes of the parameters, and its gradient."""
        return losses.value_and_grad(self.loss_fn, trees.cast_like(point, self.params), self.batch)


class Found(NamedTuple):
    """The result of an ascent: the highest loss, its point, and the losses at the start and after each iteration."""

    highest: jax.Array
    best: Params
    history: jax.Array


def begin(point: Params, loss: jax.Array, gradient: Updates, rho: Any) -> Ascent:
    """An ascent before its first step, from a point with its loss and its gradient.

    Every tree has its own buffers, which the iterations donate; the gradient is not copied.
    """
    first, again, best = (jax.tree.map(jnp.copy, trees.widen(point)) for _ in range(3))
    loss, step = jnp.array(loss), jnp.array(2 * rho, trees.accumulator_dtype(point))
    none = jnp.zeros((), jnp.int32)
    return Ascent(first, again, best, trees.widen(gradient), loss, step, none, loss.copy(), step.copy())


def ascend(search: Search, ascent: Ascent) -> Found:
    """The highest loss that APGD finds in the ball around `params`, in `steps` evaluations of loss and gradient.

    Each iteration steps along the ascent direction, first by 2ρ, and projects onto the ball to get `z`; then
    `δ_{k+1} = ¾ z + ¼ δ_{k−1}`. At check points the step may be halved. The ascent then continues from the best point,
    with the gradient that was found there and without momentum. The same happens whenever the loss is NaN. If the
    gradient is zero, as at a minimum, the direction is random.

    From "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks" (Croce and
    Hein, 2020, https://arxiv.org/abs/2003.01690), as "A modern look at the relationship between sharpness and
    generalization" (Andriushchenko et al., 2023, https://arxiv.org/abs/2302.07011) uses it on parameters.

    Args:
      search: the problem.
      ascent: the result of `begin`; its buffers are donated.

    Returns:
      The highest loss, including that of the start.
    """
    history, around = [ascent.highest.copy()], (search.params, search.rho, search.key)
    ascent = _depart(search.ball, around, ascent)
    for window in windows(search.steps)[:-1]:
        loss, gradient = search.evaluate(ascent.point)
        history.append(loss)
        ascent = _iterate(search.ball, around, ascent, (loss, gradient), window)
        del gradient  # frees the memory of a copy of the parameters for the next gradient
    loss, _ = search.evaluate(ascent.point)
    highest, best = better(ascent.highest, ascent.best, loss, ascent.point)
    return Found(highest, best, jnp.stack([*history, loss]))


def windows(steps: int) -> tuple[int, ...]:
    """For each iteration the number of iterations since the last check point, if it is a check point, else 0.

    At a check point APGD looks back at its progress, and may halve its step.

    Check points lie at the iterations `⌈p_j n⌉`, counted from 0, with `p_1 = 0.22` and
    `p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06)`. From "Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks" (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690).

    Args:
      steps: the number n of iterations.

    Example:
      >>> from sam_optax.sharpness.ascent import windows
      >>> [i for i, window in enumerate(windows(20)) if window]
      [5, 9, 12, 15, 16, 18, 19]
    """
    before, now, last = 0.0, _FIRST, 0
    found = [0] * steps
    while (point := math.ceil(now * steps)) < steps:
        found[point] = found[point] or point - last  # with few iterations, two check points may coincide
        before, now, last = now, now + max(now - before - _SHORTER_BY, _SHORTEST), point
    return tuple(found)


def is_too_long(improvements: jax.Array, window: jax.Array, nothing_changed: jax.Array) -> jax.Array:
    """Whether the step is halved: too few iterations since the last check point improved, or nothing has changed.

    Args:
      improvements: the number of iterations since the last check point that found a new highest loss.
      window: the number of iterations since the last check point; 0 if this is not a check point.
      nothing_changed: whether step and highest loss are equal to those at the last check point.
    """
    are_few = jnp.asarray(improvements, jnp.float32) < _ENOUGH * jnp.asarray(window, jnp.float32)
    return (window > 0) & (are_few | nothing_changed)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _depart(ball: Ball, around: tuple[Params, Any, jax.Array], ascent: Ascent) -> Ascent:
    """Moves from the start to the first point."""
    here = (ascent.point, ascent.previous)
    return ascent._replace(point=_move(ball, around, here, ascent.best_gradient, ascent.step))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _iterate(
    ball: Ball, around: tuple[Params, Any, jax.Array], ascent: Ascent, found: tuple[jax.Array, Updates], window: Any
) -> Ascent:
    """Records the result at the point, halves the step if a check point requires it, and moves to the next point."""
    loss, gradient = found[0], trees.widen(found[1])
    is_higher = loss > ascent.highest
    best, best_gradient = _where(is_higher, (ascent.point, gradient), (ascent.best, ascent.best_gradient))
    highest = jnp.where(is_higher, loss, ascent.highest)
    improvements = ascent.improvements + is_higher.astype(ascent.improvements.dtype)

    unchanged = (ascent.step == ascent.step_then) & (highest == ascent.highest_then)
    # from a point whose loss is NaN, no step continues
    goes_back = is_too_long(improvements, jnp.asarray(window), unchanged) | jnp.isnan(loss)
    point, previous, gradient = _where(
        goes_back, (best, best, best_gradient), (ascent.point, ascent.previous, gradient)
    )
    step = jnp.where(goes_back, ascent.step / 2, ascent.step)

    is_check = jnp.asarray(window) > 0
    return Ascent(
        point=_move(ball, around, (point, previous), gradient, step),
        previous=point,
        best=best,
        best_gradient=best_gradient,
        highest=highest,
        step=step,
        improvements=jnp.where(is_check, 0, improvements),
        highest_then=jnp.where(is_check, highest, ascent.highest_then),
        step_then=jnp.where(is_check, ascent.step, ascent.step_then),
    )


def _move(
    ball: Ball, around: tuple[Params, Any, jax.Array], points: tuple[Params, Params], gradient: Updates, step: jax.Array
) -> Params:
    """The next point, `w + ¾ P(δ_k + step · direction) + ¼ δ_{k−1}`."""
    (params, rho, key), (point, previous) = around, points
    centre = trees.widen(params)
    scale = ball.scale(params)
    direction = ball.direction(gradient, scale, key)
    offset = jax.tree.map(lambda x, w, d: x - w + step * d, point, centre, direction)
    nearest = ball.project(offset, scale, rho)
    return jax.tree.map(
        lambda w, z, before: w + (_TOWARDS * z + (1 - _TOWARDS) * (before - w)), centre, nearest, previous
    )


@jax.jit
def better(highest: jax.Array, best: Params, loss: jax.Array, point: Params) -> tuple[jax.Array, Params]:
    """The higher one of two losses, with its point; the first one if the second is NaN."""
    is_higher = loss > highest
    return jnp.where(is_higher, loss, highest), _where(is_higher, point, best)


def _where(condition: jax.Array, there: Any, otherwise: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), there, otherwise)
