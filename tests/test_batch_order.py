"""The batches of a plan: every pass is a permutation, a run resumes at any update, and processes share each batch."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sam_optax import BatchPlan
from sam_optax.batch_plan.order import order_of_pass

PLAN = BatchPlan.parse("updates:7x4,5x8")
NUM_EXAMPLES = 21


def read(**options):
    return list(PLAN.batches(NUM_EXAMPLES, seed=3, **options))


@hypothesis.given(st.integers(1, 50), st.integers(0, 2**63), st.integers(0, 100))
def test_the_order_of_a_pass_is_a_permutation(num_examples, seed, number):
    assert sorted(order_of_pass(num_examples, seed, number)) == list(range(num_examples))


def test_orders_differ_between_passes_and_seeds():
    orders = [order_of_pass(50, seed, number) for seed in (0, 1) for number in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_never_changes_with_the_version_of_numpy():
    assert order_of_pass(10, 0, 0).tolist() == [0, 8, 9, 3, 7, 5, 1, 2, 6, 4]


@pytest.mark.parametrize("num_examples", [21, 24, 100])
def test_positions_are_those_of_the_plan_and_indices_those_of_the_order(num_examples):
    for step, (indices, positions) in enumerate(PLAN.batches(num_examples, seed=3)):
        first, size = PLAN.examples_at(step, num_examples), PLAN.batch_size_at_step(step, num_examples)
        assert positions.tolist() == list(range(first, first + size))
        number, rank = divmod(first, num_examples)
        np.testing.assert_array_equal(indices, order_of_pass(num_examples, 3, number)[rank : rank + size])
        assert indices.dtype == positions.dtype == np.int64


def test_a_batch_never_crosses_a_pass():
    for _, positions in read():
        assert positions[0] // NUM_EXAMPLES == positions[-1] // NUM_EXAMPLES


@pytest.mark.parametrize("start", range(13))
def test_a_run_resumes_at_any_update(start):
    rest = read(start=start)
    assert len(rest) == 12 - start
    for resumed, whole in zip(rest, read()[start:], strict=True):
        np.testing.assert_array_equal(resumed, whole)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_each_batch(count):
    parts = [read(process_index=index, process_count=count) for index in range(count)]
    for *shared, whole in zip(*parts, read(), strict=True):
        np.testing.assert_array_equal(np.concatenate([part.indices for part in shared]), whole.indices)
        np.testing.assert_array_equal(np.concatenate([part.positions for part in shared]), whole.positions)


def test_positions_beyond_32_bits_are_exact():
    plan = BatchPlan.parse(f"updates:{2**33}x1")
    batch = next(plan.batches(3, seed=0, start=2**33 - 1))
    assert batch.positions.tolist() == [2**33 - 1]


def test_batches_cannot_be_changed_for_other_readers():
    with pytest.raises(ValueError, match="read-only"):
        next(PLAN.batches(NUM_EXAMPLES, seed=3)).indices[0] = 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1: give an integer of at least 0"),
        ({"seed": 0.5}, r"seed is 0\.5: give an integer of at least 0"),
        ({"start": 13}, "start is 13: give an integer from 0 to 12, the updates of the plan"),
        ({"start": -1}, "start is -1: give an integer from 0 to 12"),
        ({"process_count": 0}, "process_count is 0: give a positive integer"),
        ({"process_count": 3}, "process_count is 3, and the plan has a batch of [48]: give a number that divides"),
        ({"process_index": 2, "process_count": 2}, "process_index is 2: give an integer of at least 0 and below"),
        ({"num_examples": 7}, "batch size 8 of the plan updates:7x4,5x8 is larger than the data, 7 examples"),
        ({"num_examples": None}, "num_examples is None: give a positive integer"),
    ],
)
def test_impossible_batches_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        PLAN.batches(**{"num_examples": NUM_EXAMPLES, "seed": 0} | options)


PLANS = st.builds(
    BatchPlan.from_stages,
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=4),
    st.sampled_from(["epochs", "examples", "updates"]),
)


@hypothesis.given(PLANS, st.integers(12, 60))
def test_passes_and_examples_are_those_of_the_batches(plan, num_examples):
    try:
        batches = list(plan.batches(num_examples, seed=0))
    except ValueError:
        hypothesis.reject()  # a stage of the plan has no update
    passes = [int(positions[0]) // num_examples for _, positions in batches]
    assert plan.passes(num_examples) == passes[-1] + 1
    for number in range(passes[-1] + 1):
        updates = [step for step, found in enumerate(passes) if found == number]
        assert list(plan.updates_of_pass(number, num_examples)) == updates
    used = np.cumsum([0, *(len(indices) for indices, _ in batches)])
    assert [plan.examples_used(step, num_examples) for step in range(len(batches) + 1)] == used.tolist()


@hypothesis.given(PLANS, st.integers(12, 60))
def test_every_example_is_used_if_no_batch_is_dropped(plan, num_examples):
    try:
        total = plan.total_steps(num_examples, drop_last=False)
    except ValueError:
        hypothesis.reject()  # a stage of the plan has no update
    ends = [plan.examples_at(step, num_examples, drop_last=False) for step in range(total)]
    assert [plan.examples_used(step, num_examples, drop_last=False) for step in range(total)] == ends


def test_a_pass_that_a_plan_does_not_have_is_refused():
    with pytest.raises(ValueError, match="number is 4: this plan has 4 passes over 21 examples"):
        PLAN.updates_of_pass(4, NUM_EXAMPLES)
    with pytest.raises(ValueError, match="step is 13: this plan has 12 updates"):
        PLAN.examples_used(13, NUM_EXAMPLES)
