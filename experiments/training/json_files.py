"""JSON files as typed dataclasses: the type hints of a dataclass define what a JSON object may hold."""

import dataclasses
import functools
import json
import math
import os
import stat
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union

from experiments.training.exceptions import UnusableError, printable, reason_of

_LONGEST = 60  # the largest number of characters of a value in an error message
_LARGEST = sys.float_info.max
T = TypeVar("T")


class DamagedError(UnusableError):
    """A file does not hold what the program writes into it.

    Attributes:
      reason: the name of the file and what is wrong with it.
    """

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        self.reason = printable(f"{path.name}: {reason}")
        super().__init__(printable(f"{path} is damaged, or was made by another version ({reason}): {remedy}"))


@dataclass(frozen=True)
class Field:
    """The values that a key of an object may have. `Annotated[int, Field(low=0)]` adds limits to a type hint.

    Attributes:
      low: the lowest number.
      high: the highest number.
      any_float: whether NaN and infinities are allowed.
      never_null: whether null is refused although the hint allows None; the key is omitted if there is no value.
      kind: the type of the value; a float may be written as an integer.
      nullable: whether null is allowed; the program writes null for a number that is not finite.
      choices: the strings that are allowed; if empty, any string.
    """

    low: float = -_LARGEST
    high: float = _LARGEST
    any_float: bool = False
    never_null: bool = False
    kind: type = object
    nullable: bool = True
    choices: Sequence[str] = ()

    @classmethod
    def of(cls, hint: Any) -> "Field":
        """Returns the field that a type hint describes."""
        kinds = typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType) else (hint,)
        kind: Any = next(each for each in kinds if each is not NoneType)
        kind, field = typing.get_args(kind) if typing.get_origin(kind) is Annotated else (kind, cls())
        nullable = kind is Any or (NoneType in kinds and not field.never_null)
        if typing.get_origin(kind) is Literal:
            return dataclasses.replace(field, kind=str, nullable=nullable, choices=typing.get_args(kind))
        kind = field.kind if kind is Any else typing.get_origin(kind) or kind
        kind = list if issubclass(kind, tuple) else kind
        return dataclasses.replace(field, kind=kind, nullable=nullable)

    def admits(self, value: Any) -> bool:
        """Returns whether the field may hold this value."""
        if value is None:
            return self.nullable
        if self.kind in (int, float):
            is_number = isinstance(value, int | self.kind) and not isinstance(value, bool)
            is_free = self.any_float and isinstance(value, float) and not math.isfinite(value)
            return is_number and (is_free or self.low <= value <= self.high)
        if self.kind is str:
            return isinstance(value, str) and value == printable(value) and (not self.choices or value in self.choices)
        if self.kind is list:
            return isinstance(value, list) and all(_is_of_numbers(each) for each in value)
        return isinstance(value, self.kind)  # `object` admits any value

    def __str__(self) -> str:
        """Returns a description of the expected values."""
        words = {int: "an integer", float: "a finite number", bool: "true or false", list: "a list of numbers"}
        words[str] = f"one of {', '.join(self.choices)}" if self.choices else "a text without control characters"
        message = words.get(self.kind, "an object")
        if self.low > -_LARGEST:
            message += f" from {self.low:g} to {self.high:g}" if self.high < _LARGEST else f" of at least {self.low:g}"
        return f"{message}, or null" if self.nullable else message


_NUMBER = Field(kind=float)


def _is_of_numbers(value: Any) -> bool:
    """Returns whether a value is a number, null, or a list of numbers and nulls."""
    return all(map(_NUMBER.admits, value)) if isinstance(value, list) else _NUMBER.admits(value)


Count = Annotated[int, Field(0, 2**53)]
PositiveCount = Annotated[int, Field(1, 2**53)]
Share = Annotated[float, Field(0, 1)]
NotNegative = Annotated[float, Field(0)]


