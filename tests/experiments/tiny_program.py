"""`experiments.train` with the network that compiles at once, for a process of its own.

Where the environment has KILLED_AT=N, the process kills itself in place of its N-th operation on files of the run.
"""

import itertools
import os
import signal
import sys
from typing import Any

from experiments import models, train
from experiments.command_line import start
from experiments.models import registry
from tests import conftest  # noqa: F401 - the same devices and the same cache as the tests have
from tests.experiments.conftest import TinyNet

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")


def kill_at(number: int, output: str) -> None:
    """Kill this process before its operation of this number, from 0, that writes below the folder."""
    count = itertools.count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or output not in str(arguments[0]):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    """Train it, as the command line says."""
    registry._BUILDERS["tiny"] = TinyNet
    models.NAMES = (*models.NAMES, "tiny")
    if "KILLED_AT" in os.environ:
        kill_at(int(os.environ["KILLED_AT"]), sys.argv[sys.argv.index("--output") + 1])
    start(train.main)


if __name__ == "__main__":
    main()
