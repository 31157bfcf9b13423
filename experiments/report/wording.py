"""Paired differences in words: what they say of a claim, and what they say where nothing is claimed."""

from collections.abc import Callable, Sequence

from experiments.report.figures import Figure
from experiments.report.paired import Difference

BY_CHANCE = 0.05  # of true zeros, so many have an interval that leaves 0 out


def verdict(found: Difference | None) -> str:
    """Of the claim that the first has less: `holds`, `not shown`, `the other way round`, or why nothing can be said."""
    claimed = {"lower": "holds", "higher": "the other way round", "–": "not shown"}
    return "not known" if found is None else claimed.get(found.direction, found.direction)


def direction(found: Difference | None) -> str:
    """Where nothing is claimed: `lower`, `higher`, a dash where the interval contains 0, or why nothing can be said."""
    return "–" if found is None else found.direction


def cell(
    figure: Figure,
    found: Difference | None,
    word: Callable[[Difference | None], str],
    seeds: int,
    against: str = "",
) -> str:
    """A cell of a table: the difference, its interval, and a word; a dash where it is not known.

    Args:
      figure: what was compared.
      found: the difference.
      word: `verdict` or `direction`.
      seeds: of the study; where fewer are behind the difference, that is told.
      against: what it was compared with, where the row does not tell.
    """
    if found is None:
        return "–"
    told = figure.said(found, seeds) + (f" against {against}" if against else "")
    return told if word(found) == "–" else f"{told}: {word(found)}"


def multiplicity(found: Sequence[Difference]) -> str:
    """How many of the intervals leave 0 out, and how many would by chance alone."""
    leaving = sum(each.is_clear for each in found)
    return (
        f"Intervals that leave 0 out (a ratio's 1): {leaving} of {len(found)}. Each is taken by itself: of "
        f"{len(found)} true zeros about {BY_CHANCE * len(found):.2g} would be left out by chance."
    )
