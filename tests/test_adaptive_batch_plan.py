"""Adaptive batch plans only grow, within bounds, and are resumed and replayed exactly."""

import functools
import json
import math
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import AdaptiveBatchPlan, NoiseTerms

ASKED = st.lists(st.floats(0, 500) | st.sampled_from([math.inf, math.nan, None]), min_size=1, max_size=12)


def request_measured(measured: Any, batch_size: int) -> float:
    """A rule that requests the measured value as the batch size."""
    return measured


@st.composite
def controllers(draw: st.DrawFn) -> AdaptiveBatchPlan:
    initial = draw(st.integers(1, 20))
    maximum = draw(st.integers(initial, 300))
    patience, margin = draw(st.integers(1, 3)), draw(st.sampled_from([1.0, 1.5, 3.0]))
    return AdaptiveBatchPlan(initial, maximum, request_measured, draw(st.integers(2, 4)), patience, margin)


def run(controller: AdaptiveBatchPlan, measured: list[Any], state: Any = None) -> tuple[list[int], Any]:
    """The batch size of each epoch, and the state after the last one."""
    state, sizes = controller.start() if state is None else state, []
    for each in measured:
        sizes.append(state.batch_size)
        state = controller.after_epoch(state, each)
    return sizes, state


@hypothesis.given(controllers(), ASKED)
def test_the_batch_only_grows_by_powers_of_the_factor_and_not_above_the_maximum(controller, measured):
    sizes, state = run(controller, measured)
    sizes.append(state.batch_size)
    assert sizes == sorted(sizes)
    assert sizes[0] == controller.initial
    assert sizes[-1] <= controller.maximum
    assert set(sizes) <= {controller.initial * controller.factor**k for k in range(10)}


@hypothesis.given(controllers(), ASKED)
def test_the_batch_grows_to_the_smallest_request_of_enough_consecutive_epochs(controller, measured):
    sizes, state = run(controller, measured)
    largest = max(size for size in controller.sizes if size <= controller.maximum)
    since = 0
    for epoch, after in enumerate([*sizes[1:], state.batch_size]):
        before = sizes[epoch]
        last = [math.nan if x is None else x for x in measured[since : epoch + 1]][-controller.patience :]
        agreed = len(last) == controller.patience and all(x > controller.margin * before for x in last)
        assert (after > before) == (agreed and before < largest)
        if after > before:
            assert after == min(size for size in controller.sizes if size >= min(*last, largest))
            since = epoch + 1


@hypothesis.given(controllers(), ASKED)
def test_its_history_is_a_plan_that_replays_it(controller, measured):
    sizes, state = run(controller, measured)
    plan = controller.plan(state)
    assert [plan.batch_size_at(epoch) for epoch in range(plan.epochs)] == sizes
    longer = controller.plan(state, epochs=plan.epochs + 3)
    expected = sizes + [state.batch_size] * 3
    assert [longer.batch_size_at(epoch) for epoch in range(longer.epochs)] == expected
    assert controller.plan(state, epochs=plan.epochs) == plan


@hypothesis.given(controllers(), ASKED, st.integers(0, 12))
def test_a_state_restored_from_json_continues_unchanged(controller, measured, stop):
    _, state = run(controller, measured[:stop])
    saved = json.loads(json.dumps(state._asdict(), allow_nan=False))
    restored = controller.restore(saved)
    assert restored == state
    assert run(controller, measured[stop:], restored) == run(controller, measured[stop:], state)


def test_margin_and_patience_filter_noisy_measurements():
    noisy = [20, 20, 10, 40, 10, 40, 40, 10, 90, 90]
    eager, patient, wide = (
        AdaptiveBatchPlan(16, 128, request_measured, **options) for options in ({"patience": 1}, {}, {"margin": 4.0})
    )
    assert run(eager, noisy)[0] == [16, 32, 32, 32, 64, 64, 64, 64, 64, 128]
    assert run(patient, noisy)[0] == [16, 16, 32, 32, 32, 32, 32, 64, 64, 64]
    assert run(wide, noisy)[0] == [16] * 10


@pytest.mark.parametrize("batch_size", [8, 64])
@pytest.mark.parametrize("terms", [(2.0, 64.0), (0.5, 3.0), (jnp.asarray(4.0), np.float32(100.0))])
def test_the_norm_test_asks_for_more_exactly_where_the_batch_fails_it(terms, batch_size):
    theta, (signal, noise) = 0.6, map(float, terms)
    wanted = sam_optax.norm_test(theta)(NoiseTerms(*terms), batch_size)
    square = signal + noise / batch_size  # of the gradient of the batch itself
    assert wanted == math.ceil(noise / (theta**2 * square))
    assert (noise / batch_size > theta**2 * square) == (wanted > batch_size)
    assert (wanted > batch_size) == (batch_size < (1 / theta**2 - 1) * noise / signal)


