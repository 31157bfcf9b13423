"""What a study says of the paper's claims, in sentences."""

from collections.abc import Callable, Sequence

from experiments.reporting.claims import BEST, DECAY, GROWTH, Claim, verdict
from experiments.reporting.figures import Figure, figures_of
from experiments.reporting.groups import Study
from experiments.reporting.matches import matches, reference


def verdicts(study: Study, found: Sequence[Claim]) -> list[str]:
    """Paragraphs: the claims as the paper compares them, then method by method, and how to read it.

    Args:
      study: what was run.
      found: its claims.
    """
    figures = figures_of(study)
    known = [claim for claim in found if claim.is_known]
    if found and not known:
        return ["Of the paper's claims nothing can be said: no two groups that they compare share two seeds."]
    told = [*_papers(known, figures), *_growth(study, known, figures), *_decay(known, figures)]
    return [*told, _reading(known)] if known else told


def _papers(found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    """The two claims of the paper, each counted over the methods."""
    decays = _of_kind(DECAY, found)
    asked = {
        "an increasing batch does better than a constant one": _of_kind(GROWTH, found),
        "a decaying learning rate does better than a constant one": [e for e in decays if e.match == decays[0].match],
    }
    return [
        f"The paper: {claim}{_where(of_it[0].match)}. {_told(of_it, figures, _method_of(of_it))}"
        for claim, of_it in asked.items()
        if of_it
    ]


def _growth(study: Study, found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    if reference(study) is None:
        return []
    best = _of_kind(BEST, found)
    told = [
        f"{method}, growth against the best constant batch. {_told(of_it, figures, lambda claim: claim.match)}"
        for method, of_it in _by_method(best).items()
    ]
    told_of = " ".join(each.match for each in best)
    lacking = [match.title for match in matches(study) if match.title.removeprefix("at ") not in told_of]
    if not best:
        told.append(
            "Whether growth helps cannot be said: no constant batch of another size was run beside, so the small "
            "batches of the beginning are not told from the growth."
        )
    elif lacking:
        told.append(f"Of growth {_listed(lacking)} nothing can be said: two constant batch sizes were not run there.")
    return told


def _decay(found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    decays = _of_kind(DECAY, found)
    if len({(each.match, each.group.column) for each in decays}) < 2:
        return []  # said already
    several = len({each.group.column for each in decays}) > 1

    def where(claim: Claim) -> str:
        return f"{claim.group.column} {claim.match}".strip() if several else claim.match

    return [
        f"{method}, decay against the constant rate at the same batch. {_told(of_it, figures, where)}"
        for method, of_it in _by_method(decays).items()
    ]


def _told(found: Sequence[Claim], figures: Sequence[Figure], name: Callable[[Claim], str]) -> str:
    """Which claims hold in which figures: `SAM: holds. SGD: does not hold.`."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for claim in found:
        alike.setdefault(tuple(verdict(claim.found[figure.title]) for figure in figures), []).append(name(claim))
    return " ".join(_capital(f"{_listed(names)}: {_by_verdict(each, figures)}.") for each, names in alike.items())


def _by_verdict(verdicts_: Sequence[str], figures: Sequence[Figure]) -> str:
    """`holds`, or `holds for test error; does not hold for sharpness at ρ 0.0002`."""
    quantities: dict[str, list[str]] = {}
    for word, figure in zip(verdicts_, figures, strict=True):
        quantities.setdefault(word, []).append(_quantity(figure))
    if len(quantities) == 1:
        return f"{verdicts_[0]}{', for error and sharpness alike' if len(figures) > 1 else ''}"
    return "; ".join(f"{word} for {_listed(inside)}" for word, inside in quantities.items())


def _reading(found: Sequence[Claim]) -> str:
    told = (
        "A claim holds where the 95% t interval of the paired difference lies below 0, or of the ratio below 1; it is "
        "the other way round where it lies above."
    )
    if most := max((each.candidates for each in _of_kind(BEST, found)), default=0):
        told += (
            f" The best of up to {most} constant batches, the one with the lowest mean error, is chosen on the seeds "
            "that it is compared on: that favours the constants."
        )
    return told


def _method_of(found: Sequence[Claim]) -> Callable[[Claim], str]:
    """The method of a claim, with the strategy where there are several."""
    several = len({claim.group.column for claim in found}) > 1
    return lambda claim: f"{claim.group.row} ({claim.group.column})" if several else claim.group.row


def _of_kind(kind: str, found: Sequence[Claim]) -> list[Claim]:
    return [each for each in found if each.kind == kind]


def _by_method(found: Sequence[Claim]) -> dict[str, list[Claim]]:
    methods = dict.fromkeys(each.group.row for each in found)
    return {method: [each for each in found if each.group.row == method] for method in methods}


def _where(match: str) -> str:
    return f", {match}" if match else ""


def _quantity(figure: Figure) -> str:
    """Its title without the unit."""
    return figure.title.removesuffix(", points").removesuffix(", ratio").replace(", ρ", " at ρ")


def _capital(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}"


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
