"""Plans in epochs, examples and updates match a loop over the data, and agree with one another."""

import math
from fractions import Fraction
from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import BatchPlan

SIZES = st.integers(1, 12)
LENGTHS = {
    "epochs": st.integers(1, 3) | st.sampled_from([0.1, 0.25, 0.5, 1.2, 2.5]),
    "examples": st.integers(1, 60),
    "updates": st.integers(1, 9),
}


class Update(NamedTuple):
    """An update of a loop over the data: its stage and the offset at which it begins."""

    stage: int
    offset: int


def walk(plan: BatchPlan, num_examples: int | None, drop_last: bool) -> list[Update]:
    """The updates of a loop over the batches."""
    updates: list[Update] = []
    offset, end = 0, Fraction(0)
    for index, stage in enumerate(plan.stages):
        end += Fraction(str(stage.length)) * (num_examples or 1 if plan.unit == "epochs" else 1)
        while (len(updates) if plan.unit == "updates" else offset) < end:
            left = math.inf if num_examples is None else num_examples - offset % num_examples
            if stage.batch_size > left and drop_last:
                offset += int(left)
            else:
                updates.append(Update(index, offset))
                offset += int(min(stage.batch_size, left))
    return updates


@st.composite
def runs(draw: st.DrawFn, unit: str | None = None) -> tuple[BatchPlan, int | None, bool]:
    """A plan in any unit with an update in every stage, the examples per pass, and whether a remainder is dropped."""
    unit = draw(st.sampled_from(sorted(LENGTHS))) if unit is None else unit
    stages = draw(st.lists(st.tuples(LENGTHS[unit], SIZES), min_size=1, max_size=4))
    plan, drop_last = BatchPlan.from_stages(stages, unit), draw(st.booleans())
    finite = st.integers(max(size for _, size in stages), 40)
    num_examples = draw(finite if unit == "epochs" else finite | st.none())
    hypothesis.assume({update.stage for update in walk(plan, num_examples, drop_last)} == set(range(len(stages))))
    return plan, num_examples, drop_last


@hypothesis.given(runs())
def test_each_update_is_that_of_a_loop_over_the_data(run):
    plan, *data = run
    updates = walk(*run)
    steps = range(len(updates))
    assert plan.total_steps(*data) == len(updates)
    assert [plan.examples_at(step, *data) for step in steps] == [update.offset for update in updates]
    assert [plan.batch_size_at_step(step, *data) for step in steps] == [
        plan.stages[update.stage].batch_size for update in updates
    ]
    stages = [update.stage for update in updates]
    assert plan.boundaries(*data) == tuple(stages.index(k) for k in range(1, len(plan.stages)))


@hypothesis.settings(max_examples=25)
@hypothesis.given(runs())
def test_a_schedule_reads_the_position_of_each_update_in_the_unit_of_the_plan(run):
    plan, *data = run
    steps = np.arange(plan.total_steps(*data) + 1)
    traced = np.asarray(jax.jit(jax.vmap(plan.schedule(lambda position: position, *data)))(steps))
    plain = [plan.position_at(int(step), *data) for step in steps]
    np.testing.assert_allclose(traced, plain, rtol=3e-7)
    assert np.all(np.diff(plain) > 0)
    if plan.unit == "updates":
        np.testing.assert_array_equal(plain, steps)


@hypothesis.given(runs("epochs"))
def test_positions_in_epochs_are_whole_at_the_start_of_each_pass(run):
    plan, num_examples, drop_last = run
    assert num_examples is not None
    for step, update in enumerate(walk(*run)):
        position = plan.epoch_at(step, num_examples, drop_last)
        assert math.floor(position) == update.offset // num_examples
        assert (position == math.floor(position)) == (update.offset % num_examples == 0)


@hypothesis.given(runs("epochs"))
def test_a_plan_in_updates_with_the_same_batches_is_the_same_run(run):
    plan, num_examples, _ = run
    assert num_examples is not None
    hypothesis.assume({update.stage for update in walk(plan, num_examples, True)} == set(range(len(plan.stages))))
    ends = [*plan.boundaries(num_examples), plan.total_steps(num_examples)]
    lengths = np.diff([0, *ends]).tolist()
    updates = BatchPlan.from_stages(
        [(length, stage.batch_size) for length, stage in zip(lengths, plan.stages, strict=True)], "updates"
    )
    assert updates.total_steps(num_examples) == plan.total_steps(num_examples)
    for first, second in zip(plan.batches(num_examples, 3), updates.batches(num_examples, 3), strict=True):
        np.testing.assert_array_equal(first.positions, second.positions)
        np.testing.assert_array_equal(first.indices, second.indices)


@hypothesis.given(runs("updates"))
def test_endless_data_are_used_without_gaps(run):
    plan, _, _ = run
    sizes = [plan.batch_size_at_step(step) for step in range(plan.total_steps())]
    assert [plan.examples_at(step) for step in range(len(sizes) + 1)] == np.cumsum([0, *sizes]).tolist()
    starts = np.cumsum([0, *sizes])[[0, *plan.boundaries(), len(sizes)]]
    in_examples = BatchPlan.from_stages(
        [(int(length), stage.batch_size) for length, stage in zip(np.diff(starts), plan.stages, strict=True)],
        "examples",
    )
    assert [in_examples.batch_size_at_step(step) for step in range(in_examples.total_steps())] == sizes


