"""The report, of runs that are written down here with figures that are known."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments import report
from experiments.config import Config
from experiments.reporting import Run, find_runs, pictures
from experiments.reporting.curves import Curves, mean_curves
from experiments.reporting.groups import Group, Study, studies
from experiments.reporting.paired import difference, differences
from experiments.reporting.tables import as_markdown, difference_rows, error_rows, setting_rows
from experiments.training.optimizer import METHODS
from experiments.training.writers import JsonLines

PLANS = {"constant": "4x128", "increasing": "2x64,2x256"}


def write_run(folder: Path, error: float, loss: float | None = 0.5, **settings: Any) -> Path:
    """A finished run with one error throughout and a gradient norm of the number of the update."""
    config = Config(**settings)
    folder.mkdir(parents=True)
    config.save(folder / "config.json")
    writer, step = JsonLines(folder / "metrics.jsonl"), 0
    for epoch in range(config.plan.epochs):
        batch_size = config.plan.batch_size_at(epoch)
        for position in range(512 // batch_size):
            measured: dict[str, Any] = {"grad_norm": step + 1}
            if METHODS[config.method].passes == 2:
                measured |= {"perturbed_grad_norm": 2.0, "cosine": 0.9, "perturbation_norm": 0.05, "rho": config.rho}
            now = {"step": step, "epoch": epoch + position * batch_size / 512, "batch_size": batch_size}
            rate = config.learning_rate * (1 - now["epoch"] / 10 if config.lr_schedule == "linear" else 1)
            writer.write({"kind": "step", **now, "learning_rate": rate, **measured})
            step += 1
        figures = {"train_loss": np.nan if loss is None else loss / (epoch + 1), "train_error": 0.1}
        tested = {"test_loss": 1.0, "test_error": error}
        writer.write({"kind": "epoch", "epoch": epoch + 1, "step": step, "batch_size": batch_size, **figures, **tested})
    writer.close()
    result = {"train_loss": loss, "train_error": 0.1, "test_loss": loss, "test_error": error}
    result |= {"updates": step, "gradient_evaluations": METHODS[config.method].passes * step, "seconds": 1.5}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


ERRORS = {
    ("sgd", "constant"): (0.050, 0.060, 0.055),
    ("sgd", "increasing"): (0.040, 0.051, 0.044),
    ("gsam", "constant"): (0.049, 0.061, 0.052),
    ("gsam", "increasing"): (0.020, 0.031, 0.026),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of two methods, two strategies and three seeds."""
    for (method, strategy), errors in ERRORS.items():
        for seed, error in enumerate(errors):
            plan = PLANS[strategy]
            write_run(tmp_path / f"{method}-{strategy}-{seed}", error, method=method, batch_plan=plan, seed=seed)
    return tmp_path


def curves_of(group: Group) -> Curves:
    return mean_curves([run.curves for run in group.runs])


def only_study(*folders: Path) -> Study:
    (study,) = studies(find_runs(folders))
    return study


def test_the_table_has_methods_by_strategies_with_mean_deviation_and_updates(folder: Path) -> None:
    assert error_rows(only_study(folder)) == [
        ("test error, %", "constant", "increasing (+B)"),
        ("SGD", "5.50 ± 0.50", "4.50 ± 0.56"),
        ("GSAM", "5.40 ± 0.62", "2.57 ± 0.55"),
        ("updates", "16", "20"),
    ]


def test_a_paired_difference_is_what_a_paired_t_test_says(folder: Path) -> None:
    groups = {group.name: group for group in only_study(folder).groups}
    one, other = groups["GSAM, increasing"], groups["SGD, constant"]
    found = difference(one, other)
    test = stats.ttest_rel(*(100 * np.asarray(ERRORS[key]) for key in (("gsam", "increasing"), ("sgd", "constant"))))
    interval = test.confidence_interval(0.95)
    assert found.mean == pytest.approx(
        100 * (np.mean(ERRORS["gsam", "increasing"]) - np.mean(ERRORS["sgd", "constant"]))
    )
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.seeds == 3


