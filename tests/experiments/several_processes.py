"""Training programs that run at the same time on this machine and connect through a local address."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

_LONGEST = 600  # seconds: cores are shared, and two programs compile


class Ended(NamedTuple):
    """The exit code of a process, and its standard output and error."""

    code: int
    output: str
    errors: str


@contextmanager
def address() -> Iterator[str]:
    """A free address, which stays reserved for the duration of the context.

    A socket that is bound but does not listen keeps the port. The coordinator can bind it too, as they share it.
    """
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("", 0))
        yield f"127.0.0.1:{kept.getsockname()[1]}"


def together(module: str, *arguments: str, processes: int = 2) -> list[Ended]:
    """Runs `python -m module arguments` in this number of processes, and waits for all of them."""
    with address() as coordinator:
        command = [
            sys.executable,
            "-m",
            module,
            *arguments,
            "--coordinator",
            coordinator,
            "--processes",
            f"{processes}",
        ]
        started = [
            subprocess.Popen(  # noqa: S603 - a program of ours
                [*command, "--process", f"{i}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for i in range(processes)
        ]
        try:
            outputs = [process.communicate(timeout=_LONGEST) for process in started]
        except subprocess.TimeoutExpired:
            for process in started:
                process.kill()
                process.communicate()
            raise
    return [Ended(process.returncode, *each) for process, each in zip(started, outputs, strict=True)]
