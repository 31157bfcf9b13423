"""Studies from the command line: rows of the paper, parts, failures, tuning."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from experiments import presets, reproduce
from experiments.config import Config
from experiments.report import curve_pictures
from experiments.runner import run
from experiments.study import Grid, Tuning, run_spec, tuning
from tests.experiments.test_command_line import GRID, call


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits the pictures of a report, which take seconds to draw. The tests of reports check all of them."""
    monkeypatch.setattr(curve_pictures, "further_pictures", lambda study, folder: [])


TWO_STRATEGIES = ("--strategies", "constant", "cosine")


def study(tiny: str, output: Path, *more: str) -> list[str]:
    return ["--model", tiny, "--output", str(output), "--methods", "sgd", "sam", *GRID, "--seeds", "0", *more]


def test_a_dry_run_of_a_row_describes_each_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    call(reproduce, monkeypatch, "--config", "cifar100_resnet18", "--dry-run", "--seeds", "0")
    lines = capsys.readouterr().out.splitlines()
    rows = {words[0]: words for line in lines if (words := line.split()) and words[0].endswith("-0")}
    assert list(rows) == [
        *("sgd-constant-0", "sam-constant-0", "sgd-increasing-0", "sam-increasing-0"),
        *(
            "sgd-constant_first-0",
            "sam-constant_first-0",
            "sgd-constant-equal_updates-0",
            "sam-constant-equal_updates-0",
        ),
        *("sgd-cosine-0", "sam-cosine-0", "gsam-constant-0", "gsam-increasing-0", "gsam-cosine-0"),
    ]
    constant, growing = rows["sam-constant-0"], rows["gsam-increasing-0"]
    assert constant == ["sam-constant-0", "200x128", "78,000", "9,984,000", "–", "0.1", "0.1", "156,000"]
    assert growing[2:4] == ["242,120", "9,992,320"]
    assert growing[4:] == ["125,000,", "187,480,", "218,720,", "234,320", "0.1", "0.1", "484,240"]
    assert rows["sgd-cosine-0"][-3:] == ["0.1", "0.001", "78,000"]
    assert list(tmp_path.iterdir()) == []


def test_a_row_is_scaled_to_fewer_epochs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(reproduce, monkeypatch, "--config", "cifar100_resnet18", "--dry-run", "--seeds", "0", "--epochs", "30")
    plans = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines() if re.match(r" *s[gam][dm]-", line))
    assert plans["sam-constant-0"] == "30x128"
    assert plans["sam-constant_first-0"] == "30x16"
    assert plans["sam-constant-equal_updates-0"] == "93x128"
    assert plans["sam-increasing-0"] == "6x16,6x32,6x64,6x128,6x256"


def test_given_options_override_those_of_the_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--dry-run", "--seeds", "7", "--constant-plan", "2x500", "--only", "sgd-constant-*"]
    call(reproduce, monkeypatch, "--config", "cifar10_resnet18", *given)
    out = capsys.readouterr().out
    assert "sgd-constant-7" in out
    assert "200" in out  # updates
    assert "1 runs" in out


def test_an_unknown_row_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(reproduce, monkeypatch, "--config", "cifar1000")
    assert stop.value.code == 2
    assert "config is 'cifar1000': choose one of cifar100_resnet8" in capsys.readouterr().err


def test_every_row_is_a_study_with_the_published_cells() -> None:
    for name in presets.NAMES:
        row = presets.load(name)
        assert row.study.output == Path("runs") / name
        cells = {(each.config.method, each.config.lr_schedule) for each in row.study.run_specs()}
        assert {("gsam", "constant"), ("gsam", "cosine"), ("sgd", "constant")} <= cells
        assert len(row.published) in {0, 9}
    published = presets.load("cifar100_wrn28_10").published
    assert published["sam", "increasing"] == (21.10, 10.99, "CIFAR-100, WRN-28-10")
    assert published["gsam", "cosine"] == (24.00, 665.13, "CIFAR-100, WRN-28-10")


