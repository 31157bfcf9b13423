"""Standard output and standard error that can be closed, full or unread, and have any encoding and width.

Output that cannot be written is dropped and the program continues: a run does not end because the program that read its
progress has ended. If the output is the only purpose of the program, as with `--help`, the program ends instead
(`needed`).
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
_MOST_DIGITS = 9  # digits of a size that are read


class OutputLost(BaseException):
    """Raised if required output cannot be written. It is no `Exception`, so that no handler continues after it.

    Attributes:
      code: the exit code: 141, as of a Unix tool whose reader has exited, or 2 if the output cannot be written.
      words: the error message; empty if the reader has exited.
    """

    def __init__(self, error: OSError) -> None:
        is_unread = error.errno == errno.EPIPE
        self.code = 141 if is_unread else 2
        self.words = "" if is_unread else f"standard output cannot be written: {error.strerror}."
        super().__init__(self.words)


class LossyFile(io.FileIO):
    """A file that can always be written: after the first error, all output goes to the null device.

    Attributes:
      is_needed: whether an error raises `OutputLost`.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        self.is_needed = False

    def write(self, data: Any) -> int:
        """Writes the bytes, or drops them."""
        try:
            while (count := super().write(data)) is None:  # the file is non-blocking, and its reader is slow
                select.select((), (self.fileno(),), ())
            return count
        except OSError as error:
            _send_to_null(self.fileno())
            if self.is_needed:
                raise OutputLost(error) from error
            return memoryview(data).nbytes


def prepare_streams() -> None:
    """Replaces the standard streams by lossy ones, and corrects the width in the environment."""
    for number in (0, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:  # it is closed: the next file that is opened would get its number
            _send_to_null(number)
    sys.stdout = sys.__stdout__ = _lossy(sys.stdout, _STDOUT)
    sys.stderr = sys.__stderr__ = _lossy(sys.stderr, _STDERR)
    correct_size()


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """A context in which output is required and not dropped.

    Raises:
      OutputLost: If the output cannot be written.
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
    """Removes invalid sizes from the environment, and replaces a width that is too small or too large for a layout."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name, "1")
        if not (text.isascii() and text.isdecimal() and int(text[:_MOST_DIGITS]) > 0):
            del os.environ[name]
    width = _width()
    if not NARROWEST <= width <= WIDEST:
        os.environ["COLUMNS"] = str(min(max(width, NARROWEST), WIDEST))


def _width() -> int:
    """Returns the width in columns, from the environment or from the first standard stream that is a terminal."""
    if "COLUMNS" in os.environ:
        return int(os.environ["COLUMNS"][:_MOST_DIGITS])
    for number in (0, _STDOUT, _STDERR):
        with contextlib.suppress(OSError):
            return os.get_terminal_size(number).columns or NARROWEST  # 0: the terminal does not report its width
    return NARROWEST


def _lossy(stream: TextIO | None, number: int) -> io.TextIOWrapper:
    """Returns a lossy stream with the settings of `stream`, which is None if it was closed.

    Characters that the encoding lacks are replaced.
    """
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
    """Prepares the process; prints an error and exits with code 2 if JAX could not be imported."""
    preemption.end_at_once()
    prepare_streams()
    try:
        check_environment()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def check_environment() -> None:
    """Checks the number of devices in the environment.

    Raises:
      ValueError: If JAX cannot be imported with this number, or finds no device.
    """
    text = os.environ.get(_DEVICES)
    if text is None or text == "-1":  # JAX's default number
        return
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST_DEVICES):
        raise ValueError(f"{_DEVICES} is {text!r} in the environment: give an integer from 1 to {_MOST_DEVICES}.")
