"""Where APGD looks back at its progress, and whether it halves its step there."""

import math

import jax

_FIRST = 0.22  # of all iterations
_SHORTER_BY = 0.03  # each stretch than the one before it
_SHORTEST = 0.06
_ENOUGH = 0.75  # of the iterations should improve


def windows(steps: int) -> tuple[int, ...]:
    """For each iteration the number of iterations since the last check point, if it is one, else 0.

    Check points lie at the iterations `⌈p_j n⌉`, counted from 0, with `p_1 = 0.22` and
    `p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06)`. From "Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks" (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690).

    Args:
      steps: the number n of iterations.

    Example:
      >>> from sam_optax.sharpness.step_size import windows
      >>> [i for i, window in enumerate(windows(20)) if window]
      [5, 9, 12, 15, 16, 18, 19]
    """
    before, now, last = 0.0, _FIRST, 0
    found = [0] * steps
    while (point := math.ceil(now * steps)) < steps:
        found[point] = found[point] or point - last  # of few iterations one may be two check points
        before, now, last = now, now + max(now - before - _SHORTER_BY, _SHORTEST), point
    return tuple(found)


def is_too_long(improvements: jax.Array, window: jax.Array, nothing_changed: jax.Array) -> jax.Array:
    """Whether the step is halved: too few iterations of the window improved, or nothing at all has changed in it.

    Args:
      improvements: how many iterations since the last check point found a higher loss than all before.
      window: how many there were; 0 is no check point.
      nothing_changed: whether step and highest loss are what they were at the last check point.
    """
    return (window > 0) & ((improvements < _ENOUGH * window) | nothing_changed)
