"""The paper's claims on a study: does growth of the batch help, and does decay of the learning rate?

The paper (Harada and Iiduka, https://arxiv.org/abs/2409.09984) compares both with a constant batch size and a constant
rate. An increasing plan also differs from those by its small first batches, so growth itself may be credited only with
what it gains over the best constant batch size at an equal length.
"""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.reporting import labels
from experiments.reporting.figures import Figure, figures_of
from experiments.reporting.groups import Group, Study
from experiments.reporting.matches import is_constant_batch, matches, papers_constant, reference, tables
from experiments.reporting.paired import Difference
from experiments.tables import Rows

GROWTH, BEST, DECAY = "growth", "growth against the best constant batch", "decay"


class Claim(NamedTuple):
    """That a strategy does better than another one, for one method.

    Attributes:
      kind: `GROWTH`, as the paper compares it; `BEST`, or `DECAY`.
      match: at what the two are equal.
      group: what is said to do better.
      baseline: what it is compared with; of several constant batches the one with the lowest mean test error.
      candidates: of how many baselines that one was taken.
      found: by the title of each figure the difference; None where two seeds do not have both.
    """

    kind: str
    match: str
    group: Group
    baseline: Group
    candidates: int
    found: dict[str, Difference | None]

    @property
    def is_known(self) -> bool:
        """Whether some figure was compared."""
        return any(self.found.values())


def claims(study: Study) -> list[Claim]:
    """All that the study's groups can be asked, kind by kind, match by match, method by method; known or not."""
    figures = figures_of(study)
    found = [*_as_the_paper(study, figures), *_growth(study, figures), *_decay(study, figures)]
    return _once(found)


def claim_rows(study: Study, found: Sequence[Claim]) -> Rows:
    """A row a claim that is known: the paired difference in each figure, with its 95% t interval and its verdict."""
    figures = figures_of(study)
    heading = ("compared", "method", "less", *(figure.title for figure in figures))
    return [heading, *(_row(claim, figures) for claim in found if claim.is_known)]


def verdict(found: Difference | None) -> str:
    """Whether the first does better: `holds`, `does not hold`, `the other way round`, or why nothing can be said."""
    if found is None:
        return "not known"
    if found.verdict == "holds":
        return "holds" if found.high < 0 else "the other way round"
    return "does not hold" if found.verdict == "–" else found.verdict


def _once(found: Sequence[Claim]) -> list[Claim]:
    """Claims that two matches ask alike, as those of updates and of gradient evaluations do for SAM, made one."""
    once: dict[tuple[str, str, str], Claim] = {}
    for claim in found:
        key = claim.kind, claim.group.name, claim.baseline.name
        match = f"{once[key].match} and {claim.match.removeprefix('at ')}" if key in once else claim.match
        once[key] = claim._replace(match=match)
    return list(once.values())


def _as_the_paper(study: Study, figures: Sequence[Figure]) -> list[Claim]:
    """The increasing plan less the constant batch size that decays are compared with, at equal epochs."""
    base = reference(study)
    found = []
    for match in matches(study)[:1]:
        plan = papers_constant(match.groups, base) if base else None
        for grown in _of_plan(match.groups, base):
            baselines = [each for each in _constants(match.groups, grown.row) if each.config.batch_plan == plan]
            found += [_claim(GROWTH, match.title, grown, baselines, figures)] if baselines else []
    return found


def _growth(study: Study, figures: Sequence[Figure]) -> list[Claim]:
    """The increasing plan less the best of several constant batch sizes, at each length that they share."""
    found = []
    for match in matches(study):
        for grown in _of_plan(match.groups, reference(study)):
            baselines = _constants(match.groups, grown.row)
            sizes = {labels.sizes(each.config) for each in baselines}
            found += [_claim(BEST, match.title, grown, baselines, figures)] if len(sizes) > 1 else []
    return found


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
            found += [_claim(DECAY, match.title, group, same, figures)] if same else []
    return sorted(found, key=lambda claim: claim.group.config.lr_schedule != "cosine")


def _claim(kind: str, match: str, group: Group, baselines: Sequence[Group], figures: Sequence[Figure]) -> Claim:
    baseline = min(baselines, key=figures[0].mean)
    found = {figure.title: figure.compare(group, baseline) for figure in figures}
    return Claim(kind, match, group, baseline, len(baselines), found)


def _of_plan(groups: Sequence[Group], base: Group | None) -> list[Group]:
    """The groups of the reference's plan, or of that plan made longer: one a method, the nearest one."""
    near: dict[str, Group] = {}
    for group in groups:
        is_grown = base is not None and labels.strategy(group.config) == "increasing"
        if is_grown and labels.sizes(group.config) == labels.sizes(base.config):
            near.setdefault(group.row, group)
    return list(near.values())


def _constants(groups: Sequence[Group], row: str) -> list[Group]:
    return [g for g in groups if g.row == row and is_constant_batch(g) and g.config.lr_schedule == "constant"]


def _row(claim: Claim, figures: Sequence[Figure]) -> tuple[str, ...]:
    what = ", ".join(filter(None, [labels.heading(claim.group.column), claim.match]))
    best = f", the best of {claim.candidates}" if claim.kind == BEST else ""
    cells = [_cell(figure, claim.found[figure.title]) for figure in figures]
    return what, claim.group.row, f"{labels.heading(claim.baseline.column)}{best}", *cells


def _cell(figure: Figure, found: Difference | None) -> str:
    return "–" if found is None else f"{figure.said(found)}: {verdict(found)}"