def test_the_noise_scale_rule_requests_a_multiple_of_the_noise_scale():
    assert sam_optax.noise_scale_rule(0.5)(NoiseTerms(2.0, 64.0), 8) == 16.0


@pytest.mark.parametrize("rule", [sam_optax.noise_scale_rule(), sam_optax.norm_test(0.5)])
def test_missing_measurements_request_no_growth_and_a_lost_signal_the_maximum(rule):
    controller = AdaptiveBatchPlan(8, 64, rule, patience=1)
    assert controller.after_epoch(controller.start(), NoiseTerms(math.nan, math.nan)).batch_size == 8
    assert controller.after_epoch(controller.start(), NoiseTerms(-10.0, 1.0)).batch_size == 64


def train(seed: int) -> tuple[Any, list[float]]:
    """GSAM on a quadratic whose gradient falls below its noise, with micro-batches of four examples."""
    loss_fn = lambda w, z: jnp.sum(w**2) / 2 + jnp.sum(w * jnp.mean(z, 0))  # noqa: E731
    tx = optax.chain(sam_optax.track_noise(sam_optax.gsam(rho=0.01), decay=0.9), optax.sgd(0.05))
    controller = AdaptiveBatchPlan(8, maximum=64, rule=sam_optax.noise_scale_rule())

    @functools.partial(jax.jit, static_argnames="parts")
    def step(w: jax.Array, opt_state: Any, z: jax.Array, parts: int) -> Any:
        value_and_grad = sam_optax.value_and_grad(loss_fn, micro_batches=parts, measure_noise=True)
        _, grads, grad_fn = value_and_grad(w, z)
        updates, opt_state = tx.update(grads, opt_state, w, grad_fn=grad_fn)
        return optax.apply_updates(w, updates), opt_state

    w, rng, state, norms = jnp.full(4, 3.0), np.random.default_rng(seed), controller.start(), []
    opt_state = tx.init(w)
    for _ in range(12):
        size = state.batch_size
        for z in rng.normal(size=(128 // size, size, 4)):
            w, opt_state = step(w, opt_state, jnp.asarray(z), parts=size // 4)
        norms.append(float(jnp.linalg.norm(w)))
        state = controller.after_epoch(state, sam_optax.measured_noise(opt_state).perturbed)
    return controller.plan(state), norms


def test_the_batch_grows_when_noise_dominates_the_gradient_reproducibly():
    plan, norms = train(seed=0)
    assert plan.batch_size_at(0) == 8
    assert plan.batch_size_at(plan.epochs - 1) == 64
    assert (plan, norms) == train(seed=0)
    assert norms != train(seed=1)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial": 0}, "initial is 0: give a positive integer"),
        ({"maximum": 64.0}, r"maximum is 64\.0: give a positive integer"),
        ({"maximum": 4}, "maximum is 4, below initial, 8: the batch never shrinks"),
        ({"rule": "noise"}, "rule is 'noise': give a function of a measurement and the batch size to a size"),
        ({"factor": 1}, "factor is 1: give an integer of at least 2"),
        ({"factor": 1.5}, r"factor is 1\.5: give an integer of at least 2"),
        ({"patience": 0}, "patience is 0: give a positive integer"),
        ({"margin": 0.5}, r"margin is 0\.5: give a number of at least 1"),
        ({"margin": math.nan}, "margin is nan: give a finite number above 0"),
    ],
)
def test_an_impossible_controller_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        AdaptiveBatchPlan(**({"initial": 8, "maximum": 64, "rule": request_measured} | arguments))


@pytest.mark.parametrize("measured", [3.0, (1.0, 2.0, 3.0), sam_optax.Noise(NoiseTerms(1, 2), NoiseTerms(3, 4))])
def test_rules_refuse_arguments_other_than_noise_terms(measured):
    for rule in (sam_optax.noise_scale_rule(), sam_optax.norm_test(0.5)):
        with pytest.raises(ValueError, match=rf"^measured is {re.escape(repr(measured))}: give sam_optax\.NoiseTerms"):
            rule(measured, 8)


@pytest.mark.parametrize("signal", [-1e-9, 0.0, 2.0])
@pytest.mark.parametrize("noise", [-1e-9, 0.0])
def test_without_noise_no_growth_is_requested(signal, noise):
    for rule in (sam_optax.noise_scale_rule(), sam_optax.norm_test(0.5)):
        assert rule(NoiseTerms(signal, noise), 16) == 0


def test_a_rule_must_return_a_number():
    controller = AdaptiveBatchPlan(8, 64, lambda measured, batch_size: "more")
    with pytest.raises(ValueError, match=r"^rule returned 'more' for 1\.0: give a function that returns batch sizes"):
        controller.after_epoch(controller.start(), 1.0)


def test_a_controller_without_a_completed_epoch_has_no_plan():
    controller = AdaptiveBatchPlan(8, 64, request_measured)
    with pytest.raises(ValueError, match=r"^the plan has no interval yet: give its length, or epochs\."):
        controller.plan(controller.start())


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_plan_has_at_least_the_completed_epochs(epochs):
    controller = AdaptiveBatchPlan(8, 64, request_measured)
    _, state = run(controller, [1.0] * 3)
    with pytest.raises(ValueError, match=f"^epochs is {epochs}"):
        controller.plan(state, epochs)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 12},
        {"batch_size": 128},
        {"batch_size": 8},
        {"stages": [[2, 8], [1, 24]]},
        {"stages": [[2, 16], [1, 8]]},
        {"streak": 2},
        {"streak": -1},
        {"stages": [[1, 16]]},
        {"stages": [[1, 16], [1, 32]]},
        {"streak": 0},
        {"least": 0.0},
        {"least": 500.0},
    ],
)
def test_a_state_of_other_settings_is_refused(change):
    controller = AdaptiveBatchPlan(8, 64, request_measured)
    saved = {"batch_size": 32, "stages": [[2, 8], [1, 16]], "streak": 1, "least": 40.0}
    assert controller.restore(saved).batch_size == 32
    with pytest.raises(ValueError, match=r"^saved is .*\(8, 16, 32, 64\) and patience 2: restore it with the settings"):
        controller.restore(saved | change)


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"stages": 3},
        {"batch_size": 8, "stages": [[0, 8]], "streak": 0, "least": 0.0},
        {"batch_size": 8, "stages": [], "streak": "none", "least": 0.0},
        {"batch_size": 8, "stages": [], "streak": 0},
        {"batch_size": 8.7, "stages": [], "streak": 0, "least": 0.0},
        {"batch_size": math.inf, "stages": [], "streak": 0, "least": 0.0},
    ],
)
def test_invalid_states_are_refused(saved):
    with pytest.raises(
        ValueError, match=rf"^saved is {re.escape(repr(saved))}: give the saved output of state._asdict\(\)"
    ):
        AdaptiveBatchPlan(8, 64, request_measured).restore(saved)


