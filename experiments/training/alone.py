"""One process at a time in the folder of a run: two that go on with it would write into one another's files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.training.endings import UnusableError


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, until the block or the process ends, however it ends.

    Some file systems know no locks, and network ones none of a folder, or none between machines: there nothing is held.

    Raises:
      UnusableError: If another process holds it.
    """
    import fcntl  # noqa: PLC0415 - Windows has none

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise UnusableError(f"another process works in {folder}: wait for it, or choose another.") from error
        yield
    finally:
        os.close(handle)
