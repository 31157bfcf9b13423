"""Only one process at a time uses a folder, and the lock file does not get in the way."""

import errno
import fcntl
import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from experiments import train
from experiments.cli.errors import start
from experiments.cli.output_folder import claim
from experiments.config import Config
from experiments.runner import run
from experiments.runner.resume import Start, reopened
from experiments.study import run_spec, study_runs
from experiments.study.run_spec import RunSpec
from experiments.training import checkpoint
from experiments.training.exceptions import UnusableError
from experiments.training.run_folder import LOCK, hold_run_lock
from tests.experiments.interrupted_runs import stopped
from tests.experiments.test_command_line import call

ARGUMENTS = ["--model", "tiny", "--batch-plan", "1x256"]


def train_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    start(partial(call, train, monkeypatch, *ARGUMENTS, "--output", str(folder), *options))


def test_only_one_process_works_in_a_folder(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with hold_run_lock(tmp_path), pytest.raises(SystemExit) as refusal:
        train_in(tmp_path, monkeypatch, "--resume")
    assert refusal.value.code == 2
    output = capsys.readouterr().err
    assert f"another process uses {tmp_path}" in output
    assert output.count("\n") == 1
    train_in(tmp_path, monkeypatch, "--resume")
    assert (tmp_path / "result.json").exists()
    assert not (tmp_path / LOCK).exists()


def test_the_lock_is_held_on_a_file_open_for_writing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Network file systems use a byte-range lock, which is impossible on folders and on read-only files."""
    held: list[int] = []
    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda handle, how: held.append(handle) or flock(handle, how))
    with hold_run_lock(tmp_path):
        [handle] = held
        assert stat.S_ISREG(os.fstat(handle).st_mode)
        assert fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


def test_the_lock_holds_through_another_path_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    with hold_run_lock(tmp_path / "unfinished"):
        (tmp_path / "unfinished").rename(tmp_path / "run")
        with pytest.raises(UnusableError, match="another process uses"), hold_run_lock(tmp_path / "run"):
            pass
    assert not list((tmp_path / "run").iterdir())


def test_an_incomplete_run_is_locked_by_the_same_file_again(tmp_path: Path) -> None:
    """Otherwise one process could lock the removed file, and another one the new file."""
    found: list[os.stat_result] = []
    with pytest.raises(ZeroDivisionError), hold_run_lock(tmp_path):
        found.append((tmp_path / LOCK).stat()) or 1 / 0
    assert os.path.samestat((tmp_path / LOCK).stat(), found[0])
    with hold_run_lock(tmp_path):
        assert os.path.samestat((tmp_path / LOCK).stat(), found[0])


def test_the_lock_file_of_a_killed_process_does_not_count_as_content(
    tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / LOCK).touch()
    config = Config.from_settings(model=tiny, batch_plan="1x256")
    assert claim(tmp_path) == tmp_path
    assert reopened(tmp_path, config, run.load(config)) == Start()
    train_in(tmp_path, monkeypatch)
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_file_locks_nothing_is_locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    def no_locks(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with hold_run_lock(tmp_path), hold_run_lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_both_error_codes_of_a_held_lock_are_recognised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """POSIX allows both for a byte-range lock."""

    def held(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", held)
    with pytest.raises(UnusableError, match="another process uses"), hold_run_lock(tmp_path):
        pass


def test_without_fcntl_nothing_is_locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with hold_run_lock(tmp_path), hold_run_lock(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_allow_new_files_is_reported(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with (
        pytest.raises(UnusableError, match=f"{tmp_path.name} cannot be written: Is a directory"),
        hold_run_lock(tmp_path),
    ):
        pass
    with pytest.raises(UnusableError, match="gone cannot be written: No such file"), hold_run_lock(tmp_path / "gone"):
        pass


def a_run_spec(folder: Path) -> RunSpec:
    return RunSpec("tiny", Config.from_settings(model="tiny", batch_plan="1x256"), folder / "run")


def test_a_cell_that_another_process_completed_is_not_trained_again(tiny: str, tmp_path: Path) -> None:
    """Both processes planned to train the cell when they began."""
    spec = a_run_spec(tmp_path)
    dataset = run.load(spec.config)
    result = run_spec.execute(spec, dataset)
    again = run_spec.execute(spec, dataset, track=lambda batches: 1 / 0)
    assert again == result
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (spec.folder / LOCK).exists()


def test_a_cell_in_use_by_another_process_is_reported_and_unchanged(tiny: str, tmp_path: Path) -> None:
    spec = a_run_spec(tmp_path)
    unfinished = tmp_path / f"run{run.UNFINISHED}"
    stopped(unfinished, spec.config, 1)
    with hold_run_lock(unfinished), pytest.raises(UnusableError, match="another process uses"):
        run_spec.execute(spec, run.load(spec.config))
    assert checkpoint.steps(unfinished / "checkpoints") == [1]


@pytest.mark.parametrize("begun", [True, False])
def test_a_cell_with_another_run_keeps_only_a_begun_unfinished_folder(tiny: str, tmp_path: Path, begun: bool) -> None:
    spec = a_run_spec(tmp_path)
    unfinished = tmp_path / f"run{run.UNFINISHED}"
    spec.folder.mkdir()
    if begun:
        unfinished.mkdir()
        (unfinished / "metrics.jsonl").touch()
    with pytest.raises(UnusableError, match="run holds another run, or a damaged one"):
        run_spec.execute(spec, run.load(spec.config))
    assert unfinished.exists() == begun


@pytest.mark.parametrize("what", ["another run", "no folder"])
def test_an_obstacle_in_the_folder_of_a_cell_is_reported(
    tiny: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str
) -> None:
    """The obstacle appeared after the study began."""
    spec = a_run_spec(tmp_path)
    options, console = study_runs.RunOptions(), study_runs.Console(width=200, soft_wrap=True)

    def meanwhile(*arguments: Any) -> list[RunSpec]:
        path = spec.folder if what == "another run" else tmp_path / f"run{run.UNFINISHED}"
        path.mkdir() if what == "another run" else path.write_text("mine")
        return [spec]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_runs, "to_do", meanwhile)
        assert study_runs.run_all("tiny", [spec], options, console) == [spec]
    output = capsys.readouterr().out
    assert "tiny failed: " in output
    assert "Traceback" not in output
