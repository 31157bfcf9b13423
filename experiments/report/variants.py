"""A part of a report against another one: what a setting changes, all else equal."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from experiments.cli.tables import Rows
from experiments.report import labels
from experiments.report.figures import figures_of
from experiments.report.groups import Group, Study
from experiments.report.paired import Difference
from experiments.report.parts import METHOD, STRATEGY, Part, said
from experiments.report.wording import cell, direction

_TITLE = ("dataset", "model")
_PROBLEM = (*_TITLE, "train_examples", "label_noise", "validation")


def base_of(study: Study, found: Sequence[Study]) -> Study | None:
    """What a study is compared with; None for the first one of its model and data set.

    Args:
      study: a part.
      found: all parts, those with the fewest settings that are not at their defaults first.

    Returns:
      Of the parts before it the one that fits the same examples and differs in the fewest settings.
    """
    before = [each for each in takewhile(lambda each: each is not study, found) if not _names(each, _TITLE, study)]
    return min(
        before,
        key=lambda each: (_problem(each.part) != _problem(study.part), len(differing(study, each))),
        default=None,
    )


def differing(study: Study, base: Study) -> list[str]:
    """The settings of the study that the other one has otherwise, in words: `label noise 0.2`."""
    values = dict(study.part)
    return [said(name, values[name]) for name in _names(study, tuple(values), base)]


def variant_heading(study: Study, base: Study) -> str:
    """`Less <base>, all else equal` where one setting differs, else with all that do."""
    settings = differing(study, base)
    if len(settings) == 1:
        return f"Less {base.title}, all else equal"
    return f"Less {base.title}, which differs in more than one setting: {', '.join(settings)} here"


def variant_rows(study: Study, base: Study) -> Rows:
    """A row a method and a plan that both have: the paired difference in each figure, this part less the other.

    Args:
      study: the part.
      base: the one that it is compared with.

    Returns:
      The rows; the heading alone where the two fit other examples, or measured sharpness in another way.
    """
    figures = figures_of(study)
    heading = ("group", *(figure.title for figure in figures))
    rows = []
    for group, found in _compared(study, base):
        cells = [cell(figure, each, direction, len(study.seeds)) for figure, each in zip(figures, found, strict=True)]
        rows.append((labels.heading(group.name), *cells))
    return [heading, *rows]


def variant_differences(study: Study, base: Study) -> list[Difference]:
    """The differences that stand in the rows."""
    return [each for _, found in _compared(study, base) for each in found if each is not None]


def _compared(study: Study, base: Study) -> list[tuple[Group, list[Difference | None]]]:
    figures = figures_of(study)
    if _problem(study.part) != _problem(base.part) or [f.title for f in figures_of(base)] != [f.title for f in figures]:
        return []
    others = {_place(group): group for group in base.groups}
    pairs = [(group, others[_place(group)]) for group in study.groups if _place(group) in others]
    found = [(group, [figure.compare(group, other) for figure in figures]) for group, other in pairs]
    return [(group, differences) for group, differences in found if any(differences)]


def _names(study: Study, names: Sequence[str], other: Study) -> list[str]:
    """Those of the settings in which two parts differ."""
    return [name for name in names if dict(study.part)[name] != dict(other.part)[name]]


def _problem(part: Part) -> Part:
    return tuple((name, value) for name, value in part if name in _PROBLEM)


def _place(group: Group) -> tuple[Any, ...]:
    settings = group.config.settings
    return tuple(settings[name] for name in (*METHOD, *STRATEGY))
