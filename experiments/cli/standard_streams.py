"""Standard output and standard error that may be closed, full, unread, of any encoding and width.

What cannot be shown is lost, and the program goes on: a run does not end because the program that read its progress has
ended. Where showing is all that is asked for, as with `--help`, the program ends instead (`needed`).
"""

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from experiments.training import preemption

NARROWEST, WIDEST = 40, 10_000  # columns
_STDOUT, _STDERR = 1, 2
_MOST_DIGITS = 9  # of a size


class OutputLost(BaseException):
    """What was asked for cannot be shown; it is no `Exception`, so that nothing goes on after it.

    Attributes:
      code: the exit code: that of a Unix tool whose reader is gone, or that of a file that cannot be written.
      words: what is said about it; nothing where the reader is gone.
    """

    def __init__(self, error: OSError) -> None:
        is_unread = error.errno == errno.EPIPE
        self.code = 141 if is_unread else 2
        self.words = "" if is_unread else f"standard output cannot be written: {error.strerror}."
        super().__init__(self.words)


class LossyFile(io.FileIO):
    """A file that can always be written: once the system refuses, what follows goes to the null device.

    Attributes:
      is_needed: whether `OutputLost` is raised then.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        self.is_needed = False

    def write(self, data: Any) -> int:
        """Write the bytes, or drop them."""
        try:
            while (count := super().write(data)) is None:  # it does not block, and its reader is slow
                select.select((), (self.fileno(),), ())
            return count
        except OSError as error:
            _send_to_null(self.fileno())
            if self.is_needed:
                raise OutputLost(error) from error
            return memoryview(data).nbytes


def prepare_streams() -> None:
    """Replace the standard streams by lossy ones, and correct the width that the environment gives."""
    for number in (0, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:  # it is closed: the next file that is opened would be standard output
            _send_to_null(number)
    sys.stdout = sys.__stdout__ = _lossy(sys.stdout, _STDOUT)
    sys.stderr = sys.__stderr__ = _lossy(sys.stderr, _STDERR)
    correct_size()


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Within, what is shown is all that is asked for.

    Raises:
      OutputLost: If it cannot be shown.
    """
    file = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(file, LossyFile):
        yield
        return
    file.is_needed = True
    try:
        yield
        sys.stdout.flush()
    except SystemExit:  # after --help
        sys.stdout.flush()
        raise
    finally:
        file.is_needed = False


def correct_size() -> None:
    """Ignore sizes in the environment that are no sizes, and replace a width at which nothing can be laid out."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name, "1")
        if not (text.isascii() and text.isdecimal() and int(text[:_MOST_DIGITS]) > 0):
            del os.environ[name]
    width = _width()
    if not NARROWEST <= width <= WIDEST:
        os.environ["COLUMNS"] = str(min(max(width, NARROWEST), WIDEST))


def _width() -> int:
    """The columns that the environment gives, or else the first standard stream that is a terminal."""
    if "COLUMNS" in os.environ:
        return int(os.environ["COLUMNS"][:_MOST_DIGITS])
    for number in (0, _STDOUT, _STDERR):
        with contextlib.suppress(OSError):
            return os.get_terminal_size(number).columns or NARROWEST  # 0: it does not say
    return NARROWEST


def _lossy(stream: TextIO | None, number: int) -> io.TextIOWrapper:
    """A stream like `stream`, which is None where it was closed; what its encoding lacks is replaced."""
    encoding, errors = getattr(stream, "encoding", "utf-8"), getattr(stream, "errors", "strict")
    file = LossyFile(number)
    errors = "replace" if errors in ("strict", "surrogateescape") else errors
    by_line, at_once = number == _STDERR or file.isatty(), getattr(stream, "write_through", False)
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, None, by_line, at_once)


def _send_to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    else:
        os.set_inheritable(number, True)


_DEVICES = "JAX_NUM_CPU_DEVICES"
_MOST_DEVICES = 1024


def prepare() -> None:
    """Prepare the process; where JAX could not be imported, it ends with a sentence and exit code 2."""
    preemption.end_at_once()
    prepare_streams()
    try:
        check_environment()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def check_environment() -> None:
    """Refuse numbers of devices with which JAX cannot be imported, or finds no device.

    Raises:
      ValueError: If there is such a number in the environment.
    """
    text = os.environ.get(_DEVICES)
    if text is None or text == "-1":  # as many as JAX takes by itself
        return
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST_DEVICES):
        raise ValueError(f"{_DEVICES} is {text!r} in the environment: give an integer from 1 to {_MOST_DEVICES}.")
