"""Studies with a time limit: when they stop, what they print, and how they are continued."""

import itertools
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import reproduce
from experiments.cli.errors import start
from experiments.runner import run
from experiments.study import study_runs
from experiments.training import checkpoint, deadline
from experiments.training.deadline import Deadline, first_of, seconds_of
from tests.experiments.interrupted_runs import assert_same_run
from tests.experiments.test_command_line import call

STUDY = ["--model", "tiny", "--seeds", "0", "--methods", "sgd", "--strategies", "constant", "increasing"]
STUDY += ["--constant-plan", "2x64", "--increasing-plan", "1x32,1x64"]
NAMES = ("sgd-constant-0", "sgd-increasing-0")
MEASURED = ["--sharpness.steps", "1", "--sharpness.examples", "16"]


@pytest.fixture
def command(tiny: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a study with these options and returns the exit code."""

    def called(output: Path, *arguments: str) -> int:
        monkeypatch.setattr(
            deadline, "STARTED", time.monotonic()
        )  # the process of the tests may be older than the limit
        try:
            words = (*STUDY, "--output", str(output), *arguments)
            start(partial(call, reproduce, monkeypatch, *words))
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return called


def passes_at(monkeypatch: pytest.MonkeyPatch, question: int) -> None:
    """Makes the deadline pass at the given number of checks by the study, counted from 1."""
    counted = itertools.count(1)
    monkeypatch.setattr(Deadline, "__call__", lambda limit, step=0: next(counted) >= question)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("25m", 1500), ("3h", 10_800), ("1h30m", 5400), ("1h1m1s", 3661), ("0h5m", 300), ("2h10s", 7210)],
)
def test_durations_are_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert seconds_of("time_limit", text) == seconds


@given(st.integers(0, 999), st.integers(0, 999), st.integers(1, 999))
def test_every_duration_is_read_back_as_written(hours: int, minutes: int, seconds: int) -> None:
    assert seconds_of("time_limit", f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize(
    "text", ["", "25", "0m", "m", "-5m", "1.5h", "30m1h", "1h 30m", "25 m", "1d", "٣h", "9999999s"]
)
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time_limit is .*: give a positive duration, for example 90s, 25m"):
        seconds_of("time_limit", text)


def test_an_invalid_time_limit_ends_in_an_error_message(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(tmp_path / "study", "--time-limit", "25") == 2
    assert "time_limit is '25': give a positive duration" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_limit_counts_from_the_start_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "STARTED", 100.0)
    limit = Deadline.after_start("1m")
    for now, is_reached in ((100.0, False), (159.9, False), (160.0, True), (1000.0, True)):
        monkeypatch.setattr(deadline.time, "monotonic", lambda now=now: now)
        assert limit(0) is is_reached


def test_the_first_of_several_stop_reasons_is_reported() -> None:
    stop = first_of(lambda step: step == 3, lambda step: step >= 7)
    assert [step for step in range(9) if stop(step)] == [3, 7, 8]


def test_a_study_continued_after_its_limit_equals_an_uninterrupted_one(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(tmp_path / "whole", *MEASURED) == 0
    arguments = [*MEASURED, "--time-limit", "25m"]
    with monkeypatch.context() as limited:
        passes_at(limited, 12)
        assert command(tmp_path / "study", *arguments) == 75
    output = " ".join(capsys.readouterr().err.split())
    assert output == (
        "the time limit of 25m has passed, and the study stopped after 9 updates, which are saved: 0 of 2 runs are "
        "done and 2 are left. Run the same command again to continue."
    )
    assert checkpoint.steps(tmp_path / "study" / f"{NAMES[0]}{run.UNFINISHED}" / "checkpoints") == [9]
    elsewhere = Path(shutil.copytree(tmp_path / "study", tmp_path / "elsewhere"))
    with monkeypatch.context() as limited:
        passes_at(limited, 30)
        assert command(elsewhere, *arguments) == 75
    assert "1 of 2 runs are done and 1 are left" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "study")
    shutil.move(elsewhere, tmp_path / "study")
    assert not (tmp_path / "study" / "report" / "report.md").exists()
    assert command(tmp_path / "study", *arguments) == 0
    for name in NAMES:
        assert_same_run(tmp_path / "study" / name, tmp_path / "whole" / name)
    reports = [pd.read_csv(tmp_path / name / "report" / "runs.csv") for name in ("study", "whole")]
    pd.testing.assert_frame_equal(*(report.drop(columns="seconds") for report in reports))


def test_no_measurement_begins_after_the_limit(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = [*MEASURED, "--time-limit", "1h", "--only", "sgd-constant-*"]
    with monkeypatch.context() as limited:
        limited.setattr(Deadline, "__call__", lambda limit, step=0: any(tmp_path.glob("*/result.json")))
        assert command(tmp_path, *arguments) == 75
        assert "stopped before a measurement of sharpness: 1 of 1 runs are done" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/sharpness.jsonl"))
    with monkeypatch.context() as limited:  # the next session measures this run before it begins another
        limited.setattr(Deadline, "__call__", lambda limit, step=0: any(tmp_path.glob("*/sharpness.jsonl")))
        assert command(tmp_path, *MEASURED, "--time-limit", "1h") == 75
    assert [path.parent.name for path in tmp_path.glob("*/sharpness.jsonl")] == [NAMES[0]]
    assert len(list(tmp_path.glob("*/result.json"))) == 1


def test_sharpness_is_measured_as_soon_as_a_run_is_complete(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measure, complete = study_runs.measure_runs.measure_finished_run, []

    def counting(*arguments: Any) -> None:
        complete.append(len(list(tmp_path.glob("*/result.json"))))
        measure(*arguments)

    monkeypatch.setattr(study_runs.measure_runs, "measure_finished_run", counting)
    assert command(tmp_path, *MEASURED) == 0
    assert complete == [1, 2]


def test_a_measurement_that_fails_is_tried_once_in_each_session(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def failing(*arguments: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(study_runs.measure_runs, "measure_finished_run", failing)
    for _ in range(2):
        assert command(tmp_path, *MEASURED, "--only", "sgd-constant-*") == 0
        assert capsys.readouterr().out.count("MemoryError: no room") == 1


def test_a_limit_that_is_never_reached_changes_nothing(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(tmp_path, *MEASURED, "--time-limit", "9999h") == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "report" / "report.md").exists()
