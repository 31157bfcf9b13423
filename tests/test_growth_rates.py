"""The learning rate along a growing batch: its rules and its warm-up, read per update."""

import math
import re

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import BatchPlan

PLAN = BatchPlan.parse("2x16,2x32,2x64,2x256")
POSITIONS = np.linspace(0, 8, 33)[:-1]
RULES = {"none": lambda growth: 1.0, "linear": lambda growth: growth, "square_root": lambda growth: growth**0.5}
JAX_RULES = {"none": jax.numpy.ones_like, "linear": jax.numpy.asarray, "square_root": jax.numpy.sqrt}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_multiplies_the_rate_by_a_power_of_the_growth(rule, x64):
    by_name, by_function = (sam_optax.rate_for_growth(PLAN, 0.1, given) for given in (rule, RULES[rule]))
    expected = [0.1 * RULES[rule](PLAN.batch_size_at(t) / 16) for t in POSITIONS]
    np.testing.assert_allclose([by_name(t) for t in POSITIONS], expected, rtol=1e-15)
    np.testing.assert_array_equal([by_function(t) for t in POSITIONS], [by_name(t) for t in POSITIONS])
    by_jax = sam_optax.rate_for_growth(PLAN, 0.1, JAX_RULES[rule])
    np.testing.assert_allclose([by_jax(t) for t in POSITIONS], expected, rtol=1e-15)


def test_the_linear_rule_undoes_the_decay_that_corresponds_to_growth(x64):
    """`decay_for_growth` divides by the growth, so a linear rate along the plan gives a constant rate."""
    rate = sam_optax.decay_for_growth(PLAN, sam_optax.rate_for_growth(PLAN, 0.1, "linear"))
    np.testing.assert_allclose([rate(t) for t in POSITIONS], 0.1, rtol=1e-15)


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.floats(0.1, 8.0), st.floats(0.0, 1.0))
def test_the_warm_up_is_linear_in_epochs_while_the_batch_grows(epochs, start):
    rate = sam_optax.rate_for_growth(PLAN, 0.1, "square_root", warmup_epochs=epochs, warmup_start=start)
    after = sam_optax.rate_for_growth(PLAN, 0.1, "square_root")
    share = [float(rate(t)) / float(after(t)) for t in POSITIONS]
    np.testing.assert_allclose(share, np.interp(POSITIONS, [0, epochs], [start, 1.0]), rtol=1e-5, atol=1e-7)


def test_a_rate_grows_with_the_batch_and_then_decays():
    """A rule that stops growing, times a schedule that begins to fall then."""
    decay = optax.join_schedules([optax.constant_schedule(0.1), optax.linear_schedule(0.1, 0.0, 4)], [4])
    rate = sam_optax.rate_for_growth(PLAN, decay, lambda growth: min(growth, 2) ** 0.5)
    expected = [0.1, 0.1 * 2**0.5, 0.1 * 2**0.5, 0.05 * 2**0.5]
    np.testing.assert_allclose([rate(t) for t in (0, 2, 4, 6)], expected, rtol=1e-6)


