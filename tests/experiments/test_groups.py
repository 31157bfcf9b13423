"""How runs are found, sorted into groups and named, and the tables that show them."""

from pathlib import Path
from typing import Any

import pytest

from experiments.reporting import Run, find_runs
from experiments.reporting.groups import studies
from experiments.reporting.tables import error_rows, setting_rows
from tests.experiments.written_runs import ERRORS, PLANS, only_study, write_run, write_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path)


def test_the_table_has_methods_by_strategies_with_mean_deviation_and_updates(folder: Path) -> None:
    assert error_rows(only_study(folder)) == [
        ("test error, %", "constant", "increasing (+B)"),
        ("SGD", "5.50 ± 0.50", "4.50 ± 0.56"),
        ("GSAM", "5.40 ± 0.62", "2.57 ± 0.55"),
        ("updates", "16", "20"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({"rho": 0.05}, {"rho": 0.1}, {"SAM, ρ 0.05, constant", "SAM, ρ 0.1, constant"}),
        ({"rho": 0.05}, {"rho": 0.1, "method": "gsam"}, {"SAM, ρ 0.05, constant", "GSAM, ρ 0.1, constant"}),
        ({"rho": 0.05}, {"rho": 0.5, "method": "asam"}, {"SAM, constant", "ASAM, constant"}),
        ({"method": "sgd", "rho": 0.05}, {"method": "sgd", "rho": 0.1, "seed": 1}, {"SGD, constant"}),
        ({}, {"method": "sgd"}, {"SAM, constant", "SGD, constant"}),
        ({}, {"batch_plan": "4x64"}, {"SAM, constant, 4x128", "SAM, constant, 4x64"}),
        ({}, {"batch_plan": "2x256,2x64"}, {"SAM, constant", "SAM, decreasing"}),
        ({}, {"batch_plan": "1x64,1x128,2x64"}, {"SAM, constant", "SAM, varying"}),
        ({}, {"batch_plan": "2x64,2x128", "lr_schedule": "cosine"}, {"SAM, constant", "SAM, increasing, cosine"}),
        ({}, {"lr_schedule": "linear"}, {"SAM, constant", "SAM, linear"}),
        ({}, {"momentum": 0.9}, {"SAM, constant, momentum 0.0", "SAM, constant, momentum 0.9"}),
        ({"alpha": 0.0}, {"alpha": 0.5, "seed": 1}, {"SAM, constant"}),
    ],
)
def test_names_say_what_differs_and_no_more(tmp_path: Path, one: Any, other: Any, names: set[str]) -> None:
    for name, settings in (("one", one), ("other", other)):
        write_run(tmp_path / name, 0.1, **({"method": "sam", "batch_plan": "4x128"} | settings))
    assert sorted(group.name for group in only_study(tmp_path).groups) == sorted(names)


def test_models_and_data_sets_are_studies_of_their_own(folder: Path) -> None:
    write_run(folder / "big", 0.1, model="resnet18", batch_plan="4x128")
    assert [study.title for study in studies(find_runs([folder]))] == ["resnet18 on digits", "small_resnet on digits"]


def test_a_cell_says_what_it_lacks(folder: Path) -> None:
    write_run(folder / "asam", 0.9, loss=None, method="asam", batch_plan=PLANS["increasing"])
    rows = error_rows(only_study(folder))
    assert rows[3] == ("ASAM", "–", "90.00 (seeds: 1, diverged: 1)")


def test_settings_show_every_value(folder: Path) -> None:
    settings = dict(setting_rows(only_study(folder)))
    assert settings["method"] == "sgd; gsam"
    assert settings["seed"] == "0; 1; 2"
    assert settings["learning rate"] == "0.1"


def test_a_run_that_two_sweeps_have_counts_once(folder: Path) -> None:
    write_run(folder / "again", ERRORS["sgd", "constant"][0], method="sgd", rho=0.3, batch_plan=PLANS["constant"])
    assert len(find_runs([folder])) == 12


def test_a_run_found_by_two_ways_is_one(folder: Path) -> None:
    runs = find_runs([folder, folder / "sgd-constant-0"])
    assert len(runs) == 12
    assert all(isinstance(run, Run) for run in runs)
