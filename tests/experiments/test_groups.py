"""How runs are found, sorted into groups and named, and the tables that show them."""

from pathlib import Path
from typing import Any

import pytest

from experiments.cli.tables import Rows
from experiments.report.groups import studies
from experiments.report.matches import shown_matches
from experiments.report.runs_table import table_of
from experiments.report.study_tables import error_table, setting_table
from experiments.runner.finished_runs import Run, find_runs
from tests.experiments.written_runs import ERRORS, PLANS, only_study, write_run, write_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path)


def only_table(folder: Path) -> Rows:
    study = only_study(folder)
    (match,) = shown_matches(study)
    return error_table(match, study).rows


def test_the_table_has_methods_by_strategies_with_mean_deviation_and_updates(folder: Path) -> None:
    assert only_table(folder) == [
        ("test error, %", "constant", "increasing (+B)"),
        ("SGD", "5.50 ± 0.50", "4.50 ± 0.56"),
        ("GSAM", "5.40 ± 0.62", "2.57 ± 0.55"),
        ("batch sizes", "128", "64→256"),
        ("updates", "16", "20"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({"rho": 0.05}, {"rho": 0.1}, {"SAM, ρ 0.05, constant", "SAM, ρ 0.1, constant"}),
        ({"rho": 0.05}, {"rho": 0.1, "method": "gsam"}, {"SAM, ρ 0.05, constant", "GSAM, ρ 0.1, constant"}),
        ({"rho": 0.05}, {"rho": 0.5, "method": "asam"}, {"SAM, constant", "ASAM, constant"}),
        ({"method": "sgd", "alpha": 0.0}, {"method": "sgd", "alpha": 0.02, "seed": 1}, {"SGD, constant"}),
        ({}, {"method": "sgd"}, {"SAM, constant", "SGD, constant"}),
        ({}, {"batch_plan": "4x64"}, {"SAM, constant 128", "SAM, constant 64"}),
        ({}, {"batch_plan": "8x128"}, {"SAM, constant, 4 epochs", "SAM, constant, 8 epochs"}),
        ({}, {"batch_plan": "4x64", "lr_schedule": "cosine"}, {"SAM, constant", "SAM, cosine"}),
        ({}, {"batch_plan": "2x256,2x64"}, {"SAM, constant", "SAM, decreasing"}),
        ({"batch_plan": "2x64,2x256"}, {"batch_plan": "2x256,2x64"}, {"SAM, increasing", "SAM, reversed"}),
        (
            {"batch_plan": "2x64,2x256"},
            {"batch_plan": "3x64,1x256"},
            {"SAM, increasing, 2x64,2x256", "SAM, increasing, 3x64,1x256"},
        ),
        (
            {"batch_plan": "2x64,2x256"},
            {"batch_plan": "2x32,2x256"},
            {"SAM, increasing, 2x64,2x256", "SAM, increasing, 2x32,2x256"},
        ),
        ({}, {"batch_plan": "1x64,1x128,2x64"}, {"SAM, constant", "SAM, varying"}),
        ({}, {"batch_plan": "2x64,2x128", "lr_schedule": "cosine"}, {"SAM, constant", "SAM, increasing, cosine"}),
        ({}, {"lr_schedule": "linear"}, {"SAM, constant", "SAM, linear"}),
        ({}, {"method": "msam"}, {"SAM, constant", "MSAM, momentum 0.9, constant"}),
        ({"alpha": 0.0}, {"alpha": 0.02, "seed": 1}, {"SAM, constant"}),
        ({}, {"method": "k_step_sam"}, {"SAM, constant", "k-step SAM, constant"}),
        (
            {"method": "k_step_sam"},
            {"method": "k_step_sam", "ascent_steps": 4},
            {"k-step SAM, constant", "k-step SAM, 4 ascent steps, constant"},
        ),
        ({"method": "wsam"}, {"method": "wsam", "gamma": 0.5}, {"WSAM, constant", "WSAM, γ 0.5, constant"}),
        (
            {"lr_schedule": "linear"},
            {"lr_schedule": "linear", "rho_min": 0.01},
            {"SAM, linear", "SAM, linear, ρ down to 0.01"},
        ),
        (
            {"lr_schedule": "cosine"},
            {"lr_schedule": "cosine", "rho_min": 0.0},
            {"SAM, cosine", "SAM, cosine, falling radius"},
        ),
        (
            {"method": "gsam", "lr_schedule": "linear", "rho_min": 0.0},
            {"method": "gsam", "lr_schedule": "linear", "rho_min": 0.0, "alpha_min": 0.0},
            {"GSAM, linear, ρ down to 0", "GSAM, linear, falling radius"},
        ),
        (
            {"batch_plan": "2x32,2x64,2x256"},
            {"batch_plan": "5x32,1x256"},
            {"SAM, increasing", "SAM, late switch"},
        ),
    ],
)
def test_group_names_contain_only_the_settings_that_differ(
    tmp_path: Path, one: Any, other: Any, names: set[str]
) -> None:
    for name, settings in (("one", one), ("other", other)):
        write_run(tmp_path / name, 0.1, **({"method": "sam", "batch_plan": "4x128"} | settings))
    assert sorted(group.name for group in only_study(tmp_path).groups) == sorted(names)


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({"momentum": 0.9}, "momentum 0.9"),
        ({"label_noise": 0.2}, "label noise 0.2"),
        ({"ema": 0.999, "m": 16}, "m 16, ema 0.999"),
        ({"auto_augment": True}, "auto augment"),
    ],
)
def test_runs_with_other_settings_form_a_study_whose_title_names_them(folder: Path, settings: Any, title: str) -> None:
    write_run(folder / "one", 0.1, method="sgd", batch_plan="4x128", **settings)
    found = studies(table_of(find_runs([folder])))
    assert [study.title for study in found] == ["small_resnet on digits", f"small_resnet on digits: {title}"]
    assert [len(study.runs) for study in found] == [12, 1]


