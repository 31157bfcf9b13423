"""What a study says of the paper's claims, in sentences."""

from collections.abc import Callable, Sequence

from experiments.report.claims import BEST, DECAY, GROWTH, RIVAL, Claim
from experiments.report.figures import Figure, figures_of
from experiments.report.groups import Study
from experiments.report.growth_told import growth
from experiments.report.sentences import by_method, of_kind, told


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
    decays = of_kind(DECAY, known)
    paragraphs = [*_papers(known, figures), *growth(study, found, figures)]
    if len({(each.match, each.group.column) for each in decays}) > 1:  # else it is said already
        paragraphs += _rates("decay against the constant rate at the same batch", decays, figures)
    paragraphs += _rates(
        "decays that the paper does not have against the constant rate", of_kind(RIVAL, known), figures
    )
    return [*paragraphs, _reading(known, figures)] if known else paragraphs


def _papers(found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    """The two claims of the paper, each counted over the methods."""
    decays = of_kind(DECAY, found)
    asked = {
        "an increasing batch does better than a constant one": of_kind(GROWTH, found),
        "a decaying learning rate does better than a constant one": [e for e in decays if e.match == decays[0].match],
    }
    return [
        f"The paper: {claim}{_where(of_it[0].match)}. {told(of_it, figures, _method_of(of_it))}"
        for claim, of_it in asked.items()
        if of_it
    ]


def _rates(title: str, found: Sequence[Claim], figures: Sequence[Figure]) -> list[str]:
    """A paragraph a method on rates that fall."""

    def where(claim: Claim) -> str:
        return f"{claim.group.column} {claim.match}".strip()

    return [f"{method}, {title}. {told(of_it, figures, where)}" for method, of_it in by_method(found).items()]


def _reading(found: Sequence[Claim], figures: Sequence[Figure]) -> str:
    words = (
        "A claim holds where the 95% t interval of the paired difference lies below 0, or of the ratio below 1; it is "
        "the other way round where it lies above, and not shown where it lies across."
    )
    if len(figures) > 1:
        words += " Ratios are those of geometric means; the tables above have arithmetic ones."
    if most := max((each.candidates for each in of_kind(BEST, found)), default=0):
        words += (
            f" The best of up to {most} constant batches is the one with the lowest mean error, or for sharpness the "
            "flattest one, chosen on the seeds that it is compared on: that favours the constants."
        )
    return words


def _method_of(found: Sequence[Claim]) -> Callable[[Claim], str]:
    """The method of a claim, with the strategy where there are several."""
    several = len({claim.group.column for claim in found}) > 1
    return lambda claim: f"{claim.group.row} ({claim.group.column})" if several else claim.group.row


def _where(match: str) -> str:
    return f", {match}" if match else ""