@functools.cache
def fields_of(cls: type) -> tuple[dict[str, Field], Field | None]:
    """Returns the fields of a JSON object that is read as a dataclass or a NamedTuple, from the class's type hints.

    Returns:
      The field of each key, and the field of all other keys, which the class keeps in the mapping `others`. The latter
      is None if other keys are not allowed.
    """
    hints = _hints(cls)
    others = Field.of(typing.get_args(hints.pop("others"))[1]) if "others" in hints else None
    return {name: Field.of(hint) for name, hint in hints.items()}, others


def _hints(record: Any) -> dict[str, Any]:
    """Returns the type hint of each key. A field that is a dataclass is replaced by its own keys."""
    found = {}
    for name, hint in typing.get_type_hints(record, include_extras=True).items():
        kind: Any = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        found |= _hints(kind) if dataclasses.is_dataclass(kind) else {name: hint}
    return found


def fault(record: Any, cls: type, required: Collection[str] | None = None) -> str | None:
    """Describes what is wrong with an object that is to be read as a `cls`; None if nothing is.

    Args:
      record: the value that was read.
      cls: a dataclass or a NamedTuple.
      required: the keys that must be present; None: those without a default.
    """
    if not isinstance(record, dict):
        return f"{_shown(record)} was found where an object is expected"
    fields, others = fields_of(cls)
    needed = [name for name in fields if not hasattr(cls, name)] if required is None else required
    if missing := [name for name in needed if name not in record]:
        return f"{missing[0]} is missing"
    for name, value in record.items():
        field = fields.get(name, others)
        if field is None:
            return f"{_shown(name)} is unknown"
        if not field.admits(value):
            return f"{printable(name)[:_LONGEST]} is {_shown(value)}, expected {field}"
    return None


def decode(record: Any, cls: type[T], required: Collection[str] | None = None) -> T:
    """Returns the object as a `cls`; the arguments are those of `fault`.

    Raises:
      ValueError: If a key or a value contradicts the type hints, or if `cls` refuses it.
    """
    if wrong := fault(record, cls, required):
        raise ValueError(wrong)
    fields, others = fields_of(cls)
    values: dict[str, Any] = {name: value for name, value in record.items() if name in fields}
    if others is not None:
        values["others"] = {name: value for name, value in record.items() if name not in fields}
    return cls(**values)


def encode(record: Any) -> dict[str, Any]:
    """Returns a dataclass as a JSON object. A field that is None and whose default is None is omitted."""
    values = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name == "others":
            values |= value
        elif value is not None or field.default is not None:
            values[field.name] = value
    return values


@contextmanager
def regular_file(path: Path) -> Iterator[BufferedReader]:
    """Opens a file for reading.

    Raises:
      OSError: If it cannot be read.
      DamagedError: If it is not a regular file; reading a named pipe could block forever.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DamagedError(path, "it is not a regular file", "remove it, or give another folder.")
    with os.fdopen(handle, "rb") as file:
        yield file


def text_of(path: Path) -> str:
    """Returns the text of a file.

    Raises:
      OSError: If it cannot be read.
      ValueError: If it is not a regular file, or its content is not UTF-8 text.
    """
    with regular_file(path) as file:
        return file.read().decode("utf-8")


def parsed(text: str | bytes) -> Any:
    """Parses a JSON text.

    Raises:
      ValueError: If it is not JSON, or is nested more deeply than anything the program writes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path: Path, make: Callable[[Any], T], remedy: str) -> T:
    """Reads a JSON file and returns `make` of its value.

    Raises:
      DamagedError: If the file cannot be read, or if `make` raises a ValueError.
    """
    try:
        value = parsed(text_of(path))
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedError(path, reason_of(error), remedy) from error
    try:
        return make(value)
    except ValueError as error:
        raise DamagedError(path, str(error).rstrip("."), remedy) from error


def _shown(value: Any) -> str:
    try:
        message = json.dumps(value)
    except (RecursionError, ValueError):
        message = f"a {type(value).__name__}"
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
