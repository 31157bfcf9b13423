"""A figure of the benchmark: a ratio, with its spread, and what it should be."""

from dataclasses import dataclass
from typing import Any

import numpy as np


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
