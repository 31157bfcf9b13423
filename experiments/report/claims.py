"""The paper's claims on a study: does a growing batch help, and does a falling learning rate?

The paper (Harada and Iiduka, arXiv 2409.09984) compares both with a constant batch size and a constant learning rate.
An increasing plan also differs from those by its small first batches. So growth is also compared with the best of
several constant batch sizes at equal length, one of which must be the first batch size of the plan.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from experiments.report.groups import Group, Study
from experiments.report.matches import EPOCHS, UPDATES, all_matches, controls, papers_constant, reference, shown_matches
from experiments.report.paired import LEARNED, Difference, Measure, measures_of, shared_seeds
from experiments.study import labels

GROWTH, BEST, REVERSED = "growth", "growth against the best constant batch", "growth against the plan reversed"
PLAN = "other growth, against the increasing plan"
DECAY, RIVAL = "decay", "a decay that the paper does not have"
_KINDS = (GROWTH, BEST, REVERSED, PLAN, DECAY, RIVAL)


@dataclass(frozen=True, eq=False)
class Claim:
    """The claim that a strategy is better than others, for one method.

    Attributes:
      kind: `GROWTH`, as the paper compares it; `BEST`, `REVERSED`, `PLAN`, `DECAY` or `RIVAL`.
      match: what they have in common, such as `at equal epochs`.
      group: the group that is claimed to be better.
      baselines: the groups that it is compared with; of several constant batches, the best one of each measure counts.
      found: the difference by the title of each measure, whose `second` is the best baseline; None if it is unknown.
    """

    kind: str
    match: str
    group: Group
    baselines: tuple[Group, ...]
    found: dict[str, Difference | None]

    @property
    def is_known(self) -> bool:
        """Whether some measure was compared."""
        return any(self.found.values())

    @property
    def candidates(self) -> int:
        """The number of constant batch sizes from which the best one is selected."""
        return len({(labels.sizes(each.config), each.has_own_rate) for each in self.baselines})


def claims(study: Study) -> list[Claim]:
    """Returns all claims on the groups of a study, by kind, match and method, whether they are known or not."""
    measures = measures_of(study)
    found = [*_growth(study, measures), *_decay(study, measures)]
    return sorted(_once(found), key=lambda claim: _KINDS.index(claim.kind))


def lacking(claim: Claim, base: Group) -> list[int]:
    """Returns the batch sizes that the baselines of a claim lack: the plan's own ends, and the controls of `base`."""
    there, own = {labels.sizes(each.config)[0] for each in claim.baselines}, labels.sizes(claim.group.config)
    return sorted((controls(base) | {own[0], own[-1]}) - there)


def _once(found: Sequence[Claim]) -> list[Claim]:
    """Merges equal claims of two matches, as those of updates and of gradient evaluations are for SAM."""
    once: dict[tuple[str, ...], Claim] = {}
    for claim in found:
        key = claim.kind, claim.group.name, *(each.name for each in claim.baselines)
        match = f"{once[key].match} and {claim.match.removeprefix('at ')}" if key in once else claim.match
        once[key] = replace(claim, match=match)
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
        for grown in (*_of_plan(match.groups, labels.sizes(base.config)), *others):
            asked = _against_the_best(match.groups, grown, measures)
            has_best = any(claim.is_known for claim in asked)  # else the paper's batch is the only control
            if grown not in others and (match.title == EPOCHS or (match.title == UPDATES and not has_best)):
                asked += _against_the_papers(match.groups, size, grown, measures)
            asked += (_against_the_plan if grown in others else _against_reversed)(match.groups, base, grown, measures)
            found += [replace(claim, match=match.title) for claim in asked]
    return found


def _against_the_papers(
    groups: Sequence[Group], size: int | None, grown: Group, measures: Sequence[Measure]
) -> list[Claim]:
    """Returns the claim against the paper's constant batch size."""
    constants = [each for each in _constants(groups, grown.row) if not each.has_own_rate]
    baselines = [each for each in constants if labels.sizes(each.config) == (size,)]
    return [_claim(GROWTH, grown, baselines, measures)] if baselines else []


