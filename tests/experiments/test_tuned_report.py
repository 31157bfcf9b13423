"""A study whose learning rates and radii were tuned for each cell."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from experiments.report.groups import studies
from experiments.report.matches import shown_matches
from experiments.report.page import publish
from experiments.report.paired import direct_pairs
from experiments.report.runs_table import table_of
from experiments.report.study_tables import chosen_table, error_table
from experiments.runner.finished_runs import find_runs
from tests.experiments.written_runs import write_run

CHOSEN = ("learning_rate", "rho")
GIVEN = {("sgd", "4x128"): (0.3, None), ("sgd", "2x64,2x256"): (0.1, None)}
GIVEN |= {("sam", "4x128"): (0.1, 0.2), ("sam", "2x64,2x256"): (0.03, 0.05)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, ((method, plan), (rate, rho)) in enumerate(GIVEN.items()):
        for seed in (0, 1, 2):
            name = f"{method}-{number}-{seed}"
            error = 0.05 + 0.01 * number + 0.001 * seed * number
            settings = {"method": method, "batch_plan": plan, "seed": seed, "learning_rate": rate, "rho": rho}
            write_run(tmp_path / name, error, **settings)
    return tmp_path


def test_tuned_settings_do_not_separate_groups(folder: Path) -> None:
    (study,) = studies(table_of(find_runs([folder])), CHOSEN)
    assert [group.name for group in study.groups] == [
        "SGD, constant",
        "SGD, increasing",
        "SAM, constant",
        "SAM, increasing",
    ]
    assert len(direct_pairs(study.groups)) == 4
    assert len(studies(table_of(find_runs([folder])))) == 2  # constant runs belong to the larger one


def test_the_trials_of_a_study_are_not_among_its_runs(folder: Path) -> None:
    runs = find_runs([folder])
    trials = folder / "trials" / "rate_0.3"
    write_run(trials / "sgd-constant-9", 0.5, method="sgd", batch_plan="4x128", seed=9)
    assert find_runs([folder]) == runs
    assert [run.config.seed for run in find_runs([trials])] == [9]


def test_a_table_lists_the_tuned_settings_of_each_cell(folder: Path) -> None:
    (study,) = studies(table_of(find_runs([folder])), CHOSEN)
    assert chosen_table(study).rows == [
        ("group", "learning rate", "ρ"),
        ("SGD, constant", "0.3", "–"),
        ("SGD, increasing (+B)", "0.1", "–"),
        ("SAM, constant", "0.1", "0.2"),
        ("SAM, increasing (+B)", "0.03", "0.05"),
    ]
    publish(find_runs([folder]), folder / "report", Console(file=StringIO()), chosen=CHOSEN)
    assert "| SAM, constant | 0.1 | 0.2 |" in (folder / "report" / "report.md").read_text(encoding="utf-8")


def test_a_cell_with_two_choices_is_refused(folder: Path) -> None:
    write_run(folder / "again", 0.1, method="sam", batch_plan="4x128", seed=1, learning_rate=0.05, rho=0.2)
    with pytest.raises(ValueError, match="SAM, constant has 2 runs of seed 1 that differ in nothing else"):
        studies(table_of(find_runs([folder])), CHOSEN)


def test_unknown_tuned_settings_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="radius is no setting of a run"):
        studies(table_of(find_runs([folder])), ("radius",))


def test_a_tuned_cell_does_not_show_the_papers_result(tmp_path: Path) -> None:
    cell = {"dataset": "cifar100", "model": "resnet18", "method": "sam", "batch_plan": "200x128"}
    write_run(tmp_path / "run", 0.25, **cell, learning_rate=0.3)
    (study,) = studies(table_of(find_runs([tmp_path])), CHOSEN)
    assert not any("in the paper" in row[0] for row in error_table(shown_matches(study)[0], study).rows)
