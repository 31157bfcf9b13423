"""Which groups of a study may stand in one table: those of equal epochs, updates or gradient evaluations.

The reference is the increasing plan: constant rate, batch sizes that never fall, and of several the one of the fewest
epochs. Matched plans have whole epochs, so what is equal is equal to a few hundredths.
"""

from typing import NamedTuple

from experiments.reporting import labels
from experiments.reporting.groups import Group, Study
from experiments.studying.matching import TOLERANCE

_PASSES = 2  # of a method that the gradient evaluations are matched to


class Match(NamedTuple):
    """Groups to compare.

    Attributes:
      title: what they have in common: `at equal epochs`; empty where a study has one table.
      groups: in the study's order.
    """

    title: str
    groups: list[Group]


def reference(study: Study) -> Group | None:
    """A group of the increasing plan with the fewest epochs; of several such plans, that of the most updates."""
    grown = [group for group in study.groups if labels.strategy(group.config) == "increasing"]
    return min(grown, key=lambda group: (group.epochs, -group.updates), default=None)


def matches(study: Study) -> list[Match]:
    """The groups of the reference's epochs, of its updates, and of the gradient evaluations of two passes along it."""
    base = reference(study)
    if base is None:
        return []
    distances = {
        "at equal epochs": lambda group: float(group.epochs != base.epochs),
        "at equal updates": lambda group: group.updates / base.updates - 1,
        "at equal gradient evaluations": lambda group: group.gradient_evaluations / (_PASSES * base.updates) - 1,
    }
    return [
        Match(title, [group for group in study.groups if abs(distance(group)) <= TOLERANCE])
        for title, distance in distances.items()
    ]


def tables(study: Study) -> list[Match]:
    """The matches that each show a group that those before them do not, and what stands in none; else all in one."""
    shown: list[Match] = []
    for match in matches(study):
        seen = [group for each in shown for group in each.groups]
        if any(group not in seen for group in match.groups):
            shown.append(match)
    seen = [group for each in shown for group in each.groups]
    rest = [group for group in study.groups if group not in seen]
    if len({group.config.batch_plan for group in seen}) < 2:  # nothing is there to compare with the reference
        return [Match("", study.groups)]
    shown += [Match("at other lengths", rest)] if rest else []
    return shown if len(shown) > 1 else [Match("", study.groups)]


def papers_cells(study: Study) -> list[Group]:
    """The cells that the paper has, at the epochs of the reference: constant, increasing, and decaying rates.

    Constant is the batch size that the decaying rates have; where there are none, one that is not among the increasing
    plan's, if there is such. A study without an increasing plan has no controls: all of its groups are meant.
    """
    base = reference(study)
    if base is None:
        return study.groups
    near = [group for group in study.groups if group.epochs == base.epochs]
    constant = papers_constant(near, base)
    plans = {base.config.batch_plan: ("constant",)}
    decays = tuple({group.config.lr_schedule for group in near if is_constant_batch(group)})
    plans |= {constant: decays} if constant else {}
    return [group for group in near if group.config.lr_schedule in plans.get(group.config.batch_plan, ())]


def papers_constant(groups: list[Group], base: Group) -> str | None:
    """The plan of the paper's constant batch size, among groups of equal length; None where there is none."""
    constant = [group for group in groups if is_constant_batch(group)]
    decaying = {group.config.batch_plan for group in constant if group.config.lr_schedule != "constant"}
    own = labels.sizes(base.config)

    def unlikely(group: Group) -> tuple[bool, bool]:
        return group.config.batch_plan not in decaying, labels.sizes(group.config)[0] in own

    best = min(constant, key=unlikely, default=None)
    return None if best is None else best.config.batch_plan


def is_constant_batch(group: Group) -> bool:
    """Whether its batch size never changes."""
    return labels.growth(group.config) == "constant"
