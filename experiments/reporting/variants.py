"""A part of a report against the first one: what a setting of the descent changes, all else equal."""

from typing import Any

from experiments.reporting import labels
from experiments.reporting.claims import verdict
from experiments.reporting.figures import Figure, figures_of
from experiments.reporting.groups import Group, Study
from experiments.reporting.parts import Part
from experiments.tables import Rows

_PROBLEM = ("dataset", "model", "train_examples", "label_noise", "validation")


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
    if _problem(study.part) != _problem(base.part) or [f.title for f in figures_of(base)] != [f.title for f in figures]:
        return [heading]
    others = {_place(group): group for group in base.groups}
    pairs = [(group, others[_place(group)]) for group in study.groups if _place(group) in others]
    rows = [(labels.heading(group.name), *(_cell(each, group, other) for each in figures)) for group, other in pairs]
    return [heading, *(row for row in rows if set(row[1:]) != {"–"})]


def _cell(figure: Figure, first: Group, second: Group) -> str:
    found = figure.compare(first, second)
    return "–" if found is None else f"{figure.said(found)}: {verdict(found)}"


def _problem(part: Part) -> Part:
    return tuple((name, value) for name, value in part if name in _PROBLEM)


def _place(group: Group) -> tuple[Any, ...]:
    config = group.config
    return config.method, config.rho, config.alpha, config.when, config.batch_plan, config.lr_schedule
