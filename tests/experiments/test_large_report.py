"""The report of a study of many groups: short enough to be read, and nothing in it twice."""

import csv
import re
from io import StringIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from experiments.report.groups import studies
from experiments.report.method_pairs import method_pair_rows, method_pairs
from experiments.report.publish import publish
from experiments.report.variants import base_of, variant_heading, variant_rows
from experiments.runner.finished_runs import find_runs
from tests.experiments.conftest import blank_or_drawn
from tests.experiments.large_study import write_large_study
from tests.experiments.written_runs import write_run, write_study


def published(folder: Path) -> Path:
    write_large_study(folder, seeds=2)
    publish(find_runs([folder]), folder / "report", Console(file=StringIO(), width=200))
    return folder / "report"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with blank pictures: this fixture comes before the one that makes them blank for a test."""
    with pytest.MonkeyPatch.context() as blank:
        blank.setattr(Figure, "draw", lambda figure, renderer: None)
        return published(tmp_path_factory.mktemp("large"))


def test_the_document_is_short_and_has_a_table_a_match(large: Path) -> None:
    document = (large / "report.md").read_text(encoding="utf-8")
    assert document.count("\n") < 300
    headings = re.findall("^## (.*)$", document, re.MULTILINE)
    assert headings[:4] == [
        "At equal epochs",
        "At equal updates",
        "At equal gradient evaluations",
        "The paper's claims",
    ]
    assert "At other lengths" not in headings
    assert "Runs" not in headings
    assert len(set(headings)) == len(headings)
    assert "[runs.csv](runs.csv)" in document
    assert len(re.findall("true zeros about .* would be left out by chance", document)) == 2  # claims, methods
    assert "12 of 47 groups are drawn" in document


@blank_or_drawn
def test_pictures_are_small_and_lie_beside_the_document(
    request: pytest.FixtureRequest, tmp_path: Path, pictures: str
) -> None:
    report = published(tmp_path) if pictures == "drawn" else request.getfixturevalue("large")
    document = (report / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[.*\]\((pictures/.*)\)", document)
    assert len(shown) > 8
    assert {str(path.relative_to(report)) for path in report.glob("pictures/**/*.*")} == set(shown)
    assert max((report / picture).stat().st_size for picture in shown) < 60_000


def test_the_file_of_runs_has_a_line_a_run(large: Path) -> None:
    with (large / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(find_runs([large.parent]))
    assert set(rows[0]) == {
        *("method", "rho", "batch_plan", "lr_schedule", "seed", "test_error", "test_loss", "train_loss"),
        *("updates", "gradient_evaluations", "sharpness at 0.0002, 512 examples", "sharpness at 0.0024, 512 examples"),
        "sharpness at 0.0002, adaptive, 512 examples",
        "sharpness at 0.0024, adaptive, 512 examples",
    }
    assert all(int(row["updates"]) > 0 and float(row["sharpness at 0.0002, 512 examples"]) > 0 for row in rows)


def test_the_page_has_what_is_long_folded(large: Path) -> None:
    page = (large / "report.html").read_text(encoding="utf-8")
    folded = re.findall(r"<details>\s*<summary><h2>(.*?)</h2>", page)
    assert folded == ["Sharpness measured in other ways", "Runs"]
    assert "GSAM, constant 16, 10 epochs" in page.partition("<details>")[2]


def test_methods_are_compared_at_each_strategy_and_match(tmp_path: Path) -> None:
    (study,) = studies(find_runs([write_study(tmp_path)]))
    rows = method_pair_rows(study, method_pairs(study))
    assert rows[0] == ("test error, points", "GSAM less SGD")
    assert [row[0] for row in rows[1:]] == ["constant, 4x128", "increasing (+B), 2x64,2x256"]
    assert rows[2][1].startswith("−1.93 (")
    assert rows[2][1].endswith(": lower")


def test_methods_of_different_lengths_are_not_compared(tmp_path: Path) -> None:
    write_study(tmp_path)
    for method, plan in (("sgd", "9x128"), ("gsam", "11x128")):
        for seed in (0, 1):
            write_run(tmp_path / f"{method}-{plan}-{seed}", 0.05, method=method, batch_plan=plan, seed=seed)
    (study,) = studies(find_runs([tmp_path]))
    assert [row[0] for row in method_pair_rows(study, method_pairs(study))[1:]] == [
        "constant, at equal epochs",
        "increasing (+B), at equal epochs",
    ]


def test_no_row_is_empty_and_none_stands_twice(tmp_path: Path) -> None:
    plans = {"sgd": ("2x64,2x256", "4x64,4x256", "4x128"), "sam": ("2x64,2x256", "5x128", "9x128"), "gsam": ("7x128",)}
    for method, seeds in (("sgd", 2), ("sam", 2), ("gsam", 1)):
        for plan in plans[method]:
            for seed in range(seeds):
                write_run(tmp_path / f"{method}-{plan}-{seed}", 0.05, method=method, batch_plan=plan, seed=seed)
    (study,) = studies(find_runs([tmp_path]))
    pairs = method_pairs(study)
    assert [row[0] for row in method_pair_rows(study, pairs)[1:]] == [
        "increasing (+B), at equal epochs and equal updates",
        "increasing (+B), at equal gradient evaluations",
    ]
    assert len(pairs.differences) == 2


def test_a_part_is_compared_with_one_that_differs_in_one_setting(tmp_path: Path) -> None:
    settings = {"base": {}, "m": {"m": 16}, "ema": {"m": 16, "ema": 0.9}, "decay": {"weight_decay": 0.1, "ema": 0.9}}
    for name, others in settings.items():
        for seed in (0, 1):
            write_run(tmp_path / f"{name}-{seed}", 0.05, method="sgd", batch_plan="4x128", seed=seed, **others)
    found = studies(find_runs([tmp_path]))
    told = {study.title.partition(": ")[2]: (study, base_of(study, found)) for study in found}
    assert told[""][1] is None
    both, decayed = told["m 16, ema 0.9"], told["weight decay 0.1, ema 0.9"]
    assert variant_heading(*both) == "Less small_resnet on digits: m 16, all else equal"
    assert (
        variant_heading(*decayed)
        == "Less small_resnet on digits, which differs in more than one setting: weight decay 0.1, ema 0.9 here"
    )


def test_another_setting_is_compared_with_the_same_without_it(tmp_path: Path) -> None:
    write_study(tmp_path)
    for seed, error in enumerate((0.040, 0.049, 0.045)):
        write_run(tmp_path / f"m-{seed}", error, method="sgd", batch_plan="4x128", m=16, seed=seed)
        write_run(tmp_path / f"n-{seed}", error, method="sgd", batch_plan="4x128", label_noise=0.1, seed=seed)
    base, shards, noisy = studies(find_runs([tmp_path]))
    assert shards.title == "small_resnet on digits: m 16"
    ((_, row), (name, cell)) = variant_rows(shards, base)
    assert (row, name) == ("test error, points", "SGD, constant")
    assert cell.startswith("−1.03 (")
    assert noisy.title.endswith("label noise 0.1")
    assert len(variant_rows(noisy, base)) == 1  # other labels: another problem


def test_all_settings_have_a_section_with_its_own_pictures(tmp_path: Path) -> None:
    write_study(tmp_path)
    write_run(tmp_path / "ema", 0.1, method="sgd", batch_plan="4x128", ema=0.9)
    publish(find_runs([tmp_path]), tmp_path / "report", Console(file=StringIO()))
    document = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert re.findall("^# (.*)$", document, re.MULTILINE) == [
        "small_resnet on digits",
        "small_resnet on digits: ema 0.9",
    ]
    assert "pictures/small_resnet-on-digits-ema-0-9/test-accuracy-over-epochs.png" in document