def test_a_difference_holds_only_where_its_interval_excludes_zero(folder: Path) -> None:
    pairs = differences(only_study(folder).groups)
    assert len(pairs) == 6
    assert {(pair.first.name, pair.second.name): pair.verdict for pair in pairs if pair.is_direct} == {
        ("SGD, increasing", "SGD, constant"): "holds",
        ("GSAM, increasing", "GSAM, constant"): "holds",
        ("GSAM, constant", "SGD, constant"): "–",
        ("GSAM, increasing", "SGD, increasing"): "holds",
    }
    for pair, row in zip(pairs, difference_rows(pairs)[1:], strict=True):
        assert (row[-1] == "holds") == (pair.low > 0 or pair.high < 0)


@pytest.mark.parametrize(
    ("errors", "loss", "verdict"),
    [((0.12, 0.25), 0.5, "–"), ((0.2, 0.3), 0.5, "no spread"), ((0.20, 0.301), None, "diverged: 2")],
)
def test_nothing_holds_of_differences_that_are_all_alike_or_of_runs_that_diverged(
    tmp_path: Path, errors: tuple[float, ...], loss: float | None, verdict: str
) -> None:
    for seed, error in enumerate(errors):
        write_run(tmp_path / f"sgd{seed}", 0.1 + 0.1 * seed, method="sgd", batch_plan="4x128", seed=seed)
        write_run(tmp_path / f"sam{seed}", error, loss, method="sam", batch_plan="4x128", seed=seed)
    (pair,) = differences(only_study(tmp_path).groups)
    assert pair.verdict == verdict


def test_pairs_are_made_by_seed_and_not_by_order(tmp_path: Path) -> None:
    for seed, error in ((0, 0.1), (1, 0.2), (2, 0.3)):
        write_run(tmp_path / f"sgd{seed}", error, method="sgd", batch_plan="4x128", seed=seed)
    for seed, error in ((1, 0.21), (2, 0.31), (3, 0.9)):
        write_run(tmp_path / f"sam{seed}", error, method="sam", batch_plan="4x128", seed=seed)
    (pair,) = differences(only_study(tmp_path).groups)
    assert (pair.seeds, pair.mean) == (2, pytest.approx(1.0))


def test_one_seed_makes_no_difference(tmp_path: Path) -> None:
    for method in ("sgd", "sam"):
        write_run(tmp_path / method, 0.1, method=method, batch_plan="4x128")
    assert differences(only_study(tmp_path).groups) == []


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


def test_curves_are_means_of_epochs_and_seeds(folder: Path) -> None:
    groups = {group.name: group for group in only_study(folder).groups}
    curves = curves_of(groups["GSAM, increasing"])
    np.testing.assert_array_equal(curves["grad_norm"].step, [8, 16, 18, 20])
    np.testing.assert_array_equal(curves["grad_norm"].epoch, [1, 2, 3, 4])
    np.testing.assert_allclose(curves["grad_norm"].values, [4.5, 12.5, 17.5, 19.5])
    np.testing.assert_allclose(curves["test_error"].values, 4 * [100 * np.mean(ERRORS["gsam", "increasing"])])
    assert "cosine" not in curves_of(groups["SGD, increasing"])


def test_what_is_set_is_read_where_it_is_set_and_holds_to_the_end(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0.1, method="sgd", batch_plan="1x128,2x256", lr_schedule="linear")
    (group,) = only_study(tmp_path).groups
    curves = curves_of(group)
    np.testing.assert_array_equal(curves["batch_size"].values, [128, 128, 128, 128, 256, 256, 256, 256, 256])
    np.testing.assert_array_equal(curves["batch_size"].step, [0, 1, 2, 3, 4, 5, 6, 7, 8])
    np.testing.assert_allclose(curves["learning_rate"].epoch, [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3])
    falling = [0.1, 0.0975, 0.095, 0.0925, 0.09, 0.085, 0.08, 0.075, 0.075]
    np.testing.assert_allclose(curves["learning_rate"].values, falling)


def test_of_many_steps_some_are_drawn_and_of_each_epoch_the_first(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0.1, method="sgd", batch_plan="3x1,1x2")
    (group,) = only_study(tmp_path).groups
    curve = curves_of(group)["batch_size"]
    assert len(curve.step) < 300
    assert {0, 512, 1024, 1536, 1792} <= set(curve.step)
    np.testing.assert_array_equal(curve.values, np.where(curve.step < 1536, 1, 2))


def test_a_diverged_run_ends_its_groups_curve(tmp_path: Path) -> None:
    write_run(tmp_path / "fine", 0.1, method="sgd", batch_plan="4x128")
    write_run(tmp_path / "not", 0.9, loss=None, method="sgd", batch_plan="4x128", seed=1)
    (group,) = only_study(tmp_path).groups
    assert np.isnan(curves_of(group)["train_loss"].values).all()


