"""Runs in several processes equal those in one process, and stop and fail in the same way."""

import io
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.runner.run import RunContext
from experiments.study import Grid, RunOptions, run_all
from experiments.study.parallel_runs import StopFile, available_cores, finish_task, in_processes
from experiments.training import run_folder
from experiments.training.exceptions import Terminated, UnusableError
from experiments.training.preemption import Stop, never
from experiments.training.writers import read

SETTINGS: dict[str, Any] = {
    "methods": ("sgd", "sam"),
    "seeds": (0,),
    "strategies": ("constant",),
    "constant_plan": "1x128",
    "increasing_plan": "1x128",
}


def wait_for(task: Path, stop: Stop) -> str:
    """Waits until the file exists. Raises `Terminated` if `stop` returns True before."""
    task.with_suffix(".started").touch()
    while not task.exists():
        if stop(0):
            raise Terminated("stopped in a run.")
        time.sleep(0.01)
    return task.name


def leave(task: int, _: Stop) -> None:
    """Kills the process, as the system does when it runs out of memory."""
    os._exit(task)


def cores_of(_: int, stop: Stop) -> tuple[int, list[int]]:
    """Returns the process and its cores, after a delay in which another process can take the other task."""
    time.sleep(1)
    assert not stop(0)
    return os.getpid(), available_cores()


def executed(output: Path, options: RunOptions) -> tuple[str, list[str]]:
    printed = io.StringIO()
    specs = Grid(output, **SETTINGS).run_specs()
    failed = run_all("digits", specs, options, Console(file=printed, soft_wrap=True))
    return printed.getvalue(), [spec.name for spec in failed]


def losses(folder: Path) -> dict[str, list[float]]:
    return {
        each.parent.name: [record["loss"] for record in read(each, "step")]
        for each in sorted(folder.glob("*/metrics.jsonl"))
    }


def test_two_processes_give_the_same_runs_as_one(tmp_path: Path) -> None:
    """A run that another program executes fails, and the others do not; each finished run is recorded once."""
    output, recorded = tmp_path / "study", tmp_path / "runs.jsonl"
    options = RunOptions(jobs=2, finished=recorded)
    with pytest.raises(Terminated, match="0 of 2 runs are done and 2 are left"):
        executed(output, replace(options, context=RunContext(stop=lambda step: True)))
    unfinished = output / "sam-constant-0.unfinished"
    unfinished.mkdir(parents=True)
    with run_folder.hold_run_lock(unfinished):
        printed, failed = executed(output, options)
    assert failed == ["sam constant, seed 0"]
    assert "sam constant, seed 0 failed: " in printed
    assert "sgd constant, seed 0: " in printed
    executed(output, replace(options, jobs=1))
    assert len(recorded.read_text().splitlines()) == 2
    executed(tmp_path / "expected", RunOptions())
    found, expected = losses(output), losses(tmp_path / "expected")
    assert found["sam-constant-0"] == expected["sam-constant-0"]
    # With another number of cores, XLA rounds differently.
    assert found["sgd-constant-0"] == pytest.approx(expected["sgd-constant-0"], rel=1e-2)


def test_processes_divide_the_cores() -> None:
    """If there is only one core, or if the system does not restrict processes to cores, they share all cores."""
    before = available_cores()
    (first, cores), (second, others) = [result for _, result in in_processes(cores_of, [0, 1], 2, never)]
    assert first != second
    assert sorted(cores + others) == (before if len(before) > 1 else 2 * before)


def test_all_processes_stop_and_no_task_is_started_any_more(tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in "abcdefgh"]
    tasks[0].touch()
    done: list[str] = []

    def collect() -> None:
        for _, name in in_processes(wait_for, tasks, 2, lambda step: bool(done)):
            done.append(name)

    with pytest.raises(Terminated, match="stopped in a run"):
        collect()
    assert done == ["a"]
    assert sorted(path.stem for path in tmp_path.glob("*.started")) == ["a", "b"]


def test_a_process_whose_parent_has_ended_ends_when_its_task_has_stopped(tmp_path: Path) -> None:
    stop = StopFile(tmp_path / "stop", os.getppid())  # the parent of this process, which is not that of the new one
    process = multiprocessing.get_context("spawn").Process(target=finish_task, args=(wait_for, tmp_path / "a", stop))
    process.start()
    process.join(60)
    assert process.exitcode == 1
    assert (tmp_path / "a.started").exists()


def test_a_killed_process_is_reported() -> None:
    with pytest.raises(UnusableError, match=r"a process of the study was killed.*: give fewer jobs"):
        list(in_processes(leave, [9], 1, never))


def test_processes_stop_when_their_parent_has_ended(tmp_path: Path) -> None:
    assert not StopFile(tmp_path / "stop", os.getppid())()
    assert StopFile(tmp_path / "stop", os.getppid() + 1)()
    (tmp_path / "stop").touch()
    assert StopFile(tmp_path / "stop", os.getppid())()
