"""The radius that follows the learning rate."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax

BOUNDS = {"lr_min": 0.01, "lr_max": 0.1, "rho_min": 0.02, "rho_max": 0.2}
BAD = [-0.1, float("nan"), float("inf"), "0.1"]


@pytest.mark.parametrize(("rate", "rho"), [(0.01, 0.02), (0.1, 0.2), (0.055, 0.11)])
def test_the_radius_is_linear_in_the_rate(rate, rho):
    np.testing.assert_allclose(sam_optax.proportional_schedule(rate, **BOUNDS)(0), rho, rtol=1e-6)


def test_the_radius_follows_a_cosine_step_by_step():
    cosine = optax.cosine_decay_schedule(0.1, decay_steps=100, alpha=0.1)
    steps = jnp.arange(0, 120, 7)
    rates = 0.01 + 0.09 * (1 + np.cos(np.pi * np.minimum(steps, 100) / 100)) / 2
    radii = jax.vmap(sam_optax.proportional_schedule(cosine, **BOUNDS))(steps)
    np.testing.assert_allclose(radii, 0.02 + 0.18 * (rates - 0.01) / 0.09, rtol=1e-5)


normal = functools.partial(st.floats, 0, width=32, allow_subnormal=False)  # XLA flushes smaller numbers to zero


@hypothesis.given(normal(10), normal(1), normal(1), normal(1), normal(1))
def test_the_radius_never_leaves_its_bounds(rate, lr_a, lr_b, rho_a, rho_b):
    low, high = sorted((rho_a, rho_b))
    schedule = sam_optax.proportional_schedule(rate, min(lr_a, lr_b), max(lr_a, lr_b), low, high)
    assert np.float32(low) <= schedule(0) <= np.float32(high)


def test_a_warm_up_from_below_lr_min_never_makes_the_radius_negative():
    warm_up = optax.linear_schedule(0.0, 0.1, transition_steps=10)
    radii = [float(sam_optax.proportional_schedule(warm_up, **BOUNDS)(step)) for step in range(12)]
    assert radii[0] == pytest.approx(0.02)
    assert min(radii) == radii[0]
    assert radii == sorted(radii)
    assert radii[-1] == pytest.approx(0.2)


@pytest.mark.parametrize("rate", [0.05, 0.1, 1.0])
def test_equal_bounds_of_the_rate_give_the_largest_radius(rate):
    schedule = sam_optax.proportional_schedule(rate, lr_min=0.1, lr_max=0.1, rho_min=0.02, rho_max=0.2)
    np.testing.assert_allclose(schedule(3), 0.2, rtol=1e-6)


def test_the_schedule_can_be_traced_and_drives_a_method():
    rate = optax.linear_schedule(0.1, 0.01, transition_steps=2)
    schedule = sam_optax.proportional_schedule(rate, **BOUNDS)
    np.testing.assert_allclose(jax.jit(schedule)(1), schedule(1), rtol=1e-6)
    tx, w, lengths = sam_optax.sam(schedule), jnp.array([3.0, 4.0]), []
    state, update = tx.init(w), jax.jit(lambda s: tx.update(w, s, w, grad_fn=lambda w: w)[1])
    for _ in range(4):
        state = update(state)
        lengths.append(float(sam_optax.diagnostics(state).perturbation_norm))
    np.testing.assert_allclose(lengths, [0.2, 0.11, 0.02, 0.02], rtol=1e-5)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["learning_rate", *BOUNDS])
def test_a_bad_number_is_refused_by_its_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is .*: give a (finite )?number"):
        sam_optax.proportional_schedule(**({"learning_rate": 0.1} | BOUNDS | {name: value}))


def test_a_rate_that_starts_negative_is_refused():
    with pytest.raises(ValueError, match=r"learning_rate, a schedule, is -0.1 at its first step: give a finite number"):
        sam_optax.proportional_schedule(lambda step: -0.1, **BOUNDS)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_schedule_as_a_bound_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name} is <function .*: give a number. It cannot follow a schedule"):
        sam_optax.proportional_schedule(0.1, **(BOUNDS | {name: lambda step: 0.05}))


@pytest.mark.parametrize(("low", "high"), [("lr_min", "lr_max"), ("rho_min", "rho_max")])
def test_a_minimum_above_its_maximum_is_refused(low, high):
    with pytest.raises(ValueError, match=f"{low} is 0.5, above {high}, .*: exchange them"):
        sam_optax.proportional_schedule(0.1, **(BOUNDS | {low: 0.5}))
