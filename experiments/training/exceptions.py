"""The exceptions that end a program before its run is complete, and text that is safe to print.

Each has a sentence for the user and an exit code for the scheduler.
"""

import errno
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_OF_DISKS = (*_LOCAL, errno.ESTALE, errno.ETIMEDOUT)  # the last two are of network file systems

INTERRUPTED = 130
"""The exit code after Ctrl-C, which is that of shells."""


class UnusableError(ValueError):
    """What a run needs cannot be read or written: a damaged save, a full disk."""

    code = 2


class NotFiniteError(Exception):
    """A step was not finite, and the run was to stop there."""

    code = 3


class Terminated(BaseException):
    """The program was asked to end, by SIGTERM; like Ctrl-C it is no `Exception`, so that nothing goes on after it."""

    code = 75  # EX_TEMPFAIL: try again


@contextmanager
def disk_errors_as_unusable(folder: Path) -> Iterator[None]:
    """Say of a disk that fails, while `folder` is written, what can be done.

    Raises:
      UnusableError: In the place of an `OSError` of the disk.
    """
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not Path(error.filename).resolve().is_relative_to(folder.resolve())
        if error.errno not in _OF_DISKS or elsewhere:
            raise
        raise UnusableError(f"{folder} cannot be written: {error.strerror}. {go_on_hint(folder)}") from error


def reason_of(error: Exception) -> str:
    """An error in a few words, the system's where it is the system's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error)
    first_words = f"{type(error).__name__}: {said.partition(chr(10))[0][:80]}"
    return next((words for words in map(os.strerror, _OF_DISKS) if words in said), first_words)


def go_on_hint(folder: Path) -> str:
    """What to do where a disk is full, or cannot be written."""
    remedy = "Make room, or make it writable: the same command goes on, that of one run with --resume"
    return f"{remedy}, since {folder.name} is as it was saved last."


def printable(text: str) -> str:
    """`text` without control characters, which a terminal would obey, and without lone surrogates; lines stay lines."""
    return "".join(each for each in text if each == "\n" or unicodedata.category(each) not in ("Cc", "Cf", "Cs"))
