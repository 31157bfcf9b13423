"""Combinations of parameters, of which `make test` runs some and `make test-long` the others."""

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
      is_quick: from a combination, as keyword arguments, to whether `make test` runs it.
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


def some_of(names: Iterable[str], quick: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrize a test by `name`, of which `make test` runs those of `quick`."""
    chosen = tuple(quick)
    return combinations(lambda name: name in chosen, name=names)
