"""Batch plans convert exactly between epochs and updates, for every plan and every number of examples."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_optax import BatchPlan, Stage

STAGES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 20)), min_size=1, max_size=4)


@st.composite
def runs(draw: st.DrawFn) -> tuple[BatchPlan, int, bool]:
    """A plan, a number of examples that it can be run on, and whether the last batch is dropped."""
    plan = BatchPlan.from_stages(draw(STAGES))
    largest = max(stage.batch_size for stage in plan.stages)
    return plan, draw(st.integers(largest, 200)), draw(st.booleans())


def walk(plan: BatchPlan, num_examples: int, drop_last: bool) -> list[tuple[int, int, float]]:
    """The updates of a loop over the data: their stage, their epoch, and the fraction of the epoch before them."""
    updates, epoch = [], 0
    for index, (epochs, batch_size) in enumerate(plan.stages):
        for _ in range(epochs):
            sizes = [min(batch_size, num_examples - start) for start in range(0, num_examples, batch_size)]
            batches = [size for size in sizes if size == batch_size or not drop_last]
            updates += [(index, epoch, i / len(batches)) for i in range(len(batches))]
            epoch += 1
    return updates


@hypothesis.given(runs())
def test_the_number_of_updates_is_that_of_a_loop_over_the_data(run):
    plan, num_examples, drop_last = run
    assert plan.total_steps(num_examples, drop_last) == len(walk(plan, num_examples, drop_last))
    assert plan.total_steps(num_examples) == len(walk(plan, num_examples, drop_last=True))


@hypothesis.given(runs())
def test_boundaries_are_the_first_updates_of_the_later_stages(run):
    plan, num_examples, drop_last = run
    stages = [stage for stage, _, _ in walk(plan, num_examples, drop_last)]
    assert plan.boundaries(num_examples, drop_last) == tuple(stages.index(k) for k in range(1, len(plan.stages)))


@hypothesis.given(runs())
def test_the_epoch_of_an_update_is_exact_and_whole_where_an_epoch_starts(run):
    plan, num_examples, drop_last = run
    updates = walk(plan, num_examples, drop_last)
    positions = [plan.epoch_at(step, num_examples, drop_last) for step in range(len(updates) + 1)]
    assert positions == [epoch + part for _, epoch, part in updates] + [plan.epochs]
    assert np.all(np.diff(positions) > 0)


@hypothesis.given(runs())
def test_the_batch_size_at_an_epoch_is_that_of_its_stage(run):
    plan, num_examples, drop_last = run
    for step, (stage, _, _) in enumerate(walk(plan, num_examples, drop_last)):
        position = plan.epoch_at(step, num_examples, drop_last)
        assert plan.batch_size_at(position) == plan.stages[stage].batch_size


@hypothesis.settings(max_examples=12)
@hypothesis.given(runs())
def test_a_traced_schedule_reads_the_epoch_of_each_update(run):
    plan, num_examples, drop_last = run
    steps = np.arange(plan.total_steps(num_examples, drop_last) + 1)
    traced = np.asarray(jax.jit(jax.vmap(plan.schedule(lambda epoch: epoch, num_examples, drop_last)))(steps))
    plain = np.array([plan.epoch_at(int(step), num_examples, drop_last) for step in steps])
    np.testing.assert_allclose(traced, plain, rtol=3e-7)
    whole = plain == np.floor(plain)
    assert np.sum(whole) == plan.epochs + 1
    np.testing.assert_array_equal(traced[whole], plain[whole])


@pytest.mark.parametrize("epoch", [0, 1, 999, 1999])
def test_a_schedule_is_exact_where_float_counts_would_round(epoch):
    plan = BatchPlan.constant(1, epochs=2000)
    position = plan.schedule(lambda epoch: epoch, num_examples=1_000_000)
    steps = [epoch * 1_000_000 + offset for offset in (0, 250_000, 500_000)]
    assert [float(position(step)) for step in steps] == [epoch, epoch + 0.25, epoch + 0.5]


def test_a_schedule_is_constant_after_the_last_update():
    rate = BatchPlan.parse("1x10,1x20").schedule(optax.linear_schedule(1.0, 0.5, 2), num_examples=100)
    np.testing.assert_array_equal([rate(step) for step in (-1, 0, 15, 16, 10**9)], [1.0, 1.0, 0.5, 0.5, 0.5])


def test_a_schedule_over_epochs_drives_an_optimizer():
    rate = BatchPlan.parse("1x2,1x4").schedule(lambda epoch: 1.0 - epoch / 2, num_examples=4)
    tx = optax.sgd(rate)
    state, rates = tx.init(jnp.zeros(())), []
    for _ in range(3):
        updates, state = tx.update(jnp.ones(()), state)
        rates.append(-float(updates))
    assert rates == [1.0, 0.75, 0.5]


@hypothesis.given(STAGES)
def test_a_plan_is_parsed_from_its_text(stages):
    plan = BatchPlan.from_stages(stages)
    assert BatchPlan.parse(str(plan)) == plan
    assert plan.stages == tuple(Stage(*stage) for stage in stages)
    assert plan.epochs == sum(epochs for epochs, _ in stages)
    assert hash(BatchPlan.parse(f" {plan} ".replace(",", " , "))) == hash(plan)


@hypothesis.given(STAGES, st.integers(1, 16))
def test_rounding_takes_the_nearest_positive_multiple(stages, multiple):
    plan = BatchPlan.from_stages(stages)
    for before, after in zip(plan.stages, plan.rounded_to(multiple).stages, strict=True):
        assert after.epochs == before.epochs
        assert after.batch_size % multiple == 0
        candidates = range(multiple, 40, multiple)
        nearest = min(abs(size - before.batch_size) for size in candidates)
        assert after.batch_size == max(s for s in candidates if abs(s - before.batch_size) == nearest)


GROWING = [st.integers(1, 64), st.integers(1, 7), st.integers(1, 30), st.none() | st.integers(64, 200)]


def lengths(every: int, epochs: int) -> list[int]:
    whole, rest = divmod(epochs, every)
    return [every] * whole + [rest] * (rest > 0)


@hypothesis.given(st.sampled_from([1, 1.5, 2, 3.0]), *GROWING)
def test_exponential_growth_multiplies_by_the_factor_up_to_the_maximum(factor, initial, every, epochs, maximum):
    plan = BatchPlan.exponential(initial, factor, every, epochs, maximum)
    assert [stage.epochs for stage in plan.stages] == lengths(every, epochs)
    sizes = [round(initial * factor**k) for k in range(len(plan.stages))]
    assert [stage.batch_size for stage in plan.stages] == [min(size, maximum or size) for size in sizes]


@hypothesis.given(st.sampled_from([0, 0.5, 1, 2.0]), *GROWING)
def test_polynomial_growth_is_a_power_of_the_stage_up_to_the_maximum(power, initial, every, epochs, maximum):
    plan = BatchPlan.polynomial(initial, power, every, epochs, maximum)
    assert [stage.epochs for stage in plan.stages] == lengths(every, epochs)
    sizes = [round(initial * (1 + k) ** power) for k in range(len(plan.stages))]
    assert [stage.batch_size for stage in plan.stages] == [min(size, maximum or size) for size in sizes]


def test_a_long_plan_stays_at_its_maximum():
    assert BatchPlan.exponential(8, 2.0, every=1, epochs=2000, maximum=32) == BatchPlan.from_stages(
        [(1, 8), (1, 16)] + [(1, 32)] * 1998
    )
    assert BatchPlan.polynomial(8, 900.0, every=1, epochs=9, maximum=32).stages[-1] == (1, 32)


def test_stages_are_pairs_in_any_container():
    plans = {BatchPlan([(1, 8), [2, 16]]), BatchPlan.from_stages(iter([(1, 8), (2, 16)])), BatchPlan.parse("1x8,2x16")}
    assert [plan.stages for plan in plans] == [(Stage(1, 8), Stage(2, 16))]


def test_the_plans_of_the_paper_have_the_published_numbers_of_updates():
    growing = BatchPlan.exponential(initial=16, factor=2, every=40, epochs=200)
    assert growing == BatchPlan.parse("40x16,40x32,40x64,40x128,40x256")
    assert growing.total_steps(50_000) == 40 * (3125 + 1562 + 781 + 390 + 195) == 242_120
    assert growing.boundaries(50_000) == (125_000, 187_480, 218_720, 234_320)
    assert BatchPlan.constant(128, epochs=200).total_steps(50_000) == 78_000
    assert BatchPlan.constant(128, epochs=200).total_steps(50_000, drop_last=False) == 78_200


def test_numpy_integers_are_accepted():
    plan = BatchPlan.constant(np.int64(4), epochs=np.int32(3))
    assert plan == BatchPlan.parse("3x4")
    assert plan.total_steps(np.int64(10)) == 6


@pytest.mark.parametrize("kind", [np.int32, jnp.int32])
def test_steps_of_32_bits_do_not_overflow(kind):
    plan = BatchPlan.parse("examples:10Gx64")
    assert plan.examples_at(kind(100_000_000)) == plan.examples_used(kind(100_000_000)) == 6_400_000_000
    assert plan.position_at(kind(100_000_000)) == 6_400_000_000
    long = BatchPlan.parse("300x64")
    assert long.passes(np.int32(10_000_000)) == 300
    assert long.updates_of_pass(kind(299), np.int32(10_000_000)) == range(46_718_750, 46_875_000)
    growing = BatchPlan.exponential(np.int32(128), np.int32(2), 1, 40, maximum=4096)
    assert growing == BatchPlan.exponential(128, 2, 1, 40, maximum=4096)


@pytest.mark.parametrize("step", [2.5, True, "3", None])
def test_a_step_that_is_no_integer_is_refused(step):
    plan = BatchPlan.parse("2x16")
    for ask in (plan.examples_at, plan.position_at, plan.epoch_at, plan.batch_size_at_step, plan.examples_used):
        with pytest.raises(ValueError, match=r"step is .*: give an integer"):
            ask(step, 100)


def test_a_schedule_needs_no_implicit_promotion():
    for plan in (BatchPlan.parse("2x10"), BatchPlan.parse("examples:200x10")):
        with jax.numpy_dtype_promotion("strict"):
            schedule = plan.schedule(lambda position: position, 100)
            assert float(schedule(jnp.int32(5))) == plan.position_at(5, 100)
