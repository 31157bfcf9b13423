"""The runs of a study: strategies, matches, parts, and the estimates made before they start."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import Config
from experiments.study import Grid, RunSpec, Selection
from experiments.study.dry_run import estimate
from experiments.study.selection import MATCHES, TOLERANCE, matched
from experiments.study.strategies import (
    CONTROLS,
    FALLING_RADIUS,
    LATE_SWITCH,
    PLANNED,
    is_late_switch,
    late_switch,
    mean_batch_size,
    plan_of_strategy,
    rate_of,
)
from sam_optax import BatchPlan

GROWING = BatchPlan.parse("5x16,5x32,5x64,5x128,5x256")
CONSTANT = BatchPlan.parse("25x128")

plans = st.lists(st.tuples(st.integers(1, 8), st.sampled_from([16, 32, 48, 64, 128])), min_size=1, max_size=4).map(
    BatchPlan.from_stages
)


def test_controls_are_as_long_as_their_plan() -> None:
    plan = {name: str(plan_of_strategy(name, CONSTANT, GROWING)) for name in CONTROLS}
    assert plan == {
        "constant_first": "25x16",
        "constant_last": "25x256",
        "constant_mean": "25x41",
        "reversed": "5x256,5x128,5x64,5x32,5x16",
    }
    for name in (*PLANNED, LATE_SWITCH, *FALLING_RADIUS):
        assert plan_of_strategy(name, CONSTANT, GROWING).epochs == 25
    assert rate_of("warm_restarts", 78) == "warm_restarts:15.6"


@given(plans)
def test_a_late_switch_has_the_first_batch_size_for_four_fifths_of_the_epochs_and_then_the_last(
    plan: BatchPlan,
) -> None:
    epochs = int(plan.epochs)
    if epochs < 2:
        with pytest.raises(ValueError, match="at least two epochs"):
            late_switch(plan)
        return
    found = late_switch(plan)
    before, after = found.stages
    assert (before.batch_size, after.batch_size) == (plan.stages[0].batch_size, plan.stages[-1].batch_size)
    assert before.length + after.length == epochs
    assert after.length == int(after.length) >= 1
    assert abs(before.length - 0.8 * epochs) <= 0.5 or epochs == 2
    grows = plan.stages[-1].batch_size > plan.stages[0].batch_size
    assert is_late_switch(found) == (grows and before.length > 3 * after.length)
    assert not is_late_switch(GROWING)
    assert str(late_switch(GROWING)) == "20x16,5x256"


@given(plans)
def test_a_constant_batch_of_the_mean_size_makes_the_same_number_of_updates(plan: BatchPlan) -> None:
    examples, size = 1_000_000, mean_batch_size(plan)
    rounding = 0.5 / size
    constant = BatchPlan.constant(size, plan.epochs).total_steps(examples)
    assert constant == pytest.approx(plan.total_steps(examples), rel=rounding + 1e-3)


@given(plans, plans, st.sampled_from([1.0, 1.2, 2.0]), st.sampled_from(MATCHES))
def test_matched_plans_agree_to_half_an_epoch_per_stage_or_within_the_tolerance(
    plan: BatchPlan, reference: BatchPlan, evaluations: float, match: str
) -> None:
    examples = 512
    found, by = matched(match, plan, evaluations, reference, examples)
    assert [stage.batch_size for stage in found.stages] == [stage.batch_size for stage in plan.stages]
    if match == "epochs":
        assert (found, by) == (plan, "epochs")
        return
    wanted = reference.total_steps(examples) * (1 if match == "updates" else 2 / evaluations)
    longer = wanted / plan.total_steps(examples)
    rounding = [max(0.5, 1 - longer * stage.epochs) * (examples // stage.batch_size) for stage in plan.stages]
    assert abs(found.total_steps(examples) - wanted) <= max(sum(rounding) + 1e-6, TOLERANCE * wanted)
    assert (by == "epochs") == (abs(wanted / plan.total_steps(examples) - 1) <= TOLERANCE)
    assert (found == plan) or by != "epochs"


def grid(**settings: Any) -> Grid:
    return Grid.from_settings(output=Path("study"), seeds=(0,), methods=("sgd", "sam"), **settings)


def test_a_study_has_no_more_examples_than_the_data_set_but_records_that_do_are_read() -> None:
    with pytest.raises(ValueError, match="train_examples is 513, and digits has 512 training examples: give at most"):
        grid(train_examples=513)
    assert Config.from_settings(train_examples=513).epoch_size == 512


def test_equal_runs_of_several_matches_are_made_once_under_the_first_name() -> None:
    everything = grid(match=MATCHES, strategies=PLANNED).run_specs()
    configs = [spec.config for spec in everything]
    assert len(set(configs)) == len(configs)
    by_name = {spec.folder.name: spec.config for spec in everything}
    for match in MATCHES:
        for spec in grid(match=(match,), strategies=PLANNED).run_specs():
            assert by_name[spec.folder.name] == spec.config
    assert "sam-increasing-equal_updates-0" not in by_name
    assert by_name["sgd-increasing-equal_gradients-0"].batch_plan == "10x16,10x32,10x64,10x128,10x256"
    assert "sam-constant_mean-equal_updates-0" not in by_name  # 300 updates and 310 are near enough
    assert by_name["sam-constant-equal_updates-0"].batch_plan == "78x128"
    assert by_name["sgd-constant-equal_gradients-0"].batch_plan == "155x128"


def test_gradient_evaluations_are_equal_for_methods_that_skip_second_passes() -> None:
    (spec,) = Grid.from_settings(
        output=Path("study"), seeds=(0,), methods=("look_sam",), strategies=("constant",), match=("gradients",)
    ).run_specs()
    assert estimate(spec.config, 512).gradient_evaluations == pytest.approx(620, rel=0.05)


def test_the_mean_batch_is_a_multiple_of_m() -> None:
    specs = {
        spec.folder.name: spec.config for spec in grid(m=16, strategies=("constant_mean", "increasing")).run_specs()
    }
    assert specs["sam-constant_mean-0"].batch_plan == "25x48"
    assert specs["sam-increasing-0"].batch_plan == str(GROWING)


def test_five_cosines_fill_the_epochs_after_the_warmup() -> None:
    (spec,) = Grid.from_settings(
        output=Path("s"), seeds=(0,), methods=("sgd",), strategies=("warm_restarts",), warmup_epochs=5.0
    ).run_specs()
    assert spec.config.lr_schedule == "warm_restarts:4"


def test_gradient_evaluations_are_equal() -> None:
    specs = grid(match=("gradients",), strategies=("constant", "increasing", "constant_last", "reversed")).run_specs()
    counts = {spec.folder.name: estimate(spec.config, 512).gradient_evaluations for spec in specs}
    assert set(counts.values()) <= set(range(608, 633)), counts
    assert counts["sgd-increasing-equal_gradients-0"] == counts["sam-increasing-0"] == 620


@given(st.integers(1, 9), st.sampled_from([(), ("sam-*",), ("*-constant-0", "sgd-cosine-*")]))
def test_parts_divide_the_selected_runs_at_about_the_same_cost(parts: int, only: tuple[str, ...]) -> None:
    specs = Grid.from_settings(output=Path("study"), seeds=(0, 1)).run_specs()
    costs: Callable[[RunSpec], float] = lambda spec: estimate(spec.config, 512).cost  # noqa: E731
    whole = Selection(only).of(specs, costs)
    shared = [Selection(only, f"{k}/{parts}").of(specs, costs) for k in range(1, parts + 1)]
    assert sorted(spec.name for part in shared for spec in part) == sorted(spec.name for spec in whole)
    loads = [sum(map(costs, part)) for part in shared]
    assert max(loads) - min(loads) <= max(map(costs, whole))
    assert len(whole) == {0: 18, 1: 6, 2: 5}[len(only)]


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_an_invalid_part_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="part is"):
        Selection(part=part)


def test_a_pattern_without_a_matching_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"only has 'adam-\*': .*sgd-constant-0"):
        Selection(("sgd-*", "adam-*")).of(grid().run_specs(), lambda spec: 1.0)


def test_the_estimate_gives_updates_examples_and_rates_of_a_run() -> None:
    plan = "40x16,40x32,40x64,40x128,40x256"
    shared: dict[str, Any] = {"dataset": "cifar100", "model": "resnet18"}
    growing = estimate(Config.from_settings(method="sam", batch_plan=plan, **shared), 50_000)
    assert growing.updates == 242_120
    assert growing.gradient_evaluations == 484_240
    assert growing.boundaries == (125_000, 187_480, 218_720, 234_320)
    cosine = estimate(Config.from_settings(method="sgd", batch_plan="200x128", lr_schedule="cosine", **shared), 50_000)
    assert cosine[:3] == (78_000, 78_000 * 128, ())
    assert cosine.first_rate == pytest.approx(0.1)
    assert 0.001 <= cosine.last_rate < 0.00101
    assert cosine.gradient_evaluations == 78_000


def test_the_estimate_counts_second_passes_data_passes_and_held_out_examples() -> None:
    assert (
        estimate(Config.from_settings(method="sam", batch_plan="2x128", when="every:3"), 512).gradient_evaluations
        == 8 + 3
    )
    assert (
        estimate(Config.from_settings(method="sam", batch_plan="2x128", when="bernoulli:0.5"), 512).gradient_evaluations
        == 8 + 4
    )
    assert (
        estimate(Config.from_settings(method="sam", batch_plan="2x128", when="ae_sam"), 512).gradient_evaluations == 16
    )
    assert estimate(Config.from_settings(method="sgd", batch_plan="2x128", passes=3), 512).updates == 24
    assert estimate(Config.from_settings(method="sgd", batch_plan="2x100", validation=0.25), 512).updates == 2 * 3
    assert estimate(Config.from_settings(method="sgd", batch_plan="2x100", train_examples=250), 512).updates == 4


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"strategies": ("growing",)}, "strategies is 'growing'"),
        ({"match": ("time",)}, "match is 'time'"),
        ({"strategies": ()}, "strategies is ()"),
        ({"match": ("epochs", "epochs")}, "match is ('epochs', 'epochs')"),
        ({"constant_plan": "1x1024", "match": ("updates",)}, "larger than the data"),
    ],
)
def test_an_impossible_grid_is_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(word)):
        grid(**settings)
