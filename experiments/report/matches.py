"""Which groups of a study may stand in one table: those of equal epochs, updates or gradient evaluations.

The reference is the increasing plan: constant rate, batch sizes that never fall, and of several the one of the fewest
epochs. Matched plans have whole epochs, so what is equal is equal to a few hundredths.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.report import labels
from experiments.report.groups import Group, Study
from experiments.study.selection import TOLERANCE
from experiments.study.strategies import mean_batch_size

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
    evaluations = _PASSES * base.updates
    distances: dict[str, Callable[[Group], float]] = {
        "at equal epochs": lambda group: float(group.epochs != base.epochs),
        "at equal updates": lambda group: abs(group.updates - base.updates) / base.updates,
        "at equal gradient evaluations": lambda group: abs(group.gradient_evaluations - evaluations) / evaluations,
    }
    return [Match(title, _nearest(study.groups, distance)) for title, distance in distances.items()]


def _nearest(groups: Sequence[Group], distance: Callable[[Group], float]) -> list[Group]:
    """Those that agree: of several in one cell of a table the nearest, or all that are as near."""
    agreeing = [group for group in groups if distance(group) <= TOLERANCE]
    least: dict[tuple[str, str], float] = {}
    for group in agreeing:
        place = group.row, group.column
        least[place] = min(distance(group), least.get(place, TOLERANCE))
    return [group for group in agreeing if distance(group) == least[group.row, group.column]]


def tables(study: Study) -> list[Match]:
    """The matches that each show a group that those before them do not, and what stands in none; else all in one."""
    shown: list[Match] = []
    for match in matches(study):
        covered = [group for each in shown for group in each.groups]
        if any(group not in covered for group in match.groups):
            shown.append(match)
    covered = [group for each in shown for group in each.groups]
    rest = [group for group in study.groups if group not in covered]
    if len({group.config.batch_plan for group in covered}) < 2:  # nothing is there to compare with the reference
        return [Match("", study.groups)]
    shown += [Match("at other lengths", rest)] if rest else []
    return shown if len(shown) > 1 else [Match("", study.groups)]


def papers_cells(study: Study) -> list[Group]:
    """The cells that the paper has, at the epochs of the reference: constant, increasing, cosine and linear; adaptive.

    Where it is not known which of several constant batch sizes is the paper's, those of all of them. A study without an
    increasing plan has no controls: all of its groups are meant.
    """
    base = reference(study)
    if base is None:
        return study.groups
    near = [group for group in study.groups if group.epochs == base.epochs]
    size = papers_constant(near, base)

    def is_meant(group: Group) -> bool:
        if group.config.adaptive is not None:
            return True
        if group.config.batch_plan == base.config.batch_plan:
            return group.config.lr_schedule == "constant"
        return _is_papers(group) and size in (None, labels.sizes(group.config)[0])

    return [group for group in near if is_meant(group)]


def papers_constant(groups: Sequence[Group], base: Group) -> int | None:
    """The paper's constant batch size, among groups of equal length; None where that cannot be told.

    It is the one that cosine and linear rates have, too. Without those it is one that is none of the increasing plan's
    controls, which are constant at its first, last and mean batch size.

    Args:
      groups: to choose from.
      base: the group whose plan increases.
    """
    constant = [group for group in groups if _is_papers(group)]
    sizes = {labels.sizes(group.config)[0] for group in constant}
    decaying = {labels.sizes(group.config)[0] for group in constant if labels.is_papers_decay(group.config)}
    for likely in (decaying, decaying - controls(base), sizes - controls(base), sizes):
        if len(likely) == 1:
            return next(iter(likely))
    return None


def controls(base: Group) -> set[int]:
    """The first, the last and the mean batch size of an increasing plan, whose parts divide the mean."""
    config, stages = base.config, base.config.plan.stages
    return {
        stages[0].batch_size,
        stages[-1].batch_size,
        mean_batch_size(config.plan, config.descent.m or config.descent.micro_batch),
    }


def _is_papers(group: Group) -> bool:
    """Whether the batch is constant, and the rate is, or falls as one of the paper's does."""
    config = group.config
    return labels.is_constant_batch(config) and (config.lr_schedule == "constant" or labels.is_papers_decay(config))
