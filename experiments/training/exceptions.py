"""The exceptions that end a program before its run is complete, and text that is safe to print.

Each exception has a sentence for the user and an exit code for the scheduler.
"""

import errno
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_OF_DISKS = (*_LOCAL, errno.ESTALE, errno.ETIMEDOUT)  # the last two occur on network file systems

INTERRUPTED = 130
"""The exit code after Ctrl-C, the same as that of shells."""


class UnusableError(ValueError):
    """A file that a run needs cannot be read or written, for example a damaged checkpoint or a file on a full disk."""

    code = 2


class NotFiniteError(Exception):
    """A step produced values that are not finite, and the run was set to stop in this case."""

    code = 3


class Terminated(BaseException):
    """The program received SIGTERM, or its time limit has passed.

    Like `KeyboardInterrupt`, it is not caught by `except Exception`.
    """

    code = 75  # EX_TEMPFAIL: try again


@contextmanager
def disk_errors_as_unusable(folder: Path) -> Iterator[None]:
    """Replaces a disk error that occurs during a write to `folder` with an error that states the remedy.

    Raises:
      UnusableError: In place of an `OSError` of the disk.
    """
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not Path(error.filename).resolve().is_relative_to(folder.resolve())
        if error.errno not in _OF_DISKS or elsewhere:
            raise
        raise UnusableError(f"{folder} cannot be written: {error.strerror}. {go_on_hint(folder)}") from error


def reason_of(error: Exception) -> str:
    """Returns a short description of an error; for an error of the system, the system's own message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = str(error)
    first_words = f"{type(error).__name__}: {message.partition(chr(10))[0][:80]}"
    return next((words for words in map(os.strerror, _OF_DISKS) if words in message), first_words)


def go_on_hint(folder: Path) -> str:
    """Returns the remedy for a disk that is full or cannot be written."""
    remedy = "Free space or make the folder writable, and run the same command again (with --resume for a single run)"
    return f"{remedy}: {folder.name} is unchanged since its last checkpoint."


def printable(text: str) -> str:
    """Returns `text` without control characters, which a terminal would interpret, and without lone surrogates.

    Line breaks are kept.
    """
    return "".join(each for each in text if each == "\n" or unicodedata.category(each) not in ("Cc", "Cf", "Cs"))
