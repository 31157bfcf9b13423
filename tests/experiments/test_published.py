"""The paper's figures beside ours: only where a cell was run as it stands in the paper's table."""

from pathlib import Path

import pytest

from experiments.report.published import _published, published_rows
from tests.experiments.sharpness_records import SMALL, add_lines, worst_case
from tests.experiments.written_runs import only_study, write_run

CELL = {"dataset": "cifar100", "model": "resnet18", "method": "sam", "batch_plan": "200x128"}
GROWN = "40x16,40x32,40x64,40x128,40x256"


def test_a_cell_that_was_run_as_the_paper_ran_it_has_the_papers_figures(tmp_path: Path) -> None:
    for seed, error in enumerate((0.26, 0.27)):
        write_run(tmp_path / f"c{seed}", error, seed=seed, **CELL)
    write_run(tmp_path / "b", 0.25, **(CELL | {"batch_plan": GROWN, "method": "gsam"}))
    write_run(tmp_path / "d", 0.25, **CELL, lr_schedule="cosine")
    rows = {row[0]: row[1:] for row in published_rows(only_study(tmp_path))[1:]}
    assert rows == {
        "SAM, constant": ("26.50 ± 0.71", "26.39", "–", "46.23"),
        "SAM, cosine (+C)": ("25.00", "25.87", "–", "72.70"),
        "GSAM, increasing (+B)": ("25.00", "25.18", "–", "0.90"),
    }


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "digits"},
        {"model": "small_resnet"},
        {"batch_plan": "100x128"},
        {"rho": 0.1},
        {"momentum": 0.9},
        {"label_noise": 0.2},
        {"method": "asam"},
    ],
)
def test_another_setting_has_none(tmp_path: Path, other: dict) -> None:
    write_run(tmp_path / "run", 0.25, **(CELL | other))
    assert len(published_rows(only_study(tmp_path))) == 1


def test_all_cells_of_the_papers_seven_rows_are_known() -> None:
    assert len(_published()) == 7 * 9


def test_sharpness_that_was_measured_as_the_paper_did_is_taken_and_no_other(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0.26, **CELL)
    adaptive = [worst_case(SMALL, 9.0, 200, adaptive=True, examples=4096)]
    add_lines(folder, adaptive)
    heading, row = published_rows(only_study(tmp_path))
    assert (row[3], len(set(heading))) == ("–", 5)
    other = write_run(tmp_path / "other", 0.26, seed=1, **CELL)
    add_lines(other, [*adaptive, worst_case(SMALL, 2.0, 200)])
    add_lines(folder, [worst_case(SMALL, 4.0, 200)])
    assert published_rows(only_study(tmp_path))[1][3] == "3"
