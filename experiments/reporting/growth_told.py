"""What a study says of growth of the batch, in sentences, and of what nothing can be said, and why."""

from collections.abc import Iterable, Sequence

from experiments.reporting import labels
from experiments.reporting.claims import BEST, DECIDED, REVERSED, Claim, lacking
from experiments.reporting.figures import Figure
from experiments.reporting.groups import Group, Study
from experiments.reporting.matches import matches, reference
from experiments.reporting.sentences import by_method, listed, of_kind, told

_NO_CONTROLS = (
    "Whether growth helps cannot be said: no constant batch of another size was run beside, so the small batches of "
    "the beginning are not told from the growth."
)


def growth(study: Study, found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    """Paragraphs: growth against the best constant batch, method by method, and against the plan reversed.

    Growth that the noise decides on has its own, against the best constant batch and against the increasing plan.

    Args:
      study: what was run.
      found: its claims, known or not.
      figures: of which claims are told.
    """
    base = reference(study)
    if base is None:
        return []
    best = [claim for claim in of_kind(BEST, found) if not labels.is_adaptive(claim.group.config)]
    decided = [claim for claim in of_kind(BEST, found) if labels.is_adaptive(claim.group.config)]
    others = [
        *_told("growth against the same plan reversed", of_kind(REVERSED, found), figures),
        *_told("growth that the noise decides on against the best constant batch", decided, figures),
        *_told("growth that the noise decides on against the increasing plan", of_kind(DECIDED, found), figures),
    ]
    if not best:
        return [_NO_CONTROLS, *others]
    paragraphs = _told("growth against the best constant batch", best, figures)
    return [*paragraphs, *_unknown(study, base, best), *_partly(base, best), *others]


def _told(title: str, found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    """A paragraph a method on what is known of the claims."""
    known = [claim for claim in found if claim.is_known]
    several = len({claim.group.column for claim in known}) > 1

    def where(claim: Claim) -> str:
        return f"{claim.group.column} {claim.match}" if several else claim.match

    return [f"{method}, {title}. {told(of_it, figures, where)}" for method, of_it in by_method(known).items()]


def _unknown(study: Study, base: Group, best: Sequence[Claim]) -> list[str]:
    """Of which methods and matches nothing can be said, by the reason."""
    methods = dict.fromkeys(group.row for group in study.groups)
    places = [(match.title, method) for match in matches(study) for method in methods]
    reasons: dict[str, list[tuple[str, str]]] = {}
    for title, method in places:
        there = [each for each in best if each.group.row == method and title.removeprefix("at ") in each.match]
        if not (there and there[0].is_known):
            reasons.setdefault(_reason(there, base), []).append((title, method))
    return [f"Of growth {_where(at, len(methods))} nothing can be said: {reason}." for reason, at in reasons.items()]


def _reason(there: Sequence[Claim], base: Group) -> str:
    if not there:
        return "the increasing plan and two constant batch sizes were not run there"
    first = base.config.plan.stages[0].batch_size
    if first in lacking(there[0], base):
        return f"constant {first}, its own first batch size, was not run there"
    return "too few seeds are shared by the plan and all constant batches"


def _partly(base: Group, best: Sequence[Claim]) -> list[str]:
    """What other controls the best constant batch was not taken of."""
    without: dict[str, list[str]] = {}
    for claim in best:
        if claim.is_known and (sizes := lacking(claim, base)):
            without.setdefault(listed([f"constant {size}" for size in sizes]), []).append(
                f"{claim.group.row} {claim.match}"
            )
    return [f"Not among the constants: {sizes} ({listed(where)})." for sizes, where in without.items()]


def _where(places: Iterable[tuple[str, str]], methods: int) -> str:
    """`at equal updates`, or `at equal updates (SGD)` where that is not so of all methods."""
    by_match: dict[str, list[str]] = {}
    for title, method in places:
        by_match.setdefault(title, []).append(method)
    return listed(
        [title if len(inside) == methods else f"{title} ({listed(inside)})" for title, inside in by_match.items()]
    )
