"""The balls: projection, direction, random points and the dual norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_optax.sharpness import balls

BALLS = [(norm, adaptive) for norm in ("linf", "l2") for adaptive in (False, True)]
W = {"a": jnp.array([0.5, -2.0, 0.0]), "b": jnp.array([[1.0, -3.0]])}
KEY = jax.random.key(0)


def _ball(norm, adaptive):
    ball = balls.create(norm, adaptive)
    return ball, ball.scale(W)


def _length(offset, scale, norm):
    parts = jax.tree.map(lambda d, s: jnp.ravel(d / jnp.where(s == 0, 1, s)), offset, scale)
    return float(jnp.linalg.norm(jnp.concatenate(jax.tree.leaves(parts)), jnp.inf if norm == "linf" else 2))


def _tree(numbers):
    return {"a": jnp.array(numbers[:3]), "b": jnp.array([numbers[3:]])}


five = st.lists(st.floats(-5, 5), min_size=5, max_size=5).map(_tree)


@given(st.sampled_from(BALLS), five, st.floats(0.01, 10))
def test_projection_puts_points_inside_and_keeps_inner_points(kind, offset, rho):
    ball, scale = _ball(*kind)
    offset = jax.tree.map(lambda d, s: d * (s > 0), offset, scale)
    inside = ball.project(offset, scale, rho)
    assert _length(inside, scale, ball.norm) <= rho * (1 + 1e-5)
    again = ball.project(inside, scale, rho)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), again, inside)
    if _length(offset, scale, ball.norm) <= rho:
        assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), inside, offset))


@given(st.sampled_from(BALLS), five, five)
def test_no_point_of_the_ball_is_nearer_in_units_of_the_scale(kind, offset, other):
    ball, scale = _ball(*kind)
    offset, other = (jax.tree.map(lambda d, s: d * (s > 0), each, scale) for each in (offset, other))
    inside, other = (ball.project(each, scale, 0.7) for each in (offset, other))

    def distance(point):
        return _length(jax.tree.map(jnp.subtract, point, offset), scale, "l2")

    assert distance(inside) <= distance(other) * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize(("norm", "adaptive"), BALLS)
def test_no_direction_of_its_length_ascends_faster(norm, adaptive):
    ball, scale = _ball(norm, adaptive)
    gradient = _tree([1.0, -0.5, 2.0, 0.1, -4.0])
    direction = ball.direction(gradient, scale, KEY)
    assert _length(direction, scale, norm) == pytest.approx(1.0)
    rise = sum(float(jnp.sum(g * d)) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    assert rise == pytest.approx(float(ball.dual_norm(gradient, scale)))


@pytest.mark.parametrize(("norm", "adaptive"), BALLS)
def test_without_a_gradient_the_direction_is_random_and_of_length_one(norm, adaptive):
    ball, scale = _ball(norm, adaptive)
    nothing = jax.tree.map(jnp.zeros_like, W)
    directions = [ball.direction(nothing, scale, jax.random.key(k)) for k in (0, 1)]
    assert [_length(direction, scale, norm) for direction in directions] == pytest.approx([1.0, 1.0])
    assert not jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), *directions))


@pytest.mark.parametrize(("norm", "adaptive"), BALLS)
def test_a_random_point_lies_in_the_ball(norm, adaptive):
    ball, scale = _ball(norm, adaptive)
    point = ball.draw(KEY, scale, W, 0.3)
    length = _length(point, scale, norm)
    assert length == pytest.approx(0.3) if norm == "l2" else 0.1 < length <= 0.3
    assert point["a"][:2].all()
    assert point["b"].all()
    assert bool(point["a"][2] == 0) == adaptive  # a weight of zero cannot move


def test_the_scale_of_adaptive_balls_is_that_of_the_weights():
    assert _ball("linf", False)[1] == {"a": 1.0, "b": 1.0}
    scale = _ball("l2", True)[1]
    assert list(scale["a"]) == [0.5, 2.0, 0.0]
    assert list(scale["b"][0]) == [1.0, 3.0]


def test_a_large_weight_does_not_overflow_the_direction_of_the_adaptive_l2_ball():
    ball, w = balls.create("l2", True), {"a": jnp.full(3, 1e20)}
    direction = ball.direction({"a": jnp.ones(3)}, ball.scale(w), KEY)
    np.testing.assert_allclose(direction["a"], 1e20 / np.sqrt(3), rtol=1e-5)