def test_a_plan_in_updates():
    plan = BatchPlan.from_stages([(100, 16), (50, 64)], unit="updates")
    assert (plan.total_steps(), plan.examples_at(120), plan.boundaries()) == (150, 2880, (100,))
    assert (plan.batch_size_at_step(99), plan.batch_size_at_step(100)) == (16, 64)
    assert plan.length == 150


def test_an_update_has_the_size_of_the_stage_in_which_it_begins():
    plan = BatchPlan.parse("examples:10x4,10x8")
    assert [plan.examples_at(step) for step in range(5)] == [0, 4, 8, 12, 20]
    assert [plan.batch_size_at_step(step) for step in range(4)] == [4, 4, 4, 8]


def test_large_numbers_are_exact():
    plan = BatchPlan.parse("examples:250Gx64,750Gx4096")
    assert plan.total_steps() == 250 * 10**9 // 64 + -(-750 * 10**9 // 4096)
    assert plan.examples_at(plan.total_steps() - 1) == 10**12 - 4096 + (-750 * 10**9) % 4096


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("updates: 100x16, 50x64", "updates:100x16,50x64"),
        ("examples:250Mx64", "examples:250000000x64"),
        ("examples:1.5kx8", "examples:1500x8"),
        ("epochs:0.50x16,2.0x32", "0.5x16,2x32"),
        ("0.00001x16", "0.00001x16"),
    ],
)
def test_text_of_a_plan_in_any_unit(text, canonical):
    plan = BatchPlan.parse(text)
    assert str(plan) == canonical
    assert BatchPlan.parse(canonical) == plan
    assert hash(BatchPlan.parse(canonical)) == hash(plan)


@hypothesis.given(runs())
def test_a_plan_equals_its_parsed_text(run):
    assert BatchPlan.parse(str(run[0])) == run[0]


def test_rounding_keeps_the_unit():
    assert str(BatchPlan.parse("updates:5x3,5x20").rounded_to(8)) == "updates:5x8,5x24"


def test_a_schedule_over_examples_drives_an_optimizer():
    plan = BatchPlan.parse("examples:8x2,8x4")
    rate = plan.schedule(optax.linear_schedule(1.0, 0.0, 16))
    assert [float(rate(step)) for step in range(plan.total_steps() + 2)] == [1, 0.875, 0.75, 0.625, 0.5, 0.25, 0, 0]


@pytest.mark.parametrize(("text", "data"), [("updates:6x2,4x8", None), ("examples:8x2,8x4", None), ("1x2,1x4", 8)])
def test_the_last_part_of_a_plan_is_measured_in_its_unit(text, data):
    plan = BatchPlan.parse(text)
    policy = sam_optax.last(0.5, plan, data)
    perturbed = [step for step in range(plan.total_steps(data)) if policy.at(step)]
    positions = [plan.position_at(step, data) for step in range(plan.total_steps(data))]
    assert perturbed == [step for step, position in enumerate(positions) if position >= plan.length / 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchPlan.from_stages([(1, 2)], "tokens"), "unit is 'tokens': give one of epochs, examples, updates"),
        (lambda: BatchPlan.from_stages([(1.5, 2)], "updates"), r"updates is 1\.5: give a positive integer"),
        (lambda: BatchPlan.from_stages([(0, 2)], "examples"), "examples is 0: give a positive integer"),
        (lambda: BatchPlan.from_stages([(-0.5, 2)]), r"epochs is -0\.5: give a positive number"),
        (lambda: BatchPlan.from_stages([(math.nan, 2)]), "epochs is nan: give a positive number"),
        (lambda: BatchPlan.parse("steps:1x2"), "batch plan 'steps:1x2' has the unit 'steps': write one of"),
        (lambda: BatchPlan.parse("updates:1.5x2"), r"updates is 1\.5: give a positive integer"),
        (lambda: BatchPlan.parse("examples:5x16,5x32").total_steps(), "stage 2 of the plan .* has no update, because"),
        (lambda: BatchPlan.parse("updates:5x16").total_steps(8), "batch size 16 of the plan updates:5x16 is larger"),
        (lambda: BatchPlan.parse("2x4").total_steps(), "num_examples is None: give a positive integer"),
        (lambda: BatchPlan.parse("updates:5x16").epochs, "the plan updates:5x16 is in updates, and its number of"),
        (lambda: BatchPlan.parse("0.5x16").epochs, r"the length is 0\.5, not a whole number of epochs: use length"),
        (lambda: BatchPlan.parse("updates:5x16").batch_size_at(0), "epoch is 0: the plan is in updates, so use"),
        (lambda: BatchPlan.parse("updates:5x16").batch_size_at_step(6), r"step is 6: this plan has 5 updates\.$"),
        (lambda: BatchPlan.parse("updates:5x16").epoch_at(0, None), "num_examples is None: give a positive integer"),
    ],
)
def test_impossible_plans_and_questions_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
