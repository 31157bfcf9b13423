"""What a study says of growth of the batch, in sentences, and of what nothing can be said, and why."""

from collections.abc import Iterable, Sequence

from experiments.reporting.claims import BEST, REVERSED, Claim, lacking
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

    Args:
      study: what was run.
      found: its claims, known or not.
      figures: of which claims are told.
    """
    base = reference(study)
    if base is None:
        return []
    best = of_kind(BEST, found)
    if not best:
        return [_NO_CONTROLS, *_reversed(found, figures)]
    paragraphs = [
        f"{method}, growth against the best constant batch. {told(known, figures, lambda claim: claim.match)}"
        for method, of_it in by_method(best).items()
        if (known := [claim for claim in of_it if claim.is_known])
    ]
    return [*paragraphs, *_unknown(study, base, best), *_partly(base, best), *_reversed(found, figures)]


def _reversed(found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    known = [claim for claim in of_kind(REVERSED, found) if claim.is_known]
    return [
        f"{method}, growth against the same plan reversed. {told(of_it, figures, lambda claim: claim.match)}"
        for method, of_it in by_method(known).items()
    ]


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
