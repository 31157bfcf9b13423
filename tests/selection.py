"""Combinations of parameters: `make test` runs some of them, and `make test-long` the others."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

LOOPS = ("unrolled", "scanned")
"""The values of the fixture `loop`."""


def combinations(
    is_quick: Callable[..., bool], indirect: Sequence[str] = (), **values: Iterable[Any]
) -> pytest.MarkDecorator:
    """Parametrize a test by all combinations of the values of its arguments.

    Args:
      is_quick: a function of a combination, as keyword arguments, that says whether `make test` runs it.
      indirect: the arguments that are fixtures, which get their values as `request.param`.
      **values: the values of each argument of the test.
    """
    rows = [
        pytest.param(*row, marks=[] if is_quick(**dict(zip(values, row, strict=True))) else [pytest.mark.long])
        for row in itertools.product(*values.values())
    ]
    return pytest.mark.parametrize(tuple(values), rows, indirect=indirect)


def loop_in_turn(number: int) -> str:
    """The loop of the CPU for even numbers, and that of accelerators for odd ones."""
    return LOOPS[number % 2]


def loops_in_turn(argument: str, values: Iterable[Any], indirect: Sequence[str] = ()) -> pytest.MarkDecorator:
    """Parametrize an argument and the fixture `loop`; `make test` runs each value with one loop, in turn.

    Args:
      argument: the name of the argument.
      values: its values.
      indirect: the argument, if it is a fixture.
    """
    rows = list(values)
    return combinations(
        lambda **row: row["loop"] == loop_in_turn(rows.index(row[argument])),
        indirect=["loop", *indirect],
        **{argument: rows},
        loop=LOOPS,
    )


def some_of(names: Iterable[str], quick: Iterable[str], argument: str = "name") -> pytest.MarkDecorator:
    """Parametrize an argument of a test by names; `make test` runs only the names in `quick`."""
    chosen = tuple(quick)
    return combinations(lambda **row: row[argument] in chosen, **{argument: names})