def test_a_constant_run_with_another_learning_rate_belongs_to_the_study(folder: Path) -> None:
    for seed in range(3):
        write_run(folder / f"t{seed}", 0.03, method="sgd", batch_plan="4x128", learning_rate=0.4, seed=seed)
    study = only_study(folder)
    assert study.columns == ["constant", "constant, learning rate 0.4", "increasing"]
    assert [group.name for group in study.groups if group.has_own_rate] == ["SGD, constant, learning rate 0.4"]
    write_run(folder / "other", 0.03, method="sgd", batch_plan="2x64,2x256", learning_rate=0.4)
    titles = [each.title for each in studies(table_of(find_runs([folder])))]
    assert titles == ["small_resnet on digits", "small_resnet on digits: learning rate 0.4"]


def test_runs_that_differ_in_their_learning_rate_are_compared(tmp_path: Path) -> None:
    for rate in (0.1, 0.3):
        write_run(tmp_path / str(rate), 0.1, method="sgd", batch_plan="4x128", learning_rate=rate)
    assert only_study(tmp_path).columns == ["constant", "constant, learning rate 0.3"]


def test_a_shared_momentum_does_not_separate_methods_that_need_one(tmp_path: Path) -> None:
    for method in ("sgd", "msam"):
        write_run(tmp_path / method, 0.1, method=method, batch_plan="4x128", momentum=0.9)
    assert [group.name for group in only_study(tmp_path).groups] == ["SGD, constant", "MSAM, constant"]


def test_a_method_without_momentum_is_compared_with_methods_that_have_it(tmp_path: Path) -> None:
    for method, momentum in {"sgd": 0.9, "msam": 0.9, "sam_sps": 0.0, "bsam": 0.0}.items():
        write_run(tmp_path / method, 0.1, method=method, batch_plan="4x128", momentum=momentum)
    assert only_study(tmp_path).rows == ["SGD", "SAM-SPS", "bSAM", "MSAM"]


def test_each_model_and_data_set_is_a_separate_study(folder: Path) -> None:
    write_run(folder / "big", 0.1, model="resnet18", batch_plan="4x128")
    assert [study.title for study in studies(table_of(find_runs([folder])))] == [
        "resnet18 on digits",
        "small_resnet on digits",
    ]


def test_a_cell_says_what_is_missing(folder: Path) -> None:
    write_run(folder / "asam", 0.9, loss=None, method="asam", batch_plan=PLANS["increasing"])
    rows = only_table(folder)
    assert rows[3] == ("ASAM", "–", "90.00 / seeds: 1, diverged: 1")


def test_settings_show_every_value(folder: Path) -> None:
    settings = dict(setting_table(only_study(folder)).rows)
    assert settings["method"] == "sgd; gsam"
    assert settings["seed"] == "0; 1; 2"
    assert settings["learning rate"] == "0.1"
    assert settings["rho"] == "0.05"


def test_default_settings_are_not_shown(folder: Path) -> None:
    assert len(setting_table(only_study(folder)).rows) == 9
    write_run(folder / "odd", 0.1, method="sgd", batch_plan="4x128", seed=7, weight_decay=0.1)
    (_, odd) = studies(table_of(find_runs([folder])))
    assert ("weight decay", "0.1") in setting_table(odd).rows
    assert "None" not in str(setting_table(odd).rows)


def test_a_run_in_two_sweeps_counts_once(folder: Path) -> None:
    again = write_run(folder / "again", ERRORS["sgd", "constant"][0], method="sgd", batch_plan=PLANS["constant"])
    assert len(find_runs([folder])) == 12
    path = again / "config.json"  # an earlier version accepted a radius for sgd
    path.write_text(path.read_text().replace('"rho": 0.0', '"rho": 0.3'))
    assert '"rho": 0.3' in path.read_text()
    assert len(find_runs([folder])) == 12


def test_a_run_found_by_two_paths_counts_once(folder: Path) -> None:
    runs = find_runs([folder, folder / "sgd-constant-0"])
    assert len(runs) == 12
    assert all(isinstance(run, Run) for run in runs)
