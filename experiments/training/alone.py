"""One process at a time in the folder of a run: two that go on with it would write into one another's files."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.training.endings import UnusableError, go_on_hint, reason_of

LOCK = ".lock"
"""The file by which a folder is held; it stays where a run was not completed."""

_HELD = (errno.EAGAIN, errno.EACCES)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, until the block or the process ends, however it ends; within the block it may be renamed.

    Some file systems know no locks, or none between machines, and Windows has other ones: there nothing is held.

    Raises:
      UnusableError: If another process holds it, or if nothing can be written there.
    """
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:
        yield
        return
    with (
        _opened(folder, folder, os.O_RDONLY) as directory,
        _opened(folder, LOCK, os.O_RDWR | os.O_CREAT, directory) as lock,  # network file systems lock no other files
    ):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise UnusableError(f"another process works in {folder}: wait for it, or choose another.") from error
        yield
        # who waits with the file that is gone, and who makes a new one, both find a run that is complete
        with suppress(OSError):
            os.unlink(LOCK, dir_fd=directory)


@contextmanager
def _opened(folder: Path, path: Path | str, flags: int, within: int | None = None) -> Iterator[int]:
    try:
        handle = os.open(path, flags, 0o666, dir_fd=within)
    except OSError as error:
        raise UnusableError(f"{folder} cannot be written: {reason_of(error)}. {go_on_hint(folder)}") from error
    try:
        yield handle
    finally:
        os.close(handle)
