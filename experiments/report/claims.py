"""The paper's claims on a study: does a growing batch help, and does a falling learning rate?

The paper (Harada and Iiduka, arXiv 2409.09984) compares both with a constant batch size and a constant learning rate.
An increasing plan also differs from those by its small first batches. So growth is also compared with the best of
several constant batch sizes at equal length, one of which must be the first batch size of the plan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from experiments.report.groups import Group, Study
from experiments.report.matches import EPOCHS, UPDATES, all_matches, controls, papers_constant, reference, shown_matches
from experiments.report.paired import LEARNED, Difference, Measure, measures_of, shared_seeds
from experiments.study import labels


class Kind(Enum):
    """What is claimed to be better than what, in the order of a report."""

    GROWTH = "growth"  # than a constant batch, as the paper compares it
    BEST = "growth against the best constant batch"
    REVERSED = "growth against the plan reversed"
    PLAN = "other growth, against the increasing plan"
    DECAY = "decay"
    RIVAL = "a decay that the paper does not have"


@dataclass(frozen=True, eq=False)
class Claim:
    """The claim that a strategy is better than others, for one method.

    Attributes:
      kind: the kind of the claim.
      matches: the titles of the matches that have all of these groups, such as `at equal epochs`.
      group: the group that is claimed to be better.
      baselines: the groups that it is compared with; of several constant batches, the best one of each measure counts.
      found: the difference by the title of each measure, whose `second` is the best baseline; None if it is unknown.
    """

    kind: Kind
    matches: tuple[str, ...]
    group: Group
    baselines: tuple[Group, ...]
    found: dict[str, Difference | None]

    @property
    def match(self) -> str:
        """What the groups have in common, in words: `at equal epochs and equal updates`."""
        return " and ".join(each.removeprefix("at ") if number else each for number, each in enumerate(self.matches))

    @property
    def is_known(self) -> bool:
        """Whether some measure was compared."""
        return any(self.found.values())

    @property
    def candidates(self) -> int:
        """The number of constant batches, by size and learning rate, from which the best one is selected."""
        return len({(labels.sizes(each.config), each.config.descent.learning_rate) for each in self.baselines})


def claims(study: Study) -> list[Claim]:
    """Returns all claims on the groups of a study, by kind, match and method, whether they are known or not."""
    measures = measures_of(study)
    found = [*_growth(study, measures), *_decay(study, measures)]
    return sorted(_once(found), key=lambda claim: list(Kind).index(claim.kind))


def lacking(claim: Claim, base: Group) -> list[int]:
    """Returns the batch sizes that the baselines of a claim lack: the plan's own ends, and the controls of `base`."""
    there, own = {labels.sizes(each.config)[0] for each in claim.baselines}, labels.sizes(claim.group.config)
    return sorted((controls(base) | {own[0], own[-1]}) - there)


def _once(found: Sequence[Claim]) -> list[Claim]:
    """Merges equal claims of two matches, as those of updates and of gradient evaluations are for SAM."""
    once: dict[tuple[Kind, Group, tuple[Group, ...]], Claim] = {}
    for claim in found:
        key = claim.kind, claim.group, claim.baselines
        once[key] = replace(claim, matches=(*once[key].matches, *claim.matches) if key in once else claim.matches)
    return list(once.values())


def _growth(study: Study, measures: Sequence[Measure]) -> list[Claim]:
    """Returns the claims on the increasing plan and on other growing plans, at each match."""
    base, found = reference(study), []
    if base is None:
        return []
    matched = all_matches(study)
    size = papers_constant(matched[0].groups, base)  # at equal epochs, as in the paper
    for match in matched:
        others = [group for group in match.groups if labels.strategy(group.config) in labels.OTHER_GROWTH]
        for grown in (*_of_plan(match.groups, base), *others):
            asked = _against_the_best(match.groups, grown, measures)
            has_best = any(claim.is_known for claim in asked)  # else the paper's batch is the only control
            if grown not in others and (match.title == EPOCHS or (match.title == UPDATES and not has_best)):
                constants = [each for each in _constants(match.groups, grown.row) if not each.has_own_rate]
                papers = [each for each in constants if labels.sizes(each.config) == (size,)]
                asked += _against(Kind.GROWTH, grown, papers, measures)
            kind, step = (Kind.PLAN, 1) if grown in others else (Kind.REVERSED, -1)
            planned = [each for each in _of_plan(match.groups, base, step) if each.row == grown.row]
            asked += _against(kind, grown, planned, measures)
            found += [replace(claim, matches=(match.title,)) for claim in asked]
    return found


