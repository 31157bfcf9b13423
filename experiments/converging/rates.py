"""Fitted rates: slopes of norms along training, in logarithms of both."""

from typing import NamedTuple

import numpy as np


class Rate(NamedTuple):
    """The exponent of a power law.

    Attributes:
      slope: the mean of the slopes of the repetitions.
      standard_error: of that mean; NaN of a single repetition.
    """

    slope: float
    standard_error: float

    def __str__(self) -> str:
        if not np.isfinite(self.slope):
            return "–"
        slope = f"{self.slope:.2f}".replace("-", "−")
        return slope if np.isnan(self.standard_error) else f"{slope} ± {self.standard_error:.2f}"


def fitted_slope(x: np.ndarray, y: np.ndarray) -> float:
    """The slope of the least-squares line through `log y` over `log x`; NaN where it has none.

    Args:
      x: positive numbers, `(points,)`.
      y: the values there, `(points,)`.
    """
    if len(np.unique(x)) < 2 or not (np.isfinite(y).all() and (y > 0).all()):
        return float("nan")
    log_x, log_y = np.log(x), np.log(y)
    away = log_x - log_x.mean()
    return float(away @ (log_y - log_y.mean()) / (away @ away))


def late_rate(x: np.ndarray, values: np.ndarray) -> Rate:
    """The rate over the second half: from half of the last `x` on.

    Args:
      x: updates or examples, increasing, `(points,)`.
      values: one row a repetition, `(repetitions, points)`.
    """
    late = x >= x[-1] / 2
    slopes = np.asarray([fitted_slope(x[late], row[late]) for row in values])
    error = slopes.std(ddof=1) / np.sqrt(len(slopes)) if len(slopes) > 1 else float("nan")
    return Rate(float(slopes.mean()), float(error))
