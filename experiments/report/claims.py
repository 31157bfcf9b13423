"""The paper's claims on a study: does growth of the batch help, and does decay of the learning rate?

The paper (Harada and Iiduka, https://arxiv.org/abs/2409.09984) compares both with a constant batch size and a constant
rate. An increasing plan also differs from those by its small first batches, so growth itself may be credited only with
what it gains over the best constant batch size at an equal length, its own first one among them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.cli.tables import Rows
from experiments.report import labels
from experiments.report.figures import Figure, figures_of
from experiments.report.groups import Group, Study
from experiments.report.matches import controls, matches, papers_constant, reference, tables
from experiments.report.paired import Difference, shared_seeds
from experiments.report.wording import cell, verdict

GROWTH, BEST, REVERSED = "growth", "growth against the best constant batch", "growth against the plan reversed"
DECIDED = "growth that the noise decides on, against the increasing plan"
DECAY, RIVAL = "decay", "a decay that the paper does not have"


class Claim(NamedTuple):
    """That a strategy does better than others, for one method.

    Attributes:
      kind: `GROWTH`, as the paper compares it; `BEST`, `REVERSED`, `DECIDED`, `DECAY` or `RIVAL`.
      match: at what they are equal.
      group: what is said to do better.
      baselines: what it is compared with; of several constant batches with the best one, figure by figure.
      found: by the title of each figure the difference, whose `second` is the best baseline; None where two seeds do
        not have it.
    """

    kind: str
    match: str
    group: Group
    baselines: tuple[Group, ...]
    found: dict[str, Difference | None]

    @property
    def is_known(self) -> bool:
        """Whether some figure was compared."""
        return any(self.found.values())

    @property
    def candidates(self) -> int:
        """How many constant batch sizes the best one was taken of."""
        return len({labels.sizes(each.config) for each in self.baselines})


def claims(study: Study) -> list[Claim]:
    """All that the study's groups can be asked, kind by kind, match by match, method by method; known or not."""
    figures = figures_of(study)
    found = [*_growth(study, figures), *_decay(study, figures)]
    return sorted(_once(found), key=lambda claim: (GROWTH, BEST, REVERSED, DECIDED, DECAY, RIVAL).index(claim.kind))


def claim_rows(study: Study, found: Sequence[Claim]) -> Rows:
    """A row a claim that is known: the paired difference in each figure, with its 95% t interval and its verdict."""
    figures = figures_of(study)
    heading = ("compared", "method", "less", *(figure.title for figure in figures))
    return [heading, *(_row(claim, figures, len(study.seeds)) for claim in found if claim.is_known)]


def lacking(claim: Claim, base: Group) -> list[int]:
    """The batch sizes that a claim has no constant batch of: the increasing plan's first, last and mean, its own ends.

    The mean of an adaptive plan is another one with each seed.
    """
    there, own = {labels.sizes(each.config)[0] for each in claim.baselines}, labels.sizes(claim.group.config)
    return sorted((controls(base) | {own[0], own[-1]}) - there)


def _once(found: Sequence[Claim]) -> list[Claim]:
    """Claims that two matches ask alike, as those of updates and of gradient evaluations do for SAM, made one."""
    once: dict[tuple[str, ...], Claim] = {}
    for claim in found:
        key = claim.kind, claim.group.name, *(each.name for each in claim.baselines)
        match = f"{once[key].match} and {claim.match.removeprefix('at ')}" if key in once else claim.match
        once[key] = claim._replace(match=match)
    return list(once.values())


def _growth(study: Study, figures: Sequence[Figure]) -> list[Claim]:
    """The increasing plan, and adaptive ones, less what they are compared with, at each length that they share."""
    base, found = reference(study), []
    if base is None:
        return []
    for match in matches(study):
        for grown in _of_plan(match.groups, base, labels.sizes(base.config)):
            asked = _as_the_paper(match.groups, base, grown, figures) if match.title == "at equal epochs" else []
            asked += _against_the_best(match.groups, grown, figures)
            asked += _against_reversed(match.groups, base, grown, figures)
            found += [claim._replace(match=match.title) for claim in asked]
        for grown in filter(lambda group: labels.strategy(group.config) == "adaptive", match.groups):
            asked = _against_the_best(match.groups, grown, figures)
            asked += _against_the_plan(match.groups, base, grown, figures)
            found += [claim._replace(match=match.title) for claim in asked]
    return found


def _as_the_paper(groups: Sequence[Group], base: Group, grown: Group, figures: Sequence[Figure]) -> list[Claim]:
    """The constant batch size that decays are compared with."""
    size = papers_constant(groups, base)
    baselines = [each for each in _constants(groups, grown.row) if labels.sizes(each.config) == (size,)]
    return [_claim(GROWTH, grown, baselines, figures)] if baselines else []


