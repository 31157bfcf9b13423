"""Impossible plans, and impossible queries to valid plans, are refused with a message."""

import math
import re
from typing import Any

import pytest

from sam_optax import BatchPlan

NO_INTEGERS = [0, -1, 2.0, True, "2", None]
PLAN = BatchPlan.parse("1x10,2x20")
QUESTIONS = {
    "total_steps": PLAN.total_steps,
    "total_steps_kept": lambda n: PLAN.total_steps(n, drop_last=False),
    "boundaries": PLAN.boundaries,
    "epoch_at": lambda n: PLAN.epoch_at(0, n),
    "schedule": lambda n: PLAN.schedule(lambda epoch: epoch, n),
}


def refused(message: str) -> Any:
    return pytest.raises(ValueError, match=f"^{message}")


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_epochs_and_sizes_are_positive_integers(value):
    for make in (BatchPlan.constant, lambda size, epochs: BatchPlan.from_stages([(2, 8), (epochs, size)])):
        if value != 2.0:  # a whole number of epochs
            with refused(rf"epochs is {value!r}: give a positive integer\.$"):
                make(8, value)
        with refused(rf"batch_size is {value!r}: give a positive integer\.$"):
            make(value, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("initial", "every", "epochs", "maximum") for value in NO_INTEGERS[:-1]],
)
def test_growing_plans_count_in_positive_integers(name, value):
    arguments = {"initial": 8, "every": 2, "epochs": 4} | {name: value}
    with refused(rf"{name} is {value!r}: give a positive integer\.$"):
        BatchPlan.exponential(factor=2, **arguments)
    with refused(rf"{name} is {value!r}: give a positive integer\.$"):
        BatchPlan.polynomial(power=2, **arguments)


@pytest.mark.parametrize("factor", [0.99, 0, -2, math.nan, math.inf, "2", None])
def test_a_growing_plan_that_would_shrink_by_its_factor_is_refused(factor):
    with refused(rf"factor is {factor!r}: give a number of at least 1, so that the batch does not shrink\.$"):
        BatchPlan.exponential(initial=8, factor=factor, every=1, epochs=2)


@pytest.mark.parametrize("power", [-0.01, -2, math.nan, math.inf, "2", None])
def test_a_growing_plan_that_would_shrink_by_its_power_is_refused(power):
    with refused(rf"power is {power!r}: give a number of at least 0, so that the batch does not shrink\.$"):
        BatchPlan.polynomial(initial=8, power=power, every=1, epochs=2)


def test_a_growing_plan_that_would_shrink_to_its_maximum_is_refused():
    with refused(r"maximum is 4, below initial, 8: give at least 8\.$"):
        BatchPlan.exponential(initial=8, factor=2, every=1, epochs=2, maximum=4)
    with refused(r"maximum is 4, below initial, 8: give at least 8\.$"):
        BatchPlan.polynomial(initial=8, power=2, every=1, epochs=2, maximum=4)


def test_a_plan_has_a_stage():
    with refused(r"stages is empty: a plan needs at least one stage"):
        BatchPlan.from_stages([])
    with refused(r"stages is empty: a plan needs at least one stage"):
        BatchPlan(())


@pytest.mark.parametrize("stages", [3, None, [3, 4], [(1, 2, 3)], [(1,)]])
def test_stages_are_pairs(stages):
    with refused(rf"stages is {re.escape(repr(stages))}: give a sequence of \(epochs, batch_size\)\.$"):
        BatchPlan.from_stages(stages)


@pytest.mark.parametrize(
    "stage", ["", "16", "2x", "x16", "2x16x3", ".5x16", "2.x16", "-2x16", "2*16", "two x 16", "2x1e3", "٣x4"]
)
@pytest.mark.parametrize("text", ["{}", "1x8,{}"])
def test_text_with_an_invalid_stage_is_refused_by_that_stage(text, stage):
    text = text.format(stage)
    with refused(
        rf"batch plan {re.escape(repr(text))} has the stage {re.escape(repr(stage))}: write each as epochs x size"
    ):
        BatchPlan.parse(text)


@pytest.mark.parametrize(("text", "name"), [("0x16", "epochs"), ("2x16,3x0", "batch_size")])
def test_text_with_a_zero_is_refused(text, name):
    with refused(rf"{name} is 0: give a positive integer\.$"):
        BatchPlan.parse(text)


@pytest.mark.parametrize("text", [3, None, b"1x2"])
def test_values_other_than_text_are_refused(text):
    with refused(rf"batch plan is {re.escape(repr(text))}: give a string of epochs x size"):
        BatchPlan.parse(text)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_batch_larger_than_the_data_is_refused(question):
    message = r"batch size 20 of the plan 1x10,2x20 is larger than the data, 19 examples: make the batch smaller\.$"
    with refused(message):
        QUESTIONS[question](19)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("value", NO_INTEGERS)
def test_examples_are_a_positive_integer(question, value):
    with refused(rf"num_examples is {value!r}: give a positive integer\.$"):
        QUESTIONS[question](value)


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_a_multiple_to_round_to_is_a_positive_integer(value):
    with refused(rf"multiple is {value!r}: give a positive integer\.$"):
        PLAN.rounded_to(value)


@pytest.mark.parametrize("epoch", [-1, -0.001, 3, 3.5, math.nan])
def test_an_epoch_outside_the_plan_is_refused(epoch):
    with refused(rf"epoch is {epoch!r}: give a number of at least 0 and below 3, the epochs\.$"):
        PLAN.batch_size_at(epoch)


@pytest.mark.parametrize("step", [-1, 21, 1000])
def test_an_update_outside_the_plan_is_refused(step):
    with refused(rf"step is {step}: this plan has 20 updates on 100 examples\.$"):
        PLAN.epoch_at(step, 100)


def test_more_updates_than_fit_in_32_bits_are_refused_for_a_schedule():
    plan = BatchPlan.constant(1, epochs=2**31)
    assert plan.total_steps(1) == 2**31
    with refused(rf"this plan has {2**31} updates on 1 examples: at most 2³¹ − 1 are supported"):
        plan.schedule(lambda epoch: epoch, 1)


def test_a_plan_whose_batch_size_overflows_needs_a_maximum():
    with refused("maximum is None, and the batch size overflows a float within 1100 epochs: give a maximum"):
        BatchPlan.exponential(8, 2.0, every=1, epochs=1100)
