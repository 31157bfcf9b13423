"""The figures of a case as a table in the terminal."""

import statistics
from collections.abc import Iterable

from rich import box
from rich.table import Table

from experiments.benchmarking.figure import Figure

_HEADINGS = ("", "takes", "measured in", "ratio", "quartiles", "target", "verdict")
_NUMBERS = ("takes", "ratio", "quartiles", "target")
_CAPTION = "the cosine of the diagnostics keeps the clean gradient through the second pass; contrib.sam has none"
_UNITS = {"s": (1e3, "ms"), "B": (1e-6, "MB")}
_SECONDS_FROM = 10.0


def table(title: str, figures: Iterable[Figure]) -> Table:
    """A row a figure: the subject's median amount, the median of its ratios with its quartiles, and the verdict."""
    drawn = Table(title=title, caption=_CAPTION, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    drawn.title_justify = drawn.caption_justify = "left"
    for heading in _HEADINGS:
        drawn.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    for figure in figures:
        drawn.add_row(*_row(figure))
    return drawn


def _row(figure: Figure) -> tuple[str, ...]:
    lower, median, upper = figure.quartiles
    return (
        figure.subject,
        _amount(statistics.median(figure.amounts), figure.unit),
        figure.reference,
        f"{median:.3f}",
        f"{lower:.3f}–{upper:.3f}" if len(figure.amounts) > 1 else "",
        "" if figure.target is None else f"{figure.target:g}",
        figure.verdict,
    )


def _amount(value: float, unit: str) -> str:
    factor, smaller = (1, "s") if unit == "s" and value >= _SECONDS_FROM else _UNITS[unit]
    return f"{factor * value:.4g} {smaller}"
