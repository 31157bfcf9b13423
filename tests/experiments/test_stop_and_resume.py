"""Programs that are stopped or killed leave a run that can be resumed."""

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from experiments import reproduce, train
from experiments.cli.errors import start
from experiments.config import Config
from experiments.runner import run
from experiments.study import Grid, RunSpec, study_runs
from experiments.training import checkpoint
from tests.experiments.interrupted_runs import assert_same_run, execute, stopped
from tests.experiments.test_command_line import call

PLAN = ["--batch-plan", "2x64,1x128"]  # 16 and 4 updates


def signalled(number: int, after: int) -> Callable[..., Iterator[Any]]:
    """Iterates over batches, and sends this process a signal twice after this number of batches."""

    def track(batches: Iterable[Any], **shown: Any) -> Iterator[Any]:
        for i, batch in enumerate(batches):
            if i == after:
                os.kill(os.getpid(), number)
                os.kill(os.getpid(), number)
            yield batch

    return track


@pytest.fixture
def command(tiny: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a program as from the command line, and returns its exit code."""

    def called(program: Any, *arguments: str) -> int:
        try:
            start(partial(call, program, monkeypatch, *arguments))
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return called


@pytest.fixture
def whole(tiny: str, tmp_path: Path) -> Path:
    execute(tmp_path / "whole", Config.from_settings(model=tiny, batch_plan=PLAN[1]))
    return tmp_path / "whole"


def test_sigterm_saves_the_run_and_it_resumes(
    command: Any, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--model", "tiny", *PLAN, "--output", str(tmp_path / "run")]
    with monkeypatch.context() as heard:
        heard.setattr(train, "track", signalled(signal.SIGTERM, after=9))
        assert command(train, *arguments) == 75
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    [step] = checkpoint.steps(tmp_path / "run" / "checkpoints")
    assert output.startswith(f"stopped after {step} updates")
    assert step == 10  # the step in progress is finished
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # until the process has ended
    assert command(train, *arguments) == 2  # without --resume the folder is refused because it is not empty
    assert command(train, *arguments, "--resume") == 0
    assert_same_run(tmp_path / "run", whole)
    result = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    assert command(train, *arguments, "--resume") == 0
    assert "is already complete: nothing was done" in capsys.readouterr().out
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == result


def test_resume_starts_in_a_new_folder_and_ctrl_c_is_restored(
    command: Any, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--model", "tiny", *PLAN, "--output", str(tmp_path / "run"), "--resume", "--saving.every", "4"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the workers of pytest-xdist ignore it
    with monkeypatch.context() as heard:
        heard.setattr(train, "track", signalled(signal.SIGINT, after=12))
        assert command(train, *arguments) == 130
    signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "stopped.\n"
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [8, 12]
    assert command(train, *arguments) == 0
    assert_same_run(tmp_path / "run", whole)


STUDY = ["--model", "tiny", "--seeds", "0", "--methods", "sgd", "--strategies", "constant", "increasing"]
STUDY += [
    "--constant-plan",
    "2x64",
    "--increasing-plan",
    "1x32,1x64",
    "--only",
    "sgd-*",
]  # a part of a study has no report
STUDY += ["--sharpness.steps", "1", "--sharpness.examples", "16"]


def test_a_study_stops_and_resumes_within_a_run(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(reproduce, *STUDY, "--output", str(tmp_path / "whole")) == 0
    arguments = [*STUDY, "--output", str(tmp_path / "study"), "--saving.every", "3"]
    tracks = itertools.chain([iter], itertools.repeat(signalled(signal.SIGTERM, after=12)))
    with monkeypatch.context() as heard:
        heard.setattr(study_runs.Progress, "track", lambda bar, batches, **shown: next(tracks)(batches))
        assert command(reproduce, *arguments) == 75
    assert "stopped after" in capsys.readouterr().err
    [unfinished] = tmp_path.glob("study/*.unfinished")
    assert checkpoint.steps(unfinished / "checkpoints")
    assert command(reproduce, *arguments) == 0
    assert "2 runs of tiny on digits, 1 of them to do" in capsys.readouterr().out
    for name in ("sgd-constant-0", "sgd-increasing-0"):
        assert_same_run(tmp_path / "study" / name, tmp_path / "whole" / name)


def test_a_study_stopped_in_the_last_evaluation_of_a_run_finishes_only_that_run(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    finish = run._finish

    def signalled_finish(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return finish(*arguments)

    monkeypatch.setattr(run, "_finish", signalled_finish)
    assert command(reproduce, *STUDY, "--output", str(tmp_path)) == 75
    assert "stopped before a measurement" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*/result.json"))) == 1


@pytest.mark.parametrize("damage", ["damaged", "another"])
def test_unusable_saves_are_reported_and_kept_and_other_runs_continue(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: str
) -> None:
    spec = constant_spec(tmp_path)
    config = spec.config if damage == "damaged" else spec.config.with_settings(learning_rate=0.2)
    left = unfinished_of(spec.folder)
    stopped(left, config, 3)
    if damage == "damaged":
        (left / "checkpoints" / "3" / "notes" / "metadata").write_text("{")
    assert command(reproduce, *STUDY, "--output", str(tmp_path)) == 1
    output = " ".join(capsys.readouterr().out.split())
    words = "checkpoints/3 is damaged" if damage == "damaged" else "learning_rate is 0.2 there and 0.1 here"
    assert words in output
    assert "Traceback" not in output
    assert checkpoint.steps(left / "checkpoints") == [3]
    assert (tmp_path / "sgd-increasing-0" / "result.json").exists()
    shutil.rmtree(left)
    assert command(reproduce, *STUDY, "--output", str(tmp_path)) == 0


def test_a_study_stopped_in_a_measurement_finishes_it_and_measures_the_rest_later(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    measure = study_runs.measure_runs.measure_finished_run

    def signalled_measurement(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        measure(*arguments)

    with monkeypatch.context() as heard:
        heard.setattr(study_runs.measure_runs, "measure_finished_run", signalled_measurement)
        assert command(reproduce, *STUDY, "--output", str(tmp_path)) == 75
    assert "stopped between two runs" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*/sharpness.jsonl"))) == 1
    assert command(reproduce, *STUDY, "--output", str(tmp_path)) == 0
    assert len(list(tmp_path.glob("*/sharpness.jsonl"))) == 2


def test_an_unsaved_run_restarts_and_a_complete_one_is_renamed(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = constant_spec(tmp_path)
    with pytest.raises(ZeroDivisionError):
        execute(unfinished_of(spec.folder), spec.config.with_settings(learning_rate=0.2), track=lambda batches: 1 / 0)
    assert command(reproduce, *STUDY, "--output", str(tmp_path)) == 0
    assert Config.load(spec.folder / "config.json") == spec.config
    result = (spec.folder / "result.json").read_bytes()
    spec.folder.rename(unfinished_of(spec.folder))
    assert command(reproduce, *STUDY, "--output", str(tmp_path)) == 0
    assert (spec.folder / "result.json").read_bytes() == result


def constant_spec(output: Path) -> RunSpec:
    """The first run of `STUDY`."""
    settings = {"model": "tiny", "seeds": (0,), "methods": ("sgd",), "strategies": ("constant", "increasing")}
    study = Grid.from_settings(output=output, constant_plan="2x64", increasing_plan="1x32,1x64", **settings)
    return study.run_specs()[0]


def unfinished_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{run.UNFINISHED}")


def test_progress_display_and_prefetching_end_with_the_run(tiny: str, started: Callable[[], list[str]]) -> None:
    ended: list[str] = []

    def track(batches: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from batches
        finally:
            ended.append("shown")

    def interrupted(record: Any) -> None:
        raise KeyboardInterrupt

    config = Config.from_settings(model=tiny, batch_plan=PLAN[1])
    with pytest.raises(KeyboardInterrupt) as held:  # which keeps the objects of its frames alive
        run.train(config, run.load(config), run.RunContext(track), interrupted)
    assert (ended, started()) == (["shown"], []), held
