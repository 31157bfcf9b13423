"""`tiny_program` in processes that are killed at a chosen file operation, or some time after a save.

The processes are forked from a server that has imported everything, so that each takes two seconds instead of thirteen.
JAX starts its threads when it is first used, which is after the fork.
"""

import itertools
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.training import checkpoint

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")


def killed_at(output: Path, config: Config, operation: int) -> bool:
    """Resume a run in a process that kills itself instead of doing a file operation of the run, counted from 0.

    Returns:
      Whether it was killed; if not, the run has fewer operations and is complete.
    """
    program = _started(output, config, operation)
    program.join()
    return _was_killed(program)


def killed_after_a_save(output: Path, config: Config, seconds: float) -> bool:
    """Resume a run in a process that is killed some time after a save, possibly during the next save.

    Returns:
      Whether it was killed before the run was complete.
    """
    folder = output / "checkpoints"
    before = checkpoint.steps(folder)
    program = _started(output, config)
    while program.is_alive() and checkpoint.steps(folder) == before:
        time.sleep(0.01)
    time.sleep(seconds)
    program.kill()
    program.join()
    return _was_killed(program)


def _started(output: Path, config: Config, operation: int | None = None) -> BaseProcess:
    arguments = [
        "--resume",
        "--model",
        config.network.model,
        "--batch-plan",
        config.batch_plan,
        "--output",
        str(output),
    ]
    arguments += ["--saving.every", "2", "--saving.keep", "1"]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.experiments.tiny_program"])
    program = context.Process(target=_run, args=(arguments, str(output), operation))
    program.start()
    return program


def _was_killed(program: BaseProcess) -> bool:
    assert program.exitcode in {0, -signal.SIGKILL}
    return program.exitcode != 0


def _run(arguments: list[str], output: str, operation: int | None) -> None:
    from tests.experiments import tiny_program  # noqa: PLC0415 - the server has imported it

    sys.argv = ["train", *arguments]
    if operation is not None:
        _kill_at(operation, output)
    tiny_program.main()


def _kill_at(number: int, output: str) -> None:
    """Kill this process before the file operation with this number, from 0, that writes below the folder."""
    count = itertools.count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or output not in str(arguments[0]):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
