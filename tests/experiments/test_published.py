"""The paper's results in the table of errors are shown only for cells with the paper's settings, of any length."""

from pathlib import Path

import pytest

from experiments.presets import published_results
from experiments.report.matches import shown_matches
from experiments.report.study_tables import error_table
from tests.experiments.written_runs import only_study, write_run

CELL = {"dataset": "cifar100", "model": "resnet18", "method": "sam", "batch_plan": "200x128"}
GROWN = "40x16,40x32,40x64,40x128,40x256"


def papers_rows(folder: Path) -> dict[str, dict[str, str]]:
    study = only_study(folder)
    found = [error_table(match, study).rows for match in shown_matches(study)]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for rows in found for row in rows if "in the paper" in row[0]}


def test_a_cell_with_the_papers_settings_has_the_papers_results(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.26, **CELL)
    write_run(tmp_path / "b", 0.25, **(CELL | {"batch_plan": GROWN, "method": "gsam"}))
    write_run(tmp_path / "c", 0.25, **CELL, lr_schedule="cosine")
    rows = papers_rows(tmp_path)
    assert rows["SAM, in the paper"]["constant"] == "26.39 / 46.23"
    assert rows["SAM, in the paper"]["cosine (+C)"] == "25.87 / 72.7"
    assert rows["GSAM, in the paper"]["increasing (+B)"] == "25.18 / 0.9"


def test_a_shorter_run_is_shown_with_the_papers_result(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0.4, **(CELL | {"batch_plan": "30x128"}))
    assert papers_rows(tmp_path)["SAM, in the paper"]["constant"] == "26.39 / 46.23"


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "digits"},
        {"model": "small_resnet"},
        {"batch_plan": "200x64"},
        {"batch_plan": "100x16,100x256"},
        {"rho": 0.1},
        {"momentum": 0.9},
        {"label_noise": 0.2},
        {"method": "asam"},
        {
            "lr_schedule": "warm_restarts:0.1",
            "batch_plan": "30x128",
        },  # too short periods for 200 epochs
    ],
)
def test_a_cell_with_another_setting_has_no_published_result(tmp_path: Path, other: dict) -> None:
    write_run(tmp_path / "run", 0.25, **(CELL | other))
    assert papers_rows(tmp_path) == {}


def test_all_cells_of_the_papers_seven_rows_and_of_a_scaled_down_one_are_recognised() -> None:
    found = published_results._published().values()
    assert len(found) == 8 * 9
    assert len({result.row for result in found}) == 7


def test_a_scaled_down_study_has_the_results_of_the_papers_row(tmp_path: Path) -> None:
    cell = CELL | {"model": "small_resnet", "train_examples": 10_000}
    write_run(tmp_path / "a", 0.7, **(cell | {"batch_plan": "6x16,6x32,6x64,6x128,6x256"}))
    write_run(tmp_path / "b", 0.8, **(cell | {"batch_plan": "30x128", "learning_rate": 0.4}))
    shown = papers_rows(tmp_path)["SAM, in the paper"]
    assert {name: figure for name, figure in shown.items() if "/" in figure} == {"increasing (+B)": "25.10 / 0.94"}
