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
    of_a_seed = ["sgd-increasing", "sam-increasing", "sam-constant_first", "sgd-constant-equal_updates"]
    assert names(study) == [f"{name}-{seed}" for seed in (0, 1) for name in of_a_seed]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"include": ("adam-*",)}, r"include is \('adam-\*',\): no cell has such a name"),
        ({"strategies": ("constant_tuned",)}, r"tuned_rates is \(\), and constant_tuned is one of the strategies"),
        ({"tuned_rates": (("adam", 0.1),)}, "tuned_rates is 'adam': choose one of"),
        ({"tuned_rates": (("sgd", -0.1),)}, "tuned_rates is -0.1: give a finite number"),
        ({"tuned_rates": (("sgd", 0.1), ("sgd", 0.2))}, "tuned_rates is .*each value once"),
    ],
)
def test_impossible_selections_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(**SETTINGS | settings)
