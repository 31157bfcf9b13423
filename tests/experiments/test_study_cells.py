"""The cells of a study: a method's own learning rate, and patterns that select cells."""

from pathlib import Path
from typing import Any

import pytest

from experiments.study import Grid

SETTINGS: dict[str, Any] = {"output": Path("study"), "seeds": (0, 1), "methods": ("sgd", "sam")}


def names(study: Grid) -> list[str]:
    return [cell.folder.name for cell in study.cells()]


def test_each_method_has_its_own_rate() -> None:
    study = Grid(**SETTINGS, strategies=("constant", "constant_tuned"), tuned_rates=(("sgd", 0.4), ("sam", 0.2)))
    found = {cell.folder.name: cell.config for cell in study.cells() if cell.config.seed == 0}
    assert {name: config.descent.learning_rate for name, config in found.items()} == {
        "sgd-constant-0": 0.1,
        "sam-constant-0": 0.1,
        "sgd-constant_tuned-0": 0.4,
        "sam-constant_tuned-0": 0.2,
    }
    assert {config.batch_plan for config in found.values()} == {"25x128"}


def test_a_method_without_a_tuned_rate_and_a_rate_that_is_the_studys_own_add_no_cell() -> None:
    study = Grid(**SETTINGS, strategies=("constant", "constant_tuned"), tuned_rates=(("sgd", 0.1),))
    assert names(study) == ["sgd-constant-0", "sam-constant-0", "sgd-constant-1", "sam-constant-1"]


def test_patterns_select_cells_at_every_seed() -> None:
    study = Grid(
        **SETTINGS,
        strategies=("constant", "increasing", "constant_first"),
        match=("epochs", "updates"),
        include=("*-increasing", "sgd-constant-equal_updates", "sam-constant_first"),
    )
    of_a_seed = ["sgd-increasing", "sam-increasing", "sgd-constant-equal_updates", "sam-constant_first"]
    assert names(study) == [f"{name}-{seed}" for seed in (0, 1) for name in of_a_seed]


def test_runs_of_a_seed_are_in_the_order_of_the_patterns() -> None:
    study = Grid(**SETTINGS, include=("sam-constant", "*-cosine", "s*"))
    of_a_seed = ["sam-constant", "sgd-cosine", "sam-cosine", "sgd-constant", "sgd-increasing", "sam-increasing"]
    assert names(study) == [f"{name}-{seed}" for seed in (0, 1) for name in of_a_seed]


def test_both_plans_are_scaled_to_the_epochs() -> None:
    study = Grid(**SETTINGS, epochs=15, constant_plan="200x128", increasing_plan="40x16,80x32")
    assert [str(plan) for plan in study.plans] == ["15x128", "5x16,10x32"]
    assert {cell.config.batch_plan for cell in study.cells()} == {"15x128", "5x16,10x32"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"include": ("adam-*",)}, r"include is \('adam-\*',\): no cell has such a name"),
        ({"epochs": 7}, r"epochs is 7, and increasing_plan is 5x16,.*: for whole epochs .* give a multiple of 5"),
        ({"epochs": 0}, "epochs is 0: give an integer of at least 1"),
        ({"increasing_plan": "5u16"}, "increasing_plan is '5u16'"),
        ({"strategies": ("constant_tuned",)}, r"tuned_rates is \(\), and constant_tuned is one of the strategies"),
        ({"tuned_rates": (("adam", 0.1),)}, "tuned_rates is 'adam': choose one of"),
        ({"tuned_rates": (("sgd", -0.1),)}, "tuned_rates is -0.1: give a finite number"),
        ({"tuned_rates": (("sgd", 0.1), ("sgd", 0.2))}, "tuned_rates is .*each value once"),
    ],
)
def test_impossible_selections_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(**SETTINGS | settings)
