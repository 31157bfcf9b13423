"""Gradient norms along training, of several repetitions."""

from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """The norms of one method by one strategy.

    Attributes:
      updates: where they were measured, above 0, `(points,)`.
      examples: the examples that were seen until there, `(points,)`.
      gradient: the norm of the full gradient, `(repetitions, points)`.
      sam_gradient: the norm of the full SAM gradient, `(repetitions, points)`.
    """

    updates: np.ndarray
    examples: np.ndarray
    gradient: np.ndarray
    sam_gradient: np.ndarray


Curves = dict[tuple[str, str], Curve]
"""By method and strategy."""
