"""The groups of a study that can be compared: those of equal epochs, updates or gradient evaluations.

The reference is the increasing plan with a constant learning rate; of several, the one with the fewest epochs. Matched
plans have whole epochs, so updates and gradient evaluations are equal only to within 5%.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.report.groups import Group, Study
from experiments.study import labels
from experiments.study.selection import SAM_EVALUATIONS, TOLERANCE
from experiments.study.strategies import mean_batch_size

EPOCHS, UPDATES, EVALUATIONS = "at equal epochs", "at equal updates", "at equal gradient evaluations"


@dataclass(frozen=True)
class Match:
    """Groups to compare.

    Attributes:
      title: what they have in common: `at equal epochs`; empty if a study has one table.
      groups: the groups, in the order of the study.
    """

    title: str
    groups: list[Group]


def reference(study: Study) -> Group | None:
    """Returns a group of the increasing plan with the fewest epochs; of several such plans, that with most updates."""
    grown = [group for group in study.groups if labels.strategy(group.config) == "increasing"]
    return min(grown, key=lambda group: (group.epochs, -group.mean("updates")), default=None)


def all_matches(study: Study) -> list[Match]:
    """Returns the groups with the epochs of the reference, with its updates, and with twice as many gradients."""
    base = reference(study)
    if base is None:
        return []
    updates = base.mean("updates")
    evaluations = SAM_EVALUATIONS * updates
    distances: dict[str, Callable[[Group], float]] = {
        EPOCHS: lambda group: float(group.epochs != base.epochs),
        UPDATES: lambda group: abs(group.mean("updates") - updates) / updates,
        EVALUATIONS: lambda group: abs(group.gradient_evaluations - evaluations) / evaluations,
    }
    return [Match(title, _nearest(study.groups, distance)) for title, distance in distances.items()]


def _nearest(groups: Sequence[Group], distance: Callable[[Group], float]) -> list[Group]:
    """Returns the groups within the tolerance; of several with one method and strategy, the nearest ones."""
    agreeing = [group for group in groups if distance(group) <= TOLERANCE]
    least: dict[tuple[str, str], float] = {}
    for group in agreeing:
        place = group.row, group.column
        least[place] = min(distance(group), least.get(place, TOLERANCE))
    return [group for group in agreeing if distance(group) == least[group.row, group.column]]


def shown_matches(study: Study) -> list[Match]:
    """Returns the matches that have a group that earlier ones lack, and the rest; or one match with all groups."""
    shown: list[Match] = []
    for match in all_matches(study):
        covered = [group for each in shown for group in each.groups]
        if any(group not in covered for group in match.groups):
            shown.append(match)
    covered = [group for each in shown for group in each.groups]
    rest = [group for group in study.groups if group not in covered]
    if len({group.config.batch_plan for group in covered}) < 2:  # there is nothing to compare with the reference
        return [Match("", study.groups)]
    shown += [Match("at other lengths", rest)] if rest else []
    return shown if len(shown) > 1 else [Match("", study.groups)]


def papers_groups(study: Study) -> list[Group]:
    """Returns the paper's cells (constant, increasing, cosine, linear) and adaptive ones, at the reference's epochs.

    If it is unknown which of several constant batch sizes is the paper's, cells of all of them are returned; if there
    is no increasing plan, all cells.
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
    """Returns the paper's constant batch size among groups of equal length, or None if it is unknown.

    It is the batch size of the cosine and linear rates. Without those it is the one that is no control: controls have
    the first, the last or the mean batch size of the increasing plan.

    Args:
      groups: the groups to choose from.
      base: the group with the increasing plan.
    """
    constant = [group for group in groups if _is_papers(group)]
    sizes = {labels.sizes(group.config)[0] for group in constant}
    decaying = {labels.sizes(group.config)[0] for group in constant if labels.is_papers_decay(group.config)}
    for likely in (decaying, decaying - controls(base), sizes - controls(base), sizes):
        if len(likely) == 1:
            return next(iter(likely))
    return None


def controls(base: Group) -> set[int]:
    """Returns the first, the last and the mean batch size of an increasing plan; its parts divide the mean."""
    config, stages = base.config, base.config.plan.stages
    return {
        stages[0].batch_size,
        stages[-1].batch_size,
        mean_batch_size(config.plan, config.descent.m or config.descent.micro_batch),
    }


def _is_papers(group: Group) -> bool:
    """Returns whether the batch is constant, and the rate is the study's, or falls from it as in the paper."""
    config = group.config
    is_constant = labels.strategy(config) == "constant"
    is_decaying = labels.is_constant_batch(config) and labels.is_papers_decay(config)
    return (is_constant or is_decaying) and not group.has_own_rate
