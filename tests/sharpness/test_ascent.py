"""The ascent, against its rules written out in NumPy."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from sam_optax import sharpness

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
def test_every_iterate_is_that_of_the_rules(norm, rho, steps, x64):
    losses, halvings = _written_out(rho, norm, steps)
    found = sharpness.worst_case(_loss_fn, jnp.asarray(W), [jnp.ones(1)], rho=rho, norm=norm, steps=steps)
    np.testing.assert_allclose(found.history[0, 0], losses, rtol=1e-9)
    assert found.sharpness == pytest.approx(max(losses) - losses[0], rel=1e-9)
    assert halvings > 0 or steps < 100  # what follows a halving is seen, too
