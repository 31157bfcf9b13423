"""The ascent compared with its rules in NumPy, its check points, and its condition for a shorter step."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_optax import sharpness
from sam_optax.sharpness.ascent import is_too_long, windows

FREQUENCIES = np.array([3.0, 7.0, 5.0, 11.0, 2.0])
W = np.array([0.1, -0.4, 0.7, 0.2, -0.9])


def _loss(w):
    return np.sum(np.sin(FREQUENCIES * w)) + 0.3 * np.sum(w) ** 2


def _gradient(w):
    return FREQUENCIES * np.cos(FREQUENCIES * w) + 0.6 * np.sum(w)


def _loss_fn(w, batch):
    return jnp.sum(jnp.sin(jnp.asarray(FREQUENCIES) * w)) + 0.3 * jnp.sum(w) ** 2 + 0 * jnp.sum(batch)


def _step(points, gradient, size, rho, norm):
    delta, before = points
    if norm == "linf":
        z = np.clip(delta + size * np.sign(gradient), -rho, rho)
    else:
        z = delta + size * gradient / np.linalg.norm(gradient)
        z *= min(1.0, rho / np.linalg.norm(z))
    return 0.75 * z + 0.25 * before


def _check_points(steps):
    fractions, points = [0.0, 0.22], []
    while math.ceil(fractions[-1] * steps) < steps:
        points.append(math.ceil(fractions[-1] * steps))
        fractions.append(fractions[-1] + max(fractions[-1] - fractions[-2] - 0.03, 0.06))
    return points


def _written_out(rho, norm, steps):
    """The losses of the iterates, and the number of halvings."""
    delta = before = best = np.zeros(5)
    highest, best_gradient, gradient = _loss(W), _gradient(W), _gradient(W)
    size, then, improved, last, halvings = 2 * rho, (2 * rho, highest), 0, 0, 0
    losses = [highest]
    for i in range(steps):
        delta, before = _step((delta, before), gradient, size, rho, norm), delta
        gradient = _gradient(W + delta)
        losses.append(_loss(W + delta))
        if losses[-1] > highest:
            highest, best, best_gradient, improved = losses[-1], delta, gradient, improved + 1
        if i in _check_points(steps):
            few, unchanged = improved < 0.75 * (i - last), then == (size, highest)
            then, improved, last = (size, highest), 0, i
            if few or unchanged:
                delta, before, gradient, size, halvings = best, best, best_gradient, size / 2, halvings + 1
    return losses, halvings


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("rho", [0.02, 0.3, 0.5])
@pytest.mark.parametrize("steps", [5, 20, 100])
def test_every_iterate_follows_the_written_rules(norm, rho, steps, x64):
    losses, halvings = _written_out(rho, norm, steps)
    found = sharpness.worst_case(_loss_fn, jnp.asarray(W), [jnp.ones(1)], rho=rho, norm=norm, steps=steps)
    np.testing.assert_allclose(found.history[0, 0], losses, rtol=1e-9)
    assert found.sharpness == pytest.approx(max(losses) - losses[0], rel=1e-9)
    assert halvings > 0 or steps < 100  # the case includes iterations after a halving


def _points(steps):
    return [i for i, window in enumerate(windows(steps)) if window]


@pytest.mark.parametrize(
    ("steps", "points"),
    [(20, [5, 9, 12, 15, 16, 18, 19]), (100, [22, 41, 57, 70, 80, 87, 93, 99]), (1, []), (3, [1, 2])],
)
def test_the_check_points_are_at_the_published_fractions(steps, points):
    # 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of the iterations; rounding raises 0.70 and 0.80
    found = _points(steps)
    assert len(found) == len(points)
    assert all(abs(i - j) <= (steps == 100) for i, j in zip(found, points, strict=True))


@given(st.integers(1, 500))
def test_the_windows_are_contiguous(steps):
    found = windows(steps)
    assert len(found) == steps
    assert sum(found) == max(_points(steps), default=0)
    assert all(found[i] == i - j for j, i in zip([0, *_points(steps)], _points(steps), strict=False))


@pytest.mark.parametrize(
    ("improvements", "window", "nothing_changed", "halved"),
    [(3, 4, False, False), (2, 4, False, True), (4, 4, True, True), (0, 0, True, False), (4, 5, False, False)],
)
def test_the_step_is_too_long_where_few_iterations_improve_or_nothing_changes(
    improvements, window, nothing_changed, halved
):
    assert bool(is_too_long(improvements, window, nothing_changed)) == halved