def test_the_rate_is_read_per_update():
    rate = sam_optax.rate_for_growth(PLAN, optax.linear_schedule(0.1, 0.0, 8), "linear", warmup_epochs=3)
    steps = np.arange(PLAN.total_steps(512))
    per_step = jax.jit(jax.vmap(PLAN.schedule(rate, num_examples=512)))(steps)
    np.testing.assert_allclose(per_step, [rate(PLAN.epoch_at(int(step), 512)) for step in steps], rtol=1e-4)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("sqrt", "rule is 'sqrt': give one of none, linear, square_root, or a function of the batch's growth"),
        (None, "rule is None: give one of none, linear, square_root, or a function of the batch's growth"),
        (lambda growth: -growth, r"rule returned -1\.0 for a batch of 1 times the first size: give a function"),
        (lambda growth: math.inf if growth > 2 else 1, "rule returned inf for a batch of 4 times the first size"),
        (lambda growth: "a", "rule returned 'a' for a batch of 1 times the first size"),
    ],
)
def test_a_rule_that_returns_no_rate_is_refused(rule, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        sam_optax.rate_for_growth(PLAN, 0.1, rule)


@pytest.mark.parametrize("epochs", [-1.0, math.nan, "2"])
def test_a_warm_up_needs_a_number_of_epochs(epochs):
    with pytest.raises(ValueError, match=f"^warmup_epochs is {re.escape(repr(epochs))}: give"):
        sam_optax.rate_for_growth(PLAN, 0.1, "none", warmup_epochs=epochs)


@pytest.mark.parametrize(("text", "num_examples"), [("updates:10x8,10x16,10x64", None), ("2x8,2x64", 640)])
def test_the_half_life_of_an_average_in_examples_is_constant(text, num_examples):
    plan = BatchPlan.parse(text)
    decay = sam_optax.decay_for_batch(plan, 0.98, reference=16, num_examples=num_examples)
    steps = np.arange(plan.total_steps(num_examples))
    sizes = np.array([plan.batch_size_at_step(int(step), num_examples) for step in steps])
    per_example = np.asarray(jax.jit(jax.vmap(decay))(steps)) ** (1 / sizes)
    np.testing.assert_allclose(per_example, 0.98 ** (1 / 16), rtol=1e-6)


def test_an_average_changes_its_decay_with_the_batch_if_incomplete_batches_are_kept():
    plan = BatchPlan.parse("2x30,2x60")
    decay = sam_optax.decay_for_batch(plan, 0.9, reference=30, num_examples=100, drop_last=False)
    np.testing.assert_allclose([decay(step) for step in (7, 8)], [0.9, 0.81], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.0}, r"decay is 1\.0: give a number above 0 and below 1"),
        ({"decay": 0.0}, r"decay is 0\.0"),
        ({"reference": 0}, "reference is 0: give a positive integer"),
        ({"plan": BatchPlan.parse("1x8")}, "num_examples is None: give a positive integer"),
        (
            {"plan": BatchPlan.parse(f"updates:{2**31}x1,1x2")},
            "the last stage of the plan .* begins at update 2147483648",
        ),
    ],
)
def test_impossible_averages_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        sam_optax.decay_for_batch(**{"plan": BatchPlan.parse("updates:5x8"), "decay": 0.9, "reference": 8} | arguments)


@pytest.mark.parametrize("rule", ["linear", "square_root"])
def test_growth_and_decay_are_inverse_under_each_rule(rule):
    decay = optax.piecewise_constant_schedule(0.1, {2: 0.5, 4: 0.5})
    plan, rate = sam_optax.growth_for_decay(decay, initial=16, epochs=6, maximum=32, rule=rule)
    back = sam_optax.decay_for_growth(plan, rate, rule)
    epochs = np.arange(6)
    np.testing.assert_allclose([back(epoch) for epoch in epochs], [decay(epoch) for epoch in epochs], rtol=1e-6)
    assert str(plan) == "2x16,4x32"
    halved = {"linear": [0.1, 0.1, 0.05], "square_root": [0.1, 0.1 / 2**0.5, 0.05 / 2**0.5]}[rule]
    np.testing.assert_allclose([rate(epoch) for epoch in (0, 2, 4)], halved, rtol=1e-6)


def test_an_unknown_rule_is_refused():
    for make in (
        lambda: sam_optax.growth_for_decay(optax.constant_schedule(0.1), 8, 2, rule="none"),
        lambda: sam_optax.decay_for_growth(PLAN, 0.1, "adam"),
    ):
        with pytest.raises(ValueError, match=r"^rule is '(none|adam)': give linear, for SGD, or square_root, for Adam"):
            make()


@pytest.mark.parametrize("precision", [32, 64])
def test_a_rate_changes_at_the_update_at_which_the_size_changes(precision):
    plan = sam_optax.BatchPlan.parse("0.3x10,0.7x20")
    with jax.enable_x64(precision == 64):
        rate = plan.schedule(sam_optax.rate_for_growth(plan, 1.0, "linear"), 100)
        found = [float(rate(step)) for step in range(6)]
    assert found == [plan.batch_size_at(plan.epoch_at(step, 100)) / 10 for step in range(6)] == [1.0] * 3 + [2.0] * 3
