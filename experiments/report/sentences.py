"""How verdicts on claims are put into sentences."""

from collections.abc import Callable, Sequence

from experiments.report.claims import Claim
from experiments.report.figures import Figure
from experiments.report.wording import verdict


def told(found: Sequence[Claim], figures: Sequence[Figure], name: Callable[[Claim], str]) -> str:
    """Which claims hold in which figures: `SAM: holds. SGD: not shown.`.

    Args:
      found: the claims.
      figures: of which they are told.
      name: what a claim is called.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for claim in found:
        alike.setdefault(tuple(verdict(claim.found[figure.title]) for figure in figures), []).append(name(claim))
    return " ".join(_capital(f"{listed(names)}: {_by_verdict(each, figures)}.") for each, names in alike.items())


def of_kind(kind: str, found: Sequence[Claim]) -> list[Claim]:
    """The claims of a kind."""
    return [each for each in found if each.kind == kind]


def by_method(found: Sequence[Claim]) -> dict[str, list[Claim]]:
    """The claims, method by method."""
    methods = dict.fromkeys(each.group.row for each in found)
    return {method: [each for each in found if each.group.row == method] for method in methods}


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _by_verdict(verdicts: Sequence[str], figures: Sequence[Figure]) -> str:
    """`holds`, or `holds for test error; not shown for sharpness at ρ 0.0002`."""
    quantities: dict[str, list[str]] = {}
    for word, figure in zip(verdicts, figures, strict=True):
        quantities.setdefault(word, []).append(_quantity(figure))
    if len(quantities) == 1:
        return f"{verdicts[0]}{', for error and sharpness alike' if len(figures) > 1 else ''}"
    return "; ".join(f"{word} for {listed(inside)}" for word, inside in quantities.items())


def _quantity(figure: Figure) -> str:
    """Its title without the unit."""
    return figure.title.removesuffix(", points").removesuffix(", ratio").replace(", ρ", " at ρ")


def _capital(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}"
