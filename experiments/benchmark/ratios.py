"""Figures of the benchmark: ratios with their spread and target, and the table that shows them."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """How much of something the subject takes, measured in what its reference takes in the same round.

    Attributes:
      model: the network.
      batch_size: examples a step.
      quantity: `time` or `peak memory`.
      subject: what was measured.
      reference: what it is compared with.
      target: what the median of the ratios should not exceed; None is no target.
      unit: of `amounts` and `reference_amounts`: `s` or `B`.
      amounts: of the subject, one a round; of memory, which does not vary, one in all.
      reference_amounts: of the reference, likewise.
    """

    model: str
    batch_size: int
    quantity: str
    subject: str
    reference: str
    target: float | None
    unit: str
    amounts: tuple[float, ...]
    reference_amounts: tuple[float, ...]

    @property
    def ratios(self) -> np.ndarray:
        """The subject's amount in units of the reference's, `(rounds,)`."""
        return np.asarray(self.amounts) / np.asarray(self.reference_amounts)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile of the ratios, their median and their upper quartile."""
        lower, median, upper = np.quantile(self.ratios, (0.25, 0.5, 0.75))
        return float(lower), float(median), float(upper)

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or between them `in spread`: the median exceeds the target, the lower quartile does not.

        They are judged as the table prints them, to three decimals. A dash where there is no target.
        """
        lower, median, _ = (round(each, 3) for each in self.quartiles)
        if self.target is None:
            return "–"
        if median <= self.target:
            return "met"
        return "in spread" if lower <= self.target else "missed"

    def as_json(self) -> dict[str, Any]:
        """The figure with all that it was made of."""
        lower, median, upper = self.quartiles
        return {
            "model": self.model,
            "batch_size": self.batch_size,
            "quantity": self.quantity,
            "subject": self.subject,
            "reference": self.reference,
            "median": median,
            "quartiles": [lower, upper],
            "rounds": len(self.amounts),
            "target": self.target,
            "verdict": self.verdict,
            "unit": self.unit,
            "amounts": list(self.amounts),
            "reference_amounts": list(self.reference_amounts),
        }


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


GRADIENTS, SAM, GSAM, UNMEASURED = "two gradients", "SAM", "GSAM", "SAM, without diagnostics"
OPAQUE, DEFAULT = "contrib.sam, opaque", "contrib.sam, default"
SGD = "SGD, momentum"


def memory_first(name: str) -> str:
    """The same step, compiled with memory first."""
    return f"{name}, memory first"