def _against_the_best(groups: Sequence[Group], grown: Group, measures: Sequence[Measure]) -> list[Claim]:
    """Returns the claim against the best of several constant batches.

    It is unknown without the first batch size of the plan, since growth could then be an effect of small batches.
    """
    baselines = _constants(groups, grown.row)
    if len({labels.sizes(each.config) for each in baselines}) < 2:
        return []
    claim = _claim(BEST, grown, baselines, measures)
    first = grown.config.plan.stages[0].batch_size
    if any(labels.sizes(each.config) == (first,) for each in baselines):
        return [claim]
    return [replace(claim, found=dict.fromkeys(claim.found))]


def _against_reversed(groups: Sequence[Group], base: Group, grown: Group, measures: Sequence[Measure]) -> list[Claim]:
    """Returns the claim against the same batches in the opposite order."""
    backwards = _of_plan(groups, labels.sizes(base.config)[::-1])
    baselines = [each for each in backwards if each.row == grown.row]
    return [_claim(REVERSED, grown, baselines, measures)] if baselines else []


def _against_the_plan(groups: Sequence[Group], base: Group, grown: Group, measures: Sequence[Measure]) -> list[Claim]:
    """Returns the claim of another growing plan against the increasing one."""
    planned = [each for each in _of_plan(groups, labels.sizes(base.config)) if each.row == grown.row]
    return [_claim(PLAN, grown, planned, measures)] if planned else []


def _decay(study: Study, measures: Sequence[Measure]) -> list[Claim]:
    """Returns the claims of falling rates against a constant one, and of falling radii against a constant radius."""
    found, asked = [], []
    for match in shown_matches(study):
        for group in match.groups:
            if not labels.schedules(group.config) or group in asked:
                continue
            asked.append(group)
            same = [
                each
                for each in match.groups
                if each.row == group.row
                and each.config.batch_plan == group.config.batch_plan
                and labels.schedules(each.config) == labels.schedules(group.config)[:-1]
                and not each.has_own_rate
            ]
            kind = DECAY if _is_papers_decay(study, group) else RIVAL
            found += [replace(_claim(kind, group, same, measures), match=match.title)] if same else []
    return sorted(found, key=lambda claim: claim.group.config.lr_schedule != "cosine")


def _is_papers_decay(study: Study, group: Group) -> bool:
    """Returns whether the rate falls as one of the paper's does, at the paper's constant batch size."""
    if not (labels.is_papers_decay(group.config) and labels.is_constant_batch(group.config)):
        return False
    base = reference(study)
    return base is None or labels.sizes(group.config) == (papers_constant(all_matches(study)[0].groups, base),)


def _claim(kind: str, group: Group, baselines: Sequence[Group], measures: Sequence[Measure]) -> Claim:
    found = {measure.title: _against(measure, group, baselines) for measure in measures}
    return Claim(kind, "", group, tuple(baselines), found)


def _against(measure: Measure, group: Group, baselines: Sequence[Group]) -> Difference | None:
    """Returns the difference to the baseline with the lowest mean, selected and compared on the seeds that all have.

    A baseline that diverged or has not learned is not the best, unless all are such. The difference is unknown if a
    baseline lacks the measure.
    """
    seeds = shared_seeds(group, *baselines)
    finite = [each for each in baselines if not each.values("diverged", seeds).any()]
    sound = [each for each in finite if each.accuracy >= LEARNED] or finite or baselines
    if not seeds or not all(map(measure.is_known, sound)):
        return None
    return measure.compare(group, min(sound, key=_mean_over(measure, seeds)), seeds)


def _mean_over(measure: Measure, seeds: Sequence[int]) -> Callable[[Group], float]:
    return lambda group: float(measure.values(group, seeds).mean())


def _of_plan(groups: Sequence[Group], sizes: tuple[int, ...]) -> list[Group]:
    """Returns the groups with these batch sizes in this order, and without schedules: one per method."""
    near: dict[str, Group] = {}
    for group in groups:
        if labels.sizes(group.config) == sizes and group.config.adaptive is None and not labels.schedules(group.config):
            near.setdefault(group.row, group)
    return list(near.values())


def _constants(groups: Sequence[Group], row: str) -> list[Group]:
    return [group for group in groups if group.row == row and labels.strategy(group.config) == "constant"]
