"""The tables of a study: methods by strategies, with test error and sharpness in a cell."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from experiments.cli.tables import Rows, mean_and_deviation
from experiments.report import labels, sharpness
from experiments.report.groups import Group, Study
from experiments.report.matches import Match, tables
from experiments.report.protocols import headline
from experiments.sharpness.protocol import SharpnessProtocol

_ERROR = "test error, %"


def error_rows(match: Match, study: Study) -> Rows:
    """Test error in %, mean ± standard deviation over seeds, and mean sharpness beside it; below, what runs took.

    Args:
      match: the groups of the table.
      study: theirs; it says how many seeds a cell should have, and how sharpness was measured.

    Returns:
      The rows; the updates in the last ones, and where tables or plans differ in them epochs and examples, too.
    """
    shown = _shown(study)
    columns = _columns(match.groups)
    rows = list(dict.fromkeys(group.row for group in match.groups))
    cells = {(group.row, column): group for group, column in columns}
    names = list(dict.fromkeys(column for _, column in sorted(columns, key=_order)))
    title = ", ".join([f"test error, % / sharpness, ρ {shown[1]:.3g}", *shown[0].departures]) if shown else _ERROR
    return [
        (title, *map(labels.heading, names)),
        *((row, *(_cell(cells.get((row, name)), study, shown) for name in names)) for row in rows),
        *(
            (what, *(_cost([(r, cells[r, n]) for r in rows if (r, n) in cells], of) for n in names))
            for what, of in _costs(match).items()
        ),
    ]


def caption(study: Study) -> str:
    """What the figures are."""
    seeds = ", ".join(map(str, study.seeds))
    figure = "Test error after the last epoch"
    if len(study.seeds) == 1:
        return f"{figure}, of the one seed {seeds}."
    beside = "; the arithmetic mean of the sharpness beside it" if _shown(study) else ""
    equal = " Updates and gradient evaluations are equal to within 5%." if len(tables(study)) > 1 else ""
    return f"{figure}, mean ± standard deviation over the seeds {seeds}{beside}.{equal}"


def _shown(study: Study) -> tuple[SharpnessProtocol, float] | None:
    """The way and the radius that the table has."""
    return next(((way, headline(radii)) for way, radii in sharpness.protocols_of(study).items()), None)


def _columns(groups: Sequence[Group]) -> list[tuple[Group, str]]:
    """Each group with its column; with the plan where a method would have two groups in one."""
    names = [(group.row, group.column) for group in groups]
    twice = {column for row, column in names if names.count((row, column)) > 1}

    def name(group: Group) -> str:
        is_told = group.column not in twice or group.config.batch_plan in group.column
        return group.column if is_told else f"{group.column}, {group.config.batch_plan}"

    return [(group, name(group)) for group in groups]


def _order(placed: tuple[Group, str]) -> tuple[Any, ...]:
    group, column = placed
    return *labels.strategy_order(group.config), group.epochs, column


def _cell(group: Group | None, study: Study, shown: tuple[SharpnessProtocol, float] | None) -> str:
    """How many seeds it has is said where it is not all of them, and how many of its runs diverged."""
    if group is None:
        return "–"
    text = mean_and_deviation([100 * run.result.test_error for run in group.runs])
    if shown:
        found = sharpness.numbers(group.runs, *shown)
        text += f" / {statistics.mean(found):.3g}" if found else " / –"
    seeds = [] if len(group.runs) == len(study.seeds) else [f"seeds: {len(group.runs)}"]
    remarks = seeds + ([f"diverged: {group.diverged}"] if group.diverged else [])
    return f"{text} ({', '.join(remarks)})" if remarks else text


def _costs(match: Match) -> dict[str, Callable[[Group], int]]:
    updates: dict[str, Callable[[Group], int]] = {"updates": lambda group: group.updates}
    if not match.title and len({group.epochs for group in match.groups}) == 1:
        return updates
    return updates | {"epochs": lambda group: group.epochs, "examples": lambda group: group.examples}


def _cost(inside: Sequence[tuple[str, Group]], of: Callable[[Group], int]) -> str:
    """What the groups of a column have, most of them first: `128; SGD 256`."""
    rows: dict[int, list[str]] = {}
    for row, group in inside:
        rows.setdefault(of(group), []).append(row)
    usual, *others = sorted(rows, key=lambda value: -len(rows[value]))
    return "; ".join([f"{usual:,}", *(f"{', '.join(rows[value])} {value:,}" for value in others)])
