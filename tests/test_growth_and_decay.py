"""A rate that falls and a batch that grows: their ratio is kept at every position, and the conversions are inverse."""

import math
import re
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import BatchPlan
from tests.selection import combinations

EPOCHS = 12
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "constant": optax.constant_schedule(0.1),
    "cosine": optax.cosine_decay_schedule(0.1, EPOCHS, alpha=0.01),
    "cosine_to_zero": optax.cosine_decay_schedule(0.1, EPOCHS - 1),
    "linear": optax.linear_schedule(0.1, 0.001, EPOCHS),
    "steps": optax.piecewise_constant_schedule(0.1, {3: 0.2, 6: 0.2, 9: 0.2}),
    "warmup_cosine": optax.warmup_cosine_decay_schedule(0.0, 0.1, 4, EPOCHS, end_value=0.001),
    "restarts": optax.sgdr_schedule(
        [{"init_value": 0.1, "peak_value": 0.1, "decay_steps": 6, "warmup_steps": 0, "end_value": 0.001}] * 2
    ),
    "plain_python": lambda epoch: 0.1 / (1 + epoch),
}
POSITIONS = np.linspace(0, EPOCHS, 4 * EPOCHS + 1)


@st.composite
def growing(draw: st.DrawFn) -> BatchPlan:
    """A plan whose batch grows from stage to stage."""
    sizes = np.cumsum(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    return BatchPlan.from_stages([(draw(st.integers(1, 3)), int(size)) for size in sizes])


@combinations(
    lambda name, factor: factor == (None, 2, 3)[list(SCHEDULES).index(name) % 3], name=SCHEDULES, factor=(None, 2, 3)
)
def test_the_ratio_of_rate_and_batch_is_kept_at_every_position(name, factor, x64):
    rate = SCHEDULES[name]
    plan, left = sam_optax.growth_for_decay(rate, initial=16, epochs=EPOCHS, maximum=100, factor=factor)
    for t in POSITIONS[:-1]:
        np.testing.assert_allclose(left(t) / plan.batch_size_at(t), rate(t) / 16, rtol=1e-15)


@pytest.mark.parametrize("factor", [None, 2, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_sizes_are_the_largest_that_the_decay_allows(name, factor, x64):
    plan, _ = sam_optax.growth_for_decay(SCHEDULES[name], initial=16, epochs=EPOCHS, maximum=100, factor=factor)
    rates = [float(SCHEDULES[name](epoch)) for epoch in range(EPOCHS)]
    allowed = range(16, 101) if factor is None else [16 * factor**k for k in range(5) if 16 * factor**k <= 100]
    for epoch, rate in enumerate(rates):
        wanted = 16 * max(rates[: epoch + 1]) / rate if rate else math.inf if max(rates[: epoch + 1]) else 16
        assert plan.batch_size_at(epoch) == max(size for size in allowed if size <= max(wanted, 16) + 1e-3)
    assert plan.epochs == EPOCHS
    assert all(a.batch_size != b.batch_size for a, b in zip(plan.stages, plan.stages[1:], strict=False))


@pytest.mark.parametrize("name", SCHEDULES)
def test_decay_for_growth_inverts_growth_for_decay(name, x64):
    plan, left = sam_optax.growth_for_decay(SCHEDULES[name], initial=16, epochs=EPOCHS, maximum=100)
    back = sam_optax.decay_for_growth(plan, left)
    np.testing.assert_allclose([back(t) for t in POSITIONS], [SCHEDULES[name](t) for t in POSITIONS], rtol=1e-15)


@hypothesis.settings(max_examples=25)
@hypothesis.given(growing(), st.floats(1e-3, 1.0))
def test_growth_for_decay_inverts_decay_for_growth(plan, rate):
    decay = sam_optax.decay_for_growth(plan, rate)
    again, left = sam_optax.growth_for_decay(decay, plan.stages[0].batch_size, plan.epochs)
    assert again == plan
    np.testing.assert_allclose([left(epoch) for epoch in range(plan.epochs)], rate, rtol=1e-6)


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=8), st.integers(1, 64), st.integers(0, 500), st.booleans()
)
def test_sizes_stay_within_their_bounds_and_the_rate_below_its_peak(rates, initial, above, doubling):
    maximum, factor = initial + above, 2 if doubling else None
    rate = lambda epoch: rates[int(epoch)]  # noqa: E731
    plan, left = sam_optax.growth_for_decay(rate, initial, len(rates), maximum=maximum, factor=factor)
    assert all(initial <= stage.batch_size <= maximum for stage in plan.stages)
    assert plan.stages[0].batch_size == initial
    assert not doubling or {math.log2(stage.batch_size / initial) % 1 for stage in plan.stages} == {0}
    assert max(float(left(epoch)) for epoch in range(len(rates))) <= max(rates) * (1 + 3e-6)
    for epoch in range(len(rates)):
        np.testing.assert_allclose(left(epoch) / plan.batch_size_at(epoch), rates[epoch] / initial, rtol=1e-6)


def test_decay_steps_become_stages_at_a_constant_rate():
    plan, left = sam_optax.growth_for_decay(SCHEDULES["steps"], initial=128, epochs=EPOCHS)
    assert str(plan) == "3x128,3x640,3x3200,3x16000"
    np.testing.assert_allclose([left(t) for t in POSITIONS], 0.1, rtol=1e-6)


def test_above_the_maximum_batch_size_the_rate_decays():
    plan, left = sam_optax.growth_for_decay(SCHEDULES["steps"], initial=128, epochs=EPOCHS, maximum=640)
    assert str(plan) == "3x128,9x640"
    np.testing.assert_allclose([left(t) for t in (0, 3, 6, 9)], [0.1, 0.1, 0.02, 0.004], rtol=1e-6)


def test_the_remaining_decay_is_read_per_update():
    plan, left = sam_optax.growth_for_decay(SCHEDULES["linear"], initial=10, epochs=EPOCHS, maximum=40)
    per_step = jax.jit(jax.vmap(plan.schedule(left, num_examples=80)))(np.arange(plan.total_steps(80)))
    positions = [plan.epoch_at(step, 80) for step in range(plan.total_steps(80))]
    expected = [SCHEDULES["linear"](t) * plan.batch_size_at(t) / 10 for t in positions]
    np.testing.assert_allclose(per_step, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.1}, "rate is 0.1: give a schedule, from a position in epochs to a learning rate"),
        ({"rate": lambda epoch: -0.1}, "rate is -0.1 at epoch 0: give a schedule of finite numbers of at least 0"),
        ({"rate": lambda epoch: math.nan}, "rate is nan at epoch 0"),
        ({"rate": lambda epoch: 1 - epoch}, "maximum is None, and the rate falls to 0: give the largest batch size"),
        ({"initial": 0}, "initial is 0: give a positive integer"),
        ({"epochs": 2.5}, r"epochs is 2\.5: give a positive integer"),
        ({"maximum": True}, "maximum is True: give a positive integer"),
        ({"maximum": 4}, "maximum is 4, below initial, 8: give a maximum of at least 8"),
        ({"factor": 1}, "factor is 1: give an integer of at least 2, or None for any size"),
        ({"factor": 1.5}, r"factor is 1\.5: give an integer of at least 2, or None for any size"),
    ],
)
def test_impossible_growth_is_refused(arguments, message):
    right = {"rate": lambda epoch: 0.1, "initial": 8, "epochs": 2}
    with pytest.raises(ValueError, match=f"^{message}"):
        sam_optax.growth_for_decay(**(right | arguments))


@pytest.mark.parametrize("rate", [-0.1, math.inf, "0.1"])
def test_a_rate_along_a_plan_is_a_number_or_a_schedule(rate):
    for make in (sam_optax.decay_for_growth, lambda plan, rate: sam_optax.rate_for_growth(plan, rate, "none")):
        with pytest.raises(ValueError, match=f"^rate is {re.escape(repr(rate))}: give"):
            make(BatchPlan.parse("2x8"), rate)
