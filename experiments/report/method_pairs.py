"""Methods against one another, strategy by strategy: a table for studies of many groups."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from experiments.cli.tables import Rows
from experiments.report import labels
from experiments.report.figures import TEST_ERROR
from experiments.report.groups import Group, Study
from experiments.report.matches import Match, tables
from experiments.report.paired import Difference
from experiments.report.wording import cell, direction

_MOST_PAIRS = 6


class MethodPairs(NamedTuple):
    """Methods against one another.

    Attributes:
      pairs: of methods, the later less the earlier.
      found: by the names of the two groups of each pair, or None, what a row is called, and the differences; a pair of
        groups that several matches have stands in each of them that has a pair of its own.
    """

    pairs: list[tuple[str, str]]
    found: dict[tuple[tuple[str, str] | None, ...], tuple[str, list[Difference | None]]]

    @property
    def differences(self) -> list[Difference]:
        """Each difference once."""
        once = {
            names: each
            for key, (_, row) in self.found.items()
            for names, each in zip(key, row, strict=True)
            if names is not None and each is not None
        }
        return list(once.values())


def method_pairs(study: Study) -> MethodPairs:
    """The paired differences in test error, for each strategy and match; of many methods, those to the first one."""
    pairs = [(second, first) for first, second in combinations(study.rows, 2)]
    if len(pairs) > _MOST_PAIRS:
        pairs = [pair for pair in pairs if pair[1] == study.rows[0]]
    found: dict[tuple[tuple[str, str] | None, ...], tuple[str, list[Difference | None]]] = {}
    for match in tables(study):
        for name, inside in _strategies(match, study.columns):
            groups = [(inside.get(first), inside.get(second)) for first, second in pairs]
            differences = [TEST_ERROR.compare(one, other) if one and other else None for one, other in groups]
            if any(differences):
                key = tuple((one.name, other.name) if one and other else None for one, other in groups)
                found[key] = (_joined(found[key][0], name, match) if key in found else name), differences
    return MethodPairs(pairs, found)


def method_pair_rows(study: Study, of: MethodPairs) -> Rows:
    """A row a strategy and a match, a column a pair of methods; the heading alone where nothing is known."""
    heading = ("test error, points", *(f"{first} less {second}" for first, second in of.pairs))
    seeds = len(study.seeds)
    return [
        heading,
        *((name, *(cell(TEST_ERROR, each, direction, seeds) for each in row)) for name, row in of.found.values()),
    ]


def _joined(before: str, name: str, match: Match) -> str:
    """Two matches of one row: `increasing (+B), at equal epochs and equal updates`."""
    return before if before == name else f"{before} and {match.title.removeprefix('at ')}"


def _strategies(match: Match, columns: Sequence[str]) -> list[tuple[str, dict[str, Group]]]:
    """Where lengths are matched, plans of one strategy may differ among methods; elsewhere they are the same."""
    is_equal = match.title.startswith("at equal")
    inside: dict[tuple[str, str], dict[str, Group]] = {}
    for group in match.groups:
        plan = "" if is_equal or group.config.batch_plan in group.column else group.config.batch_plan
        inside.setdefault((group.column, plan), {}).setdefault(group.row, group)
    keys = [key for name in columns for key in inside if key[0] == name and len(inside[key]) > 1]
    where = match.title if is_equal else ""
    return [(", ".join(filter(None, [labels.heading(key[0]), key[1], where])), inside[key]) for key in keys]
