"""Methods against one another, strategy by strategy: a table for studies of many groups."""

from collections.abc import Sequence
from itertools import combinations

from experiments.reporting import labels
from experiments.reporting.claims import verdict
from experiments.reporting.figures import TEST_ERROR
from experiments.reporting.groups import Group, Study
from experiments.reporting.matches import Match, tables
from experiments.tables import Rows

_MOST_PAIRS = 6


def method_pair_rows(study: Study) -> Rows:
    """A row a strategy and a match, a column a pair of methods: the paired difference in test error.

    Of many methods each is compared with the first one only.
    """
    pairs = [(second, first) for first, second in combinations(study.rows, 2)]
    if len(pairs) > _MOST_PAIRS:
        pairs = [pair for pair in pairs if pair[1] == study.rows[0]]
    heading = ("test error, points", *(f"{first} less {second}" for first, second in pairs))
    rows = [row for match in tables(study) for row in _rows(match, pairs, study.columns)]
    return [heading, *dict.fromkeys(rows)]


def _rows(match: Match, pairs: Sequence[tuple[str, str]], columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Where lengths are matched, plans of one strategy may differ among methods; elsewhere they are the same."""
    is_equal = match.title.startswith("at equal")
    inside: dict[tuple[str, str], dict[str, Group]] = {}
    for group in match.groups:
        plan = "" if is_equal or group.config.batch_plan in group.column else group.config.batch_plan
        inside.setdefault((group.column, plan), {}).setdefault(group.row, group)
    keys = [key for name in columns for key in inside if key[0] == name and len(inside[key]) > 1]
    where = match.title if is_equal else ""
    return [
        (
            ", ".join(filter(None, [labels.heading(key[0]), key[1], where])),
            *(_cell(inside[key], *each) for each in pairs),
        )
        for key in keys
    ]


def _cell(groups: dict[str, Group], first: str, second: str) -> str:
    if first not in groups or second not in groups:
        return "–"
    found = TEST_ERROR.compare(groups[first], groups[second])
    return TEST_ERROR.said(found) if found is None else f"{TEST_ERROR.said(found)}: {verdict(found)}"
