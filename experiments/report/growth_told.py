"""What a study says of growth of the batch, in sentences, and of what nothing can be said, and why."""

from collections.abc import Iterable, Sequence

from experiments.report import labels
from experiments.report.claims import BEST, DECIDED, REVERSED, Claim, lacking
from experiments.report.figures import Figure
from experiments.report.groups import Group, Study
from experiments.report.matches import matches, reference
from experiments.report.sentences import by_method, listed, of_kind, told

_NO_CONTROLS = (
    "Whether growth helps cannot be said: no constant batch of another size was run beside, so the small batches of "
    "the beginning are not told from the growth."
)
_BY_NOISE = "growth that the noise decides on"


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
    best = of_kind(BEST, found)
    planned = [claim for claim in best if claim.group.config.adaptive is None]
    decided = [claim for claim in best if claim.group.config.adaptive is not None]
    return [
        *([] if best else [_NO_CONTROLS]),
        *_told("growth against the best constant batch", planned, figures),
        *(_unknown(study, planned, "growth", "the increasing plan") if best else []),
        *_partly(base, planned),
        *_told("growth against the same plan reversed", of_kind(REVERSED, found), figures),
        *_told(f"{_BY_NOISE} against the best constant batch", decided, figures),
        *(_unknown_by_noise(study, decided) if best else []),
        *_partly(base, decided),
        *_told(f"{_BY_NOISE} against the increasing plan", of_kind(DECIDED, found), figures),
    ]


def _told(title: str, found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    """A paragraph a method on what is known of the claims."""
    known = [claim for claim in found if claim.is_known]
    several = len({claim.group.column for claim in known}) > 1

    def where(claim: Claim) -> str:
        return f"{claim.group.column} {claim.match}" if several else claim.match

    return [f"{method}, {title}. {told(of_it, figures, where)}" for method, of_it in by_method(known).items()]


def _unknown_by_noise(study: Study, decided: Sequence[Claim]) -> list[str]:
    """As `_unknown`, for each adaptive plan by itself."""
    columns = dict.fromkeys(each.column for each in study.groups if labels.strategy(each.config) == "adaptive")
    sentences = []
    for column in columns:
        title = _BY_NOISE if len(columns) == 1 else f"{_BY_NOISE} ({column})"
        own = [claim for claim in decided if claim.group.column == column]
        sentences += _unknown(study, own, title, "the adaptive plan")
    return sentences


def _unknown(study: Study, best: Sequence[Claim], growing: str, plan: str) -> list[str]:
    """Of which methods and matches nothing can be said, by the reason."""
    methods = dict.fromkeys(group.row for group in study.groups)
    places = [(match.title, method) for match in matches(study) for method in methods]
    reasons: dict[str, list[tuple[str, str]]] = {}
    for title, method in places:
        there = [each for each in best if each.group.row == method and title.removeprefix("at ") in each.match]
        if not (there and there[0].is_known):
            reasons.setdefault(_reason(there, plan), []).append((title, method))
    return [f"Of {growing} {_where(at, len(methods))} nothing can be said: {reason}." for reason, at in reasons.items()]


def _reason(there: Sequence[Claim], plan: str) -> str:
    if not there:
        return f"{plan} and two constant batch sizes were not run there"
    first = labels.sizes(there[0].group.config)[0]
    if not any(labels.sizes(each.config)[0] == first for each in there[0].baselines):
        return f"constant {first}, its own first batch size, was not run there"
    return "too few seeds are shared by the plan and all constant batches"


def _partly(base: Group, best: Sequence[Claim]) -> list[str]:
    """What other controls the best constant batch was not taken of."""
    without: dict[str, list[str]] = {}
    for claim in best:
        if claim.is_known and (sizes := lacking(claim, base)):
            own = claim.group.row if claim.group.config.adaptive is None else claim.group.name
            without.setdefault(listed([f"constant {size}" for size in sizes]), []).append(f"{own} {claim.match}")
    return [f"Not among the constants: {sizes} ({listed(where)})." for sizes, where in without.items()]


def _where(places: Iterable[tuple[str, str]], methods: int) -> str:
    """`at equal updates`, or `at equal updates (SGD)` where that is not so of all methods."""
    by_match: dict[str, list[str]] = {}
    for title, method in places:
        by_match.setdefault(title, []).append(method)
    return listed(
        [title if len(inside) == methods else f"{title} ({listed(inside)})" for title, inside in by_match.items()]
    )
