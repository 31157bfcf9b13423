"""Every slow test in the table exists, and the parameter sets that `make test` runs are spread over the whole list."""

import ast
from pathlib import Path

import pytest

from tests.quick_rows import QUICK_ROWS, spread

TESTS = Path(__file__).parent


@pytest.mark.parametrize("name", QUICK_ROWS)
def test_a_slow_test_exists(name: str) -> None:
    file, _, test = name.partition("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("count", "quick", "numbers"),
    [(4, 0, set()), (4, 1, {0}), (5, 2, {0, 4}), (5, 3, {0, 2, 4}), (2, 3, {0, 1}), (43, 20, None)],
)
def test_the_quick_parameter_sets_are_spread_from_the_first_to_the_last(
    count: int, quick: int, numbers: set[int] | None
) -> None:
    found = spread(count, quick)
    assert len(found) == min(count, quick)
    assert found <= set(range(count))
    assert numbers is None or found == numbers