def _against_the_best(groups: Sequence[Group], grown: Group, figures: Sequence[Figure]) -> list[Claim]:
    """Several constant batch sizes; without the plan's first one, nothing would tell growth from small batches."""
    baselines = _constants(groups, grown.row)
    if len({labels.sizes(each.config) for each in baselines}) < 2:
        return []
    claim = _claim(BEST, grown, baselines, figures)
    first = grown.config.plan.stages[0].batch_size
    if any(labels.sizes(each.config) == (first,) for each in baselines):
        return [claim]
    return [claim._replace(found=dict.fromkeys(claim.found))]


def _against_reversed(groups: Sequence[Group], base: Group, grown: Group, figures: Sequence[Figure]) -> list[Claim]:
    """The same batches in the opposite order."""
    backwards = _of_plan(groups, base, labels.sizes(base.config)[::-1])
    baselines = [each for each in backwards if each.row == grown.row]
    return [_claim(REVERSED, grown, baselines, figures)] if baselines else []


def _against_the_plan(groups: Sequence[Group], base: Group, grown: Group, figures: Sequence[Figure]) -> list[Claim]:
    """An adaptive plan and the increasing one."""
    planned = [each for each in _of_plan(groups, base, labels.sizes(base.config)) if each.row == grown.row]
    return [_claim(DECIDED, grown, planned, figures)] if planned else []


def _decay(study: Study, figures: Sequence[Figure]) -> list[Claim]:
    """Each decaying rate less the constant one, at the same batch plan, which stands in one table with it."""
    found, asked = [], []
    for match in tables(study):
        for group in match.groups:
            if group.config.lr_schedule == "constant" or group in asked:
                continue
            asked.append(group)
            same = [
                each
                for each in match.groups
                if each.row == group.row
                and each.config.batch_plan == group.config.batch_plan
                and each.config.lr_schedule == "constant"
            ]
            kind = DECAY if _is_papers_decay(study, group) else RIVAL
            found += [_claim(kind, group, same, figures)._replace(match=match.title)] if same else []
    return sorted(found, key=lambda claim: claim.group.config.lr_schedule != "cosine")


def _is_papers_decay(study: Study, group: Group) -> bool:
    """Whether its rate falls as one of the paper's does, at the paper's constant batch size."""
    if not (labels.is_papers_decay(group.config) and labels.is_constant_batch(group.config)):
        return False
    base = reference(study)
    return base is None or labels.sizes(group.config) == (papers_constant(matches(study)[0].groups, base),)


def _claim(kind: str, group: Group, baselines: Sequence[Group], figures: Sequence[Figure]) -> Claim:
    found = {figure.title: _against(figure, group, baselines) for figure in figures}
    return Claim(kind, "", group, tuple(baselines), found)


def _against(figure: Figure, group: Group, baselines: Sequence[Group]) -> Difference | None:
    """The difference to the baseline with the least mean, chosen and compared on the seeds that all of them have.

    One that diverged is not the best, unless all did. Nothing is known while another one lacks the figure.
    """
    seeds = shared_seeds(group, *baselines)
    sound = [each for each in baselines if not any(each.by_seed[seed].diverged for seed in seeds)] or baselines
    if len(seeds) < 2 or not all(map(figure.is_known, sound)):
        return None
    return figure.compare(group, min(sound, key=_mean_over(figure, seeds)), seeds)


def _mean_over(figure: Figure, seeds: Sequence[int]) -> Callable[[Group], float]:
    return lambda group: figure.mean(group, seeds)


def _of_plan(groups: Sequence[Group], base: Group, sizes: tuple[int, ...]) -> list[Group]:
    """The groups at a constant rate whose batch sizes follow one another so: one a method."""
    near: dict[str, Group] = {}
    for group in groups:
        is_meant = labels.sizes(group.config) == sizes and group.config.adaptive is None
        if is_meant and group.config.lr_schedule == base.config.lr_schedule:
            near.setdefault(group.row, group)
    return list(near.values())


def _constants(groups: Sequence[Group], row: str) -> list[Group]:
    return [
        group
        for group in groups
        if group.row == row and labels.is_constant_batch(group.config) and group.config.lr_schedule == "constant"
    ]


def _row(claim: Claim, figures: Sequence[Figure], seeds: int) -> tuple[str, ...]:
    what = ", ".join(filter(None, [labels.heading(claim.group.column), claim.match]))
    is_best = claim.kind == BEST
    less = f"best of {claim.candidates} constant batches" if is_best else labels.heading(claim.baselines[0].column)
    found = [(figure, claim.found[figure.title]) for figure in figures]
    against = [labels.heading(each.second.column) if each and is_best else "" for _, each in found]
    cells = [cell(*each, verdict, seeds, name) for each, name in zip(found, against, strict=True)]
    return what, claim.group.row, less, *cells
