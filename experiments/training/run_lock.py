"""One process at a time in the folder of a run: two that go on with it would write into one another's files."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.training.exceptions import UnusableError, go_on_hint, reason_of

LOCK = ".lock"
"""The file by which a folder is held; it stays where a run was not completed."""

_HELD = (errno.EAGAIN, errno.EACCES)
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # network file systems lock what can be written


@contextmanager
def hold_run_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, until the block or the process ends, however it ends; within the block it may be renamed.

    Some file systems know no locks, or none between machines, and Windows has other ones: there nothing is held.

    Raises:
      UnusableError: If another process holds it, if nothing can be written there, or if the user has a file of the name
        of the lock there.
    """
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:
        yield
        return
    with (
        _opened(folder, folder, os.O_RDONLY) as directory,
        _opened(folder, LOCK, _LOCK_FLAGS, directory) as lock,
    ):
        found = os.fstat(lock)
        if not stat.S_ISREG(found.st_mode) or found.st_size:  # the lock is an empty file: another one is the user's
            raise _foreign(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise UnusableError(f"another process works in {folder}: wait for it, or choose another.") from error
        yield
        # who waits with the file that is gone, and who makes a new one, both find a run that is complete
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(LOCK, dir_fd=directory, follow_symlinks=False)):
                os.unlink(LOCK, dir_fd=directory)


def _foreign(folder: Path) -> UnusableError:
    return UnusableError(f"{folder} holds a file {LOCK} that is not this program's: move it elsewhere.")


@contextmanager
def _opened(folder: Path, path: Path | str, flags: int, within: int | None = None) -> Iterator[int]:
    try:
        handle = os.open(path, flags, 0o666, dir_fd=within)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _foreign(folder) from error
        raise UnusableError(f"{folder} cannot be written: {reason_of(error)}. {go_on_hint(folder)}") from error
    try:
        yield handle
    finally:
        os.close(handle)
