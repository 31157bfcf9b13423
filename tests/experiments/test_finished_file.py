"""Studies whose finished runs are recorded in a file, which a later session continues in an empty folder."""

import csv
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import reproduce
from experiments.cli.errors import start
from experiments.report import curve_pictures
from experiments.runner import finished_file
from experiments.runner.run_curves import curves_of
from experiments.study import study_runs
from tests.experiments.test_command_line import call
from tests.experiments.test_time_limit import passes_at

STUDY = ["--model", "tiny", "--seeds", "0", "1", "--methods", "sgd", "sam", "--strategies", "increasing"]
STUDY += ["--increasing-plan", "1x32,1x64", "--sharpness.steps", "1", "--sharpness.examples", "16"]
NAMES = [f"{method}-increasing-{seed}" for seed in (0, 1) for method in ("sgd", "sam")]


@pytest.fixture
def command(tiny: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the study in a folder with a file of finished runs, and returns the exit code."""
    monkeypatch.setattr(curve_pictures, "further_pictures", lambda study, folder: [])

    def called(output: Path, file: Path, *arguments: str) -> int:
        try:
            words = (*STUDY, "--output", str(output), "--finished", str(file), *arguments)
            start(partial(call, reproduce, monkeypatch, *words))
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return called


def reported(output: Path) -> list[str]:
    """The report on the runs, without the parts that differ between executions: times, and how it was made."""
    document = (output / "report" / "report.md").read_text().partition("## How this report was made")[0]
    runs = pd.read_csv(output / "report" / "runs.csv", dtype=str).drop(columns="seconds")
    return [document, runs.to_csv(), (output / "report" / "epochs.csv").read_text()]


def test_a_study_over_several_sessions_runs_what_is_missing_and_reports_the_same(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "finished.jsonl"
    assert command(tmp_path / "first", file, "--part", "1/2") == 0
    assert len(file.read_text().splitlines()) == 2
    whole = tmp_path / "first"
    capsys.readouterr()
    assert command(tmp_path / "second", file) == 0
    assert "4 runs of tiny on digits, 2 of them to do" in capsys.readouterr().out
    assert command(whole, tmp_path / "other.jsonl") == 0
    assert len(file.read_text().splitlines()) == 4
    assert reported(tmp_path / "second") == reported(whole)

    def never(*arguments: Any) -> None:
        raise AssertionError("no run is to be made")

    monkeypatch.setattr(study_runs, "execute", never)
    monkeypatch.setattr(study_runs.measure_runs, "measure_finished_run", never)
    before = file.read_bytes()
    assert command(tmp_path / "third", file) == 0
    assert reported(tmp_path / "third") == reported(whole)
    assert file.read_bytes() == before
    for name in NAMES:
        assert not (tmp_path / "third" / name / "checkpoint").exists()
        found, wanted = curves_of(tmp_path / "third" / name), curves_of(whole / name)
        assert found.keys() == wanted.keys() >= {"learning_rate", "batch_size", "grad_norm", "test_error"}
        for quantity, curve in wanted.items():
            for mine, other in ((getattr(found[quantity], n), getattr(curve, n)) for n in ("epoch", "step", "values")):
                np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_a_study_with_a_limit_continues_from_only_the_file(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(tmp_path / "whole", tmp_path / "whole.jsonl") == 0
    file, sessions = tmp_path / "finished.jsonl", 0
    while True:
        sessions += 1
        with monkeypatch.context() as limited:
            passes_at(limited, 50)
            code = command(tmp_path / f"session {sessions}", file, "--time-limit", "25m")
        assert len(file.read_text().splitlines()) == min(sessions, 4)
        if code == 0:
            break
        assert code == 75
        assert f"{sessions} of 4 runs are done and {4 - sessions} are left" in capsys.readouterr().err
        shutil.rmtree(tmp_path / f"session {sessions}")
    assert reported(tmp_path / f"session {sessions}") == reported(tmp_path / "whole")


def test_a_tuned_study_continues_from_only_the_file(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, tuned = tmp_path / "finished.jsonl", ["--tune", "--methods", "sgd", "--seeds", "0", "--tuning.seeds", "5"]
    tuned += ["--tuning.rates", "1e-4", "1"]
    assert command(tmp_path / "first", file, *tuned) == 0
    lines = len(file.read_text().splitlines())
    capsys.readouterr()
    assert command(tmp_path / "second", file, *tuned) == 0
    out = capsys.readouterr().out
    assert lines == 2 * (2 + 1)
    assert out.count(", 0 of them to do") == 2 * 2
    choices = [(tmp_path / name / "as_given" / "choices.md").read_text() for name in ("first", "second")]
    assert choices[0] == choices[1]


def test_a_run_completed_earlier_is_recorded_too(command: Any, tmp_path: Path) -> None:
    assert command(tmp_path / "study", tmp_path / "first.jsonl", "--only", "sgd-*-0") == 0
    assert command(tmp_path / "study", tmp_path / "second.jsonl", "--only", "sgd-*-0") == 0
    first, second = (finished_file.read(tmp_path / f"{name}.jsonl") for name in ("first", "second"))
    assert first == second
    assert len(first) == 1


def test_a_later_sharpness_measurement_is_recorded_in_a_separate_line(command: Any, tmp_path: Path) -> None:
    file, only = tmp_path / "finished.jsonl", ["--only", "sgd-*-0"]
    assert command(tmp_path / "study", file, *only) == 0
    assert command(tmp_path / "study", file, *only, "--sharpness.measures", "trace") == 0
    assert len(file.read_text().splitlines()) == 2
    (finished,) = finished_file.read(file).values()
    assert {record.kind for record in finished.sharpness} == {"worst_case", "trace"}


def test_sharpness_missing_from_a_restored_run_is_reported_as_not_measured(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, only = tmp_path / "finished.jsonl", ["--only", "sgd-*-0"]
    assert command(tmp_path / "study", file, *only) == 0
    shutil.rmtree(tmp_path / "study")
    assert command(tmp_path / "study", file, *only, "--sharpness.measures", "trace") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not measured:" in out
    assert "has no readable trained state" in out


def test_the_file_of_epochs_has_a_row_per_run_and_epoch(command: Any, tmp_path: Path) -> None:
    assert command(tmp_path / "study", tmp_path / "finished.jsonl") == 0
    with (tmp_path / "study" / "report" / "epochs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2
    last = rows[-1]
    assert {row["run"] for row in rows} == set(NAMES)
    assert (last["strategy"], last["epoch"], last["step"], last["examples"]) == ("increasing", "2", "24", "1024")
    assert (last["batch_size"], last["learning_rate"]) == ("64", "0.1")
    results = [json.loads((tmp_path / "study" / name / "result.json").read_text()) for name in NAMES]
    for row in rows[1::2]:
        result = results[NAMES.index(row["run"])]
        for name in ("train_loss", "train_error", "test_loss", "test_error"):
            assert float(row[name]) == pytest.approx(result[name], rel=1e-5)
