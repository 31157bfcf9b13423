"""Formats tables of text for the terminal and for Markdown."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box, table

from experiments.training.exceptions import printable

_MARKS = re.compile(r"[\\`*\[\]<>|&]|(?<!\w)_|_(?!\w)|^\s*[#+-](?=\s)")

Rows = list[tuple[str, ...]]
"""A table: the heading, followed by the rows; all have the same number of cells."""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
      rows: the heading, followed by the rows; a cell is text, or an object that becomes text.
      caption: the text below the table.
      title: the heading above the table.
    """

    rows: list[tuple[Any, ...]]
    caption: str = ""
    title: str = ""

    @property
    def text(self) -> list[tuple[str, ...]]:
        """The rows as text."""
        return [tuple(map(str, row)) for row in self.rows]

    def __bool__(self) -> bool:
        """Whether there is a row below the heading."""
        return len(self.rows) > 1


def figure_columns(rows: Rows) -> list[bool]:
    """Returns, for each column, whether all cells are numbers or dashes; such a column is right-aligned."""
    return [
        all(cell[:1] in tuple("0123456789+−–×") for cell in cells) and set(cells) != {"–"}
        for _, *cells in zip(*rows, strict=True)
    ]


def without_empty_columns(rows: Rows) -> Rows:
    """Returns the rows without the columns in which all cells below the heading are empty or dashes."""
    kept = [column for column in zip(*rows, strict=True) if not rows[1:] or set(column[1:]) - {"", "–"}]
    return list(zip(*kept, strict=True))


def as_terminal(rows: Rows, width: int | None = None) -> table.Table:
    """Returns the rows as a table of Rich; columns become rows if the table then fits better into the width."""
    turned = list(zip(*rows, strict=True))
    if width is not None and width < _width(rows) and _width(turned) < _width(rows):
        rows = turned
    made = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, is_figure in zip(rows[0], figure_columns(rows), strict=True):
        made.add_column(heading, justify="right" if is_figure else "left", overflow="fold")
    for row in rows[1:]:
        made.add_row(*map(printable, row))
    return made


def _width(rows: Rows) -> int:
    return sum(max(map(len, column)) + 1 for column in zip(*rows, strict=True))


def escaped(text: str) -> str:
    """Escapes text so that Markdown shows it literally on one line; it cannot form a table, link, image or tag."""
    return _MARKS.sub(r"\\\g<0>", " ".join(printable(text).split("\n")))


def as_markdown(rows: Rows) -> str:
    """Returns the rows as a table in Markdown."""
    rule = tuple("---:" if is_figure else "---" for is_figure in figure_columns(rows))
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join(f"| {' | '.join(cell if line is rule else escaped(cell) for cell in line)} |" for line in lines)


def listed(names: Sequence[str]) -> str:
    """Returns the names as text: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(noun: str, count: int) -> str:
    """Returns `1 seed` or `3 seeds`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def signed(value: float) -> str:
    """Returns a number with its sign, to two digits after the point; to four, if two would be zero."""
    digits = 4 if round(value, 2) == 0 and round(value, 4) != 0 else 2
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def three_digits(value: float) -> str:
    """Returns a number to three significant digits, with its zeros: `1.00`."""
    return f"{value:#.3g}".removesuffix(".")


def ratio(value: float) -> str:
    """Returns a ratio to three significant digits; to five, if three would be one: `1.0042`."""
    return f"{value:.5g}" if three_digits(value) == "1.00" and f"{value:.5g}" != "1" else three_digits(value)


def mean_and_deviation(values: list[float], digits: str = ".2f") -> str:
    """Returns the mean ± the sample standard deviation, or only the mean if there is a single value."""
    mean = f"{statistics.mean(values):{digits}}"
    return f"{mean} ± {statistics.stdev(values):{digits}}" if len(values) > 1 else mean
