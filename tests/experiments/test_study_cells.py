"""The cells of a study: a method's own learning rate, and patterns that select cells."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.runner.program import schedules
from experiments.study import Comparison, Grid
from experiments.study.tuning import Tuning, trials
from experiments.training.methods import METHODS

SETTINGS: dict[str, Any] = {"output": Path("study"), "seeds": (0, 1), "methods": ("sgd", "sam")}


def names(study: Grid) -> list[str]:
    return [cell.folder.name for cell in study.run_specs()]


def test_each_method_has_its_own_rate() -> None:
    study = Grid(**SETTINGS, strategies=("constant", "constant_tuned"), tuned_rates=(("sgd", 0.4), ("sam", 0.2)))
    found = {cell.folder.name: cell.config for cell in study.run_specs() if cell.config.seed == 0}
    assert {name: config.descent.learning_rate for name, config in found.items()} == {
        "sgd-constant-0": 0.1,
        "sam-constant-0": 0.1,
        "sgd-constant_tuned-0": 0.4,
        "sam-constant_tuned-0": 0.2,
    }
    assert {config.batch_plan for config in found.values()} == {"25x128"}


def test_missing_tuned_rates_and_rates_equal_to_the_studys_add_no_cell() -> None:
    study = Grid(**SETTINGS, strategies=("constant", "constant_tuned"), tuned_rates=(("sgd", 0.1),))
    assert names(study) == ["sgd-constant-0", "sam-constant-0", "sgd-constant-1", "sam-constant-1"]


def test_radius_and_alpha_fall_to_zero_with_the_rate() -> None:
    settings = SETTINGS | {"methods": ("sgd", "sam", "gsam"), "seeds": (0,)}
    study = Grid(**settings, strategies=("cosine", "cosine_radius", "linear_radius"))
    cells = {cell.folder.name: cell.config for cell in study.run_specs()}
    falling = {name: config for name, config in cells.items() if "radius" in name}
    assert list(falling) == [f"{method}-{rate}_radius-0" for rate in ("cosine", "linear") for method in ("sam", "gsam")]
    for name, config in falling.items():
        assert config.plan == study.plans[0]
        rate, *numbers = (schedules(config, 512)[each] for each in ("learning_rate", *METHODS[config.method].uses))
        for epoch in np.linspace(0, 25, 101):
            for number, start in zip(numbers, (0.05, 0.02), strict=False):
                assert float(number(epoch)) == pytest.approx(start * float(rate(epoch)) / 0.1, rel=1e-5)
        constant_radius = config.with_settings(rho_min=None, alpha_min=None)
        assert constant_radius.lr_schedule == name.split("-")[1].removesuffix("_radius")
        assert (constant_radius == cells["-".join([config.method, "cosine", "0"])]) == ("cosine" in name)


def test_a_method_without_a_radius_has_no_trials_at_a_falling_one() -> None:
    study = Grid(**SETTINGS, strategies=("cosine", "cosine_radius"))
    tried = {trial.setting[:2] for trial in trials(study, Tuning(seeds=(7,)), 512)}
    assert tried == {("sgd", "cosine"), ("sam", "cosine"), ("sam", "cosine_radius")}


def test_the_trials_of_a_method_do_not_have_the_options_of_the_others() -> None:
    study = Grid(**SETTINGS | {"methods": ("sgd", "wsam")}, strategies=("constant",)).with_settings(gamma=0.8)
    tried = {trial.setting[0]: trial.run_specs[0].config for trial in trials(study, Tuning(seeds=(7,)), 512)}
    assert {method: config.constants.gamma for method, config in tried.items()} == {"sgd": None, "wsam": 0.8}


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
    assert {cell.config.batch_plan for cell in study.run_specs()} == {"15x128", "5x16,10x32"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"include": ("sgd-*", "adam-*")}, r"include has 'adam-\*': no cell has such a name"),
        ({"include": ("sgd-*", "sam-constnat")}, "include has 'sam-constnat': no cell has such a name"),
        ({"include": ("vasso-*",)}, r"include is \('vasso-\*',\): the study has no cell with such a name"),
        ({"perturbation": "device"}, "perturbation is 'device', and the runs of a study have one device each"),
        ({"epochs": 7}, r"epochs is 7, and increasing_plan is 5x16,.*: for whole epochs .* give a multiple of 5"),
        ({"epochs": 0}, "epochs is 0: give an integer of at least 1"),
        ({"increasing_plan": "5u16"}, "increasing_plan is '5u16'"),
        ({"strategies": ("cosine_radius",), "methods": ("sgd",)}, "strategies has 'cosine_radius', and sgd has no rad"),
        ({"strategies": ("late_switch",), "increasing_plan": "1x16"}, "increasing_plan is 1x16: .* two epochs"),
        ({"strategies": ("constant_tuned",)}, r"tuned_rates is \(\), and constant_tuned is one of the strategies"),
        ({"tuned_rates": (("adam", 0.1),)}, "tuned_rates is 'adam': choose one of"),
        ({"tuned_rates": (("sgd", -0.1),)}, "tuned_rates is -0.1: give a finite number"),
        ({"tuned_rates": (("sgd", 0.1), ("sgd", 0.2))}, "tuned_rates is .*each value once"),
    ],
)
def test_impossible_selections_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid.from_settings(**SETTINGS | settings)


def test_complete_optimizers_are_compared_at_their_papers_rate_without_momentum(tmp_path: Path) -> None:
    comparison = Comparison(output=tmp_path)
    found = {cell.config.method: cell.config.descent for cell in comparison.run_specs if cell.config.seed == 0}
    assert (found["sam"].learning_rate, found["sam"].momentum) == (0.05, 0.9)
    assert (found["sam_sps"].learning_rate, found["sam_sps"].momentum) == (1.0, 0.0)
    assert (found["bsam"].learning_rate, found["bsam"].momentum) == (0.5, 0.0)