def test_a_failed_run_is_reported_and_the_others_continue(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    execute = run_spec.run.execute

    def failing(config: Config, *rest: Any, **options: Any) -> Any:
        if config.method == "sam" and config.lr_schedule == "cosine":
            raise MemoryError("no room")
        return execute(config, *rest, **options)

    with monkeypatch.context() as broken:
        broken.setattr(run_spec.run, "execute", failing)
        with pytest.raises(SystemExit) as stop:
            call(reproduce, monkeypatch, *study(tiny, tmp_path, *TWO_STRATEGIES))
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert "MemoryError: no room" in out
    assert "failed: 1 of 4 runs (sam cosine, seed 0)" in out
    assert len(list(tmp_path.glob("*/result.json"))) == 3
    assert (tmp_path / "report" / "report.md").exists()
    call(reproduce, monkeypatch, *study(tiny, tmp_path, *TWO_STRATEGIES))
    assert "4 runs of tiny on digits, 1 of them to do" in capsys.readouterr().out


def test_parts_of_a_study_add_up_to_the_whole(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for part in ("1/2", "2/2"):
        assert not (tmp_path / "report" / "report.md").exists()
        call(reproduce, monkeypatch, *study(tiny, tmp_path, *TWO_STRATEGIES, "--part", part))
    assert len(list(tmp_path.glob("*/result.json"))) == 4
    call(reproduce, monkeypatch, *study(tiny, tmp_path, *TWO_STRATEGIES))
    assert "4 runs of tiny on digits, 0 of them to do" in capsys.readouterr().out
    assert (tmp_path / "report" / "report.md").exists()


TUNED = ["--tune", "--strategies", "constant", "--tuning.rates", "1e-4", "1", "--tuning.radii", "1"]
TUNED += ["--tuning.seeds", "5"]


def test_tuning_chooses_on_held_out_examples_and_runs_fresh_seeds(
    tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call(reproduce, monkeypatch, *study(tiny, tmp_path, *TUNED, "--methods", "sam"))
    for name, momentum, decay, rate in (("as_given", 0.0, 0.0, 0.1), ("momentum", 0.9, 5e-4, 0.01)):
        folder = tmp_path / name
        trials = [Config.load(path) for path in folder.glob("trials/*/*/config.json")]
        assert len(trials) == 2
        assert {(each.problem.validation, each.seed, each.problem.split) for each in trials} == {(0.2, 5, 0)}
        runs = [Config.load(path) for path in folder.glob("*/config.json")]
        assert len(runs) == 1
        for each in runs:
            assert (each.problem.validation, each.seed, each.descent.learning_rate) == (0.0, 0, pytest.approx(rate))
            assert each.problem.split == 0
            assert (each.descent.momentum, each.descent.weight_decay) == (momentum, decay)
        assert (folder / "choices.md").read_text().count("\n") == 2 + 1
        assert (folder / "report" / "report.md").exists()


def test_the_lowest_error_is_chosen_and_ties_are_broken_by_the_loss(tiny: str, tmp_path: Path) -> None:
    tried = tuning.trials(
        Grid.from_settings(output=tmp_path, model=tiny, methods=("sam",), strategies=("constant",)),
        Tuning(rates=(1.0, 2.0), radii=(1.0, 2.0), seeds=(8, 9)),
        512,
    )
    figures = {(0.1, 0.05): (0.3, 0.1), (0.1, 0.1): (0.2, None), (0.2, 0.05): (0.2, 0.9), (0.2, 0.1): (0.2, 0.8)}
    for trial in tried:
        error, loss = figures[trial.setting[2:]]
        for each in trial.run_specs:
            each.folder.mkdir(parents=True)
            result = {"train_loss": 0.0, "train_error": 0.0, "test_loss": loss, "test_error": error}
            result |= {"updates": 1, "gradient_evaluations": 1, "seconds": 1.0}
            (each.folder / "result.json").write_text(json.dumps(result))
    (choice,) = tuning.choose(tried)
    assert choice == (("sam", "constant", 0.2, 0.1), pytest.approx(0.2), True)


def test_trials_never_use_test_images_and_have_the_plans_of_the_runs() -> None:
    study = Grid.from_settings(
        output=Path("study"), methods=("sam",), strategies=("constant_last",), match=("updates",), seeds=(3, 4)
    )
    trial = tuning.trials(study, Tuning(), 512)[0]
    (choice,) = [tuning.Choice(trial.setting, 0.0, at_edge=False)]
    runs = tuning.tuned_specs(study, [choice], 512)
    assert {each.config.batch_plan for each in (*trial.run_specs, *runs)} == {"155x256"}
    tested = {image.tobytes() for each in runs for image in run.load(each.config).test.images}
    for each in trial.run_specs:
        loaded = run.load(each.config)
        assert tested.isdisjoint(image.tobytes() for part in (loaded.train, loaded.test) for image in part.images)


@pytest.mark.parametrize("name", ["rates", "radii"])
@pytest.mark.parametrize("values", [(), (1.0, 1.0)])
def test_tuning_tries_each_value_once(name: str, values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=rf"tuning.{name} is .*: give at least one value, and each value once"):
        Tuning(**{name: values})


def test_tuned_radii_and_rates_are_relative_to_the_method_and_the_study() -> None:
    study = Grid.from_settings(output=Path("study"), methods=("asam",), strategies=("constant",), learning_rate=0.2)
    tried = tuning.trials(study, Tuning(rates=(0.5,), radii=(1.0, 3.0)), 512)
    assert [trial.setting[2:] for trial in tried] == [(0.1, 0.5), (0.1, 1.5)]
    momentum = tuning.variants(study)["momentum"]
    assert (momentum.descent.momentum, momentum.descent.learning_rate) == (0.9, pytest.approx(0.02))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--tuning.seeds", "0"], "tuning.seeds has 0"),
        (["--tuning.validation", "0"], "tuning.validation is 0.0"),
        (["--match", "epochs", "updates"], "match is ('epochs', 'updates')"),
        (["--tuning.radii"], "tuning.radii"),
        (["--only", "sam-*"], "only is ('sam-*',): with tune"),
        (["--include", "sgd-*"], "include is ('sgd-*',): with tune give '*'"),
        (["--strategies", "constant_tuned", "--tuned-rates", "sgd", "0.4"], "strategies has 'constant_tuned': omit it"),
    ],
)
def test_impossible_tuning_ends_in_an_error_message(  # noqa: PLR0917 - fixtures
    tiny: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    word: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        call(reproduce, monkeypatch, *study(tiny, tmp_path, "--tune", *arguments))
    assert stop.value.code == 2
    assert word in capsys.readouterr().err


def test_settings_of_tuning_without_it_are_refused(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(reproduce, monkeypatch, *study(tiny, tmp_path, "--tuning.rates", "0.5"))
    message = "tune is False, and settings of tuning are given: add --tune, or omit them."
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
