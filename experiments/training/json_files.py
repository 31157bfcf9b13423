"""What the files of a run hold: each file is read here, and what it says is checked against the fields that it has."""

import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.training.exceptions import UnusableError, printable, reason_of

_LONGEST = 60  # characters of a value in an error message


class DamagedError(UnusableError):
    """A file does not hold what the program writes into it.

    Attributes:
      reason: what is wrong, after the name of the file.
    """

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        self.reason = printable(f"{path.name}: {reason}")
        super().__init__(printable(f"{path} is damaged, or was made by another version ({reason}): {remedy}"))


@dataclass(frozen=True)
class Field:
    """What a key of a record may hold.

    Attributes:
      kind: the type of its value; a float may be written as an integer.
      low: the lowest number.
      high: the highest number.
      nullable: whether null is allowed: the program writes it for a number that is not finite.
      required: whether a record without it is damaged.
      choices: the texts that are allowed; empty: any.
      any_float: whether NaN and infinities are allowed, which the notes of a save may hold.
    """

    kind: type
    low: float = -math.inf
    high: float = math.inf
    nullable: bool = False
    required: bool = True
    choices: Sequence[str] = ()
    any_float: bool = False

    def admits(self, value: Any) -> bool:
        """Whether it may hold this value."""
        if value is None:
            return self.nullable
        if self.kind is float:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and self._admits_number(value)
        if self.kind is int:
            return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high
        if self.kind is str:
            is_text = isinstance(value, str) and value == printable(value)
            return is_text and (not self.choices or value in self.choices)
        return isinstance(value, self.kind)  # `object` is anything

    def _admits_number(self, value: float) -> bool:
        if self.any_float and isinstance(value, float) and not math.isfinite(value):
            return True
        return -_LARGEST <= value <= _LARGEST and self.low <= value <= self.high

    def __str__(self) -> str:
        """What is expected, in words."""
        words = {int: "an integer", float: "a finite number", bool: "true or false", list: "a list"}
        said = words.get(self.kind, "an object")
        if self.kind is str:
            said = f"one of {', '.join(self.choices)}" if self.choices else "a text without control characters"
        if math.isfinite(self.low):
            said += f" from {self.low:g} to {self.high:g}" if math.isfinite(self.high) else f" of at least {self.low:g}"
        return f"{said}, or null" if self.nullable else said


ANYTHING = Field(object, nullable=True)
"""A key whose value is not looked at."""

_LARGEST = 1.7976931348623157e308
Fields = Mapping[str, Field]


def fault(record: Any, fields: Fields, others: Field | None = None) -> str | None:
    """What is wrong with a record, in a few words; None where nothing is.

    Args:
      record: what was read.
      fields: its keys.
      others: what keys may hold that are not among `fields`; None: there must be none.
    """
    if not isinstance(record, dict):
        return f"{_shown(record)} stands where an object is expected"
    missing = [name for name, field in fields.items() if field.required and name not in record]
    if missing:
        return f"{missing[0]} is missing"
    for name, value in record.items():
        field = fields.get(name, others)
        if field is None:
            return f"{_shown(name)} is unknown"
        if not field.admits(value):
            return f"{printable(name)[:_LONGEST]} is {_shown(value)}, expected {field}"
    return None


@contextmanager
def regular_file(path: Path) -> Iterator[io.BufferedReader]:
    """A file, opened to be read.

    Raises:
      OSError: If it cannot be read.
      DamagedError: If it is not a regular file: a named pipe would be waited for without end.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DamagedError(path, "it is not a regular file", "remove it, or give another folder.")
    with os.fdopen(handle, "rb") as file:
        yield file


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
      OSError: If it cannot be read.
      ValueError: If it is not a regular file, or not text.
    """
    with regular_file(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error


def parsed(text: str | bytes) -> Any:
    """The value that a text in JSON stands for.

    Raises:
      ValueError: If it is not JSON, or nested too deeply to be one of ours.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path: Path, fields: Fields, remedy: str, others: Field | None = None) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
      DamagedError: If it cannot be read, or if a key or a value is not as `fields` and `others` have it.
    """
    try:
        record = parsed(text_of(path))
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedError(path, reason_of(error), remedy) from error
    if wrong := fault(record, fields, others):
        raise DamagedError(path, wrong, remedy)
    return record


def _shown(value: Any) -> str:
    try:
        said = json.dumps(value)
    except (RecursionError, ValueError):
        said = f"a {type(value).__name__}"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