def _against_the_best(groups: Sequence[Group], grown: Group, measures: Sequence[Measure]) -> list[Claim]:
    """Returns the claim against the best of several constant batches.

    It is unknown without the first batch size of the plan, since growth could then be an effect of small batches.
    """
    baselines = _constants(groups, grown.row)
    if len({labels.sizes(each.config) for each in baselines}) < 2:
        return []
    found, first = _against(Kind.BEST, grown, baselines, measures), grown.config.plan.stages[0].batch_size
    if any(labels.sizes(each.config) == (first,) for each in baselines):
        return found
    return [replace(claim, found=dict.fromkeys(claim.found)) for claim in found]


def _decay(study: Study, measures: Sequence[Measure]) -> list[Claim]:
    """Returns the claims of falling rates against a constant one, and of falling radii against a constant radius."""
    found, asked = [], []
    for match in shown_matches(study):
        for group in match.groups:
            if not labels.schedules(group.config) or group in asked:
                continue
            asked.append(group)
            plan, schedules = group.config.batch_plan, labels.schedules(group.config)[:-1]
            near = [each for each in match.groups if each.row == group.row and not each.has_own_rate]
            same = [e for e in near if (e.config.batch_plan, labels.schedules(e.config)) == (plan, schedules)]
            kind = Kind.DECAY if _is_papers_decay(study, group) else Kind.RIVAL
            found += [replace(claim, matches=(match.title,)) for claim in _against(kind, group, same, measures)]
    return sorted(found, key=lambda claim: claim.group.config.lr_schedule != "cosine")


def _is_papers_decay(study: Study, group: Group) -> bool:
    """Returns whether the rate falls as one of the paper's does, at the paper's constant batch size."""
    if not (labels.is_papers_decay(group.config) and labels.is_constant_batch(group.config)):
        return False
    base = reference(study)
    return base is None or labels.sizes(group.config) == (papers_constant(all_matches(study)[0].groups, base),)


def _against(kind: Kind, group: Group, baselines: Sequence[Group], measures: Sequence[Measure]) -> list[Claim]:
    """Returns the claim against the best of the baselines; none if there is no baseline."""
    if not baselines:
        return []
    found = {measure.title: _from_the_best(measure, group, baselines) for measure in measures}
    return [Claim(kind, (), group, tuple(baselines), found)]


def _from_the_best(measure: Measure, group: Group, baselines: Sequence[Group]) -> Difference | None:
    """Returns the difference to the baseline with the lowest mean, selected and compared on the seeds that all have.

    A baseline that diverged or has not learned is not the best, unless all are such. The difference is unknown if a
    baseline lacks the measure.
    """
    seeds = shared_seeds(group, *baselines)
    finite = [each for each in baselines if not each.values("diverged", seeds).any()]
    sound = [each for each in finite if each.accuracy >= LEARNED] or finite or baselines
    if not seeds or not all(map(measure.is_known, sound)):
        return None
    best = min(sound, key=lambda each: float(measure.values(each, seeds).mean()))
    return measure.compare(group, best, seeds)


def _of_plan(groups: Sequence[Group], base: Group, step: int = 1) -> list[Group]:
    """Returns the groups with the batch sizes of `base`, or these reversed, and without schedules: one per method."""
    near, sizes = dict[str, Group](), labels.sizes(base.config)[::step]
    for group in sorted(groups, key=lambda group: group.config.batch_plan != base.config.batch_plan):
        if labels.sizes(group.config) == sizes and group.config.adaptive is None and not labels.schedules(group.config):
            near.setdefault(group.row, group)
    return list(near.values())


def _constants(groups: Sequence[Group], row: str) -> list[Group]:
    return [group for group in groups if group.row == row and labels.strategy(group.config) == "constant"]