class Page(HTMLParser):
    """What a page shows, and what it would ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.asked: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.asked += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:")]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data: str) -> None:
        if self._inside in ("th", "td"):
            self.cells.append(data)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    report.main()


def test_the_report_is_a_table_a_document_and_a_page_that_needs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, str(folder))
    printed = capsys.readouterr().out
    assert "5.40 ± 0.62" in printed
    assert "holds" in printed
    page = Page((folder / "report" / "report.html").read_text(encoding="utf-8"))
    assert page.asked == []
    assert "5.40 ± 0.62" in page.cells
    assert len(page.images) == 9
    for image in page.images:
        assert str(image["src"]).startswith("data:image/svg+xml;base64,")
        assert image["alt"]
    document = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert as_markdown(error_rows(only_study(folder))) in document
    pictures = re.findall(r"!\[.*\]\((.*)\)", document)
    assert len(pictures) == 9
    for picture in pictures:
        assert (folder / "report" / picture).read_bytes().startswith(b"\x89PNG")


def test_the_same_runs_give_the_same_report(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []
    for _ in range(2):
        output = tmp_path_factory.mktemp("report")
        call(monkeypatch, str(folder), "--output", str(output))
        pages.append((output / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_report_of_a_coloured_terminal_is_plain_and_names_are_no_markup(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = folder.rename(folder.with_name("a [bold]name | b"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    call(monkeypatch, str(strange), "--output", str(folder.with_name("report of it")))
    document = (folder.with_name("report of it") / "report.md").read_text(encoding="utf-8")
    assert "\x1b" not in document
    columns = {line.count(" | ") for line in document.splitlines() if line.startswith("| SGD")}
    assert columns == {2, 5, 7}  # of the three tables that name a method first
    assert "| sgd-constant-0 |" in document


def test_many_groups_are_drawn_with_lines_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        write_run(tmp_path / str(number), 0.1, method="sam", rho=0.01 * (number + 1), batch_plan="1x128")
    study = only_study(tmp_path)
    styles = {tuple(map(str, pictures._style(group, study).values())) for group in study.groups}
    assert len(styles) == 8


def test_a_report_that_cannot_be_written_ends_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "report" / "report.md").mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, str(folder))
    assert stop.value.code == 2
    assert "report.md cannot be written" in capsys.readouterr().err


def test_a_diverged_run_and_single_seeds_are_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "sgd", 0.9, loss=None, method="sgd", batch_plan="4x128")
    call(monkeypatch, str(tmp_path))
    printed = capsys.readouterr().out
    assert "diverged: 1" in printed
    assert "no two groups of runs share two seeds" in printed


def damage(folder: Path, name: str, content: str = '{"half') -> Path:
    (folder / "sgd-constant-0" / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (lambda folder: folder / "nowhere", "is no folder"),
        (lambda folder: folder / "report.md", "is no folder"),
        (lambda folder: write_run(folder / "x.unfinished", 0.1), "no finished run"),
        (lambda folder: damage(folder, "config.json"), "damaged"),
        (lambda folder: damage(folder, "result.json"), "damaged"),
        (lambda folder: damage(folder, "metrics.jsonl"), "damaged"),
        (lambda folder: damage(folder, "result.json", '{"updates": 16}'), "damaged"),
        (lambda folder: write_run(folder / "twin", 0.07, method="sgd", batch_plan="4x128").parent, "two results"),
    ],
)
def test_what_cannot_be_reported_ends_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: Any, word: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, str(given(folder)))
    assert stop.value.code == 2
    assert word in capsys.readouterr().err
    assert not (folder / "report").exists()


def test_no_folder_at_all_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch)
    assert stop.value.code == 2
    assert "runs is empty" in capsys.readouterr().err


def test_a_run_that_two_sweeps_have_counts_once(folder: Path) -> None:
    write_run(folder / "again", ERRORS["sgd", "constant"][0], method="sgd", rho=0.3, batch_plan=PLANS["constant"])
    assert len(find_runs([folder])) == 12


def test_a_run_found_by_two_ways_is_one(folder: Path) -> None:
    runs = find_runs([folder, folder / "sgd-constant-0"])
    assert len(runs) == 12
    assert all(isinstance(run, Run) for run in runs)