@pytest.mark.parametrize(("unit", "every"), [("updates", 100), ("examples", 64), ("epochs", 2)])
def test_decisions_after_other_intervals_are_the_same(unit, every):
    by_epoch = AdaptiveBatchPlan(16, 128, request_measured)
    by_interval = AdaptiveBatchPlan(16, 128, request_measured, unit=unit, every=every)
    first, second = by_epoch.start(), by_interval.start()
    for measured in (40, 40, 90, 10, 200, 200):
        first, second = by_epoch.after_epoch(first, measured), by_interval.after_interval(second, measured)
        assert second.batch_size == first.batch_size
        assert [(stage.length / every, stage.batch_size) for stage in second.stages] == list(first.stages)
        assert by_interval.restore(json.loads(json.dumps(second._asdict()))) == second
    assert by_interval.plan(second).unit == unit
    assert by_interval.plan(second, length=10 * every).length == 10 * every


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: AdaptiveBatchPlan(16, 128, request_measured, unit="steps"),
            "unit is 'steps': give one of epochs, examples",
        ),
        (lambda: AdaptiveBatchPlan(16, 128, request_measured, every=0), "every is 0: give a positive integer"),
        (lambda: IN_UPDATES.after_epoch(IN_UPDATES.start(), 40), "The interval is 100 updates, not one epoch: call"),
        (lambda: IN_UPDATES.plan(IN_UPDATES.start(), epochs=3), "epochs is 3, and the plan is in updates: give only"),
        (
            lambda: IN_UPDATES.restore({"batch_size": 16, "stages": [[50, 16]], "streak": 0, "least": 0.0}),
            "saved is .*: restore it with the settings",
        ),
    ],
)
def test_calls_that_do_not_fit_the_interval_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


IN_UPDATES = AdaptiveBatchPlan(16, 128, request_measured, unit="updates", every=100)
