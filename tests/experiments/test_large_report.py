"""The report of a study of many groups is short enough to be read, and repeats nothing."""

import csv
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from experiments.report.answers import method_table, variant_of, variant_table
from experiments.report.groups import studies
from experiments.report.page import publish
from experiments.report.runs_table import table_of
from experiments.runner.finished_runs import find_runs
from tests.experiments.conftest import blank_or_drawn
from tests.experiments.large_study import write_large_study
from tests.experiments.written_runs import write_run, write_study

RADII = ("0.0002", "0.0024")
WAYS = ("512 examples", "adaptive, 512 examples")


def published(folder: Path) -> Path:
    write_large_study(folder, seeds=3)
    publish(find_runs([folder]), folder / "report", Console(file=StringIO(), width=200))
    return folder / "report"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with blank pictures: this fixture runs before the one that makes them blank for a test."""
    with pytest.MonkeyPatch.context() as blank:
        blank.setattr(Figure, "draw", lambda figure, renderer: None)
        return published(tmp_path_factory.mktemp("large"))


def test_the_document_is_short_and_begins_with_the_answers(large: Path) -> None:
    document = (large / "report.md").read_text(encoding="utf-8")
    assert document.count("\n") < 400
    headings = re.findall("^## (.*)$", document, re.MULTILINE)
    assert headings[:5] == [
        "Differences in test error",
        "Ratios of sharpness at ρ 0.0002",
        "Ratios of sharpness at ρ 0.0024",
        "What this does not show",
        "Test error and sharpness at equal epochs",
    ]
    assert "Details: Runs" not in headings
    assert len(set(headings)) == len(headings)
    assert "[runs.csv](runs.csv)" in document
    assert len(re.findall("Without any effect, about .* would do so by chance", document)) == 2  # claims, methods
    assert "12 of 47 groups are drawn" in document


@blank_or_drawn
def test_pictures_are_small_and_in_the_folder_of_the_document(
    request: pytest.FixtureRequest, tmp_path: Path, pictures: str
) -> None:
    report = published(tmp_path) if pictures == "drawn" else request.getfixturevalue("large")
    document = (report / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[.*\]\((pictures/.*)\)", document)
    assert len(shown) > 8
    assert {str(path.relative_to(report)) for path in report.glob("pictures/**/*.*")} == set(shown)
    assert max((report / picture).stat().st_size for picture in shown) < 60_000


def test_the_file_of_runs_has_a_line_per_run(large: Path) -> None:
    with (large / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(find_runs([large.parent]))
    assert set(rows[0]) == {
        *("method", "rho", "batch_plan", "lr_schedule", "seed", "test_error", "test_loss", "train_loss"),
        *("train_error", "dataset", "model", "learning_rate", "alpha", "seconds", "folder", "parameters"),
        *("updates", "gradient_evaluations", "loss, 512 examples", "top eigenvalue, 512 examples"),
        *(f"{part} at {rho}, {way}" for part in ("sharpness", "first order") for rho in RADII for way in WAYS),
    }
    assert all(int(row["updates"]) > 0 and float(row["sharpness at 0.0002, 512 examples"]) > 0 for row in rows)


def test_the_page_collapses_the_details(large: Path) -> None:
    page = (large / "report.html").read_text(encoding="utf-8")
    folded = re.findall(r"<details>\s*<summary>(.*?)</summary>", page)
    assert folded == [
        "Test error at other matches",
        "All comparisons",
        "Methods against one another",
        "Sharpness",
        "Settings",
        "Runs",
        "Other quantities during training",
    ]
    assert "GSAM, constant 16, 10 epochs" in page.partition("<details>")[2]


def rows_of(folder: Path) -> list[tuple[Any, ...]]:
    (study,) = studies(table_of(find_runs([folder])))
    return method_table(study).rows


def test_methods_are_compared_at_each_strategy_and_match(tmp_path: Path) -> None:
    rows = rows_of(write_study(tmp_path))
    assert rows[0] == ("A − B", "GSAM − SGD")
    assert [row[0] for row in rows[1:]] == ["constant, 4x128", "increasing (+B), 2x64,2x256"]
    assert (rows[2][1].symbol, rows[2][1].effect) == ("✓", "−1.93 points")


def test_methods_of_different_lengths_are_not_compared(tmp_path: Path) -> None:
    write_study(tmp_path)
    for method, plan in (("sgd", "9x128"), ("gsam", "11x128")):
        for seed in (0, 1):
            write_run(tmp_path / f"{method}-{plan}-{seed}", 0.05, method=method, batch_plan=plan, seed=seed)
    assert [row[0] for row in rows_of(tmp_path)[1:]] == [
        "constant, at equal epochs",
        "increasing (+B), at equal epochs",
    ]


def test_no_row_is_empty_or_repeated(tmp_path: Path) -> None:
    plans = {"sgd": ("2x64,2x256", "4x64,4x256", "4x128"), "sam": ("2x64,2x256", "5x128", "9x128"), "gsam": ("7x128",)}
    for method, seeds in (("sgd", 2), ("sam", 2), ("gsam", 1)):
        for plan in plans[method]:
            for seed in range(seeds):
                write_run(tmp_path / f"{method}-{plan}-{seed}", 0.05, method=method, batch_plan=plan, seed=seed)
    rows = rows_of(tmp_path)[1:]
    assert [row[0] for row in rows] == [
        "increasing (+B), at equal epochs",
        "increasing (+B), at equal gradient evaluations",
    ]
    assert sum(str(value) != "–" for row in rows for value in row[1:]) == 2


def test_a_section_is_compared_with_one_that_differs_in_one_setting(tmp_path: Path) -> None:
    settings = {"base": {}, "m": {"m": 16}, "ema": {"m": 16, "ema": 0.9}, "decay": {"weight_decay": 0.1, "ema": 0.9}}
    for name, others in settings.items():
        for seed in (0, 1):
            write_run(tmp_path / f"{name}-{seed}", 0.05, method="sgd", batch_plan="4x128", seed=seed, **others)
    found = studies(table_of(find_runs([tmp_path])))
    by_title = {study.title.partition(": ")[2]: study for study in found}
    assert variant_of(by_title[""], found) == (None, [])
    base, pairs = variant_of(by_title["m 16, ema 0.9"], found)
    assert (base.title, len(pairs)) == ("small_resnet on digits: m 16", 1)
    assert variant_table(by_title["weight decay 0.1, ema 0.9"], found).caption == (
        "This part minus small_resnet on digits. This part has weight decay 0.1 and ema 0.9."
    )


def test_an_extra_setting_is_compared_with_the_same_runs_without_it(tmp_path: Path) -> None:
    write_study(tmp_path)
    for seed, error in enumerate((0.040, 0.049, 0.045)):
        write_run(tmp_path / f"m-{seed}", error, method="sgd", batch_plan="4x128", m=16, seed=seed)
        write_run(tmp_path / f"n-{seed}", error, method="sgd", batch_plan="4x128", label_noise=0.1, seed=seed)
    _, shards, noisy = found = studies(table_of(find_runs([tmp_path])))
    assert shards.title == "small_resnet on digits: m 16"
    ((_, measure), (name, cell)) = variant_table(shards, found).rows
    assert (measure, name, cell.effect) == ("test error", "SGD, constant", "−1.03 points")
    assert noisy.title.endswith("label noise 0.1")
    assert not variant_table(noisy, found)  # other labels are another problem


def test_all_settings_have_a_section_with_its_own_pictures(tmp_path: Path) -> None:
    write_study(tmp_path)
    write_run(tmp_path / "ema", 0.1, method="sgd", batch_plan="4x128", ema=0.9)
    publish(find_runs([tmp_path]), tmp_path / "report", Console(file=StringIO()))
    document = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert re.findall("^# (.*)$", document, re.MULTILINE) == [
        "small_resnet on digits",
        "small_resnet on digits: ema 0.9",
    ]
    assert "pictures/small_resnet-on-digits-ema-0-9/test_error.png" in document


def test_a_comparison_of_many_methods_has_a_row_per_method_and_no_claim(tmp_path: Path) -> None:
    for method in ("sgd", "sam", "gsam", "asam", "wsam"):
        for seed in range(3):
            error = 0.05 + 0.001 * seed**2 - 0.01 * (method == "sam") + 0.0001 * seed * len(method)
            write_run(tmp_path / f"{method}-{seed}", error, method=method, batch_plan="4x128", seed=seed)
    rows = rows_of(tmp_path)
    assert [row[0] for row in rows] == ["A − B", "SAM − SGD", "GSAM − SGD", "ASAM − SGD", "WSAM − SGD"]
    publish(find_runs([tmp_path]), tmp_path / "report", Console(file=StringIO()))
    document = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "SAM, constant has the lowest test error, 4.20%, mean over 3 seeds." in document
    assert re.search(r"Differences are shown in \d of \d comparisons", document)
    assert "best constant batch" not in document
