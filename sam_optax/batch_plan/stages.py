"""The stages of a batch plan: their units, their checks, and their text."""

import math
import operator
import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

UNITS = ("epochs", "examples", "updates")
"""The units of the length of a stage: passes over the data, examples, or updates."""

_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_STAGE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)([kMGT]?)x([0-9]+)\s*")


class Stage(NamedTuple):
    """A part of a run with one batch size.

    Attributes:
      length: its length in the unit of its plan: passes over the data, examples, or updates.
      batch_size: the number of examples per update.
    """

    length: float
    batch_size: int

    @property
    def epochs(self) -> int:
        """The length of a stage of a plan in whole epochs.

        Raises:
          ValueError: If the length is a fraction.
        """
        return whole_epochs(self.length)


def whole_epochs(length: float) -> int:
    """The length as a number of epochs; raises `ValueError` if it is a fraction."""
    if not isinstance(length, int):
        raise ValueError(f"the length is {length!r}, not a whole number of epochs: use length in place of epochs.")
    return length


def check_positive_integer(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}: give a positive integer.")


def as_index(name: str, value: Any) -> int:
    """`value` as an `int`, so that sums do not overflow; raises `ValueError` unless it is an integer."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError("a bool is no count")
        return operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} is {value!r}: give an integer that is not traced.") from error


def checked(stages: Iterable[Any], unit: str) -> tuple[Stage, ...]:
    """The stages as a tuple; a whole length becomes an `int`.

    Raises:
      ValueError: If the unit is unknown, if there is no stage, or if a length or a batch size is out of range.
    """
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}: give one of {', '.join(UNITS)}.")
    try:
        found = [Stage(*stage) for stage in stages]
    except TypeError as error:
        raise ValueError(f"stages is {stages!r}: give a sequence of ({unit}, batch_size).") from error
    if not found:
        raise ValueError(f"stages is empty: a plan needs at least one stage ({unit}, batch_size).")
    return tuple(Stage(_length(unit, length), _batch_size(size)) for length, size in found)


def _batch_size(value: Any) -> int:
    check_positive_integer("batch_size", value)
    return int(value)


def _length(unit: str, value: Any) -> float:
    if unit != "epochs" or isinstance(value, Integral) or not isinstance(value, Real):
        check_positive_integer(unit, value)
        return int(value)
    length = float(value)
    if not 0 < length < math.inf:
        raise ValueError(f"epochs is {value!r}: give a positive number.")
    return int(length) if length.is_integer() else length


def exact(length: float) -> Fraction:
    """The length as a rational number; a float is read as the decimal number that it prints."""
    return Fraction(length) if isinstance(length, int) else Fraction(repr(length))


def parse(text: str) -> tuple[str, tuple[Stage, ...]]:
    """The unit and the stages of a text such as `40x16,40x32` or `updates:100x16,50x64`.

    Raises:
      ValueError: If the text has another form.
    """
    if not isinstance(text, str):
        raise ValueError(f"batch plan is {text!r}: give a string of epochs x size, such as 40x16,40x32.")
    prefix, colon, rest = text.partition(":")
    unit, listed = (prefix.strip(), rest) if colon else ("epochs", text)
    if unit not in UNITS:
        raise ValueError(
            f"batch plan {text!r} has the unit {unit!r}: write one of {', '.join(UNITS)} before the colon."
        )
    pieces = listed.split(",")
    matches = [_STAGE.fullmatch(piece) for piece in pieces]
    for piece, match in zip(pieces, matches, strict=True):
        if match is None:
            raise ValueError(
                f"batch plan {text!r} has the stage {piece!r}: write each as {unit} x size, such as 40x16,40x32."
            )
    return unit, checked([(_parsed(match[1], match[2]), int(match[3])) for match in matches if match], unit)


def _parsed(number: str, suffix: str) -> float:
    value = Fraction(number) * _FACTORS[suffix]
    return int(value) if value.denominator == 1 else float(value)


def spelled(unit: str, stages: Iterable[Stage]) -> str:
    """The text that `parse` reads; the unit is omitted if it is epochs."""
    listed = ",".join(f"{Decimal(repr(length)):f}x{size}" for length, size in stages)
    return listed if unit == "epochs" else f"{unit}:{listed}"
